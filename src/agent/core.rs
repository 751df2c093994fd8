//! The core stage: observations through the pipeline into the outbox, a batch at a time.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, error, info, warn};

use super::calls::Calls;
use super::discovery::Discovery;
use super::ingest::{Ingest, Made};
use super::positions::Positions;
use super::retained::Sweeps;
use super::retained::memory::Memory;
use super::summary::Summary;
use super::{Extras, kept};
use crate::clock::{BootId, BootTime, WallTime};
use crate::offer::{self, Answer, Offer};
use crate::outbox::Body;
use crate::pipeline::{Health, Late, Outcome, Pipeline};
use crate::reading::{Descriptor, Fix, Observation, Sample, SensorIndex, Value, Values};
use crate::sampler::{Batch, QUEUE};
use crate::topic::Template;
use crate::uplink::Hub;

/// A sensor's rejected samples are logged this often at most; a loose cable garbles hundreds of lines a minute.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// The longest sleep until a filter is due: timers stand still while the machine is suspended, the boot clock does not.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Between two looks whether topics that are used no more can be cleared.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Between two looks whether the disk has caught up.
const CONGESTED_PAUSE: Duration = Duration::from_millis(20);

pub(super) struct Core {
    pub(super) pipeline: Pipeline,
    pub(super) hub: Rc<Hub>,
    /// For what filters keep.
    pub(super) boot: BootId,
    pub(super) topic: Template,
    pub(super) discovery: Discovery,
    /// `outbox.flush = "0s"`: on disk before it counts as taken.
    pub(super) strict: bool,
    pub(super) extras: Extras,
    /// Counts the batches taken: the watchdog's proof of life.
    pub(super) rounds: watch::Sender<u64>,
    pub(super) complaints: HashMap<SensorIndex, Complaints>,
    /// The sensor whose fixes say what time it is.
    pub(super) gps: Option<SensorIndex>,
    /// Where sensors are that move.
    pub(super) positions: Positions,
    /// Learns which sensors have a fault.
    pub(super) summary: Rc<RefCell<Summary>>,
    /// Makes records of what LAN clients publish.
    pub(super) ingest: Ingest,
    /// What LAN clients are to be told once the batch is taken.
    pub(super) answers: Vec<(oneshot::Sender<Answer>, Answer)>,
    /// The outbox has refused a record since this was last asked.
    pub(super) full: bool,
    /// Topics that another configuration has left behind.
    pub(super) sweeps: Sweeps,
    /// Remembers what brokers retain, for the next start.
    pub(super) memory: Memory,
    /// The descriptors that this goes by.
    pub(super) learnt: HashMap<SensorIndex, Arc<Descriptor>>,
}

/// What was appended is taken, and everybody is told.
pub(super) async fn commit(hub: &Rc<Hub>, strict: bool) {
    hub.outbox.borrow_mut().commit(hub.clock.boot());
    if strict {
        super::flush::flush_now(hub).await;
    }
    hub.flush.notify_one();
    hub.appended();
}

/// What was rejected of a sensor since it was last logged.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    count: u64,
    logged: Option<BootTime>,
}

impl Core {
    /// Works until every sender of observations is gone and the last batch is taken.
    pub(super) async fn run(
        mut self,
        mut observations: mpsc::Receiver<Batch>,
        mut offered: mpsc::Receiver<Offer>,
        mut calls: Calls<Self>,
    ) {
        let (mut batches, mut offers) = (Vec::new(), Vec::new());
        loop {
            self.decongest().await;
            tokio::select! {
                // What was measured before a filter is due goes before what the filter then does.
                biased;
                count = observations.recv_many(&mut batches, QUEUE) => if count == 0 {
                    self.remember();
                    return self.commit().await;
                },
                count = offered.recv_many(&mut offers, offer::QUEUE), if !offered.is_closed() => {
                    debug!(count, "offers of LAN clients");
                }
                // What was observed before a call is taken before it.
                call = calls.next() => call(&mut self),
                () = self.until_due() => {}
            }
            self.hub.look_at_clock();
            for batch in batches.drain(..) {
                for observation in batch {
                    self.observe(observation);
                }
                // One wake-up may bring more than memory has room for.
                if self.hub.outbox.borrow().congested() {
                    self.commit().await;
                    self.decongest().await;
                }
            }
            for offer in offers.drain(..) {
                self.take(offer);
                if self.hub.outbox.borrow().congested() {
                    self.commit().await;
                    self.decongest().await;
                }
            }
            let now = self.hub.clock.boot();
            for (sensor, outcome) in self.pipeline.tick(now) {
                self.publish(sensor, now, outcome);
            }
            if self.sweeps.wait() && self.sweeps.look(&self.hub) {
                self.memory.learn(now);
            }
            if self.memory.due(now) == Some(Duration::ZERO) {
                self.remember();
            }
            self.commit().await;
        }
    }

