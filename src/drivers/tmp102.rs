//! Texas Instruments TMP102 (and TMP112), a temperature sensor on I2C.
//!
//! Data sheet: SBOS397 (sections below are revision H's). One conversion a sample; the chip sleeps in between. Does not
//! do the alert output.

use std::thread;
use std::time::Duration;

use super::support::i2c::{self, Chip, Register};
use super::support::measured::Scale;
use super::{Connection, Driver, Parsed, Poller};
use crate::options::Options;
use crate::reading::{Fault, FaultCode, Sample};

const TEMPERATURE: Scale = Scale { quantity: "temperature", unit: "°C", min: -55.0, max: 150.0, decimals: 2 };

pub(crate) static DRIVER: Driver = Driver {
    name: "tmp102",
    summary: "TMP102 or TMP112 on I2C: temperature",
    notes: "\
Wiring: V+ to 3V3 (no more than 3.6 V), GND, SDA to GPIO2, SCL to GPIO3; the address is 0x48 with ADD0 at ground, 0x49
at V+, 0x4a at SDA, 0x4b at SCL. The user that vigie runs as must belong to the group `i2c`.

The chip has no identity; another one (an LM75 or ADS1115 at the same address, say) is told by its not keeping the
settings. Each sample is one conversion of 26 to 35 ms in the extended mode (above 128 °C, too); the format is read from
the value itself. The alert output is used for nothing, and its limits are left as they are.",
    sample: r#"[[sensor]]
name = "armoire"
driver = "tmp102"
bus = 1
address = 0x49
every = "30s"
"#,
    connection: Connection::I2c(INFO),
    options: &[],
    quantities: &[TEMPERATURE.info("-55 to 150 °C, ± 2 °C from -25 to 85 °C, in steps of 0.0625 °C.")],
    parse,
};

const INFO: i2c::Info = i2c::Info { addresses: &[0x48, 0x49, 0x4a, 0x4b], identify: None };

fn parse(options: &Options<'_>) -> Option<Parsed> {
    Some(INFO.parse(options)?.sensor(Tmp102::open))
}

// Registers (7.5.1).
const TEMPERATURE_REGISTER: Register = Register("temperature", 0x00);
const CONFIGURATION: Register = Register("configuration", 0x01);

/// Configuration (7.5.3). Written in shutdown, OS starts a conversion; read, it says that none is under way.
const OS: u16 = 1 << 15;
/// Always 11.
const RESOLUTION: u16 = 0b11 << 13;
const SHUTDOWN: u16 = 1 << 8;
const RATE: u16 = 0b10 << 6;
const ALERT: u16 = 1 << 5;
const EXTENDED: u16 = 1 << 4;

/// What is written, without R1 and R0: a chip that has them all the same is one of these.
const SETTINGS: u16 = SHUTDOWN | RATE | EXTENDED;

/// A conversion at its longest (6.5).
const CONVERSION_TIME: Duration = Duration::from_millis(35);

/// Is this what a TMP102 makes of [`SETTINGS`], whatever OS and AL say?
fn keeps_settings(configuration: u16) -> bool {
    configuration & !(OS | ALERT) == SETTINGS | RESOLUTION
}

struct Tmp102 {
    chip: Chip,
}

impl Tmp102 {
    fn open(mut chip: Chip) -> Result<Self, Fault> {
        chip.write_u16(CONFIGURATION, SETTINGS)?;
        let found = chip.read_u16(CONFIGURATION)?;
        if !keeps_settings(found) {
            return Err(chip.keeps_not("TMP102", SETTINGS | RESOLUTION, found));
        }
        // A conversion that was under way is ended first.
        thread::sleep(CONVERSION_TIME);
        Ok(Self { chip })
    }
}

impl Poller for Tmp102 {
    fn sample(&mut self) -> Result<Vec<Sample>, Fault> {
        self.chip.write_u16(CONFIGURATION, SETTINGS | OS)?;
        self.chip.wait_for("its conversion", CONVERSION_TIME, |chip| {
            let found = chip.read_u16(CONFIGURATION)?;
            if !keeps_settings(found) {
                return Err(chip.was_reset(CONFIGURATION, SETTINGS | RESOLUTION | OS, found));
            }
            Ok((found & OS != 0).then_some(()))
        })?;
        Ok(vec![convert(self.chip.read_u16(TEMPERATURE_REGISTER)?)?])
    }
}

