//! Microchip MCP3008 (and MCP3004), an analog-to-digital converter of 10 bits with eight inputs on SPI.
//!
//! Data sheet: DS21295 (sections and figures below are revision D's). One transfer an input and sample.

use embedded_hal::spi::MODE_0;

use super::support::inputs::{self, Input};
use super::support::measured::Scale;
use super::support::spi::{self, Chip};
use super::{Connection, Driver, OptionInfo, Parsed, Poller, QuantityInfo};
use crate::options::Options;
use crate::reading::{Fault, FaultCode, Kind, Sample};

pub(crate) static DRIVER: Driver = Driver {
    name: "mcp3008",
    summary: "MCP3008 or MCP3004 on SPI: eight (or four) voltages, or differences of them, of 10 bits",
    notes: "\
Wiring: VDD and VREF to 3V3, AGND and DGND to ground, CLK to GPIO11, DOUT to GPIO9, DIN to GPIO10, CS to GPIO8 (chip
select 0) or GPIO7 (1). Never VDD at 5 V with DOUT at the Pi. Switch SPI on with `sudo raspi-config nonint do_spi 0`;
the user that vigie runs as must belong to the group `spi`.

The quantities are the voltages at the inputs, named as on the chip. `[sensor.quantity.ch0]` gives one its name, its
unit and its scale (`as`, `unit`, `multiply`, `offset`). A voltage at or above `vref` reads as the highest value (1023
of 1024 parts), a difference below zero as 0.

SPI does not acknowledge, and the chip has no identity. A chip that is missing is told where the line DOUT is high then:
the bit before the result must be 0, and the chip repeats the result backwards, which is compared. Where the line is low
(by a pull-down resistor, or a short to ground), a missing chip cannot be told from 0 V.",
    sample: r#"[[sensor]]
name = "plantes"
driver = "mcp3008"
bus = 0
chip_select = 0
inputs = ["ch0", "ch2-ch3"]
vref = 3.3
every = "10s"
"#,
    connection: Connection::Spi(INFO),
    options: &[
        OptionInfo {
            name: "inputs",
            values: "list of `ch0` to `ch7`, `ch0-ch1`, `ch1-ch0`, …, `ch7-ch6`",
            default: Some("`ch0` to `ch7`"),
            help: "Which to read: a voltage against ground, or how much one of a pair is above the other.",
        },
        OptionInfo {
            name: "vref",
            values: "0.25 to 5.5 V",
            default: Some("3.3"),
            help: "The voltage at VREF, which is the highest that can be measured.",
        },
    ],
    quantities: &[
        voltage("ch0", "Between CH0 and ground, ± 1/1024 of `vref`."),
        voltage("ch1", "Between CH1 and ground."),
        voltage("ch2", "Between CH2 and ground."),
        voltage("ch3", "Between CH3 and ground."),
        voltage("ch4", "Between CH4 and ground."),
        voltage("ch5", "Between CH5 and ground."),
        voltage("ch6", "Between CH6 and ground."),
        voltage("ch7", "Between CH7 and ground."),
        voltage("ch0-ch1", "How much CH0 is above CH1; 0 where it is below."),
        voltage("ch1-ch0", "How much CH1 is above CH0."),
        voltage("ch2-ch3", "How much CH2 is above CH3."),
        voltage("ch3-ch2", "How much CH3 is above CH2."),
        voltage("ch4-ch5", "How much CH4 is above CH5."),
        voltage("ch5-ch4", "How much CH5 is above CH4."),
        voltage("ch6-ch7", "How much CH6 is above CH7."),
        voltage("ch7-ch6", "How much CH7 is above CH6."),
    ],
    parse,
};

const fn voltage(name: &'static str, help: &'static str) -> QuantityInfo {
    QuantityInfo { name, unit: Some("V"), kind: Kind::Number, help }
}

/// At 2.7 V up to 1.35 MHz, at 5 V up to 3.6 MHz (1.0, clock frequency).
const INFO: spi::Info = spi::Info { mode: MODE_0, max_hz: 3_600_000 };

/// The inputs with their codes: SGL/DIFF, D2, D1, D0 (table 5-2).
const INPUTS: &[Input] = &[
    ("ch0", 0b1000),
    ("ch1", 0b1001),
    ("ch2", 0b1010),
    ("ch3", 0b1011),
    ("ch4", 0b1100),
    ("ch5", 0b1101),
    ("ch6", 0b1110),
    ("ch7", 0b1111),
    ("ch0-ch1", 0b0000),
    ("ch1-ch0", 0b0001),
    ("ch2-ch3", 0b0010),
    ("ch3-ch2", 0b0011),
    ("ch4-ch5", 0b0100),
    ("ch5-ch4", 0b0101),
    ("ch6-ch7", 0b0110),
    ("ch7-ch6", 0b0111),
];

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let spi = INFO.parse(options);
    let inputs = inputs::parse(options, INPUTS, &["ch0", "ch1", "ch2", "ch3", "ch4", "ch5", "ch6", "ch7"]);
    let vref = options.optional_in("vref", 0.25..=5.5).unwrap_or(3.3);
    let inputs = inputs?;
    Some(spi::sensor(spi, move |chip| Ok(Mcp3008 { chip, inputs: inputs.clone(), vref })))
}

