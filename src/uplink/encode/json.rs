//! `json` and `json-array`: an object for each element.
//!
//! What is not known is left out. Where `fields` does not say otherwise, this is the order:
//!
//! `id time site room room_label sensor label quantity value content_type unit clock boot uptime backlog location tags`
//!
//! With `payload = "sensor"`, `values` and `units` stand where `value` and `unit` would, and there is no `quantity`. `id` is
//! the run and the position of the element's first value. Without a date there is no `time`, `clock` is `"unset"`, and `boot`
//! and `uptime` (seconds since that boot, to the millisecond) say when it was. `backlog` is `true` for what was taken before
//! the connection was up; consumers that take every arrival for the present go by it. A `location` that a GPS receiver gives
//! has `accuracy` in metres, where it says that, and `age`: the seconds between its fix and the measurement.

use std::fmt::Write;

use bytes::{BufMut, BytesMut};

use crate::config::{Field, Payload, PayloadShape, TimeFormat};
use crate::reading::{Descriptor, Fix, Location, Quantity, Value};
use crate::uplink::dating::Date;

use super::form::{Element, Form, Ready, Unfit};
use super::text::{json, put_json, put_number, put_thousandths, put_time, put_value};

/// The form.
#[derive(Debug)]
pub(super) struct Json {
    fields: Vec<Field>,
    time: TimeFormat,
    array: bool,
}

impl Json {
    pub(super) fn new(payload: &Payload, array: bool) -> Self {
        Self { fields: payload.fields.clone(), time: payload.time, array }
    }
}

impl Form for Json {
    fn prepare(&self, descriptor: &Descriptor) -> Box<dyn Ready> {
        let plan = |quantity| plan(&self.fields, descriptor, quantity);
        Box::new(Plans {
            sensor: plan(None),
            quantities: descriptor.quantities.iter().map(|quantity| plan(Some(quantity))).collect(),
            names: descriptor.quantities.iter().map(|quantity| format!("{}:", json(&quantity.name)).into()).collect(),
            time: self.time,
        })
    }

    fn write(&self, elements: &[Element<'_>], out: &mut BytesMut) -> Result<(), Unfit> {
        if !self.array {
            return elements.iter().try_for_each(|element| element.write(&[], out));
        }
        for (index, element) in elements.iter().enumerate() {
            out.put_u8(if index == 0 { b'[' } else { b',' });
            element.write(&[], out)?;
        }
        out.put_u8(b']');
        Ok(())
    }

    fn nothing(&self) -> Option<&'static [u8]> {
        self.array.then_some(b"[]")
    }

    fn leaves_bytes_alone(&self) -> bool {
        true
    }
}

/// What is written one after the other. Everything begins with a comma; that of the first becomes the brace.
#[derive(Debug)]
enum Step {
    /// The same in every message.
    Text(Box<str>),
    Id,
    Time,
    Value,
    Values,
    Units,
    Clock,
    Backlog,
    /// The place, unless a receiver says where it was.
    Location(Box<str>),
}

/// The steps for each kind of element of a sensor.
#[derive(Debug)]
struct Plans {
    sensor: Vec<Step>,
    quantities: Vec<Vec<Step>>,
    /// `"temperature":`
    names: Vec<Box<str>>,
    time: TimeFormat,
}

fn plan(fields: &[Field], descriptor: &Descriptor, quantity: Option<&Quantity>) -> Vec<Step> {
    let mut steps = Vec::new();
    for field in fields {
        let text = |key: &str, value: Option<&str>| {
            Step::Text(value.map_or_else(String::new, |value| format!(",\"{key}\":{}", json(value))).into())
        };
        let step = match field {
            Field::Id => Step::Id,
            Field::Time => Step::Time,
            Field::Gateway => text("gateway", Some(&descriptor.gateway)),
            Field::Site => text("site", descriptor.site.as_deref()),
            Field::Room => text("room", descriptor.room.as_deref()),
            Field::RoomLabel => text("room_label", descriptor.room_label.as_deref()),
            Field::Sensor => text("sensor", Some(&descriptor.sensor)),
            Field::Label => text("label", descriptor.label.as_deref()),
            Field::Quantity => text("quantity", quantity.map(|quantity| &*quantity.name)),
            Field::Value if quantity.is_some() => {
                add(&mut steps, Step::Text(",\"value\":".into()));
                Step::Value
            }
            Field::Value => Step::Values,
            Field::ContentType => text("content_type", quantity.and_then(|quantity| quantity.content_type.as_deref())),
            Field::Unit if quantity.is_none() => Step::Units,
            Field::Unit => text("unit", quantity.and_then(|quantity| quantity.unit.as_deref())),
            Field::Clock => Step::Clock,
            Field::Backlog => Step::Backlog,
            Field::Location => {
                let fixed = descriptor.location.as_ref().map(|place| location(place, None));
                Step::Location(fixed.unwrap_or_default().into())
            }
            Field::Tags => Step::Text(tags(&descriptor.tags).into()),
        };
        add(&mut steps, step);
    }
    steps
}

