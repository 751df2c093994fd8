//! What a broker of MQTT 5 allows is kept to, and what it offers is used.

use std::time::Duration;

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::Packet;
use rumqttc::v5::mqttbytes::v5::PublishProperties;

use crate::clock::Clock;
use crate::config::Qos;
use crate::uplink::failure::Failure;
use crate::uplink::packet::Limits;
use crate::uplink::scripted::{config, ids, numbers, run, texts};
use crate::uplink::terms::WillForm;

use super::dates::take_reading;
use super::v5::{failure, setup};

#[test]
fn the_window_is_what_the_broker_takes() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        for maximum in [1_u8, 3] {
            let mut setup = setup(qos, 1_000);
            setup.take_numbers(40);
            let limit = [0x21, 0, maximum];
            run(setup.connection(async |broker| {
                broker.receive_maximum(usize::from(maximum));
                broker.connack_with(false, &limit).await;
                assert_eq!(texts(&broker.behave(40).await), numbers(40), "{qos:?} {maximum}");
                broker.sync().await;
            }))
            .expect_err("closed by the script");
            assert_eq!(setup.backlog(), 0);
        }
    }
}

#[test]
fn a_replay_keeps_to_what_the_broker_takes_now() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let mut setup = setup(qos, 10);
        setup.take_numbers(20);
        run(setup.connection(async |broker| {
            broker.connack(false).await;
            assert_eq!(broker.readings(10).await.len(), 10);
        }))
        .expect_err("closed by the script");
        run(setup.connection(async |broker| {
            broker.receive_maximum(2);
            broker.connack_with(true, &[0x21, 0, 2]).await;
            assert_eq!(texts(&broker.behave(20).await), numbers(20), "{qos:?}");
            broker.sync().await;
        }))
        .expect_err("closed by the script");
        assert_eq!(setup.backlog(), 0);
    }
}

#[test]
fn at_qos_2_the_whole_window_is_used() {
    let mut setup = setup(Qos::ExactlyOnce, 50);
    setup.take_numbers(60);
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        assert_eq!(texts(&broker.readings(50).await), numbers(50));
        broker.sync().await;
    }))
    .expect_err("closed by the script");
    assert_eq!(setup.hub.counters("home").sent.get(), 50);
}

#[test]
fn what_is_too_large_for_the_broker_is_refused_and_the_rest_sent() {
    let mut setup = setup(Qos::AtLeastOnce, 4);
    let large = "x".repeat(600);
    setup.take(["a", &large, "b"]);
    run(setup.connection(async |broker| {
        broker.connack_with(false, &[0x27, 0, 0, 2, 0x58]).await;
        assert_eq!(texts(&broker.behave(2).await), ["a", "b"]);
        broker.sync().await;
    }))
    .expect_err("closed by the script");
    assert_eq!((setup.backlog(), setup.hub.counters("home").refused.get()), (0, 1));
}

#[test]
fn a_lower_quality_of_service_is_kept_to() {
    for (wanted, allowed, expected) in [
        (Qos::ExactlyOnce, 1, QoS::AtLeastOnce),
        (Qos::ExactlyOnce, 0, QoS::AtMostOnce),
        (Qos::AtLeastOnce, 0, QoS::AtMostOnce),
        (Qos::AtMostOnce, 1, QoS::AtMostOnce),
    ] {
        let mut setup = setup(wanted, 4);
        setup.take_numbers(10);
        // Some are in flight at the higher one, from a connection when the broker still took it.
        if wanted != Qos::AtMostOnce {
            run(setup.connection(async |broker| {
                broker.connack(false).await;
                broker.readings(4).await;
            }))
            .expect_err("closed by the script");
        }
        run(setup.connection(async |broker| {
            broker.connack_with(true, &[0x24, allowed]).await;
            let mut found = Vec::new();
            while found.len() < 10 {
                let Some(Packet::Publish(message)) = broker.next().await else { panic!("no message") };
                assert!(message.qos as u8 <= allowed, "{message:?}");
                if message.qos != QoS::AtMostOnce {
                    broker.ack(message.pkid).await;
                }
                if message.topic == "t" {
                    assert_eq!(message.qos, expected);
                    found.push(message);
                }
            }
            assert_eq!(texts(&found), numbers(10), "{wanted:?} {allowed}");
            broker.sync().await;
        }))
        .expect_err("closed by the script");
        assert_eq!(setup.backlog(), 0, "{wanted:?} {allowed}");
    }
}

