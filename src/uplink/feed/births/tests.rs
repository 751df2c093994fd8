//! In which order a host is told, whatever happens to the sensors.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use rumqttc::mqttbytes::v4::Packet;
use tokio::io::DuplexStream;

use crate::clock::Clock;
use crate::config::{Format, Payload, PayloadShape, Qos, Sparkplug, UplinkConfig};
use crate::outbox::{Body, Moment};
use crate::reading::{Descriptor, Kind, Quantity, Value};
use crate::topic::Template;
use crate::uplink::Hub;
use crate::uplink::dating::Date;
use crate::uplink::scripted::{Peer, Setup, config, run};
use crate::uplink::sparkplug::schema;

fn setup() -> Setup {
    setup_with(|_| ())
}

fn setup_with(change: impl FnOnce(&mut UplinkConfig)) -> Setup {
    let mut config = config(Qos::AtMostOnce, 4);
    (config.retain, config.state) = (false, false);
    config.sparkplug = Some(Sparkplug {
        group: "usine".to_owned(),
        node: "pi".to_owned(),
        primary_host: None,
        writable: BTreeMap::new(),
    });
    let topic = Template::parse("spBv1.0/usine/DDATA/pi/{sensor}").expect("a template");
    config.payload =
        Payload { format: Format::SparkplugB, shape: PayloadShape::Sensor, topic: Some(topic), ..Payload::default() };
    change(&mut config);
    Setup::new(config)
}

fn descriptor(sensor: &str, names: &[&str]) -> Arc<Descriptor> {
    let quantity = |name: &&str| Quantity::new(name, Some("V"), Kind::Number);
    Arc::new(Descriptor {
        gateway: "atelier".into(),
        sensor: sensor.into(),
        quantities: names.iter().map(quantity).collect(),
        ..Descriptor::default()
    })
}

/// A sensor gives values of the first quantities that it has, as the core takes them.
fn give(hub: &Rc<Hub>, descriptor: &Arc<Descriptor>, numbers: &[f64]) {
    append(hub, descriptor, numbers);
    hub.outbox.borrow_mut().commit(hub.clock.boot());
    hub.appended();
}

/// The same, before the batch that it belongs to is committed.
fn append(hub: &Rc<Hub>, descriptor: &Arc<Descriptor>, numbers: &[f64]) {
    let now = hub.clock.boot();
    let values = (0..).zip(numbers).map(|(index, number)| (index, Value::number(*number).expect("finite")));
    let (descriptor, values) = (Arc::clone(descriptor), values.collect());
    hub.sensor_gave(&descriptor, &values, now, hub.now());
    hub.outbox.borrow_mut().append(now, hub.now(), Body::Reading { descriptor, values });
}

/// The next message in short: its kind and device, and its metrics, such as `a=1` or, where it is history, `a~1`. Metrics
/// have the names that births have given to their aliases.
async fn next(peer: &mut Peer<DuplexStream>, names: &mut Vec<(u64, String)>) -> String {
    let message = loop {
        match peer.next().await {
            Some(Packet::Publish(message)) => break message,
            Some(Packet::Subscribe(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    let payload = schema::Payload::decode(&message.payload[..]).expect("protobuf");
    let mut text = message.topic.trim_start_matches("spBv1.0/usine/").replace("/pi", "");
    for metric in payload.metrics {
        let alias = metric.alias.unwrap_or_default();
        if let Some(name) = metric.name {
            names.push((alias, name));
        }
        let name = names.iter().rfind(|(known, _)| *known == alias).map_or("?", |(_, name)| name);
        let sign = if metric.is_historical == Some(true) { '~' } else { '=' };
        match metric.value {
            Some(schema::Value::Double(number)) => text.push_str(&format!(" {name}{sign}{number}")),
            None if metric.is_null == Some(true) => text.push_str(&format!(" {name}{sign}null")),
            _ => {}
        }
    }
    text
}

async fn expect(peer: &mut Peer<DuplexStream>, expected: &[&str]) {
    let mut names = Vec::new();
    for expected in expected {
        assert_eq!(next(peer, &mut names).await, *expected);
    }
}

#[test]
fn what_waits_of_a_sensor_that_is_gone_is_told_between_its_birth_and_its_death() {
    let mut setup = setup();
    let (gone, here) = (descriptor("cave", &["a"]), descriptor("meteo", &["a", "b"]));
    give(&setup.hub, &gone, &[1.0]);
    give(&setup.hub, &gone, &[2.0]);
    give(&setup.hub, &here, &[3.0]);
    setup.clock.advance(Duration::from_secs(60));
    setup.hub.sensor_turned("meteo", true);
    setup.hub.sensor_turned("cave", false);
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        let told = [
            "NBIRTH",
            "DBIRTH/meteo a=3 b=null",
            "DBIRTH/cave a=null",
            "DDATA/cave a~1",
            "DDATA/cave a~2",
            "DDATA/meteo a~3",
            "DDEATH/cave",
        ];
        expect(broker, &told).await;
    }))
    .expect_err("closed by the script");
    assert_eq!(setup.backlog(), 0);
}

#[test]
fn what_a_sensor_gave_before_it_failed_comes_before_its_death() {
    let mut setup = setup();
    let (hub, meteo) = (setup.hub.clone(), descriptor("meteo", &["a"]));
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        expect(broker, &["NBIRTH"]).await;
        hub.sensor_turned("meteo", true);
        give(&hub, &meteo, &[1.0]);
        expect(broker, &["DBIRTH/meteo a=1", "DDATA/meteo a=1"]).await;
        hub.sensor_turned("meteo", false);
        give(&hub, &meteo, &[2.0]);
        expect(broker, &["DDATA/meteo ?=2", "DDEATH/meteo"]).await;
        // Back, although its value is the same, so that there is no record of it.
        hub.sensor_turned("meteo", true);
        hub.appended();
        expect(broker, &["DBIRTH/meteo a=2"]).await;
    }))
    .expect_err("closed by the script");
}

