//! The core stage with another configuration.

use std::sync::Arc;

use super::super::kept;
use super::super::reload::Fate;
use super::super::retained::memory::Memory;
use super::super::retained::{Retained, Sweep};
use super::super::sensors::Facts;
use super::{Core, Positions};
use crate::config::{Config, UplinkConfig};
use crate::pipeline::Health;
use crate::reading::{Descriptor, Quantity, SensorIndex};

impl Core {
    /// Goes on with these sensors, in the configuration's order; `gone` are there no more. Gives the index of each. The
    /// uplinks that change do not run meanwhile; `uplinks` is how they were.
    pub(in super::super) fn renew(
        &mut self,
        config: &Config,
        uplinks: &[UplinkConfig],
        gone: &[SensorIndex],
        there: Vec<(Facts, Fate)>,
    ) -> (Vec<SensorIndex>, Vec<Facts>) {
        let before: Vec<Arc<Descriptor>> =
            self.pipeline.sensors().map(|(_, descriptor, _)| descriptor.clone()).collect();
        for sensor in gone {
            self.leave(*sensor);
        }
        let mut places = Vec::new();
        for (facts, fate) in &there {
            places.push(match *fate {
                Fate::New => self.enter(facts),
                Fate::Known(sensor, difference) => {
                    self.change(sensor, facts, difference.device || difference.pipeline);
                    sensor
                }
            });
        }
        self.gps = config.gps.and_then(|gps| places.get(gps.0 as usize).copied());
        self.positions = Positions::new(&config.sensors, &places).going_on(&self.positions);
        for sensor in self.ingest.renew(config, &mut self.pipeline) {
            self.leave(sensor);
        }
        self.discovery.renew(config, &places);
        self.tell_all();
        let facts: Vec<Facts> = there.into_iter().map(|(facts, _)| facts).collect();
        self.sweep(config, uplinks, &before, &facts);
        (places, facts)
    }

    fn leave(&mut self, sensor: SensorIndex) {
        if let Some(descriptor) = self.pipeline.descriptor(sensor) {
            self.hub.forget_sensor(&self.topic, descriptor);
            self.hub.sensor_left(&descriptor.sensor);
        }
        self.pipeline.remove(sensor);
        self.positions.forget(sensor);
        self.complaints.remove(&sensor);
        self.learnt.remove(&sensor);
    }

    fn enter(&mut self, facts: &Facts) -> SensorIndex {
        let sensor = self.pipeline.add(facts.descriptor.clone(), &facts.declared, facts.pipeline.clone());
        self.restore(sensor, facts);
        sensor
    }

    /// `anew`: other things are made of its samples.
    fn change(&mut self, sensor: SensorIndex, facts: &Facts, anew: bool) {
        if let Some(before) = self.pipeline.descriptor(sensor)
            && self.topic.sensor_topic(before) != self.topic.sensor_topic(&facts.descriptor)
        {
            self.hub.forget_sensor(&self.topic, before);
        }
        if anew {
            self.pipeline.replace(sensor, facts.descriptor.clone(), &facts.declared, facts.pipeline.clone());
            self.restore(sensor, facts);
        } else {
            self.pipeline.describe(sensor, &facts.descriptor);
        }
    }

    /// Its filters go on from what they kept, as after a restart.
    fn restore(&mut self, sensor: SensorIndex, facts: &Facts) {
        if let Some((kept, same_boot)) = kept::of_filters(&self.hub.outbox.borrow(), &facts.name, self.boot) {
            self.pipeline.restore(sensor, &kept, same_boot);
        }
    }

    /// Tells what is known of all sensors. What is no news goes no further.
    fn tell_all(&mut self) {
        for (sensor, descriptor, health) in self.pipeline.sensors() {
            match health {
                Some(Health::Online) => self.hub.set_sensor_availability(&self.topic, descriptor, Ok(())),
                Some(Health::Fault(fault)) => self.hub.set_sensor_availability(&self.topic, descriptor, Err(fault)),
                None => {}
            }
            if !descriptor.quantities.is_empty() {
                self.discovery.seen(sensor, descriptor);
            }
        }
    }

    /// Takes back what brokers retain and nobody publishes any more. A broker that is another one from now on retains
    /// nothing of it; one that we leave is left as it is, as at a restart.
    fn sweep(&mut self, config: &Config, uplinks: &[UplinkConfig], before: &[Arc<Descriptor>], facts: &[Facts]) {
        let after: Vec<Arc<Descriptor>> =
            self.pipeline.sensors().map(|(_, now, _)| expected(now, before, facts, &self.memory)).collect();
        let gateway = &config.gateway;
        let retained: Vec<(&UplinkConfig, Retained)> =
            config.uplinks.iter().map(|uplink| (uplink, Retained::of(uplink, gateway, &after))).collect();
        let mut sweeps = Vec::new();
        for (uplink, after) in &retained {
            self.hub.reuse(&uplink.name, after.readings.iter());
            let known = |known: &&UplinkConfig| known.name == uplink.name && known.urls == uplink.urls;
            let Some(known) = uplinks.iter().find(known) else { continue };
            let gone = Retained::of(known, gateway, before).without(after);
            self.hub.clear(&uplink.name, gone.state.iter());
            sweeps.push(Sweep::new(&self.hub, uplink, gone.readings));
        }
        let used = |name: &str| retained.iter().find(|(uplink, _)| uplink.name == name).map(|(_, used)| used);
        self.sweeps.take(sweeps, used);
        self.memory.renew(&self.hub, &config.uplinks, facts);
    }
}

/// A sensor with the quantities that it has, or is going to have: one whose filters have just changed has given nothing
/// yet, and what its device calls its quantities is known only from before: those that are not called otherwise now.
fn expected(now: &Arc<Descriptor>, before: &[Arc<Descriptor>], facts: &[Facts], memory: &Memory) -> Arc<Descriptor> {
    let facts = facts.iter().find(|facts| *facts.name == *now.sensor);
    let Some(facts) = facts.filter(|_| now.quantities.is_empty()) else { return now.clone() };
    let mut expected = facts.known.clone();
    let was = before.iter().find(|before| before.sensor == now.sensor);
    if let Some(was) = was.filter(|_| facts.names_quantities()) {
        let former = memory.former_names(facts);
        let new = |quantity: &&Quantity| {
            let is_there = expected.quantities.iter().any(|other| other.name == quantity.name);
            !is_there && former.iter().all(|former| *quantity.name != **former)
        };
        let more: Vec<Quantity> = was.quantities.iter().filter(new).cloned().collect();
        expected.quantities.extend(more);
    }
    Arc::new(expected)
}
