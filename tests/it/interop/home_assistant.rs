//! Home Assistant's own schemas, and the templates that it is told, on what the built program announces and publishes.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use vigie::reading::{Kind, Quantity};
use vigie::targets::home_assistant::classes::ROWS;
use vigie::targets::home_assistant::message::{Device, Gateway as Announcer, Place, Published, Sensor};

use crate::it::harness::{Exit, Gateway, Mosquitto, Script, wait_for, wait_until};

/// What the script says of devices.
fn said(script: &Script) -> Vec<Value> {
    let lines = script.lines.all().into_iter().filter(|line| line.starts_with("{\"device\""));
    lines.filter_map(|line| serde_json::from_str(&line).ok()).collect()
}

/// The last state of an entity.
fn state(script: &Script, entity: &str) -> Option<String> {
    let start = format!("{{\"entity\": \"{entity}\", \"state\": ");
    let lines = script.lines.all();
    let last: Value = serde_json::from_str(lines.iter().rfind(|line| line.starts_with(&start))?).ok()?;
    last["state"].as_str().map(str::to_owned)
}

#[track_caller]
fn assert_valid(script: &Script) {
    let invalid: Vec<Value> = said(script).into_iter().filter(|line| !line["invalid"].is_null()).collect();
    assert!(invalid.is_empty(), "{invalid:?}");
}

const SENSORS: &str = r#"
[room.salon]
label = "Salon"

[[sensor]]
name = "meteo"
room = "salon"
driver = "bme280"
every = "1s"

[[sensor]]
name = "motion"
room = "salon"
driver = "gpio-input"
pin = 17
every = "1s"

[sensor.quantity.state]
as = "motion"
"#;

const ARDUINO: &str = r#"
[[sensor]]
name = "arduino"
room = "salle 12"
driver = "serial-json"
port = "sim:arduino"
"#;

fn configure(gateway: &Gateway, broker: &Mosquitto, keys: &str, sensors: &str) {
    gateway.configure(&format!(
        "[hardware]\nbackend = \"sim\"\n\n[uplink.home]\nurl = \"mqtt://localhost:{}\"\npreset = \"home-assistant\"\n\
         {keys}\n{sensors}",
        broker.port()
    ));
}

/// The identifiers of devices that are announced, gone ones left out.
fn devices(script: &Script) -> BTreeSet<String> {
    let mut there = BTreeSet::new();
    for line in said(script) {
        let Some(device) = line["device"].as_str() else { continue };
        if line["entities"].is_null() {
            there.remove(device);
        } else {
            there.insert(device.to_owned());
        }
    }
    there
}

fn named<'a>(devices: &'a BTreeSet<String>, end: &str) -> Option<&'a String> {
    devices.iter().find(|device| device.ends_with(end))
}

