//! What the broker says about itself: topics below `$SYS/broker`, named as Mosquitto does.
//!
//! They are never stored. Whoever subscribes gets the latest at once, as if they were retained, and what has changed from
//! time to time. `#` does not match them (MQTT 3.1.1, 4.7.2).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rmqtt::context::ServerContext;
use rmqtt::session::SessionState;
use rmqtt::types::{ClientId, From as Sender, Id, Retain, TopicName};

use super::convert;
use super::shared::Shared;
use super::store::record::Message;
use crate::topic::filter::matches;

/// What the topics begin with.
const PREFIX: &str = "$SYS/";
/// Whom these messages come from; no client has that identifier.
const SENDER: &str = "$SYS";

/// Messages since the process began.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Traffic {
    /// How many clients have published, and how many were sent to clients.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.received.load(Ordering::Relaxed), self.sent.load(Ordering::Relaxed))
    }

    /// A client has published one.
    pub(super) fn received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    /// One was sent to a client.
    pub(super) fn sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }
}

/// The latest values, by topic.
#[derive(Debug, Default)]
pub(super) struct Latest(Mutex<BTreeMap<&'static str, String>>);

impl Latest {
    /// Those that a filter matches, as retained messages.
    pub(super) fn get(&self, filter: &str) -> Vec<(TopicName, Retain)> {
        if !filter.starts_with(PREFIX) {
            return Vec::new();
        }
        let latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = latest.iter().filter(|(topic, _)| matches(filter, topic));
        found.map(|(topic, value)| (TopicName::from_static(topic), convert::retain(&message(topic, value)))).collect()
    }

    /// Takes new values; gives those that have changed.
    fn set(&self, values: Vec<(&'static str, String)>) -> Vec<(&'static str, String)> {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        values
            .into_iter()
            .filter(|(topic, value)| latest.insert(topic, value.clone()).as_ref() != Some(value))
            .collect()
    }
}

fn message(topic: &str, value: &str) -> Message {
    Message { topic: topic.into(), payload: value.to_owned().into(), qos: 0, from: SENDER.into(), properties: None }
}

/// Says it again and again. Where that is switched off, nothing is ever said.
pub(super) async fn run(context: &ServerContext, shared: &Shared, interval: Duration) {
    if interval.is_zero() {
        return std::future::pending().await;
    }
    let start = Instant::now();
    let from = Sender::from_system(Id::from(super::server::NODE, ClientId::from_static(SENDER)));
    loop {
        let values = values(context, shared, start.elapsed()).await;
        for (topic, value) in shared.latest.set(values) {
            let publish = convert::publish(&message(topic, &value), 0, false, &[]);
            if let Err(error) = SessionState::forwards(context, from.clone(), publish, false, None).await {
                tracing::warn!(%error, topic, "broker: it cannot say how it is");
            }
        }
        tokio::time::sleep(interval).await;
    }
}

async fn values(context: &ServerContext, shared: &Shared, uptime: Duration) -> Vec<(&'static str, String)> {
    let (connected, sessions) = (context.connections.count().max(0), context.sessions.count().max(0));
    let subscriptions = context.extends.shared().await.subscriptions_count().await;
    let (retained, stored) = (shared.retained.stats(), shared.store().stats());
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed).to_string();
    vec![
        ("$SYS/broker/version", concat!("vigie version ", env!("CARGO_PKG_VERSION")).to_owned()),
        ("$SYS/broker/uptime", format!("{} seconds", uptime.as_secs())),
        ("$SYS/broker/clients/connected", connected.to_string()),
        ("$SYS/broker/clients/disconnected", (sessions - connected).max(0).to_string()),
        ("$SYS/broker/clients/total", sessions.to_string()),
        ("$SYS/broker/messages/received", count(&shared.traffic.received)),
        ("$SYS/broker/messages/sent", count(&shared.traffic.sent)),
        ("$SYS/broker/messages/stored", stored.messages.to_string()),
        ("$SYS/broker/publish/messages/dropped", shared.dropped().to_string()),
        ("$SYS/broker/retained messages/count", retained.messages.to_string()),
        ("$SYS/broker/subscriptions/count", subscriptions.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_them_gets_the_latest_and_changes_are_said_once() {
        let latest = Latest::default();
        let values =
            |uptime: &str| vec![("$SYS/broker/version", "1".to_owned()), ("$SYS/broker/uptime", uptime.to_owned())];
        assert_eq!(latest.set(values("1")).len(), 2);
        assert_eq!(latest.set(values("2")), [("$SYS/broker/uptime", "2".to_owned())]);
        let topics = |filter: &str| -> Vec<String> {
            latest
                .get(filter)
                .into_iter()
                .map(|(topic, retain)| format!("{topic}={:?}", retain.publish.payload))
                .collect()
        };
        assert_eq!(topics("$SYS/#"), ["$SYS/broker/uptime=b\"2\"", "$SYS/broker/version=b\"1\""]);
        assert_eq!(topics("$SYS/broker/version"), ["$SYS/broker/version=b\"1\""]);
        assert!(topics("#").is_empty() && topics("+/broker/version").is_empty());
    }
}
