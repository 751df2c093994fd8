//! `senml` and `senml-cbor`: Sensor Measurement Lists (RFC 8428), in JSON and in CBOR.
//!
//! `[{"bn":"maison/salon/meteo/","bt":1795256130.123,"n":"temperature","u":"Cel","v":21.53},{"n":"humidity","u":"%RH",
//! "v":40.1}]`. The base name is site, room and sensor; names keep the characters that RFC 8428, 4.5.1 allows, others
//! become `_`. Units are those of its registry, values converted where need be (see `units`).
//!
//! **Time.** The first record of a pack, and each whose time cannot be reckoned from it, has a base time; the others say
//! how much later they are. What has no date is said by how long ago it was (4.5.3: times below 2^28 are relative to now),
//! as long as it was in this boot. Of an earlier boot nobody knows, and without a time it would be taken for the present:
//! it is refused.

use std::fmt::Write;

use bytes::{BufMut, BytesMut};
use data_encoding::BASE64URL_NOPAD;

use crate::reading::{Descriptor, Finite, Value};
use crate::uplink::dating::Date;

use super::cbor;
use super::form::{Element, Form, Ready, UNDATED, Unfit};
use super::text::{milliseconds, put_json, put_number, put_thousandths};
use super::units::Unit;

/// Nanoseconds: times in seconds below 2^28 are relative (RFC 8428, 4.5.3).
const RELATIVE: i64 = (1 << 28) * 1_000_000_000;

/// The form.
#[derive(Debug)]
pub(super) struct Senml {
    cbor: bool,
}

impl Senml {
    /// In JSON.
    pub(super) fn json() -> Self {
        Self { cbor: false }
    }

    /// In CBOR.
    pub(super) fn cbor() -> Self {
        Self { cbor: true }
    }
}

impl Form for Senml {
    fn prepare(&self, descriptor: &Descriptor) -> Box<dyn Ready> {
        let parts = [descriptor.site.as_deref(), descriptor.room.as_deref(), Some(&*descriptor.sensor)];
        let name: String = parts.into_iter().flatten().map(|part| format!("{part}/")).collect();
        let names = descriptor.quantities.iter().map(|quantity| Name {
            name: allowed(&quantity.name),
            unit: Unit::of(&quantity.name, quantity.unit.as_deref()),
        });
        // The first character of a name is a letter or a digit.
        let base = allowed(&name);
        let base =
            if base.starts_with(|first: char| first.is_ascii_alphanumeric()) { base } else { format!("x{base}") };
        let names = Names { base, names: names.collect() };
        if self.cbor { Box::new(Cbor(names)) } else { Box::new(Json(names)) }
    }

    fn nothing(&self) -> Option<&'static [u8]> {
        (!self.cbor).then_some(b"[]")
    }

    fn write(&self, elements: &[Element<'_>], out: &mut BytesMut) -> Result<(), Unfit> {
        if self.cbor {
            let records: usize = elements.iter().map(|element| element.values.len()).sum();
            cbor::put_array(out, records);
        }
        for (index, element) in elements.iter().enumerate() {
            if !self.cbor {
                out.put_u8(if index == 0 { b'[' } else { b',' });
            }
            element.write(&elements[..index], out)?;
        }
        if !self.cbor {
            out.put_u8(b']');
        }
        Ok(())
    }

    fn admits(&self, element: &Element<'_>) -> Result<(), Unfit> {
        match (element.date, element.age) {
            (Date::Uptime(..), None) => Err(UNDATED.into()),
            (Date::Wall(time), _) if time.0 < RELATIVE => {
                Err("its time is before 1978, which is relative to now".into())
            }
            _ => Ok(()),
        }
    }

    /// The base time of a pack is a date, or one relative to now.
    fn joins(&self, before: &[Element<'_>], next: &Element<'_>) -> bool {
        before.first().is_none_or(|first| matches!(first.date, Date::Wall(_)) == matches!(next.date, Date::Wall(_)))
    }

    fn holds_bytes(&self) -> bool {
        true
    }
}

/// RFC 8428, 4.5.1: letters, digits and a few signs.
fn allowed(name: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-:./_".contains(character);
    name.chars().map(|character| if plain(character) { character } else { '_' }).collect()
}

/// The names of a sensor and its quantities.
#[derive(Debug)]
struct Names {
    base: String,
    names: Vec<Name>,
}

#[derive(Debug)]
struct Name {
    name: String,
    unit: Option<Unit>,
}

impl Name {
    /// The value in the unit that is said with it.
    fn convert(&self, number: Finite) -> Finite {
        self.unit.map_or(number, |unit| unit.convert(number))
    }
}

/// What a record says beside name, unit and value. Times are in thousandths of a second.
struct Head {
    /// It says the base name.
    named: bool,
    /// It says the base time: since 1970, or since now.
    base_time: Option<i64>,
    /// So much later than the base time it is.
    later: i64,
}

impl Head {
    /// Of the record for a value at this place of an element. A base name holds until there is another, and all records
    /// of a pack have the first one's base time.
    fn of(element: &Element<'_>, before: &[Element<'_>], place: usize) -> Self {
        let named = place == 0 && before.last().is_none_or(|last| !last.is_beside(element));
        match before.first() {
            None => Self { named, base_time: (place == 0).then(|| time(element)), later: 0 },
            Some(first) => Self { named, base_time: None, later: time(element).saturating_sub(time(first)) },
        }
    }
}

