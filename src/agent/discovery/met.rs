//! Sensors of LAN clients, which no configuration names: they are announced when they are met. One that was announced and
//! is not met again at so many starts is taken away.

use std::collections::BTreeMap;

use super::{FORGOTTEN_AT, Occasion};
use crate::config::Config;
use crate::uplink::Hub;

/// Before an uplink's name: the key of what it has announced of them.
const PREFIX: &str = "discovery-met/";

/// Topics that are remembered; a further one is taken away with the next start, until its sensor is met again.
const MAX_TOPICS: usize = 512;

/// The topics on which an uplink has announced such sensors, with at how many starts since they were not met.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Met(BTreeMap<String, u8>);

impl Met {
    /// What an uplink announced in earlier runs and is still to be there.
    pub(super) fn recall(hub: &Hub, uplink: &str, occasion: Occasion) -> Self {
        let outbox = hub.outbox.borrow();
        let stored = outbox.state(&format!("{PREFIX}{uplink}"));
        let mut topics: BTreeMap<String, u8> =
            stored.and_then(|stored| postcard::from_bytes(stored).ok()).unwrap_or_default();
        if occasion == Occasion::Start {
            for unmet in topics.values_mut() {
                *unmet = unmet.saturating_add(1);
            }
            topics.retain(|_, unmet| *unmet < FORGOTTEN_AT);
        }
        Self(topics)
    }

    /// Their topics.
    pub(super) fn topics(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// One of them was met; `true`: that is to be saved.
    pub(super) fn meet(&mut self, topic: &str) -> bool {
        let is_full = self.0.len() >= MAX_TOPICS;
        match self.0.get_mut(topic) {
            Some(unmet) => std::mem::take(unmet) > 0,
            None if is_full => false,
            None => self.0.insert(topic.to_owned(), 0).is_none(),
        }
    }

    /// Remembers them; safe with the next commit.
    pub(super) fn save(&self, hub: &Hub, uplink: &str) {
        let key = format!("{PREFIX}{uplink}");
        let stored = if self.0.is_empty() { None } else { postcard::to_allocvec(&self.0).ok() };
        let outbox = &mut *hub.outbox.borrow_mut();
        if outbox.state(&key) != stored.as_deref() {
            outbox.put_state(&key, stored);
        }
    }
}

/// Forgets what uplinks have announced that are gone.
pub(super) fn forget_former_uplinks(config: &Config, hub: &Hub) {
    let outbox = &mut *hub.outbox.borrow_mut();
    let is_there = |key: &str| config.uplinks.iter().any(|uplink| uplink.name == key[PREFIX.len()..]);
    let former: Vec<String> = outbox.state_keys(PREFIX).filter(|key| !is_there(key)).map(str::to_owned).collect();
    for key in former {
        outbox.put_state(&key, None);
    }
}