struct Mcp3008 {
    chip: Chip,
    inputs: Vec<Input>,
    /// V
    vref: f64,
}

impl Poller for Mcp3008 {
    fn sample(&mut self) -> Result<Vec<Sample>, Fault> {
        let mut samples = Vec::new();
        for (name, code) in &self.inputs {
            // The start bit ends the first byte; the result, most significant bit first, ends the third (figure 6-1).
            let mut bytes = [1, code << 4, 0, 0, 0];
            self.chip.transfer(&mut bytes)?;
            let raw = result(bytes).map_err(|what| {
                let detail = format!(
                    "no MCP3008 answers at {}: {what}; check its supply, its wiring and the chip select",
                    self.chip.place()
                );
                Fault::new(FaultCode::Missing, detail)
            })?;
            samples.push(convert(name, raw, self.vref)?);
        }
        Ok(samples)
    }
}

/// The ten bits out of a transfer (figures 5-1 and 5-2): a null bit, B9 to B0, then B1 to B9 once more, then zeros.
fn result(bytes: [u8; 5]) -> Result<u16, String> {
    let [_, high, low, backwards, rest] = bytes;
    if high & 0b100 != 0 {
        return Err("the null bit before its result is 1".to_owned());
    }
    let forwards = u16::from_be_bytes([high & 0b11, low]);
    let again = u16::from_be_bytes([backwards, rest]);
    // B1 is the first bit of the second run.
    let expected = forwards.reverse_bits() << 1;
    if again != expected {
        return Err(format!("its result {forwards:#05x} is followed by {again:#06x}, not {expected:#06x}"));
    }
    Ok(forwards)
}

/// Volts of a raw value (equation 4-2).
fn convert(name: &'static str, raw: u16, vref: f64) -> Result<Sample, Fault> {
    let scale = Scale { quantity: name, unit: "V", min: 0.0, max: vref, decimals: 4 };
    scale.sample(f64::from(raw) * vref / 1024.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::drivers::support::testing::number;

    /// What the chip sends for a result, bit by bit as figure 5-2 draws it, after whatever the line did before.
    fn sent(raw: u16, before: u8) -> [u8; 5] {
        let bits = (0..10).rev().chain(1..10).map(|bit| raw >> bit & 1);
        let number = bits.fold(0_u64, |number, bit| number << 1 | u64::from(bit));
        // 19 bits behind a null bit, of the 24 + 2 that are left, the others being zeros.
        let all = number << 7 | u64::from(before) << 32 | u64::from(before & 0b1111_1000) << 24;
        let [_, _, _, bytes @ ..] = all.to_be_bytes();
        bytes
    }

    #[test]
    fn every_result_is_found_again_whatever_the_line_did_before() {
        for raw in 0..1024 {
            for before in [0x00, 0xff, 0x5a] {
                assert_eq!(result(sent(raw, before)), Ok(raw), "{raw:#05x}");
            }
        }
    }

    #[test]
    fn a_line_that_is_high_or_noisy_is_no_chip() {
        assert!(result([0xff; 5]).expect_err("a high line").contains("null bit"));
        let mut noisy = sent(0x155, 0xff);
        noisy[2] ^= 0b10;
        assert!(result(noisy).expect_err("a bit that flipped").contains("followed by"));
    }

    /// Equation 4-2: the code is 1024 times VIN / VREF.
    #[test]
    fn the_data_sheets_equation_is_turned_round() {
        for (raw, vref, volts) in [(0, 3.3, 0.0), (512, 3.3, 1.65), (1023, 3.3, 3.2968), (1023, 5.0, 4.9951)] {
            assert_eq!(convert("ch0", raw, vref).map(|sample| number(&sample)), Ok(volts));
        }
    }

    proptest! {
        #[test]
        fn every_transfer_is_a_value_in_range_or_a_fault(bytes in any::<[u8; 5]>()) {
            if let Ok(raw) = result(bytes) {
                let sample = convert("ch0", raw, 3.3).expect("ten bits are always in range");
                prop_assert!((0.0..3.3).contains(&number(&sample)));
            }
        }
    }
}
