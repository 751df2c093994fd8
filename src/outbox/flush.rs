//! Flushes: what is taken and still not acknowledged goes to disk, with one sequential write and one fdatasync.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::dictionary::Place;
use super::frame::{self, FileHeader, FileId, Ink, Kind, MAX_PADDING, MAX_PART};
use super::job::{FlushDone, FlushJob, LogWrite, Target};
use super::log::Source;
use super::segment::{self, SEGMENT_SIZE, Segment};
use super::stats::Warning;
use super::storage::StoredFile;
use super::{CursorId, DropReason, Full, Outbox, Seq, Settings, record};
use crate::clock::BootTime;

/// How long acknowledgements of records that are on disk may wait for a flush of their own. After a power cut these
/// messages are sent again.
const ACKS_TO_DISK: Duration = Duration::from_secs(10);

/// A disk that takes longer for a flush is not waited for: a message more that may come twice is better than none.
const PATIENCE: Duration = Duration::from_secs(10);

/// The first pause after a failed flush; it doubles up to `MAX_RETRY`.
const MIN_RETRY: Duration = Duration::from_secs(1);
/// The longest pause after a failed flush.
const MAX_RETRY: Duration = Duration::from_secs(60);

/// What the outbox knows about its flushes.
#[derive(Debug, Default)]
pub(super) struct Flushing {
    /// The one that runs.
    running: Option<Running>,
    /// The log takes no writes.
    failing: bool,
    /// After a failure: when to try again, and the pause before that.
    retry: Option<(BootTime, Duration)>,
    /// A file was removed under our hands, perhaps the folder with it.
    vanished: bool,
    /// The log is at its limit and takes nothing; said once.
    pub(super) full: bool,
    /// Others leave so little of the disk that the log's limit is not `max_bytes`; said once.
    short: bool,
    /// The state could not be written; said once.
    state_failing: bool,
    /// Counts what changed in the cursors that concerns records on disk: positions acknowledged, for the most part.
    pub(super) acks: u64,
    /// `acks` as it was when the cursors were last written to disk.
    acks_written: u64,
    /// `acks` as it was when that was last tried.
    acks_tried: u64,
    /// Up to which value of `acks` the disk should know of them without waiting.
    acks_hurried: u64,
    /// The log is at its limit, and there is no room for acknowledgements.
    acks_stuck: bool,
    /// Since when acknowledgements or finished segments wait for a flush.
    acks_since: Option<BootTime>,
    /// Since when changes of the state wait for a flush.
    state_since: Option<BootTime>,
    /// The state should not wait for its time.
    state_soon: bool,
}

/// A flush that runs.
#[derive(Debug)]
struct Running {
    begun: BootTime,
    /// Records below it are on disk when the flush succeeds.
    upto: Seq,
    /// The segment it writes to, its first position and its length afterwards.
    segment: Option<(u64, Seq, u64)>,
    acks: u64,
    state: Option<u64>,
    bytes: u64,
    created: bool,
}

impl Outbox {
    /// Asks that the state file be written by the next flush, not only within `persist`.
    pub fn persist_soon(&mut self) {
        self.flushing.state_soon = self.state.is_dirty();
    }

    /// When the next flush is due; `None`: nothing waits, or a flush runs.
    #[must_use]
    pub fn flush_due(&self) -> Option<BootTime> {
        if self.flushing.running.is_some() {
            return None;
        }
        let records = self.records_due();
        let acks = self.hurried_acks_due().or(self.flushing.acks_since.map(|since| since.after(ACKS_TO_DISK)));
        let due = records.into_iter().chain(acks).chain(self.state_due()).min()?;
        Some(self.flushing.retry.map_or(due, |(at, _)| due.max(at)))
    }

    /// When a flush is due for the sake of acknowledgements that somebody waits for; `None`: nobody does.
    #[must_use]
    pub fn hurried_acks_due(&self) -> Option<BootTime> {
        self.flushing.acks_since.filter(|_| self.flushing.acks_tried < self.flushing.acks_hurried)
    }

    /// Asks that the disk be told of all acknowledgements up to now as soon as they are committed.
    pub fn hurry_acks(&mut self) {
        self.flushing.acks_hurried = self.flushing.acks;
    }

