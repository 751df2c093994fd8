//! The cursors: what each uplink has acknowledged.

use std::ops::Range;

use super::frame::{self, Ink, Kind};
use super::memory::Hint;
use super::ranges::Acked;
use super::record::{self, StoredAcks, StoredCursor, StoredCursors};
use super::{CursorId, Seq};

/// Ranges above the low-water mark that are stored for all cursors together; each may have its share.
const MAX_STORED_RANGES: usize = 8192;

/// Ranges in one frame of acknowledgements.
const ACKS_PER_FRAME: usize = 4096;

/// A cursor.
#[derive(Debug)]
pub(super) struct Cursor {
    name: Box<str>,
    /// Nothing is written to disk, nor counted as waiting, for its sake alone.
    soft: bool,
    pub(super) acked: Acked,
    /// Acknowledged since the last commit.
    to_tail: Vec<Range<Seq>>,
    in_flight: Vec<Range<Seq>>,
    pub(super) hint: Hint,
}

impl Cursor {
    fn new(name: &str, soft: bool, acked: Acked) -> Self {
        Self { name: name.into(), soft, acked, to_tail: Vec::new(), in_flight: Vec::new(), hint: Hint::default() }
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// How many of these it has not acknowledged.
    pub(super) fn missing(&self, seqs: &Range<Seq>) -> u64 {
        self.acked.missing_below(seqs.end) - self.acked.missing_below(seqs.start)
    }

    /// The ranges in which everything unacknowledged is in flight.
    pub(super) fn in_flight(&self) -> &[Range<Seq>] {
        &self.in_flight
    }

    /// Is nothing written to disk for its sake alone?
    pub(super) fn is_soft(&self) -> bool {
        self.soft
    }

    /// Acknowledges a range; `false`: there was no room for it.
    pub(super) fn ack(&mut self, seqs: Range<Seq>) -> bool {
        if !self.acked.insert(seqs.clone()) {
            return false;
        }
        match self.to_tail.last_mut() {
            Some(last) if last.end == seqs.start => last.end = seqs.end,
            _ => self.to_tail.push(seqs),
        }
        true
    }
}

/// All cursors.
#[derive(Debug, Default)]
pub(super) struct Cursors {
    /// `None`: forgotten.
    list: Vec<Option<Cursor>>,
    /// What nobody needs any more, as long as there is no cursor.
    floor: Acked,
    /// A cursor came or went since the last commit.
    pub(super) changed: bool,
}

impl Cursors {
    pub(super) fn get(&self, id: CursorId) -> Option<&Cursor> {
        self.list.get(id.0)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: CursorId) -> Option<&mut Cursor> {
        self.list.get_mut(id.0)?.as_mut()
    }

    fn each(&self) -> impl Iterator<Item = &Cursor> {
        self.list.iter().flatten()
    }

    /// The cursors for whose sake records are written to disk.
    fn hard(&self) -> impl Iterator<Item = &Cursor> {
        self.each().filter(|cursor| !cursor.soft)
    }

    /// The others.
    pub(super) fn soft(&self) -> impl Iterator<Item = &Cursor> {
        self.each().filter(|cursor| cursor.soft)
    }

    /// The sets that decide together what is still needed on disk.
    fn sets(&self) -> impl Iterator<Item = &Acked> {
        let floor = self.hard().next().is_none().then_some(&self.floor);
        self.hard().map(|cursor| &cursor.acked).chain(floor)
    }

    /// Registers or resumes the cursor of that name. A new one needs what any other one still needs.
    pub(super) fn register(&mut self, name: &str, soft: bool) -> CursorId {
        let of_that_name = |cursor: &Option<Cursor>| cursor.as_ref().is_some_and(|cursor| *cursor.name == *name);
        if let Some(index) = self.list.iter().position(of_that_name) {
            if let Some(cursor) = &mut self.list[index] {
                self.changed |= std::mem::replace(&mut cursor.soft, soft) != soft;
            }
            return CursorId(index);
        }
        let acked = self.acked_by_all();
        self.changed = true;
        let index = self.list.iter().position(Option::is_none).unwrap_or(self.list.len());
        if index == self.list.len() {
            self.list.push(None);
        }
        self.list[index] = Some(Cursor::new(name, soft, acked));
        CursorId(index)
    }

    /// Forgets all others; `true`: there were others.
    pub(super) fn retain(&mut self, names: &[&str]) -> bool {
        let mut changed = false;
        // What all had acknowledged is gone already, so it stays acknowledged if nobody is left.
        let floor = self.acked_by_all();
        for cursor in &mut self.list {
            changed |= cursor.take_if(|cursor| !names.contains(&&*cursor.name)).is_some();
        }
        self.floor = floor;
        self.changed |= changed;
        changed
    }

    fn acked_by_all(&self) -> Acked {
        let mut sets = self.sets();
        let first = sets.next().expect("the floor stands in where there is no cursor").clone();
        sets.fold(first, |all, set| all.intersection(set))
    }

    /// Every position below it is acknowledged by all, soft ones included.
    pub(super) fn done(&self) -> Seq {
        self.sets().chain(self.soft().map(|cursor| &cursor.acked)).map(Acked::low).min().unwrap_or(0)
    }

    /// The first position from `from` on that somebody still needs on disk.
    pub(super) fn next_needed(&self, from: Seq) -> Seq {
        self.sets().map(|acked| acked.next_missing(from)).min().unwrap_or(from)
    }

