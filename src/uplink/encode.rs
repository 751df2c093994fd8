//! Records become messages: topic, payload, retained or not.
//!
//! A pure function of records, descriptors, settings, dates and the present. Each [form](form::Form) of payload has a file
//! of its own below this one, and a line in [`form::of`]; `docs/payloads.md` shows them all.
//!
//! A record is cut into *elements*: one a quantity, or one for all quantities of the sensor. An element is what would be a
//! message of its own; where the uplink has a `batch`, and the form can hold several, consecutive elements on one topic
//! become one message. Raw messages go out byte for byte, with nothing around them, and so do values of bytes, unless the
//! form has a place for bytes or the uplink says `bytes = "base64"`. A record with bytes is cut by quantity then.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use crate::clock::{BootId, BootTime};
use crate::config::{BacklogTopic, Format, Gateway, Integrity, MAX_BATCH, Named, Payload, PayloadShape};
use crate::outbox::{Body, Entry, Raw, Seq};
use crate::reading::{Descriptor, Kind, Value};
use crate::topic::{MAX_BYTES, Template};

use super::dating::Date;
use super::sparkplug::Book;
use super::veil::Veil;

use form::{Element, Form, Ready};

mod cbor;
mod form;
mod influx;
mod json;
mod senml;
mod sparkplug;
mod template;
mod text;
mod thingsboard;
mod thingspeak;
mod units;
mod value;

/// The texts of so many descriptors are kept ready. There is one a sensor, and more only after its configuration
/// changed.
const MAX_CACHED: usize = 1_024;
const _: () = assert!(MAX_CACHED >= MAX_BATCH as usize, "all sensors of a message are kept ready");

/// How an uplink cuts and marks messages.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Topic of readings, where the uplink has none of its own.
    pub template: Template,
    /// What payloads look like.
    pub payload: Payload,
    /// Are readings retained? Events and the backlog never are.
    pub retain: bool,
    /// Where the backlog is published, if not on the topics of live readings.
    pub backlog_topic: Option<BacklogTopic>,
    /// What is not to be told.
    pub veil: Veil,
}

/// A part of a record: one element of a message.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// The record.
    pub entry: &'a Entry,
    /// Positions in it: one value's or, in the shape of a sensor, those of some or all of its values.
    pub seqs: Range<Seq>,
    /// When it was measured.
    pub date: Date,
}

impl<'a> Part<'a> {
    /// Is it of a reading, and not a message that goes on as it came?
    #[must_use]
    pub fn is_reading(&self) -> bool {
        matches!(self.entry.body, Body::Reading { .. })
    }

    fn descriptor(&self) -> Option<&'a Arc<Descriptor>> {
        match &self.entry.body {
            Body::Reading { descriptor, .. } => Some(descriptor),
            Body::Raw(_) => None,
        }
    }
}

/// What holds for all parts of a message.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// How records are cut.
    pub shape: PayloadShape,
    /// It belongs to the backlog.
    pub backlog: bool,
    /// The present: some forms say how long ago something was measured where nobody knows when.
    pub now: (BootId, BootTime),
}

/// How many parts become one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// At least one, where there is any.
    pub count: usize,
    /// Nothing that follows can join them: the next part cannot, or the first is none that can be among others.
    pub is_whole: bool,
}

/// Makes messages of records, and keeps the parts ready that all messages of a sensor share.
#[derive(Debug)]
pub struct Encoder {
    maker: Maker,
    /// Topic of a raw message in the backlog, or of a message of nothing.
    raw_topic: String,
    /// The last payload.
    payload: BytesMut,
}

/// Makes payloads.
#[derive(Debug)]
struct Maker {
    settings: Settings,
    form: Box<dyn Form>,
    /// By address; each entry holds on to its descriptor, so that the address stays its own.
    cache: HashMap<*const Descriptor, Prepared>,
}

/// A message that is ready to be sent.
#[derive(Debug)]
pub struct Message<'a> {
    /// Where it is published: a name that brokers accept.
    pub topic: &'a str,
    /// Shall the broker keep it?
    pub retain: bool,
    /// Run and position of its first value.
    pub id: (u32, Seq),
    /// What the payload is, where it is bytes of a known type.
    pub content_type: Option<&'a str>,
    /// A checksum that is not in the payload: its name, and itself.
    pub integrity: Option<(&'static str, String)>,
    /// The payload.
    pub payload: &'a [u8],
}

