//! From what a driver saw to what is worth publishing: calibration, names and units, filtering by change.
//!
//! Pure: an observation with its time goes in, readings and changes of health come out. Nothing here reads a clock,
//! a file or a socket.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::BootTime;
use crate::reading::{
    Descriptor, Fault, FaultCode, Finite, Kind, Observation, Quantity, Sample, SensorIndex, Value, Values,
};

mod change;
mod convert;
mod frozen;

pub use change::Deadband;

use frozen::Stillness;

/// Quantities that one sensor may have; what a device names beyond them is dropped and counted.
pub const MAX_QUANTITIES: usize = 256;

/// A garbled line or frame is normal on a long cable; this many in a row, with nothing good between, are a fault.
pub const GARBLED_IN_A_ROW: u32 = 3;

/// What the pipeline does with a sensor's samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PipelineConfig {
    /// By the driver's name of the quantity. Quantities that are not named here pass as they are.
    pub quantities: BTreeMap<String, QuantityConfig>,
    /// `change` of quantities by their published name. A quantity that is not named is published at each reading.
    pub change: BTreeMap<String, Deadband>,
    /// A filtered quantity is published at least this often when it is measured.
    pub heartbeat: Option<Duration>,
    /// Numbers that all stand exactly still for this long are a fault.
    pub frozen_after: Option<Duration>,
}

/// `[sensor.quantity.NAME]`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QuantityConfig {
    /// `as`: published name.
    pub rename: Option<String>,
    /// Unit as published.
    pub unit: Option<String>,
    /// How it is treated.
    pub kind: Option<Kind>,
    /// Topic given outright.
    pub topic: Option<String>,
    /// Factor, applied first.
    pub multiply: Option<Finite>,
    /// Added after the factor.
    pub offset: Option<Finite>,
    /// Digits after the decimal point, applied last.
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

/// What an observation came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Values to publish, with the sensor as it is now: indices are into `descriptor.quantities`.
    pub reading: Option<(Arc<Descriptor>, Values)>,
    /// The sensor's health, if this observation changed it.
    pub health: Option<Health>,
    /// Samples that could not be used, each with the reason.
    pub rejected: Vec<String>,
}

/// The state of all sensors' pipelines.
#[derive(Debug, Default)]
pub struct Pipeline {
    sensors: Vec<Sensor>,
}

impl Pipeline {
    /// No sensors yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a sensor; `descriptor` has no quantities yet.
    pub fn add(&mut self, descriptor: Descriptor, declared: &[Declared], config: Arc<PipelineConfig>) -> SensorIndex {
        let index = SensorIndex(u32::try_from(self.sensors.len()).expect("fewer than 2^32 sensors"));
        self.sensors.push(Sensor {
            descriptor: Arc::new(descriptor),
            declared: declared.to_vec(),
            config,
            slots: Vec::new(),
            by_name: HashMap::new(),
            health: None,
            garbled: 0,
            stillness: Stillness::default(),
        });
        index
    }

    /// Takes an observation.
    pub fn observe(&mut self, observation: Observation) -> Outcome {
        let Some(sensor) = self.sensors.get_mut(observation.sensor.0 as usize) else { return Outcome::default() };
        match observation.outcome {
            Ok(samples) => sensor.samples(samples, observation.at),
            Err(fault) => sensor.fault(fault),
        }
    }

    /// A sensor as it is now.
    #[must_use]
    pub fn descriptor(&self, sensor: SensorIndex) -> Option<&Arc<Descriptor>> {
        self.sensors.get(sensor.0 as usize).map(|sensor| &sensor.descriptor)
    }
}

#[derive(Debug)]
struct Sensor {
    descriptor: Arc<Descriptor>,
    declared: Vec<Declared>,
    config: Arc<PipelineConfig>,
    /// One for each quantity of the descriptor, at the same index.
    slots: Vec<Slot>,
    by_name: HashMap<Box<str>, u16>,
    /// `None` until the first observation.
    health: Option<Health>,
    garbled: u32,
    stillness: Stillness,
}

#[derive(Debug)]
struct Slot {
    /// The driver's name.
    name: Box<str>,
    kind: Kind,
    config: QuantityConfig,
    change: Option<Deadband>,
    /// What was last published, and when it was measured.
    published: Option<(Value, BootTime)>,
}

