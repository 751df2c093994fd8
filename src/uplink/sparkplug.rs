//! Sparkplug B: this gateway as an edge node, its sensors as devices.
//!
//! A pure state machine, as the session is: messages, time and what is known of the sensors go in; payloads and verdicts
//! come out. What births, data and deaths share (sequence numbers, aliases, which metrics a host knows) is in the
//! [`Book`], from which the form of payload reads; the bytes are in [`wire`].
//!
//! **bdSeq.** Each CONNECT has the next number, which its will and the births of its connection carry, so that a host can
//! tell which connection a death is of. It is in the outbox's state before CONNECT is sent.
//!
//! **Primary host.** Where one is configured, nothing is born before its STATE says that it is online. STATE has the time at
//! which the host came: one of an earlier time is an echo of an earlier connection, and says nothing.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use serde::Deserialize;

use crate::clock::BootTime;
use crate::command::{MAX_BYTES, Request};
use crate::config::Sparkplug;

use super::Failure;
use super::packet::Message;

pub use book::{Book, TooMany};
use wire::{DataType, Metric, Scalar};

pub mod book;
mod host;
pub mod wire;

/// Before an uplink's name: the key of the last bdSeq in the outbox's state.
const PREFIX: &str = "sparkplug/";

/// The metric that tells births and deaths of different connections apart.
const BD_SEQ: &str = "bdSeq";

/// The metric that says which program this is.
const VERSION: &str = "Properties/Version";

/// Births are sent again this often at the most, however often a host asks.
const REBIRTH_PAUSE: Duration = Duration::from_secs(1);

/// Messages that cannot be understood are logged this often at most.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// What a host says of itself (specification 3.0, 6.4.23).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
struct State {
    online: bool,
    /// Milliseconds since 1970.
    timestamp: i64,
}

/// What a topic is listened to for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listens {
    /// STATE of the primary host, also what it said before.
    Host,
    /// Commands to the node (NCMD).
    Node,
    /// Commands to the device of this name (DCMD).
    Device(String),
}

/// What is to be done before readings are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    Go,
    /// To wait, until then or until something comes.
    Wait(Option<BootTime>),
    /// All births are to be sent; `first`: on this connection.
    Birth {
        /// None were sent on it before.
        first: bool,
    },
}

/// The edge node of one uplink.
#[derive(Debug)]
pub struct Node {
    uplink: String,
    names: Sparkplug,
    /// There are other brokers, where the primary host may be.
    walks: bool,
    book: Rc<RefCell<Book>>,
    /// Of the present connection, or the last one.
    bd_seq: Option<u8>,
    /// What the primary host said last on this connection.
    host: Option<State>,
    born: bool,
    /// A host has asked for all births.
    rebirth: bool,
    /// When they were sent last.
    births_at: BootTime,
    /// Which state of the sensors the host knows of.
    seen: Option<u64>,
    complained: Option<BootTime>,
}

impl Node {
    /// `last`: what [`next_death`](Self::next_death) gave to be stored.
    #[must_use]
    pub fn new(uplink: &str, names: &Sparkplug, walks: bool, book: Rc<RefCell<Book>>, last: Option<&[u8]>) -> Self {
        Self {
            uplink: uplink.to_owned(),
            names: names.clone(),
            walks,
            book,
            bd_seq: last.and_then(|stored| stored.first().copied()),
            host: None,
            born: false,
            rebirth: false,
            births_at: BootTime(0),
            seen: None,
            complained: None,
        }
    }

    /// The key under which to store an uplink's last bdSeq.
    #[must_use]
    pub fn state_key(uplink: &str) -> String {
        format!("{PREFIX}{uplink}")
    }

    /// Who it is.
    #[must_use]
    pub fn names(&self) -> &Sparkplug {
        &self.names
    }

    /// What births, data and deaths share.
    #[must_use]
    pub fn book(&self) -> &Rc<RefCell<Book>> {
        &self.book
    }

    /// What is to be subscribed to.
    #[must_use]
    pub fn topics(names: &Sparkplug) -> Vec<(String, Listens)> {
        let devices =
            names.writable.keys().map(|name| (names.device_topic("DCMD", name), Listens::Device(name.clone())));
        let host = names.state_topic().map(|topic| (topic, Listens::Host));
        devices.chain(host).chain([(names.topic("NCMD"), Listens::Node)]).collect()
    }

    /// A command came on this topic: if it is a host's to a device (DCMD), what the device is to get takes the place of what
    /// was sent, and when it was sent that of what the packet says.
    pub fn read_command(&self, topic: &str, request: &mut Request) {
        if topic != self.names.device_topic("DCMD", &request.sensor) {
            return;
        }
        let payload = std::mem::take(&mut request.payload);
        if request.refused.is_some() {
            return;
        }
        let read = host::Command::read(&payload).map_err(|error| error.to_string()).and_then(|command| {
            let writable = self.names.writable.get(&request.sensor).ok_or("nothing of it can be written")?;
            let object = command.object(&request.sensor, writable, &self.book.borrow())?;
            Ok((object, command.time()))
        });
        match read {
            Ok((object, _)) if object.len() > MAX_BYTES => {
                request.refused = Some(format!("the device would get more than {MAX_BYTES} bytes"));
            }
            Ok((object, time)) => {
                request.payload = object.into_bytes().into();
                request.time = time.or(request.time.take());
            }
            Err(why) => request.refused = Some(why),
        }
    }

    /// What hosts may write to, for the log.
    #[must_use]
    pub fn writable(&self) -> String {
        if self.names.writable.is_empty() {
            return "hosts may write to no device".to_owned();
        }
        let names: Vec<&str> = self.names.writable.keys().map(String::as_str).collect();
        format!("hosts may write to {}, and to no other device", names.join(", "))
    }

