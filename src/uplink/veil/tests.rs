//! Prevents: a name that goes out although there is a pseudonym for it.

use std::time::Duration;

use secrecy::SecretBox;

use super::*;
use crate::clock::BootId;
use crate::config::{FORMATS, Field, Payload, PayloadShape};
use crate::outbox::{Entry, Raw};
use crate::reading::{Fault, FaultCode, Kind, Quantity, Value};
use crate::topic::Template;
use crate::uplink::encode::{Cut, Encoder, Part, Settings};
use crate::uplink::scripted::{Setup, config};

/// Every name that there is in these tests. None is a part of any other word of a payload.
const NAMES: [&str; 8] = ["maison", "salon", "Grand", "meteo", "Station", "etage7", "atelier", "outright"];

fn finite(number: f64) -> Finite {
    Finite::new(number).expect("finite")
}

fn veil(privacy: Privacy) -> Veil {
    let key = Arc::new(SecretBox::new(Box::new([7; 32])));
    Veil::new(&Privacy { pseudonyms: Some(Pseudonyms::new(&key)), ..privacy })
}

fn descriptor() -> Arc<Descriptor> {
    let quantity = |name: &str, topic: Option<&str>| Quantity {
        name: name.into(),
        unit: Some("°C".into()),
        kind: Kind::Number,
        topic: topic.map(Into::into),
        content_type: None,
    };
    Arc::new(Descriptor {
        gateway: "atelier".into(),
        site: Some("maison".into()),
        room: Some("salon".into()),
        room_label: Some("Grand salon".into()),
        sensor: "meteo".into(),
        label: Some("Station".into()),
        location: Some(Location {
            latitude: finite(47.5921),
            longitude: finite(-0.9117),
            altitude: Some(finite(85.0)),
        }),
        tags: vec![("floor".into(), "etage7".into())],
        quantities: vec![quantity("temperature", None), quantity("inside", Some("outright/topic"))],
    })
}

fn entry(body: Body) -> Entry {
    Entry { seq: 1_042, run: 17, boot: BootId([0xab; 16]), at: BootTime(83_004_567_891), time: None, place: None, body }
}

fn reading() -> Entry {
    let value = |index| (index, Value::Number(finite(21.5)));
    entry(Body::Reading { descriptor: descriptor(), values: vec![value(0), value(1)] })
}

fn assert_no_name(text: &str, of: &str) {
    for name in NAMES {
        assert!(!text.contains(name), "{of}: `{name}` is in {text}");
    }
}

/// Topics and payloads of a record in a form.
fn encoded(payload: Payload, veil: Veil, entry: &Entry, date: Date) -> Vec<(String, String)> {
    let template = Template::parse("{site}/{gateway}/{tag.floor}/{room}/{sensor}/{quantity}").expect("a template");
    let shape = payload.shape;
    let mut encoder = Encoder::new(Settings { template, payload, retain: true, backlog_topic: None, veil });
    let cut = Cut { shape, backlog: false, now: (entry.boot, entry.at) };
    let cuts = if shape == PayloadShape::Sensor { vec![(1_042, 1_044)] } else { vec![(1_042, 1_043), (1_043, 1_044)] };
    let mut found = Vec::new();
    for (from, to) in cuts {
        let part = Part { entry, seqs: from..to, date };
        let message = encoder.message(&[part], cut).expect("a message");
        found.push((message.topic.to_owned(), String::from_utf8_lossy(message.payload).into_owned()));
    }
    found
}

#[test]
fn no_name_is_in_any_form() {
    let source = "{{ id }} {{ gateway }} {{ site }} {{ room }} {{ room_label }} {{ sensor }} {{ label }} {{ tags }}";
    let names = ["id", "gateway", "site", "room", "room_label", "sensor", "label", "tags"];
    for info in FORMATS {
        let payload = |shape| Payload {
            format: info.format,
            shape,
            fields: Field::ALL.iter().map(|(_, field)| *field).collect(),
            template: Some(crate::template::Template::parse(source, &names).expect("a template")),
            channel: [("meteo/temperature".to_owned(), 1), ("inside".to_owned(), 2)].into(),
            ..Payload::default()
        };
        let date = Date::Wall(WallTime(1_795_256_130_123_000_000));
        let plain = encoded(payload(info.shape), Veil::default(), &reading(), date);
        assert!(plain.iter().any(|(topic, _)| topic.contains("salon")), "{plain:?}");
        for (topic, payload) in encoded(payload(info.shape), veil(Privacy::default()), &reading(), date) {
            assert_no_name(&format!("{topic} {payload}"), info.name);
            assert!(!payload.contains("1042"), "{}: {payload}", info.name);
            assert_eq!(topic.split('/').count(), if info.shape == PayloadShape::Sensor { 5 } else { 6 }, "{topic}");
            assert!(!payload.is_empty(), "{}", info.name);
        }
    }
}

#[test]
fn one_name_has_one_pseudonym_everywhere() {
    let veil = veil(Privacy::default());
    let room = veil.name(Named::Room, "salon");
    let date = Date::Wall(WallTime(0));
    let found = encoded(Payload::default(), veil.clone(), &reading(), date);
    assert!(found.iter().all(|(topic, payload)| topic.contains(&*room) && payload.contains(&*room)), "{found:?}");
    assert_ne!(veil.name(Named::Sensor, "salon"), room, "what it is counts, too");
    assert_ne!(found[0].1, found[1].1);
}

