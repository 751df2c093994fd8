//! Texas Instruments ADS1115, an analog-to-digital converter of 16 bits with four inputs on I2C.
//!
//! Data sheet: SBAS444 (revision D; sections below are its). One single-shot conversion an input and sample. Does not do
//! the comparator or continuous conversions.

use std::time::Duration;

use super::support::i2c::{self, Chip, Register};
use super::support::inputs::{self, Input};
use super::support::measured::Scale;
use super::{Connection, Driver, OptionInfo, Parsed, Poller, QuantityInfo};
use crate::options::Options;
use crate::reading::{Fault, FaultCode, Kind, Sample};

pub(crate) static DRIVER: Driver = Driver {
    name: "ads1115",
    summary: "ADS1115 on I2C: four voltages, or differences of them, of 16 bits",
    notes: "\
Wiring: VDD to 3V3, GND, SDA to GPIO2, SCL to GPIO3; the address is 0x48 with ADDR at ground, 0x49 at VDD, 0x4a at SDA,
0x4b at SCL. No input may be below ground or above VDD, whatever `range` says: a higher voltage needs a divider. The user
that vigie runs as must belong to the group `i2c`.

The quantities are the voltages at the inputs, named as on the chip. `[sensor.quantity.a0]` gives one its name, its unit
and its scale (`as`, `unit`, `multiply`, `offset`), such as °C of a TMP36 or % of a soil sensor. A voltage at or beyond
`range` is the fault `impossible`, which is then the whole sample's. The inputs are measured one after the other, each in
about 1 / `rate`.

The chip has no identity; another one is told by its not keeping the settings. An ADS1015 (12 bits) works as well, and
converts faster than `rate` says.",
    sample: r#"[[sensor]]
name = "tension"
driver = "ads1115"
bus = 1
address = 0x48
inputs = ["a0", "a2-a3"]
range = 4.096
every = "10s"
[sensor.quantity.a0]
as = "battery"
multiply = 5.7      # a divider of 47 kΩ and 10 kΩ
"#,
    connection: Connection::I2c(INFO),
    options: &[
        OptionInfo {
            name: "inputs",
            values: "list of `a0` to `a3`, `a0-a1`, `a0-a3`, `a1-a3`, `a2-a3`",
            default: Some("[\"a0\", \"a1\", \"a2\", \"a3\"]"),
            help: "Which to read: a voltage against ground, or a difference.",
        },
        OptionInfo {
            name: "range",
            values: "6.144, 4.096, 2.048, 1.024, 0.512 or 0.256 V",
            default: Some("4.096"),
            help: "The largest voltage, either way: the smaller, the finer (a 32768th of it).",
        },
        OptionInfo {
            name: "rate",
            values: "8, 16, 32, 64, 128, 250, 475 or 860",
            default: Some("128"),
            help: "Conversions a second: the slower, the less noise.",
        },
    ],
    quantities: &[
        voltage("a0", "Between A0 and ground, ± 0.15 %."),
        voltage("a1", "Between A1 and ground."),
        voltage("a2", "Between A2 and ground."),
        voltage("a3", "Between A3 and ground."),
        voltage("a0-a1", "How much A0 is above A1."),
        voltage("a0-a3", "How much A0 is above A3."),
        voltage("a1-a3", "How much A1 is above A3."),
        voltage("a2-a3", "How much A2 is above A3."),
    ],
    parse,
};

const fn voltage(name: &'static str, help: &'static str) -> QuantityInfo {
    QuantityInfo { name, unit: Some("V"), kind: Kind::Number, help }
}

const INFO: i2c::Info = i2c::Info { addresses: &[0x48, 0x49, 0x4a, 0x4b], identify: None };

/// The inputs with their codes in MUX (table 8).
const INPUTS: &[Input] = &[
    ("a0-a1", 0b000),
    ("a0-a3", 0b001),
    ("a1-a3", 0b010),
    ("a2-a3", 0b011),
    ("a0", 0b100),
    ("a1", 0b101),
    ("a2", 0b110),
    ("a3", 0b111),
];

/// Full scales in volts, in the order of their codes in PGA (table 8).
const RANGES: [f64; 6] = [6.144, 4.096, 2.048, 1.024, 0.512, 0.256];

