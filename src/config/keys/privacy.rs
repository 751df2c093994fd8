//! What others are not to know, and how they know that it is ours.

use super::{Section, key};

/// `privacy = { … }`
pub(super) static PRIVACY: Section = Section {
    title: "[uplink.NAME.privacy]",
    intro: "What those who read along, and the broker itself, are not to know. [Privacy](privacy.md) says what each of these \
            hides, and what it does not.",
    keys: &[
        key(
            "key",
            "table, as [outbox.key](#outboxkey)",
            Some("none: names go out as they are"),
            "With it, pseudonyms go out for the names of gateway, site, rooms and sensors, for the values of tags, for the \
             gateway's `id` and the host's name in `client_id`, and for the `id` of messages.",
        ),
        key(
            "time_grain",
            "duration, `\"1s\"` to `\"1d\"`",
            Some("times are as measured"),
            "Times are rounded down to multiples of it.",
        ),
        key(
            "place_decimals",
            "0 to 4",
            Some("places are as they are"),
            "Latitude and longitude are rounded to so many decimals: 0 is 111 km, 2 is 1.1 km. Altitude and accuracy are left \
             out.",
        ),
        key(
            "omit",
            "list of `\"labels\"` `\"location\"` `\"tags\"`",
            Some("none; labels with `key`"),
            "What is left out in every form; with json, `fields` chooses more precisely.",
        ),
        key("rate", "table, see [rate](#rate)", Some("messages go out as they come"), "A fixed rate and size."),
    ],
};

/// `rate = { … }`
pub(super) static RATE: Section = Section {
    title: "rate",
    intro: "At a fixed rate, as `rate = { every = \"1m\", size = 1024 }`, one message goes out in each interval, filled up with \
            spaces to always the same size, whether there is something to tell or not, and nothing else does: so traffic does \
            not tell when a door is opened. What does not fit waits for the next interval. It needs `key`, one `topic` for all \
            readings (`\"{site}/{gateway}/readings\"`) and the format json-array or senml; `state` is false.",
    keys: &[
        key("every", "duration, `\"1s\"` to `\"1d\"`", Some("`\"1m\"`"), "Between two messages."),
        key("size", "size, 256 to `\"256KiB\"`", Some("1024"), "Bytes of each payload."),
    ],
};

/// `integrity = { … }`
pub(super) static INTEGRITY: Section = Section {
    title: "integrity",
    intro: "A checksum of each payload, as `integrity = { method = \"crc32\" }`: the last field of JSON, else a user property \
            of MQTT 5. [Integrity](integrity.md) has the lines of Python that check it.",
    keys: &[
        key(
            "method",
            "`\"crc32\"` or `\"hmac-sha256\"`",
            None,
            "`crc32` shows damage; `hmac-sha256` shows that it comes from somebody who has the key.",
        ),
        key("key", "table, as [outbox.key](#outboxkey)", Some("must be given for hmac-sha256"), "Its key, 32 bytes."),
    ],
};