    /// Sleeps until a filter wants to do something by itself, or until it is time to look at the clock again.
    async fn until_due(&self) {
        let due = self.pipeline.next_due().map(|due| due.since(self.hub.clock.boot()).min(LONGEST_SLEEP));
        let sweep = self.sweeps.wait().then_some(SWEEP_EVERY);
        let remember = self.memory.due(self.hub.clock.boot());
        match due.into_iter().chain(sweep).chain(remember).min() {
            Some(wait) => tokio::time::sleep(wait).await,
            None => std::future::pending().await,
        }
    }

    /// Notes what brokers retain now, from the next commit on.
    fn remember(&mut self) {
        let sensors: Vec<Arc<Descriptor>> =
            self.pipeline.sensors().map(|(_, descriptor, _)| descriptor.clone()).collect();
        self.memory.take_down(&self.hub, &sensors, &mut self.sweeps);
    }

    /// What was observed is taken, and everybody is told.
    async fn commit(&mut self) {
        commit(&self.hub, self.strict).await;
        for (to, answer) in self.answers.drain(..) {
            // Who has waited too long is gone, and sends it again.
            let _ = to.send(answer);
        }
        self.rounds.send_modify(|rounds| *rounds += 1);
    }

    /// Takes nothing more while the disk cannot keep up: then the samplers' queue fills, polled sensors skip, and links
    /// are not read. Without this pause the oldest records would have to be dropped.
    async fn decongest(&self) {
        while self.hub.outbox.borrow().congested() {
            super::flush::flush_now(&self.hub).await;
            // Paused on purpose is alive.
            self.rounds.send_modify(|rounds| *rounds += 1);
            tokio::time::sleep(CONGESTED_PAUSE).await;
        }
    }

    /// Takes a LAN client's message; the answer follows the commit.
    fn take(&mut self, offer: Offer) {
        let at = self.hub.clock.boot();
        self.full = false;
        let (hub, boot) = (&self.hub, self.boot);
        let kept = |room: Option<&str>, name: &str| kept::of_filters_of_lan(&hub.outbox.borrow(), room, name, boot);
        let answer = match self.ingest.make(&offer, &mut self.pipeline, kept, at) {
            Err(why) => Answer::Unfit(why),
            Ok(made) => {
                match made {
                    Made::Nothing => {}
                    Made::Observation(observation) => self.observe(observation),
                    Made::Raw(raw) => self.append_body(at, None, Body::Raw(raw)),
                }
                if self.full { Answer::Full } else { Answer::Taken }
            }
        };
        self.answers.push((offer.answer, answer));
    }

    fn observe(&mut self, mut observation: Observation) {
        let (sensor, at) = (observation.sensor, observation.at);
        if let Some(kept) = observation.keep.take()
            && let Some(descriptor) = self.pipeline.descriptor(sensor)
            && let Err(why) = kept::keep(&mut self.hub.outbox.borrow_mut(), &descriptor.sensor, kept)
        {
            error!(sensor = &*descriptor.sensor, room = descriptor.room.as_deref(), "not kept: {why}");
        }
        if self.gps == Some(sensor)
            && let Ok(samples) = &observation.outcome
            && let Some(time) = time_of_fix(samples)
        {
            self.hub.take_fix(at, time);
        }
        if let Ok(samples) = &observation.outcome {
            self.positions.take(sensor, at, samples);
        }
        let outcome = self.pipeline.observe(observation);
        self.publish(sensor, at, outcome);
    }

