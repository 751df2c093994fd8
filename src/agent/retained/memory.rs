//! What brokers retain for us, remembered across starts: what a later configuration has no more use for is taken back, as
//! a reload does.
//!
//! It is in the outbox's state, a value an uplink. Sensors of LAN clients, which no configuration names, are not in it:
//! they are met anew at each start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::names::Names;
use super::{Retained, Sweep, Sweeps};
use crate::agent::sensors::Facts;
use crate::clock::BootTime;
use crate::config::{BROKER_UPLINK, BrokerUrl, UplinkConfig};
use crate::reading::Descriptor;
use crate::uplink::Hub;

/// Before an uplink's name: the key of what its broker retains.
const PREFIX: &str = "retained/";

/// Bytes that are remembered of an uplink: about a thousand topics. Where there is more, nothing is remembered.
const MAX_REMEMBERED: usize = 48 * 1_024;

/// What was learnt of sensors is taken down this often at most.
const LEARN_EVERY: Duration = Duration::from_secs(5);

/// What the broker of an uplink retains.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    /// The gateway's `id`: a copy of it must not take back what is the original's.
    id: String,
    /// Its brokers; empty for the embedded one, whose port may be another one each time.
    urls: Vec<String>,
    gateway: Retained,
    sensors: BTreeMap<String, Retained>,
    /// Topics that are to be cleared, and were not when this was written.
    pending: BTreeSet<String>,
    /// What the quantities of sensors were called whose devices name them, where the configuration renames some.
    names: BTreeMap<String, Names>,
}

/// What is remembered, and of whom.
#[derive(Debug, Default)]
pub(in crate::agent) struct Memory {
    uplinks: Vec<UplinkConfig>,
    /// The configuration's sensors by name.
    sensors: BTreeMap<String, Facts>,
    /// Since when there is something to be taken down.
    learnt: Option<BootTime>,
    warned: bool,
}

impl Memory {
    /// A start with these uplinks and sensors: what the last configuration has left behind is to be swept.
    pub(in crate::agent) fn start(hub: &Hub, uplinks: &[UplinkConfig], sensors: &[Facts]) -> (Self, Sweeps) {
        forget_former_uplinks(hub, uplinks);
        let mut sweeps = Vec::new();
        for uplink in uplinks {
            let Some(mut before) = recall(hub, uplink) else { continue };
            let now: BTreeMap<&str, Retained> =
                sensors.iter().map(|facts| (facts.name.as_str(), at_start(hub, uplink, facts, &before))).collect();
            let mut used = Retained::of_gateway(uplink, &hub.gateway);
            now.values().for_each(|retained| used.add(retained));
            let mut left = std::mem::take(&mut before.gateway);
            before.sensors.values().for_each(|retained| left.add(retained));
            let Retained { mut state, readings } = left.without(&used);
            state.extend(readings);
            state.extend(before.pending.into_iter().filter(|topic| !used.holds(topic)));
            if !state.is_empty() {
                let (name, topics) = (&uplink.name, state.len());
                info!(
                    uplink = name,
                    topics, "what the configuration has no longer is going to be taken back from the broker"
                );
                sweeps.push(Sweep::new(hub, uplink, state));
            }
        }
        let memory = Self { uplinks: uplinks.to_vec(), ..Self::of(sensors) };
        (memory, Sweeps(sweeps))
    }

    fn of(sensors: &[Facts]) -> Self {
        let sensors = sensors.iter().map(|facts| (facts.name.clone(), facts.clone()));
        Self { sensors: sensors.collect(), ..Self::default() }
    }

    /// Goes on with another configuration.
    pub(in crate::agent) fn renew(&mut self, hub: &Hub, uplinks: &[UplinkConfig], sensors: &[Facts]) {
        forget_former_uplinks(hub, uplinks);
        *self = Self { uplinks: uplinks.to_vec(), warned: self.warned, ..Self::of(sensors) };
        self.learn(hub.clock.boot());
    }

    /// Names that quantities of a sensor may have had until now, and have no more with this configuration.
    pub(in crate::agent) fn former_names(&self, now: &Facts) -> Vec<String> {
        let names = self.sensors.get(&now.name).map(Names::of).unwrap_or_default();
        names.former(now).map(str::to_owned).collect()
    }

    /// Something about sensors or sweeps is news.
    pub(in crate::agent) fn learn(&mut self, now: BootTime) {
        self.learnt.get_or_insert(now);
    }

