//! Eclipse Paho for Python, which many a consumer is written with.

use serde_json::Value;

use crate::it::harness::{Exit, Gateway, Mosquitto, Script, wait_for, wait_until};

/// What paho understands of the first temperature that is published, with that version of MQTT at both ends.
fn first_temperature(version: &str, number: &str) -> Value {
    let broker = Mosquitto::start();
    let paho = Script::start("paho_subscriber.py", &[&broker.port().to_string(), number]);
    wait_until("paho to subscribe", || paho.lines.count("subscribed") > 0);
    let gateway = Gateway::new();
    gateway.configure(&format!(
        "[hardware]\nbackend = \"sim\"\n\n[uplink.home]\nurl = \"mqtt://localhost:{}\"\nmqtt = \"{version}\"\nqos = 2\n\n\
         [[sensor]]\nname = \"meteo\"\nroom = \"salon\"\ndriver = \"bme280\"\nevery = \"50ms\"\n",
        broker.port()
    ));
    let mut agent = gateway.run();
    let message = wait_for("a temperature", || {
        let messages = paho.lines.all().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        messages.into_iter().find(|message| message["topic"] == "maison/salon/temperature")
    });
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
    message
}

fn payload(message: &Value) -> Value {
    let bytes = data_encoding::BASE64.decode(message["payload"].as_str().expect("a payload").as_bytes());
    serde_json::from_slice(&bytes.expect("base64")).expect("JSON")
}

#[test]
fn a_reading_arrives_with_3_1_1() {
    let message = first_temperature("3.1.1", "4");
    assert_eq!(message["qos"], 2);
    assert_eq!(payload(&message)["quantity"], "temperature");
}

#[test]
fn a_reading_and_its_properties_arrive_with_5() {
    let message = first_temperature("5", "5");
    assert_eq!(message["qos"], 2);
    let id = payload(&message)["id"].clone();
    assert_eq!(message["properties"]["UserProperty"], serde_json::json!([["id", id]]));
}
