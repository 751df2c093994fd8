//! What the broker refuses or drops, counted by reason, and in the log at most once a minute each.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::logging::AUDIT;

/// The log has at most one line a reason in this time.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Why something was refused or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A connection: there are as many as there may be.
    Connections,
    /// A connection: its address has as many as one may have.
    ConnectionsOfAddress,
    /// A connection: its address opened too many in a short time.
    ConnectRate,
    /// A connection that did not come to the end of its TLS or WebSocket handshake, or of its CONNECT.
    Handshake,
    /// A login with a wrong name, password or client identifier.
    Login,
    /// A login that was not looked at, after too many wrong ones from its address.
    LoginBlocked,
    /// A message on a topic that its publisher may not write.
    Write,
    /// A subscription to topics that the client may not read.
    Read,
    /// A topic that is too long or has too many levels.
    Topic,
    /// A message for a client that has too many, or too many bytes, waiting.
    Queue,
    /// A message that was dropped from a queue of the broker's own, or expired there.
    Dropped,
    /// A client that publishes faster than it may; its messages are taken later, none is lost.
    MessageRate,
    /// A message that does not go up: its payload is larger than it may be.
    IngestSize,
    /// A message that does not go up: there are as many topics as there may be.
    IngestTopics,
    /// A message of QoS 0 that does not go up: too many come.
    IngestRate,
    /// A message that does not go up: nothing can be made of it.
    IngestUnfit,
    /// A message that the outbox does not take now; its publisher is to send it again.
    IngestFull,
    /// A message that a bridge brings on a topic that goes up.
    CameBack,
    /// A connection that was let in with a token, which has expired since.
    TokenExpired,
}

impl Refusal {
    const ALL: [Self; 19] = [
        Self::Connections,
        Self::ConnectionsOfAddress,
        Self::ConnectRate,
        Self::Handshake,
        Self::Login,
        Self::LoginBlocked,
        Self::Write,
        Self::Read,
        Self::Topic,
        Self::Queue,
        Self::Dropped,
        Self::MessageRate,
        Self::IngestSize,
        Self::IngestTopics,
        Self::IngestRate,
        Self::IngestUnfit,
        Self::IngestFull,
        Self::CameBack,
        Self::TokenExpired,
    ];

    /// Its name where it is counted.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsOfAddress => "connections-of-address",
            Self::ConnectRate => "connect-rate",
            Self::Handshake => "handshake",
            Self::Login => "login",
            Self::LoginBlocked => "login-blocked",
            Self::Write => "write",
            Self::Read => "read",
            Self::Topic => "topic",
            Self::Queue => "queue",
            Self::Dropped => "dropped",
            Self::MessageRate => "message-rate",
            Self::IngestSize => "ingest-size",
            Self::IngestTopics => "ingest-topics",
            Self::IngestRate => "ingest-rate",
            Self::IngestUnfit => "ingest-unfit",
            Self::IngestFull => "ingest-full",
            Self::CameBack => "came-back",
            Self::TokenExpired => "token-expired",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Connections => "connection refused: the broker has `connections` clients",
            Self::ConnectionsOfAddress => "connection refused: its address has too many",
            Self::ConnectRate => "connection refused: its address connects too often (`connect_rate`)",
            Self::Handshake => "connection closed: it did not come to the end of its handshake",
            Self::Login => "login refused",
            Self::LoginBlocked => "login refused unseen, after too many wrong ones from its address",
            Self::Write => "message refused: its publisher may not write that topic",
            Self::Read => "subscription refused: the client may not read those topics",
            Self::Topic => "topic refused: it is too long or too deep",
            Self::Queue => "message dropped: too much waits for this client (`queue`, `queue_bytes`)",
            Self::Dropped => "message dropped: it expired, or its client's queue was full",
            Self::MessageRate => "client slowed down: it publishes faster than `message_rate`",
            Self::IngestSize => "message stays on the LAN: it is larger than `max_bytes` of its [[broker.ingest]]",
            Self::IngestTopics => "message stays on the LAN: its [[broker.ingest]] has `max_topics` topics",
            Self::IngestRate => "message stays on the LAN: its [[broker.ingest]] takes no more than `rate`",
            Self::IngestUnfit => "message stays on the LAN: nothing can be made of it",
            Self::IngestFull => "message not acknowledged: the outbox does not take it now",
            Self::CameBack => "message of a bridge dropped: its topic goes up, and nothing comes down on it",
            Self::TokenExpired => "connection closed: the token that it came in with has expired",
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    total: [u64; Refusal::ALL.len()],
    unlogged: [u64; Refusal::ALL.len()],
    logged: [Option<Instant>; Refusal::ALL.len()],
}

/// The counts since the process began.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Counts>);

impl Refusals {
    /// Counts one, and logs it with what it is about unless the last line is too young.
    pub(super) fn note(&self, refusal: Refusal, about: &dyn std::fmt::Display) {
        self.note_at(refusal, about, Instant::now());
    }

    fn note_at(&self, refusal: Refusal, about: &dyn std::fmt::Display, now: Instant) -> bool {
        let index = refusal as usize;
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total[index] += 1;
        if counts.logged[index].is_some_and(|last| now.saturating_duration_since(last) < LOG_EVERY) {
            counts.unlogged[index] += 1;
            return false;
        }
        counts.logged[index] = Some(now);
        let before = std::mem::take(&mut counts.unlogged[index]);
        let total = counts.total[index];
        drop(counts);
        let text = refusal.text();
        if matches!(refusal, Refusal::Login | Refusal::LoginBlocked) {
            tracing::warn!(target: AUDIT, audit = "login", total, unlogged_before = before, "broker: {text}: {about}");
        } else {
            tracing::warn!(total, unlogged_before = before, "broker: {text}: {about}");
        }
        true
    }

    /// How many there were of each reason, where there were any.
    pub(super) fn all(&self) -> BTreeMap<&'static str, u64> {
        let totals = self.0.lock().unwrap_or_else(PoisonError::into_inner).total;
        Refusal::ALL
            .iter()
            .zip(totals)
            .filter(|(_, total)| *total > 0)
            .map(|(why, total)| (why.as_str(), total))
            .collect()
    }

    /// How many there were.
    pub(super) fn count(&self, refusal: Refusal) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).total[refusal as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_logged_at_most_once_a_minute_and_always_counted() {
        let refusals = Refusals::default();
        let start = Instant::now();
        assert!(refusals.note_at(Refusal::Login, &"a", start));
        for second in 1..60 {
            assert!(!refusals.note_at(Refusal::Login, &"a", start + Duration::from_secs(second)));
        }
        assert!(refusals.note_at(Refusal::Write, &"b", start + Duration::from_secs(1)), "another reason");
        assert!(refusals.note_at(Refusal::Login, &"a", start + LOG_EVERY));
        assert_eq!((refusals.count(Refusal::Login), refusals.count(Refusal::Write)), (61, 1));
        assert_eq!(refusals.all(), BTreeMap::from([("login", 61), ("write", 1)]));
    }

    #[test]
    fn every_reason_has_a_place() {
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, index);
        }
    }
}