impl Sensor {
    fn samples(&mut self, samples: Vec<Sample>, at: BootTime) -> Outcome {
        let frozen = self.frozen(&samples, at);
        let health = frozen.map_or(Health::Online, |still| Health::Fault(frozen::fault(still)));
        if frozen.is_some() {
            self.forget_published();
        }
        let mut outcome = Outcome { health: self.turns(health), ..Outcome::default() };
        self.garbled = 0;
        let mut values = Vec::with_capacity(samples.len());
        for (position, sample) in samples.into_iter().enumerate() {
            // A frozen number is not published; a button of the same device is.
            if frozen.is_some() && frozen::counts(&sample) {
                continue;
            }
            let name = sample.quantity.clone();
            match self.sample(position, sample, at) {
                Ok(Some(value)) => values.push(value),
                Ok(None) => {}
                Err(reason) => outcome.rejected.push(format!("{name}: {reason}")),
            }
        }
        if !values.is_empty() {
            outcome.reading = Some((self.descriptor.clone(), values));
        }
        outcome
    }

    /// For how long the numbers have stood still, if that is too long.
    fn frozen(&mut self, samples: &[Sample], at: BootTime) -> Option<Duration> {
        let limit = self.config.frozen_after?;
        Some(self.stillness.observe(samples, at)).filter(|still| *still >= limit)
    }

    /// What comes next is news, however little it differs from what was before.
    fn forget_published(&mut self) {
        for slot in &mut self.slots {
            slot.published = None;
        }
    }

    /// The value to publish, with its quantity's index; `None` where the filter holds it back.
    fn sample(&mut self, position: usize, sample: Sample, at: BootTime) -> Result<Option<(u16, Value)>, String> {
        let index = self.slot(position, &sample)?;
        self.note_content_type(index, &sample);
        let heartbeat = self.config.heartbeat;
        let slot = &mut self.slots[usize::from(index)];
        let value = convert::convert(sample.value, slot.kind, &slot.config)?;
        if slot.kind != Kind::Event && slot.change.is_some() {
            if let (Some(deadband), Some((last, when))) = (slot.change, &slot.published) {
                let fresh = heartbeat.is_none_or(|heartbeat| at.since(*when) < heartbeat);
                if fresh && !deadband.exceeded(last, &value) {
                    return Ok(None);
                }
            }
            slot.published = Some((value.clone(), at));
        }
        Ok(Some((index, value)))
    }

    /// Finds the sample's quantity, or makes it. Devices send the same quantities in the same order, so the position
    /// is tried first.
    fn slot(&mut self, position: usize, sample: &Sample) -> Result<u16, String> {
        if self.slots.get(position).is_some_and(|slot| *slot.name == *sample.quantity) {
            return Ok(u16::try_from(position).expect("at most MAX_QUANTITIES slots"));
        }
        if let Some(index) = self.by_name.get(&*sample.quantity) {
            return Ok(*index);
        }
        if self.slots.len() >= MAX_QUANTITIES {
            return Err(format!("the sensor already has {MAX_QUANTITIES} quantities, the most that it may have"));
        }
        Ok(self.new_slot(sample))
    }

    fn new_slot(&mut self, sample: &Sample) -> u16 {
        let name: Box<str> = sample.quantity.as_ref().into();
        let declared = self.declared.iter().find(|declared| declared.name == &*name);
        let config = self.config.quantities.get(&*name).cloned().unwrap_or_default();
        let published: Box<str> = config.rename.as_deref().unwrap_or(&name).into();
        let kind = config.kind.or(declared.map(|declared| declared.kind)).unwrap_or_else(|| kind_of(sample));
        let quantity = Quantity {
            unit: config
                .unit
                .as_deref()
                .or(declared.and_then(|declared| declared.unit))
                .or(sample.unit.as_deref())
                .map(Into::into),
            kind,
            topic: config.topic.as_deref().map(Into::into),
            content_type: sample.content_type.clone(),
            name: published,
        };
        let change = self.config.change.get(&*quantity.name).copied();
        let mut descriptor = Descriptor::clone(&self.descriptor);
        descriptor.quantities.push(quantity);
        self.descriptor = Arc::new(descriptor);
        let index = u16::try_from(self.slots.len()).expect("at most MAX_QUANTITIES slots");
        self.by_name.insert(name.clone(), index);
        self.slots.push(Slot { name, kind, config, change, published: None });
        index
    }

