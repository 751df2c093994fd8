//! Committing: one write to the tail, and now and then a new tail.

use std::io;

use super::dictionary::Place;
use super::frame::{self, FileId, Ink, Kind};
use super::{Outbox, Warning, record};
use crate::clock::BootTime;

/// Times of commits that are remembered to tell when a record was taken. When there are more, the later records
/// count as taken earlier than they were.
const MAX_MARKS: usize = 256;

/// Commits that lie closer together than this part of `flush` count as one for the time of the flush.
const MARKS_PER_FLUSH: u32 = 64;

impl Outbox {
    /// One write to the tail for everything buffered: records, acknowledgements, state. After it they are taken.
    ///
    /// If the tail cannot be written they are taken all the same and go to disk with the next flush, which is due at
    /// once; [`take_warnings`](Self::take_warnings) says so.
    pub fn commit(&mut self, now: BootTime) {
        if self.next > self.committed {
            self.stats.taken += self.next - self.committed;
            let close = self.settings.flush / MARKS_PER_FLUSH;
            let near = self.marks.back().is_some_and(|(_, last)| now.since(*last) < close);
            if !near && self.marks.len() < MAX_MARKS || self.marks.is_empty() {
                self.marks.push_back((self.committed, now));
            }
            self.committed = self.next;
        }
        if self.tail.works() {
            self.put_changes();
            if !self.tail.buffer.is_empty()
                && let Err(error) = self.tail.commit(now)
            {
                self.tail_failed(error);
            }
        }
        if self.tail.vanished(now) {
            self.tail_failed(io::Error::new(io::ErrorKind::NotFound, "it was removed"));
            self.write_tail_anew(now);
        } else if self.tail.wants_writing_anew(now) {
            self.write_tail_anew(now);
        }
        self.settle();
        while self.marks.get(1).is_some_and(|(seq, _)| *seq <= self.on_disk) {
            self.marks.pop_front();
        }
        if self.on_disk >= self.committed {
            self.marks.clear();
        }
        self.note_waiting(now);
        self.release();
    }

    /// Puts into the tail's buffer what changed besides records.
    fn put_changes(&mut self) {
        let ink = Ink::new(FileId::tail(self.tail.number()), self.seal.as_ref());
        let buffer = &mut self.tail.buffer;
        // Before acknowledgements, which tell nothing of the kind of a cursor that is not known yet.
        if std::mem::take(&mut self.cursors.changed) {
            self.cursors.put(buffer, ink, 0);
        }
        for acks in self.cursors.take_acks() {
            frame::put(buffer, ink, Kind::Acks, |buffer| record::write(buffer, &acks));
        }
        for change in self.state.take_changes() {
            frame::put(buffer, ink, Kind::Change, |buffer| record::write(buffer, &change));
        }
        if !std::mem::replace(&mut self.tail_flushed, true) {
            let on_disk = self.on_disk;
            frame::put(buffer, ink, Kind::Flushed, |buffer| record::write(buffer, &on_disk));
        }
    }

    /// Writes a new tail with what is still needed.
    pub(super) fn write_tail_anew(&mut self, now: BootTime) {
        let worked = self.tail.works();
        let first = self.memory.first().unwrap_or(self.committed);
        self.dictionary.forget_descriptors(first);
        self.dictionary.forget_runs(first);
        self.dictionary.add_run(self.run, self.boot);
        let state = self.state.stored(self.committed);
        let (memory, dictionary) = (&self.memory, &mut self.dictionary);
        let (all_cursors, on_disk) = (&self.cursors, self.on_disk);
        // What only soft cursors still want was never written to the log.
        let log_end = self.log.segments.back().map_or(0, |last| last.end);
        let from = if all_cursors.soft().next().is_some() { log_end.min(on_disk) } else { on_disk };
        let result = self.tail.write_anew(now, self.seal.as_ref(), |fresh, ink| {
            let number = fresh.number();
            frame::put(&mut fresh.buffer, ink, Kind::State, |buffer| record::write(buffer, state));
            all_cursors.put(&mut fresh.buffer, ink, from);
            frame::put(&mut fresh.buffer, ink, Kind::Flushed, |buffer| record::write(buffer, &on_disk));
            for frame in memory.frames_from(from) {
                if all_cursors.nobody_wants(&frame.seqs()) {
                    continue;
                }
                let file = (Place::Tail, number);
                dictionary.write_missing(&mut fresh.buffer, file, ink, frame.head.run, frame.descriptor());
                frame::copy(&mut fresh.buffer, ink, frame.bytes);
                fresh.write_if_large()?;
            }
            Ok(())
        });
        match result {
            Ok(()) => {
                self.cursors.take_acks().for_each(drop);
                self.state.take_changes().for_each(drop);
                self.cursors.changed = false;
                self.tail_flushed = true;
                if !std::mem::replace(&mut self.stats.tail_works, true) {
                    self.warn(Warning::TailWorks);
                }
            }
            Err(error) if worked || self.stats.tail_works => self.tail_failed(error),
            Err(_) => self.stats.write_errors += 1,
        }
    }

    fn tail_failed(&mut self, error: io::Error) {
        self.stats.write_errors += 1;
        self.stats.tail_works = false;
        self.warn(Warning::TailFailed { path: self.tail.folder().to_owned(), error });
    }
}
