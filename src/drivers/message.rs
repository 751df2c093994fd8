//! What a message of a LAN client holds: a value, an object, or names with values. The readers are those of files and of
//! serial links.

use super::serial_json;
use super::serial_lines::Pairs;
use super::support::names;
use super::support::printed::{self, Decimal, Printed};
use crate::options::Options;
use crate::reading::{Fault, FaultCode, Sample};

/// The quantity that a value without a name is, where the topic does not name it.
pub const WHOLE: &str = "value";

/// `form`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// One JSON object, as with `serial-json`.
    #[default]
    Json,
    /// Names and values, as with `serial-lines`.
    Pairs,
    /// One number, switch or text, perhaps with its unit.
    Plain,
}

/// Reads the key `form`; problems are noted there.
#[must_use]
pub fn form(options: &Options<'_>) -> Form {
    let words = [("json", Form::Json), ("pairs", Form::Pairs), ("plain", Form::Plain)];
    options.optional_word("form", &words).unwrap_or_default()
}

/// Reads the messages of one sensor.
#[derive(Debug)]
pub struct Reader(Kind);

#[derive(Debug)]
enum Kind {
    Json,
    Plain,
    /// It remembers the units.
    Pairs(Box<Pairs>),
}

impl Reader {
    /// A reader of that form.
    #[must_use]
    pub fn new(form: Form) -> Self {
        Self(match form {
            Form::Json => Kind::Json,
            Form::Plain => Kind::Plain,
            Form::Pairs => Kind::Pairs(Box::new(Pairs::new())),
        })
    }

    /// The samples of a message. `whole` is the quantity that a value without a name is.
    ///
    /// # Errors
    /// It cannot be understood, and why.
    pub fn samples(&mut self, payload: &[u8], whole: &str) -> Result<Vec<Sample>, Fault> {
        let bad = |why: String| Fault::new(FaultCode::BadData, why);
        match &mut self.0 {
            Kind::Json => serial_json::object(payload, "the message"),
            Kind::Pairs(pairs) => pairs.read(payload),
            Kind::Plain => {
                let text = std::str::from_utf8(payload).map_err(|_| bad("the message is not UTF-8".to_owned()))?;
                let printed = printed::whole(text, Decimal::Unsaid).map_err(bad)?;
                if printed == Printed::Broken {
                    let detail = format!("the device has no value (`{}`)", text.trim().escape_debug());
                    return Err(Fault::new(FaultCode::Impossible, detail));
                }
                Ok(printed.sample(names::quantity(whole), None).into_iter().collect())
            }
        }
    }
}

/// A name from a topic as one level of another; what cannot stand there becomes `_`.
#[must_use]
pub fn name(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    names::push_safe(&mut name, text);
    names::quantity(&name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::reading::Value;

    fn read(form: Form, payload: &str) -> Vec<(String, Value)> {
        let samples = Reader::new(form).samples(payload.as_bytes(), "temperature").expect("good");
        samples.into_iter().map(|sample| (sample.quantity.into_owned(), sample.value)).collect()
    }

    fn number(name: &str, value: f64) -> (String, Value) {
        (name.to_owned(), Value::number(value).expect("finite"))
    }

    #[test]
    fn objects_pairs_and_values_become_samples() {
        assert_eq!(
            read(Form::Json, r#"{"temp":21.5,"bat":{"v":3.1},"x":null}"#),
            [number("temp", 21.5), number("bat_v", 3.1)]
        );
        assert_eq!(read(Form::Pairs, "T=21.5 H=40%"), [number("T", 21.5), number("H", 40.0)]);
        assert_eq!(read(Form::Pairs, "T=21.5\r\nH=40\n"), [number("T", 21.5), number("H", 40.0)]);
        assert_eq!(read(Form::Plain, " 21.5 °C\n"), [number("temperature", 21.5)]);
        assert_eq!(read(Form::Plain, "ON"), [("temperature".to_owned(), Value::Switch(true))]);
        assert_eq!(read(Form::Plain, "-"), []);
    }

    #[test]
    fn what_cannot_be_understood_is_a_fault() {
        for (form, payload) in [
            (Form::Json, "21"),
            (Form::Json, "{\"a\":1"),
            (Form::Pairs, "nothing here"),
            (Form::Pairs, "T=1\nT=2"),
            (Form::Plain, "nan"),
            (Form::Plain, "21,5"),
        ] {
            assert!(Reader::new(form).samples(payload.as_bytes(), WHOLE).is_err(), "{form:?} {payload}");
        }
        assert!(Reader::new(Form::Plain).samples(b"\xff", WHOLE).is_err());
    }

    proptest! {
        #[test]
        fn no_message_makes_it_panic(payload in any::<Vec<u8>>(), text in "\\PC{0,40}") {
            for form in [Form::Json, Form::Pairs, Form::Plain] {
                let _ = Reader::new(form).samples(&payload, &name(&text));
                let _ = Reader::new(form).samples(text.as_bytes(), WHOLE);
            }
        }
    }
}