#[test]
fn what_is_announced_is_valid_and_its_templates_give_the_states() {
    for keys in ["", "payload = \"sensor\""] {
        let broker = Mosquitto::start();
        let home = Script::start("home_assistant.py", &[&broker.port().to_string()]);
        wait_until("Home Assistant to subscribe", || home.lines.count("started") > 0);
        let gateway = Gateway::new();
        configure(&gateway, &broker, keys, &format!("{SENSORS}{ARDUINO}"));
        let mut agent = gateway.run();
        let meteo = wait_for("the sensor", || named(&devices(&home), "_meteo").cloned());
        let temperature = wait_for("a temperature", || {
            state(&home, &format!("{meteo}_temperature")).filter(|state| !state.is_empty())
        });
        assert!(temperature.parse::<f64>().is_ok(), "{temperature}");
        let motion = wait_for("a switch", || {
            let devices = devices(&home);
            let motion = format!("{}_motion", named(&devices, "_motion")?);
            state(&home, &motion).filter(|state| !state.is_empty())
        });
        assert!(motion == "ON" || motion == "OFF", "{motion}");
        let arduino = wait_for("the Arduino", || named(&devices(&home), "_arduino").cloned());
        let light = wait_for("a name that is no identifier", || {
            let devices = said(&home).into_iter().filter(|line| line["device"] == arduino.as_str());
            let keys = devices.flat_map(|line| line["entities"].as_array().cloned().unwrap_or_default());
            let mut keys = keys.filter_map(|key| key.as_str().map(str::to_owned));
            keys.find(|key| key.starts_with("lumi_re_")).map(|key| format!("{arduino}_{key}"))
        });
        wait_until("its value", || state(&home, &light).is_some_and(|state| state.parse::<f64>().is_ok()));
        let connection = format!("{}_connection", meteo.trim_end_matches("_meteo"));
        wait_until("the gateway's availability", || state(&home, &connection).as_deref() == Some("ON"));
        let available = |wanted: &str| {
            let (entity, wanted) = (format!("{meteo}_temperature"), format!("\"available\": \"{wanted}\""));
            home.lines.all().iter().any(|line| line.contains(&entity) && line.contains(&wanted))
        };
        wait_until("the sensor's availability", || available("online"));
        assert_valid(&home);
        assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
        wait_until("the end", || available("offline") && state(&home, &connection).as_deref() == Some("OFF"));

        // The next start knows what the last one had announced.
        configure(&gateway, &broker, keys, SENSORS);
        let mut agent = gateway.run();
        wait_until("the Arduino to be taken away", || named(&devices(&home), "_arduino").is_none());
        wait_until("the others to stay", || state(&home, &connection).as_deref() == Some("ON"));
        assert!(named(&devices(&home), "_meteo").is_some());
        assert_valid(&home);
        assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
    }
}

/// Each device class with each of its units, and each kind of quantity.
#[test]
fn every_device_class_goes_with_its_units() {
    let broker = Mosquitto::start();
    let home = Script::start("home_assistant.py", &[&broker.port().to_string()]);
    wait_until("Home Assistant to subscribe", || home.lines.count("started") > 0);
    let announcer = Announcer {
        id: "test".to_owned(),
        name: "Test".to_owned(),
        board: None,
        version: "0",
        availability: "a/availability".to_owned(),
        qos: 1,
    };
    let sensor =
        Sensor { name: "all", label: None, room: None, driver: "x", availability: "b/availability".to_owned() };
    let mut device = Device::sensor(&announcer, &sensor);
    let mut all: Vec<(String, Option<&str>, Kind)> = Vec::new();
    for (row, unit) in ROWS.iter().flat_map(|row| row.units.iter().map(move |unit| (row, *unit))) {
        for name in if row.names.is_empty() { &["number"] } else { row.names } {
            all.push((format!("{name} {}", all.len()), Some(unit).filter(|unit| !unit.is_empty()), Kind::Number));
        }
    }
    for kind in [Kind::Number, Kind::Switch, Kind::Text, Kind::Event, Kind::Bytes] {
        all.push((format!("door {}", all.len()), None, kind));
    }
    for (name, unit, kind) in &all {
        let content_type = (*kind == Kind::Bytes).then(|| "image/png".into());
        let place = if *kind == Kind::Bytes { Place::Whole } else { Place::Values };
        let unit = unit.map(Into::into);
        let quantity = Quantity { name: name.as_str().into(), unit, kind: *kind, topic: None, content_type };
        let interval = Some(Duration::from_secs(1));
        device.add(&Published { quantity: &quantity, topic: "t", place, interval, qos: 1 });
    }
    device.remove("gone", "sensor");
    assert!(all.len() > 80, "{}", all.len());
    let status = Command::new("mosquitto_pub")
        .args(["-p", &broker.port().to_string(), "-t", "homeassistant/device/test/config", "-m", &device.to_json()])
        .status();
    assert!(status.is_ok_and(|status| status.success()), "mosquitto_pub reaches the broker");
    let line = wait_for("the device", || said(&home).into_iter().find(|line| line["device"] == "test"));
    assert_valid(&home);
    assert_eq!(line["entities"].as_array().map(Vec::len), Some(all.len()));
}
