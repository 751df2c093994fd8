//! Prevents: a gateway whose parts all pass their own tests while nothing, or the wrong thing, comes out at the end.
//!
//! A serial port, simulated chips and the machine's own readings go through the built program to a real Mosquitto, and
//! a subscriber checks what a user's server would see: topics, payloads, retained messages, availability.

use serde_json::Value;

use super::harness::{Agent, Exit, Gateway, Mosquitto, Port, Subscriber, wait_until};

/// A port of ours beside simulated buses: `[hardware] backend = "sim"` opens any other port for real.
fn sensors(port: &Port) -> String {
    format!(
        r#"
[hardware]
backend = "sim"

[room.salon]
label = "Salon"
location = {{ latitude = 47.5921, longitude = 0.9117, altitude = 85 }}

[[sensor]]
name = "meteo"
room = "salon"
driver = "bme280"
bus = 1
address = 0x76
every = "100ms"

[[sensor]]
name = "mouvement"
room = "salon"
driver = "gpio-input"
pin = 17
quantity = "mouvement"
every = "100ms"

[[sensor]]
name = "pi"
room = "atelier"
driver = "host"
every = "100ms"

[[sensor]]
name = "arduino"
room = "salle-12"
driver = "serial-json"
port = "{}"
[sensor.quantity.temp]
as = "temperature"
unit = "°C"
[sensor.quantity.bouton]
kind = "event"
"#,
        port.path().display()
    )
}

fn uplink(broker: &Mosquitto) -> String {
    format!("[uplink.home]\nurl = \"mqtt://localhost:{}\"\n", broker.port())
}

fn start() -> (Mosquitto, Subscriber, Port, Gateway, Agent) {
    let broker = Mosquitto::start();
    let subscriber = Subscriber::start(&broker, "watch", 1);
    let port = Port::open();
    let gateway = Gateway::new();
    gateway.configure(&format!("{}{}", uplink(&broker), sensors(&port)));
    let agent = gateway.run();
    wait_until("the agent to open the port", || port.is_open());
    (broker, subscriber, port, gateway, agent)
}

/// Checks the head that every reading carries (the default payload, one message a quantity).
#[track_caller]
fn check_head(json: &Value, room: &str, sensor: &str, quantity: &str) {
    let id = json["id"].as_str().expect("an id");
    let (run, sequence) = id.split_once('-').expect("an id of run and sequence");
    assert!(run.parse::<u32>().is_ok() && sequence.parse::<u64>().is_ok(), "{id}");
    let time = json["time"].as_str().expect("a time");
    assert!(humantime::parse_rfc3339(time).is_ok() && time.ends_with('Z'), "{time}");
    assert_eq!(json["site"], "maison");
    assert_eq!(json["room"], room);
    assert_eq!(json["sensor"], sensor);
    assert_eq!(json["quantity"], quantity);
    assert_eq!(json["clock"], "set");
}

#[test]
fn every_kind_of_sensor_reaches_the_subscriber() {
    let (broker, subscriber, mut port, _gateway, mut agent) = start();

    let temperature = subscriber.wait("maison/salon/temperature", |_| true).json();
    check_head(&temperature, "salon", "meteo", "temperature");
    assert_eq!(temperature["unit"], "°C");
    assert!((-40.0..85.0).contains(&temperature["value"].as_f64().expect("a number")), "{temperature}");
    assert_eq!(temperature["location"]["latitude"], 47.5921);
    for quantity in ["humidity", "pressure"] {
        check_head(&subscriber.wait(&format!("maison/salon/{quantity}"), |_| true).json(), "salon", "meteo", quantity);
    }
    let moved = subscriber.wait("maison/salon/mouvement", |_| true).json();
    assert!(moved["value"].is_boolean(), "{moved}");
    let hosts = |message: &super::harness::Message| message.topic.starts_with("maison/atelier/");
    wait_until("readings of the machine itself", || subscriber.messages().iter().any(hosts));

    // The line may meet a port that is only just opened: it is written until it comes through.
    wait_until("the Arduino's line", || {
        port.write_line(r#"{"temp":21.53,"bouton":"appuyé","vide":null,"air":{"co2":417},"volts":[3.3,5]}"#);
        !subscriber.on("maison/salle-12/temperature").is_empty()
    });
    let arduino = subscriber.wait("maison/salle-12/temperature", |_| true).json();
    check_head(&arduino, "salle-12", "arduino", "temperature");
    assert_eq!(arduino["value"], 21.53);
    assert_eq!(arduino["unit"], "°C");
    let event = subscriber.wait("maison/salle-12/bouton", |_| true).json();
    assert_eq!(event["value"], "appuyé");
    let co2 = |message: &super::harness::Message| message.topic.contains("co2") && message.json()["value"] == 417;
    wait_until("the nested value", || subscriber.messages().iter().any(co2));
    assert!(subscriber.on("maison/salle-12/vide").is_empty(), "null is absence");

    // Who subscribes later finds the last reading, but no event.
    let late = Subscriber::start(&broker, "late", 1);
    assert!(late.wait("maison/salon/temperature", |_| true).retained);
    assert!(late.wait("maison/salle-12/temperature", |_| true).retained);
    assert!(late.wait("maison/atelier/availability", |_| true).retained, "the gateway's availability");
    assert!(!late.on("maison/salle-12/bouton").iter().any(|message| message.retained), "events are never retained");
    let info = late.wait("maison/atelier/info", |_| true);
    assert!(info.retained);
    assert_eq!(info.json()["version"], env!("CARGO_PKG_VERSION"));

    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
}

#[test]
fn availability_follows_start_kill_and_stop() {
    let (_broker, subscriber, _port, gateway, mut agent) = start();
    let topic = "maison/atelier/availability";
    let states = || -> Vec<String> {
        let json = |message: &super::harness::Message| message.json()["state"].as_str().map(str::to_owned);
        subscriber.on(topic).iter().filter_map(json).collect()
    };
    subscriber.wait(topic, |message| message.json()["state"] == "online");

    agent.kill();
    let will = subscriber.wait(topic, |message| message.json()["state"] == "offline").json();
    assert_ne!(will["reason"], "shutdown", "a killed agent did not say goodbye");

    let mut agent = gateway.run();
    wait_until("to be online again", || states().last().is_some_and(|state| state == "online"));
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
    let goodbye = subscriber.wait(topic, |message| message.json()["reason"] == "shutdown").json();
    assert_eq!(goodbye["state"], "offline");
    assert_eq!(states(), ["online", "offline", "online", "offline"]);
}

#[test]
fn a_pulled_cable_is_one_sensors_fault_alone() {
    let (_broker, subscriber, port, _gateway, agent) = start();
    subscriber.wait("maison/salon/temperature", |_| true);
    drop(port);
    let faulty = |message: &super::harness::Message| {
        message.topic.ends_with("/availability") && message.json()["state"] == "fault"
    };
    wait_until("the fault", || subscriber.messages().iter().any(faulty));
    let faults: Vec<_> = subscriber.messages().into_iter().filter(faulty).collect();
    assert!(faults.iter().all(|fault| fault.topic.contains("arduino")), "{faults:?}");
    let reason = faults[0].json()["reason"].clone();
    assert!(reason == "unplugged" || reason == "missing", "{reason}");
    let before = subscriber.on("maison/salon/temperature").len();
    wait_until("the others to go on", || subscriber.on("maison/salon/temperature").len() > before + 3);
    drop(agent);
}
