//! Which records an uplink sends: those of its rooms and sensors that are not too old.

use std::time::Duration;

use crate::clock::{BootId, BootTime, WallTime};
use crate::config::Selection;
use crate::outbox::{Body, Entry};

use super::super::Hub;
use super::super::dating::Date;

/// What is to become of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is sent.
    Send,
    /// This uplink does not send readings of its sensor.
    NotOurs,
    /// It is older than `max_age`.
    Expired,
}

/// The times that an age is reckoned from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ages {
    now: BootTime,
    boot: BootId,
    /// The wall clock, if it is set.
    wall: Option<WallTime>,
}

/// Decides.
#[derive(Debug)]
pub(super) struct Selector(Selection);

impl Selector {
    pub(super) fn new(selection: Selection) -> Self {
        Self(selection)
    }

    /// What ages are reckoned from now.
    pub(super) fn ages(&self, hub: &Hub, now: BootTime) -> Ages {
        let wall = self.0.max_age.and_then(|_| hub.clock.wall_if_set());
        Ages { now, boot: hub.boot, wall }
    }

    /// Decides over one record.
    pub(super) fn judge(&self, entry: &Entry, date: Date, ages: &Ages) -> Verdict {
        if !self.admits(entry) {
            return Verdict::NotOurs;
        }
        match (self.0.max_age, age(date, ages)) {
            (Some(limit), Some(age)) if age > limit => Verdict::Expired,
            _ => Verdict::Send,
        }
    }

    /// Is it from a room or a sensor that the uplink sends? Without any named, all are.
    pub(super) fn admits(&self, entry: &Entry) -> bool {
        let Selection { rooms, sensors, .. } = &self.0;
        if rooms.is_empty() && sensors.is_empty() {
            return true;
        }
        match &entry.body {
            Body::Reading { descriptor, .. } => {
                sensors.iter().any(|name| **name == *descriptor.sensor)
                    || rooms.iter().any(|name| Some(name.as_str()) == descriptor.room.as_deref())
            }
            Body::Raw(_) => false,
        }
    }
}

/// How old it is; `None` if nobody knows, because the clock was not or is not set and the boot is another one.
fn age(date: Date, ages: &Ages) -> Option<Duration> {
    match date {
        Date::Wall(WallTime(then)) => {
            let WallTime(now) = ages.wall?;
            Some(Duration::from_nanos(u64::try_from(now.saturating_sub(then)).unwrap_or(0)))
        }
        Date::Uptime(boot, at) => (boot == ages.boot).then(|| ages.now.since(at)),
    }
}
