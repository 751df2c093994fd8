//! `[hardware]`

use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::read::{SHORTEST, YEAR};
use crate::drivers::support::{gpio, i2c};
use crate::hardware::sim::fault::{Device, KernelDevice, Kind, MAX_FAULTS, ScriptedFault};
use crate::hardware::{Backend, ExpanderChip, ExpanderSettings, LineId, PowerSettings, Settings, expander};
use crate::options::{FromToml, Options, Problem};

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
    let backend = backend(options);
    let faults = faults(options);
    if backend != Backend::Sim && options.raw("fault").is_some() {
        options.problem(
            "fault",
            "[[hardware.fault]] is for simulated hardware only",
            Some("expected backend = \"sim\" in [hardware], or no faults".to_owned()),
        );
    }
    Settings { backend, faults, expanders: Vec::new() }
}

/// `[hardware] backend`
fn backend(options: &Options<'_>) -> Backend {
    const BACKENDS: &[(&str, Option<Backend>)] = &[
        ("linux", Some(Backend::Linux)),
        #[cfg(feature = "rppal")]
        ("rppal", Some(Backend::Rppal)),
        #[cfg(not(feature = "rppal"))]
        ("rppal", None),
        ("sim", Some(Backend::Sim)),
    ];
    let Some(chosen) = options.optional_word("backend", BACKENDS) else { return Backend::default() };
    chosen.unwrap_or_else(|| {
        options.problem_with_help(
            "backend",
            "this build of vigie has no rppal".to_owned(),
            None,
            Some("leave `backend` out: `linux` reads every Raspberry Pi; or build with `--features rppal`".to_owned()),
        );
        Backend::default()
    })
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

const KINDS: [(&str, Kind); 6] = [
    ("nak", Kind::Nak),
    ("timeout", Kind::Timeout),
    ("hang", Kind::Hang),
    ("garbage", Kind::Garbage),
    ("wrong-chip", Kind::WrongChip),
    ("unplug", Kind::Unplug),
];

/// The keys of a fault.
pub(super) fn fault(options: &Options<'_>) -> Option<ScriptedFault> {
    let device = options.required::<Place>("device");
    let kind = options.required::<String>("kind").and_then(|_| options.optional_word("kind", &KINDS));
    let at = options.optional_in("at", Duration::ZERO..=YEAR).unwrap_or_default();
    let lasts = options.optional_in("for", SHORTEST..=YEAR);
    let cured_by = options.optional::<String>("cured_by").map(LineId::Name);
    let (Place(device), kind) = (device?, kind?);
    if !device.kinds().contains(&kind) {
        let known = KINDS.iter().filter(|(_, kind)| device.kinds().contains(kind));
        let list: Vec<String> = known.map(|(word, _)| format!("\"{word}\"")).collect();
        let expected = match list.as_slice() {
            [only] => format!("expected {only}"),
            several => format!("expected one of {}", several.join(", ")),
        };
        options.problem("kind", "this device cannot be broken in this way", Some(expected));
        return None;
    }
    Some(ScriptedFault { device, kind, at, lasts, cured_by })
}

/// An expander, and where its name stands.
pub(super) struct PlacedExpander {
    pub(super) settings: ExpanderSettings,
    pub(super) at: Range<usize>,
}

/// All `[expander.NAME]`.
pub(super) fn expanders(root: &Options<'_>) -> Vec<PlacedExpander> {
    let Some(table) = root.section_called("expander", "`expander`") else { return Vec::new() };
    let mut expanders = Vec::new();
    for (key, value) in table.entries() {
        let name = key.get_ref().as_ref();
        if expander::is_kernels(name) || name.contains(':') {
            let message = format!("an expander cannot be called `{name}`");
            root.problems().push(
                Problem::new(key.span(), message)
                    .help("give it a name without `:` that is not a GPIO chip of the kernel"),
            );
        }
        let Some(options) = Options::table(value, format!("[expander.{name}]"), root.problems()) else { continue };
        let settings = one_expander(&options, name);
        options.finish();
        expanders.extend(settings.map(|settings| PlacedExpander { settings, at: key.span() }));
    }
    expanders
}

/// The keys of an expander.
pub(super) fn one_expander(options: &Options<'_>, name: &str) -> Option<ExpanderSettings> {
    let chips = [("mcp23017", ExpanderChip::Mcp23017), ("pcf8574", ExpanderChip::Pcf8574)];
    let chip = options.required::<String>("chip").and_then(|_| options.optional_word("chip", &chips));
    let addresses = chip.unwrap_or(ExpanderChip::Mcp23017).addresses();
    let place = i2c::Info { addresses, identify: None }.parse(options);
    let interrupt = options.section("interrupt").and_then(|own| {
        let line = interrupt(&own);
        own.finish();
        line
    });
    let every = options.optional_in("every", SHORTEST..=EXPANDER_EVERY_MOST).unwrap_or(DEFAULT_EXPANDER_EVERY);
    let (chip, place) = (chip?, place?);
    Some(ExpanderSettings { name: name.to_owned(), chip, path: place.path, address: place.address, interrupt, every })
}

/// The keys of `interrupt`.
pub(super) fn interrupt(options: &Options<'_>) -> Option<LineId> {
    gpio::which_line(options, None)
}

/// A hand on a switch is slower; the bus has time for others.
const DEFAULT_EXPANDER_EVERY: Duration = Duration::from_millis(20);
const EXPANDER_EVERY_MOST: Duration = Duration::from_secs(60);

/// The keys of `power`.
pub(super) fn power(options: &Options<'_>) -> Option<PowerSettings> {
    let line = gpio::which_line(options, None);
    let active_low = options.optional("active_low").unwrap_or(false);
    let after = options.optional_in("after", POWER_AFTER).unwrap_or(DEFAULT_AFTER);
    let off = options.optional_in("off", SHORTEST..=POWER_MOST).unwrap_or(DEFAULT_OFF);
    let settle = options.optional_in("settle", Duration::ZERO..=POWER_MOST).unwrap_or(DEFAULT_SETTLE);
    Some(PowerSettings { line: line?, active_low, after, off, settle })
}

/// A device as a fault names it.
struct Place(Device);

impl FromToml for Place {
    const EXPECTED: &'static str = "a device such as \"i2c 1 0x76\", \"i2c 1\" (its wires), \"spi 0 0\", \"w1 28-000005e2fdc3\", \"iio dht11@4\", \
         \"hwmon lm75\", \"line GPIO17\" or \"port sim:arduino\"";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Option<String>> {
        let text = value.as_str().ok_or(None)?;
        let wrong = || Some(format!("\"{text}\" names no device"));
        let (what, which) = text.split_once(' ').ok_or_else(wrong)?;
        let device = match what {
            "i2c" | "spi" => {
                let (bus, chip) = match which.split_once(' ') {
                    Some((bus, chip)) => (bus, Some(number(chip).ok_or_else(wrong)?)),
                    None => (which, None),
                };
                let bus = number(bus).ok_or_else(wrong)?;
                if what == "i2c" { Device::I2c { bus, address: chip } } else { Device::Spi { bus, chip_select: chip } }
            }
            "w1" | "iio" | "hwmon" => Device::Kernel(
                KernelDevice::find(what, which)
                    .ok_or_else(|| Some(format!("the simulated machine has no {what} device \"{which}\"")))?,
            ),
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
        assert_eq!(place("spi 0 1"), Some(Device::Spi { bus: 0, chip_select: Some(1) }));
        assert_eq!(place("spi 0"), Some(Device::Spi { bus: 0, chip_select: None }));
        for (class, name) in
            [("w1", "28-000005e2fdc3"), ("iio", "dht11@4"), ("hwmon", "lm75"), ("hwmon", "cpu_thermal")]
        {
            let device = KernelDevice::find(class, name).expect("a device");
            assert_eq!(place(&format!("{class} {name}")), Some(Device::Kernel(device)));
        }
        assert_eq!(place("line GPIO17"), Some(Device::Line(LineId::Name("GPIO17".to_owned()))));
        assert_eq!(place("port sim:arduino"), Some(Device::Port(PathBuf::from("sim:arduino"))));
        for wrong in
            ["", "i2c", "i2c ", "i2c 1 0x1ff", "i2c one", "line ", "spi 0.0", "i2c 1 0x76 0x77", "iio lm75", "usb 1"]
        {
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