    /// A CONNECT is about to be sent. Gives what is to be stored before that, for the next one.
    pub fn next_death(&mut self) -> Vec<u8> {
        let next = self.bd_seq.map_or(0, |last| last.wrapping_add(1));
        self.bd_seq = Some(next);
        vec![next]
    }

    /// Its death certificate, for the connection that is about to be made or there is (NDEATH).
    #[must_use]
    pub fn death(&self) -> BytesMut {
        let mut out = BytesMut::new();
        if let Some(time) = self.book.borrow().sent_at() {
            wire::put_time(&mut out, time);
        }
        wire::put_metric(&mut out, &self.bd_seq(None));
        out
    }

    /// Appends its birth certificate (NBIRTH).
    pub fn put_birth(&self, out: &mut BytesMut) {
        let book = self.book.borrow();
        let time = book.sent_at();
        book.put_head(out);
        wire::put_metric(out, &self.bd_seq(time));
        let rebirth = Metric::named(wire::REBIRTH, DataType::Boolean, Scalar::Boolean(false));
        wire::put_metric(out, &Metric { time, ..rebirth });
        let version = Metric::named(VERSION, DataType::String, Scalar::Text(env!("CARGO_PKG_VERSION")));
        wire::put_metric(out, &Metric { time, alias: Some(book::NODE_ALIAS), ..version });
    }

    fn bd_seq(&self, time: Option<u64>) -> Metric<'static> {
        let number = Scalar::Long(self.bd_seq.unwrap_or_default().into());
        Metric { time, ..Metric::named(BD_SEQ, DataType::Int64, number) }
    }

    /// A connection is up.
    pub fn connected(&mut self) {
        self.host = None;
        self.born = false;
        self.rebirth = false;
        self.seen = None;
    }

    /// What is to be done before readings are sent. `dated`: the clock is set; while it is not, births wait until
    /// `hold_until`.
    #[must_use]
    pub fn turn(&self, now: BootTime, dated: bool, hold_until: BootTime) -> Turn {
        let host_is_there = self.names.primary_host.is_none() || self.host.is_some_and(|host| host.online);
        if !host_is_there {
            Turn::Wait(None)
        } else if self.born && !self.rebirth {
            Turn::Go
        } else if !self.born && !dated && now < hold_until {
            Turn::Wait(Some(hold_until))
        } else if self.born && now < self.births_at.after(REBIRTH_PAUSE) {
            Turn::Wait(Some(self.births_at.after(REBIRTH_PAUSE)))
        } else {
            Turn::Birth { first: !self.born }
        }
    }

    /// All births are about to be sent.
    pub fn bear(&mut self, now: BootTime) {
        self.book.borrow_mut().begin();
        self.born = true;
        self.rebirth = false;
        self.births_at = now;
        self.seen = None;
    }

    /// Are births sent on this connection?
    #[must_use]
    pub fn is_born(&self) -> bool {
        self.born
    }

    /// Is there something that the host does not know of the sensors?
    #[must_use]
    pub fn has_news(&self, version: u64) -> bool {
        self.seen != Some(version)
    }

    /// The host knows all of it.
    pub fn told(&mut self, version: u64) {
        self.seen = Some(version);
    }

    /// Takes a message, if it is for the node; says whether it is.
    ///
    /// # Errors
    /// The primary host has gone, and the connection must end.
    pub fn takes(&mut self, message: &Message, now: BootTime) -> Result<bool, Failure> {
        if message.topic == self.names.topic("NCMD") {
            self.command(message, now);
        } else if self.names.state_topic().is_some_and(|topic| topic == message.topic) {
            self.host_says(message, now)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn command(&mut self, message: &Message, now: BootTime) {
        if message.retain {
            return self.complain("a command to the node is retained, and was not meant for this connection", now);
        }
        match host::Command::read(&message.payload).map(|command| command.asks_for_rebirth()) {
            Ok(true) => {
                tracing::info!(uplink = self.uplink, "a host asks for all births: they are sent again");
                self.rebirth = true;
            }
            Ok(false) => self.complain("a command to the node asks for something else than a rebirth", now),
            Err(why) => self.complain(&format!("a command to the node cannot be understood: {why}"), now),
        }
    }

    fn host_says(&mut self, message: &Message, now: BootTime) -> Result<(), Failure> {
        let state: State = match serde_json::from_slice(&message.payload) {
            Ok(state) => state,
            Err(why) => {
                self.complain(&format!("what the primary host says of itself cannot be understood: {why}"), now);
                return Ok(());
            }
        };
        if self.host.is_some_and(|last| state.timestamp < last.timestamp) {
            return Ok(());
        }
        let was_online = self.host.is_some_and(|last| last.online);
        self.host = Some(state);
        let host = self.names.primary_host.clone().unwrap_or_default();
        if state.online {
            if !was_online {
                tracing::info!(uplink = self.uplink, host, "the primary host is online");
            }
            return Ok(());
        }
        if self.born || self.walks {
            return Err(Failure::HostOffline(host));
        }
        tracing::info!(uplink = self.uplink, host, "the primary host is offline: readings wait in the outbox");
        Ok(())
    }

    fn complain(&mut self, what: &str, now: BootTime) {
        if self.complained.is_none_or(|last| now.since(last) >= LOG_INTERVAL) {
            self.complained = Some(now);
            tracing::warn!(uplink = self.uplink, "{what}: it is ignored");
        }
    }
}

#[cfg(test)]
pub(super) mod schema;
#[cfg(test)]
mod tests;
