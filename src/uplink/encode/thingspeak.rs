//! `thingspeak`: an update of a channel of `ThingSpeak`, form-encoded.
//!
//! `field1=21.5&field2=40&created_at=2026-11-21T10:15:30.123Z&lat=47.5921&long=0.9117&elevation=85` (mathworks.com, "Publish
//! to a Channel Feed"). Which quantity goes to which of the eight fields is said by `fields`; others are not sent. Switches
//! are 1 or 0, so that they can be drawn. A channel takes an update only every so many seconds: with a `batch`, readings of
//! several sensors become one update, as long as none of its fields comes twice. Its time is that of the newest, its place
//! that of the first.

use std::collections::BTreeMap;
use std::fmt::Write;

use bytes::{BufMut, BytesMut};

use crate::config::{Named, Payload};
use crate::reading::{Descriptor, Value};
use crate::uplink::dating::Date;
use crate::uplink::veil::Veil;

use super::form::{Element, Form, Ready, Unfit};
use super::text::{put_base64, put_number};

/// The form.
#[derive(Debug)]
pub(super) struct Channel {
    /// By quantity, or by `sensor/quantity`.
    fields: BTreeMap<String, u8>,
}

impl Channel {
    pub(super) fn new(payload: &Payload, veil: &Veil) -> Self {
        let veiled = |(name, field): (&String, &u8)| {
            let name = name.split_once('/').map_or_else(
                || name.clone(),
                |(sensor, quantity)| format!("{}/{quantity}", veil.name(Named::Sensor, sensor)),
            );
            (name, *field)
        };
        Self { fields: payload.channel.iter().map(veiled).collect() }
    }

    fn field(&self, sensor: &str, quantity: &str) -> Option<u8> {
        self.fields.get(&format!("{sensor}/{quantity}")).or_else(|| self.fields.get(quantity)).copied()
    }

    fn fields<'a>(&'a self, element: &Element<'a>) -> impl Iterator<Item = u8> {
        let sensor = &*element.descriptor().sensor;
        element.quantities().filter_map(move |(quantity, _)| self.field(sensor, &quantity.name))
    }
}

impl Form for Channel {
    fn prepare(&self, descriptor: &Descriptor) -> Box<dyn Ready> {
        let field = |name: &str| self.field(&descriptor.sensor, name);
        Box::new(Fields(descriptor.quantities.iter().map(|quantity| field(&quantity.name)).collect()))
    }

    fn write(&self, elements: &[Element<'_>], out: &mut BytesMut) -> Result<(), Unfit> {
        for element in elements {
            element.write(&[], out)?;
        }
        let newest = elements.iter().filter_map(|element| match element.date {
            Date::Wall(time) => Some(time),
            Date::Uptime(..) => None,
        });
        if let Some(time) = newest.max() {
            // Writing to a buffer that grows cannot fail.
            let _ = write!(out, "&created_at={}", humantime::format_rfc3339_millis(time.to_system()));
        }
        if let Some(place) = elements[0].location() {
            let all = [("lat", Some(place.latitude)), ("long", Some(place.longitude)), ("elevation", place.altitude)];
            for (key, number) in all {
                if let Some(number) = number {
                    let _ = write!(out, "&{key}=");
                    put_number(out, number);
                }
            }
        }
        Ok(())
    }

    fn admits(&self, element: &Element<'_>) -> Result<(), Unfit> {
        if self.fields(element).next().is_none() {
            return Err("`fields` names none of its quantities".into());
        }
        element.is_dated_or_live()
    }

    fn joins(&self, before: &[Element<'_>], next: &Element<'_>) -> bool {
        let taken = |field: u8| before.iter().any(|element| self.fields(element).any(|other| other == field));
        !self.fields(next).any(taken)
    }
}

/// The field of each quantity.
#[derive(Debug)]
struct Fields(Vec<Option<u8>>);

impl Ready for Fields {
    fn write(&self, element: &Element<'_>, _: &[Element<'_>], out: &mut BytesMut) -> Result<(), Unfit> {
        for (index, value) in element.values {
            let Some(field) = self.0.get(usize::from(*index)).copied().flatten() else { continue };
            if !out.is_empty() {
                out.put_u8(b'&');
            }
            let _ = write!(out, "field{field}=");
            match value {
                Value::Number(number) => {
                    let start = out.len();
                    put_number(out, *number);
                    escape(out, start);
                }
                Value::Switch(on) => out.put_u8(if *on { b'1' } else { b'0' }),
                Value::Text(text) => {
                    let start = out.len();
                    out.put_slice(text.as_bytes());
                    escape(out, start);
                }
                Value::Bytes(bytes) => {
                    let start = out.len();
                    put_base64(out, bytes);
                    escape(out, start);
                }
            }
        }
        Ok(())
    }

    fn takes(&self, values: &[(u16, Value)]) -> bool {
        values.iter().any(|(index, _)| self.0.get(usize::from(*index)).copied().flatten().is_some())
    }
}

/// Percent-encodes what stands from `start` on (RFC 3986, 2.1: all but the unreserved characters).
fn escape(out: &mut BytesMut, start: usize) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if out[start..].iter().all(|byte| plain(*byte)) {
        return;
    }
    let given = out.split_off(start);
    for byte in given {
        if plain(byte) {
            out.put_u8(byte);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}
