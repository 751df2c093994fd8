//! Texas Instruments INA219, a current and voltage sensor on I2C.
//!
//! Data sheet: SBOS448 (revision G; sections below are its). One triggered measurement of both a sample, each the mean
//! of 16. Current and power are computed here from the voltage at the shunt: the chip's own calibration only scales
//! them, and is set to 0.

use std::time::Duration;

use super::support::i2c::{self, Chip, Register};
use super::support::measured::Scale;
use super::{Connection, Driver, OptionInfo, Parsed, Poller, QuantityInfo};
use crate::options::Options;
use crate::reading::{Fault, FaultCode, Kind, Sample};

const VOLTAGE: &str = "voltage";
const CURRENT: &str = "current";
const POWER: &str = "power";

pub(crate) static DRIVER: Driver = Driver {
    name: "ina219",
    summary: "INA219 on I2C: voltage, current and power of a load of up to 26 V",
    notes: "\
Wiring: VCC to 3V3, GND (shared with the load), SDA to GPIO2, SCL to GPIO3; VIN+ to the supply, VIN- to the load. The
usual modules have a shunt of 0.1 Ω (marked R100), which carries up to 3.2 A, and the address 0x40. The user that vigie
runs as must belong to the group `i2c`.

A current that flows back, such as that of a charging battery, is negative. A voltage at the shunt at the end of its
range or an overflow that the chip reports is the fault `impossible`: the current is then larger than `max_current`. A
sample is a mean over about 9 ms for each of voltage and current.

The chip has no identity; another one (an INA226, say) is told by its not keeping the settings.",
    sample: r#"[[sensor]]
name = "solaire"
driver = "ina219"
bus = 1
address = 0x40
shunt = 0.1
max_current = 2.0
every = "10s"
"#,
    connection: Connection::I2c(INFO),
    options: &[
        OptionInfo {
            name: "shunt",
            values: "0.0001 to 100 Ω",
            default: Some("0.1"),
            help: "The resistor between VIN+ and VIN-.",
        },
        OptionInfo {
            name: "max_current",
            values: "more than 0 A, up to 0.32 V / `shunt`",
            default: Some("0.32 V / `shunt`"),
            help: "The largest current, either way: the smaller, the less noise.",
        },
    ],
    quantities: &[
        QuantityInfo {
            name: VOLTAGE,
            unit: Some("V"),
            kind: Kind::Number,
            help: "Between VIN- and ground: 0 to 32 V (of which the chip stands 26), ± 0.5 %.",
        },
        QuantityInfo {
            name: CURRENT,
            unit: Some("A"),
            kind: Kind::Number,
            help: "Through the shunt, ± 0.5 % and the error of the shunt.",
        },
        QuantityInfo { name: POWER, unit: Some("W"), kind: Kind::Number, help: "Voltage times current." },
    ],
    parse,
};

const INFO: i2c::Info = i2c::Info {
    addresses: &[0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x4b, 0x4c, 0x4d, 0x4e, 0x4f],
    identify: None,
};

/// The largest voltages at the shunt, in volts, in the order of their codes in PG (8.6.2.1).
const RANGES: [f64; 4] = [0.04, 0.08, 0.16, 0.32];

/// So that 3.2 A at 0.1 Ω are within a range whatever their product is in binary.
const ROUNDING: f64 = 1.0 + 1e-9;

/// Steps of the registers, in volts (8.6.3).
const SHUNT_STEP: f64 = 10e-6;
const BUS_STEP: f64 = 4e-3;

/// The bus voltage's range with BRNG = 1, in volts.
const BUS_RANGE: f64 = 32.0;

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let place = INFO.parse(options);
    let shunt = options.optional_in("shunt", 1e-4..=100.0);
    let max_current = options.optional::<f64>("max_current");
    if shunt.is_none() && options.raw("shunt").is_some() {
        return None;
    }
    let shunt = shunt.unwrap_or(0.1);
    let most = RANGES[3] / shunt;
    let max_current = max_current.unwrap_or(most);
    let gain = (0_u8..).zip(RANGES).find(|(_, range)| max_current > 0.0 && max_current * shunt <= range * ROUNDING);
    let Some((gain, range)) = gain else {
        let message =
            format!("`max_current` of {} cannot be {max_current} A with a shunt of {shunt} Ω", options.what());
        let expected = format!("expected more than 0, up to {most} A: the chip measures 0.32 V");
        options.problem("max_current", message, Some(expected));
        return None;
    };
    let settings = Settings { shunt, gain, range };
    Some(place?.sensor(move |chip| Ina219::open(chip, settings)))
}

