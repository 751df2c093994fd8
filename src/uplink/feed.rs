//! Between outbox and session: takes records, encodes them into the output buffer, and brings acknowledgements back.
//!
//! No I/O here. The contract with the connection: what [`Feed::fill`] and [`Feed::received`] put into the output may
//! be written only after [`Feed::commit`], which saves what these packets depend on.

use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BytesMut};

use crate::clock::BootTime;
use crate::config::{PayloadShape, Qos, UplinkConfig};
use crate::outbox::{CursorId, Entry, Outbox, Seq};

use super::counters::Counters;
use super::dating::Date;
use super::encode::{Encoder, Settings};
use super::packet::{self, Accepted, Head, Incoming, Reason};
use super::saved::{self, Origin, Saved};
use super::session::{Outcome, Resend, Session};
use super::status::Version;
use super::terms::Terms;
use super::{Failure, Hub};

/// No more messages are encoded while so many bytes wait to be written to the socket.
pub const OUTPUT_LIMIT: usize = 64 * 1_024;

/// Records that are taken from the outbox at a time.
const READ_CHUNK: usize = 64;

/// When records wait that cannot be read from disk at the moment, it is tried again so much later.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// Messages that cannot be sent are logged at most so often; all are counted.
const REFUSED_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Bytes on their way to the socket of one connection.
#[derive(Debug, Default)]
pub struct Output {
    /// What is still to be written.
    pub buffer: BytesMut,
    /// How many bytes have been written to this connection.
    written: u64,
}

impl Output {
    /// So many bytes at the front of the buffer have been written.
    pub fn wrote(&mut self, bytes: usize) {
        self.buffer.advance(bytes);
        self.written += bytes as u64;
    }

    /// The count of bytes written when everything in the buffer is.
    fn end(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    fn has_room(&self) -> bool {
        self.buffer.len() < OUTPUT_LIMIT
    }
}

/// What the connection wants of [`Feed::fill`].
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    /// The time.
    pub now: BootTime,
    /// Shall new readings be sent? If not, only what must be sent again, and state.
    pub readings: bool,
    /// Until then, readings of this boot wait for their date.
    pub hold_until: BootTime,
}

/// What one uplink has sent and has still to send. Outlives connections.
#[derive(Debug)]
pub struct Feed {
    session: Session,
    encoder: Encoder,
    cursor: CursorId,
    terms: Terms,
    state_key: String,
    origin: Origin,
    /// Is the session that the broker may have the continuation of ours? If not, its packet ids would be taken for
    /// ours, and QoS 2 messages swallowed.
    known: bool,
    /// Has it come to an orderly end?
    closed: bool,
    /// Everything unacknowledged before this position is in flight.
    next: Seq,
    /// Positions that were in flight when the agent started, sorted.
    restored: Vec<Range<Seq>>,
    entries: Vec<Entry>,
    /// Acknowledged by the broker, not yet told to the outbox.
    acked: Range<Seq>,
    status_seen: Version,
    /// Was anything told to the outbox since the last commit?
    dirty: bool,
    refused_logged: Option<BootTime>,
    counters: Rc<Counters>,
}

impl Feed {
    /// Takes up where the last run stopped.
    pub fn new(config: &UplinkConfig, hub: &Hub) -> Self {
        let outbox = &mut *hub.outbox.borrow_mut();
        let cursor = outbox.cursor(&config.name);
        let peer = saved::peer(&config.url.to_string(), &config.client_id);
        let origin = Origin { peer, boot: hub.boot, run: outbox.run() };
        let state_key = format!("session/{}", config.name);
        let terms = Terms::new(config);
        let window = terms.window();
        let (session, known) = outbox
            .state(&state_key)
            .and_then(|stored| Saved::restore(stored, window))
            .filter(|saved| saved.is_current(&origin, hub.tail_found))
            .map_or_else(|| (Session::new(window), false), |saved| (saved.session, saved.known));
        let mut restored: Vec<Range<Seq>> = session.readings_in_flight().collect();
        restored.sort_by_key(|seqs| seqs.start);
        let settings = Settings { template: hub.gateway.topic.clone(), shape: config.payload, retain: config.retain };
        let mut feed = Self {
            session,
            encoder: Encoder::new(settings),
            cursor,
            terms,
            state_key,
            origin,
            known,
            closed: false,
            next: 0,
            restored,
            entries: Vec::new(),
            acked: 0..0,
            status_seen: 0,
            dirty: true,
            refused_logged: None,
            counters: hub.counters(&config.name),
        };
        // What was stored and is not taken up must not be taken up by the next run either.
        feed.commit(outbox, hub.clock.boot());
        feed
    }

    /// Would the session that the broker has kept be a stranger's? Then it must be made to forget it.
    #[must_use]
    pub fn is_stranger(&self, session_present: bool) -> bool {
        session_present && !self.known
    }

