//! Home Assistant, by its integration `mqtt`.

use super::{Cost, Given, Limit, Rule, Target, set};

/// See its fields.
pub(super) static TARGET: Target = Target {
    name: "home-assistant",
    title: "Home Assistant",
    about: "Give the `url` of the broker that Home Assistant is connected to. Each sensor is announced as a device, with \
            its quantities as entities, and appears by itself; it is taken away again when it leaves the configuration. \
            Home Assistant takes whatever arrives for the present, so that of a backlog only the newest values are sent.",
    source: "www.home-assistant.io/integrations/mqtt",
    is_host: |_| false,
    client_id: None,
    defaults: |_: &Given| vec![set("discovery", "true"), set("backlog", "\"latest\"")],
    limits: &[Limit {
        rule: Rule::Qos(1),
        cost: Cost::Loses,
        because: "Home Assistant is told to subscribe at QoS 1: what QoS 2 is good for is lost on the way to it",
    }],
};

pub mod classes;
pub mod message;