    /// Counts the acknowledgements of records that are on disk, and whatever else has changed in what is needed there.
    #[must_use]
    pub fn acks_noted(&self) -> u64 {
        self.flushing.acks
    }

    /// Up to which of [`acks_noted`](Self::acks_noted) nothing need be waited for: the disk knows of it, or takes nothing
    /// at present.
    #[must_use]
    pub fn acks_on_disk(&self, now: BootTime) -> u64 {
        let slow = self.flushing.running.as_ref().is_some_and(|running| now.since(running.begun) > PATIENCE);
        if slow || !self.acks_wait() { self.flushing.acks } else { self.flushing.acks_written }
    }

    /// Are there acknowledgements that the disk does not know of, but can be told?
    #[must_use]
    pub fn acks_wait(&self) -> bool {
        let Flushing { acks, acks_written, failing, acks_stuck, .. } = self.flushing;
        acks != acks_written && !self.log.segments.is_empty() && !failing && !acks_stuck
    }

    /// Counts positions that a cursor has just acknowledged, if the disk has records from `start` on, or will have when
    /// the flush that runs is finished.
    pub(super) fn note_acked(&mut self, start: Seq, count: u64) {
        let written = self.log.segments.back().map_or(0, |last| last.end);
        let reached = self.flushing.running.as_ref().map_or(written, |running| running.upto.max(written));
        // What lies behind was never written.
        if start < reached {
            self.flushing.acks += count;
        }
    }

    fn records_due(&self) -> Option<BootTime> {
        let oldest = self.oldest_unflushed()?;
        let taken = self.marks.partition_point(|(seq, _)| *seq <= oldest);
        let (_, taken) = self.marks.get(taken.saturating_sub(1))?;
        let urgent = !self.tail.works() || self.unflushed_bytes_are_many();
        Some(if urgent { *taken } else { taken.after(self.settings.flush) })
    }

    fn state_due(&self) -> Option<BootTime> {
        let since = self.flushing.state_since?;
        Some(if self.flushing.state_soon { since } else { since.after(self.settings.persist) })
    }

    /// Notes at a commit what waits for a flush from now on.
    pub(super) fn note_waiting(&mut self, now: BootTime) {
        let acks = self.flushing.acks != self.flushing.acks_written && !self.log.segments.is_empty();
        if !acks && !self.log.has_done(self.done(), self.on_disk) {
            self.flushing.acks_since = None;
        } else if self.flushing.acks_since.is_none() {
            self.flushing.acks_since = Some(now);
        }
        if !self.state.is_dirty() {
            self.flushing.state_since = None;
        } else if self.flushing.state_since.is_none() {
            self.flushing.state_since = Some(now);
        }
    }

    /// What must be written now, as a job that may run on any thread; `None`: nothing waits, a flush runs, or the
    /// last one failed a moment ago.
    pub fn begin_flush(&mut self, now: BootTime) -> Option<FlushJob> {
        if self.flushing.retry.is_some_and(|(at, _)| now < at) {
            return None;
        }
        let is_due = |due: Option<BootTime>| due.is_some_and(|due| due <= now);
        // What is not due may still be acknowledged, and then need not be written, nor its acknowledgement after it.
        self.compose_flush(now, is_due(self.records_due()), is_due(self.state_due()))
    }

    /// As [`begin_flush`](Self::begin_flush), whatever happened before; with records and the state or without.
    pub(super) fn compose_flush(&mut self, now: BootTime, records: bool, state: bool) -> Option<FlushJob> {
        if self.flushing.running.is_some() {
            return None;
        }
        self.settle();
        let acks = self.flushing.acks;
        let records = records && self.oldest_unflushed().is_some();
        let disposals = self.log.take_done(self.done(), self.on_disk);
        let cursors = acks != self.flushing.acks_written && !self.log.segments.is_empty();
        let (mut running, log) =
            if records || cursors { self.compose_log_write(now, records) } else { (self.running(now), None) };
        let state = state.then(|| {
            running.state = Some(self.state.generation());
            let bytes = self.compose_state();
            (self.settings.dir.join(state_name(self.state.generation())), bytes)
        });
        if log.is_none() && state.is_none() && disposals.is_empty() {
            return None;
        }
        self.flushing.running = Some(running);
        Some(FlushJob { storage: Arc::clone(&self.storage), folder: self.settings.dir.clone(), log, state, disposals })
    }

