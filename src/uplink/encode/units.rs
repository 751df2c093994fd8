//! Units as SenML names them: RFC 8428, 12.1, with the additions of RFC 8798, 2 ("primary" units).
//!
//! What RFC 8798, 3 calls secondary units may only be used by packs that say so in their version (RFC 9100), which few
//! consumers read. So values in those are brought to the primary unit here; a unit that has no name there is left out.

use crate::reading::Finite;

/// How a unit goes out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Unit {
    /// Its name in SenML.
    pub(super) name: &'static str,
    /// What a value is multiplied by.
    scale: Scale,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Scale {
    /// A power of ten: decimals are moved, so that no digit changes.
    Ten(i32),
    /// Anything else.
    By(f64),
}

/// As sensors write them, with the name in SenML and what values are multiplied by.
const UNITS: &[(&str, &str, Scale)] = {
    use Scale::{By, Ten};
    &[
        ("m", "m", Ten(0)),
        ("mm", "m", Ten(-3)),
        ("cm", "m", Ten(-2)),
        ("km", "m", Ten(3)),
        ("kg", "kg", Ten(0)),
        ("g", "g", Ten(0)),
        ("s", "s", Ten(0)),
        ("ms", "s", Ten(-3)),
        ("µs", "s", Ten(-6)),
        ("min", "s", By(60.0)),
        ("h", "s", By(3_600.0)),
        ("A", "A", Ten(0)),
        ("mA", "A", Ten(-3)),
        ("µA", "A", Ten(-6)),
        ("K", "K", Ten(0)),
        ("cd", "cd", Ten(0)),
        ("mol", "mol", Ten(0)),
        ("Hz", "Hz", Ten(0)),
        ("kHz", "Hz", Ten(3)),
        ("MHz", "Hz", Ten(6)),
        ("rad", "rad", Ten(0)),
        ("°", "deg", Ten(0)),
        ("N", "N", Ten(0)),
        ("Pa", "Pa", Ten(0)),
        ("hPa", "Pa", Ten(2)),
        ("mbar", "Pa", Ten(2)),
        ("kPa", "Pa", Ten(3)),
        ("bar", "Pa", Ten(5)),
        ("J", "J", Ten(0)),
        ("Wh", "J", By(3_600.0)),
        ("kWh", "J", By(3_600_000.0)),
        ("W", "W", Ten(0)),
        ("mW", "W", Ten(-3)),
        ("kW", "W", Ten(3)),
        ("V", "V", Ten(0)),
        ("mV", "V", Ten(-3)),
        ("µV", "V", Ten(-6)),
        ("kV", "V", Ten(3)),
        ("C", "C", Ten(0)),
        ("Ah", "C", By(3_600.0)),
        ("F", "F", Ten(0)),
        ("Ω", "Ohm", Ten(0)),
        ("Ohm", "Ohm", Ten(0)),
        ("kΩ", "Ohm", Ten(3)),
        ("T", "T", Ten(0)),
        ("mT", "T", Ten(-3)),
        ("µT", "T", Ten(-6)),
        ("°C", "Cel", Ten(0)),
        ("lm", "lm", Ten(0)),
        ("lx", "lx", Ten(0)),
        ("Bq", "Bq", Ten(0)),
        ("Sv", "Sv", Ten(0)),
        ("µSv", "Sv", Ten(-6)),
        ("m²", "m2", Ten(0)),
        ("m³", "m3", Ten(0)),
        ("l", "l", Ten(0)),
        ("L", "l", Ten(0)),
        ("m/s", "m/s", Ten(0)),
        ("km/h", "m/s", By(1.0 / 3.6)),
        ("m/s²", "m/s2", Ten(0)),
        ("m³/s", "m3/s", Ten(0)),
        ("l/s", "l/s", Ten(0)),
        ("W/m²", "W/m2", Ten(0)),
        ("bit", "bit", Ten(0)),
        ("B", "B", Ten(0)),
        ("kB", "B", Ten(3)),
        ("KiB", "B", By(1_024.0)),
        ("MiB", "B", By(1_048_576.0)),
        ("bit/s", "bit/s", Ten(0)),
        ("pH", "pH", Ten(0)),
        ("dB", "dB", Ten(0)),
        ("S/m", "S/m", Ten(0)),
        ("µS/cm", "S/m", Ten(-4)),
        ("mS/cm", "S/m", Ten(-1)),
        ("VA", "VA", Ten(0)),
        ("kVA", "VA", Ten(3)),
        ("var", "var", Ten(0)),
        ("kg/m³", "kg/m3", Ten(0)),
        ("g/m³", "kg/m3", Ten(-3)),
        ("mg/m³", "kg/m3", Ten(-6)),
        ("µg/m³", "kg/m3", Ten(-9)),
        ("ppm", "/", Ten(-6)),
        ("ppb", "/", Ten(-9)),
        ("‰", "/", Ten(-3)),
        ("1/s", "1/s", Ten(0)),
        ("1/min", "1/min", Ten(0)),
        ("rpm", "1/min", Ten(0)),
    ]
};

