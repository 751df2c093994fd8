//! The documented keys are the ones that are read.

use std::path::Path;

use toml::de::DeTable;

use super::*;
use crate::config::read::Surroundings;
use crate::config::{
    Machine, broker, connection, gateway, hardware, integrity, outbox_key, payload, place, privacy, quantities, secret,
    sensor, uplink,
};
use crate::drivers::COMMON_KEYS;
use crate::options::{Options, Problems};

/// The keys that a reader asks for, given an empty table.
fn asked(read: impl Fn(&Options<'_>)) -> Vec<&'static str> {
    let table = DeTable::new();
    let problems = Problems::new();
    let options = Options::new(&table, 0..0, "the test", &problems);
    read(&options);
    options.asked()
}

fn documented(section: &Section) -> Vec<&'static str> {
    let mut keys: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn the_documented_keys_are_those_that_are_read() {
    let machine = Machine::this();
    let around = Surroundings { machine: &machine, folder: Path::new("") };
    let root = DeTable::new();
    let problems = Problems::new();
    let root = Options::new(&root, 0..0, "the test", &problems);
    let gateway = gateway::gateway(None, &root, &machine).expect("a gateway");
    let readers: Vec<(&Section, Vec<&str>)> = vec![
        (
            &GATEWAY,
            asked(|keys| {
                let _ = gateway::gateway(Some(keys), &root, &machine);
            }),
        ),
        (
            &LOCATION,
            asked(|keys| {
                let _ = place::place_of(keys);
            }),
        ),
        (
            &CLOCK,
            asked(|keys| {
                let _ = crate::config::clock::clock(keys);
            }),
        ),
        (
            &HARDWARE,
            asked(|keys| {
                let _ = hardware::hardware(Some(keys));
            }),
        ),
        (
            &HARDWARE_FAULT,
            asked(|keys| {
                let _ = hardware::fault(keys);
            }),
        ),
        (
            &EXPANDER,
            asked(|keys| {
                let _ = hardware::one_expander(keys, "test");
            }),
        ),
        (
            &INTERRUPT,
            asked(|keys| {
                let _ = hardware::interrupt(keys);
            }),
        ),
        (
            &OUTBOX,
            asked(|keys| {
                let _ = gateway::outbox(Some(keys), &around);
            }),
        ),
        (
            &OUTBOX_KEY,
            asked(|keys| {
                let _ = outbox_key::from_table(keys, &around);
            }),
        ),
        (
            &ARCHIVE,
            asked(|keys| {
                let _ = gateway::archive(keys, &around);
            }),
        ),
        (
            &UPLINK,
            asked(|keys| {
                let _ = uplink::uplink(keys, "test", &gateway, &around);
            })
            .into_iter()
            .filter(|key| PAYLOAD.keys.iter().all(|other| other.name != *key))
            .collect(),
        ),
        (
            &PAYLOAD,
            asked(|keys| {
                let _ = payload::payload(keys);
            }),
        ),
        (
            &BATCH,
            asked(|keys| {
                let _ = payload::batch_keys(keys);
            }),
        ),
        (
            &SPARKPLUG,
            asked(|keys| {
                let _ = crate::config::sparkplug::names(keys, &gateway, &around);
            }),
        ),
        (
            &PRIVACY,
            asked(|keys| {
                let _ = privacy::privacy_keys(keys, &around);
            }),
        ),
        (
            &RATE,
            asked(|keys| {
                let _ = privacy::rate_keys(keys);
            }),
        ),
        (
            &INTEGRITY,
            asked(|keys| {
                let _ = integrity::integrity_keys(keys, &around);
            }),
        ),
        (
            &PASSWORD,
            asked(|keys| {
                let _ = secret::from_table(keys, &around);
            }),
        ),
        (
            &TLS,
            asked(|keys| {
                let _ = connection::tls_keys(keys, &around);
            }),
        ),
        (
            &PROXY,
            asked(|keys| {
                let _ = connection::proxy_keys(keys, &around);
            }),
        ),
        (
            &BROKER,
            asked(|keys| {
                let _ = (
                    broker::broker(keys, &around),
                    uplink::commands(keys),
                    uplink::audit(keys),
                    crate::config::lan::lists(keys),
                );
            }),
        ),
        (
            &BROKER_LISTENER,
            asked(|keys| {
                let _ = broker::listener(keys, &around);
            }),
        ),
        (
            &LISTENER_TLS,
            asked(|keys| {
                let _ = broker::tls(keys, &around);
            }),
        ),
        (
            &BROKER_USER,
            asked(|keys| {
                let _ = broker::user(keys, "test");
            }),
        ),
        (
            &BROKER_JWT,
            asked(|keys| {
                let _ = crate::config::broker_watch::jwt(keys, &around);
            }),
        ),
        (
            &BROKER_WATCH,
            asked(|keys| {
                let _ = crate::config::broker_watch::watch(keys);
            }),
        ),
        (
            &BROKER_LIMITS,
            asked(|keys| {
                let _ = broker::limits(keys);
            }),
        ),
        (
            &BROKER_INGEST,
            asked(|keys| {
                let _ = crate::config::lan::ingest(keys);
            }),
        ),
        (
            &BROKER_DELIVER,
            asked(|keys| {
                let _ = crate::config::lan::deliver(keys);
            }),
        ),
        (
            &ROOM,
            asked(|keys| {
                let _ = sensor::room(keys);
            }),
        ),
        (
            &SENSOR,
            asked(|keys| {
                sensor::driver(keys, &[]);
                sensor::common(keys, None);
            }),
        ),
        (
            &POWER,
            asked(|keys| {
                let _ = hardware::power(keys);
            }),
        ),
        (
            &CHANGE,
            asked(|keys| {
                let _ = quantities::relative(keys);
            }),
        ),
        (
            &QUANTITY,
            asked(|keys| {
                let _ = quantities::quantity(keys);
            }),
        ),
    ];
    assert_eq!(readers.len(), SECTIONS.len());
    for (section, asked) in readers {
        assert_eq!(documented(section), asked, "{}", section.title);
    }
}

#[test]
fn no_driver_may_take_a_common_key() {
    for key in documented(&SENSOR) {
        assert!(COMMON_KEYS.contains(&key), "{key}");
    }
}

#[test]
fn the_documentation_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, docs()).expect("writable documentation");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == docs(), "docs/configuration.md is not current: run UPDATE_DOCS=1 cargo test");
}
