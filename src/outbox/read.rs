//! Reading: from memory, else from the segments.

use super::frame::Kind;
use super::log::ReadFailure;
use super::segment::Next;
use super::stats::Warning;
use super::{CursorId, Entry, Outbox, Seq, record};

impl Outbox {
    /// Unacknowledged entries of a cursor with a position >= `from`, in order, from memory or disk, at most `max`.
    ///
    /// An entry of which some positions are acknowledged is given whole (ask [`is_acked`](Self::is_acked)). Fewer
    /// than `max` do not mean that there are no more if a segment cannot be read at the moment; none do.
    pub fn read(&mut self, cursor: CursorId, from: Seq, max: usize, out: &mut Vec<Entry>) {
        let goal = out.len().saturating_add(max);
        let mut from = from;
        while out.len() < goal {
            let start = out.len();
            self.read_all(cursor, from, goal - start, out);
            let Some(last) = out[start..].last() else { return };
            from = last.seqs().end;
            if !self.pass_over(cursor, start, out) {
                return;
            }
        }
    }

    /// As [`read`](Self::read), with what was dropped by hand.
    fn read_all(&mut self, cursor: CursorId, from: Seq, max: usize, out: &mut Vec<Entry>) {
        let goal = out.len().saturating_add(max);
        let mut from = from;
        while out.len() < goal {
            let Some(acked) = self.cursors.get(cursor).map(|cursor| &cursor.acked) else { return };
            from = acked.next_missing(from);
            if from >= self.committed {
                return;
            }
            from = if self.memory.first().is_some_and(|first| first <= from) {
                self.read_memory(cursor, from, goal, out)
            } else if let Some(index) = self.log.segment_of(from) {
                match self.read_segment(cursor, index, from, goal, out) {
                    Some(next) => next,
                    None => return,
                }
            } else {
                let next = self.log.segments.iter().map(|segment| segment.first).find(|first| *first > from);
                let next = next.into_iter().chain(self.memory.first()).min().unwrap_or(self.committed);
                self.lose(from..next.min(self.committed));
                next
            };
        }
    }

    /// Reads from memory; gives the position where to go on.
    fn read_memory(&mut self, id: CursorId, from: Seq, goal: usize, out: &mut Vec<Entry>) -> Seq {
        let Some(cursor) = self.cursors.get(id) else { return self.committed };
        let (acked, mut hint) = (&cursor.acked, cursor.hint);
        let mut next = from;
        let mut gaps = Vec::new();
        self.memory.visit_from(from, &mut hint, |frame| {
            let seqs = frame.seqs();
            if seqs.end > self.committed {
                return false;
            }
            let missing = acked.next_missing(next);
            if missing < seqs.start {
                gaps.push(missing..seqs.start);
            }
            next = seqs.end;
            if acked.next_missing(seqs.start) >= seqs.end {
                return true;
            }
            let entry = match frame.kind {
                Kind::Raw => record::raw(&frame.head, frame.rest, &self.dictionary),
                _ => record::reading(&frame.head, frame.rest, &self.dictionary),
            };
            out.push(entry.expect("memory holds what append wrote, and the dictionary what it refers to"));
            out.len() < goal
        });
        if out.len() < goal {
            gaps.push(next..self.committed);
            next = self.committed;
        }
        if let Some(cursor) = self.cursors.get_mut(id) {
            cursor.hint = hint;
        }
        for gap in gaps {
            self.lose(gap);
        }
        next
    }

    /// Reads from a segment; gives the position where to go on, `None` if that is not possible now.
    fn read_segment(
        &mut self,
        cursor: CursorId,
        index: usize,
        from: Seq,
        goal: usize,
        out: &mut Vec<Entry>,
    ) -> Option<Seq> {
        let mut from = from;
        let end = self.log.segments[index].end;
        while out.len() < goal {
            from = self.cursors.get(cursor)?.acked.next_missing(from);
            if from >= end {
                return Some(from);
            }
            let Some(entry) = self.try_next_on_disk(index, from)? else {
                self.lose(from..end);
                return Some(end);
            };
            let seqs = entry.seqs();
            if from < seqs.start {
                self.lose(from..seqs.start);
            }
            if self.cursors.get(cursor)?.acked.next_missing(seqs.start) < seqs.end {
                out.push(entry);
            }
            from = seqs.end;
        }
        Some(from)
    }

    /// The next record of a segment that ends after `from`; `None`: there is none that can be read.
    pub(super) fn next_on_disk(&mut self, index: usize, from: Seq) -> Option<Entry> {
        // A caller that cannot wait takes what cannot be read now for lost.
        self.try_next_on_disk(index, from).flatten()
    }

    /// As [`next_on_disk`](Self::next_on_disk); the outer `None`: it may work the next time.
    fn try_next_on_disk(&mut self, index: usize, from: Seq) -> Option<Option<Entry>> {
        let segment = self.log.segments[index].clone();
        loop {
            let next = match self.log.reader(index, from) {
                Ok(reader) => reader.next(&segment, from).map_err(|error| self.log.read_failed(index, error)),
                Err(failure) => Err(failure),
            };
            match next {
                Ok(Next::Entry(entry)) => return Some(Some(entry)),
                Ok(Next::End) => return Some(None),
                Ok(Next::Damage) => self.note_damage(index),
                Err(ReadFailure::Lost) => {
                    self.note_damage(index);
                    return Some(None);
                }
                Err(ReadFailure::Again(error)) => {
                    self.stats.read_errors += 1;
                    let path = segment.path(&self.settings.dir);
                    self.warn(Warning::ReadFailed { path, error });
                    return None;
                }
            }
        }
    }

    fn note_damage(&mut self, index: usize) {
        self.stats.damage += 1;
        if let Some(path) = self.log.note_damage(index) {
            let folder = self.log.damaged_folder();
            self.warn(Warning::Damaged { path, folder });
        }
    }
}
