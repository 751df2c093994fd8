//! The payload of Sparkplug B in bytes (specification 3.0, 6.4.1: the schema of `Payload` for Protocol Buffers, version 2).
//!
//! Written by hand: a dozen fields of a schema that does not change are less than a crate and what generates code for it,
//! and a reading goes straight into the output buffer. What hosts say is read in [`host`](super::host).

use bytes::{BufMut, BytesMut};

/// The metric by which a host asks for all birth certificates (6.4.5, "Node Control/Rebirth").
pub const REBIRTH: &str = "Node Control/Rebirth";

/// The property that says the unit of a metric, by the name under which hosts look for it.
const UNIT_PROPERTY: &str = "engUnit";

// Fields of `Payload`.
pub(super) const TIMESTAMP: u32 = 1;
pub(super) const METRICS: u32 = 2;
const SEQ: u32 = 3;

// Fields of `Payload.Metric`.
pub(super) const NAME: u32 = 1;
pub(super) const ALIAS: u32 = 2;
const METRIC_TIMESTAMP: u32 = 3;
pub(super) const DATATYPE: u32 = 4;
const IS_HISTORICAL: u32 = 5;
pub(super) const IS_NULL: u32 = 7;
const METADATA: u32 = 8;
const PROPERTIES: u32 = 9;
pub(super) const LONG_VALUE: u32 = 11;
pub(super) const DOUBLE_VALUE: u32 = 13;
pub(super) const BOOLEAN_VALUE: u32 = 14;
pub(super) const STRING_VALUE: u32 = 15;
const BYTES_VALUE: u32 = 16;

// Fields of `Payload.MetaData`, `Payload.PropertySet` and `Payload.PropertyValue`.
const CONTENT_TYPE: u32 = 2;
const KEYS: u32 = 1;
const VALUES: u32 = 2;
const PROPERTY_TYPE: u32 = 1;
const PROPERTY_STRING: u32 = 8;

// Wire types (protobuf.dev, "Encoding").
pub(super) const VARINT: u32 = 0;
pub(super) const FIXED_64: u32 = 1;
pub(super) const LENGTH: u32 = 2;
pub(super) const FIXED_32: u32 = 5;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_protobuf() {
        let mut metric = Metric::named("a", DataType::Double, Scalar::Double(-1.5));
        metric.alias = Some(300);
        metric.time = Some(1);
        metric.historical = true;
        metric.unit = Some("V");
        let mut out = BytesMut::new();
        put_time(&mut out, 1_795_256_130_123);
        put_metric(&mut out, &metric);
        put_seq(&mut out, 255);
        let found = data_encoding::HEXLOWER.encode(&out);
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
}