    /// A quantity's bytes may become another type of bytes; from then on the sensor has another descriptor.
    fn note_content_type(&mut self, index: u16, sample: &Sample) {
        let known = &self.descriptor.quantities[usize::from(index)].content_type;
        if sample.content_type.is_none() || sample.content_type == *known {
            return;
        }
        let mut descriptor = Descriptor::clone(&self.descriptor);
        descriptor.quantities[usize::from(index)].content_type = sample.content_type.clone();
        self.descriptor = Arc::new(descriptor);
    }

    fn fault(&mut self, fault: Fault) -> Outcome {
        if matches!(fault.code, FaultCode::BadData | FaultCode::Crc) {
            self.garbled = self.garbled.saturating_add(1);
            if self.garbled < GARBLED_IN_A_ROW {
                return Outcome { rejected: vec![fault.detail], ..Outcome::default() };
            }
        }
        self.forget_published();
        // Time in which nothing could be read says nothing about standing still.
        self.stillness = Stillness::default();
        Outcome { health: self.turns(Health::Fault(fault)), ..Outcome::default() }
    }

    /// Notes the health; `Some` if it is another one than before. A fault with other words is the same fault.
    fn turns(&mut self, health: Health) -> Option<Health> {
        let same = match (&self.health, &health) {
            (Some(Health::Online), Health::Online) => true,
            (Some(Health::Fault(before)), Health::Fault(now)) => before.code == now.code,
            _ => false,
        };
        if same {
            return None;
        }
        self.health = Some(health.clone());
        Some(health)
    }
}

