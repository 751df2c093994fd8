//! What was in flight when the last connection was lost is sent again.

use std::ops::Range;

use crate::clock::BootTime;
use crate::config::{PayloadShape, Qos};
use crate::outbox::{Entry, Outbox, Seq};

use super::super::Hub;
use super::super::encode::{Cut, Part};
use super::super::packet;
use super::super::session::{InFlight, Outcome, Resend};
use super::streams::READ_AGAIN;
use super::{Feed, Ids, Output};

/// Records that are read at a time.
const READ_CHUNK: usize = 64;

impl Feed {
    /// Sends again what is due. Gives the time when to go on if something cannot be read from disk at the moment.
    pub(super) fn resend(
        &mut self,
        hub: &Hub,
        outbox: &mut Outbox,
        output: &mut Output,
        now: BootTime,
    ) -> Option<BootTime> {
        while output.has_room() && self.has_slot() {
            let (message, dup) = match self.session.next_resend()? {
                Resend::Release(id) => {
                    packet::put_pubrel(&mut output.buffer, id);
                    self.session.resent();
                    continue;
                }
                Resend::Publish { message, dup } => (message, dup),
            };
            let InFlight { id, ref seqs, shape, qos, backlog } = message;
            if !self.find(outbox, seqs) {
                return Some(now.after(READ_AGAIN));
            }
            let entries = std::mem::take(&mut self.entries);
            let parts = self.parts(hub, outbox, &entries, seqs, shape);
            let cut = Cut { shape, backlog, now: (hub.boot, now) };
            if parts.is_empty() {
                // Dropped or refused since, or lost: only the packet id is still to be settled.
                self.give_up(outbox, id, now);
            } else {
                match self.encode(output, &parts, cut, Ids { qos, id, dup, now }) {
                    Ok(()) => {
                        self.counters.replayed.add(1);
                        self.session.resent();
                        self.use_slot();
                    }
                    // Too large by now, or no longer together: each part is looked at anew. Only where the broker may
                    // hold it at QoS 2 it can be sent again but as a whole.
                    Err(_) if parts.len() > 1 && !(dup && qos == Qos::ExactlyOnce) => {
                        self.counters.possible_duplicates.add(1);
                        let _ = self.session.gone(id, now);
                        self.rewind();
                    }
                    Err(failed) => {
                        self.refuse(outbox, &parts, cut, failed.why, now);
                        self.give_up(outbox, id, now);
                    }
                }
            }
            drop(parts);
            self.entries = entries;
        }
        None
    }

    /// The message of this packet id cannot be sent again.
    pub(super) fn give_up(&mut self, outbox: &mut Outbox, id: u16, now: BootTime) {
        // Where it is to be released, the slot stays, now waiting for PUBCOMP: `resend` comes to it again.
        if let Outcome::Acked(seqs) = self.session.gone(id, now) {
            self.acked(outbox, seqs, 1);
        }
    }

    /// Reads the records that hold these positions into `entries`, as far as they are not acknowledged; `false`: that is
    /// not possible at the moment.
    pub(super) fn find(&mut self, outbox: &mut Outbox, seqs: &Range<Seq>) -> bool {
        let holds = |entries: &[Entry]| {
            entries.first().is_some_and(|first| first.seq <= seqs.start)
                && entries.last().is_some_and(|last| last.seqs().end >= seqs.end)
        };
        if !holds(&self.entries) {
            self.entries.clear();
            let records = usize::try_from(seqs.end - seqs.start).unwrap_or(usize::MAX).max(READ_CHUNK);
            outbox.read(self.cursor, seqs.start, records, &mut self.entries);
        }
        let end = self.entries.last().map_or(seqs.start, |last| last.seqs().end);
        // What could not be read for good counts as acknowledged now.
        outbox.next_unacked(self.cursor, end.max(seqs.start)) >= seqs.end
    }

    /// What a message at these positions consists of: what of them is not acknowledged, as it was when it was sent.
    pub(super) fn parts<'e>(
        &self,
        hub: &Hub,
        outbox: &Outbox,
        entries: &'e [Entry],
        seqs: &Range<Seq>,
        shape: PayloadShape,
    ) -> Vec<Part<'e>> {
        let mut parts: Vec<Part<'e>> = Vec::new();
        let from = entries.partition_point(|entry| entry.seqs().end <= seqs.start);
        for entry in entries[from..].iter().take_while(|entry| entry.seq < seqs.end) {
            let own = entry.seqs();
            let date = hub.dating().date(entry);
            for seq in own.start.max(seqs.start)..own.end.min(seqs.end) {
                if outbox.is_acked(self.cursor, seq) {
                    continue;
                }
                match parts.last_mut() {
                    Some(last) if shape == PayloadShape::Sensor && seq > own.start && last.seqs.end == seq => {
                        last.seqs.end += 1;
                    }
                    _ => parts.push(Part { entry, seqs: seq..seq + 1, date }),
                }
            }
        }
        parts
    }
}
