//! The lines of Python of `docs/integrity.md`, on what the built program publishes.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use crate::it::harness::{Exit, Gateway, Mosquitto, Script, wait_for, wait_until};

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// What the lines of Python say of the first readings.
fn checked(integrity: &str, given: &[&str], format: &str) -> Vec<Value> {
    let broker = Mosquitto::start();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/integrity.md");
    let (port, page) = (broker.port().to_string(), page.display().to_string());
    let script = Script::start("integrity.py", &[&[port.as_str(), page.as_str()], given].concat());
    wait_until("the script to subscribe", || script.lines.count("subscribed") > 0);
    let gateway = Gateway::new();
    let key = gateway.path().join("key");
    fs::write(&key, KEY).expect("a key");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("its owner's");
    gateway.configure(&format!(
        "[hardware]\nbackend = \"sim\"\n\n[uplink.home]\nurl = \"mqtt://localhost:{port}\"\nmqtt = \"5\"\nstate = false\n\
         format = \"{format}\"\nintegrity = {integrity}\n\n\
         [[sensor]]\nname = \"meteo\"\nroom = \"salon\"\ndriver = \"bme280\"\nevery = \"50ms\"\n"
    ));
    let mut agent = gateway.run();
    let readings = wait_for("some readings", || {
        let messages = script.lines.all().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        let messages: Vec<Value> = messages.filter(|message| message["topic"].is_string()).collect();
        (messages.len() > 10).then_some(messages)
    });
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
    readings
}

#[test]
fn a_consumer_can_check_it_with_the_lines_of_the_documentation() {
    let (crc, hmac) = ("{ method = \"crc32\" }", "{ method = \"hmac-sha256\", key = { file = \"key\" } }");
    for (integrity, key) in [(crc, &[][..]), (hmac, &[KEY][..])] {
        for (format, beside) in [("json", false), ("senml-cbor", true)] {
            for message in checked(integrity, key, format) {
                let said = (&message["right"], &message["damaged"], &message["beside"]);
                assert_eq!(said, (&true.into(), &false.into(), &beside.into()), "{integrity} {format}: {message}");
            }
        }
    }
    let other = KEY.replace("00", "ff");
    let found = checked(hmac, &[&other], "json");
    assert!(found.iter().all(|message| message["right"] == false), "another key: {found:?}");
}
