//! Sensirion SHT40, SHT41, SHT43 and SHT45 on I2C: temperature and humidity.
//!
//! Data sheet: "SHT4x" (section numbers are version 6's). One measurement of high precision a sample. Does not do the
//! heater, nor the quicker measurements of less precision.

use std::time::Duration;

use super::support::i2c::{self, Chip, Identity};
use super::support::measured::Scale;
use super::support::sensirion;
use super::{Connection, Driver, Parsed, Poller};
use crate::options::Options;
use crate::reading::{Fault, Sample};

const TEMPERATURE: Scale = Scale { quantity: "temperature", unit: "°C", min: -40.0, max: 125.0, decimals: 2 };
const HUMIDITY: Scale = Scale { quantity: "humidity", unit: "%", min: 0.0, max: 100.0, decimals: 2 };

pub(crate) static DRIVER: Driver = Driver {
    name: "sht4x",
    summary: "Sensirion SHT40, SHT41, SHT43 or SHT45 on I2C: temperature and humidity",
    notes: "\
Wiring: VDD to 3V3 (never 5 V at the chip itself), GND, SDA to GPIO2, SCL to GPIO3. The address is fixed by the order
number: 0x44 for types with an A, 0x45 with a B, 0x46 with a C. The user that vigie runs as must belong to the group
`i2c`.

Each sample is one measurement of high precision, 8.3 ms at the longest; the chip sleeps in between. Every word has a
checksum, and a wrong one is the fault `crc`. The chip's heater is never switched on.",
    sample: r#"[[sensor]]
name = "cave"
driver = "sht4x"
bus = 1
address = 0x44
every = "30s"
"#,
    connection: Connection::I2c(INFO),
    options: &[],
    quantities: &[
        TEMPERATURE.info("-40 to 125 °C, ± 0.2 °C (SHT45: ± 0.1 °C)."),
        HUMIDITY.info("0 to 100 % relative humidity, ± 1.8 % (SHT45: ± 1 %)."),
    ],
    parse,
};

const INFO: i2c::Info = i2c::Info { addresses: &[0x44, 0x45, 0x46], identify: Some(identify) };

fn parse(options: &Options<'_>) -> Option<Parsed> {
    Some(INFO.parse(options)?.sensor(Sht4x::open))
}

// Commands (table 8).
const MEASURE: u8 = 0xfd;
const SERIAL_NUMBER: u8 = 0x89;
const SOFT_RESET: u8 = 0x94;

/// A measurement of high precision, a soft reset, and reading the serial number, at their longest (table 5).
const MEASURING: Duration = Duration::from_micros(8_300);
const RESETTING: Duration = Duration::from_millis(1);
const READING: Duration = Duration::from_millis(1);

/// The chip has no name, but a serial number with two checksums, which no other chip gives.
fn identify(chip: &mut Chip) -> Result<Identity, Fault> {
    chip.command("the command to give the serial number", &[SERIAL_NUMBER], READING)?;
    sensirion::receive_known::<2>(chip, "its serial number", "SHT4x")?;
    Ok(Identity::Known("SHT4x"))
}

struct Sht4x {
    chip: Chip,
}

impl Sht4x {
    fn open(mut chip: Chip) -> Result<Self, Fault> {
        chip.check_identity("SHT4x", identify)?;
        chip.command("the command Soft Reset", &[SOFT_RESET], RESETTING)?;
        Ok(Self { chip })
    }
}

impl Poller for Sht4x {
    fn sample(&mut self) -> Result<Vec<Sample>, Fault> {
        self.chip.command("the command to measure", &[MEASURE], MEASURING)?;
        convert(sensirion::receive(&mut self.chip, "its measurement")?)
    }
}

/// Samples of the raw values (4.6). Humidity a little beyond its ends is held there, as the data sheet says.
fn convert([temperature, humidity]: [u16; 2]) -> Result<Vec<Sample>, Fault> {
    let humidity = (-6.0 + 125.0 * f64::from(humidity) / 65_535.0).clamp(0.0, 100.0);
    Ok(vec![TEMPERATURE.sample(sensirion::celsius(temperature))?, HUMIDITY.sample(humidity)?])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::drivers::support::testing::{self, numbers};
    use crate::reading::FaultCode;

    /// The formulas' ends and middle (4.6): -45 + 175 × S/65535 and -6 + 125 × S/65535.
    #[test]
    fn the_data_sheets_formulas_come_out() {
        let samples = convert([0x6666, 0x8000]).expect("samples");
        assert_eq!(numbers(&samples), [("temperature", 25.0), ("humidity", 56.5)]);
        assert_eq!(numbers(&convert([0x6666, 0]).expect("samples"))[1].1, 0.0, "-6 % is held at 0");
        assert_eq!(numbers(&convert([0x6666, 0xffff]).expect("samples"))[1].1, 100.0, "119 % is held at 100");
        for raw in [0, 0xffff] {
            assert_eq!(convert([raw, 0x8000]).expect_err("-45 and 130 °C").code, FaultCode::Impossible);
        }
    }

    #[test]
    fn a_sample_is_a_command_and_its_answer() {
        let sample = |exchanges| Sht4x { chip: testing::chip(0x44, exchanges) }.sample();
        let samples = sample(&[(&[0xfd], &[]), (&[], &[0xbe, 0xef, 0x92, 0xbe, 0xef, 0x92])]).expect("samples");
        assert_eq!(numbers(&samples), [("temperature", 85.52), ("humidity", 87.23)]);
        let fault = sample(&[(&[0xfd], &[]), (&[], &[0xbe, 0xef, 0x92, 0xbe, 0xee, 0x92])]).expect_err("a fault");
        assert!(fault.code == FaultCode::Crc && fault.detail.contains("0xbeee"), "{fault}");
    }

    #[test]
    fn a_damaged_serial_number_makes_no_other_chip_of_it() {
        let mut chip = testing::chip(0x44, &[(&[0x89], &[]), (&[], &[0; 6])]);
        let fault = identify(&mut chip).expect_err("no checksum");
        assert!(fault.code == FaultCode::Crc && fault.detail.contains("or is it no SHT4x"), "{fault}");
    }

    proptest! {
        #[test]
        fn every_answer_is_values_in_range_or_a_fault(words: [u16; 2]) {
            testing::check_range(convert(words), &[TEMPERATURE, HUMIDITY]);
        }
    }
}
