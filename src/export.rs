//! Records as rows for people and their programs: one row a value, as a table (CSV) or as JSON, a row a line.
//!
//! What waits in the outbox and what lies in the archive go through here, so that both look the same.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::clock::WallTime;
use crate::outbox::{Body, Entry, Seq};
use crate::reading::{Descriptor, Finite, Value};
use crate::uplink::dating::Date;

mod when;
mod write;

pub use when::{Day, parse_time, zone_name};
pub use write::{Format, Writer};

/// One value with everything that a table says about it. What is not known is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// Run and position, as in payloads.
    pub id: String,
    /// When it was measured, if that is known.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_time", deserialize_with = "read_time")]
    pub time: Option<WallTime>,
    /// Site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
    /// Sensor; `None` for a message of a LAN client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sensor: Option<String>,
    /// Quantity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantity: Option<String>,
    /// The value, or the payload of a LAN client's message.
    pub value: Cell,
    /// Unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The boot in which it was measured, for what has no time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// Seconds since that boot, to the millisecond, for what has no time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uptime: Option<f64>,
    /// Topic of a LAN client's message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Where it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Place>,
}

/// Where something was measured: as a receiver said, else as the configuration does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
    /// Metres above the ellipsoid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub altitude: Option<f64>,
    /// How far from there it may have been, in metres; only of a receiver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Seconds between fix and measurement; only of a receiver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<f64>,
}

impl Place {
    fn of(entry: &Entry, descriptor: &Descriptor) -> Option<Self> {
        let fix = entry.place;
        let location = fix.map(|fix| fix.location).or(descriptor.location)?;
        Some(Self {
            latitude: location.latitude.get(),
            longitude: location.longitude.get(),
            altitude: location.altitude.map(Finite::get),
            accuracy: fix.and_then(|fix| fix.accuracy).map(Finite::get),
            age: fix.map(|fix| f64::from(fix.age) / 1_000.0),
        })
    }
}

/// What stands in the column of values.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Cell {
    /// A whole number, without a point.
    Whole(i64),
    /// Any other number.
    Number(f64),
    /// On or off.
    Switch(bool),
    /// A text.
    Text(String),
    /// Bytes that are no text, in hexadecimal.
    Bytes {
        /// Two digits a byte.
        hex: String,
    },
    /// Nothing.
    #[default]
    Empty,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(number) => number.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Switch(on) => on.fmt(f),
            Self::Text(text) => text.fmt(f),
            Self::Bytes { hex } => hex.fmt(f),
            Self::Empty => Ok(()),
        }
    }
}

impl From<&Value> for Cell {
    fn from(value: &Value) -> Self {
        match value {
            Value::Number(number) => {
                /// Up to here every whole number has a double of its own.
                const EXACT: f64 = 9_007_199_254_740_992.0;
                let number = number.get();
                #[expect(clippy::cast_possible_truncation, reason = "it is whole and below 2^53")]
                if number.trunc() == number && number.abs() < EXACT {
                    Self::Whole(number as i64)
                } else {
                    Self::Number(number)
                }
            }
            Value::Switch(on) => Self::Switch(*on),
            Value::Text(text) => Self::Text(text.to_string()),
            Value::Bytes(bytes) => Self::hex(bytes),
        }
    }
}

impl Cell {
    fn hex(bytes: &[u8]) -> Self {
        Self::Bytes { hex: bytes.iter().map(|byte| format!("{byte:02x}")).collect() }
    }
}

/// What is wanted of all records.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Of this sensor alone.
    pub sensor: Option<String>,
    /// Of this room alone.
    pub room: Option<String>,
    /// Measured at this time or later; what has no time is left out.
    #[serde(serialize_with = "write_time", deserialize_with = "read_time")]
    pub from: Option<WallTime>,
    /// Measured before this time; what has no time is left out.
    #[serde(serialize_with = "write_time", deserialize_with = "read_time")]
    pub to: Option<WallTime>,
}

impl Filter {
    /// Is this record wanted?
    #[must_use]
    pub fn wants(&self, entry: &Entry, date: Date) -> bool {
        let (sensor, room) = match &entry.body {
            Body::Reading { descriptor, .. } => (Some(&*descriptor.sensor), descriptor.room.as_deref()),
            Body::Raw(_) => (None, None),
        };
        let is = |wanted: &Option<String>, found: Option<&str>| wanted.as_deref().is_none_or(|it| Some(it) == found);
        let in_time = match date {
            Date::Wall(time) => self.from.is_none_or(|from| time >= from) && self.to.is_none_or(|to| time < to),
            Date::Uptime(..) => self.from.is_none() && self.to.is_none(),
        };
        is(&self.sensor, sensor) && is(&self.room, room) && in_time
    }
}

