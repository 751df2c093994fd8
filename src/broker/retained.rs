//! The retained messages, in memory.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rmqtt::retain::RetainStorage;
use rmqtt::types::{Retain, TopicFilter, TopicName};

use super::convert;
use super::shared::Shared;
use crate::topic::filter::matches;

/// What a message takes beside its topic and payload: publisher, properties, the map's node; estimated.
const OVERHEAD: usize = 512;

/// Counts of retained messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetainedStats {
    /// Topics that have one now.
    pub messages: usize,
    /// Bytes that they take, estimated.
    pub bytes: usize,
    /// Messages that were delivered and not retained, because a limit was reached.
    pub refused: u64,
}

/// The retained messages by topic.
///
/// When a limit is reached, a new one is delivered to those who are subscribed, and not kept; an older one on the same
/// topic goes all the same, since it no longer is the last.
#[derive(Debug)]
pub(super) struct Retained(Mutex<Messages>);

#[derive(Debug)]
struct Messages {
    /// Topics that may have one.
    max_messages: usize,
    /// Bytes of their topics and payloads, with [`OVERHEAD`] for each.
    max_bytes: usize,
    by_topic: BTreeMap<TopicName, Kept>,
    stats: RetainedStats,
    /// Since when nothing was refused, so that the log has one line for each time that the limit is reached.
    warned: bool,
}

#[derive(Debug)]
struct Kept {
    retain: Retain,
    /// When it must no longer be sent (MQTT 5, 3.3.2.3.3); `None`: never.
    expires: Option<Instant>,
}

impl Kept {
    fn expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    fn bytes(topic: &TopicName, retain: &Retain) -> usize {
        topic.len() + retain.publish.payload.len() + OVERHEAD
    }
}

impl Messages {
    fn remove(&mut self, topic: &TopicName) {
        if let Some(old) = self.by_topic.remove(topic) {
            self.stats.bytes -= Kept::bytes(topic, &old.retain);
        }
    }

    fn fits(&self, bytes: usize) -> bool {
        self.by_topic.len() < self.max_messages && self.stats.bytes + bytes <= self.max_bytes
    }

    fn remove_expired(&mut self, now: Instant, gone: &mut Vec<TopicName>) {
        let bytes = &mut self.stats.bytes;
        self.by_topic.retain(|topic, kept| {
            let keep = !kept.expired(now);
            if !keep {
                *bytes -= Kept::bytes(topic, &kept.retain);
                gone.push(topic.clone());
            }
            keep
        });
    }

    /// Keeps a message, or clears the topic where the payload is empty (MQTT 3.1.1, 3.3.1.3). Gives the topics that
    /// have none any more.
    fn set(&mut self, topic: &TopicName, retain: &Retain, now: Instant) -> Vec<TopicName> {
        self.remove(topic);
        let mut gone = vec![topic.clone()];
        if retain.publish.payload.is_empty() {
            return gone;
        }
        let bytes = Kept::bytes(topic, retain);
        if !self.fits(bytes) {
            self.remove_expired(now, &mut gone);
        }
        if !self.fits(bytes) {
            self.stats.refused += 1;
            if !std::mem::replace(&mut self.warned, true) {
                tracing::warn!(
                    topic = &**topic,
                    messages = self.by_topic.len(),
                    bytes = self.stats.bytes,
                    "the broker's limit of retained messages is reached: new ones are delivered and not kept"
                );
            }
            return gone;
        }
        self.warned = false;
        gone.remove(0);
        // Both are windows into the connection's read buffer, which they would keep alive as a whole.
        let topic = TopicName::from(topic.to_string());
        let mut retain = retain.clone();
        retain.publish.payload = bytes::Bytes::copy_from_slice(&retain.publish.payload);
        retain.publish.topic = topic.clone();
        let mut expires = None;
        if let Some(properties) = &mut retain.publish.properties {
            // An alias means something on the publisher's connection only.
            properties.topic_alias = None;
            expires = properties.message_expiry_interval.map(|seconds| now + Duration::from_secs(seconds.get().into()));
        }
        self.stats.bytes += bytes;
        self.by_topic.insert(topic, Kept { retain, expires });
        gone
    }

