//! `template`: what the user's template makes of the fields of JSON.
//!
//! Fields are called as in JSON, without an order; what is not known is undefined, which comes out empty. `value` and
//! `values` are numbers, truth values or texts, bytes in base64.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::BytesMut;
use data_encoding::BASE64;

use crate::config::{Payload, PayloadShape, TimeFormat};
use crate::reading::{self, Descriptor, Finite, Fix, Location};
use crate::template::{Template, Value};
use crate::uplink::dating::Date;

use super::form::{Element, Form, Ready, Unfit};
use super::text::milliseconds;

/// The form.
#[derive(Debug)]
pub(super) struct Filled {
    /// `None` only if nobody has checked the configuration.
    template: Option<Rc<Template>>,
    time: TimeFormat,
}

impl Filled {
    pub(super) fn new(payload: &Payload) -> Self {
        Self { template: payload.template.clone().map(Rc::new), time: payload.time }
    }
}

impl Form for Filled {
    fn prepare(&self, descriptor: &Descriptor) -> Box<dyn Ready> {
        Box::new(Sensor { template: self.template.clone(), time: self.time, same: same(descriptor) })
    }

    fn leaves_bytes_alone(&self) -> bool {
        true
    }
}

/// The template, and what is the same in all messages of the sensor.
#[derive(Debug)]
struct Sensor {
    template: Option<Rc<Template>>,
    time: TimeFormat,
    same: Vec<(&'static str, Value)>,
}

fn same(descriptor: &Descriptor) -> Vec<(&'static str, Value)> {
    let text = |text: &Option<Box<str>>| text.as_deref().map(Value::from);
    let tags: BTreeMap<String, Value> =
        descriptor.tags.iter().map(|(name, value)| (name.to_string(), Value::from(&**value))).collect();
    let all = [
        ("gateway", Some(Value::from(&*descriptor.gateway))),
        ("site", text(&descriptor.site)),
        ("room", text(&descriptor.room)),
        ("room_label", text(&descriptor.room_label)),
        ("sensor", Some(Value::from(&*descriptor.sensor))),
        ("label", text(&descriptor.label)),
        ("location", descriptor.location.as_ref().map(|place| location(place, None))),
        ("tags", Some(tags.into())),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

impl Ready for Sensor {
    fn write(&self, element: &Element<'_>, _: &[Element<'_>], out: &mut BytesMut) -> Result<(), Unfit> {
        let template = self.template.as_ref().ok_or("there is no template")?;
        let mut fields: BTreeMap<&'static str, Value> = self.same.iter().cloned().collect();
        let (run, seq) = element.id;
        let id = element.veil.id(element.id).unwrap_or_else(|| format!("{run}-{seq}"));
        fields.insert("id", Value::from(id));
        fields.insert("backlog", Value::from(element.backlog));
        match element.date {
            Date::Wall(time) => {
                let time = match self.time {
                    TimeFormat::Rfc3339 => Value::from(humantime::format_rfc3339_millis(time.to_system()).to_string()),
                    TimeFormat::Unix => seconds(milliseconds(time)),
                    TimeFormat::UnixMs => Value::from(milliseconds(time)),
                };
                fields.extend([("time", time), ("clock", Value::from("set"))]);
            }
            Date::Uptime(boot, at) => {
                let uptime = i64::try_from(at.0 / 1_000_000).unwrap_or(i64::MAX);
                let boot = Value::from(boot.to_string());
                fields.extend([("clock", Value::from("unset")), ("boot", boot), ("uptime", seconds(uptime))]);
            }
        }
        fields.extend(element.place.map(|fix| ("location", location(&fix.location, Some(&fix)))));
        let text = |text: &str| Value::from(text);
        if element.shape == PayloadShape::Quantity {
            for (quantity, value) in element.quantities() {
                fields.extend([("quantity", text(&quantity.name)), ("value", given(value))]);
                fields.extend(quantity.unit.as_deref().map(|unit| ("unit", text(unit))));
                fields.extend(quantity.content_type.as_deref().map(|kind| ("content_type", text(kind))));
            }
        } else {
            let values: BTreeMap<&str, Value> =
                element.quantities().map(|(it, value)| (&*it.name, given(value))).collect();
            let units: BTreeMap<&str, Value> =
                element.quantities().filter_map(|(it, _)| Some((&*it.name, text(it.unit.as_deref()?)))).collect();
            fields.extend([("values", values.into()), ("units", units.into())]);
        }
        template.render(fields.into(), out).map_err(|wrong| format!("the template: {wrong}").into())
    }
}

fn given(value: &reading::Value) -> Value {
    match value {
        reading::Value::Number(it) => number(*it),
        reading::Value::Switch(on) => Value::from(*on),
        reading::Value::Text(text) => Value::from(&**text),
        reading::Value::Bytes(bytes) => Value::from(BASE64.encode(bytes)),
    }
}

/// Whole numbers are such in the template too, so that they have no `.0`.
fn number(number: Finite) -> Value {
    let number = number.get() + 0.0;
    #[expect(clippy::cast_possible_truncation, reason = "whole, and within the 53 bits that a double holds exactly")]
    if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 {
        return Value::from(number as i64);
    }
    Value::from(number)
}

fn seconds(milliseconds: i64) -> Value {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds are exact until the year 287396")]
    let seconds = milliseconds as f64 / 1_000.0;
    Finite::new(seconds).map_or_else(|| Value::from(0), number)
}

/// `fix`: what a receiver says besides.
fn location(place: &Location, fix: Option<&Fix>) -> Value {
    let mut all = BTreeMap::from([("latitude", number(place.latitude)), ("longitude", number(place.longitude))]);
    all.extend(place.altitude.map(|altitude| ("altitude", number(altitude))));
    all.extend(fix.and_then(|fix| fix.accuracy).map(|accuracy| ("accuracy", number(accuracy))));
    all.extend(fix.map(|fix| ("age", seconds(fix.age.into()))));
    all.into()
}
