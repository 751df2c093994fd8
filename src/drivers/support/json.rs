//! One JSON object as samples: its keys become quantities as they are met, without a tree in between.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::names;
use crate::reading::{Fault, FaultCode, Sample, Value};

/// Objects and arrays within one another, the outermost included.
pub(crate) const MAX_DEPTH: usize = 8;

/// Values in one object, null excluded.
pub(crate) const MAX_QUANTITIES: usize = 128;

/// Bytes of a quantity's name, made of all keys that lead to it.
pub(crate) const MAX_NAME_BYTES: usize = 128;

/// Characters of a bad line that its fault shows.
const EXCERPT: usize = 60;

/// Reads objects; keeps its memory from one to the next.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    /// The name that the keys met so far make.
    name: String,
    /// How many samples the last object gave: a good guess for the next one.
    expected: usize,
}

impl Objects {
    /// The samples of a text that is one object.
    pub(crate) fn read(&mut self, text: &[u8]) -> Result<Vec<Sample>, serde_json::Error> {
        let mut samples = Vec::with_capacity(self.expected);
        self.name.clear();
        let mut json = serde_json::Deserializer::from_slice(text);
        json.deserialize_map(Flatten { name: &mut self.name, samples: &mut samples, depth: 1 })?;
        json.end()?;
        self.expected = samples.len();
        Ok(samples)
    }
}

/// What is wrong with `what`, "a line" or the like, that should have been an object.
pub(crate) fn fault(what: &str, text: &[u8], error: &serde_json::Error) -> Fault {
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    // The column is in bytes, and that of one line.
    let line = text.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1)).unwrap_or(text);
    let text = String::from_utf8_lossy(line);
    let excerpt: String = text.trim().chars().take(EXCERPT).flat_map(char::escape_default).collect();
    let lower = text.to_ascii_lowercase();
    let hint = if lower.contains("nan") || lower.contains("inf") {
        "; `nan` and `inf` are not JSON: have the sketch print null"
    } else {
        ""
    };
    Fault::new(
        FaultCode::BadData,
        format!("{what} is not one JSON object: {message} (byte {} of `{excerpt}`){hint}", error.column()),
    )
}

/// Turns what a JSON value holds into samples.
struct Flatten<'a> {
    name: &'a mut String,
    samples: &'a mut Vec<Sample>,
    /// Objects and arrays around the value, itself included where it is one.
    depth: usize,
}

impl Flatten<'_> {
    fn push<E: Error>(self, value: Value) -> Result<(), E> {
        if self.samples.len() == MAX_QUANTITIES {
            return Err(E::custom(format_args!("more than {MAX_QUANTITIES} values")));
        }
        let name = names::quantity(self.name);
        // Lines are short: to look through what is there is quicker than to keep a table.
        if self.samples.iter().any(|sample| *sample.quantity == *name) {
            return Err(E::custom(format_args!("two keys both become the quantity `{name}`")));
        }
        self.samples.push(Sample::new(name, value));
        Ok(())
    }

    /// Goes into a part of the value, whose name is `longer` than this one's.
    fn part(&mut self) -> Flatten<'_> {
        Flatten { name: self.name, samples: self.samples, depth: self.depth + 1 }
    }

    fn check_depth<E: Error>(&self) -> Result<(), E> {
        if self.depth > MAX_DEPTH {
            return Err(E::custom(format_args!("nested more than {MAX_DEPTH} levels deep")));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Flatten<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Flatten<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, switch: bool) -> Result<(), E> {
        self.push(Value::Switch(switch))
    }

    #[expect(clippy::cast_precision_loss, reason = "a number is a double; beyond 2^53 the nearest one")]
    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    #[expect(clippy::cast_precision_loss, reason = "a number is a double; beyond 2^53 the nearest one")]
    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        let value = Value::number(number).ok_or_else(|| E::custom("number out of range"))?;
        self.push(value)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.push(Value::Text(text.into()))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.check_depth()?;
        let base = self.name.len();
        while map.next_key_seed(Key(self.name))?.is_some() {
            map.next_value_seed(self.part())?;
            self.name.truncate(base);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.check_depth()?;
        let base = self.name.len();
        for index in 0_usize.. {
            append(self.name, &index.to_string())?;
            let more = items.next_element_seed(self.part())?.is_some();
            self.name.truncate(base);
            if !more {
                break;
            }
        }
        Ok(())
    }
}

/// Appends a key to the name of the value that it leads to.
struct Key<'a>(&'a mut String);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<(), E> {
        append(self.0, key)
    }
}

fn append<E: Error>(name: &mut String, key: &str) -> Result<(), E> {
    if !name.is_empty() {
        name.push('_');
    }
    if name.len() + key.len() > MAX_NAME_BYTES {
        return Err(E::custom(format_args!("a name of more than {MAX_NAME_BYTES} bytes")));
    }
    names::push_safe(name, key);
    Ok(())
}
