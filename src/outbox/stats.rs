//! What the outbox tells about itself: counts, warnings, and what it found when it was opened.

use std::io;
use std::path::PathBuf;

/// Counts since the outbox was opened, and how full it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Positions that were taken.
    pub taken: u64,
    /// Positions that were acknowledged, summed over the cursors.
    pub acknowledged: u64,
    /// Positions that were dropped on purpose, or lost.
    pub dropped: u64,
    /// Positions whose records could not be read back because of damage.
    pub lost: u64,
    /// Acknowledgements for which there was no room: these messages may be sent again after a restart.
    pub forgotten: u64,
    /// Positions that the slowest cursor has still to acknowledge.
    pub waiting: u64,
    /// Bytes of records in memory.
    pub memory_bytes: usize,
    /// Bytes of segments on disk, spare ones included.
    pub disk_bytes: u64,
    /// Bytes of the tail.
    pub tail_bytes: u64,
    /// Flushes that wrote to disk.
    pub flushes: u64,
    /// Bytes that these wrote: pages, not counting the zeros of new segments.
    pub flushed_bytes: u64,
    /// Segments that were created (and filled with zeros), not recycled.
    pub segments_created: u64,
    /// Writes or syncs that failed.
    pub write_errors: u64,
    /// Reads that failed.
    pub read_errors: u64,
    /// Places where stored bytes were not what was written.
    pub damage: u64,
    /// Does the tail take writes? If not, records go to disk at once.
    pub tail_works: bool,
    /// Does the disk take writes? If not, records wait in memory.
    pub disk_works: bool,
}

/// Something that an operator should know. It is given when it begins and when it ends, not in between.
#[derive(Debug, thiserror::Error)]
pub enum Warning {
    /// The tail takes no writes.
    #[error(
        "the tail {path} cannot be written ({error}): readings go to disk at once, and those of the last moment are \
         lost if the agent is killed; it is tried again every 10 s"
    )]
    TailFailed {
        /// The tail's folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The tail takes writes again.
    #[error("the tail can be written again")]
    TailWorks,
    /// The disk takes no writes.
    #[error(
        "the outbox in {path} cannot be written ({error}): readings wait in memory, and the oldest are dropped when \
         it is full; it is tried again every minute at the least"
    )]
    DiskFailed {
        /// The outbox's folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The disk takes writes again.
    #[error("the outbox on disk can be written again")]
    DiskWorks,
    /// The state takes no writes.
    #[error(
        "the state in {path} cannot be written ({error}): counter totals and the like would be lost with a power cut"
    )]
    StateFailed {
        /// The outbox's folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The log is at its limit and everything in it is in flight.
    #[error("the outbox is at its limit and all of it is in flight: readings wait in memory")]
    AllInFlight,
    /// The log is at its limit, and `full` is `drop-newest`.
    #[error(
        "the outbox is at its limit, and `full` is \"drop-newest\": readings wait in memory, and when that is full too \
         they are dropped until what waits has been sent"
    )]
    NewestGo,
    /// The disk is filled by others.
    #[error(
        "the disk of {path} fills up: the outbox may take {limit} bytes ({share} % of what it has and what is free), and \
         drops readings beyond that; free space on that disk"
    )]
    DiskShort {
        /// The outbox's folder.
        path: PathBuf,
        /// Bytes that it may take now.
        limit: u64,
        /// `free_share`
        share: u8,
    },
    /// A segment cannot be read, or not all of it.
    #[error("{path} is damaged: what can be read of it is used, and the file will be kept in {folder}")]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where it goes when its records are done with.
        folder: PathBuf,
    },
    /// A segment cannot be read at the moment.
    #[error("{path} cannot be read ({error}): it is tried again, and after three times its records count as lost")]
    ReadFailed {
        /// The segment.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A value of the state is too large.
    #[error("{0}")]
    State(String),
}

/// Warnings that are kept until they are asked for.
pub(super) const MAX_WARNINGS: usize = 64;

/// What was found when the outbox was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Positions that some cursor has still to acknowledge.
    pub waiting: u64,
    /// Records that only the tail had.
    pub from_tail: u64,
    /// Was there a tail, not older than the log, to which no write had failed? Then the state is what it was at the last commit.
    pub tail_found: bool,
    /// Segments on disk.
    pub segments: usize,
    /// Did the tail end in the middle of a write?
    pub tail_torn: bool,
    /// Is there a key now, and was none when the state was last written?
    pub sealed_from_now: bool,
    /// Was there an outbox, but no readable state (run counter, counter totals)?
    pub state_lost: bool,
    /// Is the run's number counted and on disk? If not, it is random and at least 2^31.
    pub run_counted: bool,
    /// Files that were damaged or belong to another outbox, and where they lie now.
    pub set_aside: Vec<PathBuf>,
}

/// Why the outbox cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "the outbox in {folder} is in use by another process: stop that one first, or give this one another `path` in [outbox]"
    )]
    Locked {
        /// The outbox's folder.
        folder: PathBuf,
    },
    /// A newer version of vigie wrote it.
    #[error(
        "{file} is in format {version}, and this version of vigie knows formats up to {known}: install the newer \
         version again, or let it empty its outbox first (nothing was changed)"
    )]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its format.
        version: u32,
        /// The newest format that this version knows.
        known: u32,
    },
    /// It is sealed, and there is no key.
    #[error(
        "{file} is encrypted, and no `key` is given in [outbox]: give the key again; to go on without one, first let all \
         that waits be sent, then move the file's folder away (nothing was changed)"
    )]
    KeyMissing {
        /// The file.
        file: PathBuf,
    },
    /// It is sealed with another key.
    #[error(
        "{file} is encrypted, and not with the `key` that is given in [outbox]: give the key that it was written with, \
         or, if what waits there is not needed any more, move the file's folder away (nothing was changed)"
    )]
    WrongKey {
        /// The file.
        file: PathBuf,
    },
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
}