    fn get(&self, filter: &str, now: Instant) -> Vec<(TopicName, Retain)> {
        let fixed = fixed_levels(filter);
        self.by_topic
            .range::<str, _>((Bound::Included(fixed), Bound::Unbounded))
            .take_while(|(topic, _)| topic.starts_with(fixed))
            .filter(|(topic, kept)| !kept.expired(now) && matches(filter, topic))
            .map(|(topic, kept)| {
                let mut retain = kept.retain.clone();
                if let (Some(at), Some(properties)) = (kept.expires, &mut retain.publish.properties) {
                    // What is left of it, in whole seconds, at least one: it has not expired.
                    let left = at.saturating_duration_since(now).as_secs().max(1);
                    properties.message_expiry_interval = u32::try_from(left).ok().and_then(NonZeroU32::new);
                }
                (topic.clone(), retain)
            })
            .collect()
    }
}

/// The beginning that every topic matched by the filter has. `a/#` matches `a` too, so that the slash is not part of it.
fn fixed_levels(filter: &str) -> &str {
    match filter.find(['+', '#']) {
        Some(wildcard) => filter[..wildcard].strip_suffix('/').unwrap_or(&filter[..wildcard]),
        None => filter,
    }
}

impl Retained {
    pub(super) fn new(max_messages: usize, max_bytes: usize) -> Self {
        let (by_topic, stats) = (BTreeMap::new(), RetainedStats::default());
        Self(Mutex::new(Messages { max_messages, max_bytes, by_topic, stats, warned: false }))
    }

    /// Keeps a message, or clears its topic. Gives the topics that have none any more.
    pub(super) fn set(&self, retain: &Retain, now: Instant) -> Vec<TopicName> {
        self.lock().set(&retain.publish.topic, retain, now)
    }

    pub(super) fn stats(&self) -> RetainedStats {
        let messages = self.lock();
        RetainedStats { messages: messages.by_topic.len(), ..messages.stats }
    }

    fn lock(&self) -> MutexGuard<'_, Messages> {
        // Nothing that could panic leaves the map half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What rmqtt asks for its retained messages.
pub(super) struct Store(pub(super) Arc<Shared>);

#[async_trait]
impl RetainStorage for Store {
    fn enable(&self) -> bool {
        true
    }

    /// Only the message's own expiry counts: rmqtt's argument falls back to the limit of queued messages.
    async fn set(&self, topic: &TopicName, retain: Retain, _expiry: Option<Duration>) -> rmqtt::Result<()> {
        let now = Instant::now();
        let gone = self.0.retained.set(&retain, now);
        let mut store = self.0.store();
        if !gone.contains(topic) {
            let mut publish = retain.publish;
            convert::own(&mut publish);
            let message = convert::message(&publish, &retain.from.id.client_id);
            store.retain(Arc::clone(&message.topic), Some(message), now);
        }
        for topic in gone {
            store.retain(Arc::from(&*topic), None, now);
        }
        drop(store);
        self.0.wake_flusher();
        Ok(())
    }

    async fn get(&self, filter: &TopicFilter) -> rmqtt::Result<Vec<(TopicName, Retain)>> {
        let mut found = self.0.latest.get(filter);
        found.extend(self.0.retained.lock().get(filter, Instant::now()));
        Ok(found)
    }

    async fn count(&self) -> isize {
        isize::try_from(self.0.retained.stats().messages).unwrap_or(isize::MAX)
    }

