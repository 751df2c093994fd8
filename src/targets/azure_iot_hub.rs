//! Azure IoT Hub.
//!
//! Version, topic, names, QoS, retain and the 1177 s (of which the hub makes 1.5 times as many, 1767, at the most) are of
//! "Communicate with an IoT hub using MQTT" (learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub); the 256 KB of a
//! message of "IoT Hub quotas and throttling".

use std::time::Duration;

use super::{Cost, Given, Limit, Rule, Target, set, set_text};

/// The version of the service's interface that its documentation names for devices.
const API_VERSION: &str = "2021-04-12";

/// Properties of a message stand in its topic: this says that its payload is JSON in UTF-8, which the hub's routing and
/// its consumers go by.
const CONTENT_TYPE: &str = "$.ct=application%2Fjson%3Bcharset%3Dutf-8";

/// See its fields.
pub(super) static TARGET: Target = Target {
    name: "azure-iot-hub",
    title: "Azure IoT Hub",
    about: "Give `url = \"mqtts://HUB.azure-devices.net\"` (port 8883; or `wss://HUB.azure-devices.net/$iothub/websocket` \
            on port 443), `client_id`, which is the device's identifier, and either \
            `shared_access_key = { credential = \"…\" }` (the device's primary or secondary key) or \
            `tls = { cert = \"…\", key = \"…\" }`. All messages go to one topic, so that the sensor and the quantity are \
            told apart by the payload.",
    source: "Microsoft Learn: Communicate with an IoT hub using MQTT; Control access to IoT Hub with shared access \
             signatures; IoT Hub quotas and throttling",
    is_host: |host| host.ends_with(".azure-devices.net") || host.ends_with(".azure-devices.cn"),
    client_id: Some("{gateway}"),
    defaults: |given: &Given| {
        let Given { host, client_id, .. } = given;
        vec![
            set_text("client_id", client_id),
            set_text("username", &format!("{host}/{client_id}/?api-version={API_VERSION}")),
            set_text("topic", &format!("devices/{client_id}/messages/events/{CONTENT_TYPE}")),
            set("payload", "\"sensor\""),
            set("qos", "1"),
            set("retain", "false"),
            set("state", "false"),
            set("keep_alive", "\"60s\""),
            set("max_packet", "\"256KiB\""),
            set("backlog_rate", "50"),
        ]
    },
    limits: &[
        Limit { rule: Rule::Tls, cost: Cost::Fails, because: "Azure IoT Hub takes encrypted connections only" },
        Limit { rule: Rule::Qos(1), cost: Cost::Fails, because: "Azure IoT Hub closes the connection over QoS 2" },
        Limit {
            rule: Rule::TopicStart("devices/"),
            cost: Cost::Fails,
            because: "Azure IoT Hub takes messages on `devices/DEVICE/messages/events/` only",
        },
        Limit {
            rule: Rule::NoState,
            cost: Cost::Fails,
            because: "Azure IoT Hub closes the connection over topics of one's own, such as those of the state",
        },
        Limit { rule: Rule::Version311, cost: Cost::Fails, because: "Azure IoT Hub speaks MQTT 3.1.1" },
        Limit {
            rule: Rule::Username,
            cost: Cost::Fails,
            because: "Azure IoT Hub wants the name of the hub and of the device as user name",
        },
        Limit {
            rule: Rule::KeepAlive(Duration::from_secs(1), Duration::from_secs(1_177)),
            cost: Cost::Loses,
            because: "Azure IoT Hub closes connections that were silent for 1177 s, whatever is asked for",
        },
        Limit {
            rule: Rule::Packet(256 << 10),
            cost: Cost::Loses,
            because: "Azure IoT Hub closes the connection over a message of more than 256 KiB",
        },
        Limit {
            rule: Rule::NoRetain,
            cost: Cost::Loses,
            because: "Azure IoT Hub keeps no message for later subscribers",
        },
    ],
};
