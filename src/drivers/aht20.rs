//! Aosong AHT20 and AHT21 on I2C: temperature and humidity; the DHT20 is an AHT20 with wires.
//!
//! Data sheets: "AHT20 product manuals" and "DHT20" (sections are the DHT20's, V1.0). One measurement a sample. Does not
//! do the AHT10, which has no checksum.

use std::thread;
use std::time::Duration;

use super::support::crc8::Crc8;
use super::support::i2c::{self, Chip};
use super::support::measured::Scale;
use super::{Connection, Driver, Parsed, Poller};
use crate::options::Options;
use crate::reading::{Fault, FaultCode, Sample};

const TEMPERATURE: Scale = Scale { quantity: "temperature", unit: "°C", min: -40.0, max: 85.0, decimals: 2 };
const HUMIDITY: Scale = Scale { quantity: "humidity", unit: "%", min: 0.0, max: 100.0, decimals: 2 };

pub(crate) static DRIVER: Driver = Driver {
    name: "aht20",
    summary: "Aosong AHT20, AHT21 or DHT20 on I2C: temperature and humidity",
    notes: "\
Wiring: VDD to 3V3, GND, SDA to GPIO2, SCL to GPIO3. The address is always 0x38: for two of them, put one behind a
multiplexer. The user that vigie runs as must belong to the group `i2c`.

Each sample is one measurement of 80 ms; the chip sleeps in between. A wrong checksum is the fault `crc`; a chip that is
not calibrated, or never ends its measurement, `bad-data`. The chip has no identity. A humidity of exactly 0 % is a fault
as well: that is what a broken sensor gives.",
    sample: r#"[[sensor]]
name = "chambre"
driver = "aht20"
bus = 1
every = "30s"
"#,
    connection: Connection::I2c(INFO),
    options: &[],
    quantities: &[
        TEMPERATURE.info("-40 to 85 °C, ± 0.3 °C."),
        HUMIDITY.info("0 to 100 % relative humidity, ± 2 %."),
    ],
    parse,
};

const INFO: i2c::Info = i2c::Info { addresses: &[0x38], identify: None };

fn parse(options: &Options<'_>) -> Option<Parsed> {
    Some(INFO.parse(options)?.sensor(Aht20::open))
}

/// Commands: start anew; load the calibration; measure (7.4 and the AHT20's 5.3, 5.4).
const SOFT_RESET: [u8; 1] = [0xba];
const INITIALISE: [u8; 3] = [0xbe, 0x08, 0x00];
const MEASURE: [u8; 3] = [0xac, 0x33, 0x00];

/// What they take: the manuals say "within 20 ms", "10 ms" and "80 ms".
const RESETTING: Duration = Duration::from_millis(20);
const INITIALISING: Duration = Duration::from_millis(10);
const MEASURING: Duration = Duration::from_millis(80);

/// Bits of the status (table 9).
const BUSY: u8 = 1 << 7;
const CALIBRATED: u8 = 1 << 3;

/// How often a busy chip is read again, after [`INITIALISING`] each.
const READS: u32 = 10;

/// A chip that is not busy is calibrated. A data line that is stuck reads as busy for ever, or as not calibrated.
fn check(chip: &Chip, status: u8) -> Result<(), Fault> {
    if status & BUSY != 0 {
        return Err(chip.says(FaultCode::BadData, format_args!("stays busy (its status is {status:#04x})")));
    }
    if status & CALIBRATED == 0 {
        let detail = format_args!("is not calibrated (its status is {status:#04x}): is it an AHT20?");
        return Err(chip.says(FaultCode::BadData, detail));
    }
    Ok(())
}

struct Aht20 {
    chip: Chip,
}

impl Aht20 {
    fn open(mut chip: Chip) -> Result<Self, Fault> {
        chip.command("the command to start anew", &SOFT_RESET, RESETTING)?;
        let [mut status] = chip.receive("its status")?;
        if status & CALIBRATED == 0 {
            chip.command("the command to initialise", &INITIALISE, INITIALISING)?;
            [status] = chip.receive("its status")?;
        }
        check(&chip, status)?;
        Ok(Self { chip })
    }
}

