//! What the command line says to a running agent, and what both say about an outbox.
//!
//! A Unix socket takes requests, a line of JSON each, and answers with lines of JSON: any number of `row`s, then one
//! of `status`, `dropped`, `done` or `error`. Whoever may open the socket may ask for everything: its mode is 0660, and
//! it belongs to the service's user and group.
//!
//! A further request is a variant of [`Request`] and its handler in [`server`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{BootTime, WallTime};
use crate::export::{Filter, Row};
use crate::outbox::Outbox;

pub use crate::uplink::ClockStatus;

pub mod client;
pub mod desk;
pub mod pauses;
pub mod reload;
pub mod server;
pub mod status;

use reload::Reloaded;
use status::Status;

/// The longest request, in bytes, newline included.
pub const MAX_REQUEST: usize = 4 * 1024;

/// The longest answer, in bytes: the largest record, as text, in JSON.
pub const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// Clients that are served at once; a further one is told so.
pub const MAX_CLIENTS: usize = 4;

/// How long a client may take for its request, and for taking in what it is sent.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The most records that [`Request::Show`] gives.
pub const MAX_SHOWN: usize = 10_000;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How it stands with the outbox.
    Status {},
    /// The newest rows that wait, the newest last.
    Show {
        /// For whom, and which.
        which: Which,
        /// At most so many, and never more than [`MAX_SHOWN`].
        limit: usize,
    },
    /// All rows that wait, the oldest first.
    Export {
        /// For whom, and which.
        which: Which,
    },
    /// Drops what waits.
    Drop {
        /// For this uplink alone.
        #[serde(default)]
        uplink: Option<String>,
        /// Of this sensor alone.
        #[serde(default)]
        sensor: Option<String>,
        /// Measured longer ago than so many seconds.
        #[serde(default)]
        older_than: Option<u64>,
        /// Only say how much it would be.
        #[serde(default)]
        dry_run: bool,
    },
    /// Which sensors are paused.
    Pauses {},
    /// A sensor lets go of its device.
    Pause {
        /// Which.
        sensor: String,
        /// For how long.
        seconds: u64,
    },
    /// A sensor takes its device back before its time.
    Resume {
        /// Which.
        sensor: String,
    },
    /// The configuration is read anew.
    Reload {},
    /// A backup was made, for the record.
    BackedUp {
        /// With passwords and keys.
        secrets: bool,
    },
    /// How it stands with the clock.
    Clock {},
    /// So long after the start of the machine it was that time.
    SetClock {
        /// Then.
        at: BootTime,
        /// The time.
        time: WallTime,
    },
}

/// Which of the records that wait.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Which {
    /// Those that wait for this uplink; `None`: for any.
    pub uplink: Option<String>,
    /// Which of them.
    pub filter: Filter,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// A row; more answers follow.
    Row(Box<Row>),
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Drop`].
    Dropped(Dropped),
    /// To [`Request::Pauses`] all; to [`Request::Pause`] that one; to [`Request::Resume`] none.
    Pauses(Vec<Pause>),
    /// To [`Request::Clock`] and [`Request::SetClock`].
    Clock(ClockStatus),
    /// To [`Request::Reload`].
    Reloaded(Reloaded),
    /// The end of the rows; and to [`Request::BackedUp`].
    Done {
        /// Records lie on disk that cannot be read at the moment.
        unreadable: bool,
    },
    /// In words.
    Error(String),
}

/// A sensor that is paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Its name.
    pub sensor: String,
    /// For how many seconds more, rounded up.
    pub left: u64,
    /// Has it let go of its device? A call to the device that does not end holds it.
    pub free: bool,
}

/// What was dropped by hand, summed over the uplinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Values that were dropped, or would be.
    pub dropped: u64,
    /// Values that were meant, but are in flight, and stay.
    pub in_flight: u64,
}

/// The socket of the outbox in `dir` whose tail lies below `tail_dir`: beside the tail's folder, which only its owner
/// may enter.
#[must_use]
pub fn socket(tail_dir: &Path, dir: &Path) -> PathBuf {
    let folder = Outbox::tail_folder(tail_dir, dir);
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or("outbox");
    tail_dir.join(name.replacen("outbox", "control", 1))
}