    /// The broker has forgotten whatever session it had.
    pub fn broker_forgot(&mut self) {
        self.known = true;
        self.dirty = true;
    }

    /// The broker accepted the connection.
    pub fn connected(&mut self, accepted: &Accepted, now: BootTime) {
        let session_present = accepted.session_present;
        if !session_present {
            self.broker_forgot();
        }
        for remark in self.terms.agree(accepted.limits.clone()) {
            tracing::warn!(uplink = self.terms.uplink(), "{remark}");
        }
        self.start_over_at_qos_0();
        self.session.set_limits(self.terms.window(), self.terms.limits());
        let possible = self.session.connected(session_present, now);
        self.counters.possible_duplicates.add(possible);
        self.counters.connects.add(1);
        self.status_seen = 0;
    }

    /// A broker that takes nothing above QoS 0 gets what is in flight like anything else that waits.
    fn start_over_at_qos_0(&mut self) {
        if self.terms.limits().max_qos == Qos::AtMostOnce && self.session.in_flight() > 0 {
            self.counters.possible_duplicates.add(self.session.in_flight() as u64);
            self.session = self.session.emptied();
            self.restored.clear();
            self.next = 0;
        }
    }

    /// The connection is gone.
    pub fn disconnected(&mut self) {
        self.session.disconnected();
        if self.terms.qos() == Qos::AtMostOnce {
            // What was not written is still unacknowledged.
            self.next = 0;
        }
    }

    /// The session, to look at.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Is there a point in waking up when something new is to be sent?
    #[must_use]
    pub fn has_room(&self, output: &Output) -> bool {
        output.has_room() && (self.session.free() > 0 || self.session.free_status() > 0)
    }

    /// Encodes what may be sent now. Gives the time when to try again although nothing else happens until then.
    pub fn fill(&mut self, hub: &Hub, output: &mut Output, fill: Fill) -> Option<BootTime> {
        let outbox = &mut *hub.outbox.borrow_mut();
        let again = self.resend(hub, outbox, output, fill.now);
        let all_state_sent = self.send_state(hub, output, fill.now);
        if again.is_some() || !fill.readings || !all_state_sent {
            return again;
        }
        while output.has_room() && self.session.free() > 0 && self.next < outbox.end() {
            let mut entries = std::mem::take(&mut self.entries);
            entries.clear();
            outbox.read(self.cursor, self.next, self.session.free().min(READ_CHUNK), &mut entries);
            self.dirty |= entries.is_empty();
            if entries.is_empty() {
                self.entries = entries;
                return self.after_empty_read(outbox, fill.now);
            }
            for entry in &entries {
                let date = hub.dating.borrow().date(entry);
                if matches!(date, Date::Uptime(boot, _) if boot == hub.boot) && fill.now < fill.hold_until {
                    self.entries = entries;
                    return Some(fill.hold_until);
                }
                if !self.send(outbox, output, entry, date, fill.now) {
                    break;
                }
            }
            self.entries = entries;
        }
        None
    }

    /// There are later positions, but nothing can be read: all of them may be in flight, or the disk has a fault.
    fn after_empty_read(&mut self, outbox: &Outbox, now: BootTime) -> Option<BootTime> {
        let in_flight: u64 = self.session.readings_in_flight().map(|seqs| seqs.end - seqs.start).sum();
        if outbox.backlog(self.cursor) <= in_flight {
            self.next = outbox.end();
            None
        } else {
            Some(now.after(READ_AGAIN))
        }
    }

    /// Sends what is left of a record; `false` if there was no room for all of it.
    fn send(&mut self, outbox: &mut Outbox, output: &mut Output, entry: &Entry, date: Date, now: BootTime) -> bool {
        let seqs = entry.seqs();
        let mut shape = self.encoder.shape(entry);
        if shape == PayloadShape::Sensor {
            // Of a record that was begun in the other shape, only the rest is sent.
            if seqs.start >= self.next && seqs.clone().all(|seq| self.is_open(outbox, seq)) {
                return self.send_one(outbox, output, entry, seqs, shape, date, now);
            }
            shape = PayloadShape::Quantity;
        }
        for seq in self.next.max(seqs.start)..seqs.end {
            if !self.is_open(outbox, seq) {
                self.next = seq + 1;
            } else if !self.send_one(outbox, output, entry, seq..seq + 1, shape, date, now) {
                return false;
            }
        }
        true
    }

    /// Neither acknowledged nor in flight since before the start.
    fn is_open(&self, outbox: &Outbox, seq: Seq) -> bool {
        let index = self.restored.partition_point(|seqs| seqs.end <= seq);
        !self.restored.get(index).is_some_and(|seqs| seqs.contains(&seq)) && !outbox.is_acked(self.cursor, seq)
    }

