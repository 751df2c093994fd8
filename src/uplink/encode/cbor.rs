//! The few items of CBOR (RFC 8949) that SenML needs, each in its shortest form.
//!
//! Written here because the crates for it want either serde's data model, which has no integer labels, or a licence that
//! is not on our list. That others can read it is shown by a program that they wrote (`tests/it/interop/`).

use bytes::{BufMut, BytesMut};

const UNSIGNED: u8 = 0 << 5;
const NEGATIVE: u8 = 1 << 5;
const BYTES: u8 = 2 << 5;
const TEXT: u8 = 3 << 5;
const ARRAY: u8 = 4 << 5;
const MAP: u8 = 5 << 5;

/// The head of an item: its major type and argument (RFC 8949, 3).
#[expect(clippy::cast_possible_truncation, reason = "each arm holds what fits")]
fn put_head(out: &mut BytesMut, major: u8, argument: u64) {
    match argument {
        0..=23 => out.put_u8(major | argument as u8),
        24..=0xff => out.put_slice(&[major | 24, argument as u8]),
        0x100..=0xffff => {
            out.put_u8(major | 25);
            out.put_u16(argument as u16);
        }
        0x1_0000..=0xffff_ffff => {
            out.put_u8(major | 26);
            out.put_u32(argument as u32);
        }
        _ => {
            out.put_u8(major | 27);
            out.put_u64(argument);
        }
    }
}

/// The head of an array; its items follow.
pub(super) fn put_array(out: &mut BytesMut, items: usize) {
    put_head(out, ARRAY, items as u64);
}

/// The head of a map; its keys and values follow.
pub(super) fn put_map(out: &mut BytesMut, pairs: usize) {
    put_head(out, MAP, pairs as u64);
}

/// A whole number.
pub(super) fn put_integer(out: &mut BytesMut, number: i64) {
    if number < 0 {
        put_head(out, NEGATIVE, !number.cast_unsigned());
    } else {
        put_head(out, UNSIGNED, number.unsigned_abs());
    }
}

/// A text.
pub(super) fn put_text(out: &mut BytesMut, text: &str) {
    put_head(out, TEXT, text.len() as u64);
    out.put_slice(text.as_bytes());
}

/// Bytes.
pub(super) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_head(out, BYTES, bytes.len() as u64);
    out.put_slice(bytes);
}

/// A truth value.
pub(super) fn put_bool(out: &mut BytesMut, on: bool) {
    out.put_u8(if on { 0xf5 } else { 0xf4 });
}

/// A number in the shortest form that is the same double: an integer, or a float of 32 or 64 bits.
pub(super) fn put_number(out: &mut BytesMut, number: f64) {
    #[expect(clippy::cast_possible_truncation, reason = "whole, and within the 53 bits that a double holds exactly")]
    if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 {
        return put_integer(out, number as i64);
    }
    #[expect(clippy::cast_possible_truncation, reason = "only taken where nothing is lost")]
    let short = number as f32;
    if f64::from(short).to_bits() == number.to_bits() {
        out.put_u8(0xfa);
        out.put_f32(short);
    } else {
        out.put_u8(0xfb);
        out.put_f64(number);
    }
}

/// Thousandths as a number.
pub(super) fn put_thousandths(out: &mut BytesMut, thousandths: i64) {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds are exact until the year 287396")]
    put_number(out, thousandths as f64 / 1_000.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(put: impl FnOnce(&mut BytesMut)) -> String {
        let mut out = BytesMut::new();
        put(&mut out);
        data_encoding::HEXLOWER.encode(&out)
    }

    /// Examples of RFC 8949, appendix A.
    #[test]
    fn items_are_as_in_the_rfc() {
        for (number, expected) in [
            (0, "00"),
            (23, "17"),
            (24, "1818"),
            (100, "1864"),
            (1_000, "1903e8"),
            (1_000_000, "1a000f4240"),
            (1_000_000_000_000, "1b000000e8d4a51000"),
            (-1, "20"),
            (-100, "3863"),
            (-1_000, "3903e7"),
            (i64::MIN, "3b7fffffffffffffff"),
        ] {
            assert_eq!(hex(|out| put_integer(out, number)), expected);
        }
        for (number, expected) in [
            (1.1, "fb3ff199999999999a"),
            (100_000.5, "fa47c35040"),
            (-4.1, "fbc010666666666666"),
            (1.0e300, "fb7e37e43c8800759c"),
        ] {
            assert_eq!(hex(|out| put_number(out, number)), expected);
        }
        assert_eq!(hex(|out| put_number(out, -0.0)), "00");
        assert_eq!(hex(|out| put_text(out, "IETF")), "6449455446");
        assert_eq!(hex(|out| put_text(out, "ü")), "62c3bc");
        assert_eq!(hex(|out| put_bytes(out, &[1, 2, 3, 4])), "4401020304");
        assert_eq!(hex(|out| put_bool(out, true)), "f5");
        assert_eq!(hex(|out| put_array(out, 25)), "9819");
        assert_eq!(hex(|out| put_map(out, 0)), "a0");
    }
}
