//! What a host knows of a node and its devices, and what it does not: sequence numbers, aliases, births.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;

use crate::clock::WallTime;
use crate::outbox::{Moment, Seq};
use crate::reading::{Descriptor, Finite, Kind, Value};

use super::super::sensors::{Latest, Present};
use super::wire::{self, DataType, Metric, Scalar};

/// The alias of the node's own metric that has one.
pub const NODE_ALIAS: u64 = 1;

/// Metrics of all devices. Names come from the configuration and from sketches on microcontrollers; only a broken one has
/// so many.
const MAX_METRICS: u64 = 16_384;

/// A metric that is one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its devices have more than {MAX_METRICS} metrics, which are not told apart")]
pub struct TooMany;

/// What is known of one metric.
#[derive(Clone, Debug)]
struct Known {
    alias: u64,
    /// `None`: an event that has not come yet, of which nobody knows what its values are.
    datatype: Option<DataType>,
    unit: Option<Box<str>>,
    content_type: Option<Box<str>>,
    /// It was in the device's last birth, with a value of this position; 0: without a value.
    said: Option<Seq>,
    /// When the newest value was measured that the host has as the present one, in milliseconds since 1970.
    newest: Option<u64>,
}

impl Known {
    /// Its present value, as long as that is of its type.
    fn latest<'a>(&self, name: &str, present: Option<&'a Present>) -> Option<&'a Latest> {
        present?.values.get(name).filter(|latest| self.datatype == Some(scalar(&latest.value).0))
    }
}

/// A sensor, as the host sees it.
#[derive(Debug, Default)]
struct Device {
    /// It was born on this connection, and has not died.
    alive: bool,
    /// It was born only for its backlog.
    visiting: bool,
    descriptor: Option<Arc<Descriptor>>,
    metrics: BTreeMap<Box<str>, Known>,
    /// Aliases of [`properties`].
    properties: BTreeMap<&'static str, u64>,
}

/// Of one uplink. Aliases stay as they are while the agent runs; all else begins anew with each birth of the node.
#[derive(Debug, Default)]
pub struct Book {
    /// Of the next message.
    seq: u8,
    sent_at: Option<u64>,
    devices: BTreeMap<Box<str>, Device>,
    aliases: u64,
}

/// A metric as data refer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias {
    /// The number that stands for its name.
    pub number: u64,
    /// The value is not the present one.
    pub historical: bool,
}

impl Book {
    /// What is sent from now on is sent at this time; `None`: the clock is not set.
    pub fn set_time(&mut self, now: Option<WallTime>) {
        self.sent_at = now.map(milliseconds);
    }

    /// When what is sent now is sent, in milliseconds since 1970.
    #[must_use]
    pub fn sent_at(&self) -> Option<u64> {
        self.sent_at
    }

    /// The node is born: nothing of its devices is known to the host.
    pub fn begin(&mut self) {
        self.seq = 0;
        for device in self.devices.values_mut() {
            device.alive = false;
            device.visiting = false;
            for known in device.metrics.values_mut() {
                known.said = None;
            }
        }
    }

    /// Appends what is in each payload but a death's.
    pub fn put_head(&self, out: &mut BytesMut) {
        if let Some(time) = self.sent_at {
            wire::put_time(out, time);
        }
        wire::put_seq(out, self.seq);
    }

    /// A message with the last [head](Self::put_head) is on its way: the next one has the next number.
    pub fn sent(&mut self) {
        self.seq = self.seq.wrapping_add(1);
    }

    /// How data refer to a metric with a value of this position and time; `None`: the host does not know it. The host has
    /// that value then, unless it is of the `backlog`, or older than the one that it has: such a one is history.
    pub fn tell(&mut self, device: &str, metric: &str, seq: Seq, time: Option<u64>, backlog: bool) -> Option<Alias> {
        let known = self.devices.get_mut(device).filter(|device| device.alive)?.metrics.get_mut(metric)?;
        let historical = backlog || seq < known.said? || time.is_some_and(|time| Some(time) < known.newest);
        if !historical {
            known.newest = time.or(known.newest);
        }
        Some(Alias { number: known.alias, historical })
    }

