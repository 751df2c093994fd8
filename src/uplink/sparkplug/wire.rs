//! The payload of Sparkplug B in bytes (specification 3.0, 6.4.1: the schema of `Payload` for Protocol Buffers, version 2).
//!
//! Written by hand: a dozen fields of a schema that does not change are less than a crate and what generates code for it,
//! and a reading goes straight into the output buffer. Whoever reads protobuf skips fields that it does not know, and so
//! does the reader here, which looks for one metric in the commands of a host.

use bytes::{BufMut, BytesMut};

/// The metric by which a host asks for all birth certificates (6.4.5, "Node Control/Rebirth").
pub const REBIRTH: &str = "Node Control/Rebirth";

/// The property that says the unit of a metric, by the name under which hosts look for it.
const UNIT_PROPERTY: &str = "engUnit";

// Fields of `Payload`.
const TIMESTAMP: u32 = 1;
const METRICS: u32 = 2;
const SEQ: u32 = 3;

// Fields of `Payload.Metric`.
const NAME: u32 = 1;
const ALIAS: u32 = 2;
const METRIC_TIMESTAMP: u32 = 3;
const DATATYPE: u32 = 4;
const IS_HISTORICAL: u32 = 5;
const IS_NULL: u32 = 7;
const METADATA: u32 = 8;
const PROPERTIES: u32 = 9;
const LONG_VALUE: u32 = 11;
const DOUBLE_VALUE: u32 = 13;
const BOOLEAN_VALUE: u32 = 14;
const STRING_VALUE: u32 = 15;
const BYTES_VALUE: u32 = 16;

// Fields of `Payload.MetaData`, `Payload.PropertySet` and `Payload.PropertyValue`.
const CONTENT_TYPE: u32 = 2;
const KEYS: u32 = 1;
const VALUES: u32 = 2;
const PROPERTY_TYPE: u32 = 1;
const PROPERTY_STRING: u32 = 8;

// Wire types (protobuf.dev, "Encoding").
const VARINT: u32 = 0;
const FIXED_64: u32 = 1;
const LENGTH: u32 = 2;
const FIXED_32: u32 = 5;

/// What a metric's value is (6.4.16, "Data Types"), as far as readings have such values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names are those of the specification")]
pub enum DataType {
    Int64 = 4,
    Double = 10,
    Boolean = 11,
    String = 12,
    Bytes = 17,
}

/// A metric's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar<'a> {
    /// There is none, and that is said.
    Null,
    /// Of [`DataType::Int64`].
    Long(u64),
    /// Of [`DataType::Double`].
    Double(f64),
    /// Of [`DataType::Boolean`].
    Boolean(bool),
    /// Of [`DataType::String`].
    Text(&'a str),
    /// Of [`DataType::Bytes`].
    Bytes(&'a [u8]),
}

/// A metric, as births and data hold it.
#[derive(Clone, Copy, Debug)]
pub struct Metric<'a> {
    /// Its name; left out where the alias says it.
    pub name: Option<&'a str>,
    /// The number that stands for its name.
    pub alias: Option<u64>,
    /// When it was measured, in milliseconds since 1970; `None`: the clock was not set.
    pub time: Option<u64>,
    /// What its values are; births say it.
    pub datatype: Option<DataType>,
    /// Its value is not the present one.
    pub historical: bool,
    /// Its unit; births say it.
    pub unit: Option<&'a str>,
    /// What its bytes are; births say it.
    pub content_type: Option<&'a str>,
    /// Its value.
    pub value: Scalar<'a>,
}

impl<'a> Metric<'a> {
    /// A metric as a birth names it.
    #[must_use]
    pub fn named(name: &'a str, datatype: DataType, value: Scalar<'a>) -> Self {
        Self {
            name: Some(name),
            alias: None,
            time: None,
            datatype: Some(datatype),
            historical: false,
            unit: None,
            content_type: None,
            value,
        }
    }
}

/// Appends when the payload is sent, in milliseconds since 1970.
pub fn put_time(out: &mut BytesMut, time: u64) {
    put_number(out, TIMESTAMP, time);
}