/// Digits of a value after a conversion that is no power of ten: what a sensor measures has fewer.
const DIGITS: usize = 12;

impl Unit {
    /// The unit of a quantity, if SenML has a name for it.
    pub(super) fn of(quantity: &str, unit: Option<&str>) -> Option<Self> {
        // Two code points are in use for the micro sign.
        let unit = unit?.replace('μ', "µ");
        if unit == "%" {
            let humid = quantity.contains("humid") || quantity.ends_with("moisture");
            return Some(if humid {
                Self { name: "%RH", scale: Scale::Ten(0) }
            } else if quantity.contains("battery") {
                Self { name: "%EL", scale: Scale::Ten(0) }
            } else {
                // "%" itself is deprecated (RFC 8428, 12.1, note).
                Self { name: "/", scale: Scale::Ten(-2) }
            });
        }
        let (_, name, scale) = UNITS.iter().find(|(written, _, _)| *written == unit)?;
        Some(Self { name, scale: *scale })
    }

    /// The value in it.
    pub(super) fn convert(self, number: Finite) -> Finite {
        let converted = match self.scale {
            Scale::Ten(0) => return number,
            Scale::Ten(exponent) => shifted(number.get(), exponent),
            Scale::By(factor) => format!("{:.*e}", DIGITS - 1, number.get() * factor).parse().ok(),
        };
        // Beyond the largest double there is nothing to say but the largest.
        converted.and_then(Finite::new).unwrap_or(number)
    }
}

/// The decimal point moved: the double that is nearest to the shortest decimal form so moved.
fn shifted(number: f64, exponent: i32) -> Option<f64> {
    let text = format!("{number:e}");
    let (digits, power) = text.split_once('e')?;
    let power: i32 = power.parse().ok()?;
    format!("{digits}e{}", power + exponent).parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn converted(quantity: &str, unit: &str, value: f64) -> (&'static str, f64) {
        let found = Unit::of(quantity, Some(unit)).expect(unit);
        (found.name, found.convert(Finite::new(value).expect("finite")).get())
    }

    #[test]
    fn values_keep_their_digits() {
        assert_eq!(converted("pressure", "hPa", 1_013.27), ("Pa", 101_327.0));
        assert_eq!(converted("voltage", "mV", 3.3), ("V", 0.0033));
        assert_eq!(converted("energy", "kWh", 0.1), ("J", 360_000.0));
        assert_eq!(converted("speed", "km/h", 36.0), ("m/s", 10.0));
        assert_eq!(converted("dust", "μg/m³", 12.5), ("kg/m3", 12.5e-9));
        assert_eq!(converted("temperature", "°C", 21.53), ("Cel", 21.53));
    }

    /// RFC 8428, 12.1: the percent sign is deprecated for what it may mean.
    #[test]
    fn a_percentage_says_of_what() {
        assert_eq!(converted("humidity", "%", 40.1), ("%RH", 40.1));
        assert_eq!(converted("soil_moisture", "%", 40.1), ("%RH", 40.1));
        assert_eq!(converted("battery", "%", 80.0), ("%EL", 80.0));
        assert_eq!(converted("cpu_load", "%", 12.5), ("/", 0.125));
        assert_eq!(Unit::of("x", Some("furlong")), None);
        assert_eq!(Unit::of("x", None), None);
    }

    #[test]
    fn no_unit_is_there_twice() {
        for (index, (unit, _, _)) in UNITS.iter().enumerate() {
            assert!(UNITS[..index].iter().all(|(other, _, _)| other != unit), "{unit}");
        }
    }

    proptest! {
        #[test]
        fn every_number_stays_one(number in proptest::num::f64::NORMAL, index in 0..UNITS.len()) {
            let (unit, _, _) = UNITS[index];
            let number = Finite::new(number).expect("finite");
            prop_assert!(Unit::of("x", Some(unit)).expect("it is in the list").convert(number).get().is_finite());
        }
    }
}
