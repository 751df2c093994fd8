//! AWS IoT Core.
//!
//! All numbers are of "AWS IoT Core message broker and protocol limits and quotas"
//! (docs.aws.amazon.com/general/latest/gr/iot-core.html): 7 slashes and 256 bytes of a topic, 128 bytes of a client
//! identifier, 5 s to 1200 s of keep-alive, 128 KB of a message, 100 messages without acknowledgement and 100 a second on a
//! connection. QoS, retain and ALPN are of the developer guide, "MQTT" and "Device communication protocols".

use std::time::Duration;

use super::{Cost, Given, Limit, Rule, Target, set};

/// Where MQTT shares its port with HTTPS, the broker tells them apart by ALPN.
const SHARED_PORT: u16 = 443;

/// See its fields.
pub(super) static TARGET: Target = Target {
    name: "aws-iot",
    title: "AWS IoT Core",
    about: "Give `url = \"mqtts://…-ats.iot.REGION.amazonaws.com\"` (port 8883; 443 works too, where a firewall lets \
            nothing else through) and `tls = { cert = \"…\", key = \"…\" }`. The thing's policy must allow `iot:Connect` \
            for the client identifier and `iot:Publish` on the topics. With `state = true` it must also allow \
            `iot:RetainPublish`.",
    source: "AWS IoT Core developer guide: protocols, mqtt; AWS General Reference: AWS IoT Core endpoints and quotas",
    is_host: |host| {
        (host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn"))
            && host.split('.').any(|label| label == "iot")
    },
    client_id: None,
    defaults: |given: &Given| {
        let mut defaults = vec![
            set("qos", "1"),
            set("retain", "false"),
            set("state", "false"),
            set("inflight", "100"),
            set("keep_alive", "\"60s\""),
            set("max_packet", "\"128KiB\""),
            set("backlog_rate", "50"),
        ];
        if given.port == SHARED_PORT {
            defaults.push(set("tls.alpn", "[\"x-amzn-mqtt-ca\"]"));
        }
        defaults
    },
    limits: &[
        Limit { rule: Rule::Tls, cost: Cost::Fails, because: "AWS IoT Core takes encrypted connections only" },
        Limit { rule: Rule::Qos(1), cost: Cost::Fails, because: "AWS IoT Core never answers QoS 2" },
        Limit { rule: Rule::Slashes(7), cost: Cost::Fails, because: "AWS IoT Core takes 7 slashes in a topic" },
        Limit { rule: Rule::TopicBytes(256), cost: Cost::Fails, because: "AWS IoT Core takes topics of 256 bytes" },
        Limit {
            rule: Rule::ClientId(128),
            cost: Cost::Fails,
            because: "AWS IoT Core takes client identifiers of 128 bytes",
        },
        Limit {
            rule: Rule::KeepAlive(Duration::from_secs(5), Duration::from_secs(1_200)),
            cost: Cost::Loses,
            because: "AWS IoT Core keeps to intervals from 5 s to 20 min, whatever is asked for",
        },
        Limit {
            rule: Rule::Packet(128 << 10),
            cost: Cost::Loses,
            because: "AWS IoT Core closes the connection over a message of more than 128 KiB",
        },
        Limit {
            rule: Rule::Inflight(100),
            cost: Cost::Loses,
            because: "AWS IoT Core takes 100 messages that wait for their acknowledgement",
        },
        Limit {
            rule: Rule::Interval(Duration::from_millis(10)),
            cost: Cost::Loses,
            because: "AWS IoT Core takes 100 messages a second on a connection",
        },
    ],
};
