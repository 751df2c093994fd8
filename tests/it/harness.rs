//! Real peers for the tests: Mosquitto, the built agent, a subscriber with a persistent session, a serial port.
//!
//! Everything waits on conditions, with a deadline that only a broken program reaches; whatever was started is ended
//! when its handle is dropped.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

mod agent;
mod board;
mod certs;
mod cli;
mod door;
mod feeder;
mod framing;
mod ledger;
mod lines;
mod mosquitto;
mod net;
mod proxy;
mod pty;
mod random;
mod receiver;
mod recorder;
mod script;
mod subscriber;
mod unit;
mod wire;

#[cfg(feature = "broker")]
pub(crate) use agent::command_through;
pub(crate) use agent::{Agent, Exit, command};
pub(crate) use board::Board;
pub(crate) use certs::{Authority, Pair};
pub(crate) use cli::{Output, files, uplink};
pub(crate) use door::Door;
pub(crate) use feeder::Feeder;
pub(crate) use framing::{FRAMINGS, Framing, MODBUS};
pub(crate) use ledger::Reading;
pub(crate) use lines::Lines;
pub(crate) use mosquitto::Mosquitto;
#[cfg(feature = "broker")]
pub(crate) use net::{LATE, Neighbour};
pub(crate) use net::{Net, Way, run};
pub(crate) use proxy::Proxy;
pub(crate) use pty::Port;
pub(crate) use random::Random;
pub(crate) use receiver::Receiver;
pub(crate) use recorder::Recorder;
pub(crate) use script::Script;
pub(crate) use subscriber::{Message, Subscriber};
pub(crate) use unit::{Trick, Unit};
#[cfg(feature = "broker")]
pub(crate) use wire::take as take_packet;

/// What a test waits for at most. Far above what anything takes, even on a machine with ten times as much to do as it can.
pub(crate) const DEADLINE: Duration = Duration::from_secs(300);

/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(10);

/// Waits until `condition` gives something; fails with `what` after [`DEADLINE`].
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain for: {what}");
        std::thread::sleep(POLL);
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// A loopback port that nothing listens on now.
///
/// Below the range from which Linux takes the local ports of outgoing connections (32768 and up): a broker's port must
/// stay free while the broker is away, and a client that keeps trying a port of that range can connect to itself.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 15_000;
    const COUNT: u16 = 15_000;
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
    let start =
        u16::try_from((std::process::id().wrapping_mul(7919).wrapping_add(nanos)) % u32::from(COUNT)).unwrap_or(0);
    for _ in 0..1000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + start.wrapping_add(step.wrapping_mul(37)) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port among 1000");
}

/// A gateway's folder: its configuration, its outbox and the tail.
pub(crate) struct Gateway {
    dir: tempfile::TempDir,
}

impl Gateway {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder") }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.path().join("vigie.toml")
    }

    /// Writes the configuration: the tables that all tests share, and those given.
    pub(crate) fn configure(&self, tables: &str) {
        let dir = self.path().display();
        let text = format!(
            "[gateway]\nname = \"atelier\"\nid = \"test\"\nsite = \"maison\"\n\n\
             [clock]\ntrust = \"always\"\n\n\
             [outbox]\npath = \"{dir}/outbox\"\ntail = \"{dir}/tail\"\n\n{tables}"
        );
        fs::write(self.config_file(), text).expect("the configuration can be written");
    }

    /// Starts `vigie run` on the configuration.
    pub(crate) fn run(&self) -> Agent {
        Agent::start(&["run", "--config", &self.config_file().display().to_string()], self.path())
    }

    /// The marks that the outbox holds in its tail or log: what was taken and not yet forgotten.
    ///
    /// This is the outbox's own promise ("taken: the record is in the tail"), looked at from outside: texts are stored
    /// as they are, so that a mark is found by its bytes.
    pub(crate) fn marks_held(&self) -> Vec<u32> {
        self.marks_in(&["tail", "outbox"])
    }

    /// The marks in the log alone: what was flushed.
    pub(crate) fn marks_on_disk(&self) -> Vec<u32> {
        self.marks_in(&["outbox"])
    }

    fn marks_in(&self, folders: &[&str]) -> Vec<u32> {
        let mut marks = Vec::new();
        for folder in folders {
            collect_marks(&self.path().join(folder), &mut marks);
        }
        marks.sort_unstable();
        marks.dedup();
        marks
    }
}

/// What every feeder's mark starts with.
pub(crate) const MARK: &str = "mark-";

/// Digits of a mark.
const MARK_DIGITS: usize = 8;

/// The number in `mark-00000042`.
pub(crate) fn mark_number(text: &[u8]) -> Option<u32> {
    let digits = text.strip_prefix(MARK.as_bytes())?.get(..MARK_DIGITS)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn collect_marks(folder: &Path, marks: &mut Vec<u32>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect_marks(&path, marks);
        } else if let Ok(bytes) = fs::read(&path) {
            let mut from = 0;
            while let Some(at) = find(&bytes[from..], MARK.as_bytes()) {
                marks.extend(mark_number(&bytes[from + at..]));
                from += at + MARK.len();
            }
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let mut from = 0;
    // Files of a megabyte are looked through again and again: a byte is found much quicker than a window.
    while let Some(at) = haystack[from..].iter().position(|byte| *byte == needle[0]) {
        if haystack[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}
