//! What is announced to Home Assistant: a message for each device with all of its entities.
//!
//! Source: www.home-assistant.io/integrations/mqtt, "MQTT discovery", "Device discovery payload". Of the abbreviations
//! only those that its own examples have are used, so that people can read what is announced.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::classes::{self, Class};
use crate::reading::{Kind, Quantity};

/// A device as it is announced.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Device {
    #[serde(rename = "dev")]
    about: About,
    #[serde(rename = "o")]
    origin: Origin,
    #[serde(rename = "cmps")]
    entities: BTreeMap<String, Entity>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    availability: Vec<Availability>,
    #[serde(skip_serializing_if = "Option::is_none")]
    availability_mode: Option<&'static str>,
}

/// `dev`
#[derive(Clone, Debug, PartialEq, Serialize)]
struct About {
    #[serde(rename = "ids")]
    identifiers: [String; 1],
    name: String,
    #[serde(rename = "mdl", skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(rename = "sa", skip_serializing_if = "Option::is_none")]
    area: Option<String>,
    #[serde(rename = "sw", skip_serializing_if = "Option::is_none")]
    software: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    via_device: Option<String>,
}

/// `o`: who announces it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Origin {
    name: &'static str,
    sw: &'static str,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Availability {
    topic: String,
    value_template: &'static str,
}

/// One of `cmps`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Entity {
    /// Its kind: the only thing that is left of one that is taken away.
    #[serde(rename = "p")]
    pub platform: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    unique_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_class: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_class: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit_of_measurement: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_template: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_types: Option<[String; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expire_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entity_category: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    qos: Option<u8>,
}

/// Who announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its identity, which survives renaming.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// What the board is.
    pub board: Option<String>,
    /// Version of vigie.
    pub version: &'static str,
    /// Where it says whether it is there.
    pub availability: String,
    /// Quality of service at which Home Assistant is to subscribe.
    pub qos: u8,
}

/// A sensor that is announced as a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sensor<'a> {
    /// Its topic-safe name, which is its identity at this gateway.
    pub name: &'a str,
    /// Its name for people.
    pub label: Option<&'a str>,
    /// The room's name for people.
    pub room: Option<&'a str>,
    /// What reads it.
    pub driver: &'a str,
    /// Where it says whether it works.
    pub availability: String,
}

/// A quantity as it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published<'a> {
    /// Its name, unit and kind.
    pub quantity: &'a Quantity,
    /// Where.
    pub topic: &'a str,
    /// Where its value stands in the payload.
    pub place: Place,
    /// The longest time between two messages, where that is known.
    pub interval: Option<Duration>,
    /// Quality of service at which Home Assistant is to subscribe.
    pub qos: u8,
}

/// Where a value stands in a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `value` of a JSON object.
    Value,
    /// Under its name in `values` of a JSON object, which has not always all of them.
    Values,
    /// It is the payload, as text.
    Bare,
    /// It is the payload, as bytes.
    Whole,
}

/// A sensor is there when the gateway is and the sensor works.
const GATEWAY_THERE: &str = "{{ 'offline' if value_json.state == 'offline' else 'online' }}";
const SENSOR_WORKS: &str = "{{ 'online' if value_json.state == 'online' else 'offline' }}";

/// How many of a quantity's intervals may pass without a message before its value counts as unknown: two may be late.
const INTERVALS: u32 = 3;

/// What is added to that: a reading may be under way for so long.
const GRACE: Duration = Duration::from_secs(30);

/// Longest state that Home Assistant takes, in characters.
const MAX_STATE: usize = 255;

/// The identifier of a device: the gateway's, or that of one of its sensors.
#[must_use]
pub fn device_id(gateway: &Gateway, sensor: Option<&str>) -> String {
    let gateway = safe(&gateway.id);
    match sensor {
        Some(sensor) => format!("vigie_{gateway}_{}", safe(sensor)),
        None => format!("vigie_{gateway}"),
    }
}

