//! A gateway in one file: configuration, outbox, archive, and what the embedded broker keeps.
//!
//! A backup is a tar archive (POSIX.1-1988 *ustar*) in gzip (RFC 1952), so that `tar` shows what is in it. Its first
//! entry says what it is of, its last one has the SHA-256 checksums of all between them, in the form of `sha256sum`.
//! Nothing of a backup is put in place before all of it was read and found whole ([`check`]), and what may be in it is
//! a short list of names ([`Item`]), so that none can lead out of the folders that it is for.
//! `docs/backup.md` says what it is good for, and what it is not.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

mod item;
mod owner;
mod place;
mod reader;
mod restore;
mod take;
#[cfg(test)]
mod tests;
mod writer;

pub use item::Item;
pub use reader::{Contents, check, extract};
pub use restore::{Brought, Found, Refusal, Restore};
pub use take::{Failure, Sources, Taken, take};
pub use writer::Writer;

/// Version of the format that is written, and the newest that is read.
pub const FORMAT: u32 = 1;

/// Name of the first entry.
const HEAD: &str = "vigie-backup.json";

/// Name of the last entry.
const SUMS: &str = "checksums";

/// The longest first entry, in bytes.
const MAX_HEAD: u64 = 1 << 20;

/// The most entries: an outbox of 100 GiB has so many.
const MAX_ENTRIES: usize = 100_000;

/// The longest last entry, in bytes: a line is a checksum, two spaces and a name of at most 256.
const MAX_SUMS: u64 = 324 * MAX_ENTRIES as u64;

/// What a backup can hold, each alone or with the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The configuration with its fragments and the files that it names beside itself.
    Configuration,
    /// What waits, and what sensors keep.
    Outbox,
    /// What was delivered.
    Archive,
    /// Retained messages and sessions of the embedded broker.
    Broker,
}

impl Part {
    /// All of them, in the order in which they are put in place: the configuration last, as it is what others lead to.
    pub const ALL: [Self; 4] = [Self::Outbox, Self::Archive, Self::Broker, Self::Configuration];

    /// As the command line calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Outbox => "outbox",
            Self::Archive => "archive",
            Self::Broker => "broker",
        }
    }
}

/// What a backup is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Version of the format.
    pub format: u32,
    /// Version of the program that made it.
    pub vigie: String,
    /// When, by the clock of that machine, which may have been wrong: RFC 3339.
    pub made: String,
    /// Name of the gateway.
    pub gateway: String,
    /// The board's serial number, where it has one.
    pub board: Option<String>,
    /// What is in it.
    pub parts: Vec<Part>,
    /// Are the files in it that not everybody may read?
    pub secrets: bool,
    /// Files that the configuration names and that are not in it: secrets, and what is not below its folder.
    pub left_out: Vec<PathBuf>,
}

/// A backup that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Something else.
    #[error("it is no backup of vigie: {0}")]
    Foreign(String),
    /// It was, and is not any more.
    #[error("it is damaged: {0}; nothing of it is used")]
    Damaged(String),
    /// Of a version to come.
    #[error("it has format {0}, and this vigie knows formats up to {FORMAT}: use a newer one")]
    Newer(u32),
}
