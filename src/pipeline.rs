//! From what a driver saw to what is worth publishing: kinds, names and units, and the filters of each quantity.
//!
//! Pure: an observation with its time goes in, readings and changes of health come out. Nothing here reads a clock,
//! a file or a socket. Some filters act when time has passed: whoever drives a pipeline calls [`Pipeline::tick`] at
//! [`Pipeline::next_due`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::BootTime;
use crate::reading::{Descriptor, Fault, Finite, Kind, Observation, SensorIndex, Value, Values};

mod chain;
mod convert;
pub mod filter;
mod frozen;
mod resolve;
mod sensor;

pub use chain::{Chain, Link, Misfit, Origin};
pub use filter::Deadband;
pub use resolve::Published;

use sensor::Sensor;

/// Quantities that one sensor may have; what a device names beyond them is dropped and counted.
pub const MAX_QUANTITIES: usize = 256;

/// A garbled line or frame is normal on a long cable; this many in a row, with nothing good between, are a fault.
pub const GARBLED_IN_A_ROW: u32 = 3;

/// Filters of one sensor whose state is kept across restarts; of more, the others start anew.
pub const MAX_KEPT_FILTERS: usize = 64;

/// What the pipeline does with a sensor's samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PipelineConfig {
    /// By the driver's name of the quantity. Quantities that are not named here pass as they are.
    pub quantities: BTreeMap<String, QuantityConfig>,
    /// Filters of quantities by their published name.
    pub filters: BTreeMap<String, Vec<Link>>,
    /// `change` of quantities by their published name.
    pub change: BTreeMap<String, Deadband>,
    /// With `change`: a quantity is published at least this often when it is measured.
    pub heartbeat: Option<Duration>,
    /// Numbers that all stand exactly still for this long are a fault.
    pub frozen_after: Option<Duration>,
}

/// `[sensor.quantity.NAME]`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuantityConfig {
    /// The driver's quantity whose values it takes, where it is not the driver's own.
    pub of: Option<String>,
    /// `as`: published name.
    pub rename: Option<String>,
    /// Unit as published, whatever the filters make of the measured one.
    pub unit: Option<String>,
    /// Unit as measured, where it follows from the sensor's options.
    pub measured_unit: Option<String>,
    /// How it is treated.
    pub kind: Option<Kind>,
    /// Topic given outright.
    pub topic: Option<String>,
    /// Short form of the filter, before all others.
    pub multiply: Option<Finite>,
    /// Short form of the filter, behind `multiply`.
    pub offset: Option<Finite>,
    /// Short form of the filter: digits after the decimal point, behind all but `change`.
    pub round: Option<u8>,
}

/// What a driver says of a quantity before it has seen one.
#[derive(Clone, Debug)]
pub struct Declared {
    /// The driver's name for it.
    pub name: &'static str,
    /// Its unit.
    pub unit: Option<&'static str>,
    /// How it is treated.
    pub kind: Kind,
}

/// Whether a sensor gives values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Online,
    /// It does not, and why.
    Fault(Fault),
}

/// Values that were held back and are due now.
#[derive(Clone, Debug, PartialEq)]
pub struct Late {
    /// When they were measured, or the end of the window that they sum up.
    pub at: BootTime,
    /// The sensor as it is now.
    pub descriptor: Arc<Descriptor>,
    /// Indices are into `descriptor.quantities`.
    pub values: Values,
}

/// A value that a filter did not let through.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// When it was measured.
    pub at: BootTime,
    /// Published name of its quantity.
    pub quantity: String,
    /// As it came to the filters.
    pub value: Value,
    /// The filter as in TOML, and where it was configured.
    pub by: String,
    /// Why.
    pub why: String,
}

/// What an observation, or the passing of time, came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Values that were held back and go before `reading`, the earliest first.
    pub late: Vec<Late>,
    /// Values to publish, with the sensor as it is now: indices are into `descriptor.quantities`.
    pub reading: Option<(Arc<Descriptor>, Values)>,
    /// The sensor's health, if that changed.
    pub health: Option<Health>,
    /// Samples that could not be used, each with the reason.
    pub rejected: Vec<String>,
    /// What was held back; only of a pipeline that [explains](Pipeline::explaining).
    pub held: Vec<Held>,
    /// What the sensor's filters are to keep from now on, if that changed.
    pub keep: Option<Vec<u8>>,
}

/// The state of all sensors' pipelines.
#[derive(Debug, Default)]
pub struct Pipeline {
    /// `None`: it is there no more, and the next that comes takes its place.
    sensors: Vec<Option<Sensor>>,
    explains: bool,
    only_looks: bool,
}

