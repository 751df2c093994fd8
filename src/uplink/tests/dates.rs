//! Readings of which nobody knows the date yet, or no more.

use std::time::{Duration, UNIX_EPOCH};

use crate::clock::Clock;
use crate::config::Qos;
use crate::reading::{Descriptor, Finite, Kind, Quantity, Value};
use crate::uplink::scripted::{Setup, config, run};

#[test]
fn undated_readings_wait_for_the_clock() {
    let mut setup = Setup::without_time(config(Qos::AtLeastOnce, 4));
    setup.config.clock_wait = Duration::from_secs(60);
    let (hub, clock) = (setup.hub.clone(), setup.clock.clone());
    clock.advance(Duration::from_secs(5));
    take_reading(&setup, 21.5);
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        broker.sync().await;
        clock.advance(Duration::from_secs(10));
        broker.sync().await;
        clock.set_wall(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        hub.look_at_clock();
        let message = broker.reading().await;
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        assert!(text.contains(r#""time":"2027-01-15T07:59:50.000Z""#) && text.contains(r#""clock":"set""#), "{text}");
    }))
    .expect_err("closed by the script");
    drop(hub);
    let setup = setup.killed();
    assert!(setup.hub.dating().offset(setup.boot).is_some(), "the offset survives");
}

#[test]
fn a_date_that_was_told_is_told_again_after_a_step() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 4));
    let (hub, clock) = (setup.hub.clone(), setup.clock.clone());
    let time = |payload: &[u8]| {
        let json: serde_json::Value = serde_json::from_slice(payload).expect("JSON");
        json["time"].as_str().expect("it has a time").to_owned()
    };
    take_reading(&setup, 1.0);
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        assert_eq!(time(&broker.reading().await.payload), "2027-01-15T08:00:00.000Z");
        clock.advance(Duration::from_secs(1));
        clock.step(40_000_000_000);
        hub.look_at_clock();
    }))
    .expect_err("closed by the script");
    drop(hub);
    // A restart makes no difference.
    let mut setup = setup.killed();
    take_reading(&setup, 2.0);
    run(setup.connection(async |broker| {
        broker.connack(true).await;
        for _ in 0..3 {
            assert_eq!(time(&broker.reading().await.payload), "2027-01-15T08:00:00.000Z");
        }
        assert_eq!(time(&broker.reading().await.payload), "2027-01-15T08:00:41.000Z");
    }))
    .expect_err("closed by the script");
}

#[test]
fn undated_readings_go_out_as_such_when_the_wait_is_over() {
    let mut setup = Setup::without_time(config(Qos::AtLeastOnce, 4));
    setup.config.clock_wait = Duration::from_secs(60);
    let clock = setup.clock.clone();
    clock.advance(Duration::from_secs(5));
    take_reading(&setup, 21.5);
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        broker.sync().await;
        clock.advance(Duration::from_secs(60));
        broker.send(&[0xd0, 0]).await;
        let message = broker.reading().await;
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        assert!(text.contains(r#""clock":"unset","boot":"01010101010101010101010101010101","uptime":5.000"#), "{text}");
        assert!(!text.contains("time\":\""), "{text}");
    }))
    .expect_err("closed by the script");
}

/// Takes one with three values of the same number.
pub(super) fn take_reading(setup: &Setup, value: f64) {
    let quantity = |name: &str| Quantity::new(name, None, Kind::Number);
    let descriptor = Descriptor {
        gateway: "atelier".into(),
        site: Some("maison".into()),
        room: Some("salon".into()),
        sensor: "meteo".into(),
        quantities: vec![quantity("a"), quantity("b"), quantity("c")],
        ..Descriptor::default()
    };
    let values = (0..3).map(|index| (index, Value::Number(Finite::new(value).expect("finite")))).collect();
    let body = crate::outbox::Body::Reading { descriptor: descriptor.into(), values };
    setup.hub.outbox.borrow_mut().append(setup.clock.boot(), setup.hub.now(), body);
    setup.hub.outbox.borrow_mut().commit(setup.clock.boot());
    setup.hub.appended();
}
