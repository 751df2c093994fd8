//! What a host says: commands to the node (NCMD) and to its devices (DCMD; specification 3.0, 6.4.24 and 6.4.25).
//!
//! Whoever reads protobuf skips fields that it does not know, and so does the reader here.

use serde_json::{Map, Number, Value};

use super::book::Book;
use super::wire::{
    ALIAS, BOOLEAN_VALUE, DATATYPE, DOUBLE_VALUE, FIXED_32, FIXED_64, IS_NULL, LENGTH, LONG_VALUE, METRICS, NAME,
    REBIRTH, STRING_VALUE, TIMESTAMP, VARINT,
};
use crate::clock::WallTime;
use crate::config::Writable;

// Further fields of `Payload.Metric`.
const INT_VALUE: u32 = 10;
const FLOAT_VALUE: u32 = 12;

/// Types of signed integers (6.4.16): Int8, Int16, Int32 and Int64.
const SIGNED: std::ops::RangeInclusive<u64> = 1..=4;

/// Names that a command's payload has for its sender, and not for the device.
const RESERVED: [&str; 2] = ["time", "ref"];

/// What came is no payload of Sparkplug B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no payload of Sparkplug B: {0}")]
pub(super) struct Malformed(&'static str);

/// What a metric is to be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Given<'a> {
    Nothing,
    /// Of 32 bits or 64, whose type says whether they have a sign.
    Integer {
        bits: u64,
        is_long: bool,
    },
    Number(f64),
    Switch(bool),
    Text(&'a str),
}

/// A metric of a command.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Wanted<'a> {
    name: Option<&'a str>,
    alias: Option<u64>,
    datatype: Option<u64>,
    given: Given<'a>,
}

/// A command.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Command<'a> {
    /// When it was sent, in milliseconds since 1970.
    time: Option<u64>,
    metrics: Vec<Wanted<'a>>,
}

impl<'a> Command<'a> {
    /// Reads it.
    ///
    /// # Errors
    /// It is no payload of Sparkplug B.
    pub(super) fn read(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut command = Self::default();
        let mut fields = Fields(payload);
        while let Some((field, content)) = fields.next()? {
            match (field, content) {
                (TIMESTAMP, Content::Number(time)) => command.time = Some(time),
                (METRICS, Content::Bytes(metric)) => command.metrics.push(Wanted::read(metric)?),
                (METRICS, _) => return Err(Malformed("a metric that is a number")),
                _ => {}
            }
        }
        Ok(command)
    }

    /// Does it ask for all birth certificates (6.4.5, "Node Control/Rebirth")?
    #[must_use]
    pub(super) fn asks_for_rebirth(&self) -> bool {
        self.metrics.iter().any(|metric| metric.name == Some(REBIRTH) && metric.given == Given::Switch(true))
    }

    /// When it was sent, if it says so and that is a time (RFC 3339).
    #[must_use]
    pub(super) fn time(&self) -> Option<String> {
        let nanos = i64::try_from(self.time?.checked_mul(1_000_000)?).ok()?;
        Some(humantime::format_rfc3339_millis(WallTime(nanos).to_system()).to_string())
    }

    /// What the device of this name is to get: the JSON object that `…/set` takes, with the names that the device has for
    /// its quantities.
    ///
    /// # Errors
    /// Why that cannot be.
    pub(super) fn object(&self, device: &str, writable: &Writable, book: &Book) -> Result<String, String> {
        let mut object = Map::new();
        for metric in &self.metrics {
            let name = match (metric.alias, metric.name) {
                (Some(alias), _) => book
                    .name_of(device, alias)
                    .ok_or_else(|| format!("the device has no metric with the alias {alias} that can be written"))?,
                (None, Some(name)) if book.has(device, name) => name,
                (None, Some(name)) => return Err(format!("the device has no metric `{name}` that can be written")),
                (None, None) => return Err("a metric without a name".to_owned()),
            };
            let own = match writable.names.get(name) {
                Some(None) => return Err(format!("`{name}` is derived from another quantity, and cannot be written")),
                Some(Some(own)) => own,
                None => name,
            };
            if RESERVED.contains(&own) {
                return Err(format!("`{own}` cannot be written: commands have something else under this name"));
            }
            let value =
                metric.value().ok_or_else(|| format!("`{name}` cannot be written with what was sent for it"))?;
            object.insert(own.to_owned(), value);
        }
        if object.is_empty() {
            return Err("nothing is to be written".to_owned());
        }
        serde_json::to_string(&object).map_err(|error| error.to_string())
    }
}