fn time(element: &Element<'_>) -> i64 {
    match element.date {
        Date::Wall(time) => milliseconds(time),
        Date::Uptime(..) => -element.age.and_then(|age| i64::try_from(age.as_millis()).ok()).unwrap_or(0),
    }
}

/// Records in JSON.
#[derive(Debug)]
struct Json(Names);

impl Ready for Json {
    fn write(&self, element: &Element<'_>, before: &[Element<'_>], out: &mut BytesMut) -> Result<(), Unfit> {
        for (place, (index, value)) in element.values.iter().enumerate() {
            let Some(name) = self.0.names.get(usize::from(*index)) else { continue };
            let Head { named, base_time, later } = Head::of(element, before, place);
            out.put_slice(if place == 0 { b"{" } else { b",{" });
            // Writing to a buffer that grows cannot fail.
            if named {
                let _ = write!(out, "\"bn\":\"{}\",", self.0.base);
            }
            if let Some(time) = base_time {
                out.put_slice(b"\"bt\":");
                put_thousandths(out, time);
                out.put_u8(b',');
            }
            let _ = write!(out, "\"n\":\"{}\"", name.name);
            if let Some(unit) = &name.unit {
                let _ = write!(out, ",\"u\":\"{}\"", unit.name);
            }
            if later != 0 {
                out.put_slice(b",\"t\":");
                put_thousandths(out, later);
            }
            match value {
                Value::Number(number) => {
                    out.put_slice(b",\"v\":");
                    put_number(out, name.convert(*number));
                }
                Value::Switch(on) => {
                    let _ = write!(out, ",\"vb\":{on}");
                }
                Value::Text(text) => {
                    out.put_slice(b",\"vs\":");
                    put_json(out, &**text);
                }
                Value::Bytes(bytes) => {
                    let _ = write!(out, ",\"vd\":\"{}\"", BASE64URL_NOPAD.encode(bytes));
                }
            }
            out.put_u8(b'}');
        }
        Ok(())
    }
}

/// Records in CBOR: maps with the labels of RFC 8428, table 4.
#[derive(Debug)]
struct Cbor(Names);

const BASE_NAME: i64 = -2;
const BASE_TIME: i64 = -3;
const NAME: i64 = 0;
const UNIT: i64 = 1;
const VALUE: i64 = 2;
const STRING_VALUE: i64 = 3;
const BOOLEAN_VALUE: i64 = 4;
const TIME: i64 = 6;
const DATA_VALUE: i64 = 8;

impl Ready for Cbor {
    fn write(&self, element: &Element<'_>, before: &[Element<'_>], out: &mut BytesMut) -> Result<(), Unfit> {
        for (place, (index, value)) in element.values.iter().enumerate() {
            let Some(name) = self.0.names.get(usize::from(*index)) else { continue };
            let Head { named, base_time, later } = Head::of(element, before, place);
            let optional = [named, base_time.is_some(), name.unit.is_some(), later != 0];
            cbor::put_map(out, 2 + optional.iter().filter(|there| **there).count());
            if named {
                cbor::put_integer(out, BASE_NAME);
                cbor::put_text(out, &self.0.base);
            }
            if let Some(time) = base_time {
                cbor::put_integer(out, BASE_TIME);
                cbor::put_thousandths(out, time);
            }
            cbor::put_integer(out, NAME);
            cbor::put_text(out, &name.name);
            if let Some(unit) = &name.unit {
                cbor::put_integer(out, UNIT);
                cbor::put_text(out, unit.name);
            }
            if later != 0 {
                cbor::put_integer(out, TIME);
                cbor::put_thousandths(out, later);
            }
            match value {
                Value::Number(number) => {
                    cbor::put_integer(out, VALUE);
                    cbor::put_number(out, name.convert(*number).get());
                }
                Value::Switch(on) => {
                    cbor::put_integer(out, BOOLEAN_VALUE);
                    cbor::put_bool(out, *on);
                }
                Value::Text(text) => {
                    cbor::put_integer(out, STRING_VALUE);
                    cbor::put_text(out, text);
                }
                Value::Bytes(bytes) => {
                    cbor::put_integer(out, DATA_VALUE);
                    cbor::put_bytes(out, bytes);
                }
            }
        }
        Ok(())
    }
}
