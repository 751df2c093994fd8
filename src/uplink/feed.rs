//! Between outbox and session: takes records, encodes them into the output buffer, and brings acknowledgements back.
//!
//! No I/O here. The contract with the connection: what [`Feed::fill`] and [`Feed::received`] put into the output may
//! be written only after [`Feed::commit`], which saves what these packets depend on.

use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BytesMut};

use crate::clock::BootTime;
use crate::command::Request;
use crate::config::{BROKER_UPLINK, Backlog, Batch, BrokerUrl, Deliver, Discovery, Qos, UplinkConfig};
use crate::outbox::{CursorId, Entry, Outbox, Seq};

use super::Hub;
use super::counters::Counters;
use super::encode::{Cut, Encoder, Part, Settings};
use super::pace::Pace;
use super::packet::{Accepted, Head, Reason, TooLarge};
use super::refused::{Quarantine, RefusedMessage};
use super::saved::{self, Origin, Saved};
use super::session::{InFlight, Session};
use super::sparkplug::Node;
use super::status::Version;
use super::subscriptions::{News, Subscriptions};
use super::terms::Terms;
use super::veil::Veil;

use brake::Brake;
use latest::Latest;
use refusal::Pause;
use selection::Selector;
use slots::Slots;
use state::state_head;
use unsure::Unsure;

pub use state::LastWord;

mod answers;
mod batches;
mod births;
mod brake;
mod commands;
mod delivery;
mod latest;
#[cfg(test)]
mod model;
mod refusal;
mod resend;
mod selection;
mod slots;
mod state;
mod streams;
#[cfg(test)]
mod tests;
mod unsure;

/// No more messages are encoded while so many bytes wait to be written to the socket.
pub const OUTPUT_LIMIT: usize = 64 * 1_024;

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
    /// Does nothing wait for others to be sent with (`batch`)?
    pub at_once: bool,
    /// Until then, readings of this boot wait for their date.
    pub hold_until: BootTime,
}

/// What one uplink has sent and has still to send. Outlives connections.
#[derive(Debug)]
pub struct Feed {
    uplink: String,
    session: Session,
    encoder: Encoder,
    veil: Veil,
    /// With a fixed rate.
    slots: Option<Slots>,
    cursor: CursorId,
    terms: Terms,
    state_key: String,
    client_id: String,
    /// How several readings become one message, and whether they do: see [`grouping`](batches::grouping).
    grouping: String,
    batch: Option<Batch>,
    /// Live readings that wait for others.
    waiting: Option<batches::Waiting>,
    /// Does the topic say nothing of what is in a message?
    shared_topic: bool,
    origin: Origin,
    /// Is the session that the broker may have the continuation of ours? If not, its packet ids would be taken for
    /// ours, and QoS 2 messages swallowed.
    known: bool,
    /// Has it come to an orderly end?
    closed: bool,
    selector: Selector,
    backlog: Backlog,
    pace: Pace,
    /// Positions below it are the backlog of this connection, the others are live.
    live_from: Seq,
    /// Where each stream goes on: everything unacknowledged before it, down to the stream's beginning, is in flight.
    next: streams::Next,
    /// Positions that were in flight when the streams were (re)started, sorted.
    in_slots: Vec<Range<Seq>>,
    latest: Option<Latest>,
    entries: Vec<Entry>,
    /// Acknowledged by the broker, not yet told to the outbox.
    acked: Range<Seq>,
    /// As how many messages that was sent.
    acked_messages: usize,
    unsure: Unsure,
    /// Are availability, information and gaps published?
    sends_state: bool,
    status_seen: Version,
    /// Was anything told to the outbox since the last commit?
    dirty: bool,
    /// Messages that the broker has refused since the last fill.
    answers: Vec<(InFlight, Reason)>,
    /// The broker's quota is exceeded: until then nothing new is sent, and the next pause is so long.
    pause: Pause,
    quarantine: Quarantine,
    refused: Vec<RefusedMessage>,
    refused_logged: Option<BootTime>,
    counters: Rc<Counters>,
    subscriptions: Subscriptions,
    /// Who it is among those that speak Sparkplug B.
    node: Option<Node>,
    /// What of the broker's messages is for LAN clients.
    deliver: Vec<Deliver>,
    /// Records for LAN clients were appended since the last commit.
    delivered: bool,
    /// Then what is announced to a home automation is sent again.
    announce_at: Option<BootTime>,
    /// Commands that came since they were last taken.
    requests: Vec<Request>,
    /// Acknowledgements of what came that are held back.
    brake: Brake,
    /// What is to be told of the subscriptions.
    news: Option<News>,
    /// Why commands do not come, as it was told last.
    told: Option<String>,
    ignored_logged: Option<BootTime>,
}

