//! Values that several sections have in common: names, labels, places, periods, sizes.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;

use super::Machine;
use crate::options::{FromToml, Options, Problem};
pub(super) use crate::options::{SHORTEST, YEAR};
use crate::reading::{Finite, Location};
use crate::topic;

/// Longest name of a gateway, site, room, sensor, quantity, tag or uplink, in bytes. Names become levels of topics.
pub const MAX_NAME_BYTES: usize = 128;

/// Longest label, tag value or user name for people, in characters.
pub const MAX_LABEL_CHARS: usize = 256;

/// Where the configuration is read.
pub(super) struct Surroundings<'a> {
    /// The machine.
    pub(super) machine: &'a Machine,
    /// Folder of the main file, to which relative paths refer.
    pub(super) folder: &'a Path,
}

impl Surroundings<'_> {
    /// A path of the configuration as seen from where we are.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }
}

/// A number of bytes: a whole number, or a text with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Bytes(pub(super) u64);

const UNITS: [(&str, u64); 6] =
    [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000)];

impl FromToml for Bytes {
    const EXPECTED: &'static str = "a size such as \"64MiB\", \"1GB\" or a number of bytes";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Option<String>> {
        let Some(text) = value.as_str() else { return u64::from_toml(value).map(Self) };
        let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let factor = UNITS.iter().find(|(name, _)| *name == unit.trim()).map(|(_, factor)| *factor).ok_or(None)?;
        let number: u64 = digits.parse().map_err(|_| None)?;
        number.checked_mul(factor).map(Self).ok_or_else(|| Some("the number is too large".to_owned()))
    }

    fn show(&self) -> String {
        let unit = UNITS.iter().take(3).rev().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        match unit {
            Some((name, factor)) => format!("\"{}{name}\"", self.0 / factor),
            None => self.0.to_string(),
        }
    }
}

/// A name that becomes a level of topics.
pub(super) fn name(options: &Options<'_>, key: &'static str) -> Option<String> {
    let name = options.optional::<String>(key)?;
    match check_name(&name) {
        Ok(()) => Some(name),
        Err(why) => {
            options.problem(
                key,
                format!("`{key}` of {} {why}", options.what()),
                Some("expected a name that can be a level of a topic".to_owned()),
            );
            None
        }
    }
}

/// Checks a name that becomes a level of topics.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    if name.len() > MAX_NAME_BYTES {
        return Err(format!("is longer than {MAX_NAME_BYTES} bytes"));
    }
    topic::check_name(name)?;
    check_not_reserved(name)
}

/// Refuses the last levels that vigie keeps for itself.
pub(super) fn check_not_reserved(level: &str) -> Result<(), String> {
    if topic::RESERVED.contains(&level) {
        return Err(format!("is `{level}`: topics that end in `{level}` are reserved for vigie's own messages"));
    }
    Ok(())
}

/// A text for people.
pub(super) fn label(options: &Options<'_>, key: &'static str) -> Option<String> {
    let text = options.optional::<String>(key)?;
    match check_label(&text) {
        Ok(()) => Some(text),
        Err(why) => {
            options.problem(key, format!("`{key}` of {} {why}", options.what()), None);
            None
        }
    }
}

/// Checks a text for people.
pub(super) fn check_label(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("contains a control character".to_owned());
    }
    if text.chars().count() > MAX_LABEL_CHARS {
        return Err(format!("is longer than {MAX_LABEL_CHARS} characters"));
    }
    Ok(())
}

/// A duration from [`SHORTEST`] to a [`YEAR`].
pub(super) fn period(options: &Options<'_>, key: &'static str) -> Option<Duration> {
    options.optional_in(key, SHORTEST..=YEAR)
}

/// A finite number within a range.
pub(super) fn number(options: &Options<'_>, key: &'static str, range: RangeInclusive<f64>) -> Option<Finite> {
    options.optional_in(key, range).and_then(Finite::new)
}

/// The coordinates of a `location`.
pub(super) fn place_of(place: &Options<'_>) -> Option<Location> {
    let latitude = required_number(place, "latitude", -90.0..=90.0);
    let longitude = required_number(place, "longitude", -180.0..=180.0);
    // From the deepest mine to beyond any balloon.
    let altitude = number(place, "altitude", -12_000.0..=100_000.0);
    Some(Location { latitude: latitude?, longitude: longitude?, altitude })
}

fn required_number(options: &Options<'_>, key: &'static str, range: RangeInclusive<f64>) -> Option<Finite> {
    options.required::<f64>(key)?;
    number(options, key, range)
}

/// `tags = { NAME = "text", … }`, sorted by name.
pub(super) fn tags(options: &Options<'_>) -> Vec<(String, String)> {
    let Some(table) = options.section("tags") else { return Vec::new() };
    let mut tags = Vec::new();
    for (key, value) in table.entries() {
        let name = key.get_ref().as_ref();
        let wrong =
            check_name(name).err().map(|why| (key.span(), format!("the tag name `{name}` {why}"))).or_else(|| {
                let why = match value.get_ref().as_str() {
                    Some(text) => check_label(text).err(),
                    None => Some(format!("has the wrong type: this is of type {}", value.get_ref().type_str())),
                };
                why.map(|why| (value.span(), format!("the tag `{name}` of {} {why}", options.what())))
            });
        match (wrong, value.get_ref().as_str()) {
            (Some((span, message)), _) => {
                let problem = Problem::new(span, message);
                options.problems().push(problem.expected("expected a name with a text in quotes"));
            }
            (None, Some(text)) => tags.push((name.to_owned(), text.to_owned())),
            (None, None) => {}
        }
    }
    tags
}
