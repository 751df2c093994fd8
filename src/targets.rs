//! The systems that one may publish to: what an uplink to each of them needs, and what they do not take.
//!
//! A preset is a list of keys of `[uplink.NAME]` with values, put in where the user says nothing. So it can set whatever
//! can be configured, nobody else needs to know of it, and what the user writes wins. Limits are facts from the
//! documents that each target names; the configuration is held against them when it is checked.

use std::time::Duration;

mod aws_iot;
mod azure_iot_hub;
mod docs;
pub mod home_assistant;
mod sparkplug;
mod thingsboard;
mod thingspeak;

pub use docs::docs;

/// Every target, sorted by name.
pub static TARGETS: &[&Target] = &[
    &aws_iot::TARGET,
    &azure_iot_hub::TARGET,
    &home_assistant::TARGET,
    &sparkplug::TARGET,
    &thingsboard::TARGET,
    &thingspeak::TARGET,
];

/// A system that one may publish to.
#[derive(Debug)]
pub struct Target {
    /// What stands behind `preset =`.
    pub name: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// What to know of it, and what must be given beside the preset. Markdown.
    pub about: &'static str,
    /// The documents that all of this comes from.
    pub source: &'static str,
    /// Is that the name of one of its hosts? Then its limits hold without the preset, too.
    pub is_host: fn(&str) -> bool,
    /// `client_id` where it is not given, where that matters.
    pub client_id: Option<&'static str>,
    /// What it sets.
    pub defaults: fn(&Given) -> Vec<Default>,
    /// What it does not take.
    pub limits: &'static [Limit],
}

/// What is known of an uplink before its preset is filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The first URL's host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The client identifier, placeholders filled in.
    pub client_id: String,
    /// `format`; empty where it is not given.
    pub format: String,
}

/// A key that a preset sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Default {
    /// The key of `[uplink.NAME]`; a key of a table inside of it stands behind a point.
    pub key: &'static str,
    /// Its value as TOML.
    pub value: String,
}

/// A key with a value that is the same for everybody.
fn set(key: &'static str, value: &str) -> Default {
    Default { key, value: value.to_owned() }
}

/// A key with a text, which is quoted.
fn set_text(key: &'static str, text: &str) -> Default {
    Default { key, value: toml::Value::from(text).to_string() }
}

/// What a target does not take.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// What must hold.
    pub rule: Rule,
    /// What becomes of it otherwise.
    pub cost: Cost,
    /// What is to be said to somebody who does not keep to it: a clause that begins with the target's name.
    pub because: &'static str,
}

/// What becomes of a configuration that does not keep to a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// It cannot work.
    Fails,
    /// It loses something, or costs more than it need.
    Loses,
}

/// Something that must hold of an uplink.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// `qos` is no higher.
    Qos(u8),
    /// `retain = false`
    NoRetain,
    /// `state = false`: there are no topics for it.
    NoState,
    /// The connection is encrypted.
    Tls,
    /// `max_packet` is no larger.
    Packet(u32),
    /// `keep_alive` lies within.
    KeepAlive(Duration, Duration),
    /// `mqtt = "3.1.1"`
    Version311,
    /// Topics have no more slashes.
    Slashes(usize),
    /// Topics have no more bytes.
    TopicBytes(usize),
    /// Topics begin with this.
    TopicStart(&'static str),
    /// The client identifier has no more bytes.
    ClientId(usize),
    /// No more messages are under way.
    Inflight(u16),
    /// There is so much time between two messages.
    Interval(Duration),
    /// `username` is given.
    Username,
    /// `username` does not stand in the configuration, unless there is a password as well.
    SecretUsername,
}

/// The target of that name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}

/// The target whose form of payload that is, where the form says as much.
#[must_use]
pub fn of_format(format: &str) -> Option<&'static Target> {
    (format == sparkplug::FORMAT).then_some(&sparkplug::TARGET)
}

/// The target that a host belongs to.
#[must_use]
pub fn of_host(host: &str) -> Option<&'static Target> {
    let host = host.to_ascii_lowercase();
    TARGETS.iter().copied().find(|target| (target.is_host)(&host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_sorted() {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
        for target in TARGETS {
            assert_eq!(by_name(target.name).map(|found| found.title), Some(target.title));
            for limit in target.limits {
                assert!(limit.because.starts_with(target.title), "{}: {}", target.name, limit.because);
            }
        }
    }

    #[test]
    fn hosts_are_recognised_and_no_others() {
        for (host, name) in [
            ("a1b2c3-ats.iot.eu-west-1.amazonaws.com", "aws-iot"),
            ("A1B2C3.IOT.cn-north-1.amazonaws.com.cn", "aws-iot"),
            ("hub.azure-devices.net", "azure-iot-hub"),
            ("mqtt3.thingspeak.com", "thingspeak"),
            ("mqtt.thingsboard.cloud", "thingsboard"),
        ] {
            assert_eq!(of_host(host).map(|target| target.name), Some(name), "{host}");
        }
        for host in ["broker.lan", "iot.eu-west-1.example.com", "azure-devices.net.example.com", "xamazonaws.com", ""] {
            assert!(of_host(host).is_none(), "{host}");
        }
    }

    #[test]
    fn what_is_set_is_toml() {
        let client_id = "a \"quoted\\ \u{7} id".to_owned();
        let given = Given { host: "b.example".to_owned(), port: 443, client_id, format: String::new() };
        for target in TARGETS {
            let text: String = (target.defaults)(&given)
                .iter()
                .map(|default| format!("{} = {}\n", default.key, default.value))
                .collect();
            assert!(toml::from_str::<toml::Table>(&text).is_ok(), "{}:\n{text}", target.name);
        }
    }
}
