//! A line's JSON as samples, without a tree in between.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{MAX_DEPTH, MAX_NAME_BYTES, MAX_QUANTITIES};
use crate::drivers::support::names;
use crate::reading::{Sample, Value};

/// Turns what a JSON value holds into samples.
pub(super) struct Flatten<'a> {
    /// What the keys met so far make.
    pub(super) name: &'a mut String,
    pub(super) samples: &'a mut Vec<Sample>,
    /// Objects and arrays around the value, itself included where it is one.
    pub(super) depth: usize,
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