    /// Takes what came of an observation, or of the passing of time until `at`.
    fn publish(&mut self, sensor: SensorIndex, at: BootTime, outcome: Outcome) {
        let Outcome { late, reading, health, rejected, keep, held: _ } = outcome;
        if let Some(health) = health {
            self.turned(sensor, &health);
        }
        if let Some(reason) = rejected.last() {
            self.complain(sensor, at, rejected.len(), reason);
        }
        if let Some(keep) = keep
            && let Err(why) = self.keep(sensor, &keep)
        {
            self.complain(sensor, at, 1, &why);
        }
        for Late { at, descriptor, values } in late {
            self.append(sensor, at, descriptor, values);
        }
        if let Some((descriptor, values)) = reading {
            self.append(sensor, at, descriptor, values);
        }
    }

    fn append(&mut self, sensor: SensorIndex, at: BootTime, descriptor: Arc<Descriptor>, values: Values) {
        if !self.discovery.knows(sensor) && self.ingest.has_met(sensor) {
            self.discovery.meet(sensor, &descriptor);
        }
        self.discovery.seen(sensor, &descriptor);
        if self.learnt.get(&sensor).is_none_or(|last| !Arc::ptr_eq(last, &descriptor)) {
            self.learnt.insert(sensor, descriptor.clone());
            self.memory.learn(at);
        }
        if let Some(show) = &self.extras.on_reading {
            show(&self.topic, &descriptor, &values);
        }
        let time = self.hub.stamp(at);
        self.hub.sensor_gave(&descriptor, &values, at, time);
        let place = self.positions.of(sensor, at);
        self.append_body(at, place, Body::Reading { descriptor, values });
    }

    fn append_body(&mut self, at: BootTime, place: Option<Fix>, body: Body) {
        let time = self.hub.stamp(at);
        self.full |= self.hub.outbox.borrow_mut().append_at(at, time, place, body).is_empty();
    }

    /// Keeps what a sensor's filters gave, with the same commit as what came of the observation.
    fn keep(&self, sensor: SensorIndex, kept: &[u8]) -> Result<(), String> {
        let Some(descriptor) = self.pipeline.descriptor(sensor) else { return Ok(()) };
        let (outbox, name) = (&mut *self.hub.outbox.borrow_mut(), &descriptor.sensor);
        if self.ingest.has_met(sensor) {
            return kept::keep_filters_of_lan(outbox, descriptor.room.as_deref(), name, self.boot, kept);
        }
        kept::keep_filters(outbox, name, self.boot, kept)
    }

    fn turned(&self, sensor: SensorIndex, health: &Health) {
        let Some(descriptor) = self.pipeline.descriptor(sensor) else { return };
        let (name, room) = (&*descriptor.sensor, descriptor.room.as_deref());
        self.summary.borrow_mut().turned(name, health);
        self.hub.sensor_turned(name, matches!(health, Health::Online));
        let state = match health {
            Health::Online => {
                info!(sensor = name, room, "online");
                Ok(())
            }
            Health::Fault(fault) => {
                warn!(sensor = name, room, fault = fault.code.as_str(), "{fault}");
                Err(fault)
            }
        };
        self.hub.set_sensor_availability(&self.topic, descriptor, state);
    }

    fn complain(&mut self, sensor: SensorIndex, at: BootTime, count: usize, reason: &str) {
        let complaints = self.complaints.entry(sensor).or_default();
        complaints.count += count as u64;
        let descriptor = self.pipeline.descriptor(sensor);
        let name = descriptor.map_or("?", |descriptor| &descriptor.sensor);
        let room = descriptor.and_then(|descriptor| descriptor.room.as_deref());
        debug!(sensor = name, room, "rejected: {reason}");
        if complaints.logged.is_none_or(|logged| at.since(logged) >= COMPLAIN_EVERY) {
            warn!(sensor = name, room, rejected = complaints.count, "not used: {reason}");
            *complaints = Complaints { count: 0, logged: Some(at) };
        }
    }
}

/// The time that a GPS receiver gives with a fix, as its driver calls the two; without a fix it may be anything.
fn time_of_fix(samples: &[Sample]) -> Option<WallTime> {
    let value = |name| samples.iter().find(|sample| sample.quantity == name).map(|sample| &sample.value);
    match (value("fix")?, value("utc")?) {
        (Value::Switch(true), Value::Text(utc)) => humantime::parse_rfc3339(utc).ok().map(WallTime::from_system),
        _ => None,
    }
}

mod renew;
#[cfg(test)]
mod tests;