    /// One slot of the state, as it lies on disk.
    pub(super) fn compose_state(&mut self) -> Vec<u8> {
        let generation = self.state.generation();
        let mut bytes = Vec::new();
        let ink = Ink::new(FileId::state(generation), self.seal.as_ref());
        FileHeader::put(&mut bytes, ink, self.identity);
        frame::put_seals(&mut bytes, ink);
        let stored = self.state.stored(self.committed);
        frame::put(&mut bytes, ink, Kind::State, |bytes| record::write(bytes, stored));
        frame::pad(&mut bytes, ink);
        bytes
    }

    /// A flush that begins, before anything is put into it.
    fn running(&self, begun: BootTime) -> Running {
        let (upto, acks) = (self.on_disk, self.flushing.acks);
        Running { begun, upto, segment: None, acks, state: None, bytes: 0, created: false }
    }

    /// Every flush has the cursors with it: what they have acknowledged is left out of the records. Without `records`
    /// it has nothing else, unless a segment begins with it.
    fn compose_log_write(&mut self, now: BootTime, records: bool) -> (Running, Option<LogWrite>) {
        let mut running = self.running(now);
        self.flushing.acks_tried = running.acks;
        if let (Some(file), Some(last)) = (&self.log.active, self.log.segments.back()) {
            let (number, first, used) = (last.number, last.first, last.used);
            let path = last.path(&self.settings.dir);
            let file = Arc::clone(file);
            let mut bytes = Vec::new();
            let ink = Ink::new(FileId::segment(number), self.seal.as_ref());
            if self.log.part_is_full(used) {
                self.log.begin_part(&mut bytes, ink, used);
            }
            self.cursors.put(&mut bytes, ink, self.on_disk);
            let upto = if records { self.put_records(&mut bytes, number, SEGMENT_SIZE - used) } else { self.on_disk };
            let room = bytes.len() as u64 + MAX_PADDING as u64 <= SEGMENT_SIZE - used;
            if room && (upto > self.on_disk || !records) {
                frame::pad(&mut bytes, Ink::new(FileId::segment(number), None));
                running.bytes = bytes.len() as u64;
                running.segment = Some((number, first, used + running.bytes));
                running.upto = upto;
                return (running, Some(LogWrite { target: Target::Active(path, file), offset: used, bytes }));
            }
        }
        self.log.abandon_part();
        let Some(source) = self.source_of_segment(records) else {
            if !records {
                // To send something twice is better than to drop what was not sent yet.
                self.flushing.acks_since = Some(now);
                self.flushing.acks_stuck = true;
                return (running, None);
            }
            if !std::mem::replace(&mut self.flushing.full, true) {
                self.warn(match self.settings.full {
                    Full::DropOldest => Warning::AllInFlight,
                    Full::DropNewest => Warning::NewestGo,
                });
            }
            // An acknowledgement may make room at any time.
            self.flushing.retry = Some((now.after(MIN_RETRY), MIN_RETRY));
            return (running, None);
        };
        self.flushing.full = false;
        self.log.active = None;
        let number = self.log.next_number;
        self.log.next_number += 1;
        let mut bytes = Vec::new();
        let ink = Ink::new(FileId::segment(number), self.seal.as_ref());
        FileHeader::put(&mut bytes, ink, self.identity);
        self.log.begin_part(&mut bytes, ink, 0);
        self.cursors.put(&mut bytes, ink, self.on_disk);
        // Whatever it is begun for: after a crash an earlier segment may have records that it no longer counts for, and
        // a segment has everything from its first position on.
        running.upto = self.put_records(&mut bytes, number, SEGMENT_SIZE);
        frame::pad(&mut bytes, Ink::new(FileId::segment(number), None));
        running.bytes = bytes.len() as u64;
        running.segment = Some((number, self.on_disk, running.bytes));
        running.created = !matches!(source, Source::Recycled(_));
        let path = self.settings.dir.join(segment::name(number));
        (running, Some(LogWrite { target: Target::Next(path, source), offset: 0, bytes }))
    }

