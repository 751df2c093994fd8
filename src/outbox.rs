//! The outbox: what was measured and is not yet acknowledged.
//!
//! A record is *taken* when [`Outbox::commit`] has put it in the **tail**, a file on tmpfs, with one write: it survives
//! the process. What is still unacknowledged `flush` later goes to the **log** on disk, with one write and one
//! fdatasync: it survives a power cut. What every cursor has acknowledged before that is never written to disk. Each
//! uplink has a **cursor**, a set of acknowledged positions; space is freed a whole segment at a time.
//! With a key everything that is written is encrypted.
//!
//! Nothing in here waits, reads a clock or starts a thread: a flush is a job ([`FlushJob`]) that the caller runs where
//! it likes. The files are described in `docs/outbox-format.md`.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{BootId, BootTime, WallTime};
use crate::reading::{Descriptor, Fix, Value};
use crate::state::State;

#[cfg(test)]
mod acks;
mod append;
#[cfg(test)]
mod bounds;
mod by_hand;
mod commit;
mod cursors;
mod dictionary;
mod drops;
mod flush;
mod found;
mod frame;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod holes;
mod job;
mod log;
mod look;
mod memory;
#[cfg(test)]
mod model;
mod ranges;
mod read;
mod record;
mod recovery;
mod seal;
#[cfg(test)]
mod sealed;
mod segment;
#[cfg(test)]
pub(crate) mod simulated;
mod stats;
mod storage;
mod tail;
#[cfg(test)]
mod tests;
mod walk;

use cursors::Cursors;
use dictionary::Dictionary;
use flush::Flushing;
use log::Log;
use memory::Memory;
use seal::Seal;
use storage::{Lock, Storage};
use tail::Tail;

pub use by_hand::{CannotDrop, Dropping};
pub use drops::{DropReason, Dropped, Moment};
pub use job::{FlushDone, FlushJob};
pub use record::MAX_RECORD;
pub use seal::{KEY_BYTES, Key};
pub use stats::{OpenError, Recovery, Stats, Warning};
pub use walk::Walk;

/// A position in the outbox. Every quantity of a reading has its own; they only grow, across restarts too.
pub type Seq = u64;

/// What was measured, with its stamp, as the outbox keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Position of the record's first message; the record occupies `seq..seq + body.len()`.
    pub seq: Seq,
    /// The run that took it.
    pub run: u32,
    /// The boot in which it was measured.
    pub boot: BootId,
    /// When it was measured, on the boot clock of that boot.
    pub at: BootTime,
    /// When it was measured, if the wall clock was set at that moment.
    pub time: Option<WallTime>,
    /// Where it was measured, if a GPS receiver says that of its sensor; it goes before the descriptor's place.
    pub place: Option<Fix>,
    /// What it says.
    pub body: Body,
}

impl Entry {
    /// All positions of the record.
    #[must_use]
    pub fn seqs(&self) -> Range<Seq> {
        self.seq..self.seq + self.body.len()
    }

    /// The sensor's name, if it is a reading.
    #[must_use]
    pub fn sensor(&self) -> Option<&str> {
        self.body.sensor()
    }
}

/// The two kinds of record.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Values of a sensor from one observation, at least one; each has a position of its own.
    Reading {
        /// The sensor as it was then.
        descriptor: Arc<Descriptor>,
        /// Index into the descriptor's quantities, and the value.
        values: Vec<(u16, Value)>,
    },
    /// A message taken over from a LAN client, as it came.
    Raw(Raw),
}

impl Body {
    /// How many positions the record occupies.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a record is never empty")]
    pub fn len(&self) -> u64 {
        match self {
            Self::Reading { values, .. } => values.len() as u64,
            Self::Raw(_) => 1,
        }
    }

    /// The sensor's name, if it is a reading.
    #[must_use]
    pub fn sensor(&self) -> Option<&str> {
        match self {
            Self::Reading { descriptor, .. } => Some(&descriptor.sensor),
            Self::Raw(_) => None,
        }
    }
}

