//! Several readings in one message: when they go, what is in them, and what becomes of those that do not fit.

use std::time::Duration;

use rumqttc::mqttbytes::v4::{Packet, Publish};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::{Batch, Field, Format, Payload, Qos, UplinkConfig};
use crate::outbox::Body;
use crate::reading::{Descriptor, Kind, Quantity, Value};
use crate::topic::Template;
use crate::uplink::scripted::{Setup, config, run};
use crate::uplink::{Hub, LIVE_WITHIN};

const WAIT: Duration = Duration::from_secs(10);

fn batched(qos: Qos, max: u16) -> UplinkConfig {
    let payload = Payload {
        format: Format::JsonArray,
        fields: vec![Field::Value],
        batch: Some(Batch { max, wait: WAIT }),
        topic: Some(Template::parse("{site}/all").expect("a template")),
        ..Payload::default()
    };
    UplinkConfig { payload, retain: false, ..config(qos, 8) }
}

fn take(hub: &Hub, sensor: &str, values: impl IntoIterator<Item = Value>) {
    let quantity = Quantity::new("q", None, Kind::Number);
    let descriptor = Descriptor {
        gateway: "atelier".into(),
        site: Some("maison".into()),
        room: Some("salon".into()),
        sensor: sensor.into(),
        quantities: vec![quantity],
        ..Descriptor::default()
    };
    let descriptor = std::sync::Arc::new(descriptor);
    let outbox = &mut *hub.outbox.borrow_mut();
    for value in values {
        let body = Body::Reading { descriptor: descriptor.clone(), values: vec![(0, value)] };
        outbox.append(hub.clock.boot(), hub.now(), body);
    }
    outbox.commit(hub.clock.boot());
}

fn take_numbers(hub: &Hub, sensor: &str, numbers: std::ops::Range<u32>) {
    take(hub, sensor, numbers.map(|number| Value::number(f64::from(number)).expect("finite")));
    hub.appended();
}

fn values(message: &Publish) -> Vec<u64> {
    let json: serde_json::Value = serde_json::from_slice(&message.payload).expect("JSON");
    json.as_array().expect("an array").iter().map(|element| element["value"].as_u64().expect("a number")).collect()
}

fn all(messages: &[Publish]) -> Vec<Vec<u64>> {
    messages.iter().map(values).collect()
}

fn range(numbers: std::ops::Range<u64>) -> Vec<u64> {
    numbers.collect()
}

#[test]
fn the_backlog_fills_messages_at_once_and_live_readings_wait_for_others() {
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let mut setup = Setup::new(batched(qos, 10));
        // Of two sensors: the topic is the same.
        take_numbers(&setup.hub, "a", 0..12);
        take_numbers(&setup.hub, "b", 12..25);
        setup.clock.advance(LIVE_WITHIN);
        let (hub, clock) = (setup.hub.clone(), setup.clock.clone());
        run(setup.connection(async |broker| {
            broker.connack(false).await;
            let backlog = broker.behave(3).await;
            assert_eq!(all(&backlog), [range(0..10), range(10..20), range(20..25)]);
            assert!(backlog.iter().all(|message| message.topic == "maison/all" && !message.retain));

            take_numbers(&hub, "a", 100..103);
            broker.sync().await;
            clock.advance(WAIT - Duration::from_millis(1));
            take_numbers(&hub, "b", 103..105);
            broker.sync().await;
            clock.advance(Duration::from_millis(1));
            broker.send(&[0xd0, 0]).await;
            assert_eq!(all(&broker.behave(1).await), [range(100..105)], "the oldest has waited long enough");

            // As soon as there are enough, nobody waits.
            take_numbers(&hub, "a", 200..215);
            assert_eq!(all(&broker.behave(1).await), [range(200..210)]);
            broker.sync().await;
        }))
        .expect_err("closed by the script");
        assert_eq!(setup.backlog(), 5, "{qos:?}");
    }
}

#[test]
fn before_an_end_nothing_waits() {
    let mut setup = Setup::new(batched(Qos::AtLeastOnce, 10));
    let (hub, clock) = (setup.hub.clone(), setup.clock.clone());
    let (stop, told) = watch::channel(None);
    run(setup.connection_until(told, 16 * 1_024, async |broker| {
        broker.connack(false).await;
        broker.sync().await;
        take_numbers(&hub, "a", 0..3);
        broker.sync().await;
        stop.send_replace(Some(clock.boot().after(Duration::from_secs(5))));
        assert_eq!(all(&broker.behave(1).await), [range(0..3)]);
        let Some(Packet::Publish(farewell)) = broker.next().await else { panic!("no farewell") };
        broker.ack(farewell.pkid).await;
        assert_eq!(broker.next().await, Some(Packet::Disconnect));
    }))
    .expect("an orderly end");
    assert_eq!(setup.backlog(), 0);
}

