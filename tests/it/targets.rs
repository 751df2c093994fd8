//! Prevents: an example that does not work, for somebody who has a system in front of him and wants his readings in it.
//!
//! Each `config/targets/NAME.toml` passes the check without a warning, and makes of one reading what stands in
//! `tests/targets/NAME.txt`, topic and payload; `UPDATE_GOLDEN=1` rewrites those. What the payloads must be like is in the
//! documents that `docs/targets.md` names.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vigie::clock::{BootId, BootTime, WallTime};
use vigie::config::{self, Config, Machine, PayloadShape};
use vigie::drivers::DRIVERS;
use vigie::outbox::{Body, Entry};
use vigie::reading::{Kind, Quantity, Value};
use vigie::uplink::dating::Date;
use vigie::uplink::encode::{Cut, Encoder, Part, Settings};
use vigie::uplink::veil::Veil;

/// 2026-11-21T10:15:30.123Z
const TIME: WallTime = WallTime(1_795_256_130_123_000_000);

fn examples() -> Vec<PathBuf> {
    let entries = fs::read_dir("config/targets").expect("the examples").map(|entry| entry.expect("an entry").path());
    let mut examples: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
    examples.sort();
    examples
}

/// Reads an example beside the files that it names.
fn load(example: &Path) -> Config {
    let folder = tempfile::tempdir().expect("a folder");
    let credentials = folder.path().join("credentials");
    fs::create_dir(&credentials).expect("a folder");
    for (name, from) in [("mqtt", "mqtt"), ("azure-key", "azure-key"), ("thingsboard", "mqtt")] {
        fs::copy(Path::new("tests/config/files/credentials").join(from), credentials.join(name)).expect("a file");
    }
    for (name, from) in [("ca.pem", "ca.pem"), ("client.pem", "ca.pem"), ("client.key", "key.pem")] {
        let path = folder.path().join(name);
        fs::copy(Path::new("tests/config/files").join(from), &path).expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("a file that is there");
    }
    let path = folder.path().join(example.file_name().expect("a name"));
    fs::copy(example, &path).expect("a file");
    let machine = Machine {
        hostname: "raspberrypi".to_owned(),
        id: "10000000abcdef01".to_owned(),
        credentials: Some(credentials),
        ..Machine::this()
    };
    let config = config::load_on(&path, &machine, DRIVERS);
    config.unwrap_or_else(|report| panic!("{}:\n{report}", example.display()))
}

/// Topics and payloads of a reading of the first sensor.
fn messages(config: &Config) -> String {
    let (sensor, uplink) = (&config.sensors[0], &config.uplinks[0]);
    let mut descriptor = sensor.descriptor(&config.gateway);
    let quantity = |name: &str, unit: &str| Quantity::new(name, Some(unit), Kind::Number);
    descriptor.quantities = vec![quantity("temperature", "°C"), quantity("humidity", "%")];
    let values = [21.5, 40.0].map(|number| Value::number(number).expect("finite"));
    let entry = Entry {
        seq: 1_042,
        run: 17,
        boot: BootId([0xab; 16]),
        at: BootTime(83_004_567_891),
        time: None,
        place: None,
        body: Body::Reading { descriptor: Arc::new(descriptor), values: (0..).zip(values).collect() },
    };
    let mut encoder = Encoder::new(Settings {
        template: config.gateway.topic.clone(),
        payload: uplink.payload.clone(),
        retain: uplink.retain,
        backlog_topic: None,
        veil: Veil::new(&uplink.privacy),
    });
    let shape = encoder.shape(&entry);
    let cuts = match shape {
        PayloadShape::Sensor => vec![(1_042, 1_044)],
        PayloadShape::Quantity => vec![(1_042, 1_043), (1_043, 1_044)],
    };
    let cut = Cut { shape, backlog: false, now: (entry.boot, entry.at) };
    let mut text = String::new();
    for (from, to) in cuts {
        let parts = [Part { entry: &entry, seqs: from..to, date: Date::Wall(TIME) }];
        let message = encoder.message(&parts, cut).expect("a message");
        let payload = std::str::from_utf8(message.payload)
            .map_or_else(|_| data_encoding::HEXLOWER.encode(message.payload), str::to_owned);
        text.push_str(&format!("{}\n{payload}\n", message.topic));
        if payload.starts_with('{') {
            serde_json::from_str::<serde_json::Value>(&payload).expect("JSON that can be read");
        }
    }
    text
}

#[test]
fn every_example_is_right_and_makes_the_messages_that_its_target_takes() {
    let examples = examples();
    assert!(examples.len() >= 16, "only {}", examples.len());
    let mut wrong = Vec::new();
    for example in &examples {
        let config = load(example);
        if let Some(warnings) = &config.warnings {
            wrong.push(format!("{}:\n{warnings}", example.display()));
        }
        let name = example.file_stem().and_then(|name| name.to_str()).expect("a name");
        let golden = Path::new("tests/targets").join(name).with_extension("txt");
        let made = messages(&config);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &made).expect("a writable folder");
        }
        let known = fs::read_to_string(&golden).unwrap_or_default();
        if made != known {
            wrong.push(format!("{name} makes\n{made}--- instead of\n{known}"));
        }
    }
    assert!(wrong.is_empty(), "{}\n(if it is meant: UPDATE_GOLDEN=1)", wrong.join("\n\n"));
}