    async fn max(&self) -> isize {
        isize::try_from(self.0.config.limits.retained).unwrap_or(isize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use rmqtt::codec::types::{Publish as Packet, QoS};
    use rmqtt::codec::v5::PublishProperties;
    use rmqtt::types::{ClientId, From as Sender, Id, Publish};

    use super::*;

    const MAX_MESSAGES: usize = 1000;
    const MAX_BYTES: usize = 1024 * 1024;

    fn retained() -> Retained {
        Retained::new(MAX_MESSAGES, MAX_BYTES)
    }

    fn message(topic: &str, payload: &[u8], expiry: Option<u32>) -> Retain {
        let properties = expiry.map(|seconds| PublishProperties {
            message_expiry_interval: NonZeroU32::new(seconds),
            ..PublishProperties::default()
        });
        let packet = Packet {
            dup: false,
            retain: true,
            qos: QoS::AtMostOnce,
            topic: topic.into(),
            packet_id: None,
            payload: payload.to_vec().into(),
            properties,
        };
        let from = Sender::from_custom(Id::from(1, ClientId::from_static("test")));
        Retain { msg_id: None, from, publish: Publish::from(packet) }
    }

    fn set(messages: &mut Messages, topic: &str, payload: &[u8], expiry: Option<u32>, now: Instant) {
        messages.set(&topic.into(), &message(topic, payload, expiry), now);
    }

    fn topics(messages: &Messages, filter: &str, now: Instant) -> Vec<String> {
        messages.get(filter, now).into_iter().map(|(topic, _)| topic.to_string()).collect()
    }

    #[test]
    fn filters_match_as_the_specification_says() {
        let now = Instant::now();
        let retained = retained();
        let mut messages = retained.lock();
        for topic in ["/a", "$SYS/x", "a", "a/", "a/b", "a/b/c", "ab", "b/b"] {
            set(&mut messages, topic, b"1", None, now);
        }
        let cases: [(&str, &[&str]); 13] = [
            ("a", &["a"]),
            ("a/b", &["a/b"]),
            ("a/#", &["a", "a/", "a/b", "a/b/c"]),
            ("a/+", &["a/", "a/b"]),
            ("a/+/c", &["a/b/c"]),
            ("+", &["a", "ab"]),
            ("+/+", &["/a", "a/", "a/b", "b/b"]),
            ("/+", &["/a"]),
            ("+/b", &["a/b", "b/b"]),
            ("+/b/#", &["a/b", "a/b/c", "b/b"]),
            ("#", &["/a", "a", "a/", "a/b", "a/b/c", "ab", "b/b"]),
            ("$SYS/#", &["$SYS/x"]),
            ("+/x", &[]),
        ];
        for (filter, expected) in cases {
            assert_eq!(topics(&messages, filter, now), expected, "{filter}");
        }
    }

    #[test]
    fn the_last_message_counts_and_an_empty_one_clears() {
        let now = Instant::now();
        let retained = retained();
        let mut messages = retained.lock();
        set(&mut messages, "a", b"first", None, now);
        set(&mut messages, "a", b"second", None, now);
        assert_eq!(&messages.get("a", now)[0].1.publish.payload[..], b"second");
        set(&mut messages, "a", b"", None, now);
        assert_eq!(topics(&messages, "#", now), Vec::<String>::new());
        drop(messages);
        assert_eq!(retained.stats(), RetainedStats::default());
    }

    #[test]
    fn a_message_expires_when_its_publisher_said_so() {
        let start = Instant::now();
        let retained = retained();
        let mut messages = retained.lock();
        set(&mut messages, "kept", b"1", None, start);
        set(&mut messages, "short", b"1", Some(10), start);
        let later = start + Duration::from_secs(4);
        let (_, short) = messages.get("short", later).remove(0);
        let left = short.publish.properties.as_ref().and_then(|properties| properties.message_expiry_interval);
        assert_eq!(left.map(NonZeroU32::get), Some(6));
        assert_eq!(topics(&messages, "#", start + Duration::from_secs(10)), ["kept"]);
    }

    #[test]
    fn both_limits_hold_and_refuse_without_keeping_what_is_outdated() {
        let start = Instant::now();
        let retained = retained();
        let mut messages = retained.lock();
        let half = vec![0; MAX_BYTES / 2 - 2 * OVERHEAD];
        set(&mut messages, "one", &half, Some(10), start);
        set(&mut messages, "two", &half, None, start);
        set(&mut messages, "three", &half, None, start);
        assert_eq!(topics(&messages, "#", start), ["one", "two"]);
        set(&mut messages, "two", &vec![0; MAX_BYTES], None, start);
        assert_eq!(topics(&messages, "#", start), ["one"], "the outdated message is gone");
        set(&mut messages, "two", &half, None, start);
        set(&mut messages, "three", &half, None, start + Duration::from_secs(10));
        assert_eq!(topics(&messages, "#", start), ["three", "two"], "what has expired makes room");
        assert_eq!(messages.stats.refused, 2);
        assert!(messages.stats.bytes <= MAX_BYTES);
        messages.remove(&"two".into());
        for number in 0..MAX_MESSAGES {
            set(&mut messages, &format!("n/{number}"), b"1", None, start);
        }
        drop(messages);
        assert_eq!(retained.stats().messages, MAX_MESSAGES);
        assert_eq!(retained.stats().refused, 3);
    }
}
