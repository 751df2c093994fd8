//! Descriptions, what they make of answers, and both raw drivers on simulated chips.

use std::sync::Arc;

use proptest::prelude::*;
use toml::de::DeTable;

use super::*;
use crate::clock::{SystemClock, Trust};
use crate::drivers::{self, Source};
use crate::hardware::sim::Sim;
use crate::options::Problems;
use crate::reading::{FaultCode, Value};

fn described(text: &str, bus: Bus) -> Result<Description, Vec<String>> {
    let table = DeTable::parse(text).expect("TOML");
    let problems = Problems::new();
    let options = Options::new(table.get_ref(), 0..0, "the sensor", &problems);
    let description = parse(&options, bus);
    drop(options);
    let messages: Vec<String> = problems.into_sorted().into_iter().map(|problem| problem.message).collect();
    if messages.is_empty() { Ok(description.expect("no problems")) } else { Err(messages) }
}

/// The only value of a description with these keys, for that answer.
fn number(keys: &str, answer: &[u8]) -> Result<f64, FaultCode> {
    let description = described(&format!("[[value]]\nquantity = \"x\"\n{keys}"), Bus::I2c).expect("a description");
    let samples = description.samples(&[answer.to_vec()]).map_err(|fault| fault.code)?;
    match samples[0].value {
        Value::Number(number) => Ok(number.get()),
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn numbers_of_data_sheets_come_out() {
    // TMP117 (SNOSD82, table 7-1): 25 °C is 0x0c80, -25 °C 0xf380, and -256 °C the value before a measurement.
    let tmp117 = "length = 2\nsigned = true\nscale = 0.0078125\nrange = [-55, 150]";
    assert_eq!(number(tmp117, &[0x0c, 0x80]), Ok(25.0));
    assert_eq!(number(tmp117, &[0xf3, 0x80]), Ok(-25.0));
    assert_eq!(number(tmp117, &[0x80, 0x00]), Err(FaultCode::Impossible));
    // LM75B (table 10): 11 bits from the left.
    let lm75 = "length = 2\nbits = [15, 5]\nsigned = true\nscale = 0.125";
    assert_eq!(number(lm75, &[0xe7, 0x00]), Ok(-25.0));
    assert_eq!(number(lm75, &[0x19, 0x1f]), Ok(25.0), "the other bits do not count");
    assert_eq!(number("length = 3\norder = \"little\"", &[1, 2, 3]), Ok(f64::from(0x03_02_01)));
    assert_eq!(number("at = 2\nbits = [3, 3]", &[0, 0, 0b1111_0111]), Ok(0.0));
    assert_eq!(number("length = 4\nsigned = true", &[0xff; 4]), Ok(-1.0));
    assert_eq!(number("length = 4", &[0xff; 4]), Ok(4_294_967_295.0));
    assert_eq!(number("scale = 0.1", &[3]), Ok(0.3), "no noise in the last digits");
    assert_eq!(number("scale = 1e308\nlength = 4", &[0xff; 4]), Err(FaultCode::Impossible), "no number at all");
}

#[test]
fn values_with_the_same_question_share_a_transaction() {
    let text = "value = [
        { quantity = \"a\", register = 0x10, length = 2 },
        { quantity = \"b\", register = 0x10, at = 2, length = 3 },
        { quantity = \"c\", send = [0x10] },
        { quantity = \"d\", register = 0x20 },
        { quantity = \"e\" },
    ]";
    let description = described(text, Bus::I2c).expect("a description");
    let questions: Vec<(&[u8], usize)> = description.questions.iter().map(|q| (&*q.send, q.length)).collect();
    assert_eq!(questions, [(&[0x10][..], 5), (&[0x20], 1), (&[], 1)]);
}

#[test]
fn checksums_are_read_with_the_answer_and_checked() {
    let text = "crc = { polynomial = 0x31, init = 0xff, every = 2 }
        value = [{ quantity = \"t\", length = 2 }, { quantity = \"h\", at = 3, length = 2 }]";
    let description = described(text, Bus::I2c).expect("a description");
    assert_eq!(description.questions[0].length, 6);
    let right = [0xbe, 0xef, 0x92, 0xbe, 0xef, 0x92];
    assert_eq!(description.check(&right), Ok(()));
    for byte in 0..6 {
        let mut wrong = right;
        wrong[byte] ^= 0x10;
        let what = description.check(&wrong).expect_err("a wrong checksum");
        assert!(what.contains(if byte < 3 { "byte 2" } else { "byte 5" }), "{what}");
    }
    let once = "crc = { polynomial = 0x07 }\nvalue = [{ quantity = \"x\", length = 3 }]";
    let description = described(once, Bus::I2c).expect("a description");
    assert_eq!(description.questions[0].length, 4);
    assert_eq!(description.check(&[0, 0, 0, 0]), Ok(()));
    assert!(description.check(&[0, 0, 0, 1]).is_err());
}

#[test]
fn mistakes_are_told() {
    let value = |keys: &str| format!("[[value]]\nquantity = \"x\"\n{keys}");
    for (text, bus, part) in [
        (String::new(), Bus::I2c, "lacks the key `value`"),
        ("value = []".to_owned(), Bus::I2c, "no list of 1 to 64 tables"),
        ("value = [1]".to_owned(), Bus::I2c, "value 1 of the sensor has the wrong type"),
        ("[[value]]\nregister = 1".to_owned(), Bus::I2c, "lacks the key `quantity`"),
        (value("[[value]]\nquantity = \"x\""), Bus::I2c, "another value's already"),
        ("[[value]]\nquantity = \"set\"".to_owned(), Bus::I2c, "vigie's own topics"),
        (value("register = 256"), Bus::I2c, "`register`"),
        (value("register = 1\nsend = [1]"), Bus::I2c, "both `register` and `send`"),
        (value("length = 5"), Bus::I2c, "`length`"),
        (value("bits = [8, 0]"), Bus::I2c, "`bits`"),
        (value("bits = [0, 1]"), Bus::I2c, "`bits`"),
        (value("bits = [3]"), Bus::I2c, "`bits`"),
        (value("order = \"middle\""), Bus::I2c, "`order`"),
        (value("range = [5, 5]"), Bus::I2c, "`range`"),
        (value("sacle = 2"), Bus::I2c, "no key `sacle`"),
        (value("send = []"), Bus::I2c, "has 0 bytes"),
        (value("register = 0"), Bus::Spi, "lacks the key `send`"),
        (value("send = [6, 0]\nat = 1\nlength = 2"), Bus::Spi, "only 2 bytes"),
        (format!("wait = \"1m\"\n{}", value("")), Bus::I2c, "`wait`"),
        (format!("init = [[]]\n{}", value("")), Bus::I2c, "`init`"),
        (format!("identity = {{ register = 1 }}\n{}", value("")), Bus::I2c, "lacks the key `value`"),
        (format!("crc = {{ init = 1 }}\n{}", value("")), Bus::I2c, "lacks the key `polynomial`"),
        (
            format!("crc = {{ polynomial = 0x31, every = 2 }}\n{}", value("at = 1\nlength = 2")),
            Bus::I2c,
            "byte 2 of the answer, which is a checksum",
        ),
    ] {
        let problems = described(&text, bus).expect_err(&text);
        assert!(problems.iter().any(|problem| problem.contains(part)), "{text}: {problems:?}");
    }
}

/// A driver's first sample of a simulated chip.
fn sampled(driver: &str, text: &str) -> Result<Vec<Sample>, Fault> {
    let table = DeTable::parse(text).expect("TOML");
    let problems = Problems::new();
    let options = Options::new(table.get_ref(), 0..0, "the sensor", &problems);
    let parsed = (drivers::find(driver).expect("a driver").parse)(&options);
    assert!(problems.is_empty(), "{problems:?}");
    let Source::Poller(device) = parsed.expect("no problems").source else { panic!("a poller") };
    let hardware = Sim::new(Arc::new(SystemClock::new(Trust::Kernel)), 5);
    device.open(&hardware)?.sample()
}

#[test]
fn a_simulated_chip_with_commands_and_checksums_is_read() {
    // The SHT4x, without its driver.
    let text = "address = 0x44\nmeasure = [0xfd]\nwait = \"9ms\"
        crc = { polynomial = 0x31, init = 0xff, every = 2 }
        value = [{ quantity = \"t\", length = 2, scale = 0.0026703288, offset = -45, range = [10, 30] },
                 { quantity = \"h\", at = 3, length = 2, scale = 0.0019073777, offset = -6, range = [20, 80] }]";
    assert_eq!(sampled("i2c-raw", text).map(|samples| samples.len()), Ok(2));
    let fault = sampled("i2c-raw", &text.replace("0x31", "0x07")).expect_err("another checksum");
    assert_eq!(fault.code, FaultCode::Crc);
}

#[test]
fn another_chip_is_told_by_its_identity() {
    let text = |value: u32| {
        format!(
            "address = 0x18\nidentity = {{ register = 7, length = 2, bits = [15, 8], value = {value} }}
             [[value]]\nquantity = \"t\"\nregister = 5\nlength = 2"
        )
    };
    assert!(sampled("i2c-raw", &text(4)).is_ok());
    let fault = sampled("i2c-raw", &text(5)).expect_err("another chip");
    assert!(fault.code == FaultCode::WrongChip && fault.detail.contains("0x4, not 0x5"), "{fault}");
    let fault = sampled("i2c-raw", &text(4).replace("0x18", "0x19")).expect_err("nobody there");
    assert_eq!(fault.code, FaultCode::Missing);
}

#[test]
fn init_messages_are_written() {
    // MCP9808: the coarsest resolution, in its register 8, which is read back.
    let text =
        "address = 0x18\ninit = [[0x08, 0x00]]\n[[value]]\nquantity = \"resolution\"\nregister = 8\nrange = [-1, 0]";
    assert!(sampled("i2c-raw", text).is_ok());
}

proptest! {
    #[test]
    fn a_field_never_exceeds_its_bits(
        answer in prop::collection::vec(any::<u8>(), 0..40),
        at in 0_usize..32,
        length in 1_usize..=4,
        little_endian: bool,
        signed: bool,
        bits: (u32, u32),
    ) {
        let total = u32::try_from(length * 8).expect("at most 32");
        let low = bits.0 % total;
        let width = bits.1 % (total - low) + 1;
        let number = Field { at, length, little_endian, low, width, signed }.number(&answer);
        let (min, max) = if signed { (-(1_i64 << (width - 1)), (1 << (width - 1)) - 1) } else { (0, (1 << width) - 1) };
        prop_assert!((min..=max).contains(&number), "{number}");
    }

    #[test]
    fn any_answer_is_samples_or_a_fault(answer in prop::collection::vec(any::<u8>(), 0..8)) {
        let text = "crc = { polynomial = 0x31, init = 0xff, every = 2 }
            value = [{ quantity = \"t\", length = 2, signed = true, range = [-5, 5] }]";
        let description = described(text, Bus::I2c).expect("a description");
        let _ = description.check(&answer);
        let _ = description.samples(&[answer]);
    }
}
