//! The keys of what goes up from LAN clients, and of what comes down to them.

use super::{Section, key};

/// `[[broker.ingest]]`
pub(super) static BROKER_INGEST: Section = Section {
    title: "[[broker.ingest]]",
    intro: "Messages of LAN clients that go up: they enter the outbox before their publisher has the acknowledgement. With \
            `sensor` they become readings, else they go to the uplinks as they came. The first table that matches a topic \
            counts. In `to`, `{topic}` stands for the topic, and `{1}`, `{2}` … stand for its levels everywhere. \
            docs/broker.md says more.",
    keys: &[
        key("topics", "list of topic filters", None, "Which messages: `[\"esp/+/state\"]`."),
        key(
            "to",
            "topic with `{topic}`, `{1}` …",
            Some("`\"lan/{topic}\"`"),
            "Without `sensor`: the topic above. It must not be one that is taken itself.",
        ),
        key(
            "sensor",
            "name with `{1}` …",
            Some("none: messages go up as they came"),
            "Name of the sensor that a message is of, for example `\"{2}\"`. Its readings go the way of all others.",
        ),
        key("room", "name with `{1}` …", Some("none"), "The sensor's room."),
        key(
            "form",
            "`\"json\"`, `\"pairs\"` or `\"plain\"`",
            Some("`\"json\"`"),
            "What a message is: a JSON object, names and values (`T=21.5 H=40`), or one value. The rules are those of \
             `serial-json` and `serial-lines`.",
        ),
        key("as", "name with `{1}` …", Some("`\"value\"`"), "With `form = \"plain\"`: the name of the quantity."),
        key("label", "text", Some("none"), "Name of the sensor for people."),
        key("tags", "table of texts", Some("none"), "Free tags."),
        key(
            "quantity",
            "tables, see [\\[sensor.quantity.NAME\\]](#sensorquantityname)",
            Some("none"),
            "What quantities are called, their units, kinds and filters.",
        ),
        key("filters", "table of lists", Some("none"), "Filters, by published names; see docs/filters.md."),
        key("change", "table, see [change](#change)", Some("every value"), "Only what has changed is published."),
        key("heartbeat", "duration", Some("none"), "With `change`: published at least this often."),
        key(
            "rate",
            "1 to 10000",
            Some("100"),
            "Messages a second, twice as many at once. With QoS 1 and 2 their publishers wait; of QoS 0 what is more stays \
             on the LAN.",
        ),
        key(
            "max_bytes",
            "size, 1 to 512000",
            Some("`\"64KiB\"`"),
            "The largest payload. A larger one stays on the LAN.",
        ),
        key("max_topics", "1 to 10000", Some("500"), "Different topics. Messages on further ones stay on the LAN."),
        key(
            "silent_after",
            "duration, `\"1s\"` to a year",
            Some("none"),
            "A topic that was published on regularly, and is no more for so long, is told in `…/broker`.",
        ),
    ],
};

/// `[[broker.deliver]]`
pub(super) static BROKER_DELIVER: Section = Section {
    title: "[[broker.deliver]]",
    intro: "Messages of an uplink's broker that are delivered to LAN clients. They are in the outbox before the uplink's \
            broker has the acknowledgement, and reach the LAN when the embedded broker is up.",
    keys: &[
        key("topics", "list of topic filters", None, "Which messages: `[\"commands/#\"]`."),
        key("from", "name of an uplink", Some("all uplinks"), "Whose broker they come from."),
        key("to", "topic with `{topic}`, `{1}` …", Some("`\"{topic}\"`"), "The topic on the LAN."),
        key("retain", "true or false", Some("false"), "Are they retained on the LAN?"),
        key("max_bytes", "size, 1 to 512000", Some("`\"64KiB\"`"), "The largest payload. A larger one is dropped."),
        key(
            "rate",
            "1 to 10000",
            Some("100"),
            "Messages a second, as many at once. With QoS 1 the uplink's broker gets its acknowledgements no faster, and \
             keeps the others; of QoS 0 what is more is dropped.",
        ),
    ],
};