/// What is kept ready of a sensor.
#[derive(Debug)]
pub(super) struct Prepared {
    /// As records refer to it: its address is what it is found by.
    _kept: Arc<Descriptor>,
    /// As it goes out.
    descriptor: Arc<Descriptor>,
    quantities: Vec<PreparedQuantity>,
    sensor_topic: Topics,
    ready: Box<dyn Ready>,
}

#[derive(Debug)]
struct PreparedQuantity {
    topic: Topics,
    event: bool,
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

/// No broker would take a message with such a topic.
const NO_TOPIC: &str = "its topic is empty, too long, or has a wildcard in it";

/// The outbox holds no such value: never seen, but for damage.
const NO_VALUE: &str = "the record does not hold this value";

impl Encoder {
    /// An encoder for one uplink.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let form = form::of(&settings.payload, &settings.veil);
        let maker = Maker { settings, form, cache: HashMap::new() };
        Self { maker, raw_topic: String::new(), payload: BytesMut::new() }
    }

    /// What births, data and deaths of a node share, where the form is one of nodes.
    #[must_use]
    pub fn book(&self) -> Option<Rc<RefCell<Book>>> {
        self.maker.form.book().cloned()
    }

    /// How a record is cut: as the uplink says, but what has no place in the form has a message of its own.
    #[must_use]
    pub fn shape(&self, entry: &Entry) -> PayloadShape {
        let bytes = |values: &[(u16, Value)]| values.iter().any(|(_, value)| matches!(value, Value::Bytes(_)));
        match &entry.body {
            Body::Reading { values, .. } if self.maker.form.holds_bytes() || !bytes(values) => {
                self.maker.settings.payload.shape
            }
            _ => PayloadShape::Quantity,
        }
    }

    /// Does this uplink's form have a place for any of the record's values, and may they go out?
    pub fn takes(&mut self, entry: &Entry) -> bool {
        match &entry.body {
            body if !self.maker.settings.veil.admits(body) => false,
            Body::Raw(_) => true,
            Body::Reading { descriptor, values } => self.maker.prepare(descriptor).ready.takes(values),
        }
    }

