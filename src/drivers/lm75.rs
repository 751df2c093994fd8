//! LM75 and what is made after it (LM75A, LM75B, TMP75, DS75), a temperature sensor on I2C.
//!
//! Data sheets: Texas Instruments SNIS153 (LM75A), NXP "LM75B", Texas Instruments SBOS288 (TMP75). The chip converts on
//! and on. Does not do the thermostat output.

use std::thread;
use std::time::Duration;

use super::support::i2c::{self, Chip, Register};
use super::support::measured::Scale;
use super::{Connection, Driver, OptionInfo, Parsed, Poller};
use crate::options::Options;
use crate::reading::{Fault, FaultCode, Sample};

const TEMPERATURE: Scale = Scale { quantity: "temperature", unit: "°C", min: -55.0, max: 125.0, decimals: 3 };

pub(crate) static DRIVER: Driver = Driver {
    name: "lm75",
    summary: "LM75, LM75A, LM75B, TMP75 or DS75 on I2C: temperature",
    notes: "\
Wiring: VCC to 3V3, GND, SDA to GPIO2, SCL to GPIO3; the address is 0x48 with A0 to A2 at ground, and up to 0x4f with
them at VCC. The user that vigie runs as must belong to the group `i2c`.

How many bits are good is printed on no chip that can be asked: 9 (steps of 0.5 °C) hold for all; the LM75A of NXP and
the LM75B have 11. More than there are give digits that mean nothing.

The chip has no identity. Another one at the address is told by its configuration, of which three bits are always 0 and
one can be written: so the chip sleeps for a moment when it is opened. The thermostat's limits are left as they are.
Exactly 0 °C is read again, and taken for a stuck line where both limits are 0 °C as well.",
    sample: r#"[[sensor]]
name = "serre"
driver = "lm75"
bus = 1
address = 0x4a
bits = 11
every = "30s"
"#,
    connection: Connection::I2c(INFO),
    options: &[OptionInfo {
        name: "bits",
        values: "9 to 12",
        default: Some("9"),
        help: "How many bits of the temperature the chip has.",
    }],
    quantities: &[TEMPERATURE.info("-55 to 125 °C, ± 2 °C from -25 to 100 °C.")],
    parse,
};

const INFO: i2c::Info = i2c::Info { addresses: &[0x48, 0x49, 0x4a, 0x4b, 0x4c, 0x4d, 0x4e, 0x4f], identify: None };

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let place = INFO.parse(options);
    let bits = options.optional_in("bits", 9..=12).unwrap_or(9);
    Some(place?.sensor(move |chip| Lm75::open(chip, bits)))
}

// Registers.
const TEMP: Register = Register("temperature", 0x00);
const CONFIG: Register = Register("configuration", 0x01);
const T_HYST: Register = Register("T_hyst", 0x02);
const T_OS: Register = Register("T_os", 0x03);

/// Configuration: always 0, and asleep.
const RESERVED: u8 = 0b1110_0000;
const SHUTDOWN: u8 = 1;

/// The longest conversion among these chips (LM75A: 300 ms).
const CONVERSION_TIME: Duration = Duration::from_millis(300);

struct Lm75 {
    chip: Chip,
    bits: u8,
}

impl Lm75 {
    fn open(mut chip: Chip, bits: u8) -> Result<Self, Fault> {
        let [config] = chip.read(CONFIG)?;
        if config & RESERVED != 0 {
            let detail = format!("of its configuration {config:#04x}, the upper three bits should be 0");
            return Err(chip.wrong("LM75", &detail));
        }
        for wanted in [config | SHUTDOWN, config & !SHUTDOWN] {
            chip.write(CONFIG, &[wanted])?;
            let [found] = chip.read(CONFIG)?;
            if found != wanted {
                let detail = format!("it does not keep its settings ({wanted:#04x} was written, {found:#04x} read)");
                return Err(chip.wrong("LM75", &detail));
            }
        }
        thread::sleep(CONVERSION_TIME);
        Ok(Self { chip, bits })
    }
}

