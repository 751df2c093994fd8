//! A sample's value made into what its quantity is: a value of the right kind.

use crate::reading::{Finite, Kind, Value};

/// The value as one of that kind.
///
/// # Errors
/// Why it cannot be.
pub(super) fn to_kind(value: Value, kind: Kind) -> Result<Value, String> {
    match (kind, value) {
        (Kind::Event, value)
        | (Kind::Number, value @ Value::Number(_))
        | (Kind::Switch, value @ Value::Switch(_))
        | (Kind::Text, value @ Value::Text(_))
        | (Kind::Bytes, value @ Value::Bytes(_)) => Ok(value),
        (Kind::Number, Value::Switch(on)) => Ok(Value::Number(Finite::from(on))),
        (Kind::Number, Value::Text(text)) => {
            text.trim().parse().ok().and_then(Value::number).ok_or_else(|| format!("the text {text:?} is not a number"))
        }
        (Kind::Switch, Value::Number(number)) if number.get() == 0.0 => Ok(Value::Switch(false)),
        (Kind::Switch, Value::Number(number)) if number.get() == 1.0 => Ok(Value::Switch(true)),
        (Kind::Switch, Value::Text(text)) => match text.trim().to_ascii_lowercase().as_str() {
            "on" | "true" | "1" | "open" | "high" => Ok(Value::Switch(true)),
            "off" | "false" | "0" | "closed" | "low" => Ok(Value::Switch(false)),
            _ => Err(format!("the text {text:?} is not a switch (on/off, true/false, 1/0)")),
        },
        (Kind::Text, Value::Number(number)) => Ok(Value::Text(number.to_string().into())),
        (Kind::Text, Value::Switch(on)) => Ok(Value::Text(if on { "true" } else { "false" }.into())),
        (Kind::Bytes, Value::Text(text)) => Ok(Value::Bytes(text.into_boxed_bytes())),
        (kind, value) => Err(format!("{} where a {} was expected", noun(&value), expected(kind))),
    }
}

fn noun(value: &Value) -> String {
    match value {
        Value::Number(number) => format!("the number {number}"),
        Value::Switch(on) => format!("{on}"),
        Value::Text(text) => format!("the text {text:?}"),
        Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
    }
}

fn expected(kind: Kind) -> &'static str {
    match kind {
        Kind::Number => "number",
        Kind::Switch => "switch",
        Kind::Text => "text",
        Kind::Event => "event",
        Kind::Bytes => "run of bytes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_what_they_say() {
        assert_eq!(to_kind(Value::Text(" 21.5 ".into()), Kind::Number), Ok(Value::number(21.5).expect("finite")));
        assert_eq!(to_kind(Value::Text("ON".into()), Kind::Switch), Ok(Value::Switch(true)));
        assert_eq!(to_kind(Value::number(2.0).expect("finite"), Kind::Switch).ok(), None);
        assert!(to_kind(Value::Text("nan".into()), Kind::Number).is_err());
    }
}
