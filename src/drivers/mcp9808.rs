//! Microchip MCP9808, a temperature sensor on I2C.
//!
//! Data sheet: DS25095 (sections below are revision A's). The chip converts on and on, four times a second, with its
//! finest resolution. Does not do the alert output.

use std::thread;
use std::time::Duration;

use super::support::i2c::{self, Chip, Identity, Register};
use super::support::measured::Scale;
use super::{Connection, Driver, Parsed, Poller};
use crate::options::Options;
use crate::reading::{Fault, FaultCode, Sample};

const TEMPERATURE: Scale = Scale { quantity: "temperature", unit: "°C", min: -40.0, max: 125.0, decimals: 2 };

pub(crate) static DRIVER: Driver = Driver {
    name: "mcp9808",
    summary: "MCP9808 on I2C: temperature, to a quarter of a degree",
    notes: "\
Wiring: VDD to 3V3, GND, SDA to GPIO2, SCL to GPIO3; the address is 0x18 with A0 to A2 at ground, and up to 0x1f with
them at VDD. The user that vigie runs as must belong to the group `i2c`.

The chip's limits and its alert output are left as they are; the bits that tell of them do not disturb the value. The
register holds 0 °C before the first conversion: exactly 0 °C is read again, and the chip's identity with it, before it
is believed.",
    sample: r#"[[sensor]]
name = "cave"
driver = "mcp9808"
bus = 1
address = 0x18
every = "30s"
"#,
    connection: Connection::I2c(INFO),
    options: &[],
    quantities: &[TEMPERATURE.info("-40 to 125 °C, typically ± 0.25 °C, in steps of 0.0625 °C.")],
    parse,
};

const INFO: i2c::Info =
    i2c::Info { addresses: &[0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f], identify: Some(identify) };

fn parse(options: &Options<'_>) -> Option<Parsed> {
    Some(INFO.parse(options)?.sensor(Mcp9808::open))
}

// Registers (register 5-1).
const CONFIG: Register = Register("CONFIG", 0x01);
const AMBIENT: Register = Register("TA", 0x05);
const MANUFACTURER: Register = Register("manufacturer ID", 0x06);
const DEVICE: Register = Register("device ID", 0x07);
const RESOLUTION: Register = Register("resolution", 0x08);

/// `CONFIG`: asleep (register 5-2).
const SHUTDOWN: u16 = 1 << 8;

/// `resolution`: steps of 0.0625 °C; a conversion takes 250 ms then (register 5-7), given without a maximum: half more.
const FINEST: u8 = 0b11;
const CONVERSION_TIME: Duration = Duration::from_millis(375);

/// `TA`: above the upper limit, below the lower one, the sign, and the rest of the temperature (register 5-4).
const ABOVE: u16 = 1 << 14;
const BELOW: u16 = 1 << 13;

/// Which chip answers (5.1.4, 5.1.5).
fn identify(chip: &mut Chip) -> Result<Identity, Fault> {
    let manufacturer = chip.read_u16(MANUFACTURER)?;
    let [device, _revision] = chip.read(DEVICE)?;
    Ok(match (manufacturer, device) {
        (0x0054, 0x04) => Identity::Known("MCP9808"),
        (0x0054, _) => Identity::Other(format!("its device ID {device:#04x} is of another chip of Microchip's")),
        _ => Identity::Other(format!("its manufacturer ID is {manufacturer:#06x}, not Microchip's 0x0054")),
    })
}

struct Mcp9808 {
    chip: Chip,
}

impl Mcp9808 {
    fn open(mut chip: Chip) -> Result<Self, Fault> {
        chip.check_identity("MCP9808", identify)?;
        chip.write(RESOLUTION, &[FINEST])?;
        let config = chip.read_u16(CONFIG)?;
        if config & SHUTDOWN != 0 {
            chip.write_u16(CONFIG, config & !SHUTDOWN)?;
        }
        thread::sleep(CONVERSION_TIME);
        Ok(Self { chip })
    }
}