#[derive(Clone, Copy)]
struct Settings {
    /// Ω
    shunt: f64,
    /// PG, and its volts.
    gain: u8,
    range: f64,
}

// Registers (table 2).
const CONFIGURATION: Register = Register("configuration", 0x00);
const SHUNT_VOLTAGE: Register = Register("shunt voltage", 0x01);
const BUS_VOLTAGE: Register = Register("bus voltage", 0x02);
const CALIBRATION: Register = Register("calibration", 0x05);

/// Configuration (8.6.2.1): bus voltage up to 32 V; both as the mean of 16 samples.
const BRNG: u16 = 1 << 13;
const MEAN_OF_16: u16 = 0b1100 << 7 | 0b1100 << 3;
/// Mode: shunt and bus, triggered; power-down.
const TRIGGERED: u16 = 0b011;
const POWER_DOWN: u16 = 0b000;

/// Bus voltage: a measurement is ready; the chip's computation overflowed (8.6.3.2).
const CNVR: u16 = 1 << 1;
const OVF: u16 = 1;

/// Two conversions of 16 samples: 8.51 ms each, and 10 % more at most (7.5).
const MEASURING_TIME: Duration = Duration::from_micros(2 * 9_370);

impl Settings {
    fn configuration(self, mode: u16) -> u16 {
        BRNG | u16::from(self.gain) << 11 | MEAN_OF_16 | mode
    }
}

struct Ina219 {
    chip: Chip,
    settings: Settings,
}

impl Ina219 {
    fn open(mut chip: Chip, settings: Settings) -> Result<Self, Fault> {
        let configuration = settings.configuration(POWER_DOWN);
        chip.write_u16(CONFIGURATION, configuration)?;
        let found = chip.read_u16(CONFIGURATION)?;
        if found != configuration {
            return Err(chip.keeps_not("INA219", configuration, found));
        }
        // Another program's calibration could make the chip's own computation overflow.
        chip.write_u16(CALIBRATION, 0)?;
        Ok(Self { chip, settings })
    }
}

impl Poller for Ina219 {
    fn sample(&mut self) -> Result<Vec<Sample>, Fault> {
        let configuration = self.settings.configuration(TRIGGERED);
        self.chip.write_u16(CONFIGURATION, configuration)?;
        let bus = self.chip.wait_for("its measurement", MEASURING_TIME, |chip| {
            let bus = chip.read_u16(BUS_VOLTAGE)?;
            Ok((bus & CNVR != 0).then_some(bus))
        })?;
        let shunt = i16::from_be_bytes(self.chip.read(SHUNT_VOLTAGE)?);
        let found = self.chip.read_u16(CONFIGURATION)?;
        if found != configuration {
            return Err(self.chip.was_reset(CONFIGURATION, configuration, found));
        }
        convert(&self.settings, shunt, bus)
    }
}

/// Samples from the registers (8.5.1, 8.6.3).
fn convert(settings: &Settings, shunt: i16, bus: u16) -> Result<Vec<Sample>, Fault> {
    let shunt_volts = f64::from(shunt) * SHUNT_STEP;
    if bus & OVF != 0 || shunt_volts.abs() > settings.range - SHUNT_STEP / 2.0 {
        let limit = settings.range / settings.shunt;
        let detail = format!(
            "the current is {limit} A or more (the chip reports an overflow): raise `max_current`, or \
                              choose a smaller shunt"
        );
        return Err(Fault::new(FaultCode::Impossible, detail));
    }
    let volts = f64::from(bus >> 3) * BUS_STEP;
    let (current, limit) = (shunt_volts / settings.shunt, settings.range / settings.shunt);
    let decimals = decimals(SHUNT_STEP / settings.shunt);
    let power = BUS_RANGE * limit;
    Ok(vec![
        Scale { quantity: VOLTAGE, unit: "V", min: 0.0, max: BUS_RANGE, decimals: 3 }.sample(volts)?,
        Scale { quantity: CURRENT, unit: "A", min: -limit, max: limit, decimals }.sample(current)?,
        Scale { quantity: POWER, unit: "W", min: -power, max: power, decimals }.sample(volts * current)?,
    ])
}

