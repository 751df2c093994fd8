use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn gateway() -> Gateway {
    Gateway {
        id: "10000000abcdef01".to_owned(),
        name: "Atelier Pi".to_owned(),
        board: Some("Raspberry Pi 4".to_owned()),
        version: "0.1.0",
        availability: "maison/atelier/availability".to_owned(),
        qos: 1,
    }
}

fn sensor() -> Sensor<'static> {
    Sensor {
        name: "meteo",
        label: Some("BME280 on the sill"),
        room: Some("Salon"),
        driver: "bme280",
        availability: "maison/salon/meteo/availability".to_owned(),
    }
}

fn quantity(name: &str, unit: Option<&str>, kind: Kind) -> Quantity {
    let content_type = (kind == Kind::Bytes).then(|| "image/jpeg".into());
    Quantity { name: name.into(), unit: unit.map(Into::into), kind, topic: None, content_type }
}

fn entity(quantity: &Quantity, place: Place, seconds: Option<u64>) -> Value {
    let mut device = Device::sensor(&gateway(), &sensor());
    let interval = seconds.map(Duration::from_secs);
    device.add(&Published { quantity, topic: "maison/salon/x", place, interval, qos: 1 });
    let message: Value = serde_json::from_str(&device.to_json()).expect("JSON");
    message["cmps"].as_object().expect("an object").values().next().cloned().unwrap_or_default()
}

/// The form of the documentation's "Example device discovery" (www.home-assistant.io/integrations/mqtt).
#[test]
fn a_sensor_is_a_device_with_its_quantities_as_entities() {
    let mut device = Device::sensor(&gateway(), &sensor());
    let temperature = quantity("temperature", Some("°C"), Kind::Number);
    let interval = Some(Duration::from_secs(10));
    let topic = "maison/salon/temperature";
    device.add(&Published { quantity: &temperature, topic, place: Place::Value, interval, qos: 1 });
    device.remove("humidity", "sensor");
    let expected = json!({
        "dev": {
            "ids": ["vigie_10000000abcdef01_meteo"],
            "name": "BME280 on the sill",
            "mdl": "bme280",
            "sa": "Salon",
            "via_device": "vigie_10000000abcdef01",
        },
        "o": { "name": "vigie", "sw": "0.1.0" },
        "cmps": {
            "temperature": {
                "p": "sensor",
                "unique_id": "vigie_10000000abcdef01_meteo_temperature",
                "device_class": "temperature",
                "state_class": "measurement",
                "unit_of_measurement": "°C",
                "state_topic": "maison/salon/temperature",
                "value_template": "{{ value_json.value }}",
                "expire_after": 60,
                "qos": 1,
            },
            "humidity": { "p": "sensor" },
        },
        "availability": [
            {
                "topic": "maison/atelier/availability",
                "value_template": "{{ 'offline' if value_json.state == 'offline' else 'online' }}",
            },
            {
                "topic": "maison/salon/meteo/availability",
                "value_template": "{{ 'online' if value_json.state == 'online' else 'offline' }}",
            },
        ],
        "availability_mode": "all",
    });
    assert_eq!(serde_json::from_str::<Value>(&device.to_json()).expect("JSON"), expected);
}

#[test]
fn the_gateway_is_a_device_that_its_sensors_belong_to() {
    let message: Value = serde_json::from_str(&Device::gateway(&gateway()).to_json()).expect("JSON");
    let expected = json!({
        "dev": { "ids": ["vigie_10000000abcdef01"], "name": "Atelier Pi", "mdl": "Raspberry Pi 4", "sw": "0.1.0" },
        "o": { "name": "vigie", "sw": "0.1.0" },
        "cmps": {
            "connection": {
                "p": "binary_sensor",
                "unique_id": "vigie_10000000abcdef01_connection",
                "device_class": "connectivity",
                "state_topic": "maison/atelier/availability",
                "value_template": "{{ 'OFF' if value_json.state == 'offline' else 'ON' }}",
                "entity_category": "diagnostic",
                "qos": 1,
            },
        },
    });
    assert_eq!(message, expected);
}

#[test]
fn every_kind_has_the_platform_that_shows_it() {
    let switch = entity(&quantity("front_door", None, Kind::Switch), Place::Value, None);
    assert_eq!((&switch["p"], &switch["device_class"]), (&json!("binary_sensor"), &json!("door")));
    assert_eq!(switch["value_template"], "{{ 'ON' if value_json.value else 'OFF' }}");
    assert_eq!(switch["name"], "front door");
    let text = entity(&quantity("status", None, Kind::Text), Place::Value, Some(1));
    assert_eq!((&text["p"], &text["state_class"]), (&json!("sensor"), &Value::Null));
    assert_eq!(text["value_template"], "{{ value_json.value[:255] }}");
    let event = entity(&quantity("bouton", None, Kind::Event), Place::Value, Some(1));
    assert_eq!((&event["p"], &event["event_types"]), (&json!("event"), &json!(["bouton"])));
    assert_eq!(event["expire_after"], Value::Null);
    let picture = entity(&quantity("porch", None, Kind::Bytes), Place::Whole, None);
    assert_eq!((&picture["p"], &picture["image_topic"]), (&json!("image"), &json!("maison/salon/x")));
    assert_eq!((&picture["content_type"], &picture["state_topic"]), (&json!("image/jpeg"), &Value::Null));
    assert_eq!(entity(&quantity("porch", None, Kind::Bytes), Place::Value, None), Value::Null, "base64 in JSON");
}

#[test]
fn a_message_of_a_sensor_need_not_have_every_quantity() {
    let number = entity(&quantity("t", Some("°C"), Kind::Number), Place::Values, None);
    let template = "{% if 't' in value_json['values'] %}{{ value_json['values']['t'] }}{% endif %}";
    assert_eq!(number["value_template"], template);
    let text = entity(&quantity("s", None, Kind::Text), Place::Values, None);
    assert!(text["value_template"].as_str().is_some_and(|template| template.contains("{% else %}{{ this.state }}")));
}

#[test]
fn names_become_identifiers_that_stay_apart() {
    assert_eq!(safe("soil_0-a"), "soil_0-a");
    assert_eq!(safe("lumière"), "lumi_re_ef3c5f3a");
    assert_ne!(safe("a b"), safe("a.b"));
    assert_ne!(safe(""), "");
}

proptest! {
    /// A device may call its values what it likes.
    #[test]
    fn whatever_a_quantity_is_called_the_message_is_one(
        name in "\\PC{1,40}", unit in proptest::option::of("\\PC{1,9}"), in_values: bool, kind in 0..5_usize,
    ) {
        let kind = [Kind::Number, Kind::Switch, Kind::Text, Kind::Event, Kind::Bytes][kind];
        let place = if in_values { Place::Values } else { Place::Value };
        let entity = entity(&quantity(&name, unit.as_deref(), kind), place, Some(5));
        if kind != Kind::Bytes {
            let id = entity["unique_id"].as_str().expect("an identifier");
            prop_assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)), "{}", id);
            let template = entity["value_template"].as_str().expect("a template");
            prop_assert!(template.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), "{}", template);
            prop_assert_eq!(template.matches("{{").count(), template.matches("}}").count());
        }
    }
}