/// A message taken over from a LAN client, or for one; or what the agent itself has to tell an auditor.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Raw {
    /// Topic.
    pub topic: Box<str>,
    /// Payload.
    pub payload: Box<[u8]>,
    /// Did the client ask for it to be retained?
    pub retain: bool,
}

/// The key of the state under which whoever brings an outbox back from a backup notes that, for the next run.
pub const RESTORED_KEY: &str = "restored";

/// Before the topic of a message that comes down to LAN clients. No topic of a message has it in it (MQTT 3.1.1,
/// 4.7.1.1), so that nothing which knows nothing of this mark would publish the message anywhere.
const DOWN: &str = "#/";

/// The same before the topic of what is for auditors, which no message of a LAN client has either.
const AUDIT: &str = "+/";

impl Raw {
    /// An event for auditors.
    #[must_use]
    pub fn audit(topic: &str, payload: &[u8]) -> Self {
        Self { topic: format!("{AUDIT}{topic}").into(), payload: payload.into(), retain: false }
    }

    /// Is it one?
    #[must_use]
    pub fn is_audit(&self) -> bool {
        self.topic.starts_with(AUDIT)
    }

    /// A message for LAN clients.
    #[must_use]
    pub fn down(topic: &str, payload: &[u8], retain: bool) -> Self {
        Self { topic: format!("{DOWN}{topic}").into(), payload: payload.into(), retain }
    }

    /// Is it for LAN clients? Else one of them has sent it.
    #[must_use]
    pub fn comes_down(&self) -> bool {
        self.topic.starts_with(DOWN)
    }

    /// The topic on which it is published.
    #[must_use]
    pub fn published_on(&self) -> &str {
        [DOWN, AUDIT].iter().find_map(|mark| self.topic.strip_prefix(mark)).unwrap_or(&self.topic)
    }
}

/// Where the outbox lies and how large it may become.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folder of the log and the state.
    pub dir: PathBuf,
    /// Folder on tmpfs; the tail has a folder of its own in it, named after `dir`.
    pub tail_dir: PathBuf,
    /// How long a record may wait for its acknowledgement before it is written to disk.
    pub flush: Duration,
    /// Bytes that the segments may take on disk; at least two segments of 1 MiB are used.
    pub max_bytes: u64,
    /// Nor more than this share, in per cent from 1 to 100, of what they take and what is free on their disk together.
    pub free_share: u8,
    /// What goes when that is reached.
    pub full: Full,
    /// Bytes that records may take in memory. Half of it may be records that are on disk too.
    pub memory_bytes: usize,
    /// How long a change of the state may wait to be written to disk.
    pub persist: Duration,
    /// What is written is sealed with it, tail and state included; `None`: nothing is.
    pub key: Option<Key>,
}

/// What goes when the log has reached its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Full {
    /// The oldest records that are not in flight.
    #[default]
    DropOldest,
    /// What is measured from then on, once memory is full too.
    DropNewest,
}

/// A registered cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CursorId(usize);

/// The outbox.
#[derive(Debug)]
pub struct Outbox {
    settings: Settings,
    storage: Arc<dyn Storage>,
    /// Tells the files of this outbox from those of another one.
    identity: u64,
    /// Everything that is written is sealed with it.
    seal: Option<Seal>,
    run: u32,
    boot: BootId,
    cursors: Cursors,
    memory: Memory,
    dictionary: Dictionary,
    /// Position of the next record.
    next: Seq,
    /// Position after the last committed record.
    committed: Seq,
    /// Every record below it is on disk or acknowledged by all.
    on_disk: Seq,
    /// Does the tail know how far records are on disk?
    tail_flushed: bool,
    /// From which position on records were taken at which time, as far back as records wait for a flush.
    marks: VecDeque<(Seq, BootTime)>,
    log: Log,
    tail: Tail,
    state: State,
    flushing: Flushing,
    by_hand: by_hand::Rules,
    /// Reused by each `append`.
    scratch: Vec<u8>,
    stats: Stats,
    drops: drops::Drops,
    warnings: Vec<Warning>,
    /// Held until everything above is closed.
    _lock: Box<dyn Lock>,
}