/// Conversions a second, in the order of their codes in DR (table 8).
const RATES: [u16; 8] = [8, 16, 32, 64, 128, 250, 475, 860];

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let place = INFO.parse(options);
    let inputs = inputs::parse(options, INPUTS, &["a0", "a1", "a2", "a3"]);
    let range = one_of(options, "range", &RANGES, 4.096);
    let rate = one_of(options, "rate", &RATES.map(f64::from), 128.0);
    let (place, (range, full_scale), (rate, per_second)) = (place?, range?, rate?);
    let settings = Settings { inputs: inputs?, range, full_scale, rate, per_second };
    Some(place.sensor(move |chip| Ads1115::open(chip, settings.clone())))
}

/// A number that is one of a few: its code, which is its place in the list, and itself.
fn one_of(options: &Options<'_>, key: &'static str, known: &[f64], default: f64) -> Option<(u8, f64)> {
    let wanted = options.optional::<f64>(key).unwrap_or(default);
    let found = (0_u8..).zip(known).find(|(_, known)| (**known - wanted).abs() < 1e-9);
    if found.is_none() {
        let list: Vec<String> = known.iter().map(f64::to_string).collect();
        let message = format!("`{key}` of {} cannot be {wanted}", options.what());
        options.problem(key, message, Some(format!("expected one of {}", list.join(", "))));
    }
    found.map(|(code, value)| (code, *value))
}

#[derive(Clone)]
struct Settings {
    inputs: Vec<Input>,
    /// Code of the range, and volts.
    range: u8,
    full_scale: f64,
    /// Code of the rate, and conversions a second.
    rate: u8,
    per_second: f64,
}

// Registers (9.6).
const CONVERSION: Register = Register("conversion", 0x00);
const CONFIG: Register = Register("config", 0x01);

/// Config: written, starts a conversion; read, none is under way.
const OS: u16 = 1 << 15;
const SINGLE_SHOT: u16 = 1 << 8;
/// The comparator is off. That it would latch has no meaning then, but tells these settings from those after power-on.
const NO_COMPARATOR: u16 = 0b0_0111;

impl Settings {
    fn config(&self, mux: u8) -> u16 {
        let (mux, range, rate) = (u16::from(mux), u16::from(self.range), u16::from(self.rate));
        mux << 12 | range << 9 | SINGLE_SHOT | rate << 5 | NO_COMPARATOR
    }

    /// A conversion of the slowest oscillator (10 % below the nominal one, 7.5) and the 25 µs of waking up.
    fn conversion_time(&self) -> Duration {
        Duration::from_secs_f64(1.0 / (0.9 * self.per_second)) + Duration::from_micros(25)
    }
}

struct Ads1115 {
    chip: Chip,
    settings: Settings,
}

impl Poller for Ads1115 {
    fn sample(&mut self) -> Result<Vec<Sample>, Fault> {
        let inputs = self.settings.inputs.clone();
        inputs.into_iter().map(|(name, mux)| convert(name, self.raw(mux)?, self.settings.full_scale)).collect()
    }
}

impl Ads1115 {
    fn open(mut chip: Chip, settings: Settings) -> Result<Self, Fault> {
        let config = settings.config(0);
        chip.write_u16(CONFIG, config)?;
        let found = chip.read_u16(CONFIG)?;
        if found & !OS != config {
            return Err(chip.keeps_not("ADS1115", config, found));
        }
        Ok(Self { chip, settings })
    }

    /// One conversion.
    fn raw(&mut self, mux: u8) -> Result<i16, Fault> {
        let config = self.settings.config(mux);
        self.chip.write_u16(CONFIG, config | OS)?;
        self.chip.wait_for("its conversion", self.settings.conversion_time(), |chip| {
            let found = chip.read_u16(CONFIG)?;
            if found & !OS != config {
                return Err(chip.was_reset(CONFIG, config | OS, found));
            }
            Ok((found & OS != 0).then_some(()))
        })?;
        Ok(i16::from_be_bytes(self.chip.read(CONVERSION)?))
    }
}

