//! Which records an uplink sends: those of its rooms and sensors that are not too old.

use std::time::Duration;

use crate::clock::{BootId, BootTime, WallTime};
use crate::config::Selection;
use crate::outbox::{Body, Entry};
use crate::reading::Descriptor;

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

/// What ages are reckoned from.
#[derive(Clone, Copy, Debug)]
struct Present {
    now: BootTime,
    boot: BootId,
    /// The wall clock, if it is set.
    wall: Option<WallTime>,
}

/// Decides.
#[derive(Debug)]
pub(super) struct Selector {
    selection: Selection,
    /// Does it lead to the embedded broker? What LAN clients have sent is there already.
    to_lan: bool,
    /// Does it send what is for auditors?
    audit: bool,
    /// Only where there is an age limit.
    present: Option<Present>,
}

impl Selector {
    pub(super) fn new(selection: Selection, to_lan: bool, audit: bool) -> Self {
        Self { selection, to_lan, audit, present: None }
    }

    /// Takes note of the time.
    pub(super) fn set_time(&mut self, hub: &Hub, now: BootTime) {
        let present = || Present { now, boot: hub.boot, wall: hub.now() };
        self.present = self.selection.max_age.map(|_| present());
    }

    /// Decides over one record.
    pub(super) fn judge(&self, entry: &Entry, date: Date) -> Verdict {
        if !self.admits(entry) {
            Verdict::NotOurs
        } else if self.left(date) == Some(Duration::ZERO) {
            Verdict::Expired
        } else {
            Verdict::Send
        }
    }

    /// How long it may still take to arrive; `None`: for ever, or nobody knows how old it is.
    pub(super) fn left(&self, date: Date) -> Option<Duration> {
        let age = age(date, self.present.as_ref()?)?;
        Some(self.selection.max_age?.saturating_sub(age))
    }

    /// Does the uplink send readings of this sensor?
    pub(super) fn holds(&self, sensor: &Descriptor) -> bool {
        self.selection.holds(&sensor.sensor, sensor.room.as_deref())
    }

    /// Is it from a room or a sensor that the uplink sends? Without any named, all are.
    pub(super) fn admits(&self, entry: &Entry) -> bool {
        match &entry.body {
            Body::Reading { descriptor, .. } => self.holds(descriptor),
            Body::Raw(raw) if raw.is_audit() => self.audit,
            Body::Raw(raw) if raw.comes_down() => self.to_lan,
            Body::Raw(_) => !self.to_lan && self.selection.rooms.is_empty() && self.selection.sensors.is_empty(),
        }
    }
}

/// How old it is; `None` if nobody knows, because the clock was not or is not set and the boot is another one.
fn age(date: Date, present: &Present) -> Option<Duration> {
    match date {
        Date::Wall(WallTime(then)) => {
            let WallTime(now) = present.wall?;
            Some(Duration::from_nanos(u64::try_from(now.saturating_sub(then)).unwrap_or(0)))
        }
        Date::Uptime(boot, at) => (boot == present.boot).then(|| present.now.since(at)),
    }
}