    /// Are all of these acknowledged by all but soft ones?
    pub(super) fn all_acked(&self, seqs: &Range<Seq>) -> bool {
        self.sets().all(|acked| acked.next_missing(seqs.start) >= seqs.end)
    }

    /// Are all of these acknowledged by all, soft ones included?
    pub(super) fn nobody_wants(&self, seqs: &Range<Seq>) -> bool {
        self.all_acked(seqs) && self.soft().all(|cursor| cursor.acked.next_missing(seqs.start) >= seqs.end)
    }

    /// How many of these somebody still needs on disk, at the most.
    pub(super) fn needed(&self, seqs: &Range<Seq>) -> u64 {
        let missing = |acked: &Acked| acked.missing_below(seqs.end) - acked.missing_below(seqs.start);
        self.sets().map(missing).max().unwrap_or(0)
    }

    /// The most positions below `end` that a cursor, but for soft ones, has still to acknowledge.
    pub(super) fn waiting(&self, end: Seq) -> u64 {
        self.sets().map(|acked| acked.missing_below(end)).max().unwrap_or(0)
    }

    /// The position after the last one that anybody has acknowledged.
    pub(super) fn end(&self) -> Seq {
        self.each().map(|cursor| cursor.acked.end()).chain([self.floor.end()]).max().unwrap_or(0)
    }

    pub(super) fn set_in_flight(&mut self, id: CursorId, ranges: &[Range<Seq>]) {
        if let Some(cursor) = self.get_mut(id) {
            cursor.in_flight.clear();
            cursor.in_flight.extend_from_slice(ranges);
        }
    }

    /// Is any of these in flight?
    pub(super) fn in_flight(&self, seqs: Range<Seq>) -> bool {
        self.each().any(|cursor| {
            cursor.in_flight.iter().any(|range| {
                let start = seqs.start.max(range.start);
                cursor.acked.next_missing(start) < seqs.end.min(range.end)
            })
        })
    }

    /// Acknowledges in the name of all what is dropped.
    pub(super) fn give_up(&mut self, seqs: Range<Seq>) {
        for cursor in self.list.iter_mut().flatten() {
            cursor.ack(seqs.clone());
        }
        self.floor.insert(seqs);
    }

    /// As [`give_up`](Self::give_up), in the name of soft ones alone.
    pub(super) fn give_up_soft(&mut self, seqs: Range<Seq>) {
        for cursor in self.list.iter_mut().flatten().filter(|cursor| cursor.soft) {
            cursor.ack(seqs.clone());
        }
    }

    /// Appends all of them.
    pub(super) fn put(&self, buffer: &mut Vec<u8>, ink: Ink<'_>, first: Seq) {
        let stored = self.stored(first);
        frame::put(buffer, ink, Kind::Cursors, |buffer| record::write(buffer, &stored));
        if let Some(stored) = self.stored_soft(first) {
            frame::put(buffer, ink, Kind::SoftCursors, |buffer| record::write(buffer, &stored));
        }
    }

    /// All cursors but the soft ones in their stored form. Nothing that is stored after them lies below `first`.
    pub(super) fn stored(&self, first: Seq) -> StoredCursors {
        let mut cursors: Vec<StoredCursor> = self.hard().map(|it| self.store(&it.name, &it.acked)).collect();
        if cursors.is_empty() {
            cursors.push(self.store("", &self.floor));
        }
        StoredCursors { first, cursors }
    }

    /// All soft cursors in their stored form, if there are any.
    pub(super) fn stored_soft(&self, first: Seq) -> Option<StoredCursors> {
        let cursors: Vec<StoredCursor> = self.soft().map(|it| self.store(&it.name, &it.acked)).collect();
        (!cursors.is_empty()).then_some(StoredCursors { first, cursors })
    }

    fn store(&self, name: &str, acked: &Acked) -> StoredCursor {
        let share = MAX_STORED_RANGES / self.list.len().max(1);
        StoredCursor { name: name.into(), low: acked.low(), above: acked.above().iter().take(share).cloned().collect() }
    }

    /// Takes up stored cursors: what they have acknowledged is true, whatever else is known.
    pub(super) fn merge(&mut self, stored: &StoredCursors, soft: bool) {
        for cursor in &stored.cursors {
            let mut acked = Acked::below(cursor.low);
            for range in &cursor.above {
                acked.insert(range.clone());
            }
            self.merge_one(&cursor.name, soft, &acked);
        }
    }

    /// Takes up stored acknowledgements.
    pub(super) fn merge_acks(&mut self, stored: &StoredAcks) {
        for range in &stored.ranges {
            let mut acked = Acked::default();
            acked.insert(range.clone());
            self.merge_one(&stored.name, false, &acked);
        }
    }

    fn merge_one(&mut self, name: &str, soft: bool, acked: &Acked) {
        if name.is_empty() {
            self.floor.merge(acked);
            return;
        }
        match self.list.iter_mut().flatten().find(|cursor| *cursor.name == *name) {
            Some(cursor) => cursor.acked.merge(acked),
            None => self.list.push(Some(Cursor::new(name, soft, acked.clone()))),
        }
    }

    /// The acknowledgements since the last call.
    pub(super) fn take_acks(&mut self) -> impl Iterator<Item = StoredAcks> {
        self.list.iter_mut().flatten().flat_map(|cursor| {
            let name = &cursor.name;
            let pieces = std::mem::take(&mut cursor.to_tail);
            let pieces: Vec<StoredAcks> = pieces
                .chunks(ACKS_PER_FRAME)
                .map(|ranges| StoredAcks { name: name.clone(), ranges: ranges.to_vec() })
                .collect();
            pieces
        })
    }
}