/// Appends the payload's sequence number.
pub fn put_seq(out: &mut BytesMut, seq: u8) {
    put_number(out, SEQ, seq.into());
}

/// Appends a metric to a payload.
pub fn put_metric(out: &mut BytesMut, metric: &Metric<'_>) {
    put_nested(out, METRICS, |out| {
        if let Some(name) = metric.name {
            put_bytes(out, NAME, name.as_bytes());
        }
        if let Some(alias) = metric.alias {
            put_number(out, ALIAS, alias);
        }
        if let Some(time) = metric.time {
            put_number(out, METRIC_TIMESTAMP, time);
        }
        if let Some(datatype) = metric.datatype {
            put_number(out, DATATYPE, datatype as u64);
        }
        if metric.historical {
            put_number(out, IS_HISTORICAL, 1);
        }
        if let Some(content_type) = metric.content_type {
            put_nested(out, METADATA, |out| put_bytes(out, CONTENT_TYPE, content_type.as_bytes()));
        }
        if let Some(unit) = metric.unit {
            put_nested(out, PROPERTIES, |out| {
                put_bytes(out, KEYS, UNIT_PROPERTY.as_bytes());
                put_nested(out, VALUES, |out| {
                    put_number(out, PROPERTY_TYPE, DataType::String as u64);
                    put_bytes(out, PROPERTY_STRING, unit.as_bytes());
                });
            });
        }
        match metric.value {
            Scalar::Null => put_number(out, IS_NULL, 1),
            Scalar::Long(number) => put_number(out, LONG_VALUE, number),
            Scalar::Double(number) => {
                put_varint(out, u64::from(DOUBLE_VALUE << 3 | FIXED_64));
                out.put_f64_le(number);
            }
            Scalar::Boolean(on) => put_number(out, BOOLEAN_VALUE, on.into()),
            Scalar::Text(text) => put_bytes(out, STRING_VALUE, text.as_bytes()),
            Scalar::Bytes(bytes) => put_bytes(out, BYTES_VALUE, bytes),
        }
    });
}

fn put_number(out: &mut BytesMut, field: u32, number: u64) {
    put_varint(out, u64::from(field << 3 | VARINT));
    put_varint(out, number);
}

fn put_bytes(out: &mut BytesMut, field: u32, bytes: &[u8]) {
    put_varint(out, u64::from(field << 3 | LENGTH));
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

/// A message in a message. Its length stands before it and is known after it: nearly always it takes one byte.
fn put_nested(out: &mut BytesMut, field: u32, body: impl FnOnce(&mut BytesMut)) {
    put_varint(out, u64::from(field << 3 | LENGTH));
    let at = out.len();
    out.put_u8(0);
    body(out);
    let length = out.len() - at - 1;
    let mut digits = BytesMut::new();
    put_varint(&mut digits, length as u64);
    if digits.len() > 1 {
        let more = digits.len() - 1;
        out.put_bytes(0, more);
        out.copy_within(at + 1..at + 1 + length, at + 1 + more);
    }
    out[at..at + digits.len()].copy_from_slice(&digits);
}

fn put_varint(out: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8(u8::try_from(number & 0x7f).expect("seven bits") | 0x80);
        number >>= 7;
    }
    out.put_u8(u8::try_from(number).expect("seven bits"));
}

/// What came is no payload of Sparkplug B.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no payload of Sparkplug B: {0}")]
pub struct Malformed(&'static str);

/// Does a command to the node (NCMD) ask for all birth certificates?
///
/// # Errors
/// It is no payload of Sparkplug B.
pub fn asks_for_rebirth(payload: &[u8]) -> Result<bool, Malformed> {
    let mut asked = false;
    let mut fields = Fields(payload);
    while let Some((field, content)) = fields.next()? {
        if field != METRICS {
            continue;
        }
        let Content::Bytes(metric) = content else { return Err(Malformed("a metric that is a number")) };
        asked |= is_rebirth(metric)?;
    }
    Ok(asked)
}

fn is_rebirth(metric: &[u8]) -> Result<bool, Malformed> {
    let (mut named, mut on) = (false, false);
    let mut fields = Fields(metric);
    while let Some((field, content)) = fields.next()? {
        match (field, content) {
            (NAME, Content::Bytes(name)) => named = name == REBIRTH.as_bytes(),
            (BOOLEAN_VALUE, Content::Number(number)) => on = number != 0,
            _ => {}
        }
    }
    Ok(named && on)
}

/// The fields of a message, one after the other.
struct Fields<'a>(&'a [u8]);

enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a fixed length, which no field that is looked for has.
    Fixed,
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
            FIXED_64 => self.take(8).map(|_| Content::Fixed)?,
            FIXED_32 => self.take(4).map(|_| Content::Fixed)?,
            LENGTH => {
                let length = self.varint()?;
                Content::Bytes(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            _ => return Err(Malformed("a field of an unknown kind")),
        };
        Ok(Some((key >> 3, content)))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed("it ends in the middle of a field"))?;
        self.0 = rest;
        Ok(taken)
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn payload(metric: &Metric<'_>) -> BytesMut {
        let mut out = BytesMut::new();
        put_time(&mut out, 1_795_256_130_123);
        put_metric(&mut out, metric);
        put_seq(&mut out, 255);
        out
    }

    #[test]
    fn the_bytes_are_those_of_protobuf() {
        let mut metric = Metric::named("a", DataType::Double, Scalar::Double(-1.5));
        metric.alias = Some(300);
        metric.time = Some(1);
        metric.historical = true;
        metric.unit = Some("V");
        let found = data_encoding::HEXLOWER.encode(&payload(&metric));
        // As the Python package `protobuf` writes it.
        let expected = concat!(
            "08cbb4eaec9f34",
            "1227",
            "0a0161",
            "10ac02",
            "1801",
            "200a",
            "2801",
            "4a10",
            "0a07656e67556e6974",
            "1205080c420156",
            "69000000000000f8bf",
            "18ff01"
        );
        assert_eq!(found, expected);
    }

    #[test]
    fn a_rebirth_is_asked_for_by_name_and_value() {
        let asked = |name, value| asks_for_rebirth(&payload(&Metric::named(name, DataType::Boolean, value)));
        assert_eq!(asked(REBIRTH, Scalar::Boolean(true)), Ok(true));
        assert_eq!(asked(REBIRTH, Scalar::Boolean(false)), Ok(false));
        assert_eq!(asked(REBIRTH, Scalar::Null), Ok(false));
        assert_eq!(asked("Node Control/Reboot", Scalar::Boolean(true)), Ok(false));
        assert_eq!(asks_for_rebirth(b""), Ok(false));
        for wrong in [
            &b"\x12"[..],
            b"\x12\x05\x0a",
            b"\x10\x01",
            b"\x00\x01",
            b"\x0b",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert!(asks_for_rebirth(wrong).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = asks_for_rebirth(&bytes);
        }

        /// However long it is, and whatever surrounds it; and cut anywhere it is refused, or asks for nothing.
        #[test]
        fn a_rebirth_is_found_among_others(
            before in ".{0,300}", alias: u64, number: f64, blob in prop::collection::vec(any::<u8>(), 0..20_000), cut: prop::sample::Index,
        ) {
            let mut out = BytesMut::new();
            put_metric(&mut out, &Metric { alias: Some(alias), ..Metric::named(&before, DataType::Double, Scalar::Double(number)) });
            put_metric(&mut out, &Metric::named("blob", DataType::Bytes, Scalar::Bytes(&blob)));
            let rest = out.len();
            prop_assert_eq!(asks_for_rebirth(&out), Ok(false));
            put_metric(&mut out, &Metric::named(REBIRTH, DataType::Boolean, Scalar::Boolean(true)));
            prop_assert_eq!(asks_for_rebirth(&out), Ok(true));
            let cut = rest + cut.index(out.len() - rest);
            prop_assert_ne!(asks_for_rebirth(&out[..cut]), Ok(true));
        }
    }
}
