//! Sensirion SHT30, SHT31 and SHT35 on I2C: temperature and humidity.
//!
//! Data sheet: "SHT3x-DIS" (section numbers are version 5's). One single-shot measurement of high repeatability a
//! sample, without clock stretching. Does not do periodic measurements, the alerts or the heater.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::support::i2c::{self, Chip};
use super::support::measured::Scale;
use super::support::sensirion;
use super::{Connection, Driver, Open, Parsed, Poller, QuantityInfo, Source};
use crate::hardware::Hardware;
use crate::options::Options;
use crate::reading::{Fault, FaultCode, Kind, Sample};

const TEMPERATURE: Scale = Scale { quantity: "temperature", unit: "°C", min: -40.0, max: 125.0, decimals: 2 };
const HUMIDITY: Scale = Scale { quantity: "humidity", unit: "%", min: 0.0, max: 100.0, decimals: 2 };

pub(crate) static DRIVER: Driver = Driver {
    name: "sht3x",
    summary: "Sensirion SHT30, SHT31 or SHT35 on I2C: temperature and humidity",
    notes: "\
Wiring: VDD to 3V3, GND, SDA to GPIO2, SCL to GPIO3. Address 0x44 with ADDR at ground, 0x45 with ADDR at VDD. The user
that vigie runs as must belong to the group `i2c`.

Each sample is one measurement of high repeatability, 15.5 ms at the longest; the chip sleeps in between. Every word has
a checksum, and a wrong one is the fault `crc`. Periodic measurements and a heater that another program left on are ended
at the start.

The chip has no identity. `vigie scan` does not ask it: its commands have two bytes, which another chip at the address
would take for a register to be written.",
    sample: r#"[[sensor]]
name = "serre"
driver = "sht3x"
bus = 1
address = 0x45
every = "30s"
"#,
    connection: Connection::I2c(INFO),
    options: &[],
    quantities: &[
        QuantityInfo {
            name: TEMPERATURE.quantity,
            unit: Some(TEMPERATURE.unit),
            kind: Kind::Number,
            help: "-40 to 125 °C, ± 0.2 °C (SHT35: ± 0.1 °C).",
        },
        QuantityInfo {
            name: HUMIDITY.quantity,
            unit: Some(HUMIDITY.unit),
            kind: Kind::Number,
            help: "0 to 100 % relative humidity, ± 2 % (SHT35: ± 1.5 %).",
        },
    ],
    parse,
};

const INFO: i2c::Info = i2c::Info { addresses: &[0x44, 0x45], identify: None };

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let place = INFO.parse(options)?;
    Some(Parsed { claims: place.claims(), source: Source::Poller(Arc::new(Settings { place })) })
}

struct Settings {
    place: i2c::Place,
}

// Commands: single shot of high repeatability without clock stretching (table 9), break (4.8), soft reset (table 14),
// status (table 17).
const MEASURE: [u8; 2] = [0x24, 0x00];
const BREAK: [u8; 2] = [0x30, 0x93];
const SOFT_RESET: [u8; 2] = [0x30, 0xa2];
const STATUS: [u8; 2] = [0xf3, 0x2d];

/// A measurement at its longest, at a low supply voltage (table 4).
const MEASURING: Duration = Duration::from_micros(15_500);
/// After a break, after a soft reset (table 4), and between a command and the next (4.1).
const BREAKING: Duration = Duration::from_millis(1);
const RESETTING: Duration = Duration::from_micros(1_500);
const PAUSE: Duration = Duration::from_millis(1);

/// Bits of the status (table 18): the heater is on; the last command was not processed.
const HEATER: u16 = 1 << 13;
const NOT_PROCESSED: u16 = 1 << 1;

impl Open for Settings {
    fn open(&self, hardware: &dyn Hardware) -> Result<Box<dyn Poller>, Fault> {
        let mut chip = self.place.chip(hardware)?;
        start(&mut chip)?;
        Ok(Box::new(Sht3x { chip }))
    }
}

/// Brings the chip into its idle state, and sees that it is one.
fn start(chip: &mut Chip) -> Result<(), Fault> {
    chip.send("the command Break", &BREAK)?;
    thread::sleep(BREAKING);
    chip.send("the command Soft Reset", &SOFT_RESET)?;
    thread::sleep(RESETTING);
    chip.send("the command to give its status", &STATUS)?;
    thread::sleep(PAUSE);
    let [status] = sensirion::receive_known::<3, 1>(chip, "its status", "SHT3x")?;
    if status & (HEATER | NOT_PROCESSED) != 0 {
        return Err(chip.says(FaultCode::BadData, format_args!("its status is {status:#06x} after a reset")));
    }
    Ok(())
}

