//! The MQTT session: packet ids, the window of unacknowledged messages, replay, and the states of QoS 2.
//!
//! A pure state machine. It does no I/O and reads no clock: packets and time go in; acknowledged positions, packets
//! to write and what must be saved come out. A message is known here by its positions in the outbox alone; for a
//! replay its text is encoded anew.
//!
//! Packet ids are given out one after the other, so that the window is a queue in order of sending, and a packet id
//! is an index into it. An acknowledged slot in the middle stays as a hole until everything before it is done. The
//! queue is never longer than there are packet ids.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use crate::clock::BootTime;
use crate::config::{PayloadShape, Qos};
use crate::outbox::Seq;

use super::packet::{Incoming, Limits, Reason};

/// A broker that leaves the oldest message unacknowledged for so long while the link is alive is taken for hung:
/// the connection is made anew, and the message sent again.
pub const ACK_DEADLINE: Duration = Duration::from_secs(60);

/// How many state messages may wait for their acknowledgement, beside the window of the readings.
pub const STATUS_WINDOW: usize = 16;

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
}

impl Reading {
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
    /// The broker refuses the message at these positions for good.
    Refused(Range<Seq>, Reason),
    /// A state message arrived.
    StatusAcked,
    /// The broker refuses a state message.
    StatusRefused(Reason),
    /// Nothing waited for it: an acknowledgement of an unknown packet id, a second one, or one of the wrong kind.
    Ignored,
}

impl Outcome {
    fn unless_refused(self, reason: Reason) -> Self {
        match self {
            Self::Acked(seqs) if reason.is_refusal() => Self::Refused(seqs, reason),
            other => other,
        }
    }
}

/// A message that is to be sent again after a lost connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resend {
    /// PUBLISH.
    Publish {
        /// Packet id.
        id: u16,
        /// Its positions in the outbox.
        seqs: Range<Seq>,
        /// How it was cut; kept, so that a changed configuration does not change what a packet id stands for.
        shape: PayloadShape,
        /// At least 1.
        qos: Qos,
        /// The broker kept the session, so that it may know the message by this packet id.
        dup: bool,
    },
    /// PUBREL.
    Release(u16),
}

