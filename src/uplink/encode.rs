//! Records become messages: topic, payload, retained or not.
//!
//! A pure function of record, descriptor, settings and date. The fields of a payload always come in this order, and
//! what is not known is left out:
//!
//! `id time site room room_label sensor label quantity value unit clock boot uptime location tags`
//!
//! With `payload = "sensor"`, `values` and `units` stand where `quantity`, `value` and `unit` would. `id` is the run
//! and the position of the message's first value. Without a date there is no `time`, `clock` is `"unset"`, and
//! `boot` and `uptime` (seconds since that boot, to the millisecond) say when it was.
//!
//! Numbers have the shortest form that reads back as the same number, without `.0` for whole ones. Raw messages and
//! values of bytes go out byte for byte, with no JSON around them.

use std::collections::HashMap;
use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use serde::Serialize;

use crate::config::PayloadShape;
use crate::outbox::{Body, Entry, Raw, Seq};
use crate::reading::{Descriptor, Finite, Kind, Quantity, Value};
use crate::topic::{MAX_BYTES, Template};

use super::dating::Date;

/// The texts of so many descriptors are kept ready. There is one a sensor, and more only after its configuration
/// changed.
const MAX_CACHED: usize = 1_024;

/// How an uplink cuts and marks messages.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Topic of readings.
    pub template: Template,
    /// One message a quantity or one a sensor.
    pub shape: PayloadShape,
    /// Are readings retained? Events never are.
    pub retain: bool,
}

/// Makes messages of records, and keeps the parts ready that all messages of a sensor share.
#[derive(Debug)]
pub struct Encoder {
    settings: Settings,
    /// By address; each entry holds on to its descriptor, so that the address stays its own.
    cache: HashMap<*const Descriptor, Prepared>,
}

/// A message that is ready to be written.
#[derive(Debug)]
pub struct Message<'a> {
    /// Where it is published: a name that brokers accept.
    pub topic: &'a str,
    /// Shall the broker keep it?
    pub retain: bool,
    /// Run and position: what the payload calls `id`.
    pub id: (u32, Seq),
    content: Content<'a>,
}

#[derive(Debug)]
enum Content<'a> {
    Plain(&'a [u8]),
    Json { prepared: &'a Prepared, date: Date, values: Values<'a> },
}

#[derive(Debug)]
enum Values<'a> {
    One(&'a PreparedQuantity, &'a Value),
    All(&'a [(u16, Value)]),
}

#[derive(Debug)]
struct Prepared {
    descriptor: Arc<Descriptor>,
    quantities: Vec<PreparedQuantity>,
    sensor_topic: Option<Box<str>>,
    /// `,"site":…` up to the sensor's label.
    head: Box<str>,
    /// `,"location":…,"tags":…}`
    tail: Box<str>,
}

#[derive(Debug)]
struct PreparedQuantity {
    topic: Option<Box<str>>,
    event: bool,
    /// `"temperature":`
    key: Box<str>,
    /// `,"site":…,"quantity":"temperature","value":`
    head: Box<str>,
    /// `,"unit":"°C"`
    unit: Box<str>,
}

