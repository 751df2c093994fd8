//! The MQTT session: packet ids, the window of unacknowledged messages, replay, and the states of QoS 2.
//!
//! A pure state machine. It does no I/O and reads no clock: packets and time go in; acknowledged positions, packets
//! to write and what must be saved come out. A message is known here by its positions in the outbox alone; for a
//! replay its text is encoded anew.
//!
//! Packet ids are given out one after the other, so that the window is a queue in order of sending, and a packet id
//! is an index into it. An acknowledged slot in the middle stays as a hole until everything before it is done. The
//! queue is never longer than there are packet ids.
//!
//! A broker of MQTT 3.1.1 that does not want a message has but one way to say so: it closes the connection. A message
//! that was in flight at [`MAX_STRIKES`] such ends is suspected; then the window is sent again one message at a time,
//! so that the next end shows which one it was.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use crate::clock::BootTime;
use crate::config::{PayloadShape, Qos};
use crate::outbox::Seq;

use super::packet::{Incoming, Limits, Reason};

mod replay;

pub use replay::Resend;

/// A broker that leaves the oldest message unacknowledged for so long while the link is alive is taken for hung:
/// the connection is made anew, and the message sent again.
pub const ACK_DEADLINE: Duration = Duration::from_secs(60);

/// How many state messages may wait for their acknowledgement, beside the window of the readings.
pub const STATUS_WINDOW: usize = 16;

/// A message that was in flight when the broker closed so many connections is suspected of being the cause.
pub const MAX_STRIKES: u8 = 3;

/// There are so many packet ids (MQTT 3.1.1, 2.3.1: 1 to 65535).
const IDS: usize = 65_535;

/// What the broker still owes for a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// QoS 1: PUBACK.
    Acknowledge,
    /// QoS 2: PUBREC.
    Receive,
    /// QoS 2: PUBCOMP; PUBREL is sent.
    Complete,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) seq: Seq,
    pub(super) count: u32,
    pub(super) shape: PayloadShape,
    pub(super) stage: Stage,
    /// It belongs to the backlog, and is marked so each time that it is sent.
    pub(super) backlog: bool,
    /// How many connections the broker closed while it was in flight. Not stored: a run counts anew.
    pub(super) strikes: u8,
}

impl Reading {
    pub(super) fn new(seq: Seq, count: u32, shape: PayloadShape, stage: Stage, backlog: bool) -> Self {
        Self { seq, count, shape, stage, backlog, strikes: 0 }
    }

    fn seqs(&self) -> Range<Seq> {
        self.seq..self.seq + Seq::from(self.count)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// Acknowledged, but something before it is not.
    Done,
    /// A state message, always at QoS 1; not repeated after a lost connection, because all state is sent anew then.
    Status,
    /// A message with values from the outbox.
    Reading(Reading),
}

/// What a packet from the broker meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// These positions need not be kept any longer.
    Acked(Range<Seq>),
    /// PUBREL is to be written, once the session is saved.
    Release(u16),
    /// The broker refuses the message, which is no longer in flight.
    Refused(InFlight, Reason),
    /// A state message arrived.
    StatusAcked,
    /// The broker refuses a state message.
    StatusRefused(Reason),
    /// Nothing waited for it: an acknowledgement of an unknown packet id, a second one, or one of the wrong kind.
    Ignored,
}

/// A message in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// Packet id.
    pub id: u16,
    /// Its positions in the outbox.
    pub seqs: Range<Seq>,
    /// How it was cut; kept, so that a changed configuration does not change what a packet id stands for.
    pub shape: PayloadShape,
    /// At least 1.
    pub qos: Qos,
    /// It belongs to the backlog.
    pub backlog: bool,
}