#[test]
fn without_retain_nothing_is_retained() {
    let mut setup = setup(Qos::AtLeastOnce, 4);
    take_reading(&setup, 1.0);
    run(setup.connection(async |broker| {
        broker.connack_with(false, &[0x25, 0]).await;
        for _ in 0..5 {
            let Some(Packet::Publish(message)) = broker.next().await else { panic!("no message") };
            assert!(!message.retain, "{message:?}");
            broker.ack(message.pkid).await;
        }
        broker.sync().await;
    }))
    .expect_err("closed by the script");
    assert_eq!(setup.backlog(), 0);
}

#[test]
fn the_brokers_keep_alive_takes_the_place_of_ours() {
    let mut setup = setup(Qos::AtLeastOnce, 4);
    setup.config.keep_alive = Duration::from_secs(1_000);
    let (clock, hub) = (setup.clock.clone(), setup.hub.clone());
    let ended = run(setup.connection(async |broker| {
        broker.connack_with(false, &[0x13, 0, 20]).await;
        broker.sync().await;
        broker.sync().await;
        clock.advance(Duration::from_secs(20));
        hub.appended();
        assert_eq!(broker.next().await, Some(Packet::PingReq));
        clock.advance(Duration::from_secs(10));
        hub.appended();
        assert_eq!(broker.next().await, None);
    }));
    assert!(matches!(ended, Err(Failure::Silent(after)) if after == Duration::from_secs(30)), "{ended:?}");
}

#[test]
fn a_reading_carries_its_id() {
    let mut setup = setup(Qos::AtLeastOnce, 4);
    take_reading(&setup, 1.0);
    setup.take(["raw"]);
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        for _ in 0..4 {
            let message = broker.reading().await;
            let PublishProperties { user_properties, message_expiry_interval, topic_alias, .. } =
                broker.said.publish.take().expect("properties");
            assert_eq!((message_expiry_interval, topic_alias), (None, None));
            let [(name, id)] = user_properties.as_slice() else { panic!("{user_properties:?}") };
            assert_eq!(name, "id");
            let text = String::from_utf8_lossy(&message.payload).into_owned();
            assert!(text.contains(&format!(r#""id":"{id}""#)) || (text == "raw" && id.contains('-')), "{text} {id}");
            broker.ack(message.pkid).await;
        }
        broker.sync().await;
    }))
    .expect_err("closed by the script");
}

/// The topic of each reading, and whether it was left out.
async fn topics<S>(broker: &mut crate::uplink::scripted::Peer<S>, count: usize) -> Vec<(String, bool)>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut found = Vec::new();
    for _ in 0..count {
        let message = broker.reading().await;
        found.push((message.topic, broker.said.aliased));
        broker.ack(message.pkid).await;
    }
    found
}

#[test]
fn topics_get_aliases_for_one_connection() {
    let mut setup = setup(Qos::AtLeastOnce, 3);
    for _ in 0..3 {
        take_reading(&setup, 1.0);
    }
    setup.take(["short"]);
    let name = |name: &str, aliased| (format!("maison/salon/{name}"), aliased);
    run(setup.connection(async |broker| {
        broker.allow_aliases(2);
        broker.connack_with(false, &[0x22, 0, 2]).await;
        let expected = [
            [name("a", false), name("b", false), name("c", false)].to_vec(),
            // The two that came first have one, the third finds no room.
            [name("a", true), name("b", true), name("c", false)].to_vec(),
        ];
        assert_eq!(topics(broker, 6).await, expected.concat());
    }))
    .expect_err("closed by the script");
    // What was sent with an alias and is sent again says its topic anew, and so does everything else.
    run(setup.connection(async |broker| {
        broker.allow_aliases(1);
        broker.connack_with(true, &[0x22, 0, 1]).await;
        let mut found = topics(broker, 4).await;
        while found.last().is_some_and(|(topic, _)| topic != "t") {
            found.extend(topics(broker, 1).await);
        }
        let mut seen = std::collections::BTreeSet::new();
        for (topic, aliased) in &found {
            assert!(!*aliased || seen.contains(topic), "{found:?}");
            seen.insert(topic.clone());
        }
        assert_eq!(found.last(), Some(&("t".to_owned(), false)), "nothing is gained with so short a topic");
        broker.sync().await;
    }))
    .expect_err("closed by the script");
    assert_eq!(setup.backlog(), 0);
}

