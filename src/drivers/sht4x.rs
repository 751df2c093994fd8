//! Sensirion SHT40, SHT41, SHT43 and SHT45 on I2C: temperature and humidity.
//!
//! Data sheet: "SHT4x" (section numbers are version 6's). One measurement of high precision a sample. Does not do the
//! heater, nor the quicker measurements of less precision.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::support::i2c::{self, Chip, Identity};
use super::support::measured::Scale;
use super::support::sensirion;
use super::{Connection, Driver, Open, Parsed, Poller, QuantityInfo, Source};
use crate::hardware::Hardware;
use crate::options::Options;
use crate::reading::{Fault, Kind, Sample};

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
        QuantityInfo {
            name: TEMPERATURE.quantity,
            unit: Some(TEMPERATURE.unit),
            kind: Kind::Number,
            help: "-40 to 125 °C, ± 0.2 °C (SHT45: ± 0.1 °C).",
        },
        QuantityInfo {
            name: HUMIDITY.quantity,
            unit: Some(HUMIDITY.unit),
            kind: Kind::Number,
            help: "0 to 100 % relative humidity, ± 1.8 % (SHT45: ± 1 %).",
        },
    ],
    parse,
};

const INFO: i2c::Info = i2c::Info { addresses: &[0x44, 0x45, 0x46], identify: Some(identify) };

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let place = INFO.parse(options)?;
    Some(Parsed { claims: place.claims(), source: Source::Poller(Arc::new(Settings { place })) })
}

struct Settings {
    place: i2c::Place,
}

// Commands (table 8).
const MEASURE: u8 = 0xfd;
const SERIAL_NUMBER: u8 = 0x89;
const SOFT_RESET: u8 = 0x94;

/// A measurement of high precision, a soft reset, and reading the serial number, at their longest (table 5).
const MEASURING: Duration = Duration::from_micros(8_300);
const RESETTING: Duration = Duration::from_millis(1);
const READING: Duration = Duration::from_millis(1);

const SHT4X: &str = "SHT4x";

/// The chip has no name, but a serial number with two checksums, which no other chip gives.
fn identify(chip: &mut Chip) -> Result<Identity, Fault> {
    chip.send("the command to give the serial number", &[SERIAL_NUMBER])?;
    thread::sleep(READING);
    sensirion::receive_known::<6, 2>(chip, "its serial number", SHT4X)?;
    Ok(Identity::Known(SHT4X))
}

impl Open for Settings {
    fn open(&self, hardware: &dyn Hardware) -> Result<Box<dyn Poller>, Fault> {
        let mut chip = self.place.chip(hardware)?;
        identify(&mut chip)?;
        chip.send("the command Soft Reset", &[SOFT_RESET])?;
        thread::sleep(RESETTING);
        Ok(Box::new(Sht4x { chip }))
    }
}

struct Sht4x {
    chip: Chip,
}

impl Poller for Sht4x {
    fn sample(&mut self) -> Result<Vec<Sample>, Fault> {
        self.chip.send("the command to measure", &[MEASURE])?;
        thread::sleep(MEASURING);
        convert(sensirion::receive::<6, 2>(&mut self.chip, "its measurement")?)
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
    use crate::clock::{SystemClock, Trust};
    use crate::hardware::I2cPath;
    use crate::hardware::sim::Sim;
    use crate::reading::{FaultCode, Value};

    fn numbers(samples: &[Sample]) -> Vec<(&str, f64)> {
        let number = |value: &Value| if let Value::Number(number) = value { number.get() } else { f64::NAN };
        samples.iter().map(|sample| (&*sample.quantity, number(&sample.value))).collect()
    }

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
        let good: i2c::scripted::Exchange = (&[], &[0xbe, 0xef, 0x92, 0xbe, 0xef, 0x92]);
        let mut sht = Sht4x { chip: i2c::scripted::chip(0x44, [(&[0xfd][..], &[][..]), good]) };
        assert_eq!(numbers(&sht.sample().expect("samples")), [("temperature", 85.52), ("humidity", 87.23)]);

        let bad: i2c::scripted::Exchange = (&[], &[0xbe, 0xef, 0x92, 0xbe, 0xee, 0x92]);
        let mut sht = Sht4x { chip: i2c::scripted::chip(0x44, [(&[0xfd][..], &[][..]), bad]) };
        let fault = sht.sample().expect_err("a wrong checksum");
        assert!(fault.code == FaultCode::Crc && fault.detail.contains("0xbeee"), "{fault}");
    }

    #[test]
    fn a_damaged_serial_number_makes_no_other_chip_of_it() {
        let mut chip = i2c::scripted::chip(0x44, [(&[0x89][..], &[][..]), (&[], &[0; 6])]);
        let fault = identify(&mut chip).expect_err("no checksum");
        assert!(fault.code == FaultCode::Crc && fault.detail.contains("or is it no SHT4x"), "{fault}");
    }

    #[test]
    fn the_simulated_chip_is_read() {
        let hardware = Sim::new(Arc::new(SystemClock::new(Trust::Kernel)), 5);
        let place = i2c::Place { path: I2cPath { bus: 1, channel: None }, address: 0x44 };
        let mut chip = Settings { place }.open(&hardware).expect("a chip");
        for _ in 0..3 {
            let samples = chip.sample().expect("samples");
            let [(_, temperature), (_, humidity)] = numbers(&samples)[..] else { panic!("{samples:?}") };
            assert!((15.0..26.0).contains(&temperature) && (35.0..60.0).contains(&humidity), "{samples:?}");
        }
    }

    proptest! {
        #[test]
        fn every_answer_is_values_in_range_or_a_fault(temperature: u16, humidity: u16) {
            match convert([temperature, humidity]) {
                Ok(samples) => {
                    let numbers = numbers(&samples);
                    prop_assert!((-40.0..=125.0).contains(&numbers[0].1) && (0.0..=100.0).contains(&numbers[1].1));
                }
                Err(fault) => prop_assert_eq!(fault.code, FaultCode::Impossible),
            }
        }
    }
}