/// The session with one broker.
#[derive(Clone, Debug)]
pub struct Session {
    /// How many readings may be in flight.
    limit: usize,
    /// How many messages of any kind the broker takes at a time on this connection (MQTT 5, 4.9).
    quota: usize,
    /// How many of them it has.
    outstanding: usize,
    /// The highest quality of service that it takes.
    max_qos: Qos,
    slots: VecDeque<Slot>,
    /// The packet id of the first slot; of the next message when there is none.
    first_id: u16,
    readings: usize,
    /// How many of the readings belong to the backlog.
    backlogged: usize,
    statuses: usize,
    /// Slots of this index range are still to be sent again.
    resend: Range<usize>,
    /// Did the broker keep the session at the last connect?
    resumed: bool,
    /// What is suspected is sent again one message at a time.
    alone: bool,
    /// Something was acknowledged on this connection: the broker takes messages of ours.
    proven: bool,
    /// Since when the first slot has been waiting on this connection.
    oldest_since: BootTime,
    /// Positions sent at QoS 0, with the count of bytes that must have left for them to count as sent.
    unwritten: VecDeque<(u64, Range<Seq>)>,
    changed: bool,
}

impl Session {
    /// A session without history. `inflight` messages may wait for their acknowledgement.
    #[must_use]
    pub fn new(inflight: u16) -> Self {
        Self::with_slots(inflight, 1, VecDeque::new())
    }

    pub(super) fn with_slots(inflight: u16, first_id: u16, slots: VecDeque<Slot>) -> Self {
        let readings = slots.iter().filter(|slot| matches!(slot, Slot::Reading(_))).count();
        let backlogged = slots.iter().filter(|slot| matches!(slot, Slot::Reading(it) if it.backlog)).count();
        Self {
            limit: usize::from(inflight).clamp(1, IDS - STATUS_WINDOW),
            quota: IDS,
            outstanding: 0,
            max_qos: Qos::ExactlyOnce,
            slots,
            first_id,
            readings,
            backlogged,
            statuses: 0,
            resend: 0..0,
            resumed: false,
            alone: false,
            proven: false,
            oldest_since: BootTime(0),
            unwritten: VecDeque::new(),
            changed: true,
        }
    }

    /// What holds on the connection that is about to be [`connected`](Self::connected): so many readings may be in
    /// flight, and what the broker allows.
    pub fn set_limits(&mut self, inflight: u16, limits: &Limits) {
        self.limit = usize::from(inflight).clamp(1, IDS - STATUS_WINDOW);
        self.quota = usize::from(limits.receive_maximum.max(1));
        self.max_qos = limits.max_qos;
    }

    /// The session without anything in flight: what was is not to be sent again under its packet id.
    #[must_use]
    pub fn emptied(&self) -> Self {
        Self::with_slots(u16::try_from(self.limit).unwrap_or(u16::MAX), self.next_id(), VecDeque::new())
    }

    pub(super) fn slots(&self) -> (u16, &VecDeque<Slot>) {
        (self.first_id, &self.slots)
    }

