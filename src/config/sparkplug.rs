//! `sparkplug = { … }`: who an uplink is among those that speak Sparkplug B.

use std::collections::BTreeMap;

use super::read::Surroundings;
use super::{Format, Gateway, Payload, SensorConfig, uplink};
use crate::options::{Options, Problem, Problems};
use crate::topic::{self, Template};

/// First level of every topic (specification 3.0, 4.1).
const NAMESPACE: &str = "spBv1.0";

/// `group` where it is not given and the gateway has no site.
const DEFAULT_GROUP: &str = "vigie";

/// `node` where it is not given: it must be another one for each gateway, whatever that is called.
const DEFAULT_NODE: &str = "{id}";

/// `sparkplug = { … }`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sparkplug {
    /// The group identifier.
    pub group: String,
    /// The edge node identifier.
    pub node: String,
    /// The host application without which nothing is sent; `None`: nobody is waited for.
    pub primary_host: Option<String>,
    /// The devices to whose metrics hosts may write, by the names of their sensors: those that take commands, where the
    /// uplink does. Filled in when the sensors are known.
    pub writable: BTreeMap<String, Writable>,
}

/// A device to whose metrics hosts may write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writable {
    /// What the device calls its quantities, by the names of their metrics, where these are others; `None`: it does not
    /// know this one, which is derived.
    pub names: BTreeMap<String, Option<String>>,
}

impl Writable {
    pub(super) fn of(sensor: &SensorConfig) -> Self {
        let quantities = sensor.pipeline.quantities.iter();
        let own = |(name, config): (&String, &crate::pipeline::QuantityConfig)| {
            let published = config.rename.as_ref().unwrap_or(name);
            let known = config.of.is_none().then(|| name.clone());
            (known.as_ref() != Some(published)).then(|| (published.clone(), known))
        };
        Self { names: quantities.filter_map(own).collect() }
    }
}

impl Sparkplug {
    /// The node's topic for this type of message, such as `NBIRTH`.
    #[must_use]
    pub fn topic(&self, kind: &str) -> String {
        format!("{NAMESPACE}/{}/{kind}/{}", self.group, self.node)
    }

    /// The topic of one of the node's devices.
    #[must_use]
    pub fn device_topic(&self, kind: &str, device: &str) -> String {
        format!("{}/{device}", self.topic(kind))
    }

    /// Where the primary host says whether it is there.
    #[must_use]
    pub fn state_topic(&self) -> Option<String> {
        self.primary_host.as_ref().map(|host| format!("{NAMESPACE}/STATE/{host}"))
    }

    /// The topic of readings.
    fn data_topic(&self) -> Template {
        Template::parse(&self.device_topic("DDATA", "{sensor}")).expect("names without braces are texts")
    }
}

/// Reads the keys; fills in the topic of readings. `None` where the form is another one.
pub(super) fn sparkplug(
    options: &Options<'_>,
    payload: &mut Payload,
    gateway: &Gateway,
    around: &Surroundings<'_>,
) -> Option<Sparkplug> {
    let keys = options.section("sparkplug");
    if payload.format != Format::SparkplugB {
        if keys.is_some() {
            options.problem_with_help(
                "sparkplug",
                format!("`sparkplug` of {} means nothing with another format", options.what()),
                None,
                Some("take it out, or write preset = \"sparkplug\"".to_owned()),
            );
        }
        return None;
    }
    for key in ["topic", "backlog_topic"] {
        if options.raw(key).is_some() {
            options.problem_with_help(
                key,
                format!("{} has `{key}` with format = \"sparkplug-b\", whose topics are given", options.what()),
                None,
                Some("take it out: `group` and `node` of `sparkplug` are what can be chosen".to_owned()),
            );
        }
    }
    if options.raw("privacy").is_some() {
        options.problem_with_help(
            "privacy",
            format!("{} has `privacy` with format = \"sparkplug-b\", whose births tell what it hides", options.what()),
            None,
            Some("take one of them out".to_owned()),
        );
    }
    let sparkplug = match keys {
        Some(keys) => {
            let read = names(&keys, gateway, around);
            keys.finish();
            read
        }
        None => Sparkplug {
            group: default_group(gateway),
            node: checked(options, "sparkplug", DEFAULT_NODE, gateway, around).unwrap_or_default(),
            primary_host: None,
            writable: BTreeMap::new(),
        },
    };
    // What is no name was noted.
    payload.topic = topic::check_name(&sparkplug.node).is_ok().then(|| sparkplug.data_topic());
    Some(sparkplug)
}

/// `sparkplug = { … }`
pub(super) fn names(keys: &Options<'_>, gateway: &Gateway, around: &Surroundings<'_>) -> Sparkplug {
    let given = |key| {
        let text = keys.optional::<String>(key)?;
        checked(keys, key, &text, gateway, around)
    };
    let default_node = || checked(keys, "node", DEFAULT_NODE, gateway, around);
    Sparkplug {
        group: given("group").unwrap_or_else(|| default_group(gateway)),
        node: if keys.raw("node").is_some() { given("node") } else { default_node() }.unwrap_or_default(),
        primary_host: given("primary_host"),
        writable: BTreeMap::new(),
    }
}

/// A host knows an edge node by the names of its group and its own alone (specification 3.0, 4.1.4): of two that have the
/// same, it would take the births, numbers and deaths of one for the other's. That is so at different brokers, too, as soon as
/// one host listens to both.
pub(super) fn check_nodes(uplinks: &[uplink::Placed], problems: &Problems) {
    let name =
        |placed: &uplink::Placed| placed.uplink.sparkplug.as_ref().map(|own| (own.group.clone(), own.node.clone()));
    for (index, second) in uplinks.iter().enumerate() {
        let Some(of_second) = name(second) else { continue };
        let Some(first) = uplinks[..index].iter().find(|first| name(first).as_ref() == Some(&of_second)) else {
            continue;
        };
        let ((group, node), a, b) = (of_second, &first.uplink.name, &second.uplink.name);
        problems.push(
            Problem::new(
                second.at.clone(),
                format!("the uplinks `{a}` and `{b}` are both the node `{node}` of the group `{group}`: hosts would take one for the other"),
            )
            .expected("second uplink")
            .related(first.at.clone(), "first uplink")
            .help(format!("give one of them another name: sparkplug = {{ node = \"{node}-{b}\" }}")),
        );
    }
}

fn default_group(gateway: &Gateway) -> String {
    gateway.site.clone().unwrap_or_else(|| DEFAULT_GROUP.to_owned())
}

/// A name that becomes a level of topics, placeholders filled in. What is none is noted.
fn checked(
    options: &Options<'_>,
    key: &'static str,
    text: &str,
    gateway: &Gateway,
    around: &Surroundings<'_>,
) -> Option<String> {
    let filled = uplink::fill(text, gateway, around, None).and_then(|name| topic::check_name(&name).map(|()| name));
    match filled {
        Ok(name) => Some(name),
        Err(why) => {
            options.problem_with_help(
                key,
                format!("the name `{text}` of {} {why}", options.what()),
                Some("expected a level of a topic; {gateway}, {hostname} and {id} are filled in".to_owned()),
                Some("write sparkplug = { group = \"…\", node = \"…\" }".to_owned()),
            );
            None
        }
    }
}
