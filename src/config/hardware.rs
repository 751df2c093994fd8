//! `[hardware]`

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::read::{SHORTEST, YEAR};
use crate::drivers::gpio;
use crate::hardware::sim::fault::{Device, Kind, MAX_FAULTS, ScriptedFault};
use crate::hardware::{Backend, LineId, PowerSettings, Settings};
use crate::options::{FromToml, Options};

/// Faults in a row after which a supply is switched off and on.
const POWER_AFTER: RangeInclusive<u32> = 1..=1000;
const DEFAULT_AFTER: u32 = 3;
/// Enough for the capacitors of most boards.
const DEFAULT_OFF: Duration = Duration::from_secs(2);
const DEFAULT_SETTLE: Duration = Duration::from_secs(1);
/// Longest time to be off, or to settle.
const POWER_MOST: Duration = Duration::from_secs(60 * 60);

/// The keys of the section.
pub(super) fn hardware(options: Option<&Options<'_>>) -> Settings {
    let Some(options) = options else { return Settings::default() };
    let backends = [("linux", Backend::Linux), ("sim", Backend::Sim)];
    let backend = options.optional_word("backend", &backends).unwrap_or_default();
    let faults = faults(options);
    if backend != Backend::Sim && options.raw("fault").is_some() {
        options.problem(
            "fault",
            "[[hardware.fault]] is for simulated hardware only",
            Some("expected backend = \"sim\" in [hardware], or no faults".to_owned()),
        );
    }
    Settings { backend, faults }
}

fn faults(options: &Options<'_>) -> Vec<ScriptedFault> {
    let Some(value) = options.raw("fault") else { return Vec::new() };
    let Some(list) = value.get_ref().as_array() else {
        let expected = "expected [[hardware.fault]], with two brackets: there may be several".to_owned();
        options.problem("fault", "`fault` of [hardware] has the wrong type", Some(expected));
        return Vec::new();
    };
    if list.len() > MAX_FAULTS {
        options.problem("fault", format!("there are more than {MAX_FAULTS} faults"), None);
    }
    let mut faults = Vec::new();
    for item in list.iter() {
        let Some(keys) = Options::table(item, "[[hardware.fault]]", options.problems()) else { continue };
        faults.extend(fault(&keys));
        keys.finish();
    }
    faults
}

/// The keys of a fault.
pub(super) fn fault(options: &Options<'_>) -> Option<ScriptedFault> {
    let device = options.required::<Place>("device");
    let kinds = [
        ("nak", Kind::Nak),
        ("timeout", Kind::Timeout),
        ("hang", Kind::Hang),
        ("garbage", Kind::Garbage),
        ("wrong-chip", Kind::WrongChip),
        ("unplug", Kind::Unplug),
    ];
    let kind = options.required::<String>("kind").and_then(|_| options.optional_word("kind", &kinds));
    let at = options.optional_in("at", Duration::ZERO..=YEAR).unwrap_or_default();
    let lasts = options.optional_in("for", SHORTEST..=YEAR);
    let cured_by = options.optional::<String>("cured_by").map(LineId::Name);
    let (Place(device), kind) = (device?, kind?);
    if !matches!(device, Device::I2c { .. }) && kind != Kind::Unplug {
        let expected = "expected \"unplug\": the others are for devices on I2C".to_owned();
        options.problem("kind", "a line or port cannot be broken in this way", Some(expected));
        return None;
    }
    Some(ScriptedFault { device, kind, at, lasts, cured_by })
}

/// The keys of `power`.
pub(super) fn power(options: &Options<'_>) -> Option<PowerSettings> {
    let line = gpio::which_line(options);
    let active_low = options.optional("active_low").unwrap_or(false);
    let after = options.optional_in("after", POWER_AFTER).unwrap_or(DEFAULT_AFTER);
    let off = options.optional_in("off", SHORTEST..=POWER_MOST).unwrap_or(DEFAULT_OFF);
    let settle = options.optional_in("settle", Duration::ZERO..=POWER_MOST).unwrap_or(DEFAULT_SETTLE);
    let (line, _) = line?;
    Some(PowerSettings { line, active_low, after, off, settle })
}

/// A device as a fault names it.
struct Place(Device);

impl FromToml for Place {
    const EXPECTED: &'static str =
        "a device such as \"i2c 1 0x76\", \"i2c 1\" (its wires), \"line GPIO17\" or \"port sim:arduino\"";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Option<String>> {
        let text = value.as_str().ok_or(None)?;
        let wrong = || Some(format!("\"{text}\" names no device"));
        let (what, which) = text.split_once(' ').ok_or_else(wrong)?;
        let device = match what {
            "i2c" => {
                let (bus, address) = match which.split_once(' ') {
                    Some((bus, address)) => (bus, Some(number(address).ok_or_else(wrong)?)),
                    None => (which, None),
                };
                Device::I2c { bus: number(bus).ok_or_else(wrong)?, address }
            }
            "line" if !which.is_empty() => Device::Line(LineId::Name(which.to_owned())),
            "port" if !which.is_empty() => Device::Port(PathBuf::from(which)),
            _ => return Err(wrong()),
        };
        Ok(Self(device))
    }
}

/// A number in decimal or, with `0x`, in hexadecimal.
fn number(text: &str) -> Option<u8> {
    match text.strip_prefix("0x") {
        Some(digits) => u8::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(text: &str) -> Option<Device> {
        Place::from_toml(&DeValue::String(text.into())).ok().map(|place| place.0)
    }

    #[test]
    fn devices_are_named_as_documented() {
        assert_eq!(place("i2c 1 0x76"), Some(Device::I2c { bus: 1, address: Some(0x76) }));
        assert_eq!(place("i2c 3"), Some(Device::I2c { bus: 3, address: None }));
        assert_eq!(place("line GPIO17"), Some(Device::Line(LineId::Name("GPIO17".to_owned()))));
        assert_eq!(place("port sim:arduino"), Some(Device::Port(PathBuf::from("sim:arduino"))));
        for wrong in ["", "i2c", "i2c ", "i2c 1 0x1ff", "i2c one", "line ", "spi 0", "i2c 1 0x76 0x77"] {
            assert_eq!(place(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_device_or_is_refused(text in ".{0,40}") {
            let _ = place(&text);
        }
    }
}