    /// How many readings may be in flight on this connection.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.min(self.quota)
    }

    /// How many readings of the backlog are in flight.
    #[must_use]
    pub fn backlogged(&self) -> usize {
        self.backlogged
    }

    /// How many readings may be sent now; none before everything old is sent again.
    #[must_use]
    pub fn free(&self) -> usize {
        if self.resend.is_empty() {
            let ids = (IDS - STATUS_WINDOW).saturating_sub(self.slots.len());
            self.limit.saturating_sub(self.readings).min(ids).min(self.quota.saturating_sub(self.outstanding))
        } else {
            0
        }
    }

    /// How many state messages may be sent now.
    #[must_use]
    pub fn free_status(&self) -> usize {
        if self.resend.is_empty() || self.alone {
            let ids = IDS.saturating_sub(self.slots.len());
            STATUS_WINDOW.saturating_sub(self.statuses).min(ids).min(self.quota.saturating_sub(self.outstanding))
        } else {
            0
        }
    }

    /// The packet id of the next message.
    #[must_use]
    pub fn next_id(&self) -> u16 {
        self.id_at(self.slots.len())
    }

    /// The packet id of a packet that is no message, such as SUBSCRIBE; `None`: all are in use. No message gets it
    /// before its turn comes again.
    pub fn spend_id(&mut self) -> Option<u16> {
        let id = (self.slots.len() < IDS).then(|| self.next_id())?;
        self.slots.push_back(Slot::Done);
        self.drop_done();
        Some(id)
    }

    /// A reading was encoded under [`next_id`](Self::next_id), which there must be [room](Self::free) for. It must
    /// not leave before the session is saved.
    pub fn sent(&mut self, seqs: Range<Seq>, shape: PayloadShape, qos: Qos, backlog: bool, now: BootTime) {
        let stage = if qos == Qos::ExactlyOnce { Stage::Receive } else { Stage::Acknowledge };
        let count = u32::try_from(seqs.end - seqs.start).expect("a message holds less than 4 billion values");
        self.push(Slot::Reading(Reading::new(seqs.start, count, shape, stage, backlog)), now);
        self.readings += 1;
        self.backlogged += usize::from(backlog);
        self.outstanding += 1;
        self.changed = true;
    }

    /// A state message was encoded at QoS 1 under [`next_id`](Self::next_id).
    pub fn sent_status(&mut self, now: BootTime) {
        self.push(Slot::Status, now);
        self.statuses += 1;
        self.outstanding += 1;
    }

    /// A reading was encoded at QoS 0; it counts as sent when `bytes` have been written to this connection.
    pub fn queued(&mut self, seqs: Range<Seq>, bytes: u64) {
        match self.unwritten.back_mut() {
            // One write takes many messages: the queue would otherwise be as long as the output buffer.
            Some((end, last)) if *end + MERGE_BYTES > bytes && last.end == seqs.start => {
                *end = bytes;
                last.end = seqs.end;
            }
            _ => self.unwritten.push_back((bytes, seqs)),
        }
    }

    /// So many bytes have been written to this connection: what is thereby acknowledged at QoS 0.
    pub fn written(&mut self, bytes: u64) -> Option<Range<Seq>> {
        let (_, seqs) = self.unwritten.pop_front_if(|(end, _)| *end <= bytes)?;
        Some(seqs)
    }

    /// An acknowledgement came.
    pub fn handle(&mut self, packet: Incoming, now: BootTime) -> Outcome {
        let outcome = self.take(packet, now);
        self.proven |= outcome != Outcome::Ignored;
        outcome
    }

    fn take(&mut self, packet: Incoming, now: BootTime) -> Outcome {
        match packet {
            Incoming::PubAck(id, reason) => {
                let Some(index) = self.index_of(id) else { return Outcome::Ignored };
                match &self.slots[index] {
                    Slot::Status => {
                        self.slots[index] = Slot::Done;
                        self.statuses -= 1;
                        self.outstanding = self.outstanding.saturating_sub(1);
                        self.advance(now);
                        if reason.is_refusal() { Outcome::StatusRefused(reason) } else { Outcome::StatusAcked }
                    }
                    Slot::Reading(reading) if reading.stage == Stage::Acknowledge => self.answered(index, reason, now),
                    Slot::Reading(_) | Slot::Done => Outcome::Ignored,
                }
            }
            Incoming::PubRec(id, reason) => match self.reading(id) {
                // A refusal ends the exchange, and frees the packet id (MQTT 5, 4.3.3).
                Some((index, reading)) if reading.stage == Stage::Receive && reason.is_refusal() => {
                    self.answered(index, reason, now)
                }
                Some((_, reading)) if reading.stage == Stage::Receive => {
                    reading.stage = Stage::Complete;
                    self.changed = true;
                    Outcome::Release(id)
                }
                // It came twice: PUBREL is harmless, and the broker waits for it.
                Some((_, reading)) if reading.stage == Stage::Complete => Outcome::Release(id),
                _ => Outcome::Ignored,
            },
            // With whatever reason: one that does not know the packet id has nothing to release (MQTT 5, 3.7.2.1).
            Incoming::PubComp(id, _) => match self.reading(id) {
                Some((index, reading)) if reading.stage == Stage::Complete => self.done(index, now),
                _ => Outcome::Ignored,
            },
            _ => Outcome::Ignored,
        }
    }

    /// Does a reading or a state message wait for its acknowledgement?
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.readings + self.statuses > 0 || !self.unwritten.is_empty()
    }

    /// Does a state message wait for its acknowledgement?
    #[must_use]
    pub fn is_status_waiting(&self) -> bool {
        self.statuses > 0
    }

    /// How many readings wait for their acknowledgement.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.readings
    }

    /// When the broker counts as hung, unless it acknowledges something before; `None` if nothing waits.
    #[must_use]
    pub fn ack_due(&self) -> Option<BootTime> {
        (self.readings + self.statuses > 0).then(|| self.oldest_since.after(ACK_DEADLINE))
    }

    /// The positions between the first and the last that are in flight, below `live_from` and from there on; empty if
    /// none is.
    #[must_use]
    pub fn spans(&self, live_from: Seq) -> [Range<Seq>; 2] {
        let mut spans = [0..0, 0..0];
        for seqs in self.readings_in_flight().chain(self.unwritten_seqs().cloned()) {
            let span = &mut spans[usize::from(seqs.start >= live_from)];
            *span = if span.start == span.end { seqs } else { span.start.min(seqs.start)..span.end.max(seqs.end) };
        }
        spans
    }

    /// The positions of every reading in flight at QoS 1 and 2, in order of sending.
    pub fn readings_in_flight(&self) -> impl Iterator<Item = Range<Seq>> + '_ {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Reading(reading) => Some(reading.seqs()),
            Slot::Done | Slot::Status => None,
        })
    }

    fn unwritten_seqs(&self) -> impl Iterator<Item = &Range<Seq>> {
        self.unwritten.iter().map(|(_, seqs)| seqs)
    }

    /// Has anything changed since the last call that must survive? Then the session is to be saved before the next
    /// packet leaves.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn push(&mut self, slot: Slot, now: BootTime) {
        debug_assert!(self.slots.len() < IDS && (self.resend.is_empty() || self.alone));
        if self.slots.is_empty() {
            self.oldest_since = now;
        }
        self.slots.push_back(slot);
    }

    fn done(&mut self, index: usize, now: BootTime) -> Outcome {
        let Slot::Reading(reading) = std::mem::replace(&mut self.slots[index], Slot::Done) else {
            return Outcome::Ignored;
        };
        self.readings -= 1;
        self.backlogged -= usize::from(reading.backlog);
        if !self.resend.contains(&index) {
            self.outstanding = self.outstanding.saturating_sub(1);
        }
        self.changed = true;
        self.advance(now);
        Outcome::Acked(reading.seqs())
    }

    /// The broker took the message in this slot, or refused it.
    fn answered(&mut self, index: usize, reason: Reason, now: BootTime) -> Outcome {
        let message = self.in_flight_at(index);
        let acked = self.done(index, now);
        match message.filter(|_| reason.is_refusal()) {
            Some(message) => Outcome::Refused(message, reason),
            None => acked,
        }
    }

    fn advance(&mut self, now: BootTime) {
        if self.drop_done() {
            self.oldest_since = now;
        }
    }

    /// Lets go of what is done at the front; says whether there was something.
    fn drop_done(&mut self) -> bool {
        let mut dropped = 0;
        while self.slots.front() == Some(&Slot::Done) {
            self.slots.pop_front();
            dropped += 1;
        }
        self.first_id = id_after(self.first_id, dropped);
        self.resend = self.resend.start.saturating_sub(dropped)..self.resend.end.saturating_sub(dropped);
        dropped > 0
    }

    fn id_at(&self, index: usize) -> u16 {
        id_after(self.first_id, index)
    }

    fn index_of(&self, id: u16) -> Option<usize> {
        let index = (usize::from(id).checked_sub(1)? + IDS - (usize::from(self.first_id) - 1)) % IDS;
        (index < self.slots.len()).then_some(index)
    }

    fn reading(&mut self, id: u16) -> Option<(usize, &mut Reading)> {
        let index = self.index_of(id)?;
        match &mut self.slots[index] {
            Slot::Reading(reading) => Some((index, reading)),
            Slot::Done | Slot::Status => None,
        }
    }
}

/// Messages at QoS 0 are told apart only every so many bytes.
const MERGE_BYTES: u64 = 4_096;

/// The packet id `count` after `id`: 1 comes after 65535.
pub(super) fn id_after(id: u16, count: usize) -> u16 {
    u16::try_from((usize::from(id) - 1 + count) % IDS + 1).expect("at most 65535")
}

#[cfg(test)]
mod tests;