impl Encoder {
    /// An encoder for one uplink.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, cache: HashMap::new() }
    }

    /// How a record is cut: as the uplink says, but what is not JSON has a message of its own.
    #[must_use]
    pub fn shape(&self, entry: &Entry) -> PayloadShape {
        match &entry.body {
            Body::Reading { values, .. } if !values.iter().any(|(_, value)| matches!(value, Value::Bytes(_))) => {
                self.settings.shape
            }
            _ => PayloadShape::Quantity,
        }
    }

    /// The message for these positions of a record, which are one value's or, in the shape of a sensor, the record's.
    ///
    /// `None` if there can be no such message: no broker accepts the topic, or the record does not hold the value.
    pub fn message<'a>(
        &'a mut self,
        entry: &'a Entry,
        seqs: &Range<Seq>,
        shape: PayloadShape,
        date: Date,
    ) -> Option<Message<'a>> {
        let id = (entry.run, seqs.start);
        let (descriptor, values) = match &entry.body {
            Body::Raw(Raw { topic, payload, retain }) => {
                is_topic(topic).then_some(())?;
                return Some(Message { topic, retain: *retain, id, content: Content::Plain(payload) });
            }
            Body::Reading { descriptor, values } => (descriptor, values.as_slice()),
        };
        let retain = self.settings.retain;
        let prepared = self.prepared(descriptor);
        let (topic, retain, values) = match shape {
            PayloadShape::Sensor => {
                let topic = prepared.sensor_topic.as_deref()?;
                let event = values.iter().any(|(index, _)| prepared.quantity(*index).is_none_or(|q| q.event));
                (topic, retain && !event, Values::All(values))
            }
            PayloadShape::Quantity => {
                let place = usize::try_from(seqs.start.checked_sub(entry.seq)?).ok()?;
                let (index, value) = values.get(place)?;
                let quantity = prepared.quantity(*index)?;
                let topic = quantity.topic.as_deref()?;
                let retain = retain && !quantity.event;
                if let Value::Bytes(bytes) = value {
                    return Some(Message { topic, retain, id, content: Content::Plain(bytes) });
                }
                (topic, retain, Values::One(quantity, value))
            }
        };
        Some(Message { topic, retain, id, content: Content::Json { prepared, date, values } })
    }

    fn prepared(&mut self, descriptor: &Arc<Descriptor>) -> &Prepared {
        let address = Arc::as_ptr(descriptor);
        if self.cache.len() >= MAX_CACHED && !self.cache.contains_key(&address) {
            self.cache.clear();
        }
        self.cache.entry(address).or_insert_with(|| Prepared::new(descriptor, &self.settings.template))
    }
}

impl Message<'_> {
    /// Appends the payload.
    pub fn write(&self, out: &mut BytesMut) {
        match &self.content {
            Content::Plain(bytes) => out.put_slice(bytes),
            Content::Json { prepared, date, values } => prepared.write(out, self.id, *date, values),
        }
    }
}

impl Prepared {
    fn new(descriptor: &Arc<Descriptor>, template: &Template) -> Self {
        let mut head = String::with_capacity(64);
        for (key, value) in [
            ("site", &descriptor.site),
            ("room", &descriptor.room),
            ("room_label", &descriptor.room_label),
            ("sensor", &Some(descriptor.sensor.clone())),
            ("label", &descriptor.label),
        ] {
            if let Some(value) = value {
                let _ = write!(head, ",\"{key}\":{}", json(value));
            }
        }
        let quantities = descriptor
            .quantities
            .iter()
            .map(|quantity| PreparedQuantity::new(&head, quantity, template.quantity_topic(descriptor, quantity)))
            .collect();
        Self {
            quantities,
            sensor_topic: acceptable(template.sensor_topic(descriptor)),
            head: head.into(),
            tail: tail(descriptor).into(),
            descriptor: descriptor.clone(),
        }
    }

    fn quantity(&self, index: u16) -> Option<&PreparedQuantity> {
        self.quantities.get(usize::from(index))
    }

    fn write(&self, out: &mut BytesMut, (run, first): (u32, Seq), date: Date, values: &Values<'_>) {
        let _ = write!(out, "{{\"id\":\"{run}-{first}\"");
        if let Date::Wall(time) = date {
            let _ = write!(out, ",\"time\":\"{}\"", humantime::format_rfc3339_millis(time.to_system()));
        }
        match values {
            Values::One(quantity, value) => {
                out.put_slice(quantity.head.as_bytes());
                put_value(out, value);
                out.put_slice(quantity.unit.as_bytes());
            }
            Values::All(values) => {
                out.put_slice(self.head.as_bytes());
                self.write_all(out, values);
            }
        }
        match date {
            Date::Wall(_) => out.put_slice(b",\"clock\":\"set\""),
            Date::Uptime(boot, at) => {
                let milliseconds = at.0 / 1_000_000;
                let _ = write!(
                    out,
                    ",\"clock\":\"unset\",\"boot\":\"{boot}\",\"uptime\":{}.{:03}",
                    milliseconds / 1_000,
                    milliseconds % 1_000
                );
            }
        }
        out.put_slice(self.tail.as_bytes());
    }