/// What a quantity is that neither the driver nor the configuration speaks of: what its first value is.
fn kind_of(sample: &Sample) -> Kind {
    if sample.event {
        return Kind::Event;
    }
    match sample.value {
        Value::Number(_) => Kind::Number,
        Value::Switch(_) => Kind::Switch,
        Value::Text(_) => Kind::Text,
        Value::Bytes(_) => Kind::Bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn descriptor() -> Descriptor {
        Descriptor {
            gateway: "g".into(),
            site: None,
            room: Some("salon".into()),
            room_label: None,
            sensor: "meteo".into(),
            label: None,
            location: None,
            tags: vec![],
            quantities: vec![],
        }
    }

    fn pipeline(config: PipelineConfig) -> Pipeline {
        let mut pipeline = Pipeline::new();
        let declared = [Declared { name: "temperature", unit: Some("°C"), kind: Kind::Number }];
        pipeline.add(descriptor(), &declared, Arc::new(config));
        pipeline
    }

    fn number(name: &'static str, number: f64) -> Sample {
        Sample::new(name, Value::number(number).expect("finite"))
    }

    fn observe(pipeline: &mut Pipeline, seconds: u64, samples: Vec<Sample>) -> Outcome {
        pipeline.observe(Observation {
            sensor: SensorIndex(0),
            at: BootTime(seconds * SECOND),
            outcome: Ok(samples),
            keep: None,
        })
    }

    fn fault(pipeline: &mut Pipeline, code: FaultCode) -> Outcome {
        let outcome = Err(Fault::new(code, "why"));
        pipeline.observe(Observation { sensor: SensorIndex(0), at: BootTime(0), outcome, keep: None })
    }

    fn published(outcome: &Outcome) -> Vec<(String, Value)> {
        outcome.reading.as_ref().map_or_else(Vec::new, |(descriptor, values)| {
            let name = |index: &u16| descriptor.quantities[usize::from(*index)].name.to_string();
            values.iter().map(|(index, value)| (name(index), value.clone())).collect()
        })
    }

    fn change(name: &str, deadband: Deadband) -> PipelineConfig {
        PipelineConfig { change: [(name.to_owned(), deadband)].into(), ..PipelineConfig::default() }
    }

    fn finite(number: f64) -> Finite {
        Finite::new(number).expect("finite")
    }

    #[test]
    fn without_change_every_reading_is_published() {
        let mut pipeline = pipeline(PipelineConfig::default());
        for seconds in 0..3 {
            assert_eq!(published(&observe(&mut pipeline, seconds, vec![number("temperature", 21.0)])).len(), 1);
        }
        let descriptor = pipeline.descriptor(SensorIndex(0)).expect("the sensor");
        assert_eq!(descriptor.quantities[0].unit.as_deref(), Some("°C"));
    }

    #[test]
    fn bytes_have_the_type_that_came_with_them_last() {
        let mut pipeline = pipeline(PipelineConfig::default());
        let picture = |content_type: Option<&str>| Sample {
            content_type: content_type.map(Into::into),
            ..Sample::new("picture", Value::Bytes([1].into()))
        };
        for (said, known) in [(None, None), (Some("a/b"), Some("a/b")), (None, Some("a/b")), (Some("c/d"), Some("c/d"))]
        {
            let outcome = observe(&mut pipeline, 1, vec![picture(said)]);
            let (descriptor, values) = outcome.reading.expect("bytes");
            assert_eq!(values.len(), 1);
            assert_eq!((descriptor.quantities.len(), descriptor.quantities[0].content_type.as_deref()), (1, known));
        }
    }

    #[test]
    fn change_is_measured_from_the_last_published_value() {
        let mut pipeline = pipeline(change("temperature", Deadband::Absolute(finite(0.1))));
        let mut kept = vec![];
        for (seconds, value) in [21.0, 21.05, 21.09, 21.1, 21.15, 21.0].into_iter().enumerate() {
            if !published(&observe(&mut pipeline, seconds as u64, vec![number("temperature", value)])).is_empty() {
                kept.push(value);
            }
        }
        assert_eq!(kept, [21.0, 21.1, 21.0]);
    }

    #[test]
    fn the_heartbeat_publishes_what_stands_still() {
        let config = PipelineConfig {
            heartbeat: Some(Duration::from_secs(10)),
            ..change("temperature", Deadband::Absolute(finite(1.0)))
        };
        let mut pipeline = pipeline(config);
        let times: Vec<u64> = (0..25)
            .filter(|seconds| {
                !published(&observe(&mut pipeline, *seconds, vec![number("temperature", 20.0)])).is_empty()
            })
            .collect();
        assert_eq!(times, [0, 10, 20]);
    }

    #[test]
    fn calibration_comes_before_the_filter_and_names_come_last() {
        let quantity = QuantityConfig {
            rename: Some("temp".to_owned()),
            unit: Some("K".to_owned()),
            multiply: Some(finite(2.0)),
            offset: Some(finite(0.26)),
            round: Some(1),
            ..QuantityConfig::default()
        };
        let config = PipelineConfig {
            quantities: [("temperature".to_owned(), quantity)].into(),
            ..change("temp", Deadband::Absolute(finite(0.0)))
        };
        let mut pipeline = pipeline(config);
        let first = observe(&mut pipeline, 0, vec![number("temperature", 10.0)]);
        assert_eq!(published(&first), [("temp".to_owned(), Value::Number(finite(20.3)))]);
        assert!(published(&observe(&mut pipeline, 1, vec![number("temperature", 10.01)])).is_empty());
    }

    #[test]
    fn numbers_that_stand_still_too_long_are_a_fault_until_one_moves() {
        let config = PipelineConfig { frozen_after: Some(Duration::from_secs(10)), ..PipelineConfig::default() };
        let mut pipeline = pipeline(config);
        let mut at = |seconds, temperature, humidity| {
            let press = Sample::event("press", Value::Number(finite(1.0)));
            let samples = vec![number("temperature", temperature), number("humidity", humidity), press];
            let outcome = observe(&mut pipeline, seconds, samples);
            let names: Vec<String> = published(&outcome).into_iter().map(|(name, _)| name).collect();
            (outcome.health, names.len())
        };
        assert_eq!(at(0, 20.0, 50.0), (Some(Health::Online), 3));
        assert_eq!(at(9, 20.0, 50.0), (None, 3));
        assert_eq!(at(10, 20.0, 51.0), (None, 3), "one of them moved");
        assert_eq!(at(19, 20.0, 51.0), (None, 3));
        let (health, values) = at(20, 20.0, 51.0);
        assert!(matches!(health, Some(Health::Fault(ref fault)) if fault.code == FaultCode::Frozen), "{health:?}");
        assert_eq!(values, 1, "the event alone");
        assert_eq!(at(30, 20.0, 51.0), (None, 1), "told once");
        assert_eq!(at(31, 20.0, 51.5), (Some(Health::Online), 3));
        assert_eq!(at(40, 20.0, 51.5), (None, 3));
    }

    #[test]
    fn only_numbers_can_freeze_and_a_fault_between_begins_anew() {
        let config = PipelineConfig { frozen_after: Some(Duration::from_secs(10)), ..PipelineConfig::default() };
        let mut pipeline = pipeline(config);
        let switch = || vec![Sample::new("state", Value::Switch(true))];
        observe(&mut pipeline, 0, switch());
        assert_eq!(observe(&mut pipeline, 100, switch()).health, None);
        observe(&mut pipeline, 200, vec![number("temperature", 20.0)]);
        fault(&mut pipeline, FaultCode::Missing);
        assert_eq!(observe(&mut pipeline, 300, vec![number("temperature", 20.0)]).health, Some(Health::Online));
        let frozen = observe(&mut pipeline, 310, vec![number("temperature", 20.0)]).health;
        assert!(matches!(frozen, Some(Health::Fault(_))));
        assert_eq!(observe(&mut pipeline, 320, switch()).health, None, "a switch says nothing about the numbers");
    }

    #[test]
    fn events_are_never_held_back() {
        let mut pipeline = pipeline(change("press", Deadband::Absolute(finite(0.0))));
        for seconds in 0..3 {
            let press = Sample::event("press", Value::Text("rising".into()));
            assert_eq!(published(&observe(&mut pipeline, seconds, vec![press])).len(), 1);
        }
    }

    #[test]
    fn health_is_told_when_it_changes_and_the_first_value_after_a_fault_is_news() {
        let mut pipeline = pipeline(change("temperature", Deadband::Absolute(finite(1.0))));
        let good = |pipeline: &mut Pipeline| observe(pipeline, 0, vec![number("temperature", 20.0)]);
        assert_eq!(good(&mut pipeline).health, Some(Health::Online));
        assert_eq!(good(&mut pipeline).health, None);
        assert!(matches!(fault(&mut pipeline, FaultCode::Bus).health, Some(Health::Fault(_))));
        assert_eq!(fault(&mut pipeline, FaultCode::Bus).health, None);
        assert!(matches!(fault(&mut pipeline, FaultCode::Missing).health, Some(Health::Fault(_))));
        let back = good(&mut pipeline);
        assert_eq!(back.health, Some(Health::Online));
        assert_eq!(published(&back).len(), 1);
    }

    #[test]
    fn a_garbled_line_is_no_fault_but_three_in_a_row_are() {
        let mut pipeline = pipeline(PipelineConfig::default());
        observe(&mut pipeline, 0, vec![number("temperature", 20.0)]);
        assert_eq!(fault(&mut pipeline, FaultCode::BadData).health, None);
        assert_eq!(fault(&mut pipeline, FaultCode::BadData).rejected, ["why"]);
        assert!(matches!(fault(&mut pipeline, FaultCode::BadData).health, Some(Health::Fault(_))));
    }

    #[test]
    fn a_device_cannot_name_quantities_without_end() {
        let mut pipeline = pipeline(PipelineConfig::default());
        let samples = (0..MAX_QUANTITIES + 2).map(|n| Sample::new(format!("q{n}"), Value::Switch(true))).collect();
        let outcome = observe(&mut pipeline, 0, samples);
        assert_eq!(published(&outcome).len(), MAX_QUANTITIES);
        assert_eq!(outcome.rejected.len(), 2);
    }

    proptest! {
        #[test]
        fn published_numbers_always_differ_by_the_deadband(
            values in proptest::collection::vec(-1000.0..1000.0_f64, 1..60),
            band in 0.01..50.0_f64,
        ) {
            let mut pipeline = pipeline(change("temperature", Deadband::Absolute(finite(band))));
            let mut last: Option<f64> = None;
            for (seconds, value) in values.into_iter().enumerate() {
                let outcome = observe(&mut pipeline, seconds as u64, vec![number("temperature", value)]);
                let moved = last.is_none_or(|last| (value - last).abs() >= band * (1.0 - 1e-9));
                prop_assert_eq!(!published(&outcome).is_empty(), moved);
                if moved {
                    last = Some(value);
                }
            }
        }
    }
}