    /// Which of these parts, from the first on, become one message.
    pub fn group(&mut self, parts: &[Part<'_>], cut: Cut) -> Group {
        self.maker.prepare_all(parts);
        let mut elements: Vec<Element<'_>> = Vec::with_capacity(parts.len());
        let mut topic = None;
        for part in parts {
            let Some(element) =
                self.maker.element(part, cut).ok().filter(|element| self.maker.fits_among_others(element))
            else {
                break;
            };
            let own = element.topic();
            if elements.is_empty() {
                topic = own;
            } else if own != topic || !self.maker.form.joins(&elements, &element) {
                break;
            }
            elements.push(element);
        }
        let count = elements.len();
        Group { count: count.max(1).min(parts.len()), is_whole: count == 0 || count < parts.len() }
    }

    /// The message that these parts make, at least one. Several belong to one [group](Self::group).
    ///
    /// # Errors
    /// There can be no such message, and why: no broker accepts the topic, the record does not hold the value, the form
    /// has no place for it.
    pub fn message<'a>(&'a mut self, parts: &[Part<'a>], cut: Cut) -> Result<Message<'a>, String> {
        let first = parts.first().ok_or(NO_VALUE)?;
        let id = (first.entry.run, first.seqs.start);
        if let Body::Raw(raw) = &first.entry.body {
            return self.raw(raw, id, cut.backlog);
        }
        self.maker.prepare_all(parts);
        self.payload.clear();
        let Written { topic, retain, content_type, plain } = self.maker.write(parts, cut, &mut self.payload)?;
        if plain.is_none() {
            fill_up(&mut self.payload, self.maker.settings.veil.size());
        }
        let integrity = &self.maker.settings.payload.integrity;
        if let (None, Format::Json, Some(integrity)) = (plain, self.maker.settings.payload.format, integrity) {
            put_field(&mut self.payload, integrity);
            return Ok(Message { topic, retain, id, content_type, integrity: None, payload: &self.payload });
        }
        let payload = plain.unwrap_or(&self.payload);
        let integrity = self.maker.settings.payload.beside(payload);
        Ok(Message { topic, retain, id, content_type, integrity, payload })
    }

    /// A message of no readings, as large as any other of this uplink; `None` where the form has none such, or its topic
    /// is not the same for all.
    pub fn filler(&mut self, gateway: &Gateway) -> Option<Message<'_>> {
        let Settings { payload, veil, .. } = &self.maker.settings;
        let topic = payload.topic.as_ref().filter(|topic| topic.is_gateways())?;
        self.payload.clear();
        self.payload.extend_from_slice(self.maker.form.nothing()?);
        fill_up(&mut self.payload, veil.size());
        let site = gateway.site.as_deref().map(|site| veil.name(Named::Site, site));
        self.raw_topic = topic.of_gateway(&veil.name(Named::Gateway, &gateway.name), site.as_deref());
        let (topic, payload) = (&*self.raw_topic, &*self.payload);
        let integrity = self.maker.settings.payload.beside(payload);
        is_topic(topic).then_some(Message { topic, retain: false, id: (0, 0), content_type: None, integrity, payload })
    }

    fn raw<'a>(&'a mut self, raw: &'a Raw, id: (u32, Seq), backlog: bool) -> Result<Message<'a>, String> {
        let mut topic = raw.published_on();
        if let Some(around) = self.maker.settings.backlog_topic.as_ref().filter(|_| backlog) {
            self.raw_topic = around.of(topic);
            topic = &self.raw_topic;
        }
        if !is_topic(topic) {
            return Err(NO_TOPIC.to_owned());
        }
        let integrity = self.maker.settings.payload.beside(&raw.payload);
        // Those for LAN clients keep their order, so that the last one is the newest.
        let retain = raw.retain && (!backlog || raw.comes_down());
        Ok(Message { topic, retain, id, content_type: None, integrity, payload: &raw.payload })
    }

    /// Hands each live topic of a record to `visit`, with the positions that go there. Where the topic does not tell
    /// readings apart because the uplink has one of its own, what does is added to it.
    pub fn topics(&mut self, entry: &Entry, mut visit: impl FnMut(&str, Range<Seq>)) {
        let (descriptor, values) = match &entry.body {
            Body::Raw(raw) => return visit(&raw.topic, entry.seqs()),
            Body::Reading { descriptor, values } => (descriptor, values),
        };
        let shape = self.shape(entry);
        let shared = self.maker.settings.payload.topic.is_some();
        let prepared = self.maker.prepare(descriptor);
        let mut key = String::new();
        let mut visit = |topic: &Topics, quantity: &str, seqs| {
            let topic = topic.of(false).unwrap_or_default();
            if !shared {
                return visit(topic, seqs);
            }
            key.clear();
            // No topic has a control character in it.
            key.extend([topic, "\0", &descriptor.sensor, "\0", quantity]);
            visit(&key, seqs);
        };
        if shape == PayloadShape::Sensor {
            return visit(&prepared.sensor_topic, "", entry.seqs());
        }
        for (seq, (index, _)) in (entry.seq..).zip(values) {
            let nowhere = Topics { live: None, backlog: None };
            let name = descriptor.quantities.get(usize::from(*index)).map_or("", |quantity| &*quantity.name);
            visit(prepared.quantity(*index).map_or(&nowhere, |quantity| &quantity.topic), name, seq..seq + 1);
        }
    }
}

impl Maker {
    /// Has it a place beside others in a message?
    fn fits_among_others(&self, element: &Element<'_>) -> bool {
        element.topic().is_some() && !self.is_plain(element) && self.form.admits(element).is_ok()
    }

