//! Numbers, texts, times and bytes, as several forms write them.

use std::fmt::Write;

use bytes::{BufMut, BytesMut};
use data_encoding::BASE64;
use serde::Serialize;

use crate::clock::WallTime;
use crate::config::TimeFormat;
use crate::reading::{Finite, Value};

/// A value in JSON; bytes as base64.
pub(super) fn put_value(out: &mut BytesMut, value: &Value) {
    match value {
        Value::Number(number) => put_number(out, *number),
        Value::Switch(on) => out.put_slice(if *on { b"true" } else { b"false" }),
        Value::Text(text) => put_json(out, &**text),
        Value::Bytes(bytes) => {
            out.put_u8(b'"');
            put_base64(out, bytes);
            out.put_u8(b'"');
        }
    }
}

/// Bytes as base64 (RFC 4648, 4).
pub(super) fn put_base64(out: &mut BytesMut, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + BASE64.encode_len(bytes.len()), 0);
    BASE64.encode_mut(bytes, &mut out[start..]);
}

/// A number in the shortest form that reads back as the same number, without `.0` for whole ones.
pub(super) fn put_number(out: &mut BytesMut, number: Finite) {
    // Adding zero turns -0 into 0.
    put_json(out, &(number.get() + 0.0));
    if out.ends_with(b".0") {
        out.truncate(out.len() - 2);
    }
}

/// Anything that JSON has a form for.
pub(super) fn put_json<T: Serialize + ?Sized>(out: &mut BytesMut, value: &T) {
    // Cannot fail: the buffer grows, and strings and numbers have a form in JSON.
    let _ = serde_json::to_writer(out.writer(), value);
}

/// A text in JSON, with its quotes.
pub(super) fn json(text: &str) -> String {
    serde_json::to_string(text).expect("a string has a form in JSON")
}

/// A time in JSON.
pub(super) fn put_time(out: &mut BytesMut, time: WallTime, format: TimeFormat) {
    // Writing to a buffer that grows cannot fail.
    let _ = match format {
        TimeFormat::Rfc3339 => write!(out, "\"{}\"", humantime::format_rfc3339_millis(time.to_system())),
        TimeFormat::Unix => {
            put_thousandths(out, milliseconds(time));
            Ok(())
        }
        TimeFormat::UnixMs => write!(out, "{}", milliseconds(time)),
    };
}

/// Milliseconds since 1970, of which the rest is cut off as in the other formats.
pub(super) fn milliseconds(time: WallTime) -> i64 {
    time.0.div_euclid(1_000_000)
}

/// Thousandths as a decimal number of three digits, of which those that say nothing are left out.
pub(super) fn put_thousandths(out: &mut BytesMut, thousandths: i64) {
    if thousandths < 0 {
        out.put_u8(b'-');
    }
    let (whole, rest) = (thousandths.unsigned_abs() / 1_000, thousandths.unsigned_abs() % 1_000);
    let _ = write!(out, "{whole}");
    if rest > 0 {
        let _ = write!(out, ".{rest:03}");
        while out.ends_with(b"0") {
            out.truncate(out.len() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_shortest_form() {
        for (given, expected) in [
            (0.1 + 0.2, "0.30000000000000004"),
            (-0.0, "0"),
            (1_013.25, "1013.25"),
            (4_294_967_296.0, "4294967296"),
            (-40.0, "-40"),
            (1e300, "1e+300"),
            (100.0, "100"),
            (1.5e-9, "1.5e-9"),
        ] {
            let mut out = BytesMut::new();
            put_number(&mut out, Finite::new(given).expect("finite"));
            assert_eq!(out, expected.as_bytes());
            assert_eq!(serde_json::from_slice::<f64>(&out).expect("JSON").to_bits(), (given + 0.0).to_bits());
        }
    }

    #[test]
    fn thousandths_have_no_digits_to_spare() {
        for (given, expected) in [
            (0, "0"),
            (1_000, "1"),
            (1_230, "1.23"),
            (-5, "-0.005"),
            (-60_100, "-60.1"),
            (i64::MIN, "-9223372036854775.808"),
        ] {
            let mut out = BytesMut::new();
            put_thousandths(&mut out, given);
            assert_eq!(out, expected.as_bytes());
        }
    }
}
