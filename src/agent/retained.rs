//! What brokers retain for us, and how it is taken back when a reload has no more use for it.
//!
//! State is taken back at once. A reading that was taken before must not come after its topic was cleared, or the broker
//! would retain it anew: so topics of readings are cleared when the uplink has brought everything away that the outbox
//! held then. After a start it is done in the same way, with what the [`memory`] says of the last configuration.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::{Connect, Format, Gateway, PayloadShape, UplinkConfig};
use crate::outbox::{CursorId, Seq};
use crate::reading::{Descriptor, Kind, Quantity};
use crate::topic::GATEWAY_STATE;
use crate::uplink::Hub;
use crate::uplink::encode::acceptable;
use crate::uplink::status::sensor_availability_topic;
use crate::uplink::veil::Veil;

pub(super) mod memory;
mod names;

/// Topics that are cleared at a time: fewer than the board of the state still tells at each connect.
const AT_ONCE: usize = 128;

/// The topics on which an uplink publishes what its broker retains.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Retained {
    /// Availability, and what concerns the gateway.
    pub(super) state: BTreeSet<String>,
    /// The latest readings.
    pub(super) readings: BTreeSet<String>,
}

impl Retained {
    /// Of the gateway and these sensors.
    pub(super) fn of(uplink: &UplinkConfig, gateway: &Gateway, sensors: &[Arc<Descriptor>]) -> Self {
        let mut retained = Self::of_gateway(uplink, gateway);
        for sensor in sensors {
            retained.add(&Self::of_sensor(uplink, gateway, sensor));
        }
        retained
    }

    fn of_gateway(uplink: &UplinkConfig, gateway: &Gateway) -> Self {
        let mut retained = Self::default();
        if uplink.state {
            let veil = Veil::new(&uplink.privacy);
            retained.state.extend(GATEWAY_STATE.map(|leaf| veil.gateway_topic(gateway, leaf)));
        }
        retained
    }

    fn of_sensor(uplink: &UplinkConfig, gateway: &Gateway, sensor: &Arc<Descriptor>) -> Self {
        let mut retained = Self::default();
        let (sent, template) = (Veil::new(&uplink.privacy).descriptor(sensor), &gateway.topic);
        if uplink.state {
            retained.state.insert(sensor_availability_topic(template, &sent));
        }
        if uplink.retain && uplink.selection.holds(&sensor.sensor, sensor.room.as_deref()) {
            let readings = sent.quantities.iter().filter(|quantity| quantity.kind != Kind::Event);
            let topics = readings.map(|quantity| match (quantity.kind, uplink.payload.shape, uplink.payload.format) {
                (Kind::Bytes, ..) | (_, _, Format::Value) | (_, PayloadShape::Quantity, _) => {
                    uplink.payload.quantity_topic(template, &sent, quantity)
                }
                (_, PayloadShape::Sensor, _) => uplink.payload.sensor_topic(template, &sent),
            });
            retained.readings.extend(topics.filter_map(acceptable).map(String::from));
        }
        retained
    }

    /// The topics of readings of quantities with these names.
    fn of_names<'n>(
        uplink: &UplinkConfig,
        gateway: &Gateway,
        sensor: &Descriptor,
        names: impl Iterator<Item = &'n str>,
    ) -> BTreeSet<String> {
        let quantities = names.map(|name| Quantity::new(name, None, Kind::Number)).collect();
        let sensor = Arc::new(Descriptor { quantities, ..sensor.clone() });
        let sent = Veil::new(&uplink.privacy).descriptor(&sensor);
        let topic = |quantity| acceptable(uplink.payload.quantity_topic(&gateway.topic, &sent, quantity));
        sent.quantities.iter().filter_map(topic).map(String::from).collect()
    }

    fn add(&mut self, other: &Self) {
        self.state.extend(other.state.iter().cloned());
        self.readings.extend(other.readings.iter().cloned());
    }

    fn holds(&self, topic: &str) -> bool {
        self.state.contains(topic) || self.readings.contains(topic)
    }

    /// What of it is not retained any more where this is.
    pub(super) fn without(&self, later: &Self) -> Self {
        // A topic may have been of one kind and be of the other.
        let gone = |topics: &BTreeSet<String>| topics.iter().filter(|topic| !later.holds(topic)).cloned().collect();
        Self { state: gone(&self.state), readings: gone(&self.readings) }
    }
}

/// Topics that are to be cleared.
#[derive(Debug)]
pub(super) struct Sweep {
    uplink: String,
    cursor: CursorId,
    /// When the uplink has acknowledged everything before this position.
    after: Seq,
    /// Is it connected now and then only? Then it is not waited for.
    sleeps: bool,
    topics: BTreeSet<String>,
}

impl Sweep {
    /// When everything is through that the outbox holds now.
    pub(super) fn new(hub: &Hub, uplink: &UplinkConfig, topics: BTreeSet<String>) -> Self {
        let outbox = &mut *hub.outbox.borrow_mut();
        let (cursor, after) = (outbox.cursor(&uplink.name), outbox.end());
        Self { uplink: uplink.name.clone(), cursor, after, sleeps: uplink.connect != Connect::Always, topics }
    }

    /// Can it be done now?
    fn is_due(&self, hub: &Hub) -> bool {
        let is_reached = self.sleeps || hub.counters(&self.uplink).presence.get().connected;
        is_reached && hub.outbox.borrow().low(self.cursor) >= self.after
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Sweeps(Vec<Sweep>);

impl Sweeps {
    /// Is there anything to be done?
    pub(super) fn wait(&self) -> bool {
        !self.0.is_empty()
    }

    /// Takes up what a reload leaves; `used` says what an uplink, if it is still there, retains from now on.
    pub(super) fn take<'u>(&mut self, new: Vec<Sweep>, used: impl Fn(&str) -> Option<&'u Retained>) {
        self.0.extend(new);
        self.0.retain_mut(|sweep| {
            let Some(used) = used(&sweep.uplink) else { return false };
            sweep.topics.retain(|topic| !used.holds(topic));
            !sweep.topics.is_empty()
        });
    }

    /// These topics of an uplink are used.
    fn spare(&mut self, uplink: &str, used: &Retained) {
        for sweep in self.0.iter_mut().filter(|sweep| sweep.uplink == uplink) {
            sweep.topics.retain(|topic| !used.holds(topic));
        }
        self.0.retain(|sweep| !sweep.topics.is_empty());
    }

    /// What is still to be cleared of an uplink.
    fn topics(&self, uplink: &str) -> impl Iterator<Item = &String> {
        self.0.iter().filter(move |sweep| sweep.uplink == uplink).flat_map(|sweep| &sweep.topics)
    }

    /// Clears what is due, [`AT_ONCE`] topics at a time. Says whether there was anything.
    pub(super) fn look(&mut self, hub: &Hub) -> bool {
        let mut cleared = false;
        for sweep in self.0.iter_mut().filter(|sweep| sweep.is_due(hub)) {
            let rest = sweep.topics.iter().nth(AT_ONCE).cloned().map(|at| sweep.topics.split_off(&at));
            hub.clear(&sweep.uplink, sweep.topics.iter());
            sweep.topics = rest.unwrap_or_default();
            cleared = true;
        }
        self.0.retain(|sweep| !sweep.topics.is_empty());
        cleared
    }
}