    /// The metric of a device with this alias.
    #[must_use]
    pub fn name_of(&self, device: &str, alias: u64) -> Option<&str> {
        let mut metrics = self.devices.get(device)?.metrics.iter();
        metrics.find(|(_, known)| known.alias == alias).map(|(name, _)| &**name)
    }

    /// Has the device a metric of this name?
    #[must_use]
    pub fn has(&self, device: &str, metric: &str) -> bool {
        self.devices.get(device).is_some_and(|device| device.metrics.contains_key(metric))
    }

    /// Is the device alive to the host?
    #[must_use]
    pub fn is_alive(&self, device: &str) -> bool {
        self.devices.get(device).is_some_and(|device| device.alive)
    }

    /// Devices that are alive to the host, and whether each is so only for its backlog.
    pub fn alive(&self) -> impl Iterator<Item = (&str, bool)> {
        self.devices.iter().filter(|(_, device)| device.alive).map(|(name, device)| (&**name, device.visiting))
    }

    /// Takes note of a sensor with these values. Says whether it must be born (anew) before the host understands them.
    ///
    /// # Errors
    /// Those are too many metrics.
    pub fn learn(&mut self, descriptor: &Arc<Descriptor>, values: &[(u16, Value)]) -> Result<bool, TooMany> {
        if !self.devices.contains_key(&descriptor.sensor) {
            self.devices.insert(descriptor.sensor.clone(), Device::default());
        }
        let device = self.devices.get_mut(&descriptor.sensor).expect("it was put there");
        let mut needs = !device.alive;
        if device.descriptor.as_ref().is_none_or(|known| !Arc::ptr_eq(known, descriptor)) {
            for (name, _) in properties(descriptor) {
                if !device.properties.contains_key(name) {
                    device.properties.insert(name, next_alias(&mut self.aliases)?);
                }
            }
            for quantity in &descriptor.quantities {
                if let Some(known) = device.metrics.get_mut(&quantity.name) {
                    if known.unit != quantity.unit {
                        known.unit.clone_from(&quantity.unit);
                        needs = true;
                    }
                    known.content_type.clone_from(&quantity.content_type);
                    continue;
                }
                let known = Known {
                    alias: next_alias(&mut self.aliases)?,
                    datatype: datatype_of(quantity.kind),
                    unit: quantity.unit.clone(),
                    content_type: quantity.content_type.clone(),
                    said: None,
                    newest: None,
                };
                device.metrics.insert(quantity.name.clone(), known);
            }
            device.descriptor = Some(Arc::clone(descriptor));
        }
        for (index, value) in values {
            let Some(quantity) = descriptor.quantities.get(usize::from(*index)) else { continue };
            let Some(known) = device.metrics.get_mut(&quantity.name) else { continue };
            let (datatype, _) = scalar(value);
            if known.datatype != Some(datatype) {
                known.datatype = Some(datatype);
                needs = true;
            }
            needs |= known.said.is_none();
        }
        Ok(needs)
    }

