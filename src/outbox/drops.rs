//! What was dropped on purpose or lost to damage: counted by reason and sensor, with the time that it spans.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::record::Lookup as _;
use super::{Body, CursorId, Entry, Outbox, Seq};
use crate::clock::{BootId, BootTime, WallTime};

/// Why records were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// The log had reached its limit: the oldest went, or with `full = "drop-newest"` the newest.
    DiskFull,
    /// Memory had reached its limit, because the disk does not take writes fast enough or at all.
    MemoryFull,
    /// Memory had reached its limit and everything in it was in flight: the newest went.
    AllInFlight,
    /// The record, or the description of its sensor, is larger than the outbox takes.
    TooLarge,
    /// Records wait that refer to too many different descriptions of sensors.
    TooManyDescriptors,
    /// They could not be read back from disk or tail: damaged, or deleted by somebody else.
    Damaged,
    /// Older than the uplink's age limit.
    Expired,
    /// The uplink's broker does not take them.
    Refused,
    /// Somebody asked for it.
    ByHand,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::DiskFull,
        Self::MemoryFull,
        Self::AllInFlight,
        Self::TooLarge,
        Self::TooManyDescriptors,
        Self::Damaged,
        Self::Expired,
        Self::Refused,
        Self::ByHand,
    ];

    /// The reason as published.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DiskFull => "disk-full",
            Self::MemoryFull => "memory-full",
            Self::AllInFlight => "all-in-flight",
            Self::TooLarge => "too-large",
            Self::TooManyDescriptors => "too-many-descriptors",
            Self::Damaged => "damaged",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::ByHand => "by-hand",
        }
    }

    /// What can be done about it, for an operator.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::DiskFull => "give [outbox] a larger max_bytes or free_share, or free space on its disk",
            Self::MemoryFull => "see to the disk of [outbox], which is too slow or takes no writes",
            Self::AllInFlight => "lower `inflight` of the uplink, and see to the disk of [outbox]",
            Self::TooLarge => "let the sensor or client send smaller messages",
            Self::TooManyDescriptors => "reload the configuration less often while a backlog waits",
            Self::Damaged => "see to the medium on which [outbox] lies",
            Self::Expired => "raise the age limit of the uplink if late readings are still of use",
            Self::Refused => "see to what the broker refuses",
            Self::ByHand => "nothing: somebody asked for it",
        }
    }
}

/// When a record was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// In which boot.
    pub boot: BootId,
    /// On the boot clock of that boot.
    pub at: BootTime,
    /// On the wall clock, if that was set.
    pub time: Option<WallTime>,
}

impl Entry {
    /// When it was measured.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment { boot: self.boot, at: self.at, time: self.time }
    }
}

/// Records of a sensor that were dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Why.
    pub reason: DropReason,
    /// For which cursor alone; `None`: for all.
    pub cursor: Option<Box<str>>,
    /// Whose; `None`: raw messages of LAN clients, records that cannot be read, or sensors beyond those that are
    /// counted apart.
    pub sensor: Option<Box<str>>,
    /// How many positions.
    pub count: u64,
    /// From the first to the last of them; others lie between. Empty for records that never got a position.
    pub span: Range<Seq>,
    /// When the first and the last of them were measured; `None`: unknown, because they cannot be read.
    pub when: Option<(Moment, Moment)>,
}

impl Dropped {
    /// Takes up others of the same kind.
    fn merge(&mut self, other: &Self) {
        self.when = match (self.when, other.when) {
            (Some((first, last)), Some((other_first, other_last))) => {
                let first = if other.span.start < self.span.start { other_first } else { first };
                let last = if other.span.end >= self.span.end { other_last } else { last };
                Some((first, last))
            }
            (when, other) => when.or(other),
        };
        self.count += other.count;
        self.span = self.span.start.min(other.span.start)..self.span.end.max(other.span.end);
    }
}

/// Sensors and reasons that are counted apart between two calls of `take_drops`.
const MAX_KINDS: usize = 256;

type Kind = (DropReason, Option<Box<str>>, Option<Box<str>>);

/// Drops that were not yet reported.
#[derive(Debug, Default)]
pub(super) struct Drops {
    unreported: BTreeMap<Kind, Dropped>,
    totals: BTreeMap<DropReason, u64>,
}