#[test]
fn a_message_that_fits_only_with_its_alias_is_not_sent() {
    let mut setup = setup(Qos::AtLeastOnce, 3);
    setup.config.max_packet = 300;
    let raw = |length: usize| crate::outbox::Raw {
        topic: "maison/salon/long-enough-to-matter".into(),
        payload: vec![b'x'; length].into(),
        retain: false,
    };
    for length in [10, 230, 250, 10] {
        let body = crate::outbox::Body::Raw(raw(length));
        setup.hub.outbox.borrow_mut().append(setup.clock.boot(), setup.hub.now(), body);
    }
    setup.hub.outbox.borrow_mut().commit(setup.clock.boot());
    // The limit holds from the start on.
    let mut setup = setup.killed();
    run(setup.connection(async |broker| {
        broker.allow_aliases(1);
        broker.connack_with(false, &[0x22, 0, 1]).await;
        let found = broker.behave(3).await;
        let lengths: Vec<usize> = found.iter().map(|message| message.payload.len()).collect();
        assert_eq!((lengths, broker.said.aliased), (vec![10, 230, 10], true));
        assert_eq!(ids(&found).len(), 3);
        broker.sync().await;
    }))
    .expect_err("closed by the script");
    assert_eq!((setup.backlog(), setup.hub.counters("home").refused.get()), (0, 1));
}

#[test]
fn messages_to_us_are_acknowledged_and_dropped() {
    let mut setup = setup(Qos::AtLeastOnce, 2);
    run(setup.connection(async |broker| {
        broker.connack(true).await;
        broker.sync().await;
        broker.send(&[0x30, 5, 0, 1, b's', 0, b'!']).await;
        broker.send(&[0x34, 12, 0, 1, b's', 0, 5, 5, 2, 0, 0, 0, 9, b'!']).await;
        assert!(matches!(broker.next().await, Some(Packet::PubRec(received)) if received.pkid == 5));
        broker.acknowledge(0x62, 5).await;
        assert!(matches!(broker.next().await, Some(Packet::PubComp(complete)) if complete.pkid == 5));
    }))
    .expect_err("closed by the script");
}

#[test]
fn what_a_broker_refuses_of_the_will_is_left_out_of_it() {
    let mut setup = setup(Qos::AtLeastOnce, 2);
    let mut form = WillForm::default();
    form.learn(&failure(&mut setup, &[0x20, 3, 0, 0x87, 0]));
    assert_eq!((form.qos, form.retain), (Qos::AtLeastOnce, true));
    form.learn(&failure(&mut setup, &[0x20, 3, 0, 0x9b, 0]));
    form.learn(&failure(&mut setup, &[0x20, 3, 0, 0x9a, 0]));
    assert_eq!((form.qos, form.retain), (Qos::AtMostOnce, false));
}

#[test]
fn what_was_agreed_is_said() {
    let mut terms = crate::uplink::terms::Terms::new(&config(Qos::ExactlyOnce, 10));
    assert_eq!(terms.agree(Limits::default()), Vec::<String>::new());
    let remarks = terms.agree(Limits {
        max_qos: Qos::AtLeastOnce,
        retain: false,
        session_expiry: Some(Duration::ZERO),
        ..Limits::default()
    });
    assert!(remarks.len() == 3 && remarks[0].contains("QoS 1 at most"), "{remarks:?}");
}

#[test]
fn an_age_limit_is_the_brokers_too() {
    let mut setup = setup(Qos::AtLeastOnce, 4);
    setup.config.selection.max_age = Some(Duration::from_secs(60));
    let mut setup = setup.killed();
    setup.take(["a"]);
    setup.clock.advance(Duration::from_secs(20));
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        let message = broker.reading().await;
        let properties = broker.said.publish.take().expect("properties");
        assert_eq!(properties.message_expiry_interval, Some(41), "rounded up");
        broker.complete(&message).await;
        broker.sync().await;
    }))
    .expect_err("closed by the script");
}
