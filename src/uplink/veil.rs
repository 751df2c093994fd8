//! What an uplink's `privacy` makes of names, times and places: the one place that everything passes before it goes out.
//!
//! Whatever names something goes through here: topics and payloads of readings (by the sensor's descriptor), state about
//! the gateway and its sensors, and the will. The client identifier has its pseudonyms from the configuration.

use std::sync::Arc;

use crate::clock::{BootTime, WallTime};
use crate::config::{Gateway, Named, Omit, Privacy, Pseudonyms};
use crate::outbox::{Body, Seq};
use crate::reading::{Descriptor, Finite, Fix, Location};
use crate::topic;

use super::dating::Date;
use super::status::gateway_topic;

/// By default it hides nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Veil(Privacy);

impl Veil {
    /// What this hides.
    #[must_use]
    pub fn new(privacy: &Privacy) -> Self {
        Self(privacy.clone())
    }

    /// Does it hide anything?
    #[must_use]
    pub fn is_on(&self) -> bool {
        let Privacy { pseudonyms, time_grain, place_decimals, omit, rate } = &self.0;
        pseudonyms.is_some() || time_grain.is_some() || place_decimals.is_some() || !omit.is_empty() || rate.is_some()
    }

    /// Are names replaced? Then free text about the gateway must not go out either.
    #[must_use]
    pub fn hides_names(&self) -> bool {
        self.0.pseudonyms.is_some()
    }

    /// Bytes to which each payload is filled up.
    #[must_use]
    pub fn size(&self) -> Option<usize> {
        self.0.rate.map(|rate| rate.size)
    }

    /// What goes out for a name.
    #[must_use]
    pub fn name(&self, what: Named, name: &str) -> Box<str> {
        match &self.0.pseudonyms {
            Some(pseudonyms) => pseudonyms.of(what, name).into(),
            None => name.into(),
        }
    }

    /// What goes out for the `id` of a message, where that is not the `id` itself: who sees some of the messages could
    /// tell from the gaps how many others there were.
    #[must_use]
    pub fn id(&self, (run, seq): (u32, Seq)) -> Option<String> {
        self.0.pseudonyms.as_ref().map(|pseudonyms: &Pseudonyms| pseudonyms.of(Named::Message, &format!("{run}-{seq}")))
    }

    /// Does the `id` go out?
    #[must_use]
    pub fn tells_ids(&self) -> bool {
        self.0.pseudonyms.is_none()
    }

    /// A sensor as it goes out.
    ///
    /// With pseudonyms, names for people are left out, and a topic that a quantity was given outright is not used, because
    /// it may have names in it.
    #[must_use]
    pub fn descriptor(&self, descriptor: &Arc<Descriptor>) -> Arc<Descriptor> {
        if !self.is_on() {
            return Arc::clone(descriptor);
        }
        let mut veiled = Descriptor::clone(descriptor);
        veiled.location = veiled.location.and_then(|location| self.location(location));
        if self.omits(Omit::Labels) || self.hides_names() {
            (veiled.label, veiled.room_label) = (None, None);
        }
        if self.omits(Omit::Tags) {
            veiled.tags.clear();
        }
        if self.hides_names() {
            veiled.gateway = self.name(Named::Gateway, &descriptor.gateway);
            veiled.site = descriptor.site.as_deref().map(|site| self.name(Named::Site, site));
            veiled.room = descriptor.room.as_deref().map(|room| self.name(Named::Room, room));
            veiled.sensor = self.name(Named::Sensor, &descriptor.sensor);
            for (_, value) in &mut veiled.tags {
                *value = self.name(Named::Tag, value);
            }
            for quantity in &mut veiled.quantities {
                quantity.topic = None;
            }
        }
        Arc::new(veiled)
    }

    /// A time as it goes out.
    #[must_use]
    pub fn date(&self, date: Date) -> Date {
        let Some(grain) = self.0.time_grain else { return date };
        match date {
            Date::Wall(WallTime(time)) => {
                let grain = i64::try_from(grain.as_nanos()).unwrap_or(i64::MAX);
                Date::Wall(WallTime(time.div_euclid(grain).saturating_mul(grain)))
            }
            Date::Uptime(boot, BootTime(at)) => {
                let grain = u64::try_from(grain.as_nanos()).unwrap_or(u64::MAX);
                Date::Uptime(boot, BootTime(at / grain * grain))
            }
        }
    }

    /// What a receiver said of a place, as it goes out.
    #[must_use]
    pub fn place(&self, fix: Option<Fix>) -> Option<Fix> {
        let Fix { location, accuracy, age } = fix?;
        let accuracy = accuracy.filter(|_| self.0.place_decimals.is_none());
        Some(Fix { location: self.location(location)?, accuracy, age })
    }

    fn location(&self, location: Location) -> Option<Location> {
        if self.omits(Omit::Location) {
            return None;
        }
        let Some(decimals) = self.0.place_decimals else { return Some(location) };
        let power = 10_f64.powi(decimals.into());
        let coarse = |number: Finite| Finite::new((number.get() * power).round() / power + 0.0);
        Some(Location { latitude: coarse(location.latitude)?, longitude: coarse(location.longitude)?, altitude: None })
    }

    fn omits(&self, what: Omit) -> bool {
        self.0.omit.contains(&what)
    }

    /// May a record go out at all? With pseudonyms, what holds texts that nobody here made does not: messages of LAN
    /// clients, and the results of commands, which name the sensor.
    #[must_use]
    pub fn admits(&self, body: &Body) -> bool {
        let is_result = |topic: &Option<Box<str>>| topic.as_deref().is_some_and(topic::is_result);
        match body {
            _ if !self.hides_names() => true,
            Body::Raw(_) => false,
            Body::Reading { descriptor, .. } => {
                !descriptor.quantities.iter().any(|quantity| is_result(&quantity.topic))
            }
        }
    }

    /// A topic of the gateway's own: `<site>/<gateway>/<leaf>`.
    #[must_use]
    pub fn gateway_topic(&self, gateway: &Gateway, leaf: &str) -> String {
        let site = gateway.site.as_deref().map(|site| self.name(Named::Site, site));
        gateway_topic(site.as_deref(), &self.name(Named::Gateway, &gateway.name), leaf)
    }
}

#[cfg(test)]
mod tests;
