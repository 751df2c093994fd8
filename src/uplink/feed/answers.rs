//! What the broker answers, and what of the outbox is done with by that.

use std::ops::Range;

use crate::clock::BootTime;
use crate::outbox::{Outbox, Seq};

use super::super::Failure;
use super::super::packet::{self, Incoming, Reason};
use super::super::session::Outcome;
use super::{Feed, Output};

impl Feed {
    /// A packet came.
    ///
    /// # Errors
    /// It has no business on an established connection.
    pub fn received(
        &mut self,
        outbox: &mut Outbox,
        output: &mut Output,
        packet: Incoming,
        now: BootTime,
    ) -> Result<(), Failure> {
        match packet {
            Incoming::PubAck(_, reason) | Incoming::PubRec(_, reason)
                if reason.is(&Reason::PACKET_IDENTIFIER_IN_USE) =>
            {
                // The message is not to blame: the sessions at both ends are not each other's (MQTT 5, table 2-6).
                // The broker is made to forget its own.
                self.known = false;
                self.dirty = true;
                return Err(Failure::IdInUse);
            }
            Incoming::PubAck(id, _) | Incoming::PubRec(id, _) | Incoming::PubComp(id, _) => {
                self.pace.acknowledged(id, self.session.limit(), now);
                match self.session.handle(packet, now) {
                    Outcome::Acked(seqs) => {
                        self.pause.over();
                        self.counters.acknowledged.add(1);
                        self.acked(outbox, seqs, 1);
                    }
                    Outcome::Release(id) => packet::put_pubrel(&mut output.buffer, id),
                    Outcome::Refused(message, reason) => self.answers.push((message, reason)),
                    Outcome::StatusRefused(reason) => {
                        tracing::warn!(uplink = self.uplink, "the broker refuses a message of state: {reason}");
                    }
                    Outcome::StatusAcked => {}
                    Outcome::Ignored => self.counters.unexpected.add(1),
                }
            }
            Incoming::Publish(message) => self.message(outbox, output, &message, now)?,
            Incoming::SubAck(id, codes) => {
                self.news = self.subscriptions.answered(id, &codes)?.or(self.news.take());
            }
            Incoming::UnsubAck(id) => self.subscriptions.left(id)?,
            Incoming::PubRel(id) => packet::put_pubcomp(&mut output.buffer, id),
            Incoming::PingResp => self.subscriptions.ponged(),
            Incoming::Disconnect(reason) => return Err(Failure::Disconnected(reason)),
            Incoming::ConnAck(_) | Incoming::Unexpected => return Err(Failure::OutOfPlace),
        }
        Ok(())
    }

    /// So much of the output was written.
    pub fn wrote(&mut self, outbox: &mut Outbox, output: &mut Output, bytes: usize) {
        output.wrote(bytes);
        while let Some(seqs) = self.session.written(output.written) {
            let messages = seqs.end - seqs.start;
            self.counters.acknowledged.add(messages);
            self.acked(outbox, seqs, usize::try_from(messages).unwrap_or(usize::MAX));
        }
    }

    /// Nobody need send these positions any more, for which so many messages were sent.
    pub(super) fn acked(&mut self, outbox: &mut Outbox, seqs: Range<Seq>, messages: usize) {
        if self.acked.end == seqs.start {
            self.acked.end = seqs.end;
        } else {
            self.tell_acked(outbox);
            self.acked = seqs;
        }
        self.acked_messages += messages;
    }

    pub(super) fn tell_acked(&mut self, outbox: &mut Outbox) {
        if !self.acked.is_empty() {
            let (before, messages) = (outbox.acks_noted(), std::mem::take(&mut self.acked_messages));
            outbox.ack(self.cursor, std::mem::replace(&mut self.acked, 0..0));
            if outbox.acks_noted() != before {
                self.unsure.acknowledged(outbox, messages, self.session.limit());
            }
            self.dirty = true;
        }
    }
}
