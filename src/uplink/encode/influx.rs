//! `influx`: the line protocol of InfluxDB and Telegraf, a line for each element.
//!
//! `vigie,gateway=atelier,site=maison,room=salon,sensor=meteo temperature=21.53,humidity=40.1 1795256130123000000`
//! (docs.influxdata.com, "Line protocol"). The table is the uplink's `measurement`; tags are gateway, site, room, sensor and
//! those of the configuration, fields the quantities. Numbers are always floats, even whole ones: a field whose first value
//! is an integer would refuse every other. Times are nanoseconds since 1970; what is live and has no date goes without
//! one, and the server gives it the time of its arrival.

use std::fmt::Write;

use bytes::{BufMut, BytesMut};

use crate::config::Payload;
use crate::reading::{Descriptor, Value};
use crate::uplink::dating::Date;

use super::form::{Element, Form, Ready, Unfit};
use super::text::{put_base64, put_number};

/// The form.
#[derive(Debug)]
pub(super) struct Influx {
    measurement: String,
}

impl Influx {
    pub(super) fn new(payload: &Payload) -> Self {
        Self { measurement: payload.measurement.clone() }
    }
}

impl Form for Influx {
    fn prepare(&self, descriptor: &Descriptor) -> Box<dyn Ready> {
        let mut series = escaped(&self.measurement, ", ");
        let own = [
            ("gateway", Some(&descriptor.gateway)),
            ("site", descriptor.site.as_ref()),
            ("room", descriptor.room.as_ref()),
            ("sensor", Some(&descriptor.sensor)),
        ];
        let own = own.into_iter().filter_map(|(key, value)| Some((key, &**value?)));
        let given = descriptor.tags.iter().map(|(key, value)| (&**key, &**value));
        let mut keys: Vec<&str> = Vec::new();
        for (key, value) in own.chain(given) {
            // A tag without a value is none, and one that comes twice makes the line invalid.
            if value.is_empty() || key.is_empty() || keys.contains(&key) {
                continue;
            }
            keys.push(key);
            let _ = write!(series, ",{}={}", key_of(key), escaped(value, ",= "));
        }
        let fields = descriptor.quantities.iter().map(|quantity| format!("{}=", key_of(&quantity.name)).into());
        Box::new(Line { series: (series + " ").into(), fields: fields.collect() })
    }

    fn write(&self, elements: &[Element<'_>], out: &mut BytesMut) -> Result<(), Unfit> {
        for (index, element) in elements.iter().enumerate() {
            if index > 0 {
                out.put_u8(b'\n');
            }
            element.write(&[], out)?;
        }
        Ok(())
    }

    fn admits(&self, element: &Element<'_>) -> Result<(), Unfit> {
        element.is_dated_or_live()
    }
}

/// What comes before the values of a sensor.
#[derive(Debug)]
struct Line {
    /// `vigie,room=salon,sensor=meteo `
    series: Box<str>,
    /// `temperature=`
    fields: Vec<Box<str>>,
}

impl Ready for Line {
    fn write(&self, element: &Element<'_>, _: &[Element<'_>], out: &mut BytesMut) -> Result<(), Unfit> {
        out.put_slice(self.series.as_bytes());
        for (place, (index, value)) in element.values.iter().enumerate() {
            let Some(field) = self.fields.get(usize::from(*index)) else { continue };
            if place > 0 {
                out.put_u8(b',');
            }
            out.put_slice(field.as_bytes());
            match value {
                Value::Number(number) => put_number(out, *number),
                Value::Switch(on) => out.put_slice(if *on { b"true" } else { b"false" }),
                Value::Text(text) => put_text(out, text),
                Value::Bytes(bytes) => {
                    out.put_u8(b'"');
                    put_base64(out, bytes);
                    out.put_u8(b'"');
                }
            }
        }
        if let Date::Wall(time) = element.date {
            // Writing to a buffer that grows cannot fail.
            let _ = write!(out, " {}", time.0);
        }
        Ok(())
    }
}

/// A text as the value of a field: in quotes, those and backslashes escaped. Lines of a message are told apart by line
/// feeds, so that one within a text becomes a space.
fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u8(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.put_slice(&[b'\\', byte]),
            b'\n' | b'\r' => out.put_u8(b' '),
            _ => out.put_u8(byte),
        }
    }
    out.put_u8(b'"');
}

/// The key of a tag or field. InfluxDB keeps `time` and what begins with an underscore for itself.
fn key_of(name: &str) -> String {
    let name = escaped(name, ",= ");
    if name == "time" || name.starts_with('_') {
        format!("x{}{name}", if name == "time" { "_" } else { "" })
    } else {
        name
    }
}

/// With a backslash before each of these characters. A backslash as such has no escape there: the last of a text would
/// escape what follows it, and becomes a slash, as every one does. So does a quote become an apostrophe, which some parsers
/// take for the beginning of a text. Control characters become spaces.
fn escaped(text: &str, special: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        let character = match character {
            '\\' => '/',
            '"' => '\'',
            other if other.is_control() => ' ',
            other => other,
        };
        if special.contains(character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}