#[test]
fn state_and_will_have_no_names_either() {
    let uplink = |veiled: bool| crate::config::UplinkConfig {
        privacy: if veiled { veil(Privacy::default()).0 } else { Privacy::default() },
        ..config(crate::config::Qos::AtLeastOnce, 4)
    };
    for veiled in [false, true] {
        let setup = Setup::new(uplink(veiled));
        let template = Template::parse("{site}/{room}/{sensor}/{quantity}").expect("a template");
        let fault = Fault::new(FaultCode::Missing, "salon: /dev/ttyUSB0 is not there");
        setup.hub.set_sensor_availability(&template, &descriptor(), Err(&fault));
        setup.hub.update_info(|info| {
            info.label = Some("Grand atelier".to_owned());
            info.configuration = "9ab3".to_owned();
            info.brokers.insert("home".to_owned(), "mqtt://maison.lan".to_owned());
        });
        setup.hub.set_gateway_state("clock", "{\"of\":\"atelier\"}", |_, _| None);
        let state = setup.hub.state_of("home");
        let has = |leaf: &str| state.iter().any(|(topic, _)| topic.ends_with(leaf));
        assert!(has("/availability") && has("/info"), "{state:?}");
        assert_eq!(has("/clock"), !veiled);
        let will = setup.hub.topic_of("home", "availability");
        assert!(state.iter().any(|(topic, payload)| *topic == will && payload.contains("online")), "{will} {state:?}");
        let text = format!("{state:?}");
        if veiled {
            assert_no_name(&text, "state");
            assert!(text.contains("missing") && !text.contains("ttyUSB0") && !text.contains("9ab3"), "{text}");
        } else {
            assert!(text.contains("Grand atelier") && text.contains("ttyUSB0") && text.contains("9ab3"), "{text}");
        }
    }
}

#[test]
fn what_others_wrote_does_not_go_out_under_pseudonyms() {
    let raw = Body::Raw(Raw { topic: "maison/tv".into(), payload: Box::default(), retain: false });
    let mut sensor = Descriptor::clone(&descriptor());
    sensor.quantities[0].topic =
        Some(topic::result_topic(&Template::parse("{room}/{sensor}").expect("ours"), &sensor).into());
    let result = Body::Reading { descriptor: Arc::new(sensor), values: vec![(0, Value::Bytes(Box::default()))] };
    for body in [&raw, &result] {
        assert!(!veil(Privacy::default()).admits(body));
        assert!(Veil::default().admits(body));
    }
    assert!(veil(Privacy::default()).admits(&reading().body));
}

#[test]
fn times_and_places_become_coarse() {
    let privacy = Privacy {
        time_grain: Some(Duration::from_secs(60)),
        place_decimals: Some(1),
        omit: vec![Omit::Tags],
        ..Privacy::default()
    };
    let veil = Veil::new(&privacy);
    let mut record = reading();
    let all = encoded(Payload::default(), veil.clone(), &record, Date::Wall(WallTime(1_795_256_130_123_000_000)));
    let expected = r#""time":"2026-11-21T10:15:00.000Z""#;
    assert!(all[0].1.contains(expected), "{all:?}");
    assert!(all[0].1.contains(r#""location":{"latitude":47.6,"longitude":-0.9}"#), "{all:?}");
    assert!(all[0].1.contains("Grand salon") && !all[0].1.contains("etage7"), "{all:?}");
    let fix = Fix {
        location: Location { latitude: finite(-0.04), longitude: finite(179.96), altitude: Some(finite(3.0)) },
        accuracy: Some(finite(4.4)),
        age: 250,
    };
    record.place = Some(fix);
    let undated = Date::Uptime(record.boot, record.at);
    let all = encoded(Payload::default(), veil, &record, undated);
    assert!(all[0].1.contains(r#""uptime":60.000"#), "{all:?}");
    assert!(all[0].1.contains(r#""location":{"latitude":0,"longitude":180,"age":0.25}"#), "{all:?}");
    let nowhere = Veil::new(&Privacy { omit: vec![Omit::Location, Omit::Labels], ..Privacy::default() });
    let all = encoded(Payload::default(), nowhere, &record, undated);
    assert!(!all[0].1.contains("location") && !all[0].1.contains("Grand"), "{all:?}");
}

proptest::proptest! {
    #[test]
    fn a_coarse_time_is_never_later_and_never_off_by_more_than_its_grain(nanos in proptest::prelude::any::<i64>(), seconds in 1_u64..86_400) {
        let veil = Veil::new(&Privacy { time_grain: Some(Duration::from_secs(seconds)), ..Privacy::default() });
        let grain = i128::from(seconds) * 1_000_000_000;
        if let Date::Wall(WallTime(coarse)) = veil.date(Date::Wall(WallTime(nanos))) {
            let off = i128::from(nanos) - i128::from(coarse);
            proptest::prop_assert!(off < grain && (off >= 0 || coarse == i64::MIN));
            proptest::prop_assert!(i128::from(coarse) % grain == 0 || coarse == i64::MIN);
        }
        let at = nanos.unsigned_abs();
        if let Date::Uptime(_, BootTime(coarse)) = veil.date(Date::Uptime(BootId([1; 16]), BootTime(at))) {
            proptest::prop_assert!(coarse <= at && i128::from(at - coarse) < grain);
        }
    }
}