    #[expect(clippy::too_many_arguments, reason = "a message is just that: record, part, shape, date")]
    fn send_one(
        &mut self,
        outbox: &mut Outbox,
        output: &mut Output,
        entry: &Entry,
        seqs: Range<Seq>,
        shape: PayloadShape,
        date: Date,
        now: BootTime,
    ) -> bool {
        if !output.has_room() || self.session.free() == 0 {
            return false;
        }
        self.next = seqs.end;
        let (qos, id) = (self.terms.qos(), self.session.next_id());
        if let Err(why) = self.encode(output, entry, &seqs, shape, date, (qos, id, false)) {
            self.refuse(outbox, seqs, &why, now);
        } else {
            self.counters.sent.add(1);
            if qos == Qos::AtMostOnce {
                self.session.queued(seqs, output.end());
            } else {
                self.session.sent(seqs, shape, qos, now);
            }
        }
        true
    }

    fn encode(
        &mut self,
        output: &mut Output,
        entry: &Entry,
        seqs: &Range<Seq>,
        shape: PayloadShape,
        date: Date,
        (qos, id, dup): (Qos, u16, bool),
    ) -> Result<(), String> {
        let Some(message) = self.encoder.message(entry, seqs, shape, date) else {
            return Err("its topic is empty, too long, or has a wildcard in it".to_owned());
        };
        let (topic, retain, reading) = (message.topic, message.retain, Some(message.id));
        let head = Head { topic, qos, retain, dup, id, reading, expiry: None };
        self.terms
            .put_publish(&mut output.buffer, head, |out| message.write(out))
            .map_err(|error| format!("{topic}: {error}"))
    }

    /// A message that can never be sent must not stop those behind it.
    fn refuse(&mut self, outbox: &mut Outbox, seqs: Range<Seq>, why: &str, now: BootTime) {
        self.counters.refused.add(1);
        if self.refused_logged.is_none_or(|last| now.since(last) >= REFUSED_LOG_INTERVAL) {
            self.refused_logged = Some(now);
            tracing::warn!(position = seqs.start, "a message cannot be sent and is dropped: {why}");
        }
        outbox.ack(self.cursor, seqs);
        self.dirty = true;
    }

    /// Sends again what was in flight when the last connection was lost. Gives the time when to go on if something
    /// cannot be read from disk at the moment.
    fn resend(&mut self, hub: &Hub, outbox: &mut Outbox, output: &mut Output, now: BootTime) -> Option<BootTime> {
        while output.has_room() {
            let Resend::Publish { id, seqs, shape, qos, dup } = (match self.session.next_resend()? {
                Resend::Release(id) => {
                    packet::put_pubrel(&mut output.buffer, id);
                    self.session.resent();
                    continue;
                }
                publish @ Resend::Publish { .. } => publish,
            }) else {
                unreachable!("the other variant is handled above")
            };
            let Some(index) = self.find(outbox, seqs.start) else {
                if !outbox.is_acked(self.cursor, seqs.start) {
                    return Some(now.after(READ_AGAIN));
                }
                self.give_up(outbox, id, now);
                continue;
            };
            let entries = std::mem::take(&mut self.entries);
            let date = hub.dating.borrow().date(&entries[index]);
            let encoded = self.encode(output, &entries[index], &seqs, shape, date, (qos, id, dup));
            self.entries = entries;
            match encoded {
                Ok(()) => {
                    self.counters.replayed.add(1);
                    self.session.resent();
                }
                Err(why) => {
                    self.refuse(outbox, seqs, &why, now);
                    self.give_up(outbox, id, now);
                }
            }
        }
        None
    }

    /// The message of this packet id cannot be sent again.
    fn give_up(&mut self, outbox: &mut Outbox, id: u16, now: BootTime) {
        // Where it is to be released, the slot stays, now waiting for PUBCOMP: `resend` comes to it again.
        if let Outcome::Acked(seqs) = self.session.gone(id, now) {
            self.acked(outbox, seqs);
        }
    }

    /// The index in `entries` of the record with this position; they are read if need be.
    fn find(&mut self, outbox: &mut Outbox, seq: Seq) -> Option<usize> {
        let look = |entries: &[Entry]| {
            let index = entries.partition_point(|entry| entry.seqs().end <= seq);
            entries.get(index).is_some_and(|entry| entry.seqs().contains(&seq)).then_some(index)
        };
        look(&self.entries).or_else(|| {
            self.entries.clear();
            outbox.read(self.cursor, seq, READ_CHUNK, &mut self.entries);
            look(&self.entries)
        })
    }