/// The key of an entity among those of its device.
#[must_use]
pub fn entity_key(quantity: &str) -> String {
    safe(quantity)
}

/// A name in the characters that Home Assistant takes in a topic of its own. Two names never become one, or only by
/// chance, which a checksum makes small.
fn safe(name: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || character == '_' || character == '-';
    if !name.is_empty() && name.chars().all(plain) {
        return name.to_owned();
    }
    let replaced: String = name.chars().map(|character| if plain(character) { character } else { '_' }).collect();
    format!("{replaced}_{:08x}", crc32fast::hash(name.as_bytes()))
}

impl Device {
    /// The gateway itself, to which its sensors belong.
    #[must_use]
    pub fn gateway(gateway: &Gateway) -> Self {
        let id = device_id(gateway, None);
        let connection = Entity {
            platform: "binary_sensor",
            unique_id: Some(format!("{id}_connection")),
            device_class: Some("connectivity"),
            state_topic: Some(gateway.availability.clone()),
            value_template: Some("{{ 'OFF' if value_json.state == 'offline' else 'ON' }}".to_owned()),
            entity_category: Some("diagnostic"),
            qos: Some(gateway.qos),
            ..Entity::default()
        };
        Self {
            about: About {
                identifiers: [id],
                name: gateway.name.clone(),
                model: gateway.board.clone(),
                area: None,
                software: Some(gateway.version),
                via_device: None,
            },
            origin: origin(gateway),
            entities: BTreeMap::from([("connection".to_owned(), connection)]),
            availability: Vec::new(),
            availability_mode: None,
        }
    }

    /// A sensor without its quantities.
    #[must_use]
    pub fn sensor(gateway: &Gateway, sensor: &Sensor<'_>) -> Self {
        let there = Availability { topic: gateway.availability.clone(), value_template: GATEWAY_THERE };
        let works = Availability { topic: sensor.availability.clone(), value_template: SENSOR_WORKS };
        Self {
            about: About {
                identifiers: [device_id(gateway, Some(sensor.name))],
                name: sensor.label.unwrap_or(sensor.name).to_owned(),
                model: Some(sensor.driver.to_owned()),
                area: sensor.room.map(str::to_owned),
                software: None,
                via_device: Some(device_id(gateway, None)),
            },
            origin: origin(gateway),
            entities: BTreeMap::new(),
            availability: vec![there, works],
            availability_mode: Some("all"),
        }
    }

    /// Adds a quantity, if Home Assistant has something for it. Bytes are only shown where they are pictures.
    pub fn add(&mut self, published: &Published<'_>) {
        let [id] = &self.about.identifiers;
        let key = entity_key(&published.quantity.name);
        if let Some(entity) = Entity::new(format!("{id}_{key}"), published) {
            self.entities.insert(key, entity);
        }
    }

    /// Takes an entity away that was announced before.
    pub fn remove(&mut self, key: &str, platform: &'static str) {
        self.entities.insert(key.to_owned(), Entity { platform, ..Entity::default() });
    }

    /// Its entities, by key.
    #[must_use]
    pub fn entities(&self) -> &BTreeMap<String, Entity> {
        &self.entities
    }

    /// The payload.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers with text keys are always JSON")
    }
}

fn origin(gateway: &Gateway) -> Origin {
    Origin { name: "vigie", sw: gateway.version }
}

/// The kinds of entity that are announced.
pub const PLATFORMS: [&str; 4] = ["binary_sensor", "event", "image", "sensor"];

