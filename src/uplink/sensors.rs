//! What is known of each sensor at present: for those who must say it all at once, as births of Sparkplug do.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::outbox::{Moment, Seq};
use crate::reading::{Descriptor, Kind, Value, Values};

/// A value with where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Latest {
    /// The value.
    pub value: Value,
    /// Position in the outbox of the record that it is in.
    pub seq: Seq,
    /// When it was measured, as the record says it: both must have the same date.
    pub moment: Moment,
}

/// One sensor.
#[derive(Clone, Debug, Default)]
pub struct Present {
    /// As it was described last; `None`: it has given nothing yet.
    pub descriptor: Option<Arc<Descriptor>>,
    /// Does it give values?
    pub online: bool,
    /// By name of the quantity. Events have no present value, and bytes are too large to be kept.
    pub values: BTreeMap<Box<str>, Latest>,
}

/// All sensors of the running configuration that have been heard of, by name.
#[derive(Debug, Default)]
pub struct Sensors {
    /// Somebody asks for it: otherwise nothing is noted.
    watched: bool,
    known: BTreeMap<Box<str>, Present>,
    /// How often one has appeared, come back or failed.
    version: u64,
}

impl Sensors {
    /// From now on it is noted.
    pub fn watch(&mut self) {
        self.watched = true;
    }

    /// A sensor gave values at this moment, which are at this position of the outbox.
    pub fn gave(&mut self, descriptor: &Arc<Descriptor>, values: &Values, seq: Seq, moment: Moment) {
        if !self.watched {
            return;
        }
        let present = self.of(&descriptor.sensor);
        let is_new = present.descriptor.as_ref().is_none_or(|known| !Arc::ptr_eq(known, descriptor));
        if is_new {
            present.descriptor = Some(Arc::clone(descriptor));
        }
        for (index, value) in values {
            let Some(quantity) = descriptor.quantities.get(usize::from(*index)) else { continue };
            if quantity.kind == Kind::Event || matches!(value, Value::Bytes(_)) {
                continue;
            }
            let latest = Latest { value: value.clone(), seq, moment };
            match present.values.get_mut(&quantity.name) {
                Some(known) => *known = latest,
                None => drop(present.values.insert(quantity.name.clone(), latest)),
            }
        }
        self.version += u64::from(is_new);
    }

    /// A sensor works from now on, or does not.
    pub fn turned(&mut self, sensor: &str, online: bool) {
        if !self.watched {
            return;
        }
        let present = self.of(sensor);
        let changed = present.online != online;
        present.online = online;
        self.version += u64::from(changed);
    }

    /// A sensor is there no more.
    pub fn left(&mut self, sensor: &str) {
        self.version += u64::from(self.known.remove(sensor).is_some());
    }

    /// A number that changes when a sensor appears, comes back or fails.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The sensor of that name.
    #[must_use]
    pub fn get(&self, sensor: &str) -> Option<&Present> {
        self.known.get(sensor)
    }

    /// Those that work and have given something.
    pub fn online(&self) -> impl Iterator<Item = &Present> {
        self.known.values().filter(|present| present.online && present.descriptor.is_some())
    }

    fn of(&mut self, sensor: &str) -> &mut Present {
        if !self.known.contains_key(sensor) {
            self.known.insert(sensor.into(), Present::default());
        }
        self.known.get_mut(sensor).expect("it was put there")
    }
}
