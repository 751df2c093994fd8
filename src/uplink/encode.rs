//! Records become messages: topic, payload, retained or not.
//!
//! A pure function of record, descriptor, settings and date. The fields of a payload always come in this order, and
//! what is not known is left out:
//!
//! `id time site room room_label sensor label quantity value content_type unit clock boot uptime backlog location tags`
//!
//! With `payload = "sensor"`, `values` and `units` stand where `quantity`, `value` and `unit` would. `id` is the run
//! and the position of the message's first value. Without a date there is no `time`, `clock` is `"unset"`, and
//! `boot` and `uptime` (seconds since that boot, to the millisecond) say when it was. `backlog` is `true` for what was
//! taken before the connection was up; consumers that take every arrival for the present go by it.
//!
//! Numbers have the shortest form that reads back as the same number, without `.0` for whole ones. Raw messages go out
//! byte for byte, with no JSON around them, and so do values of bytes, unless the uplink says `bytes = "base64"`. A record
//! with bytes is always cut into messages of one quantity.

use std::collections::HashMap;
use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use data_encoding::BASE64;
use serde::Serialize;

use crate::config::{BacklogTopic, PayloadShape};
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
    /// Are readings retained? Events and the backlog never are.
    pub retain: bool,
    /// Have bytes a JSON object around them, as other values do?
    pub base64: bool,
    /// Where the backlog is published, if not on the topics of live readings.
    pub backlog_topic: Option<BacklogTopic>,
}

/// Which part of a record a message is made of, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Positions: one value's or, in the shape of a sensor, the whole record's.
    pub seqs: Range<Seq>,
    /// How the record is cut.
    pub shape: PayloadShape,
    /// When it was measured.
    pub date: Date,
    /// It belongs to the backlog.
    pub backlog: bool,
}

/// Makes messages of records, and keeps the parts ready that all messages of a sensor share.
#[derive(Debug)]
pub struct Encoder {
    settings: Settings,
    /// Topic of a raw message in the backlog.
    raw_topic: String,
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
    /// What the payload is, where it is bytes of a known type.
    pub content_type: Option<&'a str>,
    content: Content<'a>,
}

#[derive(Debug)]
enum Content<'a> {
    Plain(&'a [u8]),
    Json { prepared: &'a Prepared, date: Date, backlog: bool, values: Values<'a> },
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
    sensor_topic: Topics,
    /// `,"site":…` up to the sensor's label.
    head: Box<str>,
    /// `,"location":…,"tags":…}`
    tail: Box<str>,
}

#[derive(Debug)]
struct PreparedQuantity {
    topic: Topics,
    event: bool,
    /// `"temperature":`
    key: Box<str>,
    /// `,"site":…,"quantity":"temperature","value":`
    head: Box<str>,
    /// `,"content_type":"image/jpeg","unit":"°C"`, where they are known.
    unit: Box<str>,
    content_type: Option<Box<str>>,
}

/// Where live messages and those of the backlog go; `None`: no broker accepts it.
#[derive(Debug)]
struct Topics {
    live: Option<Box<str>>,
    backlog: Option<Box<str>>,
}

impl Topics {
    fn new(topic: String, settings: &Settings) -> Self {
        let backlog = settings.backlog_topic.as_ref().map(|around| acceptable(around.of(&topic)));
        let live = acceptable(topic);
        Self { backlog: backlog.unwrap_or_else(|| live.clone()), live }
    }

    fn of(&self, backlog: bool) -> Option<&str> {
        if backlog { self.backlog.as_deref() } else { self.live.as_deref() }
    }
}

impl Encoder {
    /// An encoder for one uplink.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, raw_topic: String::new(), cache: HashMap::new() }
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

