//! `backlog = "latest"`: of the backlog only the newest value of each topic is sent.

use std::collections::HashMap;
use std::ops::Range;

use crate::outbox::{CursorId, Entry, Outbox, Seq};

use super::super::encode::Encoder;
use super::selection::Selector;

/// Topics that are told apart. Of further ones, every value is sent.
const MAX_TOPICS: usize = 4_096;

/// Records that are looked at in one go.
const CHUNK: usize = 512;

/// A search through the backlog for the newest value of each topic.
#[derive(Debug, Default)]
pub(super) struct Latest {
    /// Everything below it has been looked at.
    next: Seq,
    newest: HashMap<Box<str>, Range<Seq>>,
    /// Values on topics beyond [`MAX_TOPICS`].
    others: Vec<Range<Seq>>,
    entries: Vec<Entry>,
}

impl Latest {
    /// Looks at the next records below `end`; says whether that was all of them.
    pub(super) fn search(
        &mut self,
        outbox: &mut Outbox,
        cursor: CursorId,
        end: Seq,
        encoder: &mut Encoder,
        selector: &Selector,
    ) -> bool {
        self.entries.clear();
        outbox.read(cursor, self.next, CHUNK, &mut self.entries);
        let Some(last) = self.entries.last() else {
            // What cannot be read at the moment stays in the backlog, all of it.
            if outbox.next_unacked(cursor, self.next) >= end {
                self.next = end;
            }
            return true;
        };
        self.next = last.seqs().end.min(end);
        for entry in self.entries.iter().filter(|entry| entry.seq < end && selector.admits(entry)) {
            encoder.topics(entry, |topic, seqs| {
                if let Some(newest) = self.newest.get_mut(topic) {
                    *newest = seqs;
                } else if self.newest.len() < MAX_TOPICS {
                    self.newest.insert(topic.into(), seqs);
                } else if self.others.last().is_some_and(|last| last.end == seqs.start) {
                    self.others.last_mut().expect("there is one").end = seqs.end;
                } else {
                    self.others.push(seqs);
                }
            });
        }
        self.next >= end
    }

    /// Acknowledges everything that was looked at and is neither the newest of its topic nor in flight; gives the number
    /// of positions that are thereby passed over.
    pub(super) fn keep_only(mut self, outbox: &mut Outbox, cursor: CursorId, in_flight: &[Range<Seq>]) -> u64 {
        let end = self.next;
        let mut kept: Vec<Range<Seq>> = self.newest.drain().map(|(_, seqs)| seqs).collect();
        kept.append(&mut self.others);
        kept.extend(in_flight.iter().cloned());
        kept.push(end..end);
        kept.sort_by_key(|seqs| seqs.start);
        let before = outbox.backlog(cursor);
        let mut from = 0;
        for seqs in kept {
            if from < seqs.start.min(end) {
                outbox.ack(cursor, from..seqs.start.min(end));
            }
            from = from.max(seqs.end);
        }
        before - outbox.backlog(cursor)
    }
}