/// Digits behind the point that tell two steps apart.
fn decimals(step: f64) -> i32 {
    (0..=6).find(|decimals| step * 10_f64.powi(*decimals) > 0.999).unwrap_or(6)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::drivers::support::testing;

    fn settings(shunt: f64, gain: u8) -> Settings {
        Settings { shunt, gain, range: RANGES[usize::from(gain)] }
    }

    fn numbers(samples: &[Sample]) -> Vec<f64> {
        samples.iter().map(testing::number).collect()
    }

    /// 9.2.2.1: 10 A through 2 mΩ at 12 V; shunt voltage 0x07d0, bus voltage 0x5d98 = 11.98 V, and
    /// the power 119.8 W.
    #[test]
    fn the_data_sheets_worked_example_comes_out() {
        let samples = convert(&settings(0.002, 0), 0x07d0, 0x5d98).expect("samples");
        assert_eq!(numbers(&samples), [11.98, 10.0, 119.8]);
    }

    /// 8.6.3.1: -320 mV is 0x8300, with PGA = /8; the ends of each range.
    #[test]
    fn signs_are_kept_and_the_ends_of_the_ranges_are_faults() {
        let raw = |hex: u16| hex.cast_signed();
        let samples = convert(&settings(0.1, 3), raw(0x8300) + 1, 0).expect("samples");
        assert_eq!(numbers(&samples), [0.0, -3.1999, 0.0]);
        for (gain, end) in [(0, 4_000), (1, 8_000), (2, 16_000), (3, 32_000)] {
            let code = |shunt| convert(&settings(0.1, gain), shunt, 0).map_err(|fault| fault.code);
            assert_eq!(code(end), Err(FaultCode::Impossible));
            assert_eq!(code(-end), Err(FaultCode::Impossible));
            assert!(code(end - 1).is_ok() && code(1 - end).is_ok());
        }
    }

    #[test]
    fn an_overflow_that_the_chip_reports_and_a_bus_voltage_beyond_its_range_are_faults() {
        let code = |bus| convert(&settings(0.1, 3), 100, bus).map_err(|fault| fault.code);
        assert_eq!(code(0x5d98 | OVF), Err(FaultCode::Impossible));
        assert_eq!(code(8_001 << 3), Err(FaultCode::Impossible));
        assert!(code(8_000 << 3).is_ok());
    }

    #[test]
    fn values_have_as_many_digits_as_the_shunt_gives() {
        assert_eq!([0.002, 0.01, 0.1, 1.0].map(|shunt| decimals(SHUNT_STEP / shunt)), [3, 3, 4, 5]);
    }

    #[test]
    fn a_sample_is_one_triggered_measurement() {
        let chip = testing::chip(
            0x40,
            &[
                (&[0x00, 0x26, 0x63], &[]),
                (&[0x02], &[0x5d, 0x98]),
                (&[0x02], &[0x5d, 0x9a]),
                (&[0x01], &[0x07, 0xd0]),
                (&[0x00], &[0x26, 0x63]),
            ],
        );
        let samples = Ina219 { chip, settings: settings(0.1, 0) }.sample().expect("samples");
        assert_eq!(numbers(&samples), [11.98, 0.2, 2.396]);
    }

    #[test]
    fn a_reset_in_between_is_noticed() {
        let chip = testing::chip(
            0x40,
            &[(&[0x00, 0x3e, 0x63], &[]), (&[0x02], &[0x5d, 0x9a]), (&[0x01], &[0x07, 0xd0]), (&[0x00], &[0x39, 0x9f])],
        );
        let fault = Ina219 { chip, settings: settings(0.1, 3) }.sample().expect_err("a fault");
        assert!(fault.code == FaultCode::BadData && fault.detail.contains("reset"), "{fault}");
    }

    proptest! {
        #[test]
        fn every_content_of_the_registers_is_a_value_or_a_fault(shunt in any::<i16>(), bus in any::<u16>(), gain in 0..4_u8) {
            match convert(&settings(0.1, gain), shunt, bus) {
                Ok(samples) => {
                    let [volts, amperes, watts] = numbers(&samples)[..] else { panic!("three quantities") };
                    prop_assert!((0.0..=32.0).contains(&volts) && amperes.abs() <= 3.2 && watts.abs() <= 102.4);
                }
                Err(fault) => prop_assert_eq!(fault.code, FaultCode::Impossible),
            }
        }
    }
}
