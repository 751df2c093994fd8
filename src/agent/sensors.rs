//! The sensors that run: a set that can be compared with what a configuration has.
//!
//! A sensor is who has its name. What of it differs decides what is touched: its device, its schedule, or only what is
//! made of its samples, which the device's end does not notice.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument as _, Span, info_span, warn};

use super::commands::Target;
use super::kept;
use crate::config::{Gateway, SensorConfig, Written};
use crate::hardware::PowerSettings;
use crate::pipeline::{Declared, PipelineConfig};
use crate::reading::{Descriptor, SensorIndex};
use crate::sampler::remote::{Reins, Remotes, remote};
use crate::sampler::{self, Context, LastCall, Sampler, Schedule};
use crate::topic::Template;
use crate::uplink::Hub;

/// How long a sensor that is stopped by a reload may take to let go of its device. One that takes longer is left: what
/// follows it finds the device in use, says so, and tries again.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a configuration says of a sensor, to be compared.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) name: String,
    /// Its device: whatever of this differs, it is another one, or must be opened anew.
    driver: &'static str,
    own_keys: Written,
    power: Option<PowerSettings>,
    schedule: Schedule,
    /// What is made of its samples, and under which names.
    pub(super) pipeline: Arc<PipelineConfig>,
    pub(super) declared: Vec<Declared>,
    pub(super) descriptor: Descriptor,
    /// As far as it is known before it is read.
    pub(super) known: Descriptor,
    pub(super) takes_commands: bool,
}

/// What of a sensor differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) device: bool,
    pub(super) schedule: bool,
    pub(super) pipeline: bool,
    pub(super) names: bool,
}

impl Difference {
    /// Does anything?
    pub(super) fn is_any(self) -> bool {
        self != Self::default()
    }
}

impl Facts {
    pub(super) fn of(sensor: &SensorConfig, gateway: &Gateway) -> Self {
        Self {
            name: sensor.name.clone(),
            driver: sensor.driver.name,
            own_keys: sensor.own_keys.clone(),
            power: sensor.power.clone(),
            schedule: schedule_of(sensor),
            pipeline: sensor.pipeline.clone(),
            declared: declared(sensor),
            descriptor: sensor.descriptor(gateway),
            known: sensor.known_descriptor(gateway),
            takes_commands: sensor.source.takes_commands(),
        }
    }

    /// Is it the device that says which quantities there are?
    pub(super) fn names_quantities(&self) -> bool {
        self.declared.is_empty()
    }

    pub(super) fn difference(&self, other: &Self) -> Difference {
        let device = |it: &Self| (it.driver, it.own_keys.clone(), it.power.clone());
        Difference {
            device: device(self) != device(other),
            schedule: self.schedule != other.schedule,
            pipeline: self.pipeline != other.pipeline,
            names: self.descriptor != other.descriptor,
        }
    }
}

/// When a sensor is sampled.
fn schedule_of(sensor: &SensorConfig) -> Schedule {
    Schedule { every: sensor.every, align: sensor.align, deadline: sensor.deadline }
}

/// What the driver says of its quantities.
pub(super) fn declared(sensor: &SensorConfig) -> Vec<Declared> {
    let quantities = sensor.driver.quantities.iter();
    quantities.map(|quantity| Declared { name: quantity.name, unit: quantity.unit, kind: quantity.kind }).collect()
}

/// All sensors that run.
pub(super) struct Sensors {
    hub: Rc<Hub>,
    remotes: Rc<Remotes>,
    context: Context,
    running: BTreeMap<String, Running>,
}

struct Running {
    facts: Facts,
    index: SensorIndex,
    schedule: watch::Sender<Schedule>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Option<LastCall>>,
}

impl Sensors {
    /// None yet.
    pub(super) fn new(hub: Rc<Hub>, remotes: Rc<Remotes>, context: Context) -> Self {
        Self { hub, remotes, context, running: BTreeMap::new() }
    }