#[test]
fn a_quantity_that_is_not_in_the_birth_and_a_unit_that_changes_ask_for_another() {
    let mut setup = setup();
    let hub = setup.hub.clone();
    let mut other = Descriptor::clone(&descriptor("meteo", &["a", "b"]));
    other.quantities[0].unit = Some("mV".into());
    let (first, second, third) = (descriptor("meteo", &["a"]), descriptor("meteo", &["a", "b"]), Arc::new(other));
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        hub.sensor_turned("meteo", true);
        let mut names = Vec::new();
        for (descriptor, numbers, births) in
            [(&first, &[1.0][..], 1), (&first, &[2.0], 1), (&second, &[3.0, 4.0], 2), (&third, &[5.0, 6.0], 3)]
        {
            give(&hub, descriptor, numbers);
            let data = format!("DDATA/meteo a={}", numbers[0]);
            while !next(broker, &mut names).await.starts_with(&data) {}
            assert_eq!(names.iter().filter(|(_, name)| name == "a").count(), births);
        }
    }))
    .expect_err("closed by the script");
}

#[test]
fn what_is_older_than_the_value_in_the_birth_is_history() {
    let mut setup = setup();
    let meteo = descriptor("meteo", &["a"]);
    setup.hub.sensor_turned("meteo", true);
    // The last two in one batch.
    give(&setup.hub, &meteo, &[1.0]);
    append(&setup.hub, &meteo, &[2.0]);
    give(&setup.hub, &meteo, &[3.0]);
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        expect(broker, &["NBIRTH", "DBIRTH/meteo a=3", "DDATA/meteo a~1", "DDATA/meteo a~2", "DDATA/meteo a=3"]).await;
    }))
    .expect_err("closed by the script");
}

#[test]
fn the_record_of_a_value_in_a_birth_keeps_the_date_that_it_had_there() {
    let mut setup = setup_with(|config| config.backlog.rate = Some(0.01));
    let (hub, clock, meteo) = (setup.hub.clone(), setup.clock.clone(), descriptor("meteo", &["a"]));
    hub.sensor_turned("meteo", true);
    for number in [1.0, 2.0, 3.0] {
        clock.advance(Duration::from_secs(1));
        give(&hub, &meteo, &[number]);
    }
    let last = Moment { boot: hub.boot, at: clock.boot(), time: None };
    clock.advance(Duration::from_secs(60));
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        expect(broker, &["NBIRTH", "DBIRTH/meteo a=3", "DDATA/meteo a~1"]).await;
        let date = hub.dating().date_of(&last);
        clock.step(-40_000_000_000);
        hub.look_at_clock();
        assert_eq!(hub.dating().date_of(&last), date, "the host has it already");
        let now = Moment { at: clock.boot(), ..last };
        assert_eq!(hub.dating().date_of(&now), Date::Wall(clock.look().wall));
    }))
    .expect_err("closed by the script");
}
