//! The archive: what every uplink has acknowledged, kept in compressed files for a while.
//!
//! Records come in batches of minutes, each one write and one fdatasync, each complete in itself. Files are deleted
//! whole, the oldest first. `docs/archive-format.md` describes them byte by byte. Nothing in here reads a clock or
//! knows of the outbox's files: the agent hands over records, on a thread that may wait for the disk.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::WallTime;

mod batch;
mod file;
mod reader;
mod writer;

pub use batch::Builder;
pub use reader::{Piece, Reader};
pub use writer::Archive;

/// The outbox's cursor of the archive. No uplink's name has a slash.
pub const CURSOR: &str = "/archive";

/// Version of the format. Files of a newer one are refused untouched.
pub const VERSION: u32 = 1;

/// A batch is closed when its records take so many bytes uncompressed.
pub const BATCH_BYTES: usize = 1024 * 1024;

/// The largest batch, uncompressed: one that was almost full, and the largest record with its sensor's description.
pub const MAX_BATCH_BYTES: usize = BATCH_BYTES + 512 * 1024;

/// A file is closed at midnight (UTC), or when it has so many bytes, or a sixteenth of all that the archive may take.
pub const FILE_BYTES: u64 = 16 << 20;

/// So much of the disk is left to others, first of all to the outbox: when less is free nothing is archived.
pub const SPARE_BYTES: u64 = 64 << 20;

/// Where the archive lies, and how much is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its folder.
    pub dir: PathBuf,
    /// How long files are kept.
    pub keep: Duration,
    /// How many bytes they may take together.
    pub max_bytes: u64,
}

/// Why nothing is archived, or nothing can be read.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The system refuses.
    #[error("cannot {action} {path}: {error}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A newer version of vigie wrote it.
    #[error(
        "{path} is in format {version}, and this version of vigie knows formats up to {VERSION}: install the newer \
         version again, or give [archive] another `path` (nothing was changed)"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
    /// The disk is almost full.
    #[error("only {free} bytes are free on the disk of {path}, and {SPARE_BYTES} are left to the outbox: free space")]
    DiskFull {
        /// The archive's folder.
        path: PathBuf,
        /// What is free.
        free: u64,
    },
}

impl Failure {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { action, path, error }
    }
}

/// The UTC day of a time, counted from 1970.
fn day(time: WallTime) -> i64 {
    time.0.div_euclid(86_400_000_000_000)
}

#[cfg(test)]
mod tests;