impl Entity {
    /// Is it announced, rather than taken away?
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.unique_id.is_some()
    }

    fn new(unique_id: String, published: &Published<'_>) -> Option<Self> {
        let Published { quantity, topic, place, interval, qos } = published;
        let class = match quantity.kind {
            Kind::Number => classes::of_number(&quantity.name, quantity.unit.as_deref()),
            Kind::Switch => Class { device: classes::of_switch(&quantity.name), state: None },
            Kind::Text | Kind::Event | Kind::Bytes => Class::default(),
        };
        let entity = Self {
            unique_id: Some(unique_id),
            // Where the name is that of the class, Home Assistant has a word for it in the user's language.
            name: (class.device != Some(&*quantity.name)).then(|| quantity.name.replace('_', " ")),
            device_class: class.device,
            state_class: class.state,
            state_topic: Some((*topic).to_owned()),
            expire_after: interval.map(|interval| (interval * INTERVALS + GRACE).as_secs()),
            qos: Some(*qos),
            ..Self::default()
        };
        Some(match quantity.kind {
            Kind::Number => Self {
                platform: "sensor",
                unit_of_measurement: quantity.unit.as_deref().map(str::to_owned),
                value_template: place.template(&quantity.name, |value| format!("{{{{ {value} }}}}"), ""),
                ..entity
            },
            Kind::Switch => Self {
                platform: "binary_sensor",
                value_template: Some(place.template(
                    &quantity.name,
                    |value| match place {
                        Place::Bare => format!("{{{{ 'ON' if {value} == 'true' else 'OFF' }}}}"),
                        _ => format!("{{{{ 'ON' if {value} else 'OFF' }}}}"),
                    },
                    "",
                )?),
                ..entity
            },
            Kind::Text => Self {
                platform: "sensor",
                value_template: place.template(
                    &quantity.name,
                    |value| format!("{{{{ {value}[:{MAX_STATE}] }}}}"),
                    "{{ this.state }}",
                ),
                ..entity
            },
            // The kinds of event that there are must be named beforehand: there is one, and the value goes with it. One
            // of a backlog is past, and does not happen now.
            Kind::Event => Self {
                platform: "event",
                name: Some(quantity.name.replace('_', " ")),
                event_types: Some([quantity.name.to_string()]),
                value_template: Some(place.template(
                    &quantity.name,
                    |value| {
                        let event = format!(
                            "{{{{ {{'event_type': {}, 'value': {value}}} | tojson }}}}",
                            literal(&quantity.name)
                        );
                        match place {
                            Place::Bare => event,
                            _ => format!("{{% if not value_json.backlog %}}{event}{{% endif %}}"),
                        }
                    },
                    "",
                )?),
                expire_after: None,
                ..entity
            },
            Kind::Bytes => {
                let content_type = quantity.content_type.as_deref().filter(|kind| kind.starts_with("image/"))?;
                if *place != Place::Whole {
                    return None;
                }
                Self {
                    platform: "image",
                    image_topic: entity.state_topic.clone(),
                    content_type: Some(content_type.to_owned()),
                    state_topic: None,
                    expire_after: None,
                    ..entity
                }
            }
        })
    }
}

impl Place {
    /// A template that gives the value in some form; `otherwise` is what it gives where the message has none. `None`:
    /// the payload is the value, as it is.
    fn template(self, name: &str, form: impl Fn(&str) -> String, otherwise: &str) -> Option<String> {
        match self {
            Self::Value => Some(form("value_json.value")),
            Self::Values => {
                let name = literal(name);
                let found = form(&format!("value_json['values'][{name}]"));
                let or = if otherwise.is_empty() { String::new() } else { format!("{{% else %}}{otherwise}") };
                Some(format!("{{% if {name} in value_json['values'] %}}{found}{or}{{% endif %}}"))
            }
            Self::Bare => Some(form("value")),
            Self::Whole => None,
        }
    }
}

/// A text as it stands in a template (Jinja: a string literal of Python). A device may call its values what it likes.
fn literal(text: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || " _-.:/".contains(character);
    let one = |character: char| {
        if plain(character) { character.to_string() } else { format!("\\U{:08x}", u32::from(character)) }
    };
    format!("'{}'", text.chars().map(one).collect::<String>())
}

#[cfg(test)]
mod tests;