struct Sht3x {
    chip: Chip,
}

impl Poller for Sht3x {
    fn sample(&mut self) -> Result<Vec<Sample>, Fault> {
        self.chip.send("the command to measure", &MEASURE)?;
        thread::sleep(MEASURING);
        convert(sensirion::receive::<6, 2>(&mut self.chip, "its measurement")?)
    }
}

/// Samples of the raw values (4.13).
fn convert([temperature, humidity]: [u16; 2]) -> Result<Vec<Sample>, Fault> {
    let humidity = 100.0 * f64::from(humidity) / 65_535.0;
    Ok(vec![TEMPERATURE.sample(sensirion::celsius(temperature))?, HUMIDITY.sample(humidity)?])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::{SystemClock, Trust};
    use crate::hardware::I2cPath;
    use crate::hardware::sim::Sim;
    use crate::reading::Value;

    fn numbers(samples: &[Sample]) -> Vec<(&str, f64)> {
        let number = |value: &Value| if let Value::Number(number) = value { number.get() } else { f64::NAN };
        samples.iter().map(|sample| (&*sample.quantity, number(&sample.value))).collect()
    }

    /// 4.13: -45 + 175 × S/(2¹⁶ - 1) and 100 × S/(2¹⁶ - 1).
    #[test]
    fn the_data_sheets_formulas_come_out() {
        let samples = convert([0x6666, 0x8000]).expect("samples");
        assert_eq!(numbers(&samples), [("temperature", 25.0), ("humidity", 50.0)]);
        assert_eq!(numbers(&convert([0x6666, 0xffff]).expect("samples"))[1].1, 100.0);
        for raw in [0, 0xffff] {
            assert_eq!(convert([raw, 0x8000]).expect_err("-45 and 130 °C").code, FaultCode::Impossible);
        }
    }

    #[test]
    fn a_sample_is_a_command_and_its_answer() {
        let answers: [i2c::scripted::Exchange; 2] =
            [(&[0x24, 0x00], &[]), (&[], &[0xbe, 0xef, 0x92, 0xbe, 0xef, 0x92])];
        let mut sht = Sht3x { chip: i2c::scripted::chip(0x45, answers) };
        assert_eq!(numbers(&sht.sample().expect("samples")), [("temperature", 85.52), ("humidity", 74.58)]);
        let answers: [i2c::scripted::Exchange; 2] =
            [(&[0x24, 0x00], &[]), (&[], &[0xbe, 0xef, 0x93, 0xbe, 0xef, 0x92])];
        let fault = Sht3x { chip: i2c::scripted::chip(0x45, answers) }.sample().expect_err("a wrong checksum");
        assert_eq!(fault.code, FaultCode::Crc);
    }

    fn start_with(status: &'static [u8]) -> Result<(), Fault> {
        let exchanges: [i2c::scripted::Exchange; 4] =
            [(&[0x30, 0x93], &[]), (&[0x30, 0xa2], &[]), (&[0xf3, 0x2d], &[]), (&[], status)];
        start(&mut i2c::scripted::chip(0x45, exchanges))
    }

    #[test]
    fn the_status_tells_whether_it_is_one() {
        // Alert pending and reset detected are its default (table 18).
        start_with(&[0x80, 0x10, 0xe1]).expect("as after a reset");
        for damaged in [&[0xff; 3], &[0; 3], &[0x80, 0x10, 0xe0]] {
            let fault = start_with(damaged).expect_err("a wrong checksum");
            assert!(fault.code == FaultCode::Crc && fault.detail.contains("or is it no SHT3x"), "{fault}");
        }
    }

    #[test]
    fn the_simulated_chip_is_read_even_after_periodic_measurements() {
        let hardware = Sim::new(Arc::new(SystemClock::new(Trust::Kernel)), 5);
        let place = i2c::Place { path: I2cPath { bus: 1, channel: None }, address: 0x45 };
        let mut other = place.chip(&hardware).expect("a bus");
        other.send("ten measurements a second", &[0x27, 0x37]).expect("acknowledged");
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