/// Volts of a raw value (9.5.4, table 3). The two ends stand for everything beyond them.
fn convert(name: &'static str, raw: i16, full_scale: f64) -> Result<Sample, Fault> {
    if raw == i16::MAX || raw == i16::MIN {
        let sign = if raw > 0 { "" } else { "-" };
        let detail = format!(
            "the voltage at {name} is {sign}{full_scale} V or beyond: choose a larger `range`, or a divider if it is \
             above the chip's supply"
        );
        return Err(Fault::new(FaultCode::Impossible, detail));
    }
    let scale = Scale { quantity: name, unit: "V", min: -full_scale, max: full_scale, decimals: 6 };
    scale.sample(f64::from(raw) * full_scale / 32_768.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::drivers::support::testing::{self, Exchange, number};

    fn settings() -> Settings {
        Settings { inputs: vec![INPUTS[4], INPUTS[3]], range: 1, full_scale: 4.096, rate: 7, per_second: 860.0 }
    }

    fn sample(exchanges: &[Exchange]) -> Result<Vec<Sample>, Fault> {
        Ads1115 { chip: testing::chip(0x48, exchanges), settings: settings() }.sample()
    }

    fn volts(raw: i16, full_scale: f64) -> f64 {
        number(&convert("a0", raw, full_scale).expect("a value"))
    }

    /// Table 3 (full scales and what a step of each is) and table 4 (the codes at the ends).
    #[test]
    fn the_data_sheets_steps_and_ends_come_out() {
        for (full_scale, microvolts) in RANGES.into_iter().zip([187.5, 125.0, 62.5, 31.25, 15.625, 7.812_5]) {
            assert!((volts(16_000, full_scale) - 16_000.0 * microvolts / 1e6).abs() < 5e-7, "{full_scale}");
            assert!((volts(-1, full_scale) + microvolts / 1e6).abs() < 5e-7, "{full_scale}");
            for raw in [i16::MAX, i16::MIN] {
                let fault = convert("a0", raw, full_scale).expect_err("beyond the range");
                assert!(fault.code == FaultCode::Impossible && fault.detail.contains("range"), "{fault}");
            }
        }
        assert!((volts(0, 4.096)).abs() < 1e-12);
    }

    /// Table 8: 0x8583 is the power-on value, with MUX 000, PGA 010, single shot, DR 100 and the comparator off.
    #[test]
    fn settings_differ_from_those_after_power_on_in_nothing_but_the_mark() {
        let settings = Settings { range: 2, rate: 4, ..settings() };
        assert_eq!(settings.config(0) | OS, 0x8583 | 0b100);
    }

    #[test]
    fn each_input_is_one_conversion() {
        let samples = sample(&[
            (&[0x01, 0xc3, 0xe7], &[]),
            (&[0x01], &[0x43, 0xe7]),
            (&[0x01], &[0xc3, 0xe7]),
            (&[0x00], &[0x40, 0x00]),
            (&[0x01, 0xb3, 0xe7], &[]),
            (&[0x01], &[0xb3, 0xe7]),
            (&[0x00], &[0xff, 0xff]),
        ]);
        assert_eq!(testing::numbers(&samples.expect("samples")), [("a0", 2.048), ("a2-a3", -0.000_125)]);
    }

    #[test]
    fn a_reset_in_between_and_a_chip_that_hangs_are_noticed() {
        let fault = sample(&[(&[0x01, 0xc3, 0xe7], &[]), (&[0x01], &[0x85, 0x83])]).expect_err("a fault");
        assert!(fault.code == FaultCode::BadData && fault.detail.contains("reset"), "{fault}");
        let mut busy: [Exchange; 11] = [(&[0x01], &[0x43, 0xe7]); 11];
        busy[0] = (&[0x01, 0xc3, 0xe7], &[]);
        let fault = sample(&busy).expect_err("a fault");
        assert!(fault.code == FaultCode::BadData && fault.detail.contains("never ends"), "{fault}");
    }

    proptest! {
        #[test]
        fn every_raw_value_is_within_the_range_or_a_fault(raw in any::<i16>(), range in 0..RANGES.len()) {
            match convert("a0", raw, RANGES[range]) {
                Ok(sample) => prop_assert!(number(&sample).abs() < RANGES[range]),
                Err(fault) => prop_assert_eq!(fault.code, FaultCode::Impossible),
            }
        }
    }
}
