//! A sample's value made into what its quantity is: the right kind, calibrated, rounded.

use super::QuantityConfig;
use crate::reading::{Finite, Kind, Value};

/// Converts and calibrates.
///
/// # Errors
/// Why the value cannot be of that kind.
pub(super) fn convert(value: Value, kind: Kind, config: &QuantityConfig) -> Result<Value, String> {
    let value = to_kind(value, kind)?;
    match value {
        Value::Number(number) => calibrate(number, config).map(Value::Number),
        other => Ok(other),
    }
}

fn to_kind(value: Value, kind: Kind) -> Result<Value, String> {
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

fn calibrate(number: Finite, config: &QuantityConfig) -> Result<Finite, String> {
    let mut result = number.get();
    if let Some(factor) = config.multiply {
        result *= factor.get();
    }
    if let Some(offset) = config.offset {
        result += offset.get();
    }
    if let Some(digits) = config.round {
        result = round(result, digits);
    }
    Finite::new(result).ok_or_else(|| format!("{number} is too large once calibrated"))
}

/// Rounds half away from zero. Numbers so large that scaling them overflows have no digits left to round.
fn round(number: f64, digits: u8) -> f64 {
    let scale = 10_f64.powi(i32::from(digits));
    let scaled = number * scale;
    if scaled.is_finite() { scaled.round() / scale } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_become_what_they_say() {
        let plain = QuantityConfig::default();
        assert_eq!(
            convert(Value::Text(" 21.5 ".into()), Kind::Number, &plain),
            Ok(Value::number(21.5).expect("finite"))
        );
        assert_eq!(convert(Value::Text("ON".into()), Kind::Switch, &plain), Ok(Value::Switch(true)));
        assert_eq!(convert(Value::number(2.0).expect("finite"), Kind::Switch, &plain).ok(), None);
        assert!(convert(Value::Text("nan".into()), Kind::Number, &plain).is_err());
    }

    proptest! {
        #[test]
        fn what_comes_out_is_finite_or_an_error(
            number in proptest::num::f64::NORMAL, factor in proptest::num::f64::NORMAL,
            offset in proptest::num::f64::NORMAL, round in 0..20_u8,
        ) {
            let config = QuantityConfig {
                multiply: Finite::new(factor), offset: Finite::new(offset), round: Some(round),
                ..QuantityConfig::default()
            };
            let value = Value::number(number).expect("finite");
            if let Ok(Value::Number(result)) = convert(value, Kind::Number, &config) {
                prop_assert!(result.get().is_finite());
            }
        }
    }
}
