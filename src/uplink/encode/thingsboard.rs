//! `thingsboard` and `thingsboard-gateway`: telemetry of `ThingsBoard`.
//!
//! As a device (thingsboard.io, "MQTT device API", telemetry upload): `{"ts":1795256130123,"values":{"temperature":21.5}}`,
//! milliseconds since 1970, several in an array. As a gateway ("MQTT gateway API"), an object with such an array for each
//! sensor, which is a device there under the sensor's name. What is live and has no date goes without `ts`: the server
//! gives it the time of its arrival.

use std::fmt::Write;

use bytes::{BufMut, BytesMut};

use crate::reading::Descriptor;
use crate::uplink::dating::Date;

use super::form::{Element, Form, Ready, Unfit};
use super::text::{json, milliseconds, put_value};

/// As a device.
#[derive(Debug)]
pub(super) struct Device;

/// As a gateway.
#[derive(Debug)]
pub(super) struct Gateway;

impl Form for Device {
    fn prepare(&self, descriptor: &Descriptor) -> Box<dyn Ready> {
        Box::new(Keys::new(descriptor))
    }

    fn write(&self, elements: &[Element<'_>], out: &mut BytesMut) -> Result<(), Unfit> {
        match elements {
            [one] => one.write(&[], out),
            several => put_array(several.iter(), out),
        }
    }

    fn admits(&self, element: &Element<'_>) -> Result<(), Unfit> {
        element.is_dated_or_live()
    }
}

impl Form for Gateway {
    fn prepare(&self, descriptor: &Descriptor) -> Box<dyn Ready> {
        Box::new(Keys::new(descriptor))
    }

    fn write(&self, elements: &[Element<'_>], out: &mut BytesMut) -> Result<(), Unfit> {
        let name = |element: &Element<'_>| element.descriptor().sensor.clone();
        let mut before = b'{';
        for (index, element) in elements.iter().enumerate() {
            let sensor = name(element);
            if elements[..index].iter().any(|other| name(other) == sensor) {
                continue;
            }
            out.put_u8(std::mem::replace(&mut before, b','));
            out.put_slice(json(&sensor).as_bytes());
            out.put_u8(b':');
            put_array(elements[index..].iter().filter(|other| name(other) == sensor), out)?;
        }
        out.put_u8(b'}');
        Ok(())
    }

    fn admits(&self, element: &Element<'_>) -> Result<(), Unfit> {
        element.is_dated_or_live()
    }
}

fn put_array<'a>(elements: impl Iterator<Item = &'a Element<'a>>, out: &mut BytesMut) -> Result<(), Unfit> {
    let mut before = b'[';
    for element in elements {
        out.put_u8(std::mem::replace(&mut before, b','));
        element.write(&[], out)?;
    }
    out.put_u8(b']');
    Ok(())
}

/// `"temperature":` of each quantity.
#[derive(Debug)]
struct Keys(Vec<Box<str>>);

impl Keys {
    fn new(descriptor: &Descriptor) -> Self {
        Self(descriptor.quantities.iter().map(|quantity| format!("{}:", json(&quantity.name)).into()).collect())
    }
}

impl Ready for Keys {
    fn write(&self, element: &Element<'_>, _: &[Element<'_>], out: &mut BytesMut) -> Result<(), Unfit> {
        if let Date::Wall(time) = element.date {
            // Writing to a buffer that grows cannot fail.
            let _ = write!(out, "{{\"ts\":{},\"values\":", milliseconds(time));
        }
        let mut before = b'{';
        for (index, value) in element.values {
            let Some(key) = self.0.get(usize::from(*index)) else { continue };
            out.put_u8(std::mem::replace(&mut before, b','));
            out.put_slice(key.as_bytes());
            put_value(out, value);
        }
        out.put_slice(if matches!(element.date, Date::Wall(_)) { b"}}" } else { b"}" });
        Ok(())
    }
}