impl Feed {
    /// Takes up where the last run stopped.
    pub fn new(config: &UplinkConfig, hub: &Hub) -> Self {
        let outbox = &mut *hub.outbox.borrow_mut();
        let cursor = outbox.cursor(&config.name);
        let grouping = batches::grouping(&config.payload, &hub.gateway.topic);
        let peer = |url: &BrokerUrl| saved::peer(&config.name, url, &config.client_id, &grouping);
        let peers: Vec<u32> = config.urls.iter().map(peer).collect();
        let here = |peer| Origin { peer, boot: hub.boot, run: outbox.run() };
        let state_key = saved::state_key(&config.name);
        let terms = Terms::new(config);
        let window = terms.window();
        let is_ours = |saved: &Saved| {
            peers.contains(&saved.origin.peer) && saved.is_current(&here(saved.origin.peer), hub.tail_found)
        };
        let saved = outbox.state(&state_key).and_then(|stored| Saved::restore(stored, window)).filter(is_ours);
        let first = peers.first().copied().unwrap_or_default();
        let origin = here(saved.as_ref().map_or(first, |saved| saved.origin.peer));
        let (session, known) =
            saved.map_or_else(|| (Session::new(window), false), |saved| (saved.session, saved.known));
        let veil = Veil::new(&config.privacy);
        let unsure = Unsure::of_last_run(outbox, window.into());
        let settings = Settings {
            template: hub.gateway.topic.clone(),
            payload: config.payload.clone(),
            retain: config.retain,
            backlog_topic: config.backlog.topic.clone(),
            veil: veil.clone(),
        };
        let encoder = Encoder::new(settings);
        let node = config.sparkplug.as_ref().zip(encoder.book()).map(|(names, book)| {
            hub.watch_sensors();
            let last = outbox.state(&Node::state_key(&config.name));
            Node::new(&config.name, names, config.urls.len() > 1, book, last)
        });
        let mut feed = Self {
            uplink: config.name.clone(),
            session,
            encoder,
            node,
            veil,
            slots: config.privacy.rate.map(Slots::new),
            cursor,
            terms,
            state_key,
            client_id: config.client_id.clone(),
            grouping,
            batch: config.payload.batch,
            waiting: None,
            shared_topic: config.payload.topic.is_some(),
            origin,
            known,
            closed: false,
            selector: Selector::new(config.selection.clone(), config.name == BROKER_UPLINK, config.audit),
            pace: Pace::new(config.backlog.rate),
            backlog: config.backlog.clone(),
            live_from: 0,
            next: streams::Next::default(),
            in_slots: Vec::new(),
            latest: None,
            entries: Vec::new(),
            acked: 0..0,
            acked_messages: 0,
            unsure,
            sends_state: config.state,
            status_seen: 0,
            dirty: true,
            answers: Vec::new(),
            pause: Pause::default(),
            quarantine: Quarantine::default(),
            refused: Vec::new(),
            refused_logged: None,
            counters: hub.counters(&config.name),
            subscriptions: Subscriptions::new(
                config.commands.as_ref(),
                config.discovery.as_ref().map(Discovery::birth_topic),
                config.sparkplug.as_ref().map(Node::topics).unwrap_or_default(),
                &config.deliver,
            ),
            deliver: config.deliver.clone(),
            delivered: false,
            brake: Brake::new(&config.deliver),
            announce_at: None,
            requests: Vec::new(),
            news: None,
            told: None,
            ignored_logged: None,
        };
        // What was stored and is not taken up must not be taken up by the next run either.
        feed.commit(outbox, hub.clock.boot());
        feed
    }

