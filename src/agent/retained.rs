//! What brokers retain for us, and how it is taken back when a reload has no more use for it.
//!
//! State is taken back at once. A reading that was taken before must not come after its topic was cleared, or the broker
//! would retain it anew: so topics of readings are cleared when the uplink has brought everything away that the outbox
//! held then.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::{Format, Gateway, PayloadShape, UplinkConfig};
use crate::outbox::{CursorId, Seq};
use crate::reading::{Descriptor, Kind};
use crate::uplink::Hub;
use crate::uplink::encode::acceptable;
use crate::uplink::status::{GATEWAY_LEAVES, sensor_availability_topic};
use crate::uplink::veil::Veil;

/// The topics on which an uplink publishes what its broker retains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Retained {
    /// Availability, and what concerns the gateway.
    pub(super) state: BTreeSet<String>,
    /// The latest readings.
    pub(super) readings: BTreeSet<String>,
}

impl Retained {
    /// Of these sensors.
    pub(super) fn of(uplink: &UplinkConfig, gateway: &Gateway, sensors: &[Arc<Descriptor>]) -> Self {
        let mut retained = Self::default();
        let veil = Veil::new(&uplink.privacy);
        let template = &gateway.topic;
        if uplink.state {
            retained.state.extend(GATEWAY_LEAVES.map(|leaf| veil.gateway_topic(gateway, leaf)));
        }
        for sensor in sensors {
            let sent = veil.descriptor(sensor);
            if uplink.state {
                retained.state.insert(sensor_availability_topic(template, &sent));
            }
            if uplink.retain && uplink.selection.holds(&sensor.sensor, sensor.room.as_deref()) {
                let readings = sent.quantities.iter().filter(|quantity| quantity.kind != Kind::Event);
                let topics =
                    readings.map(|quantity| match (quantity.kind, uplink.payload.shape, uplink.payload.format) {
                        (Kind::Bytes, ..) | (_, _, Format::Value) | (_, PayloadShape::Quantity, _) => {
                            uplink.payload.quantity_topic(template, &sent, quantity)
                        }
                        (_, PayloadShape::Sensor, _) => uplink.payload.sensor_topic(template, &sent),
                    });
                retained.readings.extend(topics.filter_map(acceptable).map(String::from));
            }
        }
        retained
    }

    /// What of it is not retained any more where this is.
    pub(super) fn without(&self, later: &Self) -> Self {
        // A topic may have been of one kind and be of the other.
        let stays = |topic: &&String| later.state.contains(*topic) || later.readings.contains(*topic);
        let gone = |topics: &BTreeSet<String>| topics.iter().filter(|topic| !stays(topic)).cloned().collect();
        Self { state: gone(&self.state), readings: gone(&self.readings) }
    }
}

/// Topics of readings that are to be cleared.
#[derive(Debug)]
pub(super) struct Sweep {
    pub(super) uplink: String,
    pub(super) cursor: CursorId,
    /// When the uplink has acknowledged everything before this position.
    pub(super) after: Seq,
    pub(super) topics: BTreeSet<String>,
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
            sweep.topics.retain(|topic| !used.readings.contains(topic) && !used.state.contains(topic));
            !sweep.topics.is_empty()
        });
    }

    /// Clears what is due.
    pub(super) fn look(&mut self, hub: &Hub) {
        self.0.retain(|sweep| {
            let due = hub.outbox.borrow().low(sweep.cursor) >= sweep.after;
            if due {
                hub.clear(&sweep.uplink, sweep.topics.iter());
            }
            !due
        });
    }
}