/// Appends the rows of a record, of those of its positions that are wanted.
pub fn rows(entry: &Entry, date: Date, wanted: impl Fn(Seq) -> bool, out: &mut Vec<Row>) {
    let (time, boot, uptime) = match date {
        Date::Wall(time) => (Some(time), None, None),
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of an uptime stay below 2^53")]
        Date::Uptime(boot, at) => (None, Some(boot.to_string()), Some((at.0 / 1_000_000) as f64 / 1_000.0)),
    };
    let base =
        |seq: Seq| Row { id: format!("{}-{seq}", entry.run), time, boot: boot.clone(), uptime, ..Row::default() };
    match &entry.body {
        Body::Raw(raw) => {
            if wanted(entry.seq) {
                let value = match std::str::from_utf8(&raw.payload) {
                    Ok(text) => Cell::Text(text.to_owned()),
                    Err(_) => Cell::hex(&raw.payload),
                };
                out.push(Row { value, topic: Some(raw.published_on().to_owned()), ..base(entry.seq) });
            }
        }
        Body::Reading { descriptor, values } => {
            let text = |text: &Option<Box<str>>| text.as_ref().map(ToString::to_string);
            let location = Place::of(entry, descriptor);
            for (seq, (index, value)) in (entry.seq..).zip(values).filter(|(seq, _)| wanted(*seq)) {
                let quantity = descriptor.quantities.get(usize::from(*index));
                out.push(Row {
                    site: text(&descriptor.site),
                    room: text(&descriptor.room),
                    sensor: Some(descriptor.sensor.to_string()),
                    quantity: quantity.map(|quantity| quantity.name.to_string()),
                    value: value.into(),
                    unit: quantity.and_then(|quantity| text(&quantity.unit)),
                    location,
                    ..base(seq)
                });
            }
        }
    }
}

/// RFC 3339 in UTC, to the millisecond, as in payloads.
#[must_use]
pub fn utc(time: WallTime) -> String {
    humantime::format_rfc3339_millis(time.to_system()).to_string()
}

#[expect(clippy::ref_option, reason = "serde asks for this form")]
fn write_time<S: Serializer>(time: &Option<WallTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(utc).serialize(serializer)
}

fn read_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<WallTime>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse_time(&text, Day::Begins).map_err(de::Error::custom)).transpose()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::{BootId, BootTime};
    use crate::outbox::Raw;
    use crate::reading::{Fix, Location};

    fn raw(payload: &[u8]) -> Entry {
        let body = Body::Raw(Raw { topic: "t/x".into(), payload: payload.into(), retain: false });
        Entry { seq: 7, run: 3, boot: BootId([1; 16]), at: BootTime(1_234_567_890), time: None, place: None, body }
    }

    #[test]
    fn what_has_no_time_says_boot_and_uptime() {
        let entry = raw(b"\xff\x00");
        let mut found = Vec::new();
        rows(&entry, Date::Uptime(entry.boot, entry.at), |_| true, &mut found);
        let json = serde_json::to_string(&found[0]).expect("a row has a form in JSON");
        let boot = "01".repeat(16);
        assert_eq!(
            json,
            format!(r#"{{"id":"3-7","value":{{"hex":"ff00"}},"boot":"{boot}","uptime":1.234,"topic":"t/x"}}"#)
        );
        assert!(
            !Filter { to: Some(WallTime(i64::MAX)), ..Filter::default() }
                .wants(&entry, Date::Uptime(entry.boot, entry.at))
        );
    }

    #[test]
    fn a_place_is_the_receivers_else_the_configurations() {
        let finite = |number| Finite::new(number).expect("finite");
        let at = |latitude, altitude: Option<f64>| Location {
            latitude: finite(latitude),
            longitude: finite(0.9117),
            altitude: altitude.map(finite),
        };
        let descriptor = Descriptor {
            gateway: "atelier".into(),
            sensor: "meteo".into(),
            location: Some(at(47.5921, Some(85.0))),
            ..Descriptor::default()
        };
        let values = vec![(0, Value::Switch(true))];
        let mut entry = Entry { body: Body::Reading { descriptor: Arc::new(descriptor), values }, ..raw(b"") };
        let place = |entry: &Entry| {
            let mut found = Vec::new();
            rows(entry, Date::Wall(WallTime(0)), |_| true, &mut found);
            serde_json::to_string(&found[0].location).expect("a place has a form in JSON")
        };
        assert_eq!(place(&entry), r#"{"latitude":47.5921,"longitude":0.9117,"altitude":85.0}"#);
        entry.place = Some(Fix { location: at(48.0, None), accuracy: Some(finite(2.5)), age: 1_500 });
        assert_eq!(place(&entry), r#"{"latitude":48.0,"longitude":0.9117,"accuracy":2.5,"age":1.5}"#);
        assert_eq!(place(&raw(b"x")), "null");
    }

    proptest! {
        #[test]
        fn a_row_survives_the_socket(number in prop::num::f64::NORMAL, millis in 0i64..4_000_000_000_000, text in ".*") {
            let value = Value::number(number).expect("finite");
            for value in [Cell::from(&value), Cell::Text(text.clone()), Cell::Switch(true)] {
                let row = Row {
                    id: "1-2".into(),
                    time: Some(WallTime(millis * 1_000_000)),
                    unit: Some(text.clone()),
                    value,
                    ..Row::default()
                };
                let json = serde_json::to_string(&row).expect("a form in JSON");
                let back: Row = serde_json::from_str(&json).expect("reads back");
                prop_assert_eq!(back, row);
            }
        }
    }
}