    /// The broker at this URL has accepted us. What another one knows of the session means nothing to it.
    pub fn dialled(&mut self, url: &BrokerUrl) {
        let peer = saved::peer(&self.uplink, url, &self.client_id, &self.grouping);
        if peer != self.origin.peer {
            self.origin.peer = peer;
            self.known = false;
            self.dirty = true;
        }
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

    /// The broker accepted the connection. What lies below `live_from` is its backlog.
    pub fn connected(&mut self, accepted: &Accepted, live_from: Seq, now: BootTime) {
        let session_present = accepted.session_present;
        if !session_present {
            self.broker_forgot();
        }
        for remark in self.terms.agree(accepted.limits.clone()) {
            tracing::warn!(uplink = self.uplink, "{remark}");
        }
        // Nor is anything sent again to a host of Sparkplug as it was before: it would not be understood.
        let anew = self.terms.limits().max_qos == Qos::AtMostOnce || self.node.is_some();
        if anew && self.session.in_flight() > 0 {
            // What is in flight has no packet id any more: it is sent like anything else that waits.
            self.counters.possible_duplicates.add(self.session.in_flight() as u64);
            self.session = self.session.emptied();
        }
        self.session.set_limits(self.terms.window(), self.terms.limits());
        let possible = self.session.connected(session_present, live_from, now);
        self.counters.possible_duplicates.add(possible);
        self.counters.connects.add(1);
        self.status_seen = 0;
        self.subscriptions.connected(now);
        if let Some(node) = &mut self.node {
            node.connected();
        }
        self.start_streams(live_from, now);
    }

    /// The connection is gone. `closed`: the broker closed it without another reason, so that a message may be it.
    pub fn disconnected(&mut self, hub: &Hub, closed: bool) {
        let now = hub.clock.boot();
        // A broker that does not answer SUBSCRIBE may have closed the connection over that.
        let closed = closed && !self.unsubscribed(hub, closed, now);
        let outbox = &mut *hub.outbox.borrow_mut();
        if let Some(culprit) = self.session.disconnected(closed) {
            self.refuse_culprit(hub, outbox, &culprit, now);
        }
        // What was answered last counts before the next connection goes through the streams anew.
        self.handle_answers(hub, outbox, now);
        self.commit(outbox, now);
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

    /// Is all state sent, and everything before this position acknowledged?
    #[must_use]
    pub fn is_drained(&mut self, hub: &Hub, end: Seq) -> bool {
        let outbox = &mut *hub.outbox.borrow_mut();
        self.tell_acked(outbox);
        let state_left = self.sends_state && hub.board.borrow().next_after(self.status_seen, &self.uplink).is_some();
        !state_left && outbox.low(self.cursor) >= end
    }

    /// Encodes what may be sent now. Gives the time when to try again although nothing else happens until then.
    pub fn fill(&mut self, hub: &Hub, output: &mut Output, fill: Fill) -> Option<BootTime> {
        let subscriptions = self.subscribe(hub, output, fill);
        let fixed = self.slots.is_some();
        let messages = if fixed { self.fill_slot(hub, output, fill) } else { self.fill_messages(hub, output, fill) };
        [subscriptions, messages].into_iter().flatten().min()
    }

    fn fill_messages(&mut self, hub: &Hub, output: &mut Output, fill: Fill) -> Option<BootTime> {
        let outbox = &mut *hub.outbox.borrow_mut();
        if self.session.is_alone() {
            self.send_state(hub, output, fill.now);
        }
        self.selector.set_time(hub, fill.now);
        self.handle_answers(hub, outbox, fill.now);
        let again = self.resend(hub, outbox, output, fill.now);
        let all_state_sent = self.send_state(hub, output, fill.now);
        if again.is_some() || !fill.readings || !all_state_sent {
            return again;
        }
        if let Some(until) = self.pause.until(fill.now) {
            return Some(until);
        }
        if let Err(until) = self.send_births(hub, outbox, output, fill) {
            return until;
        }
        let again = self.send_streams(hub, outbox, output, fill);
        self.send_news(hub, outbox, output);
        again
    }

    /// Encodes one message of these parts.
    fn encode(&mut self, output: &mut Output, parts: &[Part<'_>], cut: Cut, ids: Ids) -> Result<(), CannotSend> {
        let message = self.encoder.message(parts, cut).map_err(CannotSend::of)?;
        if self.quarantine.holds(message.topic, ids.now) {
            let why = format!("{}: a message on this topic made the broker close the connection", message.topic);
            return Err(CannotSend::of(why));
        }
        let size = message.payload.len();
        if let Some(slots) = self.slots.as_ref().filter(|slots| size > slots.size) {
            let max = u32::try_from(slots.size).unwrap_or(u32::MAX);
            let why =
                format!("{}: a payload of {size} bytes is larger than the `size` of `rate`, {max}", message.topic);
            return Err(CannotSend { why, too_large: Some(TooLarge { size, max }) });
        }
        let Ids { qos, id, dup, .. } = ids;
        let (topic, retain) = (message.topic, message.retain);
        let reading = self.veil.tells_ids().then_some(message.id);
        // Of several, none is to go too early.
        let left = parts
            .iter()
            .map(|part| self.selector.left(self.veil.date(part.date)))
            .max_by_key(|left| left.unwrap_or(Duration::MAX));
        // None where messages are to be alike. Rounded up: zero would mean that it need not be delivered at all.
        let expiry = left
            .flatten()
            .filter(|_| self.slots.is_none())
            .map(|left| u32::try_from(left.as_secs() + 1).unwrap_or(u32::MAX));
        let content_type = message.content_type;
        let integrity = message.integrity.as_ref().map(|(name, sum)| (*name, sum.as_str()));
        let head = Head { topic, qos, retain, dup, id, reading, expiry, content_type, integrity };
        self.terms
            .put_publish(&mut output.buffer, head, |out| out.extend_from_slice(message.payload))
            .map_err(|error| CannotSend { why: format!("{topic}: {error}"), too_large: Some(error) })?;
        if parts.iter().any(Part::is_reading) {
            self.data_sent();
        }
        Ok(())
    }

    /// Makes acknowledgements and the session safe, in one write. What is in the output may leave after it.
    pub fn commit(&mut self, outbox: &mut Outbox, now: BootTime) {
        self.tell_acked(outbox);
        if self.session.take_changed() || self.dirty {
            outbox.put_state(&self.state_key, Some(saved::save(&self.session, self.origin, self.known, self.closed)));
            outbox.set_in_flight(self.cursor, &self.session.spans(self.live_from));
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

/// Under which packet id a message goes out, and when.
#[derive(Clone, Copy, Debug)]
struct Ids {
    qos: Qos,
    id: u16,
    dup: bool,
    now: BootTime,
}

/// Why a message cannot be sent.
#[derive(Debug)]
struct CannotSend {
    why: String,
    /// It is too large; one of fewer readings may not be.
    too_large: Option<TooLarge>,
}

impl CannotSend {
    fn of(why: String) -> Self {
        Self { why, too_large: None }
    }
}