    fn write_all(&self, out: &mut BytesMut, values: &[(u16, Value)]) {
        out.put_slice(b",\"values\":{");
        let mut first = true;
        for (index, value) in values {
            let Some(quantity) = self.quantity(*index) else { continue };
            if !std::mem::take(&mut first) {
                out.put_u8(b',');
            }
            out.put_slice(quantity.key.as_bytes());
            put_value(out, value);
        }
        out.put_u8(b'}');
        let mut before: &[u8] = b",\"units\":{";
        for (index, _) in values {
            let quantity = self.descriptor.quantities.get(usize::from(*index));
            let (Some(prepared), Some(unit)) = (self.quantity(*index), quantity.and_then(|q| q.unit.as_deref())) else {
                continue;
            };
            out.put_slice(before);
            before = b",";
            out.put_slice(prepared.key.as_bytes());
            put_json(out, unit);
        }
        if before == b"," {
            out.put_u8(b'}');
        }
    }
}

impl PreparedQuantity {
    fn new(head: &str, quantity: &Quantity, topic: String) -> Self {
        let name = json(&quantity.name);
        Self {
            topic: acceptable(topic),
            event: quantity.kind == Kind::Event,
            key: format!("{name}:").into(),
            head: format!("{head},\"quantity\":{name},\"value\":").into(),
            unit: quantity.unit.as_ref().map_or_else(String::new, |unit| format!(",\"unit\":{}", json(unit))).into(),
        }
    }
}

fn tail(descriptor: &Descriptor) -> String {
    let mut out = BytesMut::new();
    if let Some(location) = &descriptor.location {
        out.put_slice(b",\"location\":{\"latitude\":");
        put_number(&mut out, location.latitude);
        out.put_slice(b",\"longitude\":");
        put_number(&mut out, location.longitude);
        if let Some(altitude) = location.altitude {
            out.put_slice(b",\"altitude\":");
            put_number(&mut out, altitude);
        }
        out.put_u8(b'}');
    }
    for (index, (name, value)) in descriptor.tags.iter().enumerate() {
        out.put_slice(if index == 0 { b",\"tags\":{" } else { b"," });
        put_json(&mut out, &**name);
        out.put_u8(b':');
        put_json(&mut out, &**value);
    }
    out.put_slice(if descriptor.tags.is_empty() { b"}" } else { b"}}" });
    String::from_utf8_lossy(&out).into_owned()
}

fn put_value(out: &mut BytesMut, value: &Value) {
    match value {
        Value::Number(number) => put_number(out, *number),
        Value::Switch(on) => out.put_slice(if *on { b"true" } else { b"false" }),
        Value::Text(text) => put_json(out, &**text),
        // Bytes have messages of their own; only a damaged record could bring them here.
        Value::Bytes(_) => out.put_slice(b"null"),
    }
}

fn put_number(out: &mut BytesMut, number: Finite) {
    // Adding zero turns -0 into 0.
    put_json(out, &(number.get() + 0.0));
    if out.ends_with(b".0") {
        out.truncate(out.len() - 2);
    }
}

fn put_json<T: Serialize + ?Sized>(out: &mut BytesMut, value: &T) {
    // Cannot fail: the buffer grows, and strings and numbers have a form in JSON.
    let _ = serde_json::to_writer(out.writer(), value);
}

fn json(text: &str) -> String {
    serde_json::to_string(text).expect("a string has a form in JSON")
}

/// Makes a topic acceptable to brokers, which would end the connection over a wildcard or a control character: the
/// names that a sketch on a microcontroller gives its values come in here. `None` if that is not possible.
fn acceptable(topic: String) -> Option<Box<str>> {
    let topic = if is_topic(&topic) { topic } else { topic.replace(is_forbidden, "_") };
    is_topic(&topic).then(|| topic.into())
}

/// MQTT 3.1.1, 4.7: no wildcards in a topic name, not empty, at most 65535 bytes; 1.5.3: brokers may refuse control
/// characters.
fn is_topic(topic: &str) -> bool {
    !topic.is_empty() && topic.len() <= MAX_BYTES && !topic.contains(is_forbidden)
}

fn is_forbidden(character: char) -> bool {
    matches!(character, '+' | '#') || character.is_control()
}

#[cfg(test)]
mod tests;
