//! Holds each uplink against the limits of its target: the one of its preset, or the one that its host belongs to.

use std::collections::BTreeMap;
use std::time::Duration;

use super::sensor::Placed as PlacedSensor;
use super::uplink::Placed;
use super::{
    BacklogTopic, Batch, Format, Gateway, MqttVersion, PayloadShape, Qos, SensorConfig, UplinkConfig, Username,
};
use crate::drivers::Source;
use crate::options::{Problem, Problems};
use crate::reading::{Descriptor, Kind};
use crate::targets::{self, Cost, Limit, Rule, Target};

/// Of the messages that a limit is about, so much more than it allows may still be a matter of chance.
const TOLERANCE: f64 = 1.01;

/// Every uplink against the limits of its target.
pub(super) fn targets(uplinks: &[Placed], sensors: &[PlacedSensor], gateway: &Gateway, problems: &Problems) {
    for placed in uplinks {
        let Some(target) = target_of(&placed.uplink) else { continue };
        let sent = Sent::of(&placed.uplink, sensors, gateway);
        for limit in target.limits {
            if let Some(broken) = broken(&placed.uplink, &sent, limit) {
                problems.push(broken.problem(placed, target, limit));
            }
        }
    }
}

fn target_of(uplink: &UplinkConfig) -> Option<&'static Target> {
    let by_host = || uplink.urls.iter().find_map(|url| targets::of_host(&url.host));
    let by_format = || targets::of_format(uplink.payload.format.info().name);
    uplink.preset.as_ref().map(|preset| preset.target).or_else(by_format).or_else(by_host)
}

/// What an uplink will send, as far as that is known before the first reading.
struct Sent {
    /// Topics, each with the sensor that sends there.
    topics: Vec<(String, String)>,
    /// Messages a second, where nothing is held back because it has not changed.
    rate: f64,
}

impl Sent {
    fn of(uplink: &UplinkConfig, sensors: &[PlacedSensor], gateway: &Gateway) -> Self {
        let mut topics = BTreeMap::new();
        let (mut rate, mut most) = (0.0, 0.0_f64);
        let selected = |sensor: &&SensorConfig| uplink.selection.holds(&sensor.name, sensor.room.as_deref());
        for sensor in sensors.iter().map(|placed| &placed.sensor).filter(selected) {
            let descriptor = sensor.known_descriptor(gateway);
            let own = own_topics(uplink, gateway, &descriptor);
            let looks = 1.0 / period(sensor).map_or(f64::INFINITY, |every| every.as_secs_f64());
            rate += messages(uplink, &descriptor, own.len()) * looks;
            most = most.max(looks);
            for topic in own {
                let late = uplink.backlog.topic.as_ref().map(|around: &BacklogTopic| around.of(&topic));
                for topic in late.into_iter().chain([topic]) {
                    topics.entry(topic).or_insert_with(|| sensor.name.clone());
                }
            }
        }
        let topics: Vec<(String, String)> = topics.into_iter().collect();
        if let Some(Batch { max, wait }) = uplink.payload.batch {
            let waits = f64::from(u32::try_from(topics.len()).unwrap_or(u32::MAX)) / wait.as_secs_f64();
            rate = match uplink.payload.format {
                // A field has one value in an update, so that a sensor has no two readings in it.
                Format::Thingspeak => waits.max(most).min(rate),
                _ => waits.max(rate / f64::from(max)).min(rate),
            };
        }
        Self { topics, rate }
    }
}

fn own_topics(uplink: &UplinkConfig, gateway: &Gateway, descriptor: &Descriptor) -> Vec<String> {
    let payload = &uplink.payload;
    match payload.shape {
        PayloadShape::Sensor => vec![payload.sensor_topic(&gateway.topic, descriptor)],
        PayloadShape::Quantity => {
            let quantities = descriptor.quantities.iter().filter(|quantity| quantity.kind != Kind::Event);
            quantities.map(|quantity| payload.quantity_topic(&gateway.topic, descriptor, quantity)).collect()
        }
    }
}

/// Messages at each look at a sensor; one at least, where its quantities are not known before it is read.
fn messages(uplink: &UplinkConfig, descriptor: &Descriptor, topics: usize) -> f64 {
    let known = match uplink.payload.shape {
        PayloadShape::Sensor => 1,
        PayloadShape::Quantity if descriptor.quantities.is_empty() => 1,
        PayloadShape::Quantity => topics,
    };
    u32::try_from(known).map_or(f64::INFINITY, f64::from)
}

/// How often a sensor is looked at, where that does not depend on somebody else.
fn period(sensor: &SensorConfig) -> Option<Duration> {
    match &sensor.source {
        Source::Poller(_) => Some(sensor.every),
        _ => None,
    }
}

/// A limit that is not kept to.
struct Broken {
    /// The key to change.
    key: &'static str,
    /// What the uplink does, such as "qos = 2".
    what: String,
    /// What to do.
    help: String,
}

impl Broken {
    fn new(key: &'static str, what: impl Into<String>, help: impl Into<String>) -> Option<Self> {
        Some(Self { key, what: what.into(), help: help.into() })
    }

