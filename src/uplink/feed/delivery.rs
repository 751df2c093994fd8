//! The way down to LAN clients: messages of this uplink's broker become records that the embedded broker's uplink sends.

use std::time::Duration;

use crate::clock::BootTime;
use crate::config::Deliver;
use crate::outbox::{Body, Outbox, Raw};
use crate::topic::{self, filter};

use super::super::packet::Message;
use super::Feed;

/// What is dropped is logged this often at most.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// It is for somebody else.
    NotForLan,
    /// It is in the outbox, or of no use: it can be acknowledged after the commit, at that time.
    Done(BootTime),
    /// There is no room for it now.
    Later,
}

impl Feed {
    /// Takes a message for LAN clients into the outbox.
    pub(super) fn deliver(&mut self, outbox: &mut Outbox, message: &Message, now: BootTime) -> Delivery {
        let is_of = |deliver: &&Deliver| deliver.topics.iter().any(|from| filter::matches(from, &message.topic));
        let Some(rule) = self.deliver.iter().position(|deliver| is_of(&deliver)) else { return Delivery::NotForLan };
        let deliver = &self.deliver[rule];
        let raw = match record(deliver, message) {
            Ok(raw) => raw,
            Err(why) => {
                self.refuse_delivery(message, &why, now);
                return Delivery::Done(now);
            }
        };
        // A flood above must not become one on the LAN.
        let due = self.brake.take(rule, message.qos, now);
        let Some(due) = due else {
            self.refuse_delivery(message, "more than `rate` come", now);
            return Delivery::Done(now);
        };
        // Readings have nobody who would send them again; this message has.
        if outbox.congested() || outbox.append(now, None, Body::Raw(raw)).is_empty() {
            self.refuse_delivery(message, "the outbox has no room for it", now);
            return Delivery::Later;
        }
        self.counters.delivered.add(1);
        self.delivered = true;
        self.dirty = true;
        Delivery::Done(due)
    }

    fn refuse_delivery(&mut self, message: &Message, why: &str, now: BootTime) {
        self.counters.delivery_refused.add(1);
        if self.ignored_logged.is_none_or(|last| now.since(last) >= LOG_INTERVAL) {
            self.ignored_logged = Some(now);
            let (uplink, topic) = (&self.uplink, message.topic.escape_debug());
            tracing::warn!(uplink, %topic, "a message for the LAN is not delivered: {why}");
        }
    }
}

fn record(deliver: &Deliver, message: &Message) -> Result<Raw, String> {
    if message.payload.len() > deliver.max_bytes {
        return Err(format!("{} bytes are more than `max_bytes`", message.payload.len()));
    }
    let to = deliver.to.fill(&message.topic).ok_or("its topic has too few levels for `to`")?;
    topic::check(&to).map_err(|why| format!("its topic on the LAN {why}"))?;
    Ok(Raw::down(&to, &message.payload, deliver.retain))
}