/// The temperature: 12 bits, or with a 1 as the last bit 13, in steps of 0.0625 °C (7.5.2, tables of 7.3.1).
fn convert(raw: u16) -> Result<Sample, Fault> {
    let steps = match raw & 0b1111 {
        0b0000 => raw.cast_signed() >> 4,
        0b0001 | 0b1001 => raw.cast_signed() >> 3,
        _ => {
            let detail = format!("the temperature register is {raw:#06x}, which is in none of the chip's two formats");
            return Err(Fault::new(FaultCode::BadData, detail));
        }
    };
    TEMPERATURE.sample(f64::from(steps) / 16.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::drivers::support::testing::{self, outcome};

    /// The tables of 7.3.1, of 12 and of 13 bits (tables 5 and 6 until revision C).
    #[test]
    fn the_data_sheets_tables_come_out() {
        for (hex, expected) in [
            (0x7ff, 127.94),
            (0x640, 100.0),
            (0x500, 80.0),
            (0x4b0, 75.0),
            (0x320, 50.0),
            (0x190, 25.0),
            (0x004, 0.25),
            (0x000, 0.0),
            (0xffc, -0.25),
            (0xe70, -25.0),
            (0xc90, -55.0),
        ] {
            assert_eq!(outcome(convert(hex << 4)), Ok(expected), "{hex:#05x}");
        }
        for (hex, expected) in [
            (0x0960, 150.0),
            (0x0800, 128.0),
            (0x07ff, 127.94),
            (0x0640, 100.0),
            (0x0190, 25.0),
            (0x0004, 0.25),
            (0x0000, 0.0),
            (0x1ffc, -0.25),
            (0x1e70, -25.0),
            (0x1c90, -55.0),
        ] {
            assert_eq!(outcome(convert(hex << 3 | 1)), Ok(expected), "{hex:#06x}");
        }
    }

    #[test]
    fn what_cannot_be_is_a_fault() {
        assert_eq!(outcome(convert(0xffff)), Err(FaultCode::BadData), "a stuck line");
        assert_eq!(outcome(convert(0x0961 << 3 | 1)), Err(FaultCode::Impossible));
        assert_eq!(outcome(convert(0xc8f << 4)), Err(FaultCode::Impossible));
    }

    fn sample(exchanges: &[testing::Exchange]) -> Result<Vec<Sample>, Fault> {
        Tmp102 { chip: testing::chip(0x49, exchanges) }.sample()
    }

    #[test]
    fn a_sample_is_one_conversion() {
        let samples = sample(&[
            (&[0x01, 0x81, 0x90], &[]),
            (&[0x01], &[0x61, 0xb0]),
            (&[0x01], &[0xe1, 0xb0]),
            (&[0x00], &[0x0c, 0x81]),
        ]);
        assert_eq!(testing::numbers(&samples.expect("a sample")), [("temperature", 25.0)]);
    }

    #[test]
    fn a_reset_in_between_and_a_chip_that_hangs_are_noticed() {
        // 0x60a0 after power-on.
        let fault = sample(&[(&[0x01, 0x81, 0x90], &[]), (&[0x01], &[0x60, 0xa0])]).expect_err("a fault");
        assert!(fault.code == FaultCode::BadData && fault.detail.contains("reset"), "{fault}");
        let mut busy: [testing::Exchange; 11] = [(&[0x01], &[0x61, 0xb0]); 11];
        busy[0] = (&[0x01, 0x81, 0x90], &[]);
        let fault = sample(&busy).expect_err("a fault");
        assert!(fault.code == FaultCode::BadData && fault.detail.contains("never ends"), "{fault}");
    }

    proptest! {
        #[test]
        fn every_content_of_the_register_is_a_value_or_a_fault(raw in any::<u16>()) {
            testing::check_range(convert(raw).map(|sample| vec![sample]), &[TEMPERATURE]);
        }
    }
}