impl Pipeline {
    /// No sensors yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, to be asked why something was held back.
    #[must_use]
    pub fn explaining(self) -> Self {
        Self { explains: true, ..self }
    }

    /// The same, to look at single values: filters that hold values back or remember them are left out. Only before
    /// sensors are added.
    #[must_use]
    pub fn only_looking(self) -> Self {
        Self { only_looks: true, ..self }
    }

    /// Adds a sensor; `descriptor` has no quantities yet.
    pub fn add(&mut self, descriptor: Descriptor, declared: &[Declared], config: Arc<PipelineConfig>) -> SensorIndex {
        let free = self.sensors.iter().position(Option::is_none).unwrap_or(self.sensors.len());
        let sensor = Some(Sensor::new(descriptor, declared.to_vec(), config, self.only_looks));
        match self.sensors.get_mut(free) {
            Some(place) => *place = sensor,
            None => self.sensors.push(sensor),
        }
        SensorIndex(u32::try_from(free).expect("fewer than 2^32 sensors"))
    }

    /// A sensor is there no more: what is still observed of it is dropped, until another one has its index.
    pub fn remove(&mut self, sensor: SensorIndex) {
        if let Some(place) = self.sensors.get_mut(sensor.0 as usize) {
            *place = None;
        }
    }

    /// What is made of a sensor's samples is another thing from now on. Its filters and quantities start anew; its health
    /// is what it was.
    pub fn replace(
        &mut self,
        sensor: SensorIndex,
        descriptor: Descriptor,
        declared: &[Declared],
        config: Arc<PipelineConfig>,
    ) {
        if let Some(Some(place)) = self.sensors.get_mut(sensor.0 as usize) {
            let new = Sensor::new(descriptor, declared.to_vec(), config, self.only_looks);
            *place = new.with_health_of(place);
        }
    }

    /// A sensor has other names, or another place; its quantities and filters go on as they are.
    pub fn describe(&mut self, sensor: SensorIndex, descriptor: &Descriptor) {
        if let Some(Some(sensor)) = self.sensors.get_mut(sensor.0 as usize) {
            sensor.describe(descriptor);
        }
    }

    /// All sensors that there are, each with its health where that is known.
    pub fn sensors(&self) -> impl Iterator<Item = (SensorIndex, &Arc<Descriptor>, Option<&Health>)> {
        let all = (0..).zip(&self.sensors);
        all.filter_map(|(index, sensor)| {
            let sensor = sensor.as_ref()?;
            Some((SensorIndex(index), sensor.descriptor(), sensor.health()))
        })
    }

    /// Gives a sensor's filters what they kept in an earlier run, before its first observation. `same_boot`: that was
    /// on the same boot clock.
    pub fn restore(&mut self, sensor: SensorIndex, kept: &[u8], same_boot: bool) {
        if let Some(Some(sensor)) = self.sensors.get_mut(sensor.0 as usize) {
            sensor.restore(kept, same_boot);
        }
    }

    /// Takes an observation.
    pub fn observe(&mut self, observation: Observation) -> Outcome {
        let Some(Some(sensor)) = self.sensors.get_mut(observation.sensor.0 as usize) else {
            return Outcome::default();
        };
        match observation.outcome {
            Ok(samples) => sensor.samples(samples, observation.at, self.explains),
            Err(fault) => sensor.fault(fault, observation.at, self.explains),
        }
    }

    /// When a filter wants to do something by itself.
    #[must_use]
    pub fn next_due(&self) -> Option<BootTime> {
        self.sensors.iter().flatten().filter_map(Sensor::next_due).min()
    }

    /// Does what is due at `now`, and tells what came of it.
    pub fn tick(&mut self, now: BootTime) -> Vec<(SensorIndex, Outcome)> {
        let mut outcomes = Vec::new();
        for (index, sensor) in (0..).zip(&mut self.sensors) {
            let Some(sensor) = sensor else { continue };
            if sensor.next_due().is_some_and(|due| due <= now) {
                outcomes.push((SensorIndex(index), sensor.tick(now, self.explains)));
            }
        }
        outcomes
    }

    /// A sensor as it is now.
    #[must_use]
    pub fn descriptor(&self, sensor: SensorIndex) -> Option<&Arc<Descriptor>> {
        self.sensors.get(sensor.0 as usize)?.as_ref().map(Sensor::descriptor)
    }
}

#[cfg(test)]
mod tests;