    fn write<'a>(&'a self, parts: &[Part<'a>], cut: Cut, payload: &mut BytesMut) -> Result<Written<'a>, String> {
        let one;
        let many;
        let elements = match parts {
            [part] => {
                one = [self.element(part, cut)?];
                &one[..]
            }
            parts => {
                many = parts.iter().map(|part| self.element(part, cut)).collect::<Result<Vec<_>, _>>()?;
                &many[..]
            }
        };
        let first = &elements[0];
        let topic = first.topic().ok_or(NO_TOPIC)?;
        let retain = self.settings.retain && !cut.backlog && !elements.iter().any(Element::is_event);
        if self.is_plain(first)
            && let [(index, Value::Bytes(bytes))] = first.values
        {
            if !self.form.leaves_bytes_alone() {
                let form = self.settings.payload.format.info().name;
                return Err(format!(
                    "{topic}: {form} has no place for bytes; set bytes = \"base64\", or leave the sensor out of this uplink"
                ));
            }
            let content_type = first.sensor.quantity(*index).and_then(|quantity| quantity.content_type.as_deref());
            return Ok(Written { topic, retain, content_type, plain: Some(bytes) });
        }
        for element in elements {
            self.form.admits(element).map_err(|why| format!("{topic}: {why}"))?;
        }
        self.form.write(elements, payload).map_err(|why| format!("{topic}: {why}"))?;
        Ok(Written { topic, retain, content_type: None, plain: None })
    }

    /// Is it bytes that go out as they are?
    fn is_plain(&self, element: &Element<'_>) -> bool {
        matches!(element.values, [(_, Value::Bytes(_))])
            && !self.form.holds_bytes()
            && (!self.settings.payload.base64 || element.is_event())
    }

    /// The element that a part is; what is prepared of its sensor must be there.
    fn element<'a>(&'a self, part: &Part<'a>, cut: Cut) -> Result<Element<'a>, String> {
        let Part { entry, seqs, date } = part;
        let Body::Reading { descriptor, values } = &entry.body else { return Err(NO_VALUE.to_owned()) };
        let place = |seq: Seq| usize::try_from(seq.checked_sub(entry.seq)?).ok();
        let range = place(seqs.start).zip(place(seqs.end));
        let values = range.and_then(|(start, end)| values.get(start..end)).filter(|values| !values.is_empty());
        let values = values.ok_or(NO_VALUE)?;
        let sensor = self.cache.get(&Arc::as_ptr(descriptor)).ok_or(NO_VALUE)?;
        if values.iter().any(|(index, _)| sensor.quantity(*index).is_none()) {
            return Err(NO_VALUE.to_owned());
        }
        let date = self.settings.veil.date(*date);
        let (boot, now) = cut.now;
        let age: Option<Duration> = match date {
            Date::Uptime(then, at) if then == boot => Some(now.since(at)),
            _ => None,
        };
        let (id, veil) = ((entry.run, seqs.start), &self.settings.veil);
        let place = veil.place(entry.place);
        Ok(Element { sensor, veil, id, date, age, place, backlog: cut.backlog, shape: cut.shape, values })
    }

    /// Makes ready what the sensors of all these need. None of it goes before the next call.
    fn prepare_all(&mut self, parts: &[Part<'_>]) {
        if self.cache.len() + parts.len() > MAX_CACHED {
            let missing =
                |part: &&Part<'_>| part.descriptor().is_some_and(|it| !self.cache.contains_key(&Arc::as_ptr(it)));
            if self.cache.len() + parts.iter().filter(missing).count() > MAX_CACHED {
                self.cache.clear();
            }
        }
        for descriptor in parts.iter().filter_map(Part::descriptor) {
            self.prepare(descriptor);
        }
    }

    fn prepare(&mut self, descriptor: &Arc<Descriptor>) -> &Prepared {
        let address = Arc::as_ptr(descriptor);
        if self.cache.len() >= MAX_CACHED && !self.cache.contains_key(&address) {
            self.cache.clear();
        }
        let make = || Prepared::new(descriptor, &self.settings, &*self.form);
        self.cache.entry(address).or_insert_with(make)
    }
}

/// What stands around a payload that was written.
struct Written<'a> {
    topic: &'a str,
    retain: bool,
    content_type: Option<&'a str>,
    /// The payload, if it is one that needed no writing.
    plain: Option<&'a [u8]>,
}

impl Prepared {
    fn new(kept: &Arc<Descriptor>, settings: &Settings, form: &dyn Form) -> Self {
        let (template, payload) = (&settings.template, &settings.payload);
        let descriptor = &settings.veil.descriptor(kept);
        let quantities = descriptor
            .quantities
            .iter()
            .map(|quantity| {
                let topic = payload.quantity_topic(template, descriptor, quantity);
                PreparedQuantity {
                    topic: Topics::new(topic, settings),
                    event: quantity.kind == Kind::Event,
                    content_type: quantity.content_type.clone(),
                }
            })
            .collect();
        Self {
            quantities,
            sensor_topic: Topics::new(payload.sensor_topic(template, descriptor), settings),
            ready: form.prepare(descriptor),
            _kept: Arc::clone(kept),
            descriptor: Arc::clone(descriptor),
        }
    }

    fn quantity(&self, index: u16) -> Option<&PreparedQuantity> {
        self.quantities.get(usize::from(index))
    }
}

/// Puts the checksum of an object of JSON into it: the last field, over all that stands before its comma.
fn put_field(object: &mut BytesMut, integrity: &Integrity) {
    let body = object.len().saturating_sub(1);
    let sum = integrity.of(&object[..body]);
    object.truncate(body);
    // Writing to a buffer that grows cannot fail.
    let _ = write!(object, ",\"{}\":\"{sum}\"}}", integrity.name());
}

/// Spaces behind a payload mean nothing in the forms that are filled up.
fn fill_up(payload: &mut BytesMut, size: Option<usize>) {
    if let Some(size) = size.filter(|size| *size > payload.len()) {
        payload.resize(size, b' ');
    }
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
mod docs;
#[cfg(test)]
mod forms;
#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;
