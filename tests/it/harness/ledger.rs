//! What went over an agent's connections, and every way in which it broke the protocol.

use std::collections::BTreeMap;

use super::mark_number;
use super::wire::{Ack, Packet, decode};

/// Who sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Agent,
    Broker,
}

/// A reading as it was published.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) mark: u32,
    topic: String,
    /// How often it was sent.
    pub(crate) published: usize,
    /// How often it was acknowledged in full: PUBACK, at QoS 2 PUBCOMP.
    pub(crate) completed: usize,
    /// The broker's session in which its PUBREL was sent: there, its PUBLISH may never be sent again.
    released_in: Option<usize>,
}

/// Packet ids that are in use in the broker's present session.
#[derive(Debug)]
struct Open {
    /// The reading's id; `None` for the gateway's state.
    reading: Option<String>,
    /// Its PUBREC came.
    received: bool,
}

/// The record of one agent.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    version: u8,
    /// Did the last CONNECT ask for a session without a past, and the one before it?
    clean: [bool; 2],
    /// Readings were published in the broker's present session.
    in_use: bool,
    open: BTreeMap<u16, Open>,
    /// Readings that were released when the broker lost its session. An agent that was killed before it could take
    /// that in finds a session again, a new one, and goes on: the broker then says PUBCOMP to what it no longer knows.
    released: BTreeMap<u16, String>,
    /// By the reading's `id`.
    pub(crate) readings: BTreeMap<String, Reading>,
    /// Connections that the broker accepted.
    pub(crate) connections: usize,
    /// Connections on which the broker had no session (the first one among them).
    pub(crate) sessions: usize,
    /// Times that the broker had no session although it should have had one.
    pub(crate) forgotten: usize,
    /// Most readings in flight at a time.
    pub(crate) most_in_flight: usize,
    /// Readings that have been completed, each counted once.
    pub(crate) complete: usize,
    /// What must not be; the first ones.
    pub(crate) violations: Vec<String>,
}

impl Ledger {
    /// Notes a packet.
    pub(crate) fn record(&mut self, from: From, (first, body): (u8, Vec<u8>)) {
        match (from, decode(first, &body, self.version)) {
            (_, None) => self.violation(format!("{from:?} sent a malformed packet: {first:#04x} {body:x?}")),
            (From::Agent, Some(Packet::Connect { version, clean })) => {
                self.version = version;
                self.clean = [clean, self.clean[0]];
            }
            (From::Broker, Some(Packet::ConnAck { session_present, accepted: true })) => {
                self.connected(session_present);
            }
            (From::Agent, Some(Packet::Publish { qos, dup, id, topic, payload })) if qos > 0 => {
                self.published(qos, dup, id, &topic, &payload);
            }
            (_, Some(Packet::Ack { kind, id, code })) => self.acknowledged(from, kind, id, code),
            _ => {}
        }
    }

    fn connected(&mut self, session_present: bool) {
        self.connections += 1;
        if session_present {
            return;
        }
        match self.clean {
            // An agent that was killed before it could note that it has a session finds one that it does not know.
            [true, _] if self.in_use => self.violation("a session with readings in it was discarded".to_owned()),
            [true, _] | [false, true] => {}
            [false, false] => self.forgotten += usize::from(self.sessions > 0),
        }
        self.sessions += 1;
        self.in_use = false;
        for (id, open) in std::mem::take(&mut self.open) {
            let released = |reading: &String| self.readings[reading].released_in.is_some();
            self.released.extend(open.reading.filter(released).map(|reading| (id, reading)));
        }
    }

    fn published(&mut self, qos: u8, dup: bool, id: u16, topic: &str, payload: &[u8]) {
        let reading = self.reading(qos, topic, payload);
        // State is forgotten with its connection and made anew, so that its id is free then.
        if let Some(Open { reading: Some(held), .. }) = self.open.get(&id) {
            if reading.as_ref() != Some(held) {
                self.violation(format!("packet id {id} stands for {held} and for {reading:?}"));
            } else if !dup {
                self.violation(format!("{held} was sent again as {id} without DUP"));
            }
            return;
        }
        self.released.remove(&id);
        self.open.insert(id, Open { reading, received: false });
        let in_flight = self.open.values().filter(|open| open.reading.is_some()).count();
        self.most_in_flight = self.most_in_flight.max(in_flight);
    }

    /// Counts it, if it is a reading with a mark; gives its id.
    fn reading(&mut self, qos: u8, topic: &str, payload: &[u8]) -> Option<String> {
        let json: serde_json::Value = serde_json::from_slice(payload).ok()?;
        let mark = mark_number(json["value"].as_str()?.as_bytes())?;
        let id = json["id"].as_str()?.to_owned();
        let sessions = self.sessions;
        let new = || Reading { mark, topic: topic.to_owned(), published: 0, completed: 0, released_in: None };
        let reading = self.readings.entry(id.clone()).or_insert_with(new);
        reading.published += 1;
        self.in_use = true;
        let same = reading.mark == mark && reading.topic == topic;
        let released = qos == 2 && reading.released_in == Some(sessions);
        if !same {
            self.violation(format!("{id} was published with two contents"));
        }
        if released {
            self.violation(format!("{id} was published again although its PUBREL had been sent"));
        }
        Some(id)
    }

    fn acknowledged(&mut self, from: From, kind: Ack, id: u16, code: u8) {
        if code >= 0x80 {
            self.violation(format!("{from:?} refused {id}: {kind:?} with {code:#04x}"));
        }
        if (from == From::Agent) != (kind == Ack::Pubrel) {
            self.violation(format!("{from:?} sent {kind:?} of {id}"));
            return;
        }
        // What is not open was completed before: the acknowledgement got lost, and its cause was sent again.
        let Some(open) = self.open.get_mut(&id) else {
            if kind == Ack::Pubcomp
                && let Some(reading) = self.released.remove(&id)
            {
                self.completed(&reading);
            }
            return;
        };
        match kind {
            Ack::Pubrec => open.received = true,
            Ack::Pubrel => {
                let early = !open.received;
                if let Some(reading) = open.reading.as_ref().and_then(|reading| self.readings.get_mut(reading)) {
                    reading.released_in = Some(self.sessions);
                }
                if early {
                    self.violation(format!("{id} was released before PUBREC"));
                }
            }
            Ack::Puback | Ack::Pubcomp => {
                let reading = self.open.remove(&id).and_then(|open| open.reading);
                if let Some(reading) = reading {
                    self.completed(&reading);
                }
            }
        }
    }

    fn completed(&mut self, reading: &str) {
        let Some(reading) = self.readings.get_mut(reading) else { return };
        self.complete += usize::from(reading.completed == 0);
        reading.completed += 1;
    }

    fn violation(&mut self, what: String) {
        if self.violations.len() < 20 {
            self.violations.push(what);
        }
    }
}