/// The session with one broker.
#[derive(Clone, Debug)]
pub struct Session {
    /// How many readings may be in flight.
    limit: usize,
    /// How many messages of any kind the broker takes at a time on this connection (MQTT 5, 4.9).
    quota: usize,
    /// The highest quality of service that it takes.
    max_qos: Qos,
    /// How many of them it has.
    outstanding: usize,
    slots: VecDeque<Slot>,
    /// The packet id of the first slot; of the next message when there is none.
    first_id: u16,
    readings: usize,
    statuses: usize,
    /// Slots of this index range are still to be sent again.
    resend: Range<usize>,
    /// Did the broker keep the session at the last connect?
    resumed: bool,
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
        Self {
            limit: usize::from(inflight).clamp(1, IDS - STATUS_WINDOW),
            quota: IDS,
            max_qos: Qos::ExactlyOnce,
            outstanding: 0,
            slots,
            first_id,
            readings,
            statuses: 0,
            resend: 0..0,
            resumed: false,
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

    /// The broker accepted the connection. Returns how many messages it may get twice, because it no longer knows
    /// them: those that were in flight when it had no session any more.
    pub fn connected(&mut self, session_present: bool, now: BootTime) -> u64 {
        self.resumed = session_present;
        self.oldest_since = now;
        self.outstanding = 0;
        let mut possible_duplicates = 0;
        if !session_present && self.readings > 0 {
            // Fresh packet ids, in the order of sending; what was released at QoS 2 starts over too.
            self.first_id = self.next_id();
            self.slots.retain(|slot| matches!(slot, Slot::Reading(_)));
            for slot in &mut self.slots {
                if let Slot::Reading(reading) = slot
                    && reading.stage == Stage::Complete
                {
                    reading.stage = Stage::Receive;
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

    /// The connection is gone.
    pub fn disconnected(&mut self) {
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
    }

    /// The next message to send again, in the order in which they were sent first; the same one until
    /// [`resent`](Self::resent) is called. `None` also while the broker takes no more.
    pub fn next_resend(&mut self) -> Option<Resend> {
        while !self.resend.is_empty() && self.outstanding < self.quota {
            let index = self.resend.start;
            if let Slot::Reading(reading) = &self.slots[index] {
                let id = self.id_at(index);
                let qos = match reading.stage {
                    Stage::Acknowledge => Qos::AtLeastOnce,
                    Stage::Receive => Qos::ExactlyOnce,
                    Stage::Complete => return Some(Resend::Release(id)),
                };
                let (seqs, shape) = (reading.seqs(), reading.shape);
                return Some(Resend::Publish { id, seqs, shape, qos, dup: self.resumed });
            }
            self.resend.next();
        }
        None
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
        if self.resend.is_empty() {
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

    /// A reading was encoded under [`next_id`](Self::next_id), which there must be [room](Self::free) for. It must
    /// not leave before the session is saved.
    pub fn sent(&mut self, seqs: Range<Seq>, shape: PayloadShape, qos: Qos, now: BootTime) {
        let stage = if qos == Qos::ExactlyOnce { Stage::Receive } else { Stage::Acknowledge };
        let count = u32::try_from(seqs.end - seqs.start).expect("a message holds less than 4 billion values");
        self.push(Slot::Reading(Reading { seq: seqs.start, count, shape, stage }), now);
        self.readings += 1;
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
                    Slot::Reading(reading) if reading.stage == Stage::Acknowledge => {
                        self.done(index, now).unless_refused(reason)
                    }
                    Slot::Reading(_) | Slot::Done => Outcome::Ignored,
                }
            }
            Incoming::PubRec(id, reason) => match self.reading(id) {
                // A refusal ends the exchange, and frees the packet id (MQTT 5, 4.3.3).
                Some((index, reading)) if reading.stage == Stage::Receive && reason.is_refusal() => {
                    self.done(index, now).unless_refused(reason)
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

    /// The positions between the first and the last that are in flight; empty if none is.
    #[must_use]
    pub fn span(&self) -> Range<Seq> {
        let start =
            self.readings_in_flight().map(|seqs| seqs.start).chain(self.unwritten_seqs().map(|s| s.start)).min();
        let end = self.readings_in_flight().map(|seqs| seqs.end).chain(self.unwritten_seqs().map(|s| s.end)).max();
        start.unwrap_or_default()..end.unwrap_or_default()
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
        debug_assert!(self.slots.len() < IDS && self.resend.is_empty());
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
        if !self.resend.contains(&index) {
            self.outstanding = self.outstanding.saturating_sub(1);
        }
        self.changed = true;
        self.advance(now);
        Outcome::Acked(reading.seqs())
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
mod tests {
    use super::*;

    const NOW: BootTime = BootTime(0);

    fn publish(session: &mut Session, seq: Seq, qos: Qos) -> u16 {
        let id = session.next_id();
        session.sent(seq..seq + 1, PayloadShape::Quantity, qos, NOW);
        id
    }

    fn resends(session: &mut Session) -> Vec<Resend> {
        std::iter::from_fn(|| session.next_resend().inspect(|_| session.resent())).collect()
    }

    #[test]
    fn a_puback_frees_its_place() {
        let mut session = Session::new(2);
        let first = publish(&mut session, 10, Qos::AtLeastOnce);
        let second = publish(&mut session, 11, Qos::AtLeastOnce);
        assert_eq!((first, second, session.free()), (1, 2, 0));
        assert_eq!(session.handle(Incoming::PubAck(2, Reason::SUCCESS), NOW), Outcome::Acked(11..12));
        assert_eq!((session.free(), session.span()), (1, 10..11));
        assert_eq!(session.handle(Incoming::PubAck(2, Reason::SUCCESS), NOW), Outcome::Ignored, "the second of two");
        assert_eq!(session.handle(Incoming::PubAck(9, Reason::SUCCESS), NOW), Outcome::Ignored, "an unknown one");
        assert_eq!(session.handle(Incoming::PubAck(0, Reason::SUCCESS), NOW), Outcome::Ignored, "no id at all");
        assert_eq!(session.handle(Incoming::PubAck(1, Reason::SUCCESS), NOW), Outcome::Acked(10..11));
        assert!(!session.is_waiting());
        assert_eq!(session.next_id(), 3, "an id is not used again at once");
    }

    #[test]
    fn qos_2_takes_three_steps() {
        let mut session = Session::new(2);
        let id = publish(&mut session, 10, Qos::ExactlyOnce);
        assert_eq!(session.handle(Incoming::PubAck(id, Reason::SUCCESS), NOW), Outcome::Ignored);
        assert_eq!(session.handle(Incoming::PubComp(id, Reason::SUCCESS), NOW), Outcome::Ignored);
        assert_eq!(session.handle(Incoming::PubRec(id, Reason::SUCCESS), NOW), Outcome::Release(id));
        assert_eq!(session.handle(Incoming::PubRec(id, Reason::SUCCESS), NOW), Outcome::Release(id), "PUBREC twice");
        session.disconnected();
        session.connected(true, NOW);
        assert_eq!(resends(&mut session), [Resend::Release(id)]);
        assert_eq!(session.handle(Incoming::PubComp(id, Reason::SUCCESS), NOW), Outcome::Acked(10..11));
        assert_eq!(session.handle(Incoming::PubComp(id, Reason::SUCCESS), NOW), Outcome::Ignored);
    }

    #[test]
    fn a_kept_session_gets_the_same_ids_in_order() {
        let mut session = Session::new(4);
        for seq in 10..13 {
            publish(&mut session, seq, Qos::AtLeastOnce);
        }
        session.handle(Incoming::PubAck(2, Reason::SUCCESS), NOW);
        session.disconnected();
        assert_eq!(session.connected(true, NOW), 0);
        assert_eq!((session.free(), session.free_status()), (0, 0), "the old comes first");
        let again = |id, seq| Resend::Publish {
            id,
            seqs: seq..seq + 1,
            shape: PayloadShape::Quantity,
            qos: Qos::AtLeastOnce,
            dup: true,
        };
        assert_eq!(resends(&mut session), [again(1, 10), again(3, 12)]);
        assert_eq!(session.free(), 2);
    }

    #[test]
    fn a_lost_session_gets_the_window_under_fresh_ids() {
        let mut session = Session::new(4);
        let old: Vec<u16> = (10..13).map(|seq| publish(&mut session, seq, Qos::ExactlyOnce)).collect();
        session.handle(Incoming::PubRec(old[0], Reason::SUCCESS), NOW);
        session.disconnected();
        assert_eq!(session.connected(false, NOW), 3);
        let again = resends(&mut session);
        assert_eq!(again.len(), 3);
        for (resend, seq) in again.iter().zip(10..) {
            let Resend::Publish { id, seqs, dup, .. } = resend else { panic!("{resend:?}") };
            assert!(!old.contains(id) && *seqs == (seq..seq + 1) && !dup, "{resend:?}");
        }
    }

    #[test]
    fn state_messages_have_their_own_window_and_are_not_repeated() {
        let mut session = Session::new(1);
        session.sent_status(NOW);
        publish(&mut session, 10, Qos::AtLeastOnce);
        assert_eq!((session.free(), session.free_status()), (0, STATUS_WINDOW - 1));
        session.disconnected();
        session.connected(true, NOW);
        assert_eq!(resends(&mut session).len(), 1);
        assert_eq!(session.free_status(), STATUS_WINDOW);
        assert_eq!(session.handle(Incoming::PubAck(1, Reason::SUCCESS), NOW), Outcome::Ignored);
        assert_eq!(session.handle(Incoming::PubAck(2, Reason::SUCCESS), NOW), Outcome::Acked(10..11));
    }

    #[test]
    fn at_qos_0_written_is_acknowledged() {
        let mut session = Session::new(1);
        session.queued(10..12, 5_000);
        session.queued(12..13, 6_000);
        session.queued(20..21, 12_000);
        assert!(session.is_waiting());
        assert_eq!(session.span(), 10..21);
        assert_eq!(session.written(5_999), None);
        assert_eq!(session.written(6_000), Some(10..13));
        assert_eq!(session.written(6_000), None);
        session.disconnected();
        assert_eq!(session.written(12_000), None, "what did not leave is not acknowledged");
    }

    #[test]
    fn a_message_that_never_gets_its_ack_does_not_stop_the_ids_from_going_round() {
        let mut session = Session::new(2);
        publish(&mut session, 0, Qos::AtLeastOnce);
        let mut sent = 0;
        while session.free() > 0 {
            let id = publish(&mut session, 1, Qos::AtLeastOnce);
            assert_ne!(id, 1, "the id of the first is in use");
            session.handle(Incoming::PubAck(id, Reason::SUCCESS), NOW);
            sent += 1;
        }
        assert!(sent > 60_000);
        assert!(session.free_status() > 0);
        assert_eq!(session.ack_due(), Some(NOW.after(ACK_DEADLINE)), "it counts as hung");
        session.handle(Incoming::PubAck(1, Reason::SUCCESS), BootTime(5));
        assert_eq!((session.free(), session.ack_due()), (2, None));
    }

    #[test]
    fn ids_go_round_without_zero() {
        assert_eq!((id_after(65_535, 1), id_after(1, 65_535), id_after(65_000, 536)), (1, 1, 1));
    }

    #[test]
    fn what_the_outbox_lost_is_released_at_qos_2() {
        let mut session = Session::new(3);
        let first = publish(&mut session, 10, Qos::ExactlyOnce);
        let second = publish(&mut session, 11, Qos::AtLeastOnce);
        session.disconnected();
        session.connected(true, NOW);
        assert_eq!(session.gone(first, NOW), Outcome::Release(first));
        assert_eq!(session.gone(second, NOW), Outcome::Acked(11..12));
        assert_eq!(session.handle(Incoming::PubComp(first, Reason::SUCCESS), NOW), Outcome::Acked(10..11));
    }
}