    /// Sends state that the broker has not yet; says whether that is all of it.
    fn send_state(&mut self, hub: &Hub, output: &mut Output, now: BootTime) -> bool {
        let board = hub.board.borrow();
        while let Some((version, topic, payload)) = board.next_after(self.status_seen) {
            if !output.has_room() || self.session.free_status() == 0 {
                return false;
            }
            let head = state_head(topic, self.terms.state_qos(), self.session.next_id());
            match self.terms.put_publish(&mut output.buffer, head, |out| out.extend_from_slice(payload)) {
                Ok(()) if head.qos == Qos::AtMostOnce => {}
                Ok(()) => self.session.sent_status(now),
                Err(error) => tracing::warn!(topic, "state cannot be published: {error}"),
            }
            self.status_seen = version;
        }
        true
    }

    /// The last word before an orderly end, which takes the place of the will.
    pub fn farewell(&mut self, topic: &str, payload: &str, output: &mut Output, now: BootTime) {
        if self.session.free_status() == 0 {
            return;
        }
        let head = state_head(topic, self.terms.state_qos(), self.session.next_id());
        let put = |out: &mut BytesMut| out.extend_from_slice(payload.as_bytes());
        if self.terms.put_publish(&mut output.buffer, head, put).is_ok() && head.qos != Qos::AtMostOnce {
            self.session.sent_status(now);
        }
    }

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
                // The message is not to blame: the sessions at both ends are not each other's (MQTT 5, 4.3.3 and
                // table 2-6). The broker is made to forget its own.
                self.known = false;
                self.dirty = true;
                return Err(Failure::IdInUse);
            }
            Incoming::PubAck(..) | Incoming::PubRec(..) | Incoming::PubComp(..) => {
                match self.session.handle(packet, now) {
                    Outcome::Acked(seqs) => {
                        self.counters.acknowledged.add(1);
                        self.acked(outbox, seqs);
                    }
                    Outcome::Release(id) => packet::put_pubrel(&mut output.buffer, id),
                    Outcome::Refused(seqs, reason) => {
                        self.refuse(outbox, seqs, &format!("the broker refuses it: {reason}"), now);
                    }
                    Outcome::StatusRefused(reason) => {
                        tracing::warn!(uplink = self.terms.uplink(), "the broker refuses a message of state: {reason}")
                    }
                    Outcome::StatusAcked => {}
                    Outcome::Ignored => self.counters.unexpected.add(1),
                }
            }
            // We subscribe to nothing, but a session under this client identifier may have, long ago. A broker
            // that gets no acknowledgement would in the end send nothing at all.
            Incoming::Publish { qos, id } => match qos {
                Qos::AtMostOnce => {}
                Qos::AtLeastOnce => packet::put_puback(&mut output.buffer, id),
                Qos::ExactlyOnce => packet::put_pubrec(&mut output.buffer, id),
            },
            Incoming::PubRel(id) => packet::put_pubcomp(&mut output.buffer, id),
            Incoming::PingResp => {}
            Incoming::Disconnect(reason) => return Err(Failure::Disconnected(reason)),
            Incoming::ConnAck(_) | Incoming::Unexpected => return Err(Failure::OutOfPlace),
        }
        Ok(())
    }

    /// So much of the output was written.
    pub fn wrote(&mut self, outbox: &mut Outbox, output: &mut Output, bytes: usize) {
        output.wrote(bytes);
        while let Some(seqs) = self.session.written(output.written) {
            self.counters.acknowledged.add(seqs.end - seqs.start);
            self.acked(outbox, seqs);
        }
    }

    fn acked(&mut self, outbox: &mut Outbox, seqs: Range<Seq>) {
        if self.acked.end == seqs.start {
            self.acked.end = seqs.end;
        } else {
            self.tell_acked(outbox);
            self.acked = seqs;
        }
    }

    fn tell_acked(&mut self, outbox: &mut Outbox) {
        if !self.acked.is_empty() {
            outbox.ack(self.cursor, std::mem::replace(&mut self.acked, 0..0));
            self.dirty = true;
        }
    }

    /// Makes acknowledgements and the session safe, in one write. What is in the output may leave after it.
    pub fn commit(&mut self, outbox: &mut Outbox, now: BootTime) {
        self.tell_acked(outbox);
        if self.session.take_changed() || self.dirty {
            outbox.put_state(&self.state_key, Some(saved::save(&self.session, self.origin, self.known, self.closed)));
            outbox.set_in_flight(self.cursor, &[self.session.span()]);
            outbox.commit(now);
            self.dirty = false;
        }
    }

    /// The run ends in order: what is saved now is its last word.
    pub fn close(&mut self, outbox: &mut Outbox, now: BootTime) {
        self.closed = true;
        self.dirty = true;
        self.commit(outbox, now);
    }
}

fn state_head(topic: &str, qos: Qos, id: u16) -> Head<'_> {
    Head { topic, qos, retain: true, dup: false, id, reading: None, expiry: None }
}