impl Poller for Lm75 {
    fn sample(&mut self) -> Result<Vec<Sample>, Fault> {
        let [config] = self.chip.read(CONFIG)?;
        if config & (RESERVED | SHUTDOWN) != 0 {
            let detail = format_args!(
                "its configuration is {config:#04x}: somebody else sent it to sleep, or the data line is stuck"
            );
            return Err(self.chip.says(FaultCode::BadData, detail));
        }
        let mut raw = self.chip.read_u16(TEMP)?;
        // 0 °C; or no conversion since power-on, or a data line that hangs.
        if raw == 0 {
            thread::sleep(CONVERSION_TIME);
            raw = self.chip.read_u16(TEMP)?;
            if raw == 0 && self.chip.read(T_OS)? == [0, 0] && self.chip.read(T_HYST)? == [0, 0] {
                return Err(self.chip.says(FaultCode::BadData, "all of its registers are 0: is the data line stuck?"));
            }
        }
        Ok(vec![convert(raw, self.bits)?])
    }
}

/// The temperature: bits from the left, the first nine of them in whole and half degrees; what follows them is not
/// defined.
fn convert(raw: u16, bits: u8) -> Result<Sample, Fault> {
    let unused = 16_u8.saturating_sub(bits);
    TEMPERATURE.sample(f64::from(raw.cast_signed() >> unused << unused) / 256.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::drivers::support::testing::{self, outcome};

    /// LM75A, table 1 (9 bits); LM75B, table 10 (11 bits).
    #[test]
    fn the_data_sheets_tables_come_out() {
        for (hex, expected) in
            [(0x0fa, 125.0), (0x032, 25.0), (0x001, 0.5), (0x000, 0.0), (0x1ff, -0.5), (0x1ce, -25.0), (0x192, -55.0)]
        {
            assert_eq!(outcome(convert(hex << 7, 9)), Ok(expected), "{hex:#05x}");
            assert_eq!(outcome(convert(hex << 7 | 0x7f, 9)), Ok(expected), "{hex:#05x} with bits that are not defined");
        }
        for (hex, expected) in [
            (0x3e8, 125.0),
            (0x0c8, 25.0),
            (0x001, 0.125),
            (0x7ff, -0.125),
            (0x738, -25.0),
            (0x649, -54.875),
            (0x648, -55.0),
        ] {
            assert_eq!(outcome(convert(hex << 5, 11)), Ok(expected), "{hex:#05x}");
        }
        assert_eq!(outcome(convert(0x7f00, 9)), Err(FaultCode::Impossible), "127 °C");
        assert_eq!(outcome(convert(0xc880, 9)), Err(FaultCode::Impossible), "-55.5 °C");
    }

    fn sample(exchanges: &[testing::Exchange]) -> Result<Vec<Sample>, Fault> {
        Lm75 { chip: testing::chip(0x4a, exchanges), bits: 11 }.sample()
    }

    #[test]
    fn zero_is_believed_when_the_chip_is_seen_to_answer() {
        let zero: [testing::Exchange; 3] = [(&[0x01], &[0x00]), (&[0x00], &[0, 0]), (&[0x00], &[0, 0])];
        let limits = |limits: &[testing::Exchange]| sample(&[&zero, limits].concat());
        let samples = limits(&[(&[0x03], &[0x50, 0x00])]).expect("a sample");
        assert_eq!(testing::numbers(&samples), [("temperature", 0.0)]);
        let fault = limits(&[(&[0x03], &[0, 0]), (&[0x02], &[0, 0])]).expect_err("a stuck line");
        assert_eq!(fault.code, FaultCode::BadData);
    }

    #[test]
    fn a_chip_that_sleeps_is_a_fault() {
        for config in [&[0x01], &[0xff]] {
            assert_eq!(sample(&[(&[0x01], config)]).expect_err("a fault").code, FaultCode::BadData);
        }
    }

    proptest! {
        #[test]
        fn every_content_of_the_register_is_a_value_or_a_fault(raw in any::<u16>(), bits in 9..=12_u8) {
            testing::check_range(convert(raw, bits).map(|sample| vec![sample]), &[TEMPERATURE]);
        }
    }
}
