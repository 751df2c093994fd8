//! The keys of Sparkplug B.

use super::{Section, key};
use crate::drivers::OptionInfo;

/// `sparkplug`
pub(super) const SPARKPLUG_KEY: OptionInfo = key(
    "sparkplug",
    "table, see [sparkplug](#sparkplug)",
    Some("as its keys say"),
    "With `format = \"sparkplug-b\"`: who this gateway is there.",
);

/// `sparkplug = { … }`
pub(super) static SPARKPLUG: Section = Section {
    title: "sparkplug",
    intro: "Names of Sparkplug B, with `format = \"sparkplug-b\"`, which `preset = \"sparkplug\"` sets: \
            `sparkplug = { group = \"maison\", node = \"{gateway}\", primary_host = \"ignition\" }`. `{gateway}`, \
            `{hostname}` and `{id}` are filled in. Devices are the sensors; see [targets](targets.md).",
    keys: &[
        key("group", "name", Some("`site` of `[gateway]`, else `\"vigie\"`"), "The group identifier."),
        key(
            "node",
            "name",
            Some("`\"{id}\"`"),
            "The edge node identifier. No two gateways of a group may have the same.",
        ),
        key(
            "primary_host",
            "name",
            Some("none"),
            "The host application to wait for: as long as it does not say that it is online (`spBv1.0/STATE/…`), nothing is \
             sent and everything is kept; when it goes offline, the connection ends and the next broker is tried.",
        ),
    ],
};