impl Outbox {
    /// Locks the folder, recovers segments, then the tail; makes the run counter durable.
    ///
    /// # Errors
    /// Another process has the outbox, a newer version of vigie wrote it, or the folder cannot be made or read.
    /// Damage is no error: what is good is used, the rest is set aside and counted.
    pub fn open(settings: Settings, boot: BootId, now: BootTime) -> Result<(Self, Recovery), OpenError> {
        recovery::open(Arc::new(storage::Disk), settings, boot, now)
    }

    /// As [`open`](Self::open), for one that was brought back from a backup: its run gets a random number, of which it is
    /// counted on from then on. Else what is measured from here on would have the same ids as what was measured after
    /// the backup.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_restored(settings: Settings, boot: BootId, now: BootTime) -> Result<(Self, Recovery), OpenError> {
        recovery::open_as(Arc::new(storage::Disk), settings, boot, now, true)
    }

    /// Reads an outbox that no process uses, as [`open`](Self::open) would, and changes nothing on disk, neither now
    /// nor later: what is done to it is forgotten with it.
    ///
    /// # Errors
    /// As for [`open`](Self::open); the folder must be there.
    pub fn inspect(settings: Settings, boot: BootId, now: BootTime) -> Result<(Self, Recovery), OpenError> {
        recovery::open(Arc::new(look::ReadOnly), settings, boot, now)
    }

    /// The folder on tmpfs that an outbox has to itself.
    #[must_use]
    pub fn tail_folder(tail_dir: &Path, dir: &Path) -> PathBuf {
        tail::folder(tail_dir, &storage::Disk.absolute(dir))
    }

    /// The number of this run: one more than the last one's, or a random one of at least 2^31 if it could not be
    /// made durable.
    #[must_use]
    pub fn run(&self) -> u32 {
        self.run
    }

    /// Registers or resumes the cursor of that name. A new one starts at the oldest record that another one still
    /// needs; the first one at the oldest record kept.
    pub fn cursor(&mut self, name: &str) -> CursorId {
        self.cursors.register(name, false)
    }

    /// As [`cursor`](Self::cursor), for a reader that takes what it can get: an archive. Records stay in memory and in
    /// segments until it has acknowledged them, but for its sake alone none is written to disk; when memory is half
    /// full they go, and are counted for it alone. Like any other it is forgotten by
    /// [`retain_cursors`](Self::retain_cursors) unless that is given its name.
    pub fn cursor_soft(&mut self, name: &str) -> CursorId {
        self.cursors.register(name, true)
    }

    /// Forgets cursors of uplinks that are no longer configured, so that they pin nothing.
    pub fn retain_cursors(&mut self, names: &[&str]) {
        if self.cursors.retain(names) {
            self.flushing.acks += 1;
        }
    }

    /// Moves on over what is acknowledged by all: it need not go to disk any more.
    fn settle(&mut self) {
        self.on_disk = self.cursors.next_needed(self.on_disk).clamp(self.on_disk, self.committed.max(self.on_disk));
    }

    /// Every position below it is acknowledged by all, soft cursors included.
    fn done(&self) -> Seq {
        self.cursors.done().min(self.committed)
    }

    /// Gives memory free.
    fn release(&mut self) {
        let done = self.done();
        while self.memory.pop_front_until(done) {}
        while self.memory.bytes() > self.settings.memory_bytes / 2 && self.evict() {}
    }

    /// Gives up the oldest chunk in memory if all of it is on disk, or acknowledged by all but soft cursors.
    fn evict(&mut self) -> bool {
        let Some((first, end)) = self.memory.front().filter(|(_, end)| *end <= self.on_disk) else { return false };
        if self.cursors.soft().next().is_some() && self.log.segment_of(first).is_none() {
            // What is in the log can be read from there.
            let next = self.log.segments.front().map(|segment| segment.first).filter(|next| *next > first);
            let end = next.map_or(end, |next| next.min(end));
            self.count_chunk(DropReason::MemoryFull, first, end);
            self.cursors.give_up_soft(first..end);
        }
        self.memory.pop_front_until(end)
    }

    /// The first position that is taken, needed and not on disk.
    fn oldest_unflushed(&self) -> Option<Seq> {
        let oldest = self.cursors.next_needed(self.on_disk);
        (oldest < self.committed).then_some(oldest)
    }

    /// Do the records that are not on disk take so much memory that they should not wait?
    fn unflushed_bytes_are_many(&self) -> bool {
        self.memory.bytes() > self.settings.memory_bytes / 2
    }

    /// Does so much wait for the disk that whoever fills the outbox should pause, if it can, until the next flush is
    /// finished? Without a pause the oldest records are dropped when memory is full.
    #[must_use]
    pub fn congested(&self) -> bool {
        // At its limit the log takes nothing, however long one waits.
        self.disk_works() && !self.flushing.full && self.memory.bytes() > self.settings.memory_bytes / 4 * 3
    }

    /// Acknowledges positions in the name of a cursor; lasting from the next `commit` on.
    pub fn ack(&mut self, cursor: CursorId, seqs: Range<Seq>) {
        let Some(cursor) = self.cursors.get_mut(cursor) else { return };
        let seqs = seqs.start..seqs.end.min(self.next);
        if seqs.is_empty() {
            return;
        }
        let fresh = cursor.missing(&seqs);
        if cursor.ack(seqs.clone()) {
            if !cursor.is_soft() {
                self.stats.acknowledged += fresh;
            }
            self.note_acked(seqs.start, fresh);
        } else {
            self.stats.forgotten += fresh;
        }
    }

    /// Has the cursor acknowledged that position?
    #[must_use]
    pub fn is_acked(&self, cursor: CursorId, seq: Seq) -> bool {
        self.cursors.get(cursor).is_none_or(|cursor| cursor.acked.contains(seq))
    }

    /// The first stretch of committed positions from `from` on that all of these cursors have acknowledged.
    #[must_use]
    pub fn acked_by(&self, cursors: &[CursorId], from: Seq) -> Option<Range<Seq>> {
        let sets: Vec<_> = cursors.iter().filter_map(|cursor| Some(&self.cursors.get(*cursor)?.acked)).collect();
        let mut start = from;
        while start < self.committed {
            let present = sets.iter().map(|acked| acked.next_present(start)).max().unwrap_or(start);
            let missing = sets.iter().map(|acked| acked.next_missing(present)).min().unwrap_or(self.committed);
            if missing > present {
                return Some(present..missing.min(self.committed)).filter(|stretch| !stretch.is_empty());
            }
            start = present;
        }
        None
    }

    /// The first position from `from` on that the cursor has still to acknowledge, whether it is committed or not.
    #[must_use]
    pub fn next_unacked(&self, cursor: CursorId, from: Seq) -> Seq {
        self.cursors.get(cursor).map_or(Seq::MAX, |cursor| cursor.acked.next_missing(from))
    }

    /// The folder of the log.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.settings.dir
    }

    /// The position after the last committed record.
    #[must_use]
    pub fn end(&self) -> Seq {
        self.committed
    }

    /// Every committed position below it is on disk, or acknowledged by all.
    #[must_use]
    pub fn on_disk(&self) -> Seq {
        self.on_disk
    }

    /// The cursor has acknowledged every position before this one.
    #[must_use]
    pub fn low(&self, cursor: CursorId) -> Seq {
        self.cursors.get(cursor).map_or(self.committed, |cursor| cursor.acked.low())
    }

    /// How many committed positions the cursor has still to acknowledge.
    #[must_use]
    pub fn backlog(&self, cursor: CursorId) -> u64 {
        self.cursors.get(cursor).map_or(0, |cursor| cursor.acked.missing_below(self.committed))
    }

    /// The position from which on the cursor has `count` committed positions still to acknowledge, or all there are.
    #[must_use]
    pub fn newest_waiting(&self, cursor: CursorId, count: u64) -> Seq {
        self.cursors.get(cursor).map_or(0, |cursor| cursor.acked.last_missing(self.committed, count))
    }

    /// Everything in these ranges that is unacknowledged is in flight: it is never dropped. They replace what was said
    /// before; a few are meant, one for each stream of an uplink.
    pub fn set_in_flight(&mut self, cursor: CursorId, ranges: &[Range<Seq>]) {
        self.cursors.set_in_flight(cursor, ranges);
    }

    /// Is that position unacknowledged and in flight?
    #[must_use]
    pub fn is_in_flight(&self, cursor: CursorId, seq: Seq) -> bool {
        let flies = |range: &Range<Seq>| range.contains(&seq);
        self.cursors.get(cursor).is_some_and(|it| it.in_flight().iter().any(flies) && !it.acked.contains(seq))
    }

    /// A small value that survives.
    #[must_use]
    pub fn state(&self, key: &str) -> Option<&[u8]> {
        self.state.get(key)
    }

    /// The keys of small values that begin with `prefix`.
    pub fn state_keys<'s>(&'s self, prefix: &'s str) -> impl Iterator<Item = &'s str> {
        self.state.keys(prefix)
    }

    /// Sets a small value, or removes it: in the tail at the next `commit`, in the state file within `persist`. One
    /// that is larger than [`state`](crate::state) allows changes nothing, with a warning.
    pub fn put_state(&mut self, key: &str, value: Option<Vec<u8>>) {
        if let Err(refused) = self.state.put(key, value) {
            self.warn(Warning::State(refused.to_string()));
        }
    }

    /// Shutdown: writes what is unacknowledged, cursors and state, and syncs. Then the tail is no longer needed and
    /// is deleted.
    ///
    /// # Errors
    /// The disk does not take it; the tail is left in place, so that the next run has it.
    pub fn close(mut self, now: BootTime) -> Result<(), io::Error> {
        self.commit(now);
        let (mut with_state, mut failed) = (true, false);
        while let Some(job) = self.compose_flush(now, true, with_state) {
            with_state = false;
            let done = job.run();
            if let Some(error) = done.error() {
                // Another segment may take what this one did not.
                if std::mem::replace(&mut failed, true) {
                    return Err(error);
                }
                with_state = true;
            }
            self.finish_flush(done, now);
        }
        if self.oldest_unflushed().is_some() {
            return Err(io::Error::other("the outbox is at its limit, and all of it is in flight"));
        }
        self.tail.remove();
        Ok(())
    }

    /// Counts, and how full it is.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            waiting: self.cursors.waiting(self.committed),
            memory_bytes: self.memory.bytes(),
            disk_bytes: self.log.disk_bytes(),
            tail_bytes: self.tail.length(),
            tail_works: self.tail.works(),
            disk_works: self.disk_works(),
            ..self.stats.clone()
        }
    }

    /// Positions that were dropped since the outbox was opened, by reason.
    #[must_use]
    pub fn dropped_by_reason(&self) -> &BTreeMap<DropReason, u64> {
        self.drops.totals()
    }

    /// What was dropped since the last call, by reason, cursor and sensor, with its span of positions and of time.
    pub fn take_drops(&mut self) -> Vec<Dropped> {
        self.drops.take()
    }

    /// What an operator should be told since the last call.
    pub fn take_warnings(&mut self) -> Vec<Warning> {
        std::mem::take(&mut self.warnings)
    }

    fn warn(&mut self, warning: Warning) {
        if self.warnings.len() < stats::MAX_WARNINGS {
            self.warnings.push(warning);
        }
    }
}
