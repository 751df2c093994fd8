//! ThingSpeak.
//!
//! QoS 0, neither retain nor a session that is kept, the topic and eight fields are of "Publish to a Channel Feed"
//! (mathworks.com/help/thingspeak/publishtoachannelfeed.html); one update in 15 s, or in 1 s with a paid licence, of the
//! licence FAQ (thingspeak.mathworks.com/pages/license_faq).

use std::time::Duration;

use super::{Cost, Given, Limit, Rule, Target, set};

/// See its fields.
pub(super) static TARGET: Target = Target {
    name: "thingspeak",
    title: "ThingSpeak",
    about: "Give `url = \"mqtts://mqtt3.thingspeak.com\"` and the credentials of an MQTT device: `client_id`, `username` \
            and `password`; the channel as `topic = \"channels/NUMBER/publish\"`, and which quantity goes to which of its \
            fields as `fields = { temperature = 1, \"sensor/humidity\" = 2 }`. What is measured within 15 s becomes one \
            update, as long as no field comes twice. QoS 0 is all there is, so that nothing tells whether a message has arrived.",
    source: "MathWorks: ThingSpeak, Publish to a Channel Feed; ThingSpeak licence FAQ",
    is_host: |host| host == "thingspeak.com" || host.ends_with(".thingspeak.com"),
    client_id: None,
    defaults: |_: &Given| {
        vec![
            set("format", "\"thingspeak\""),
            set("batch.max", "100"),
            set("batch.wait", "\"15s\""),
            set("qos", "0"),
            set("retain", "false"),
            set("state", "false"),
            set("backlog_rate", "0.066"),
        ]
    },
    limits: &[
        Limit { rule: Rule::Qos(0), cost: Cost::Fails, because: "ThingSpeak takes QoS 0 only" },
        Limit { rule: Rule::NoRetain, cost: Cost::Fails, because: "ThingSpeak wants messages without the retain flag" },
        Limit {
            rule: Rule::TopicStart("channels/"),
            cost: Cost::Fails,
            because: "ThingSpeak takes messages on `channels/NUMBER/publish` only",
        },
        Limit {
            rule: Rule::NoState,
            cost: Cost::Fails,
            because: "ThingSpeak takes updates of channels only, and none of the state",
        },
        Limit { rule: Rule::Username, cost: Cost::Fails, because: "ThingSpeak wants the MQTT device's user name" },
        Limit { rule: Rule::Version311, cost: Cost::Fails, because: "ThingSpeak speaks MQTT 3.1.1" },
        Limit {
            rule: Rule::Interval(Duration::from_secs(15)),
            cost: Cost::Loses,
            because: "ThingSpeak takes one message in 15 s of a channel (one in 1 s with a paid licence), and drops others",
        },
    ],
};