/// Texts that follow each other become one.
fn add(steps: &mut Vec<Step>, step: Step) {
    match (steps.last_mut(), step) {
        (Some(Step::Text(before)), Step::Text(text)) => *before = format!("{before}{text}").into(),
        (_, step) => steps.push(step),
    }
}

impl Ready for Plans {
    fn write(&self, element: &Element<'_>, _: &[Element<'_>], out: &mut BytesMut) -> Result<(), Unfit> {
        let start = out.len();
        let steps = match (element.shape, element.values) {
            (PayloadShape::Quantity, [(index, _), ..]) => self.quantities.get(usize::from(*index)),
            _ => None,
        };
        for step in steps.unwrap_or(&self.sensor) {
            match step {
                Step::Text(text) => out.put_slice(text.as_bytes()),
                Step::Id => put_id(out, element),
                Step::Time => {
                    if let Date::Wall(time) = element.date {
                        out.put_slice(b",\"time\":");
                        put_time(out, time, self.time);
                    }
                }
                Step::Value => {
                    if let [(_, value), ..] = element.values {
                        put_value(out, value);
                    }
                }
                Step::Values => self.put_values(out, element.values),
                Step::Units => self.put_units(out, element),
                Step::Clock => put_clock(out, element.date),
                Step::Backlog if element.backlog => out.put_slice(b",\"backlog\":true"),
                Step::Backlog => {}
                Step::Location(fixed) => match element.place {
                    Some(fix) => out.put_slice(location(&fix.location, Some(&fix)).as_bytes()),
                    None => out.put_slice(fixed.as_bytes()),
                },
            }
        }
        // There is a value in any case, so that something was written.
        out[start] = b'{';
        out.put_u8(b'}');
        Ok(())
    }
}

impl Plans {
    fn put_values(&self, out: &mut BytesMut, values: &[(u16, Value)]) {
        out.put_slice(b",\"values\":");
        let mut before = b'{';
        for (index, value) in values {
            let Some(name) = self.names.get(usize::from(*index)) else { continue };
            out.put_u8(std::mem::replace(&mut before, b','));
            out.put_slice(name.as_bytes());
            put_value(out, value);
        }
        out.put_u8(b'}');
    }

    fn put_units(&self, out: &mut BytesMut, element: &Element<'_>) {
        let mut before: &[u8] = b",\"units\":{";
        for ((index, _), (quantity, _)) in element.values.iter().zip(element.quantities()) {
            let (Some(name), Some(unit)) = (self.names.get(usize::from(*index)), quantity.unit.as_deref()) else {
                continue;
            };
            out.put_slice(std::mem::replace(&mut before, b","));
            out.put_slice(name.as_bytes());
            put_json(out, unit);
        }
        if before == b"," {
            out.put_u8(b'}');
        }
    }
}

fn put_id(out: &mut BytesMut, element: &Element<'_>) {
    let (run, first) = element.id;
    // Writing to a buffer that grows cannot fail.
    let _ = match element.veil.id(element.id) {
        Some(id) => write!(out, ",\"id\":\"{id}\""),
        None => write!(out, ",\"id\":\"{run}-{first}\""),
    };
}

fn put_clock(out: &mut BytesMut, date: Date) {
    match date {
        Date::Wall(_) => out.put_slice(b",\"clock\":\"set\""),
        Date::Uptime(boot, at) => {
            let milliseconds = at.0 / 1_000_000;
            let (seconds, rest) = (milliseconds / 1_000, milliseconds % 1_000);
            let _ = write!(out, ",\"clock\":\"unset\",\"boot\":\"{boot}\",\"uptime\":{seconds}.{rest:03}");
        }
    }
}

/// `fix`: what a receiver says besides.
fn location(location: &Location, fix: Option<&Fix>) -> String {
    let mut out = BytesMut::from(&b",\"location\":{\"latitude\":"[..]);
    put_number(&mut out, location.latitude);
    out.put_slice(b",\"longitude\":");
    put_number(&mut out, location.longitude);
    if let Some(altitude) = location.altitude {
        out.put_slice(b",\"altitude\":");
        put_number(&mut out, altitude);
    }
    if let Some(accuracy) = fix.and_then(|fix| fix.accuracy) {
        out.put_slice(b",\"accuracy\":");
        put_number(&mut out, accuracy);
    }
    if let Some(fix) = fix {
        out.put_slice(b",\"age\":");
        put_thousandths(&mut out, fix.age.into());
    }
    out.put_u8(b'}');
    String::from_utf8_lossy(&out).into_owned()
}

fn tags(tags: &[(Box<str>, Box<str>)]) -> String {
    let mut text = String::new();
    for (index, (name, value)) in tags.iter().enumerate() {
        text += if index == 0 { ",\"tags\":{" } else { "," };
        text += &format!("{}:{}", json(name), json(value));
    }
    if !tags.is_empty() {
        text.push('}');
    }
    text
}
