//! What an uplink's messages look like.

use super::{Section, key};

/// `[uplink.NAME]`
pub(super) static PAYLOAD: Section = Section {
    title: "[uplink.NAME]: what messages look like",
    intro: "These keys stand in `[uplink.NAME]` as well. [Payloads](payloads.md) shows each form, what it holds, and how \
            many bytes it takes.",
    keys: &[
        key(
            "format",
            "`\"json\"`, `\"json-array\"`, `\"value\"`, `\"senml\"`, `\"senml-cbor\"`, `\"influx\"`, `\"template\"`, \
             `\"thingsboard\"`, `\"thingsboard-gateway\"`, `\"thingspeak\"`, `\"sparkplug-b\"`",
            Some("`\"json\"`"),
            "The form of payloads.",
        ),
        key(
            "payload",
            "`\"quantity\"` or `\"sensor\"`",
            Some(
                "`\"quantity\"`; `\"sensor\"` with senml, senml-cbor, influx, thingsboard, thingspeak and sparkplug-b",
            ),
            "One message for each quantity, or one for all quantities of a sensor.",
        ),
        key(
            "topic",
            "topic with `{gateway}` `{site}` `{room}` `{sensor}` `{quantity}` `{tag.NAME}`",
            Some("as in `[gateway]`"),
            "Where this uplink publishes readings, whatever the topics of the gateway and of quantities are.",
        ),
        key(
            "fields",
            "list of `\"id\"` `\"time\"` `\"gateway\"` `\"site\"` `\"room\"` `\"room_label\"` `\"sensor\"` `\"label\"` \
             `\"quantity\"` `\"value\"` `\"content_type\"` `\"unit\"` `\"clock\"` `\"backlog\"` `\"location\"` `\"tags\"`; \
             with thingspeak a table, as `{ temperature = 1, \"sensor/humidity\" = 2 }`",
            Some("all but `gateway`, in this order; with thingspeak it must be given"),
            "With json and json-array: what a message holds, in this order; the value is always there. With thingspeak: \
             which quantity goes to which field of the channel, 1 to 8.",
        ),
        key(
            "time_format",
            "`\"rfc3339\"`, `\"unix\"` or `\"unix_ms\"`",
            Some("`\"rfc3339\"`"),
            "How json, json-array and template write times: as text, as seconds, or as milliseconds since 1970.",
        ),
        key(
            "bytes",
            "`\"raw\"` or `\"base64\"`",
            Some("`\"raw\"`"),
            "How bytes (a picture) go out: as they are in a message of their own, or as base64 inside the form, in JSON \
             beside `content_type`. MQTT 5 has the content type as a property, too. SenML has a place for bytes of its own.",
        ),
        key(
            "template",
            "text",
            Some("must be given with `format = \"template\"`"),
            "The payload, in the language of Jinja: `\"{{ sensor }};{{ value }}\"`. The fields of JSON are filled in under \
             their names.",
        ),
        key("measurement", "text", Some("`\"vigie\"`"), "With influx: the name of the table."),
        key(
            "batch",
            "table, see [batch](#batch)",
            Some("each reading goes by itself"),
            "Several readings become one message, where they go to one topic; with json-array, senml, senml-cbor, influx, \
             thingsboard, thingsboard-gateway, thingspeak and sparkplug-b.",
        ),
    ],
};

/// `batch = { … }`
pub(super) static BATCH: Section = Section {
    title: "batch",
    intro: "Consecutive readings on one topic become one message, as `batch = { max = 100, wait = \"10s\" }`; give the uplink \
            a `topic` that they share. Such messages are not retained. What would be larger than the broker's largest packet \
            is cut; the backlog fills its messages at once, and before the end of a connection nothing waits any more.",
    keys: &[
        key("max", "2 to 1000", Some("100"), "How many messages become one, at the most."),
        key(
            "wait",
            "duration up to a year",
            Some("`\"10s\"`"),
            "How long a reading waits for others. With `\"0s\"` only what is there at the same moment goes together.",
        ),
    ],
};