    /// Starts one at its place in the pipeline; none of that name runs.
    pub(super) fn start(&mut self, index: SensorIndex, sensor: SensorConfig, facts: Facts) {
        let kept = kept::of(&self.hub.outbox.borrow(), &sensor.name);
        let place = sensor.room.as_ref().map_or(Span::none(), |room| info_span!("room", %room));
        let (end, reins) = remote();
        let (schedule, scheduled) = watch::channel(facts.schedule);
        let (stop, stopped) = watch::channel(false);
        self.remotes.insert(&sensor.name, end);
        let sampler = Sampler::new(index, sensor, Some(scheduled), kept, reins);
        let context = Context { stop: stopped, ..self.context.clone() };
        let task = tokio::task::spawn_local(sampler::run(sampler, context).instrument(place));
        self.running.insert(facts.name.clone(), Running { facts, index, schedule, stop, task });
    }

    /// What one runs on, and its place in the pipeline.
    pub(super) fn get(&self, name: &str) -> Option<(&Facts, SensorIndex)> {
        self.running.get(name).map(|running| (&running.facts, running.index))
    }

    /// All names with their places.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, SensorIndex)> {
        self.running.iter().map(|(name, running)| (name.as_str(), running.index))
    }

    /// Those that take commands.
    pub(super) fn targets(&self, template: &Template) -> Vec<Target> {
        let take = self.facts().filter(|facts| facts.takes_commands);
        let target = |facts: &Facts| {
            let orders = self.remotes.get(&facts.name)?.orders;
            Some(Target::new(template, facts.descriptor.clone(), orders))
        };
        take.filter_map(target).collect()
    }

    /// What all run on.
    fn facts(&self) -> impl Iterator<Item = &Facts> {
        self.running.values().map(|running| &running.facts)
    }

    /// One goes on with what another configuration says of it, its device being the same.
    pub(super) fn go_on(&mut self, facts: Facts) {
        let Some(running) = self.running.get_mut(&facts.name) else { return };
        running.schedule.send_if_modified(|schedule| std::mem::replace(schedule, facts.schedule) != facts.schedule);
        running.facts = facts;
    }

    /// Stops these, and waits until they have let go of their devices. All that they observed is handed on by then.
    pub(super) async fn stop(&mut self, names: &[String]) {
        let deadline = Instant::now() + PATIENCE;
        let mut stopped = Vec::new();
        for name in names {
            if let Some(running) = self.running.remove(name) {
                self.remotes.remove(name);
                running.stop.send_replace(true);
                stopped.push((name, running.task));
            }
        }
        for (name, mut task) in stopped {
            let ended = async {
                if let Ok(Some(last)) = (&mut task).await {
                    last.over().await;
                }
            };
            if timeout_at(deadline, ended).await.is_err() {
                warn!(sensor = name, "it has not let go of its device within {} s, and is left", PATIENCE.as_secs());
                task.abort();
            }
        }
    }

    /// Lets go of supplies that no sensor has any more.
    pub(super) fn release_supplies(&self) {
        let used = |line: &_| self.facts().any(|facts| facts.power.as_ref().is_some_and(|power| power.line == *line));
        self.context.supplies.retain(used);
    }

    /// Tells all to end, and waits for it. Nobody can hand on anything afterwards.
    pub(super) async fn stop_all(self) {
        for running in self.running.values() {
            running.stop.send_replace(true);
        }
        drop(self.context);
        for (_, running) in self.running {
            let _ = running.task.await;
        }
    }
}

impl Sampler {
    /// A configured sensor at its place in the pipeline, with what it kept in an earlier run and its end of a
    /// [`remote`](sampler::remote::remote). Its schedule is the configured one until another comes.
    #[must_use]
    pub fn new(
        index: SensorIndex,
        sensor: SensorConfig,
        schedule: Option<watch::Receiver<Schedule>>,
        kept: Option<Box<[u8]>>,
        reins: Reins,
    ) -> Self {
        let schedule = schedule.unwrap_or_else(|| watch::channel(schedule_of(&sensor)).1);
        let SensorConfig { name, source, power, .. } = sensor;
        let (kept, lost) = (RefCell::new(kept), RefCell::default());
        Self { index, name, source, schedule, power, kept, lost, reins }
    }
}
