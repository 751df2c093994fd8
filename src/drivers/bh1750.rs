//! ROHM BH1750FVI on I2C: illuminance.
//!
//! Data sheet: "BH1750FVI", technical note 2009.04 Rev. B (pages below). One measurement in H-resolution mode a sample.
//! Does not do the other modes.

use std::time::Duration;

use super::support::i2c::{self, Chip};
use super::support::measured::Scale;
use super::{Connection, Driver, OptionInfo, Parsed, Poller, QuantityInfo};
use crate::options::Options;
use crate::reading::{Fault, FaultCode, Kind, Sample};

pub(crate) static DRIVER: Driver = Driver {
    name: "bh1750",
    summary: "ROHM BH1750 on I2C: illuminance",
    notes: "\
Wiring: VCC to 3V3, GND, SDA to GPIO2, SCL to GPIO3. Address 0x23 with ADDR open or at ground, 0x5c with ADDR at 3V3. The
user that vigie runs as must belong to the group `i2c`.

Each sample is one measurement in steps of about 1 lx, which takes 180 ms at the longest (in proportion to
`measuring_time`); the chip is switched off in between. At the end of its range the chip is dazzled, which is the fault
`impossible`: a shorter `measuring_time` goes up to 120000 lx, in coarser steps; a longer one gives finer steps in the
dark, and corrects for a window that dims.

The chip has neither identity nor checksum: a data line that is stuck at ground reads as darkness.",
    sample: r#"[[sensor]]
name = "lumiere"
driver = "bh1750"
bus = 1
address = 0x23
every = "30s"
"#,
    connection: Connection::I2c(INFO),
    options: &[OptionInfo {
        name: "measuring_time",
        values: "31 to 254",
        default: Some("69"),
        help: "The register MTreg: 69 measures up to 54612 lx, 31 up to 121557 lx, 254 up to 14835 lx.",
    }],
    quantities: &[QuantityInfo {
        name: QUANTITY,
        unit: Some(UNIT),
        kind: Kind::Number,
        help: "0 to 54612 lx as delivered, ± 20 %.",
    }],
    parse,
};

const QUANTITY: &str = "illuminance";
const UNIT: &str = "lx";

const INFO: i2c::Info = i2c::Info { addresses: &[0x23, 0x5c], identify: None };

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let place = INFO.parse(options);
    let time = options.optional_in("measuring_time", MEASURING_TIMES);
    if time.is_none() && options.raw("measuring_time").is_some() {
        return None;
    }
    let time = time.unwrap_or(USUAL_TIME);
    Some(place?.sensor(move |chip| Bh1750::open(chip, time)))
}

/// What MTreg can be, and what it is as delivered (page 11).
const MEASURING_TIMES: std::ops::RangeInclusive<u8> = 31..=254;
const USUAL_TIME: u8 = 69;

// Commands (page 5): one measurement in H-resolution mode; the upper three and the lower five bits of MTreg.
const ONCE: u8 = 0b0010_0000;
const TIME_HIGH: u8 = 0b0100_0000;
const TIME_LOW: u8 = 0b0110_0000;

/// A measurement at its longest, with the usual time (page 2).
const MEASURING: Duration = Duration::from_millis(180);

/// What the chip gives for 1 lx with the usual time (page 11).
const COUNTS_PER_LUX: f64 = 1.2;

/// The chip takes one command a transaction (page 10).
fn set_time(chip: &mut Chip, time: u8) -> Result<(), Fault> {
    chip.send("the command Change Measurement Time (high bits)", &[TIME_HIGH | time >> 5])?;
    chip.send("the command Change Measurement Time (low bits)", &[TIME_LOW | time & 0b1_1111])
}

struct Bh1750 {
    chip: Chip,
    time: u8,
}

impl Bh1750 {
    fn open(mut chip: Chip, time: u8) -> Result<Self, Fault> {
        // Says at once whether somebody is there.
        set_time(&mut chip, time)?;
        Ok(Self { chip, time })
    }
}

impl Poller for Bh1750 {
    fn sample(&mut self) -> Result<Vec<Sample>, Fault> {
        // Each time: a chip that lost its power in between is right again.
        set_time(&mut self.chip, self.time)?;
        let measuring = MEASURING * u32::from(self.time) / u32::from(USUAL_TIME);
        self.chip.command("the command One Time H-Resolution Mode", &[ONCE], measuring)?;
        let count = u16::from_be_bytes(self.chip.receive("its measurement")?);
        Ok(vec![convert(count, self.time)?])
    }
}

/// Lux of a count (page 11).
fn convert(count: u16, time: u8) -> Result<Sample, Fault> {
    let lux = |count: u16| f64::from(count) / COUNTS_PER_LUX * f64::from(USUAL_TIME) / f64::from(time);
    if count == u16::MAX {
        let detail = format!(
            "the chip is dazzled, or its data line is stuck: it gives its largest value, {:.0} lx; a shorter \
             `measuring_time` measures more light",
            lux(count)
        );
        return Err(Fault::new(FaultCode::Impossible, detail));
    }
    Scale { quantity: QUANTITY, unit: UNIT, min: 0.0, max: lux(u16::MAX), decimals: 1 }.sample(lux(count))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::drivers::support::testing::{self, number};

    /// Page 10: the bytes 1000 0011 and 1001 0000 are about 28067 lx; page 11: the formula with MTreg.
    #[test]
    fn the_data_sheets_worked_example_comes_out() {
        let sample = convert(0b1000_0011_1001_0000, USUAL_TIME).expect("a value");
        assert!((number(&sample) - 28_067.0).abs() < 1.0, "{sample:?}");
        // "max 100000 lx" and a finest step of 0.23 lx in this mode.
        assert!(number(&convert(0xfffe, 31).expect("a value")) > 100_000.0);
        assert!((number(&convert(1, 254).expect("a value")) - 0.2).abs() < 1e-9);
        assert_eq!(convert(0xffff, USUAL_TIME).expect_err("dazzled").code, FaultCode::Impossible);
    }

    #[test]
    fn a_sample_sets_the_time_and_measures_once() {
        // MTreg 0100 0101: high bits 010, low bits 00101.
        let chip = testing::chip(
            0x23,
            &[(&[0b0100_0010], &[]), (&[0b0110_0101], &[]), (&[0b0010_0000], &[]), (&[], &[0x01, 0x68])],
        );
        let samples = Bh1750 { chip, time: USUAL_TIME }.sample().expect("a sample");
        assert_eq!(testing::numbers(&samples), [("illuminance", 300.0)]);
    }

    /// Half of the time and the same light.
    #[test]
    fn the_simulated_chip_is_read_with_any_measuring_time() {
        let machine = testing::sim();
        let value = |keys| {
            let mut chip = testing::open(&DRIVER, keys, &machine).expect("a chip");
            number(&chip.sample().expect("a sample")[0])
        };
        let (usual, short) = (value(""), value("measuring_time = 31"));
        assert!((80.0..560.0).contains(&usual), "{usual}");
        assert!((usual - short).abs() < 20.0, "{usual} {short}");
    }

    proptest! {
        #[test]
        fn every_answer_is_a_value_in_range_or_a_fault(count: u16, time in MEASURING_TIMES) {
            match convert(count, time) {
                Ok(sample) => prop_assert!((0.0..=121_558.0).contains(&number(&sample))),
                Err(fault) => prop_assert_eq!(fault.code, FaultCode::Impossible),
            }
        }
    }
}
