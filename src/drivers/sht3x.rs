//! Sensirion SHT30, SHT31 and SHT35 on I2C: temperature and humidity.
//!
//! Data sheet: "SHT3x-DIS" (section numbers are version 5's). One single-shot measurement of high repeatability a
//! sample, without clock stretching. Does not do periodic measurements, the alerts or the heater.

use std::time::Duration;

use super::support::i2c::{self, Chip};
use super::support::measured::Scale;
use super::support::sensirion;
use super::{Connection, Driver, Parsed, Poller};
use crate::options::Options;
use crate::reading::{Fault, FaultCode, Sample};

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
        TEMPERATURE.info("-40 to 125 °C, ± 0.2 °C (SHT35: ± 0.1 °C)."),
        HUMIDITY.info("0 to 100 % relative humidity, ± 2 % (SHT35: ± 1.5 %)."),
    ],
    parse,
};

const INFO: i2c::Info = i2c::Info { addresses: &[0x44, 0x45], identify: None };

fn parse(options: &Options<'_>) -> Option<Parsed> {
    Some(INFO.parse(options)?.sensor(Sht3x::open))
}

// Commands: single shot of high repeatability without clock stretching (table 9), break (4.8), soft reset (table 14),
// status (table 17).
const MEASURE: [u8; 2] = [0x24, 0x00];
const BREAK: [u8; 2] = [0x30, 0x93];
const SOFT_RESET: [u8; 2] = [0x30, 0xa2];
const STATUS: [u8; 2] = [0xf3, 0x2d];

/// A measurement at its longest, at a low supply voltage (table 4).
const MEASURING: Duration = Duration::from_micros(15_500);
/// After a break, after a soft reset (table 4), and between a command and what follows it (table 9).
const BREAKING: Duration = Duration::from_millis(1);
const RESETTING: Duration = Duration::from_micros(1_500);
const PAUSE: Duration = Duration::from_millis(1);

/// Bits of the status (table 18): the heater is on; the last command was not processed.
const HEATER: u16 = 1 << 13;
const NOT_PROCESSED: u16 = 1 << 1;

struct Sht3x {
    chip: Chip,
}

impl Sht3x {
    /// Brings the chip into its idle state, and sees that it is one.
    fn open(mut chip: Chip) -> Result<Self, Fault> {
        chip.command("the command Break", &BREAK, BREAKING)?;
        chip.command("the command Soft Reset", &SOFT_RESET, RESETTING)?;
        chip.command("the command to give its status", &STATUS, PAUSE)?;
        let [status] = sensirion::receive_known(&mut chip, "its status", "SHT3x")?;
        if status & (HEATER | NOT_PROCESSED) != 0 {
            return Err(chip.says(FaultCode::BadData, format_args!("its status is {status:#06x} after a reset")));
        }
        Ok(Self { chip })
    }
}

impl Poller for Sht3x {
    fn sample(&mut self) -> Result<Vec<Sample>, Fault> {
        self.chip.command("the command to measure", &MEASURE, MEASURING)?;
        convert(sensirion::receive(&mut self.chip, "its measurement")?)
    }
}

/// Samples of the raw values (4.13).
fn convert([temperature, humidity]: [u16; 2]) -> Result<Vec<Sample>, Fault> {
    let (celsius, humidity) = (sensirion::celsius(temperature), sensirion::humidity(humidity));
    Ok(vec![TEMPERATURE.sample(celsius)?, HUMIDITY.sample(humidity)?])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::drivers::support::testing::{self, numbers};
    use crate::hardware::{Hardware, I2cPath};

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
        let sample = |exchanges| Sht3x { chip: testing::chip(0x45, exchanges) }.sample();
        let samples = sample(&[(&[0x24, 0x00], &[]), (&[], &[0xbe, 0xef, 0x92, 0xbe, 0xef, 0x92])]).expect("samples");
        assert_eq!(numbers(&samples), [("temperature", 85.52), ("humidity", 74.58)]);
        let fault = sample(&[(&[0x24, 0x00], &[]), (&[], &[0xbe, 0xef, 0x93, 0xbe, 0xef, 0x92])]);
        assert_eq!(fault.expect_err("a wrong checksum").code, FaultCode::Crc);
    }

    #[test]
    fn the_status_tells_whether_it_is_one() {
        let open = |status| {
            let exchanges = [(&[0x30, 0x93][..], &[][..]), (&[0x30, 0xa2], &[]), (&[0xf3, 0x2d], &[]), (&[], status)];
            Sht3x::open(testing::chip(0x45, &exchanges)).map(drop).map_err(|fault| fault.code)
        };
        // Alert pending and reset detected are its default (table 18).
        assert_eq!(open(&[0x80, 0x10, 0xe1]), Ok(()), "as after a reset");
        for damaged in [&[0xff; 3], &[0; 3], &[0x80, 0x10, 0xe0]] {
            assert_eq!(open(damaged), Err(FaultCode::Crc), "the wires, more often than another chip");
        }
    }

    #[test]
    fn the_simulated_chip_is_read_even_after_periodic_measurements() {
        let machine = testing::sim();
        let place = i2c::Place { path: I2cPath { bus: 1, channel: None }, address: 0x45 };
        let mut other = place.chip(&machine as &dyn Hardware).expect("a bus");
        other.send("ten measurements a second", &[0x27, 0x37]).expect("acknowledged");
        let mut chip = testing::open(&DRIVER, "address = 0x45", &machine).expect("a chip");
        for _ in 0..3 {
            assert_eq!(chip.sample().expect("samples").len(), 2);
        }
    }

    proptest! {
        #[test]
        fn every_answer_is_values_in_range_or_a_fault(words: [u16; 2]) {
            testing::check_range(convert(words), &[TEMPERATURE, HUMIDITY]);
        }
    }
}