    fn problem(self, placed: &Placed, target: &Target, limit: &Limit) -> Problem {
        let message = format!("[uplink.{}]: {}, but {}", placed.uplink.name, self.what, limit.because);
        let because = match &placed.uplink.preset {
            Some(_) => String::new(),
            None if targets::of_format(placed.uplink.payload.format.info().name).is_some() => {
                format!(" (preset = \"{}\" sets what it wants)", target.name)
            }
            None => format!(" (the host is one of {})", target.title),
        };
        let problem = Problem::new(placed.value(self.key), format!("{message}{because}")).help(self.help);
        if limit.cost == Cost::Loses { problem.warning() } else { problem }
    }
}

fn number(qos: Qos) -> u8 {
    match qos {
        Qos::AtMostOnce => 0,
        Qos::AtLeastOnce => 1,
        Qos::ExactlyOnce => 2,
    }
}

fn broken(uplink: &UplinkConfig, sent: &Sent, limit: &Limit) -> Option<Broken> {
    match limit.rule {
        Rule::Qos(most) if number(uplink.qos) > most => {
            Broken::new("qos", format!("`qos` is {}", number(uplink.qos)), format!("write qos = {most}"))
        }
        Rule::NoRetain if uplink.retain => Broken::new("retain", "`retain` is true", "write retain = false"),
        Rule::NoState if uplink.state => Broken::new("state", "`state` is true", "write state = false"),
        Rule::Tls => uplink.urls.iter().find(|url| !url.tls).and_then(|url| {
            let scheme = if url.websocket.is_some() { "wss" } else { "mqtts" };
            Broken::new("url", format!("{url} is not encrypted"), format!("write {scheme}:// in url"))
        }),
        Rule::Packet(most) if uplink.max_packet > most => Broken::new(
            "max_packet",
            format!("`max_packet` is {} bytes", uplink.max_packet),
            format!("write max_packet = {most}: what is larger is then refused here, and counted"),
        ),
        Rule::KeepAlive(least, most) if !(least..=most).contains(&uplink.keep_alive) => Broken::new(
            "keep_alive",
            format!("`keep_alive` is {} s", uplink.keep_alive.as_secs()),
            format!("write one from \"{}s\" to \"{}s\"", least.as_secs(), most.as_secs()),
        ),
        Rule::Version311 if uplink.mqtt != MqttVersion::V311 => {
            Broken::new("mqtt", format!("`mqtt` is {}", uplink.mqtt), "write mqtt = \"3.1.1\"")
        }
        Rule::Slashes(most) => sent.topics.iter().find_map(|(topic, sensor)| {
            let slashes = topic.matches('/').count();
            (slashes > most).then(|| topic_broken(topic, sensor, &format!("{slashes} slashes")))?
        }),
        Rule::TopicBytes(most) => sent.topics.iter().find_map(|(topic, sensor)| {
            (topic.len() > most).then(|| topic_broken(topic, sensor, &format!("{} bytes", topic.len())))?
        }),
        Rule::TopicStart(start) => {
            sent.topics.iter().find(|(topic, _)| !topic.starts_with(start)).and_then(|(topic, sensor)| {
                Broken::new(
                    "topic",
                    format!("sensor `{sensor}` publishes on `{topic}`"),
                    format!("give the uplink a topic = \"{start}…\""),
                )
            })
        }
        Rule::ClientId(most) if uplink.client_id.len() > most => Broken::new(
            "client_id",
            format!("the client identifier has {} bytes", uplink.client_id.len()),
            "give a shorter client_id",
        ),
        Rule::Inflight(most) if uplink.inflight > most => {
            Broken::new("inflight", format!("`inflight` is {}", uplink.inflight), format!("write inflight = {most}"))
        }
        Rule::Interval(least) => (sent.rate * least.as_secs_f64() > TOLERANCE).then(|| {
            let span = least.max(Duration::from_secs(1));
            let made = sent.rate * span.as_secs_f64();
            let made = if made < 10.0 { format!("{made:.1}") } else { format!("{made:.0}") };
            Broken::new(
                "every",
                format!("up to {made} messages in {} s", span.as_secs()),
                "measure less often (`every`), publish only what has changed (`change`), send one message a sensor \
                     (payload = \"sensor\"), or fewer sensors (`sensors`, `rooms`)",
            )
        })?,
        Rule::Username if uplink.username.is_none() => {
            Broken::new("username", "there is no `username`", "add username = \"…\"")
        }
        Rule::SecretUsername if matches!(uplink.username, Some(Username::Text(_))) && uplink.password.is_none() => {
            Broken::new(
                "username",
                "`username` stands in the configuration, which others may read",
                "write it into a file of its own, chmod 600 the file, and give its path: username = { file = \"…\" }",
            )
        }
        Rule::Qos(_)
        | Rule::SecretUsername
        | Rule::NoRetain
        | Rule::NoState
        | Rule::Packet(_)
        | Rule::KeepAlive(..)
        | Rule::Version311
        | Rule::ClientId(_)
        | Rule::Inflight(_)
        | Rule::Username => None,
    }
}

fn topic_broken(topic: &str, sensor: &str, has: &str) -> Option<Broken> {
    Broken::new(
        "topic",
        format!("the topic `{topic}` of sensor `{sensor}` has {has}"),
        "shorten the sensor's topic, or `topic` in [gateway]",
    )
}