    /// How long until news are to be taken down.
    pub(in crate::agent) fn due(&self, now: BootTime) -> Option<Duration> {
        self.learnt.map(|since| LEARN_EVERY.saturating_sub(now.since(since)))
    }

    /// Takes down what is known of these sensors now; safe with the next commit.
    pub(in crate::agent) fn take_down(&mut self, hub: &Hub, sensors: &[Arc<Descriptor>], sweeps: &mut Sweeps) {
        self.learnt = None;
        let sensors: Vec<(&Arc<Descriptor>, &Facts)> =
            sensors.iter().filter_map(|sensor| Some((sensor, self.sensors.get(&*sensor.sensor)?))).collect();
        for uplink in &self.uplinks {
            let mut now = Remembered {
                id: hub.gateway.id.clone(),
                urls: urls(uplink),
                gateway: Retained::of_gateway(uplink, &hub.gateway),
                ..Remembered::default()
            };
            let (before, mut used) = (recall(hub, uplink).unwrap_or_default(), now.gateway.clone());
            for (sensor, facts) in &sensors {
                let retained = Retained::of_sensor(uplink, &hub.gateway, sensor);
                used.add(&retained);
                now.sensors.insert(facts.name.clone(), retained.with(&before, facts, hub, uplink));
                let names = Names::of(facts);
                if facts.names_quantities() && !names.is_empty() {
                    now.names.insert(facts.name.clone(), names);
                }
            }
            sweeps.spare(&uplink.name, &used);
            hub.reuse(&uplink.name, used.readings.iter());
            now.pending = sweeps.topics(&uplink.name).cloned().collect();
            let key = format!("{PREFIX}{}", uplink.name);
            let stored = postcard::to_allocvec(&now).ok().filter(|stored| stored.len() <= MAX_REMEMBERED);
            if stored.is_none() && !std::mem::replace(&mut self.warned, true) {
                let uplink = &uplink.name;
                warn!(uplink, "its broker retains too much to remember all of it: what a restart leaves behind stays");
            }
            let outbox = &mut *hub.outbox.borrow_mut();
            if outbox.state(&key) != stored.as_deref() {
                outbox.put_state(&key, stored);
                outbox.persist_soon();
            }
        }
    }
}

/// What the broker is going to retain of a sensor that has not been read yet.
fn at_start(hub: &Hub, uplink: &UplinkConfig, facts: &Facts, before: &Remembered) -> Retained {
    Retained::of_sensor(uplink, &hub.gateway, &Arc::new(facts.known.clone())).with(before, facts, hub, uplink)
}

impl Retained {
    /// A device that names its quantities, and is where it was, may give anything that it ever gave, unless the
    /// configuration calls it otherwise now.
    fn with(mut self, before: &Remembered, facts: &Facts, hub: &Hub, uplink: &UplinkConfig) -> Self {
        let was = before.sensors.get(&facts.name).filter(|was| was.state == self.state);
        if let Some(was) = was.filter(|_| facts.names_quantities() && uplink.retain) {
            let none = Names::default();
            let names = before.names.get(&facts.name).unwrap_or(&none);
            let former = Self::of_names(uplink, &hub.gateway, &facts.known, names.former(facts));
            self.readings.extend(was.readings.difference(&former).cloned());
        }
        self
    }
}

fn urls(uplink: &UplinkConfig) -> Vec<String> {
    let urls = uplink.urls.iter().filter(|_| uplink.name != BROKER_UPLINK);
    urls.map(BrokerUrl::to_string).collect()
}

/// What is remembered of an uplink, unless it leads to another broker now, or this is another gateway.
fn recall(hub: &Hub, uplink: &UplinkConfig) -> Option<Remembered> {
    let outbox = hub.outbox.borrow();
    let stored = outbox.state(&format!("{PREFIX}{}", uplink.name))?;
    // A newer version's, or damaged: then it is made anew.
    let remembered: Remembered = postcard::from_bytes(stored).ok()?;
    (remembered.urls == urls(uplink) && remembered.id == hub.gateway.id).then_some(remembered)
}

/// Nobody can tell the broker of an uplink that is gone.
fn forget_former_uplinks(hub: &Hub, uplinks: &[UplinkConfig]) {
    let outbox = &mut *hub.outbox.borrow_mut();
    let is_there = |key: &str| uplinks.iter().any(|uplink| uplink.name == key[PREFIX.len()..]);
    let former: Vec<String> = outbox.state_keys(PREFIX).filter(|key| !is_there(key)).map(str::to_owned).collect();
    for key in former {
        outbox.put_state(&key, None);
    }
}
