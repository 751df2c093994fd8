//! What was in flight when the last connection was lost is sent again.

use crate::clock::BootTime;
use crate::outbox::{Outbox, Seq};

use super::super::Hub;
use super::super::encode::Part;
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
        while output.has_room() {
            let (message, dup) = match self.session.next_resend()? {
                Resend::Release(id) => {
                    packet::put_pubrel(&mut output.buffer, id);
                    self.session.resent();
                    continue;
                }
                Resend::Publish { message, dup } => (message, dup),
            };
            // Dropped or refused since: only the packet id is still to be settled.
            if outbox.is_acked(self.cursor, message.seqs.start) {
                self.give_up(outbox, message.id, now);
                continue;
            }
            let Some(index) = self.find(outbox, message.seqs.start) else {
                // What could not be read for good counts as acknowledged now.
                if outbox.is_acked(self.cursor, message.seqs.start) {
                    continue;
                }
                return Some(now.after(READ_AGAIN));
            };
            let InFlight { id, seqs, shape, qos, backlog } = message;
            let entries = std::mem::take(&mut self.entries);
            let date = hub.dating().date(&entries[index]);
            let part = Part { seqs, shape, date, backlog };
            match self.encode(output, &entries[index], &part, Ids { qos, id, dup, now }) {
                Ok(()) => {
                    self.counters.replayed.add(1);
                    self.session.resent();
                }
                Err(why) => {
                    self.refuse(outbox, &entries[index], &part, why, now);
                    self.give_up(outbox, id, now);
                }
            }
            self.entries = entries;
        }
        None
    }

    /// The message of this packet id cannot be sent again.
    pub(super) fn give_up(&mut self, outbox: &mut Outbox, id: u16, now: BootTime) {
        // Where it is to be released, the slot stays, now waiting for PUBCOMP: `resend` comes to it again.
        if let Outcome::Acked(seqs) = self.session.gone(id, now) {
            self.acked(outbox, seqs);
        }
    }

    /// The index in `entries` of the record with this position; they are read if need be.
    pub(super) fn find(&mut self, outbox: &mut Outbox, seq: Seq) -> Option<usize> {
        let look = |entries: &[super::Entry]| {
            let index = entries.partition_point(|entry| entry.seqs().end <= seq);
            entries.get(index).is_some_and(|entry| entry.seqs().contains(&seq)).then_some(index)
        };
        look(&self.entries).or_else(|| {
            self.entries.clear();
            outbox.read(self.cursor, seq, READ_CHUNK, &mut self.entries);
            look(&self.entries)
        })
    }
}
