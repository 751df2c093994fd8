//! Where a gateway that moves is: what its GPS receivers said last.
//!
//! A receiver's fix is taken as the driver gives it, before any filter. It belongs to what is measured after it, until it
//! is too old; what was measured a little earlier and comes later, as out of a filter, has it too.

use std::collections::HashMap;

use crate::clock::BootTime;
use crate::config::{Follows, SensorConfig};
use crate::reading::{Finite, Fix, Location, Sample, SensorIndex, Value};

/// Metres by which a fix is wrong for each unit of HDOP: what is left of errors of satellites and atmosphere for a receiver
/// on one frequency, as a rule of thumb.
const METRES_PER_HDOP: f64 = 5.0;

/// The last fix of each receiver that sensors follow.
#[derive(Debug, Default)]
pub(super) struct Positions {
    follows: HashMap<SensorIndex, Follows>,
    last: HashMap<SensorIndex, Option<Last>>,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    at: BootTime,
    location: Location,
    accuracy: Option<Finite>,
}

impl Positions {
    /// Of these sensors, `places` being their indices.
    pub(super) fn new(sensors: &[SensorConfig], places: &[SensorIndex]) -> Self {
        let at = |index: SensorIndex| places.get(index.0 as usize).copied();
        let follows: HashMap<SensorIndex, Follows> = places
            .iter()
            .zip(sensors)
            .filter_map(|(place, sensor)| {
                let follows = sensor.follows?;
                Some((*place, Follows { receiver: at(follows.receiver)?, ..follows }))
            })
            .collect();
        let last = follows.values().map(|follows| (follows.receiver, None)).collect();
        Self { follows, last }
    }

    /// The same with what was known `before` of receivers that are still followed.
    pub(super) fn going_on(mut self, before: &Self) -> Self {
        for (receiver, last) in &mut self.last {
            *last = before.last.get(receiver).copied().flatten();
        }
        self
    }

    /// A receiver is there no more, or another one has its index.
    pub(super) fn forget(&mut self, sensor: SensorIndex) {
        self.last.remove(&sensor);
    }

    /// Takes up what a sensor gave, if it is a receiver that another follows.
    pub(super) fn take(&mut self, sensor: SensorIndex, at: BootTime, samples: &[Sample]) {
        let Some(last) = self.last.get_mut(&sensor) else { return };
        let value = |name| samples.iter().find(|sample| sample.quantity == name).map(|sample| &sample.value);
        let number = |name| match value(name) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        };
        let (Some(latitude), Some(longitude)) = (number("latitude"), number("longitude")) else { return };
        // The driver gives no position without a fix.
        let above = |(altitude, geoid): (Finite, Finite)| Finite::new(altitude.get() + geoid.get());
        let altitude = number("altitude").zip(number("geoid")).and_then(above);
        let accuracy = number("hdop").and_then(|hdop| {
            let tenths = (hdop.get() * METRES_PER_HDOP * 10.0).round();
            Finite::new(tenths / 10.0)
        });
        *last = Some(Last { at, location: Location { latitude, longitude, altitude }, accuracy });
    }

    /// Where a sensor was at that time, if a receiver says so.
    pub(super) fn of(&self, sensor: SensorIndex, at: BootTime) -> Option<Fix> {
        let Follows { receiver, max_age } = *self.follows.get(&sensor)?;
        let last = (*self.last.get(&receiver)?)?;
        // Zero one way round, as a boot time is never before another by a negative time.
        let age = at.since(last.at).max(last.at.since(at));
        let Last { location, accuracy, .. } = last;
        (age <= max_age).then(|| Fix { location, accuracy, age: u32::try_from(age.as_millis()).unwrap_or(u32::MAX) })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn samples(numbers: &[(&'static str, f64)]) -> Vec<Sample> {
        let sample = |(name, number): &(&'static str, f64)| Sample::new(*name, Value::number(*number).expect("finite"));
        numbers.iter().map(sample).collect()
    }

    fn at(milliseconds: u64) -> BootTime {
        BootTime(milliseconds * 1_000_000)
    }

    #[test]
    fn a_fix_holds_for_what_is_measured_about_then() {
        let follows = Follows { receiver: SensorIndex(1), max_age: Duration::from_secs(10) };
        let mut positions = Positions {
            follows: [0, 1].map(|index| (SensorIndex(index), follows)).into(),
            last: HashMap::from([(SensorIndex(1), None)]),
        };
        assert_eq!(positions.of(SensorIndex(0), at(0)), None, "nothing is known yet");
        let fix = [("latitude", 47.5), ("longitude", 0.9), ("altitude", 85.2), ("geoid", 47.4), ("hdop", 0.88)];
        positions.take(SensorIndex(0), at(500), &samples(&fix));
        assert_eq!(positions.of(SensorIndex(0), at(500)), None, "it is no receiver");
        positions.take(SensorIndex(1), at(1_000), &samples(&fix));
        // A heading by itself is no fix, nor does it take one away.
        positions.take(SensorIndex(1), at(1_500), &samples(&[("heading", 271.0)]));
        let found = positions.of(SensorIndex(0), at(3_250)).expect("a fix");
        assert_eq!((found.age, found.accuracy), (2_250, Finite::new(4.4)));
        assert!(found.location.altitude.is_some_and(|it| (it.get() - 132.6).abs() < 1e-9), "{found:?}");
        assert_eq!(positions.of(SensorIndex(0), at(400)).map(|fix| fix.age), Some(600), "out of a filter");
        assert!(positions.of(SensorIndex(0), at(11_000)).is_some());
        assert_eq!(positions.of(SensorIndex(0), at(11_001)), None, "too old");
        assert_eq!(positions.of(SensorIndex(2), at(1_000)), None, "it follows nobody");
        let without = samples(&fix[..3]);
        positions.take(SensorIndex(1), at(12_000), &without);
        let found = positions.of(SensorIndex(1), at(12_000)).expect("a fix");
        assert_eq!((found.location.altitude, found.accuracy), (None, None), "above which surface is not known");
    }
}