impl<'a> Wanted<'a> {
    fn read(metric: &'a [u8]) -> Result<Self, Malformed> {
        let mut read = Self { name: None, alias: None, datatype: None, given: Given::Nothing };
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| Malformed("a text that is not UTF-8"));
        let mut fields = Fields(metric);
        while let Some((field, content)) = fields.next()? {
            match (field, content) {
                (NAME, Content::Bytes(name)) => read.name = Some(text(name)?),
                (ALIAS, Content::Number(alias)) => read.alias = Some(alias),
                (DATATYPE, Content::Number(datatype)) => read.datatype = Some(datatype),
                (IS_NULL, Content::Number(1..)) => read.given = Given::Nothing,
                (INT_VALUE, Content::Number(bits)) => read.given = Given::Integer { bits, is_long: false },
                (LONG_VALUE, Content::Number(bits)) => read.given = Given::Integer { bits, is_long: true },
                (FLOAT_VALUE, Content::Fixed32(bytes)) => read.given = Given::Number(f32::from_le_bytes(bytes).into()),
                (DOUBLE_VALUE, Content::Fixed64(bytes)) => read.given = Given::Number(f64::from_le_bytes(bytes)),
                (BOOLEAN_VALUE, Content::Number(number)) => read.given = Given::Switch(number != 0),
                (STRING_VALUE, Content::Bytes(bytes)) => read.given = Given::Text(text(bytes)?),
                _ => {}
            }
        }
        Ok(read)
    }

    /// The value in JSON; `None`: it has none there.
    fn value(&self) -> Option<Value> {
        match self.given {
            Given::Nothing => None,
            Given::Switch(on) => Some(on.into()),
            Given::Text(text) => Some(text.into()),
            Given::Number(number) => Some(Value::Number(shortest(number)?)),
            Given::Integer { bits, is_long } => {
                let is_signed = self.datatype.map(|datatype| SIGNED.contains(&datatype));
                // Negative ones of 32 bits come with as many, or with 64.
                let signed = if is_long { bits.cast_signed() } else { low_half(bits).cast_signed().into() };
                match is_signed {
                    Some(true) => Some(signed.into()),
                    Some(false) => Some(bits.into()),
                    // Nobody says whether it is negative or large.
                    None => (signed >= 0).then(|| bits.into()),
                }
            }
        }
    }
}

/// The lower 32 bits.
fn low_half(bits: u64) -> u32 {
    u32::try_from(bits & u64::from(u32::MAX)).expect("32 bits are left")
}

/// Whole numbers without a fraction, as far as all of them have a double of their own; `None`: not finite.
fn shortest(number: f64) -> Option<Number> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() < EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "whole, and below 2^53")]
        return Some((number as i64).into());
    }
    Number::from_f64(number)
}

/// See [`Fields`].
const CUT: Malformed = Malformed("it ends in the middle of a field");

/// The fields of a message, one after the other.
struct Fields<'a>(&'a [u8]);

enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
    Fixed64([u8; 8]),
}

impl<'a> Fields<'a> {
    /// Number and content of the next one.
    fn next(&mut self) -> Result<Option<(u32, Content<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = u32::try_from(self.varint()?).map_err(|_| Malformed("a field with too large a number"))?;
        if key >> 3 == 0 {
            return Err(Malformed("a field with the number 0"));
        }
        let content = match key & 7 {
            VARINT => Content::Number(self.varint()?),
            FIXED_64 => Content::Fixed64(self.array()?),
            FIXED_32 => Content::Fixed32(self.array()?),
            LENGTH => {
                let length = self.varint()?;
                Content::Bytes(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            _ => return Err(Malformed("a field of an unknown kind")),
        };
        Ok(Some((key >> 3, content)))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(CUT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const COUNT: usize>(&mut self) -> Result<[u8; COUNT], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(CUT)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            // Of the tenth byte one bit counts; what is beyond it is dropped, as other readers do.
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed("a number of more than ten bytes"))
    }
}

#[cfg(test)]
mod tests;
