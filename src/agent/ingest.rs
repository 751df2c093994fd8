//! What LAN clients publish, as records: raw messages, or observations of sensors that are met as they come.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::clock::BootTime;
use crate::config::{self, Becomes, Config, Gateway, LanSensor, MAX_NAME_BYTES};
use crate::drivers::message::{self, Reader};
use crate::offer::Offer;
use crate::outbox::Raw;
use crate::pipeline::Pipeline;
use crate::reading::{Observation, SensorIndex};

/// Sensors of LAN clients. What further ones send stays on the LAN, counted.
const MAX_SENSORS: usize = 256;

/// What an offer is made of.
#[derive(Debug)]
pub(super) enum Made {
    /// A message as it came.
    Raw(Raw),
    /// An observation of a sensor.
    Observation(Observation),
    /// Nothing, on purpose.
    Nothing,
}

/// Makes records of offers.
#[derive(Debug)]
pub(super) struct Ingest {
    rules: Vec<config::Ingest>,
    gateway: Gateway,
    /// Sensors of the configuration, whose names are theirs.
    configured: Vec<String>,
    /// By room and name.
    sensors: HashMap<(Option<String>, String), Known>,
}

#[derive(Debug)]
struct Known {
    rule: usize,
    index: SensorIndex,
    reader: Reader,
}

impl Ingest {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            rules: config.broker.as_ref().map(|broker| broker.ingest.clone()).unwrap_or_default(),
            gateway: config.gateway.clone(),
            configured: config.sensors.iter().map(|sensor| sensor.name.clone()).collect(),
            sensors: HashMap::new(),
        }
    }

    /// Goes on with another configuration, whose rules are the same but for what rooms are called. Gives the sensors whose
    /// names are now the configuration's.
    pub(super) fn renew(&mut self, config: &Config, pipeline: &mut Pipeline) -> Vec<SensorIndex> {
        let (sensors, mut gone) = (std::mem::take(&mut self.sensors), Vec::new());
        *self = Self::new(config);
        for ((room, name), known) in sensors {
            let is_taken = self.configured.contains(&name);
            match self.rules.get(known.rule).map(|rule| &rule.becomes) {
                Some(Becomes::Reading(sensor)) if !is_taken => {
                    let descriptor = sensor.descriptor(&self.gateway, &name, room.as_deref());
                    pipeline.describe(known.index, &descriptor);
                    self.sensors.insert((room, name), known);
                }
                _ => gone.push(known.index),
            }
        }
        gone
    }

    /// Is it one of the sensors that were met here?
    pub(super) fn has_met(&self, sensor: SensorIndex) -> bool {
        self.sensors.values().any(|known| known.index == sensor)
    }

    /// What is to be made of an offer that came at `at`. `kept` gives what the filters of a sensor that is met for the
    /// first time have kept, by room and name, and whether that was in this boot.
    ///
    /// # Errors
    /// Nothing can be, and why.
    pub(super) fn make(
        &mut self,
        offer: &Offer,
        pipeline: &mut Pipeline,
        kept: impl Fn(Option<&str>, &str) -> Option<(Box<[u8]>, bool)>,
        at: BootTime,
    ) -> Result<Made, String> {
        let rule = self.rules.get(offer.rule).ok_or("there is no such [[broker.ingest]]")?;
        let sensor = match &rule.becomes {
            Becomes::Reading(sensor) => sensor.clone(),
            Becomes::Raw(to) => {
                let topic = to.fill(&offer.topic).ok_or("the topic has too few levels for `to`")?;
                return Ok(Made::Raw(Raw {
                    topic: topic.into(),
                    payload: offer.payload.as_slice().into(),
                    retain: offer.retain,
                }));
            }
        };
        // This is how a retained message is taken back.
        if offer.payload.is_empty() {
            return Ok(Made::Nothing);
        }
        let whole = sensor.quantity.as_ref().map(|name| filled(name, &offer.topic, "as")).transpose()?;
        let known = self.known(offer, &sensor, pipeline, kept)?;
        let outcome = known.reader.samples(&offer.payload, whole.as_deref().unwrap_or(message::WHOLE));
        Ok(Made::Observation(Observation { sensor: known.index, at, outcome, keep: None }))
    }

    /// The sensor that an offer is of, which may be met for the first time.
    fn known(
        &mut self,
        offer: &Offer,
        sensor: &LanSensor,
        pipeline: &mut Pipeline,
        kept: impl Fn(Option<&str>, &str) -> Option<(Box<[u8]>, bool)>,
    ) -> Result<&mut Known, String> {
        let name = filled(&sensor.sensor, &offer.topic, "sensor")?;
        let room = sensor.room.as_ref().map(|room| filled(room, &offer.topic, "room")).transpose()?;
        let count = self.sensors.len();
        match self.sensors.entry((room, name)) {
            Entry::Occupied(known) if known.get().rule == offer.rule => Ok(known.into_mut()),
            Entry::Occupied(known) => {
                Err(format!("another [[broker.ingest]] has a sensor `{}` in the same room", known.key().1))
            }
            Entry::Vacant(free) => {
                let (room, name) = free.key();
                if self.configured.contains(name) {
                    return Err(format!("the configuration has a sensor `{name}` of its own"));
                }
                if count >= MAX_SENSORS {
                    return Err(format!("there are {MAX_SENSORS} sensors of LAN clients already"));
                }
                let descriptor = sensor.descriptor(&self.gateway, name, room.as_deref());
                let index = pipeline.add(descriptor, &[], sensor.pipeline.clone());
                if let Some((kept, same_boot)) = kept(room.as_deref(), name) {
                    pipeline.restore(index, &kept, same_boot);
                }
                Ok(free.insert(Known { rule: offer.rule, index, reader: Reader::new(sensor.form) }))
            }
        }
    }
}

/// A name of the topic's levels.
fn filled(mapping: &crate::topic::mapping::Mapping, topic: &str, key: &str) -> Result<String, String> {
    let text = mapping.fill(topic).ok_or_else(|| format!("the topic has too few levels for `{key}`"))?;
    let name = message::name(&text);
    if text.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err(format!("`{key}` would be empty, or longer than {MAX_NAME_BYTES} bytes"));
    }
    Ok(name)
}
