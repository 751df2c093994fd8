//! Where things are.

use super::{Section, key};

/// `location = { … }`
pub(super) static LOCATION: Section = Section {
    title: "location",
    intro: "A place on Earth (WGS 84), in `[gateway]`, `[room.NAME]` or `[[sensor]]`: \
            `location = { latitude = 47.5921, longitude = 0.9117, altitude = 85 }`. What moves has a receiver of GPS, a \
            sensor with the driver `nmea`: with `location = { sensor = \"gps\" }` each reading has the place of the last \
            fix before it, kept with it from the moment of the measurement on, with `age`, the seconds between the two, \
            and `accuracy` in metres: the fix's HDOP times 5 m, within which about two of three fixes are. The receiver's \
            own filters, and what it publishes, make no difference to that.",
    keys: &[
        key("latitude", "number, -90 to 90", None, "Degrees north; not with `sensor`."),
        key("longitude", "number, -180 to 180", None, "Degrees east; not with `sensor`."),
        key(
            "altitude",
            "number, -12000 to 100000",
            Some("none"),
            "Metres above the ellipsoid. Of a receiver: its `altitude` and `geoid` together.",
        ),
        key("sensor", "name of a sensor", Some("none"), "The receiver, instead of coordinates."),
        key(
            "max_age",
            "duration, `\"1s\"` to `\"1d\"`",
            Some("`\"1m\"`"),
            "With `sensor`: a fix that is older says nothing any more. Readings then have no `location`.",
        ),
    ],
};