    /// The message for a part of a record.
    ///
    /// `None` if there can be no such message: no broker accepts the topic, or the record does not hold the value.
    pub fn message<'a>(&'a mut self, entry: &'a Entry, part: &Part) -> Option<Message<'a>> {
        let Part { ref seqs, shape, date, backlog } = *part;
        let id = (entry.run, seqs.start);
        let (descriptor, values) = match &entry.body {
            Body::Raw(Raw { topic, payload, retain }) => {
                let mut topic = &**topic;
                if let Some(around) = self.settings.backlog_topic.as_ref().filter(|_| backlog) {
                    self.raw_topic = around.of(topic);
                    topic = &self.raw_topic;
                }
                is_topic(topic).then_some(())?;
                let content = Content::Plain(payload);
                return Some(Message { topic, retain: *retain && !backlog, id, content_type: None, content });
            }
            Body::Reading { descriptor, values } => (descriptor, values.as_slice()),
        };
        let (retain, base64) = (self.settings.retain && !backlog, self.settings.base64);
        let prepared = self.prepared(descriptor);
        let (topic, retain, values) = match shape {
            PayloadShape::Sensor => {
                let topic = prepared.sensor_topic.of(backlog)?;
                let event = values.iter().any(|(index, _)| prepared.quantity(*index).is_none_or(|q| q.event));
                (topic, retain && !event, Values::All(values))
            }
            PayloadShape::Quantity => {
                let place = usize::try_from(seqs.start.checked_sub(entry.seq)?).ok()?;
                let (index, value) = values.get(place)?;
                let quantity = prepared.quantity(*index)?;
                let topic = quantity.topic.of(backlog)?;
                let retain = retain && !quantity.event;
                if let (Value::Bytes(bytes), false) = (value, base64 && !quantity.event) {
                    let content_type = quantity.content_type.as_deref();
                    return Some(Message { topic, retain, id, content_type, content: Content::Plain(bytes) });
                }
                (topic, retain, Values::One(quantity, value))
            }
        };
        Some(Message {
            topic,
            retain,
            id,
            content_type: None,
            content: Content::Json { prepared, date, backlog, values },
        })
    }

    /// Hands each live topic of a record to `visit`, with the positions that go there.
    pub fn topics(&mut self, entry: &Entry, mut visit: impl FnMut(&str, Range<Seq>)) {
        let (descriptor, values) = match &entry.body {
            Body::Raw(raw) => return visit(&raw.topic, entry.seqs()),
            Body::Reading { descriptor, values } => (descriptor, values),
        };
        let shape = self.shape(entry);
        let prepared = self.prepared(descriptor);
        if shape == PayloadShape::Sensor {
            return visit(prepared.sensor_topic.of(false).unwrap_or_default(), entry.seqs());
        }
        for (seq, (index, _)) in (entry.seq..).zip(values) {
            let topic = prepared.quantity(*index).and_then(|quantity| quantity.topic.of(false));
            visit(topic.unwrap_or_default(), seq..seq + 1);
        }
    }

    fn prepared(&mut self, descriptor: &Arc<Descriptor>) -> &Prepared {
        let address = Arc::as_ptr(descriptor);
        if self.cache.len() >= MAX_CACHED && !self.cache.contains_key(&address) {
            self.cache.clear();
        }
        self.cache.entry(address).or_insert_with(|| Prepared::new(descriptor, &self.settings))
    }
}

impl Message<'_> {
    /// Appends the payload.
    pub fn write(&self, out: &mut BytesMut) {
        match &self.content {
            Content::Plain(bytes) => out.put_slice(bytes),
            Content::Json { prepared, date, backlog, values } => {
                prepared.write(out, self.id, *date, *backlog, values);
            }
        }
    }
}

impl Prepared {
    fn new(descriptor: &Arc<Descriptor>, settings: &Settings) -> Self {
        let template = &settings.template;
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
            .map(|quantity| {
                let topic = Topics::new(template.quantity_topic(descriptor, quantity), settings);
                PreparedQuantity::new(&head, quantity, topic)
            })
            .collect();
        Self {
            quantities,
            sensor_topic: Topics::new(template.sensor_topic(descriptor), settings),
            head: head.into(),
            tail: tail(descriptor).into(),
            descriptor: descriptor.clone(),
        }
    }

    fn quantity(&self, index: u16) -> Option<&PreparedQuantity> {
        self.quantities.get(usize::from(index))
    }

    fn write(&self, out: &mut BytesMut, (run, first): (u32, Seq), date: Date, backlog: bool, values: &Values<'_>) {
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
        if backlog {
            out.put_slice(b",\"backlog\":true");
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
    fn new(head: &str, quantity: &Quantity, topic: Topics) -> Self {
        let name = json(&quantity.name);
        let part = |key: &str, text: &Option<Box<str>>| {
            text.as_ref().map_or_else(String::new, |text| format!(",\"{key}\":{}", json(text)))
        };
        Self {
            topic,
            event: quantity.kind == Kind::Event,
            key: format!("{name}:").into(),
            head: format!("{head},\"quantity\":{name},\"value\":").into(),
            unit: (part("content_type", &quantity.content_type) + &part("unit", &quantity.unit)).into(),
            content_type: quantity.content_type.clone(),
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
        Value::Bytes(bytes) => put_base64(out, bytes),
    }
}

fn put_base64(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u8(b'"');
    let start = out.len();
    out.resize(start + BASE64.encode_len(bytes.len()), 0);
    BASE64.encode_mut(bytes, &mut out[start..]);
    out.put_u8(b'"');
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
#[must_use]
pub fn acceptable(topic: String) -> Option<Box<str>> {
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