    /// Appends the birth certificate of a sensor that it has [learnt](Self::learn) of (DBIRTH): every metric, with its
    /// present value where there is one. `dated` gives the time of a value.
    pub fn put_birth(
        &self,
        out: &mut BytesMut,
        sensor: &str,
        present: Option<&Present>,
        dated: impl Fn(&Moment) -> Option<u64>,
    ) {
        self.put_head(out);
        let Some(device) = self.devices.get(sensor) else { return };
        for (name, (datatype, value)) in device.descriptor.iter().flat_map(|descriptor| properties(descriptor)) {
            let alias = device.properties.get(name).copied();
            let metric = Metric { alias, time: self.sent_at, ..Metric::named(name, datatype, value) };
            wire::put_metric(out, &metric);
        }
        let mut values: Vec<Metric<'_>> = Vec::new();
        for (name, known) in &device.metrics {
            let Some(datatype) = known.datatype else { continue };
            let latest = known.latest(name, present);
            values.push(Metric {
                alias: Some(known.alias),
                time: latest.map_or(self.sent_at, |latest| dated(&latest.moment)),
                unit: known.unit.as_deref(),
                content_type: known.content_type.as_deref(),
                ..Metric::named(name, datatype, latest.map_or(Scalar::Null, |latest| scalar(&latest.value).1))
            });
        }
        // In the order of time (6.4.1, "data-publish-dbirth-order").
        values.sort_by_key(|metric| metric.time);
        for metric in &values {
            wire::put_metric(out, metric);
        }
    }

    /// The birth certificate of a device is on its way. `visiting`: only its backlog is to be told.
    /// `dated` as for the certificate.
    pub fn born(
        &mut self,
        sensor: &str,
        present: Option<&Present>,
        visiting: bool,
        dated: impl Fn(&Moment) -> Option<u64>,
    ) {
        let Some(device) = self.devices.get_mut(sensor) else { return };
        device.alive = true;
        device.visiting = visiting;
        for (name, known) in &mut device.metrics {
            let latest = known.latest(name, present);
            known.said = known.datatype.map(|_| latest.map_or(0, |latest| latest.seq));
            known.newest = latest.and_then(|latest| dated(&latest.moment));
        }
    }

    /// The death certificate of a device is on its way.
    pub fn died(&mut self, sensor: &str) {
        if let Some(device) = self.devices.get_mut(sensor) {
            device.alive = false;
        }
    }
}

/// Milliseconds since 1970; what was before counts as that.
#[must_use]
pub fn milliseconds(time: WallTime) -> u64 {
    u64::try_from(time.0 / 1_000_000).unwrap_or(0)
}

fn next_alias(aliases: &mut u64) -> Result<u64, TooMany> {
    if *aliases >= MAX_METRICS {
        return Err(TooMany);
    }
    *aliases += 1;
    Ok(NODE_ALIAS + *aliases)
}

fn datatype_of(kind: Kind) -> Option<DataType> {
    match kind {
        Kind::Number => Some(DataType::Double),
        Kind::Switch => Some(DataType::Boolean),
        Kind::Text => Some(DataType::String),
        Kind::Bytes => Some(DataType::Bytes),
        Kind::Event => None,
    }
}

/// A value as a metric has it.
#[must_use]
pub fn scalar(value: &Value) -> (DataType, Scalar<'_>) {
    match value {
        Value::Number(number) => (DataType::Double, Scalar::Double(number.get())),
        Value::Switch(on) => (DataType::Boolean, Scalar::Boolean(*on)),
        Value::Text(text) => (DataType::String, Scalar::Text(text)),
        Value::Bytes(bytes) => (DataType::Bytes, Scalar::Bytes(bytes)),
    }
}

/// What is said of a sensor beside its values.
fn properties(descriptor: &Descriptor) -> impl Iterator<Item = (&'static str, (DataType, Scalar<'_>))> {
    let room = descriptor.room_label.as_deref().or(descriptor.room.as_deref());
    let text = |text| (DataType::String, Scalar::Text(text));
    let number = |number: Finite| (DataType::Double, Scalar::Double(number.get()));
    let location = descriptor.location.as_ref();
    [
        ("Properties/Label", descriptor.label.as_deref().map(text)),
        ("Properties/Room", room.map(text)),
        ("Properties/Latitude", location.map(|place| number(place.latitude))),
        ("Properties/Longitude", location.map(|place| number(place.longitude))),
        ("Properties/Altitude", location.and_then(|place| place.altitude).map(number)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
}