impl Poller for Mcp9808 {
    fn sample(&mut self) -> Result<Vec<Sample>, Fault> {
        let mut raw = self.chip.read_u16(AMBIENT)?;
        // 0 °C; or no conversion since power-on, or a data line that hangs.
        if raw & 0x1fff == 0 {
            thread::sleep(CONVERSION_TIME);
            self.chip.check_identity("MCP9808", identify)?;
            raw = self.chip.read_u16(AMBIENT)?;
        }
        Ok(vec![convert(raw)?])
    }
}

/// The temperature: 13 bits with sign, in steps of 0.0625 °C (5.1.3).
fn convert(raw: u16) -> Result<Sample, Fault> {
    if raw & ABOVE != 0 && raw & BELOW != 0 {
        let detail = format!(
            "the register TA is {raw:#06x}, which says that it is above the upper and below the lower limit: is the \
             data line stuck?"
        );
        return Err(Fault::new(FaultCode::BadData, detail));
    }
    let steps = (raw << 3).cast_signed() >> 3;
    TEMPERATURE.sample(f64::from(steps) / 16.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::drivers::support::testing::{self, outcome};

    /// Register 5-4 and the example of 5.1.3.1: bits from 2^7 °C to 2^-4 °C and a sign, whatever the limits' bits say.
    #[test]
    fn bits_are_those_of_the_data_sheets_register() {
        for (raw, expected) in [
            (0x0194, 25.25),
            (0xc194, 25.25),
            (0x07d0, 125.0),
            (0x0001, 0.06),
            (0x8000, 0.0),
            (0x1fff, -0.06),
            (0x3d80, -40.0),
        ] {
            assert_eq!(outcome(convert(raw)), Ok(expected), "{raw:#06x}");
        }
        assert_eq!(outcome(convert(0xffff)), Err(FaultCode::BadData), "a stuck line");
        assert_eq!(outcome(convert(0x07d1)), Err(FaultCode::Impossible));
        assert_eq!(outcome(convert(0x1d7f)), Err(FaultCode::Impossible));
    }

    #[test]
    fn zero_is_read_again_and_the_identity_with_it() {
        let sample = |exchanges: &[testing::Exchange]| Mcp9808 { chip: testing::chip(0x18, exchanges) }.sample();
        let zero: testing::Exchange = (&[0x05], &[0x00, 0x00]);
        for (again, expected) in [(&[0xc1, 0x90], 25.0), (&[0x80, 0x00], 0.0)] {
            let identity: [testing::Exchange; 2] = [(&[0x06], &[0x00, 0x54]), (&[0x07], &[0x04, 0x00])];
            let samples = sample(&[zero, identity[0], identity[1], (&[0x05], again)]).expect("a sample");
            assert_eq!(testing::numbers(&samples), [("temperature", expected)]);
        }
        let stuck: [testing::Exchange; 2] = [(&[0x06], &[0, 0]), (&[0x07], &[0, 0])];
        let fault = sample(&[zero, stuck[0], stuck[1], stuck[0], stuck[1]]).expect_err("a stuck line");
        assert_eq!(fault.code, FaultCode::WrongChip);
    }

    #[test]
    fn other_chips_are_told() {
        let open = |identity: [testing::Exchange; 2]| {
            let chip = testing::chip(0x18, &[identity, identity].concat());
            Mcp9808::open(chip).map(drop).expect_err("another chip")
        };
        for (fault, part) in [
            (open([(&[0x06], &[0x00, 0x54]), (&[0x07], &[0x02, 0x01])]), "device ID 0x02"),
            (open([(&[0x06], &[0xff, 0xff]), (&[0x07], &[0xff, 0xff])]), "manufacturer ID is 0xffff"),
        ] {
            assert!(fault.code == FaultCode::WrongChip && fault.detail.contains(part), "{fault}");
        }
    }

    proptest! {
        #[test]
        fn every_content_of_the_register_is_a_value_or_a_fault(raw in any::<u16>()) {
            testing::check_range(convert(raw).map(|sample| vec![sample]), &[TEMPERATURE]);
        }
    }
}
