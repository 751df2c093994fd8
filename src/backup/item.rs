//! What may be in a backup, by name. What is not in this list is refused, whatever it is.

use std::fmt;
use std::path::{Path, PathBuf};

use super::Part;

/// The longest name of an entry, in bytes: what *ustar* has room for.
const MAX_NAME: usize = 255;

/// How deep a file beside the configuration may lie.
const MAX_DEPTH: usize = 8;

/// Digits of the number of a segment, a tail or a file of the archive: at least, and at most (64 bits).
const DIGITS: std::ops::RangeInclusive<usize> = 12..=20;

/// An entry of a backup.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Item {
    /// The configuration's main file.
    Main,
    /// A fragment, by its name in the folder `.d`.
    Fragment(String),
    /// A file that the configuration names, by its path below the configuration's folder.
    Beside(PathBuf),
    /// A file of the outbox's folder.
    Outbox(String),
    /// The outbox's tail.
    Tail(String),
    /// A message that a broker did not take.
    Refused(String),
    /// A file of the archive.
    Archive(String),
    /// What the embedded broker keeps.
    Store,
}

impl Item {
    /// The entry of that name, if there can be such a one.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        if name.len() > MAX_NAME {
            return None;
        }
        let (part, rest) = name.split_once('/')?;
        match part {
            "configuration" if rest == "vigie.toml" => Some(Self::Main),
            "configuration" => {
                let fragment = rest.strip_prefix("vigie.d/")?;
                (is_plain(fragment) && fragment.ends_with(".toml")).then(|| Self::Fragment(fragment.to_owned()))
            }
            "beside" => Self::beside(Path::new(rest)),
            "outbox" => {
                if let Some(tail) = rest.strip_prefix("tail/") {
                    return is_numbered(tail, "tail-").then(|| Self::Tail(tail.to_owned()));
                }
                if let Some(refused) = rest.strip_prefix("refused/") {
                    return is_plain(refused).then(|| Self::Refused(refused.to_owned()));
                }
                Self::outbox(rest)
            }
            "archive" => is_numbered(rest, "archive-").then(|| Self::Archive(rest.to_owned())),
            "broker" => (rest == "store").then_some(Self::Store),
            _ => None,
        }
    }

    /// The file of that name in the outbox's folder, if it belongs into a backup: spare segments and what was damaged
    /// do not.
    #[must_use]
    pub fn outbox(name: &str) -> Option<Self> {
        let known = matches!(name, "state-0" | "state-1" | "board") || is_numbered(name, "segment-");
        known.then(|| Self::Outbox(name.to_owned()))
    }

    /// The file at that place below the configuration's folder, if it is a plain one.
    #[must_use]
    pub fn beside(path: &Path) -> Option<Self> {
        let text = path.to_str()?;
        let parts: Vec<&str> = text.split('/').collect();
        (parts.len() <= MAX_DEPTH && parts.iter().all(|part| is_plain(part))).then(|| Self::Beside(path.to_owned()))
    }

    /// What it is a piece of.
    #[must_use]
    pub fn part(&self) -> Part {
        match self {
            Self::Main | Self::Fragment(_) | Self::Beside(_) => Part::Configuration,
            Self::Outbox(_) | Self::Tail(_) | Self::Refused(_) => Part::Outbox,
            Self::Archive(_) => Part::Archive,
            Self::Store => Part::Broker,
        }
    }

    /// Bytes that it has at most.
    #[must_use]
    pub fn limit(&self) -> u64 {
        const MIB: u64 = 1 << 20;
        match self {
            Self::Main | Self::Fragment(_) => crate::config::MAX_FILE_BYTES,
            Self::Beside(_) | Self::Refused(_) => MIB,
            Self::Outbox(_) => 4 * MIB,
            // Twice the records in memory and what is kept beside them; an archive's file has 16 MiB.
            Self::Tail(_) | Self::Archive(_) => 64 * MIB,
            // Twice what its bounds allow it to hold.
            Self::Store => 512 * MIB,
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Main => f.write_str("configuration/vigie.toml"),
            Self::Fragment(name) => write!(f, "configuration/vigie.d/{name}"),
            Self::Beside(path) => write!(f, "beside/{}", path.display()),
            Self::Outbox(name) => write!(f, "outbox/{name}"),
            Self::Tail(name) => write!(f, "outbox/tail/{name}"),
            Self::Refused(name) => write!(f, "outbox/refused/{name}"),
            Self::Archive(name) => write!(f, "archive/{name}"),
            Self::Store => f.write_str("broker/store"),
        }
    }
}

/// Is it the name of one file, and neither a way out nor something to confuse a terminal with?
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(|c: char| c == '/' || c.is_control())
}

fn is_numbered(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|digits| DIGITS.contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in [
            "configuration/vigie.toml",
            "configuration/vigie.d/10-salon.toml",
            "beside/credentials/mqtt",
            "outbox/segment-000000000001",
            "outbox/state-1",
            "outbox/tail/tail-000000000007",
            "outbox/refused/17-4.json",
            "archive/archive-000000000003",
            "broker/store",
        ] {
            assert_eq!(Item::parse(name).expect(name).to_string(), name);
        }
    }

    #[test]
    fn what_leads_out_has_no_name() {
        for name in [
            "../vigie.toml",
            "/etc/passwd",
            "configuration/../vigie.toml",
            "configuration/vigie.d/../x.toml",
            "configuration/vigie.d/x.sh",
            "beside/../../etc/passwd",
            "beside//etc/passwd",
            "beside/a/./b",
            "beside/",
            "outbox/../segment-000000000001",
            "outbox/segment-1",
            "outbox/segment-00000000000x",
            "outbox/refused/..",
            "outbox/refused/a/b",
            "outbox/refused/\u{1b}[2J",
            "archive/archive-000000000003/x",
            "broker/store/x",
            "broker",
            "",
        ] {
            assert_eq!(Item::parse(name), None, "{name}");
        }
    }

    proptest! {
        /// Whatever a backup calls an entry: below a folder, the entry's path stays below it.
        #[test]
        fn no_name_leads_out(name in "(configuration|beside|outbox|archive|broker)?(/(vigie\\.d|tail|refused|\\.|\\.\\.|[^/]{0,6}))*/?(\\PC{0,6}|\\.toml|tail-[0-9]{12}|segment-[0-9]{12})") {
            let Some(item) = Item::parse(&name) else { return Ok(()) };
            prop_assert_eq!(item.to_string(), name);
            let inner = match &item {
                Item::Beside(path) => path.clone(),
                Item::Fragment(name) | Item::Outbox(name) | Item::Tail(name) | Item::Refused(name)
                | Item::Archive(name) => PathBuf::from(name),
                Item::Main | Item::Store => return Ok(()),
            };
            prop_assert!(inner.components().all(|part| matches!(part, std::path::Component::Normal(_))));
            prop_assert!(!inner.as_os_str().is_empty() && inner.is_relative());
        }
    }
}
