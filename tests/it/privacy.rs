//! Prevents: a broker that learns a name although the uplink has pseudonyms, by a topic, a payload, the will, state, or the
//! client identifier; and one that learns from a fixed rate what is measured when.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::harness::{Exit, Gateway, Mosquitto, Subscriber, wait_until};

/// What is configured, as far as others are not to know it.
const NAMES: [&str; 9] = ["atelier", "maison", "salon", "Grand", "meteo", "Station", "nowhere", "etage7", "sim:gps"];

const SENSORS: &str = r#"
[room.salon]
label = "Grand salon"
location = { latitude = 47.5921, longitude = 0.9117, altitude = 85 }
tags = { floor = "etage7" }

[[sensor]]
name = "meteo"
label = "Station meteo"
room = "salon"
driver = "bme280"
every = "100ms"

[[sensor]]
name = "nowhere"
room = "salon"
driver = "file"
path = "/nowhere/at/all"
every = "100ms"
"#;

/// A gateway with the key of its pseudonyms.
fn gateway(broker: &Mosquitto, uplink: &str) -> Gateway {
    let gateway = Gateway::new();
    let key = gateway.path().join("key");
    fs::write(&key, "07".repeat(32)).expect("a key");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("its owner's");
    gateway.configure(&format!(
        "[hardware]\nbackend = \"sim\"\n\n[uplink.home]\nurl = \"mqtt://localhost:{}\"\n{uplink}\n{SENSORS}",
        broker.port()
    ));
    gateway
}

#[test]
fn with_pseudonyms_a_broker_sees_no_name() {
    let broker = Mosquitto::with("allow_anonymous true\nlog_type all\n");
    let all = Subscriber::start(&broker, "watch", 1);
    let privacy = "privacy = { key = { file = \"key\" }, time_grain = \"1m\", place_decimals = 1 }";
    let gateway = gateway(&broker, privacy);
    let mut agent = gateway.run();
    let ends = |leaf: &str| {
        let messages = all.messages();
        messages.iter().filter(|message| message.topic.ends_with(leaf)).cloned().collect::<Vec<_>>()
    };
    wait_until("readings", || ends("/temperature").len() > 5);
    wait_until("state", || ["/info", "/gaps"].iter().all(|leaf| !ends(leaf).is_empty()));
    wait_until("a fault", || ends("/availability").iter().any(|it| it.json()["reason"] == "missing"));
    let reading = ends("/temperature")[0].json();
    assert!(reading["time"].as_str().is_some_and(|time| time.ends_with(":00.000Z")), "{reading}");
    assert_eq!(reading["location"].to_string(), r#"{"latitude":47.6,"longitude":0.9}"#);
    // The broker publishes the will.
    agent.kill();
    wait_until("the will", || ends("/availability").iter().any(|it| it.json()["reason"] == "connection lost"));
    for message in all.messages() {
        let text = format!("{} {}", message.topic, message.payload);
        for name in NAMES {
            assert!(!text.contains(name), "`{name}` in {text}");
        }
    }
    // So the broker calls its clients.
    broker.wait_log(" as vigie-", 1);
    let log = broker.log();
    for name in NAMES {
        assert!(!log.contains(name), "`{name}` in {log}");
    }
}

#[test]
fn at_a_fixed_rate_nothing_else_goes_out() {
    let broker = Mosquitto::start();
    let all = Subscriber::showing(&broker, "watch", 1, &[], "%l %p");
    let gateway = gateway(
        &broker,
        "format = \"json-array\"\ntopic = \"{site}/{gateway}/readings\"\n\
         privacy = { key = { file = \"key\" }, rate = { every = \"1s\", size = 4096 } }",
    );
    let mut agent = gateway.run();
    wait_until("some messages", || all.messages().len() > 3);
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
    let messages = all.messages();
    for message in &messages {
        assert!(message.payload.starts_with("4096 [") && !message.retained, "{message:?}");
        assert_eq!(message.topic, messages[0].topic);
    }
    assert!(messages.iter().any(|message| message.payload.contains("\"temperature\"")), "{messages:?}");
}
