//! What a form of payload is: how elements become bytes.
//!
//! A form is a file of its own and a line in [`of`]. It keeps ready, once a sensor, whatever all messages of that sensor
//! share. What it has no place for it refuses, with a reason; nobody else needs to know what that is.

use std::borrow::Cow;
use std::fmt::Debug;
use std::time::Duration;

use bytes::BytesMut;

use crate::config::{Format, Payload, PayloadShape};
use crate::outbox::Seq;
use crate::reading::{Descriptor, Fix, Location, Quantity, Value};
use crate::uplink::dating::Date;
use crate::uplink::veil::Veil;

use super::{Prepared, influx, json, senml, template, thingsboard, thingspeak, value};

/// Why a form has no place for something, for people.
pub(super) type Unfit = Cow<'static, str>;

/// What is said of a reading without a date, where the form would have it taken for the present.
pub(super) const UNDATED: &str =
    "it was measured before the clock was set, and without a time it would be taken for the present";

/// What an uplink's settings make of its form.
pub(super) fn of(payload: &Payload, veil: &Veil) -> Box<dyn Form> {
    match payload.format {
        Format::Json => Box::new(json::Json::new(payload, false)),
        Format::JsonArray => Box::new(json::Json::new(payload, true)),
        Format::Value => Box::new(value::Bare),
        Format::Senml => Box::new(senml::Senml::json()),
        Format::SenmlCbor => Box::new(senml::Senml::cbor()),
        Format::Influx => Box::new(influx::Influx::new(payload)),
        Format::Template => Box::new(template::Filled::new(payload)),
        Format::Thingsboard => Box::new(thingsboard::Device),
        Format::ThingsboardGateway => Box::new(thingsboard::Gateway),
        Format::Thingspeak => Box::new(thingspeak::Channel::new(payload, veil)),
    }
}

/// One form, with what an uplink's settings say of it.
pub(super) trait Form: Debug {
    /// Makes ready what all messages of a sensor share.
    fn prepare(&self, descriptor: &Descriptor) -> Box<dyn Ready>;

    /// Appends the payload that these elements make; there is at least one. Each is [admitted](Self::admits), and after
    /// the first each [joins](Self::joins) those before it.
    ///
    /// # Errors
    /// Why it cannot be made of these values.
    fn write(&self, elements: &[Element<'_>], out: &mut BytesMut) -> Result<(), Unfit> {
        elements.iter().try_for_each(|element| element.write(&[], out))
    }

    /// Is there a place for this element, alone or among others?
    ///
    /// # Errors
    /// Why not.
    fn admits(&self, _element: &Element<'_>) -> Result<(), Unfit> {
        Ok(())
    }

    /// May it be in one payload with those before it?
    fn joins(&self, _before: &[Element<'_>], _next: &Element<'_>) -> bool {
        true
    }

    /// A payload of no elements, if there is one behind which spaces mean nothing.
    fn nothing(&self) -> Option<&'static [u8]> {
        None
    }

    /// Has it a place for bytes as such?
    fn holds_bytes(&self) -> bool {
        false
    }

    /// Is a message of nothing but bytes one that consumers of this form understand?
    fn leaves_bytes_alone(&self) -> bool {
        false
    }
}

/// What a form keeps ready of a sensor.
pub(super) trait Ready: Debug {
    /// Appends an element; `before` are those before it in its payload.
    ///
    /// # Errors
    /// Why it cannot be made of these values.
    fn write(&self, element: &Element<'_>, before: &[Element<'_>], out: &mut BytesMut) -> Result<(), Unfit>;

    /// Is any of these values one that goes out in this form?
    fn takes(&self, _values: &[(u16, Value)]) -> bool {
        true
    }
}

/// What would be a message of its own: one value or those of a sensor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element<'a> {
    /// The sensor.
    pub(super) sensor: &'a Prepared,
    /// What is not to be told.
    pub(super) veil: &'a Veil,
    /// Run, and position of the first value.
    pub(super) id: (u32, Seq),
    /// When it was measured.
    pub(super) date: Date,
    /// How long ago that was, where there is no date and it was in this boot.
    pub(super) age: Option<Duration>,
    /// Where it was measured, if a receiver said so.
    pub(super) place: Option<Fix>,
    /// It belongs to the backlog.
    pub(super) backlog: bool,
    /// Is it about one quantity, or about all that the sensor gave?
    pub(super) shape: PayloadShape,
    /// Index of the quantity, which there is, and the value; at least one, and one where it is about one quantity.
    pub(super) values: &'a [(u16, Value)],
}

impl<'a> Element<'a> {
    /// Where it is published; `None`: no broker accepts it.
    pub(super) fn topic(&self) -> Option<&'a str> {
        match (self.shape, self.values) {
            (PayloadShape::Quantity, [(index, _), ..]) => self.sensor.quantity(*index)?.topic.of(self.backlog),
            _ => self.sensor.sensor_topic.of(self.backlog),
        }
    }

    /// Is something in it that happened, rather than that holds?
    pub(super) fn is_event(&self) -> bool {
        self.values.iter().any(|(index, _)| self.sensor.quantity(*index).is_none_or(|quantity| quantity.event))
    }

    /// The sensor as it was.
    pub(super) fn descriptor(&self) -> &'a Descriptor {
        &self.sensor.descriptor
    }

    /// Where it was measured.
    pub(super) fn location(&self) -> Option<Location> {
        self.place.map(|fix| fix.location).or(self.sensor.descriptor.location)
    }

    /// The values with their quantities.
    pub(super) fn quantities(&self) -> impl Iterator<Item = (&'a Quantity, &'a Value)> {
        let known = &self.sensor.descriptor.quantities;
        self.values.iter().filter_map(|(index, value)| Some((known.get(usize::from(*index))?, value)))
    }

    /// Is it of the same sensor, as it was then?
    pub(super) fn is_beside(&self, other: &Element<'_>) -> bool {
        std::ptr::eq(self.sensor, other.sensor)
    }

    /// Appends it as its sensor's texts say.
    pub(super) fn write(&self, before: &[Element<'_>], out: &mut BytesMut) -> Result<(), Unfit> {
        self.sensor.ready.write(self, before, out)
    }

    /// Refuses what has no date and is not live: its consumers would take it for the present.
    pub(super) fn is_dated_or_live(&self) -> Result<(), Unfit> {
        match self.date {
            Date::Uptime(..) if self.backlog => Err(UNDATED.into()),
            _ => Ok(()),
        }
    }
}
