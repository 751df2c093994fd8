//! ThingsBoard.
//!
//! Of its configuration properties (thingsboard.io/docs/user-guide/install/config) are the 64 KiB of a message
//! (`NETTY_MAX_PAYLOAD_SIZE`, 65536) and the 300 s of silence (`TB_TRANSPORT_SESSIONS_INACTIVITY_TIMEOUT`, 300000 ms; newer
//! servers come with 600000). Topics, qualities of service and the access token as user name are of its MQTT device and
//! gateway API references.

use std::time::Duration;

use super::{Cost, Given, Limit, Rule, Target, set, set_text};

/// See its fields.
pub(super) static TARGET: Target = Target {
    name: "thingsboard",
    title: "ThingsBoard",
    about: "Give `url`, and where the device's access token is as user name: `username = { credential = \"…\" }`, or \
            `{ file = \"…\" }`; there is no password. With the token of a device that is a *gateway*, `format = \"thingsboard-gateway\"` makes a device of each sensor.",
    source: "thingsboard.io: MQTT device API reference, MQTT gateway API reference, ThingsBoard configuration properties",
    is_host: |host| {
        host == "thingsboard.cloud" || host.ends_with(".thingsboard.cloud") || host == "demo.thingsboard.io"
    },
    client_id: None,
    defaults: |given: &Given| {
        let as_gateway = given.format == "thingsboard-gateway";
        let topic = if as_gateway { "v1/gateway/telemetry" } else { "v1/devices/me/telemetry" };
        vec![
            set("format", "\"thingsboard\""),
            set_text("topic", topic),
            set("qos", "1"),
            set("retain", "false"),
            set("state", "false"),
            set("max_packet", "\"64KiB\""),
            set("backlog_rate", "20"),
        ]
    },
    limits: &[
        Limit { rule: Rule::Qos(1), cost: Cost::Fails, because: "ThingsBoard knows QoS 0 and 1 only" },
        Limit {
            rule: Rule::NoState,
            cost: Cost::Fails,
            because: "ThingsBoard closes the connection over topics that it does not know, such as those of the state",
        },
        Limit {
            rule: Rule::Username,
            cost: Cost::Fails,
            because: "ThingsBoard wants the device's access token as user name",
        },
        Limit {
            rule: Rule::SecretUsername,
            cost: Cost::Loses,
            because: "ThingsBoard lets in whoever knows the access token",
        },
        Limit {
            rule: Rule::NoRetain,
            cost: Cost::Loses,
            because: "ThingsBoard keeps no message for later subscribers",
        },
        Limit {
            rule: Rule::Packet(64 << 10),
            cost: Cost::Loses,
            because: "ThingsBoard closes the connection over a message of more than 64 KiB",
        },
        Limit {
            rule: Rule::KeepAlive(Duration::from_secs(1), Duration::from_secs(300)),
            cost: Cost::Loses,
            because: "ThingsBoard closes connections that were silent for 300 s, whatever is asked for",
        },
    ],
};
