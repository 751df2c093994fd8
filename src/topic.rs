//! Topic names: templates, what they may contain, and the reserved last levels.

use std::fmt;

use crate::reading::{Descriptor, Quantity};

pub mod filter;
pub mod mapping;

/// Last levels that vigie keeps for itself below a sensor's or gateway's topic.
pub const RESERVED: [&str; 4] = ["availability", "gaps", "info", "set"];

/// Last levels of the topics on which the gateway tells of itself, and which brokers retain.
pub const GATEWAY_STATE: [&str; 5] = ["availability", "broker", "clock", "gaps", "info"];

/// The last level of the topic of audit events, which nobody retains.
pub const AUDIT: &str = "audit";

/// MQTT's limit on a topic name (MQTT 3.1.1, 4.7.3).
pub const MAX_BYTES: usize = 65_535;

/// A topic with placeholders, such as `{site}/{room}/{quantity}`.
///
/// A level that comes out empty (no site, no room) is left out with its slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Vec<Part>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Gateway,
    Site,
    Room,
    Sensor,
    Quantity,
    Tag(Box<str>),
}

/// What a template may contain, for messages.
pub const PLACEHOLDERS: &str = "{gateway} {site} {room} {sensor} {quantity} {tag.NAME}";

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut levels = Vec::new();
        for level in text.split('/') {
            if level.is_empty() {
                return Err("has an empty level (a slash at its start or end, or two in a row)".to_owned());
            }
            levels.push(parse_level(level)?);
        }
        Ok(Self(levels))
    }

    /// Does the topic tell quantities (or sensors) apart by itself?
    #[must_use]
    pub fn has_quantity(&self) -> bool {
        self.0.iter().flatten().any(|part| *part == Part::Quantity)
    }

    /// Is it the same for all readings of a gateway?
    #[must_use]
    pub fn is_gateways(&self) -> bool {
        self.0.iter().flatten().all(|part| matches!(part, Part::Text(_) | Part::Gateway | Part::Site))
    }

    /// The topic of what is about no sensor, where it is [the same for all](Self::is_gateways).
    #[must_use]
    pub fn of_gateway(&self, gateway: &str, site: Option<&str>) -> String {
        let nobody = Descriptor {
            gateway: gateway.into(),
            site: site.map(Into::into),
            sensor: "".into(),
            ..Descriptor::default()
        };
        self.filled(&nobody, "")
    }

    /// The topic of a quantity of a sensor, whatever topic that may have been given.
    #[must_use]
    pub fn filled(&self, descriptor: &Descriptor, quantity: &str) -> String {
        let mut topic = String::with_capacity(64);
        self.render(descriptor, Some(quantity), &mut topic);
        topic
    }

    /// The topic of a quantity of a sensor.
    #[must_use]
    pub fn quantity_topic(&self, descriptor: &Descriptor, quantity: &Quantity) -> String {
        if let Some(topic) = &quantity.topic {
            return topic.to_string();
        }
        self.filled(descriptor, &quantity.name)
    }

    /// The topic of a sensor's own messages (`payload = "sensor"`): the sensor's name stands where the quantity's
    /// would, unless the template names the sensor elsewhere.
    #[must_use]
    pub fn sensor_topic(&self, descriptor: &Descriptor) -> String {
        let mut topic = String::with_capacity(64);
        let names_sensor = self.0.iter().flatten().any(|part| *part == Part::Sensor);
        self.render(descriptor, (!names_sensor).then_some(&*descriptor.sensor), &mut topic);
        topic
    }

    /// A filter that matches every topic of the sensors that `descriptor` is the pattern of: a name in it that is `+`
    /// stands for any name.
    #[must_use]
    pub fn filter(&self, descriptor: &Descriptor) -> String {
        let filled = self.filled(descriptor, "+");
        let level = |level: &str| if level.contains('+') { "+".to_owned() } else { level.to_owned() };
        filled.split('/').map(level).collect::<Vec<_>>().join("/")
    }

    fn render(&self, descriptor: &Descriptor, quantity: Option<&str>, topic: &mut String) {
        for level in &self.0 {
            let start = topic.len();
            if start > 0 {
                topic.push('/');
            }
            let filled = topic.len();
            for part in level {
                topic.push_str(match part {
                    Part::Text(text) => text,
                    Part::Gateway => &descriptor.gateway,
                    Part::Site => descriptor.site.as_deref().unwrap_or_default(),
                    Part::Room => descriptor.room.as_deref().unwrap_or_default(),
                    Part::Sensor => &descriptor.sensor,
                    Part::Quantity => quantity.unwrap_or_default(),
                    Part::Tag(name) => {
                        descriptor.tags.iter().find(|(tag, _)| tag == name).map_or("", |(_, value)| value)
                    }
                });
            }
            if topic.len() == filled {
                topic.truncate(start);
            }
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, level) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("/")?;
            }
            for part in level {
                match part {
                    Part::Text(text) => f.write_str(text)?,
                    Part::Gateway => f.write_str("{gateway}")?,
                    Part::Site => f.write_str("{site}")?,
                    Part::Room => f.write_str("{room}")?,
                    Part::Sensor => f.write_str("{sensor}")?,
                    Part::Quantity => f.write_str("{quantity}")?,
                    Part::Tag(name) => write!(f, "{{tag.{name}}}")?,
                }
            }
        }
        Ok(())
    }
}

