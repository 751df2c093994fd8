//! What becomes of messages in flight when their connection is lost: they are sent again, or given up.

use crate::clock::BootTime;
use crate::config::Qos;
use crate::outbox::Seq;

use super::{InFlight, MAX_STRIKES, Outcome, Reading, Session, Slot, Stage};

/// A message that is to be sent again after a lost connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resend {
    /// PUBLISH.
    Publish {
        /// The message.
        message: InFlight,
        /// The broker kept the session, so that it may know the message by this packet id.
        dup: bool,
    },
    /// PUBREL.
    Release(u16),
}

impl Session {
    /// The broker accepted the connection. Returns how many messages it may get twice, because it no longer knows
    /// them: those that were in flight when it had no session any more. Of these, what lies below `live_from` belongs to
    /// the backlog from now on; the others stay what they were sent as.
    pub fn connected(&mut self, session_present: bool, live_from: Seq, now: BootTime) -> u64 {
        self.resumed = session_present;
        self.oldest_since = now;
        self.proven = false;
        self.alone = self.slots.iter().any(|slot| matches!(slot, Slot::Reading(it) if it.strikes >= MAX_STRIKES));
        self.outstanding = 0;
        let mut possible_duplicates = 0;
        if !session_present && self.readings > 0 {
            // Fresh packet ids, in the order of sending; what was released at QoS 2 starts over too.
            self.first_id = self.next_id();
            self.slots.retain(|slot| matches!(slot, Slot::Reading(_)));
            for slot in &mut self.slots {
                let Slot::Reading(reading) = slot else { continue };
                if reading.stage == Stage::Complete {
                    reading.stage = Stage::Receive;
                }
                if reading.seq < live_from && !reading.backlog {
                    reading.backlog = true;
                    self.backlogged += 1;
                }
            }
            possible_duplicates = self.readings as u64;
            self.changed = true;
        }
        if self.max_qos < Qos::ExactlyOnce {
            for slot in &mut self.slots {
                if let Slot::Reading(reading) = slot
                    && reading.stage == Stage::Receive
                {
                    reading.stage = Stage::Acknowledge;
                    self.changed = true;
                }
            }
        }
        self.resend = 0..self.slots.len();
        possible_duplicates
    }

    /// The connection is gone. `closed`: the broker closed it and gave no other reason, so that a message may be the
    /// cause. Gives that message when it is known: it was sent alone, to a broker that takes others.
    pub fn disconnected(&mut self, closed: bool) -> Option<InFlight> {
        let mut culprit = None;
        if closed {
            for index in (0..self.slots.len()).filter(|index| !self.resend.contains(index)) {
                let Slot::Reading(reading) = &mut self.slots[index] else { continue };
                reading.strikes = reading.strikes.saturating_add(1);
                if self.alone && self.proven && reading.stage != Stage::Complete {
                    culprit = self.in_flight_at(index);
                }
            }
        }
        self.alone = false;
        self.unwritten.clear();
        for slot in &mut self.slots {
            if *slot == Slot::Status {
                *slot = Slot::Done;
            }
        }
        self.statuses = 0;
        self.outstanding = 0;
        self.resend = 0..0;
        self.drop_done();
        culprit
    }

    /// The next message to send again, in the order in which they were sent first; the same one until
    /// [`resent`](Self::resent) is called. While a message is suspected, each waits for the acknowledgement of the one
    /// before, and all for a sign that the broker takes messages at all. `None` also while the broker takes no more.
    pub fn next_resend(&mut self) -> Option<Resend> {
        while !self.resend.is_empty() && self.outstanding < self.quota {
            let index = self.resend.start;
            if let Slot::Reading(reading) = &self.slots[index] {
                if self.alone && (!self.proven || self.is_any_reading_below(index)) {
                    return None;
                }
                if reading.stage == Stage::Complete {
                    return Some(Resend::Release(self.id_at(index)));
                }
                let dup = self.resumed;
                return self.in_flight_at(index).map(|message| Resend::Publish { message, dup });
            }
            self.resend.next();
        }
        None
    }

    fn is_any_reading_below(&self, index: usize) -> bool {
        self.slots.range(..index).any(|slot| matches!(slot, Slot::Reading(_)))
    }

    pub(super) fn in_flight_at(&self, index: usize) -> Option<InFlight> {
        let Slot::Reading(reading) = self.slots.get(index)? else { return None };
        let qos = if reading.stage == Stage::Acknowledge { Qos::AtLeastOnce } else { Qos::ExactlyOnce };
        let Reading { shape, backlog, .. } = *reading;
        Some(InFlight { id: self.id_at(index), seqs: reading.seqs(), shape, qos, backlog })
    }

    /// Is the window sent again one message at a time? Then the state is sent before it, as a test of the broker.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.alone && !self.resend.is_empty()
    }

    /// What [`next_resend`](Self::next_resend) gave was sent.
    pub fn resent(&mut self) {
        self.resend.next();
        self.outstanding += 1;
    }

    /// The outbox no longer has the message of a [`Resend::Publish`]. At QoS 1 it is done with; at QoS 2 the broker
    /// may hold the packet id, so that it must be released before it is used again.
    pub fn gone(&mut self, id: u16, now: BootTime) -> Outcome {
        let resumed = self.resumed;
        match self.reading(id) {
            Some((_, reading)) if reading.stage == Stage::Receive && resumed => {
                reading.stage = Stage::Complete;
                self.changed = true;
                Outcome::Release(id)
            }
            Some((index, _)) => self.done(index, now),
            None => Outcome::Ignored,
        }
    }
}