#[test]
fn what_is_sent_again_is_made_of_the_same() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let mut setup = Setup::new(batched(qos, 10));
        take_numbers(&setup.hub, "a", 0..25);
        setup.clock.advance(LIVE_WITHIN);
        let mut first = Vec::new();
        run(setup.connection(async |broker| {
            broker.connack(false).await;
            first = broker.readings(1).await;
            broker.sync().await;
        }))
        .expect_err("closed by the script");
        // More has come, and the file now says that more fit into a message.
        take_numbers(&setup.hub, "a", 25..40);
        setup.config.payload.batch = Some(Batch { max: 40, wait: WAIT });
        let mut setup = setup.killed();
        setup.clock.advance(LIVE_WITHIN);
        run(setup.connection(async |broker| {
            broker.connack(true).await;
            let again = broker.behave(2).await;
            assert_eq!((again[0].pkid, again[0].dup, &again[0].payload), (first[0].pkid, true, &first[0].payload));
            assert_eq!((values(&again[1]), again[1].dup), (range(10..40), false));
            broker.sync().await;
        }))
        .expect_err("closed by the script");
        assert_eq!(setup.backlog(), 0, "{qos:?}");
        assert_eq!(setup.hub.counters("home").possible_duplicates.get(), 0);
    }
}

/// Of a message that was sent in another form, or on another topic, the broker's packet id means nothing any more.
#[test]
fn a_session_of_other_messages_is_not_taken_up() {
    let mut setup = Setup::new(batched(Qos::ExactlyOnce, 10));
    take_numbers(&setup.hub, "a", 0..5);
    setup.clock.advance(LIVE_WITHIN);
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        broker.readings(1).await;
        broker.sync().await;
    }))
    .expect_err("closed by the script");
    setup.config.payload.batch = None;
    setup.config.payload.format = Format::Json;
    let setup = setup.killed();
    assert!(setup.feed.is_stranger(true));
    assert_eq!((setup.feed.session().in_flight(), setup.backlog()), (0, 5));
}

#[test]
fn a_message_is_cut_to_what_fits_and_one_reading_too_large_is_refused_alone() {
    let mut setup = Setup::new(batched(Qos::AtLeastOnce, 100));
    setup.config.max_packet = 1_024;
    let mut setup = setup.killed();
    take_numbers(&setup.hub, "a", 0..200);
    take(&setup.hub, "a", [Value::Text("x".repeat(2_000).into())]);
    take_numbers(&setup.hub, "a", 200..203);
    setup.clock.advance(LIVE_WITHIN);
    let mut sizes = Vec::new();
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        let mut found = Vec::new();
        while found.len() < 203 {
            let messages = broker.behave(1).await;
            sizes.push(messages[0].payload.len());
            found.extend(values(&messages[0]));
        }
        assert_eq!(found, range(0..203));
        broker.sync().await;
    }))
    .expect_err("closed by the script");
    assert!(sizes.iter().all(|size| *size < 1_024) && sizes[0] > 800, "{sizes:?}");
    assert!(sizes.len() <= 8, "they are filled: {sizes:?}");
    assert_eq!((setup.backlog(), setup.hub.counters("home").refused.get()), (0, 1));
}

#[test]
fn a_broker_that_takes_less_than_before_gets_it_in_pieces() {
    let mut setup = Setup::new(batched(Qos::AtLeastOnce, 100));
    take_numbers(&setup.hub, "a", 0..60);
    setup.clock.advance(LIVE_WITHIN);
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        assert_eq!(all(&broker.readings(1).await), [range(0..60)]);
        broker.sync().await;
    }))
    .expect_err("closed by the script");
    setup.config.max_packet = 512;
    let mut setup = setup.killed();
    run(setup.connection(async |broker| {
        broker.connack(true).await;
        let mut found = Vec::new();
        while found.len() < 60 {
            found.extend(values(&broker.behave(1).await[0]));
        }
        assert_eq!(found, range(0..60));
        broker.sync().await;
    }))
    .expect_err("closed by the script");
    let counters = setup.hub.counters("home");
    assert_eq!((setup.backlog(), counters.refused.get(), counters.possible_duplicates.get()), (0, 0, 1));
}

#[test]
fn what_has_no_place_among_others_does_not_wait_for_them() {
    let mut setup = Setup::new(batched(Qos::AtLeastOnce, 10));
    let hub = setup.hub.clone();
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        broker.sync().await;
        take(&hub, "a", [Value::Bytes([1, 2].into())]);
        hub.appended();
        assert_eq!(broker.behave(1).await[0].payload, [1, 2].as_slice());
        take_numbers(&hub, "a", 0..2);
        take(&hub, "a", [Value::Bytes([3].into())]);
        hub.appended();
        let found = broker.behave(2).await;
        assert_eq!((values(&found[0]), &found[1].payload[..]), (range(0..2), [3].as_slice()));
    }))
    .expect_err("closed by the script");
    assert_eq!(setup.backlog(), 0);
}

/// What an uplink leaves out lies between the readings that it sends, and parts no message.
#[test]
fn what_is_left_out_parts_no_message() {
    let mut setup = Setup::new(batched(Qos::ExactlyOnce, 10));
    setup.config.selection.sensors = vec!["a".to_owned()];
    let mut setup = setup.killed();
    for number in 0..6 {
        take_numbers(&setup.hub, "b", number..number + 1);
        take_numbers(&setup.hub, "a", number..number + 1);
    }
    setup.clock.advance(LIVE_WITHIN);
    for connection in 0..2 {
        run(setup.connection(async |broker| {
            broker.connack(connection > 0).await;
            if connection == 0 {
                assert_eq!(all(&broker.readings(1).await), [range(0..6)]);
            } else {
                assert_eq!(all(&broker.behave(1).await), [range(0..6)]);
            }
            broker.sync().await;
        }))
        .expect_err("closed by the script");
    }
    assert_eq!(setup.backlog(), 0);
}