/// Where commands to a sensor are published.
#[must_use]
pub fn command_topic(template: &Template, descriptor: &Descriptor) -> String {
    format!("{}/set", template.sensor_topic(descriptor))
}

/// Where the result of each command to a sensor is published.
#[must_use]
pub fn result_topic(template: &Template, descriptor: &Descriptor) -> String {
    format!("{}/result", command_topic(template, descriptor))
}

/// Is that the topic of results?
#[must_use]
pub fn is_result(topic: &str) -> bool {
    topic.ends_with("/set/result")
}

fn parse_level(level: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = level;
    while !rest.is_empty() {
        let (text, after) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
        if !text.is_empty() {
            check_text(text)?;
            parts.push(Part::Text(text.into()));
        }
        let Some(inner) = after.strip_prefix('{') else { break };
        let Some((name, after)) = inner.split_once('}') else {
            return Err("has a `{` without a `}` in the same level".to_owned());
        };
        parts.push(match name {
            "gateway" => Part::Gateway,
            "site" => Part::Site,
            "room" => Part::Room,
            "sensor" => Part::Sensor,
            "quantity" => Part::Quantity,
            _ => match name.strip_prefix("tag.") {
                Some(tag) if !tag.is_empty() => Part::Tag(tag.into()),
                _ => return Err(format!("has the unknown placeholder `{{{name}}}`; there are {PLACEHOLDERS}")),
            },
        });
        rest = after;
    }
    Ok(parts)
}

fn check_text(text: &str) -> Result<(), String> {
    match text.chars().find(|character| matches!(character, '+' | '#' | '}') || character.is_control()) {
        Some('+') => Err("contains the wildcard `+`: subscribers use it, a topic to publish on cannot".to_owned()),
        Some('#') => Err("contains the wildcard `#`: subscribers use it, a topic to publish on cannot".to_owned()),
        Some('}') => Err("has a `}` without a `{`".to_owned()),
        Some(_) => Err("contains a control character".to_owned()),
        None => Ok(()),
    }
}

/// Checks a topic that is given outright.
///
/// # Errors
/// What is wrong with it.
pub fn check(topic: &str) -> Result<(), String> {
    if topic.split('/').any(str::is_empty) {
        return Err("has an empty level (a slash at its start or end, or two in a row)".to_owned());
    }
    check_text(topic)?;
    if topic.starts_with('$') {
        return Err("starts with `$`: such topics belong to the broker".to_owned());
    }
    if topic.len() > MAX_BYTES {
        return Err(format!("is longer than {MAX_BYTES} bytes"));
    }
    Ok(())
}

/// Checks a name that becomes one level of a topic: a gateway, site, room, sensor or quantity.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("is empty".to_owned());
    }
    match name.chars().find(|character| matches!(character, '/' | '{') || character.is_control()) {
        Some('/') => Err("contains a `/`: a name is one level of a topic".to_owned()),
        Some('{') => Err("contains a `{`".to_owned()),
        Some(_) => Err("contains a control character".to_owned()),
        None => check_text(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Kind;

    fn descriptor(site: Option<&str>, room: Option<&str>) -> Descriptor {
        Descriptor {
            gateway: "atelier".into(),
            site: site.map(Into::into),
            room: room.map(Into::into),
            sensor: "meteo".into(),
            tags: vec![("floor".into(), "2".into())],
            ..Descriptor::default()
        }
    }

    fn quantity(topic: Option<&str>) -> Quantity {
        Quantity { topic: topic.map(Into::into), ..Quantity::new("temperature", None, Kind::Number) }
    }

    #[test]
    fn placeholders_are_filled_and_empty_levels_left_out() {
        let template = Template::parse("{site}/{room}/f{tag.floor}/{quantity}").expect("a template");
        let full = descriptor(Some("maison"), Some("salon"));
        assert_eq!(template.quantity_topic(&full, &quantity(None)), "maison/salon/f2/temperature");
        assert_eq!(template.quantity_topic(&descriptor(None, None), &quantity(None)), "f2/temperature");
        assert_eq!(template.quantity_topic(&full, &quantity(Some("a/b"))), "a/b");
        assert_eq!(template.to_string(), "{site}/{room}/f{tag.floor}/{quantity}");
    }

    #[test]
    fn a_sensor_topic_names_the_sensor_once() {
        let full = descriptor(Some("maison"), Some("salon"));
        let plain = Template::parse("{site}/{room}/{quantity}").expect("a template");
        assert_eq!(plain.sensor_topic(&full), "maison/salon/meteo");
        let named = Template::parse("{site}/{room}/{sensor}/{quantity}").expect("a template");
        assert_eq!(named.sensor_topic(&full), "maison/salon/meteo");
    }

    #[test]
    fn what_cannot_be_a_topic_is_refused() {
        for wrong in ["", "/a", "a//b", "a/", "a/+/b", "#", "{site", "site}", "{rom}", "{tag.}", "a\u{0}b"] {
            assert!(Template::parse(wrong).is_err(), "{wrong:?}");
        }
        for wrong in ["", "a//b", "a/#", "$SYS/x", "a\nb"] {
            assert!(check(wrong).is_err(), "{wrong:?}");
        }
        for wrong in ["", "a/b", "a+", "{x}"] {
            assert!(check_name(wrong).is_err(), "{wrong:?}");
        }
        assert!(check_name("salle-12 été").is_ok());
    }
}