impl Poller for Aht20 {
    fn sample(&mut self) -> Result<Vec<Sample>, Fault> {
        self.chip.command("the command to measure", &MEASURE, MEASURING)?;
        let mut answer = self.chip.receive::<7>("its measurement")?;
        for _ in 0..READS {
            if answer[0] & BUSY == 0 {
                break;
            }
            thread::sleep(INITIALISING);
            answer = self.chip.receive("its measurement")?;
        }
        check(&self.chip, answer[0])?;
        let [covered @ .., crc] = answer;
        let expected = Crc8::SENSIRION.of(&covered);
        if crc != expected {
            let detail = format_args!(
                "the checksum of its measurement is {expected:#04x}, not {crc:#04x}: check the wiring (an AHT10 has none)"
            );
            return Err(self.chip.says(FaultCode::Crc, detail));
        }
        let [_, data @ ..] = covered;
        convert(data)
    }
}

/// Samples of 20 bits of humidity and 20 bits of temperature (8.1, 8.2).
fn convert([h1, h2, shared, t1, t2]: [u8; 5]) -> Result<Vec<Sample>, Fault> {
    let humidity = u32::from_be_bytes([0, h1, h2, shared]) >> 4;
    let temperature = u32::from_be_bytes([0, shared & 0x0f, t1, t2]);
    if humidity == 0 {
        return Err(Fault::new(FaultCode::Impossible, "a humidity of exactly 0 % is what a broken sensor gives"));
    }
    let part = |raw: u32| f64::from(raw) / f64::from(1 << 20);
    Ok(vec![TEMPERATURE.sample(part(temperature) * 200.0 - 50.0)?, HUMIDITY.sample(part(humidity) * 100.0)?])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::drivers::support::testing::{self, Exchange, numbers};

    /// 8.1 and 8.2: 100 × S/2²⁰ and 200 × S/2²⁰ - 50. The manuals have no worked example.
    #[test]
    fn the_data_sheets_formulas_come_out() {
        assert_eq!(
            numbers(&convert([0x80, 0, 0x06, 0, 0]).expect("samples")),
            [("temperature", 25.0), ("humidity", 50.0)]
        );
        // An answer published with an open driver (elixir-sensors/aht20): 28 38 154 118 66 231.
        assert_eq!(
            numbers(&convert([38, 154, 118, 66, 231]).expect("samples")),
            [("temperature", 28.27), ("humidity", 15.08)]
        );
        assert_eq!(convert([0; 5]).expect_err("a broken sensor").code, FaultCode::Impossible);
        assert_eq!(convert([0xff; 5]).expect_err("150 °C").code, FaultCode::Impossible);
    }

    fn sample(answers: &[&'static [u8]]) -> Result<Vec<Sample>, Fault> {
        let mut exchanges: Vec<Exchange> = vec![(&[0xac, 0x33, 0x00], &[])];
        exchanges.extend(answers.iter().map(|answer| (&[][..], *answer)));
        Aht20 { chip: testing::chip(0x38, &exchanges) }.sample()
    }

    #[test]
    fn an_answer_is_taken_when_it_is_ready_and_its_checksum_is_right() {
        let right: &[u8] = &[28, 38, 154, 118, 66, 231, 118];
        let busy: &[u8] = &[0x9c, 0, 0, 0, 0, 0, 0];
        assert_eq!(sample(&[busy, busy, right]).map(|samples| samples.len()), Ok(2));
        let fault = sample(&[&[28, 38, 154, 118, 66, 230, 118]]).expect_err("a wrong checksum");
        assert_eq!(fault.code, FaultCode::Crc);
        let fault = sample(&[busy; 11]).expect_err("busy for ever");
        assert!(fault.code == FaultCode::BadData && fault.detail.contains("stays busy"), "{fault}");
        let fault = sample(&[&[0; 7]]).expect_err("a stuck line");
        assert_eq!(fault.code, FaultCode::BadData);
    }

    #[test]
    fn a_chip_is_initialised_only_where_it_must_be() {
        let open = |exchanges| Aht20::open(testing::chip(0x38, exchanges)).map(drop);
        open(&[(&[0xba], &[]), (&[], &[0x18])]).expect("calibrated");
        let fault = open(&[(&[0xba], &[]), (&[], &[0x10]), (&[0xbe, 0x08, 0x00], &[]), (&[], &[0x10])]);
        let fault = fault.expect_err("not calibrated");
        assert!(fault.detail.contains("is not calibrated"), "{fault}");
    }

    proptest! {
        #[test]
        fn every_answer_is_values_in_range_or_a_fault(data: [u8; 5]) {
            testing::check_range(convert(data), &[TEMPERATURE, HUMIDITY]);
        }
    }
}
