//! Sparkplug B: Ignition and other host applications of industry.

use super::{Cost, Given, Limit, Rule, Target, set};

/// `format`
pub(super) const FORMAT: &str = "sparkplug-b";

/// See its fields.
pub(super) static TARGET: Target = Target {
    name: "sparkplug",
    title: "Sparkplug B",
    about: "For Ignition (MQTT Engine) and other host applications of Sparkplug 3.0. Give the `url` of their broker, and \
            `sparkplug = { group = \"…\", node = \"…\" }`: the gateway is that edge node, and each sensor is a device of \
            it, with its quantities as metrics. With `primary_host` nothing is sent while that host is offline.",
    source: "Eclipse Sparkplug specification 3.0.0, chapters 4 to 6",
    is_host: |_| false,
    client_id: None,
    defaults: |_: &Given| {
        vec![set("format", "\"sparkplug-b\""), set("qos", "0"), set("retain", "false"), set("state", "false")]
    },
    limits: &[
        Limit { rule: Rule::Qos(0), cost: Cost::Fails, because: "Sparkplug B wants births and data at QoS 0" },
        Limit {
            rule: Rule::NoRetain,
            cost: Cost::Fails,
            because: "Sparkplug B wants messages without the retain flag",
        },
        Limit {
            rule: Rule::NoState,
            cost: Cost::Fails,
            because: "Sparkplug B has the will for a death certificate, and births in place of other state",
        },
    ],
};
