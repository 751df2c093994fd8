//! The keys of rooms, sensors and their quantities.

use super::{Section, clock, key};

/// `[room.NAME]`
pub(super) static ROOM: Section = Section {
    title: "[room.NAME]",
    intro: "What the sensors of a room have in common. A sensor's own key comes first; tags add up. A room without such \
            a table is fine.",
    keys: &[
        key("label", "text", Some("none"), "Name for people."),
        key("location", "table, see [location](#location)", Some("the gateway's"), "Where the room is."),
        key("every", "duration, `\"1ms\"` to a year", Some("`\"30s\"`"), "As in `[[sensor]]`."),
        key("align", "true or false", Some("false"), "As in `[[sensor]]`."),
        key("heartbeat", "duration, `\"1ms\"` to a year", Some("none"), "As in `[[sensor]]`."),
        key(
            "filters",
            "table of lists, see [filters](filters.md)",
            Some("none"),
            "By the published names of quantities; a sensor's own list for a quantity takes the place of the room's.",
        ),
        key("tags", "table of texts", Some("none"), "As in `[[sensor]]`."),
    ],
};

/// `[[sensor]]`
pub(super) static SENSOR: Section = Section {
    title: "[[sensor]]",
    intro: "A sensor. The keys of its driver stand beside these: see [drivers](drivers.md) or `vigie drivers NAME`.",
    keys: &[
        key("name", "name", None, "Its own name, different from any other sensor's."),
        key("driver", "name of a driver", None, "How to read it; `vigie drivers` lists them."),
        key("label", "text", Some("none"), "Name for people."),
        key("room", "name", Some("none"), "Where it is: a level of the topics, and the name of its `[room.NAME]`."),
        key("location", "table, see [location](#location)", Some("the room's, else the gateway's"), "Its own place."),
        key(
            "tags",
            "table of texts",
            Some("none"),
            "Free tags, such as `tags = { floor = \"2\" }`; `{tag.floor}` in topics.",
        ),
        key("every", "duration, `\"1ms\"` to a year", Some("the room's, else `\"30s\"`"), "How often it is measured."),
        key("align", "true or false", Some("the room's, else false"), clock::ALIGN_HELP),
        key(
            "deadline",
            "duration, `\"1ms\"` to a year",
            Some("`\"5s\"`"),
            "How long a measurement may take before the sensor counts as stuck.",
        ),
        key(
            "change",
            "table, see [change](#change)",
            Some("none: every reading is published"),
            "Publish a quantity only when it has changed by so much.",
        ),
        key(
            "heartbeat",
            "duration, `\"1ms\"` to a year",
            Some("the room's, else none"),
            "With `change`: publish at least this often all the same.",
        ),
        key(
            "filters",
            "table of lists, see [filters](filters.md)",
            Some("the room's, else none"),
            "By the published names of quantities, as in `filters = { temperature = [{ median = 5 }, { throttle = \"1m\" }] }`.",
        ),
        key(
            "frozen_after",
            "duration, `\"1ms\"` to a year",
            Some("never"),
            "When all numbers of the sensor stand exactly still for this long, that is a fault `frozen`, until one moves \
             again: some chips that hang go on to answer with their last measurement. Not for what may rightly stand \
             still, such as the 0 W of a heater that is off, or a coarse sensor in a quiet room.",
        ),
        key(
            "power",
            "table, see [power](#power)",
            Some("none"),
            "A line that switches the sensor's supply, so that one that hangs can be switched off and on.",
        ),
        key(
            "quantity",
            "tables, see [[sensor.quantity.NAME]](#sensorquantityname)",
            Some("none"),
            "Settings of single quantities.",
        ),
    ],
};

/// `change = { … }`
pub(super) static CHANGE: Section = Section {
    title: "change",
    intro: "How far a quantity must move from its last *published* value to be published, by its published name: \
            `change = { temperature = 0.1, humidity = 1, pressure = { relative = 0.001 } }`. A number is in the \
            quantity's unit; 0 means any change at all. As a table:",
    keys: &[key("relative", "number above 0 and below 1", None, "A fraction of the last published value.")],
};

/// `[sensor.quantity.NAME]`
pub(super) static QUANTITY: Section = Section {
    title: "[sensor.quantity.NAME]",
    intro: "Settings of one quantity of the sensor above it; `NAME` is what the driver or the device calls it.",
    keys: &[
        key(
            "of",
            "the driver's name of a quantity",
            Some("none: `NAME` is the driver's own"),
            "Takes the values of that quantity, which is published besides: `[sensor.quantity.energy]` with \
             `of = \"power\"` and `filters = [{ integral = \"1h\" }]`.",
        ),
        key("as", "name", Some("the driver's name"), "Its name in topics and payloads."),
        key("unit", "text up to 32 characters", Some("the driver's"), "Its unit as it is published, such as `\"°C\"`."),
        key(
            "kind",
            "`\"number\"`, `\"switch\"`, `\"text\"`, `\"event\"` or `\"bytes\"`",
            Some("the driver's, else by its value"),
            "How it is treated; events are never filtered, retained or repeated.",
        ),
        key("topic", "topic", Some("by the gateway's `topic`"), "Its topic, outright."),
        key("multiply", "number but 0", Some("1"), "Factor; works before all filters."),
        key("offset", "number", Some("0"), "Added after the factor; works before those in `filters`."),
        key(
            "filters",
            "list, see [filters](filters.md)",
            Some("the sensor's, else the room's"),
            "What happens to its values before they are published, in that order.",
        ),
        key(
            "round",
            "0 to 12",
            Some("as measured"),
            "Digits after the decimal point; works behind those in `filters`.",
        ),
    ],
};