    /// Appends what is not on disk and still waited for, as far as `room` allows, padding included; gives the
    /// position up to which nothing is left to write.
    fn put_records(&mut self, bytes: &mut Vec<u8>, number: u64, room: u64) -> Seq {
        let ink = Ink::new(FileId::segment(number), self.seal.as_ref());
        let start = SEGMENT_SIZE - room;
        for frame in self.memory.frames_from(self.on_disk) {
            let seqs = frame.seqs();
            if seqs.end > self.committed {
                break;
            }
            if self.cursors.all_acked(&seqs) {
                continue;
            }
            let (run, descriptor) = (frame.head.run, frame.descriptor());
            let full = self.log.part_is_full(start + bytes.len() as u64);
            let part = self.log.part() + u64::from(full);
            let padding = if full { MAX_PADDING + MAX_PART } else { 0 };
            let missing = self.dictionary.missing((Place::Part, part), run, descriptor);
            // A run, a descriptor and the record itself.
            let sealing = 3 * ink.overhead();
            let after = bytes.len() + padding + missing + frame.bytes.len() + sealing + MAX_PADDING;
            if after as u64 > room {
                return seqs.start;
            }
            if full {
                frame::pad(bytes, ink);
                self.log.begin_part(bytes, ink, start + bytes.len() as u64);
            }
            self.dictionary.write_missing(bytes, (Place::Part, part), ink, run, descriptor);
            frame::copy(bytes, ink, frame.bytes);
        }
        self.committed
    }

    /// Where the next segment comes from; at the limit the oldest segment without a record in flight is dropped, if
    /// there are `records` to write.
    fn source_of_segment(&mut self, records: bool) -> Option<Source> {
        if let Some(source) = self.log.reusable(self.done()) {
            return Some(source);
        }
        let limit = self.limit();
        let short = limit < self.settings.max_bytes;
        if self.log.may_grow(limit) {
            self.flushing.short &= short;
            return Some(Source::New);
        }
        if !records {
            return None;
        }
        if short != std::mem::replace(&mut self.flushing.short, short) && short {
            let (limit, share) = (limit, self.settings.free_share);
            self.warn(Warning::DiskShort { path: self.settings.dir.clone(), limit, share });
        }
        if self.settings.full == Full::DropNewest {
            return None;
        }
        let index = self.log.segments.iter().position(|segment| !self.cursors.in_flight(segment.first..segment.end))?;
        self.drop_segment(index);
        self.log.recycle(index)
    }

    /// Bytes that the log may take: `max_bytes`, or its share of the disk if that is less.
    #[must_use]
    pub fn limit(&self) -> u64 {
        let Settings { max_bytes, free_share, dir, .. } = &self.settings;
        // Where the file system cannot be asked, the write will tell.
        let Ok(free) = self.storage.free(dir) else { return *max_bytes };
        let ours = self.log.disk_bytes();
        (free.saturating_add(ours) / 100).saturating_mul(u64::from(*free_share)).min(*max_bytes)
    }

    /// Gives up a segment's records for good, and counts them.
    fn drop_segment(&mut self, index: usize) {
        let segment = self.log.segments[index].clone();
        let mut from = segment.first;
        while let Some(entry) = self.next_on_disk(index, from) {
            self.count_drop(DropReason::DiskFull, &(from..entry.seq.max(from)), None, None);
            from = entry.seqs().end;
            self.count_drop(DropReason::DiskFull, &entry.seqs(), entry.sensor(), Some(entry.moment()));
        }
        self.count_drop(DropReason::DiskFull, &(from..segment.end.max(from)), None, None);
        self.give_up(segment.first..segment.end);
    }

    /// Nobody waits for these positions any more.
    pub(super) fn give_up(&mut self, seqs: Range<Seq>) {
        self.cursors.give_up(seqs);
        self.flushing.acks += 1;
    }

    /// That cursor does not wait for these positions any more.
    pub(super) fn give_up_for(&mut self, cursor: CursorId, seqs: Range<Seq>) {
        if let Some(cursor) = self.cursors.get_mut(cursor) {
            cursor.ack(seqs);
            self.flushing.acks += 1;
        }
    }

