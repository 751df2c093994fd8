//! What is, as opposed to what was measured: availability and information about the gateway.
//!
//! State is no record. Only the latest of each topic counts; it is kept in memory and sent, retained, at each
//! connect before the readings, and then whenever it changes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use serde::Serialize;

use crate::reading::{Descriptor, Fault};
use crate::topic::Template;

/// How often the board has changed; each connection remembers how far it has sent.
pub type Version = u64;

/// The will, published by the broker when the connection is lost.
pub const LOST: &str = r#"{"state":"offline","reason":"connection lost"}"#;
/// Published at an orderly end.
pub const SHUTDOWN: &str = r#"{"state":"offline","reason":"shutdown"}"#;
/// Published before a connection that is made anew, with other files or to another broker.
pub const RECONNECTING: &str = r#"{"state":"offline","reason":"reconnecting"}"#;
/// Published before a pause of `connect = "every …"`.
pub const ASLEEP: &str = r#"{"state":"asleep"}"#;
/// Published at each connect: the birth message.
pub const ONLINE: &str = r#"{"state":"online"}"#;

/// `<site>/<gateway>/<leaf>`; without a site `<gateway>/<leaf>`.
#[must_use]
pub fn gateway_topic(site: Option<&str>, gateway: &str, leaf: &str) -> String {
    match site {
        Some(site) => format!("{site}/{gateway}/{leaf}"),
        None => format!("{gateway}/{leaf}"),
    }
}

/// Where a sensor's availability is published.
#[must_use]
pub fn sensor_availability_topic(template: &Template, descriptor: &Descriptor) -> String {
    format!("{}/availability", template.sensor_topic(descriptor))
}

/// A sensor's availability: `{"state":"online"}`, or the fault with its code for machines and its sentence for people.
#[must_use]
pub fn sensor_availability(state: Result<(), &Fault>) -> String {
    availability(state, true)
}

/// As [`sensor_availability`], without the sentence, which may name devices.
#[must_use]
pub fn sensor_availability_in_short(state: Result<(), &Fault>) -> String {
    availability(state, false)
}

fn availability(state: Result<(), &Fault>, in_full: bool) -> String {
    #[derive(Serialize)]
    struct Faulty<'a> {
        state: &'static str,
        reason: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        detail: Option<&'a str>,
    }
    match state {
        Ok(()) => ONLINE.to_owned(),
        Err(Fault { code, detail }) => {
            json(&Faulty { state: "fault", reason: code.as_str(), detail: in_full.then_some(detail.as_str()) })
        }
    }
}

/// What `…/info` says about the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Info {
    /// Version of vigie.
    pub version: &'static str,
    /// The gateway's name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What the board calls itself (`/proc/device-tree/model`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub board: Option<String>,
    /// CRC-32 of the configuration's files.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub configuration: String,
    /// The run counter, as in the `id` of readings.
    pub run: u32,
    /// On whose word the clock counts as set ([`crate::clock::Source`]); left out while it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock: Option<&'static str>,
    /// By uplink: the URL of the broker that it was connected to last.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub brokers: BTreeMap<String, String>,
    /// By uplink that takes commands: `accepted`, or why its broker sends none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub commands: BTreeMap<String, String>,
    /// By uplink: when the next of its certificates expires (RFC 3339), and whose it is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub certificates: BTreeMap<String, CertificateInfo>,
}

/// The certificate of an uplink that expires first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateInfo {
    /// Whose: `server`, `client` or `ca`.
    pub whose: &'static str,
    /// RFC 3339, UTC.
    pub expires: String,
}

impl Info {
    /// The payload.
    #[must_use]
    pub fn to_json(&self) -> String {
        json(self)
    }

    /// What of it names nothing.
    #[must_use]
    pub fn without_names(&self) -> Self {
        Self { version: self.version, run: self.run, clock: self.clock, ..Self::default() }
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings and numbers with string keys are always JSON")
}

/// The latest payload of each state topic. All of them are retained.
#[derive(Debug, Default)]
pub struct Board {
    version: Version,
    /// A handful of topics a sensor, bounded by the configuration.
    topics: BTreeMap<Rc<Place>, (Version, Bytes)>,
    by_version: BTreeMap<Version, Rc<Place>>,
    /// Uplinks that send nothing but what is theirs alone.
    veiled: BTreeSet<Box<str>>,
    /// What was cleared, the longest ago first.
    cleared: VecDeque<Rc<Place>>,
}

/// Topics of which the board still tells, at each connect, that there is nothing any more. Of further ones those that were
/// cleared first are forgotten, and stay with a broker that was away since.
const MAX_CLEARED: usize = 256;

/// Where a piece of state goes.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// The only uplink that sends it; `None`: all do that send state.
    uplink: Option<Box<str>>,
    topic: Box<str>,
}