impl Drops {
    fn add(&mut self, mut dropped: Dropped) {
        *self.totals.entry(dropped.reason).or_default() += dropped.count;
        let mut kind = (dropped.reason, dropped.cursor.clone(), dropped.sensor.clone());
        if self.unreported.len() >= MAX_KINDS && !self.unreported.contains_key(&kind) {
            (kind.2, dropped.sensor) = (None, None);
        }
        match self.unreported.get_mut(&kind) {
            Some(known) => known.merge(&dropped),
            None => drop(self.unreported.insert(kind, dropped)),
        }
    }

    pub(super) fn take(&mut self) -> Vec<Dropped> {
        std::mem::take(&mut self.unreported).into_values().collect()
    }

    /// Positions since the outbox was opened.
    pub(super) fn totals(&self) -> &BTreeMap<DropReason, u64> {
        &self.totals
    }
}

impl Outbox {
    /// Gives up what a cursor has not acknowledged of these positions, in its name alone, and counts it; lasting from
    /// the next `commit` on. `sensor` and `when` are those of the record.
    pub fn drop_for(
        &mut self,
        cursor: CursorId,
        seqs: Range<Seq>,
        reason: DropReason,
        sensor: Option<&str>,
        when: Option<Moment>,
    ) {
        let Some(known) = self.cursors.get(cursor) else { return };
        let seqs = seqs.start..seqs.end.min(self.next);
        let count = known.missing(&seqs);
        if count == 0 {
            return;
        }
        let name = known.name().into();
        self.note_drop(reason, Some(name), sensor, count, seqs.clone(), when);
        self.give_up_for(cursor, seqs);
    }

    /// Counts a record that gets no position; gives the empty range of its positions.
    pub(super) fn refuse(&mut self, reason: DropReason, body: &Body, when: Moment) -> Range<Seq> {
        let nowhere = self.next..self.next;
        self.note_drop(reason, None, body.sensor(), body.len(), nowhere.clone(), Some(when));
        nowhere
    }

    /// Counts what is dropped of a record: for all, or for soft cursors alone if nobody else needs it.
    pub(super) fn count_drop(
        &mut self,
        reason: DropReason,
        seqs: &Range<Seq>,
        sensor: Option<&str>,
        when: Option<Moment>,
    ) {
        let count = self.cursors.needed(seqs);
        if count > 0 {
            self.note_drop(reason, None, sensor, count, seqs.clone(), when);
            return;
        }
        let soft: Vec<(Box<str>, u64)> =
            self.cursors.soft().map(|cursor| (cursor.name().into(), cursor.missing(seqs))).collect();
        for (name, count) in soft.into_iter().filter(|(_, count)| *count > 0) {
            self.note_drop(reason, Some(name), sensor, count, seqs.clone(), when);
        }
    }

    /// Nobody can read the record of these positions: a cursor that waited for them would wait for ever.
    pub(super) fn lose(&mut self, seqs: Range<Seq>) {
        let count = self.cursors.needed(&seqs);
        if count > 0 {
            self.stats.lost += count;
        }
        // What only a soft cursor still wanted was never written, on purpose.
        let reason = if count > 0 { DropReason::Damaged } else { DropReason::MemoryFull };
        self.count_drop(reason, &seqs, None, None);
        self.give_up(seqs);
    }

    /// Counts the records of a chunk in memory that go although somebody needs them.
    pub(super) fn count_chunk(&mut self, reason: DropReason, first: Seq, end: Seq) {
        let mut dropped = Vec::new();
        for frame in self.memory.frames_from(first).take_while(|frame| frame.seqs().end <= end) {
            let descriptor = frame.descriptor().and_then(|number| self.dictionary.descriptor(number).map(Arc::clone));
            let boot = self.dictionary.boot(frame.head.run);
            let when = boot.map(|boot| Moment { boot, at: frame.head.at, time: frame.head.time });
            dropped.push((frame.seqs(), descriptor, when));
        }
        for (seqs, descriptor, when) in dropped {
            self.count_drop(reason, &seqs, descriptor.as_ref().map(|it| &*it.sensor), when);
        }
    }

    pub(super) fn note_drop(
        &mut self,
        reason: DropReason,
        cursor: Option<Box<str>>,
        sensor: Option<&str>,
        count: u64,
        span: Range<Seq>,
        when: Option<Moment>,
    ) {
        self.stats.dropped += count;
        let when = when.map(|when| (when, when));
        self.drops.add(Dropped { reason, cursor, sensor: sensor.map(Box::from), count, span, when });
    }
}