    fn retry_later(&mut self, now: BootTime) {
        let pause = self.flushing.retry.map_or(MIN_RETRY, |(_, pause)| (pause * 2).min(MAX_RETRY));
        self.flushing.retry = Some((now.after(pause), pause));
    }

    /// Takes up what became of a flush.
    pub fn finish_flush(&mut self, done: FlushDone, now: BootTime) {
        let Some(running) = self.flushing.running.take() else { return };
        match done.log {
            Some(Ok(file)) => self.log_written(&running, file),
            // The kernel may have thrown away what could not be written and take the next sync for a success. So
            // this segment is not written again; everything since its last success is still in memory.
            Some(Err(error)) => {
                self.log.active = None;
                self.stats.write_errors += 1;
                self.retry_later(now);
                if error.kind() == io::ErrorKind::NotFound {
                    self.log_vanished(now);
                }
                if !std::mem::replace(&mut self.flushing.failing, true) {
                    self.warn(Warning::DiskFailed { path: self.settings.dir.clone(), error });
                }
            }
            None => {}
        }
        match (running.state, done.state) {
            (Some(generation), Some(Ok(()))) => {
                self.state.written(generation);
                self.flushing.state_since = None;
                self.flushing.state_soon = false;
                self.flushing.state_failing = false;
            }
            // It is tried again after `persist`, and does not hold up the records until then.
            (_, Some(Err(error))) => {
                self.flushing.state_since = Some(now);
                self.flushing.state_soon = false;
                self.stats.write_errors += 1;
                if !std::mem::replace(&mut self.flushing.state_failing, true) {
                    self.warn(Warning::StateFailed { path: self.settings.dir.clone(), error });
                }
            }
            _ => {}
        }
        self.flushing.acks_since = None;
        self.note_waiting(now);
        self.release();
    }

    /// The active segment was removed: what it had and memory still has is to be written again, and so is the state.
    fn log_vanished(&mut self, now: BootTime) {
        let Some(from) = self.log.segments.back().map(|last| last.first) else { return };
        // Memory has everything from its first record on.
        let from = self.memory.first().unwrap_or(self.committed).max(from);
        if from < self.on_disk {
            self.on_disk = from;
            self.log.cut(from);
            self.marks.push_front((from, now));
            // It left out what was on disk.
            self.write_tail_anew(now);
        }
        self.flushing.vanished = true;
        self.state.not_on_disk();
        self.flushing.state_soon = true;
    }

    /// The folder is there again, perhaps another one: it is to be locked like the first.
    fn lock_anew(&mut self) {
        if let Ok(Some(lock)) = self.storage.lock(&self.settings.dir) {
            self._lock = lock;
        }
    }

    fn log_written(&mut self, running: &Running, file: Arc<dyn StoredFile>) {
        self.flushing.retry = None;
        if std::mem::take(&mut self.flushing.failing) {
            self.warn(Warning::DiskWorks);
        }
        if std::mem::take(&mut self.flushing.vanished) {
            self.lock_anew();
        }
        self.flushing.acks_written = running.acks;
        self.flushing.acks_stuck = false;
        self.stats.flushes += 1;
        self.stats.flushed_bytes += running.bytes;
        self.stats.segments_created += u64::from(running.created);
        let Some((number, first, used)) = running.segment else { return };
        let end = running.upto.max(first);
        match self.log.segments.back_mut() {
            Some(last) if last.number == number => {
                last.used = used;
                last.end = last.end.max(end);
            }
            _ => {
                let (current, damaged) = (true, false);
                let fresh = Segment { number, first, end, used, current, damaged, failed_reads: 0 };
                self.log.segments.push_back(fresh);
            }
        }
        self.log.active = Some(file);
        self.on_disk = self.on_disk.max(running.upto);
        self.tail_flushed = false;
    }

    /// Does the disk take writes, as far as is known?
    pub(super) fn disk_works(&self) -> bool {
        !self.flushing.failing
    }
}

/// Name of the slot of the state for a generation: two take turns.
pub(super) fn state_name(generation: u64) -> String {
    format!("state-{}", generation % 2)
}