impl Board {
    /// Sets a topic's payload; an empty one removes what the broker retains. With an `uplink`, only that one sends it.
    /// Says whether that is news.
    pub fn set(&mut self, uplink: Option<&str>, topic: &str, payload: impl Into<Bytes>) -> bool {
        let payload = payload.into();
        let key = Rc::new(Place { uplink: uplink.map(Into::into), topic: topic.into() });
        if !payload.is_empty() {
            self.is_there_again(&key);
        }
        if self.topics.get(&key).is_some_and(|(_, current)| *current == payload) {
            return false;
        }
        self.version += 1;
        if let Some((old, _)) = self.topics.insert(key.clone(), (self.version, payload)) {
            self.by_version.remove(&old);
        }
        self.by_version.insert(self.version, key);
        true
    }

    /// These uplinks, and no others, send nothing but what is theirs alone.
    pub fn veil<'a>(&mut self, uplinks: impl Iterator<Item = &'a str>) {
        self.veiled = uplinks.map(Into::into).collect();
    }

    /// An uplink has nothing on that topic any more: what its broker retains there is removed.
    pub fn clear(&mut self, uplink: &str, topic: &str) {
        if self.set(Some(uplink), topic, Bytes::new()) {
            self.cleared.push_back(Rc::new(Place { uplink: Some(uplink.into()), topic: topic.into() }));
        }
        while self.cleared.len() > MAX_CLEARED {
            let Some(oldest) = self.cleared.pop_front() else { break };
            self.take(&oldest);
        }
    }

    /// An uplink has something on that topic again, which is no state: nothing is told of it any more.
    pub fn reuse(&mut self, uplink: &str, topic: &str) {
        self.is_there_again(&Place { uplink: Some(uplink.into()), topic: topic.into() });
    }

    /// Forgets a topic that all uplinks send; nobody is told.
    pub fn forget(&mut self, topic: &str) {
        self.take(&Place { uplink: None, topic: topic.into() });
    }

    /// Forgets a topic that an uplink alone sends; nobody is told.
    pub fn forget_of(&mut self, uplink: &str, topic: &str) {
        self.take(&Place { uplink: Some(uplink.into()), topic: topic.into() });
    }

    /// Forgets all that an uplink alone sends; nobody is told.
    pub fn forget_uplink(&mut self, uplink: &str) {
        let own = |place: &Place| place.uplink.as_deref() == Some(uplink);
        let places: Vec<Rc<Place>> = self.topics.keys().filter(|place| own(place)).cloned().collect();
        for place in places {
            self.take(&place);
        }
        self.cleared.retain(|place| !own(place));
    }

    fn take(&mut self, place: &Place) {
        if let Some((version, _)) = self.topics.remove(place) {
            self.by_version.remove(&version);
        }
    }

    /// A topic that was cleared is used anew.
    fn is_there_again(&mut self, place: &Place) {
        let same = |other: &Place| {
            other.topic == place.topic && place.uplink.as_ref().is_none_or(|only| other.uplink.as_ref() == Some(only))
        };
        if self.cleared.iter().any(|other| same(other)) {
            let (again, still) = std::mem::take(&mut self.cleared).into_iter().partition(|other| same(other));
            self.cleared = still;
            let again: VecDeque<Rc<Place>> = again;
            for place in again {
                self.take(&place);
            }
        }
    }

    /// What only this uplink sends counts as changed, so that it is sent again.
    pub fn renew(&mut self, uplink: &str) {
        let own = |place: &Rc<Place>| place.uplink.as_deref() == Some(uplink);
        let places: Vec<Rc<Place>> = self.topics.keys().filter(|place| own(place)).cloned().collect();
        for place in places {
            self.version += 1;
            if let Some((version, _)) = self.topics.get_mut(&place) {
                self.by_version.remove(version);
                *version = self.version;
                self.by_version.insert(self.version, place);
            }
        }
    }

    /// The next change for an uplink after that version: its own version, topic and payload.
    #[must_use]
    pub fn next_after(&self, version: Version, uplink: &str) -> Option<(Version, &str, &Bytes)> {
        let veiled = self.veiled.contains(uplink);
        let for_it = |place: &Place| place.uplink.as_deref().map_or(!veiled, |only| only == uplink);
        let (version, place) = self.by_version.range(version + 1..).find(|(_, place)| for_it(place))?;
        let (_, payload) = self.topics.get(place)?;
        Some((*version, &place.topic, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::FaultCode;

    fn changes(board: &Board, mut after: Version) -> Vec<(String, String)> {
        let mut found = Vec::new();
        while let Some((version, topic, payload)) = board.next_after(after, "home") {
            found.push((topic.to_owned(), String::from_utf8_lossy(payload).into_owned()));
            after = version;
        }
        found
    }

    #[test]
    fn only_the_latest_of_each_topic_is_sent() {
        let mut board = Board::default();
        assert!(board.set(None, "a", "1"));
        assert!(board.set(None, "b", "2"));
        assert!(!board.set(None, "b", "2"), "no news");
        let seen = board.version;
        assert!(board.set(None, "a", "3"));
        assert!(board.set(None, "a", "4"));
        let pair = |topic: &str, payload: &str| (topic.to_owned(), payload.to_owned());
        assert_eq!(changes(&board, 0), [pair("b", "2"), pair("a", "4")]);
        assert_eq!(changes(&board, seen), [pair("a", "4")]);
    }

    #[test]
    fn what_is_one_uplinks_alone_is_sent_by_no_other_and_can_be_sent_again() {
        let mut board = Board::default();
        board.set(None, "a", "1");
        board.set(Some("other"), "a", "2");
        board.set(Some("home"), "b", "3");
        let pair = |topic: &str, payload: &str| (topic.to_owned(), payload.to_owned());
        assert_eq!(changes(&board, 0), [pair("a", "1"), pair("b", "3")]);
        let seen = board.version;
        board.renew("other");
        assert_eq!(changes(&board, seen), []);
        board.renew("home");
        assert_eq!(changes(&board, seen), [pair("b", "3")]);
        assert_eq!(changes(&board, 0).len(), 2);
    }

    #[test]
    fn what_is_cleared_is_told_until_it_is_used_again_and_is_bounded() {
        let mut board = Board::default();
        let pair = |topic: &str, payload: &str| (topic.to_owned(), payload.to_owned());
        board.set(None, "a", "1");
        board.forget("a");
        board.clear("home", "a");
        board.clear("home", "b");
        board.clear("other", "c");
        assert_eq!(changes(&board, 0), [pair("a", ""), pair("b", "")]);
        // State is back, and readings are.
        board.set(None, "a", "2");
        board.reuse("home", "b");
        assert_eq!(changes(&board, 0), [pair("a", "2")]);
        let seen = board.version;
        board.clear("home", "b");
        assert_eq!(changes(&board, seen), [pair("b", "")], "it is news again");
        for number in 0..2 * MAX_CLEARED {
            board.clear("home", &number.to_string());
        }
        assert_eq!(changes(&board, 0).len(), 1 + MAX_CLEARED);
        board.forget_uplink("home");
        assert_eq!(changes(&board, 0), [pair("a", "2")]);
        assert!(board.cleared.is_empty());
    }

    #[test]
    fn state_is_put_in_words() {
        let fault = Fault::new(FaultCode::Crc, "bad \"scratchpad\"");
        assert_eq!(
            sensor_availability(Err(&fault)),
            r#"{"state":"fault","reason":"crc","detail":"bad \"scratchpad\""}"#
        );
        assert_eq!(sensor_availability(Ok(())), r#"{"state":"online"}"#);
        assert_eq!(gateway_topic(Some("maison"), "atelier", "info"), "maison/atelier/info");
        assert_eq!(gateway_topic(None, "atelier", "availability"), "atelier/availability");
    }

    #[test]
    fn info_says_what_runs() {
        let mut info = Info { version: "0.1.0", configuration: "9ab3".to_owned(), run: 17, ..Info::default() };
        assert_eq!(info.to_json(), r#"{"version":"0.1.0","configuration":"9ab3","run":17}"#);
        let expires = CertificateInfo { whose: "client", expires: "2027-01-01T00:00:00Z".to_owned() };
        info.certificates.insert("home".to_owned(), expires);
        assert!(
            info.to_json().ends_with(r#""certificates":{"home":{"whose":"client","expires":"2027-01-01T00:00:00Z"}}}"#)
        );
    }
}
