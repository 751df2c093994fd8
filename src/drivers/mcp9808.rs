//! Microchip MCP9808, a temperature sensor on I2C.
//!
//! Data sheet: DS25095 (sections below are revision A's). The chip converts on and on, four times a second, with its
//! finest resolution. Does not do the alert output.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::support::i2c::{self, Chip, Identity, Register};
use super::support::measured::Scale;
use super::{Connection, Driver, Open, Parsed, Poller, QuantityInfo, Source};
use crate::hardware::Hardware;
use crate::options::Options;
use crate::reading::{Fault, FaultCode, Kind, Sample};

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
    quantities: &[QuantityInfo {
        name: TEMPERATURE.quantity,
        unit: Some("°C"),
        kind: Kind::Number,
        help: "-40 to 125 °C, typically ± 0.25 °C, in steps of 0.0625 °C.",
    }],
    parse,
};

const INFO: i2c::Info =
    i2c::Info { addresses: &[0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f], identify: Some(identify) };

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let place = INFO.parse(options)?;
    Some(Parsed { claims: place.claims(), source: Source::Poller(Arc::new(Settings { place })) })
}

struct Settings {
    place: i2c::Place,
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

const MCP9808: &str = "MCP9808";

/// Which chip answers (5.1.4, 5.1.5).
fn identify(chip: &mut Chip) -> Result<Identity, Fault> {
    let manufacturer = u16::from_be_bytes(chip.read(MANUFACTURER)?);
    let [device, _revision] = chip.read(DEVICE)?;
    Ok(match (manufacturer, device) {
        (0x0054, 0x04) => Identity::Known(MCP9808),
        (0x0054, _) => Identity::Other(format!("its device ID {device:#04x} is of another chip of Microchip's")),
        _ => Identity::Other(format!("its manufacturer ID is {manufacturer:#06x}, not Microchip's 0x0054")),
    })
}

impl Open for Settings {
    fn open(&self, hardware: &dyn Hardware) -> Result<Box<dyn Poller>, Fault> {
        let mut chip = self.place.chip(hardware)?;
        chip.known(identify, MCP9808)?;
        chip.write(RESOLUTION, &[FINEST])?;
        let config = u16::from_be_bytes(chip.read(CONFIG)?);
        if config & SHUTDOWN != 0 {
            chip.write(CONFIG, &(config & !SHUTDOWN).to_be_bytes())?;
        }
        thread::sleep(CONVERSION_TIME);
        Ok(Box::new(Mcp9808 { chip }))
    }
}

struct Mcp9808 {
    chip: Chip,
}

impl Poller for Mcp9808 {
    fn sample(&mut self) -> Result<Vec<Sample>, Fault> {
        let mut raw = u16::from_be_bytes(self.chip.read(AMBIENT)?);
        // 0 °C; or no conversion since power-on, or a data line that hangs.
        if raw & 0x1fff == 0 {
            thread::sleep(CONVERSION_TIME);
            self.chip.known(identify, MCP9808)?;
            raw = u16::from_be_bytes(self.chip.read(AMBIENT)?);
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
    use crate::reading::Value;

    fn celsius(raw: u16) -> Result<f64, FaultCode> {
        match convert(raw).map_err(|fault| fault.code)?.value {
            Value::Number(number) => Ok(number.get()),
            other => panic!("{other:?}"),
        }
    }

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
            assert_eq!(celsius(raw), Ok(expected), "{raw:#06x}");
        }
        assert_eq!(celsius(0xffff), Err(FaultCode::BadData), "a stuck line");
        assert_eq!(celsius(0x07d1), Err(FaultCode::Impossible));
        assert_eq!(celsius(0x1d7f), Err(FaultCode::Impossible));
    }

    #[test]
    fn zero_is_read_again_and_the_identity_with_it() {
        let exchanges = |last: &'static [u8]| {
            let again = [(&[0x05][..], &[0x00, 0x00][..]), (&[0x06], &[0x00, 0x54]), (&[0x07], &[0x04, 0x00])];
            again.into_iter().chain([(&[0x05][..], last)])
        };
        for (last, expected) in [(&[0xc1, 0x90][..], 25.0), (&[0x80, 0x00], 0.0)] {
            let chip = i2c::scripted::chip(0x18, exchanges(last));
            let samples = Mcp9808 { chip }.sample().expect("a sample");
            assert_eq!(samples, [Sample::new("temperature", Value::number(expected).expect("finite"))]);
        }
        let registers: [&[u8]; 5] = [&[0x05], &[0x06], &[0x07], &[0x06], &[0x07]];
        let stuck = registers.map(|register| (register, &[0x00, 0x00][..]));
        let fault = Mcp9808 { chip: i2c::scripted::chip(0x18, stuck) }.sample().expect_err("a fault");
        assert_eq!(fault.code, FaultCode::WrongChip);
    }

    #[test]
    fn other_chips_are_told() {
        for (manufacturer, device, part) in [
            (&[0x00, 0x54][..], &[0x02, 0x01][..], "device ID 0x02"),
            (&[0xff, 0xff], &[0xff, 0xff], "manufacturer ID is 0xffff"),
        ] {
            let once = [(&[0x06][..], manufacturer), (&[0x07], device)];
            let mut chip = i2c::scripted::chip(0x18, [once, once].concat());
            let fault = chip.known(identify, MCP9808).expect_err("another chip");
            assert!(fault.code == FaultCode::WrongChip && fault.detail.contains(part), "{fault}");
        }
    }

    proptest! {
        #[test]
        fn every_content_of_the_register_is_a_value_or_a_fault(raw in any::<u16>()) {
            if let Ok(celsius) = celsius(raw) {
                prop_assert!((-40.0..=125.0).contains(&celsius));
            }
        }
    }
}
