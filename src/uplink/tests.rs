//! The uplink against brokers that misbehave, each in its own way.

use std::time::Duration;

use rumqttc::mqttbytes::v4::Packet;
use tokio::net::TcpListener;
use tokio::sync::watch;

use self::dates::take_reading;
use super::failure::Failure;
use super::packet::{Malformed, Reason};
use super::scripted::{Peer, Setup, config, ids, numbers, run, texts};
use super::session::ACK_DEADLINE;
use crate::clock::{BootTime, Clock};
use crate::config::{PayloadShape, Qos};

mod commands;
mod dates;
mod limits;
mod resume;
mod targets;
mod v5;

const EVERY_QOS: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];

#[test]
fn everything_arrives_once_and_in_order() {
    for qos in EVERY_QOS {
        let mut setup = Setup::new(config(qos, 7));
        setup.take_numbers(500);
        let ended = run(setup.connection(async |broker| {
            broker.connack(false).await;
            assert_eq!(texts(&broker.behave(500).await), numbers(500), "{qos:?}");
            broker.sync().await;
        }));
        assert!(matches!(ended, Err(Failure::Closed)), "{ended:?}");
        assert_eq!(setup.backlog(), 0, "{qos:?}");
        let counters = setup.hub.counters("home");
        assert_eq!((counters.sent.get(), counters.acknowledged.get()), (500, 500));
        assert_eq!((counters.replayed.get(), counters.unexpected.get(), counters.refused.get()), (0, 0, 0));
    }
}

#[test]
fn readings_that_come_later_are_sent_at_once() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 7));
    let hub = setup.hub.clone();
    let clock = setup.clock.clone();
    let ended = run(setup.connection(async |broker| {
        broker.connack(false).await;
        broker.sync().await;
        for text in ["a", "b", "c"] {
            let raw = crate::outbox::Raw { topic: "t".into(), payload: text.as_bytes().into(), retain: false };
            let body = crate::outbox::Body::Raw(raw);
            hub.outbox.borrow_mut().append(clock.boot(), hub.now(), body);
            hub.outbox.borrow_mut().commit(clock.boot());
            hub.appended();
            assert_eq!(texts(&broker.behave(1).await), [text]);
        }
        broker.sync().await;
    }));
    assert!(matches!(ended, Err(Failure::Closed)), "{ended:?}");
    assert_eq!(setup.backlog(), 0);
}

#[test]
fn bytes_come_and_go_one_at_a_time() {
    for qos in EVERY_QOS {
        let mut setup = Setup::new(config(qos, 7));
        setup.take_numbers(20);
        let (_keep, stop) = watch::channel(None);
        let ended = run(setup.connection_until(stop, 1, async |broker| {
            broker.connack(false).await;
            assert_eq!(texts(&broker.behave(20).await), numbers(20));
            broker.sync().await;
        }));
        assert!(matches!(ended, Err(Failure::Closed)), "{ended:?}");
        assert_eq!(setup.backlog(), 0);
    }
}

#[test]
fn state_comes_before_readings() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 7));
    setup.take_numbers(1);
    setup.hub.set_state("maison/salon/meteo/availability", r#"{"state":"online"}"#);
    let ended = run(setup.connection(async |broker| {
        let connect = broker.connack(false).await;
        let will = connect.last_will.expect("a will");
        assert_eq!((will.topic.as_str(), will.retain), ("maison/atelier/availability", true));
        assert!(!connect.clean_session);
        let mut topics = Vec::new();
        for _ in 0..4 {
            let Some(Packet::Publish(message)) = broker.next().await else { panic!("no message") };
            topics.push((message.topic, message.retain));
        }
        let expected = [
            ("maison/atelier/availability", true),
            ("maison/atelier/info", true),
            ("maison/salon/meteo/availability", true),
            ("t", false),
        ];
        assert_eq!(topics, expected.map(|(topic, retain)| (topic.to_owned(), retain)));
    }));
    assert!(matches!(ended, Err(Failure::Closed)));
}

#[test]
fn a_broker_that_never_acknowledges_gets_a_window_and_is_left() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 7));
    setup.take_numbers(20);
    let clock = setup.clock.clone();
    let ended = run(setup.connection(async |broker| {
        broker.connack(false).await;
        assert_eq!(texts(&broker.readings(7).await), numbers(7));
        broker.sync().await;
        clock.advance(ACK_DEADLINE);
        broker.send(&[0xd0, 0]).await;
        assert_eq!(broker.next().await, None, "the window is full, and then the connection closed");
    }));
    assert!(matches!(ended, Err(Failure::Hung)), "{ended:?}");
    assert_eq!(setup.backlog(), 20);
}

#[test]
fn at_qos_2_no_more_is_in_flight_than_brokers_take() {
    let mut setup = Setup::new(config(Qos::ExactlyOnce, 1_000));
    setup.take_numbers(100);
    let window = usize::from(super::terms::QOS_2_WINDOW);
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        assert_eq!(texts(&broker.readings(window).await), numbers(window));
        broker.sync().await;
    }))
    .expect_err("closed by the script");
    assert_eq!((setup.backlog(), setup.hub.counters("home").sent.get()), (100, u64::from(super::terms::QOS_2_WINDOW)));
}

#[test]
fn a_connection_closed_in_the_middle_of_a_packet_is_taken_up_again() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 7));
    setup.take_numbers(10);
    let mut first = Vec::new();
    let ended = run(setup.connection(async |broker| {
        broker.connack(false).await;
        first = broker.readings(7).await;
        broker.ack(first[0].pkid).await;
        broker.send(&[0x40, 2, 0]).await;
    }));
    assert!(matches!(ended, Err(Failure::Closed)));
    assert_eq!(setup.backlog(), 9);
    run(setup.connection(async |broker| {
        broker.connack(true).await;
        let again = broker.behave(9).await;
        assert_eq!(texts(&again), numbers(10)[1..]);
        assert_eq!(ids(&again)[..6], ids(&first)[1..]);
        let dups: Vec<bool> = again.iter().map(|message| message.dup).collect();
        assert_eq!(dups, [true, true, true, true, true, true, true, false, false]);
        broker.sync().await;
    }))
    .expect_err("closed by the script");
    assert_eq!((setup.backlog(), setup.hub.counters("home").replayed.get()), (0, 7));
}

#[test]
fn garbage_ends_the_connection() {
    for (garbage, expected) in [
        (vec![0x00, 0x00], "not MQTT"),
        (vec![0xf0, 1, 0], "not MQTT"),
        (vec![0x40, 0], "not MQTT"),
        (vec![0x40, 0xff, 0xff, 0xff, 0xff, 1], "not MQTT"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "not MQTT"),
        (vec![0x10, 3, 1, 0, 2], "not MQTT"),
        (vec![0x30, 0xff, 0xff, 0x7f], "the limit `max_packet` is 10000"),
        (vec![0x20, 2, 0, 0], "no business here"),
        (vec![0x90, 3, 0, 1, 0], "no business here"),
    ] {
        let mut setup = Setup::new(config(Qos::AtLeastOnce, 7));
        setup.take_numbers(1);
        let ended = run(setup.connection(async |broker| {
            broker.connack(false).await;
            broker.send(&garbage).await;
            while broker.next().await.is_some() {}
        }));
        let error = ended.expect_err("garbage").to_string();
        assert!(error.contains(expected), "{garbage:x?}: {error}");
        assert_eq!(setup.backlog(), 1);
    }
}

#[test]
fn a_packet_that_is_announced_too_large_is_not_waited_for() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 7));
    let ended = run(setup.connection(async |broker| {
        broker.connack(false).await;
        broker.send(&[0x30, 0xff, 0xff, 0xff, 0x7f]).await;
        while broker.next().await.is_some() {}
    }));
    assert!(matches!(ended, Err(Failure::Malformed(Malformed::TooLarge { size: 268_435_455, max: 10_000 }))));
}

#[test]
fn acknowledgements_that_nothing_waits_for_are_counted_and_change_nothing() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let mut setup = Setup::new(config(qos, 7));
        setup.take_numbers(30);
        run(setup.connection(async |broker| {
            broker.connack(false).await;
            for id in [0, 1, 7, 4_711, 65_535] {
                broker.acknowledge(0x70, id).await;
            }
            let found = broker.behave(30).await;
            assert_eq!(texts(&found), numbers(30));
            for id in ids(&found) {
                broker.acknowledge(0x40, id).await;
                broker.acknowledge(0x50, id).await;
                broker.acknowledge(0x70, id).await;
            }
            broker.sync().await;
        }))
        .expect_err("closed by the script");
        assert_eq!(setup.backlog(), 0);
        assert!(setup.hub.counters("home").unexpected.get() >= 90);
    }
}

#[test]
fn each_refusal_is_put_in_words() {
    for (code, reason, words) in [
        (1, Reason::UNSUPPORTED_PROTOCOL_VERSION, "does not speak MQTT 3.1.1: set `mqtt = \"5\"`"),
        (2, Reason::CLIENT_IDENTIFIER_NOT_VALID, "rejects the client identifier `vigie-test`"),
        (3, Reason::SERVER_UNAVAILABLE, "its service is unavailable"),
        (4, Reason::BAD_USER_NAME_OR_PASSWORD, "refuses user `pi`: user name or password is wrong"),
        (5, Reason::NOT_AUTHORIZED, "does not authorise user `pi`"),
        (99, Reason::new(99), "a reason that MQTT does not know (0x63)"),
    ] {
        let mut setup = Setup::new(config(Qos::AtLeastOnce, 4));
        let ended = run(setup.connection(async |broker| {
            broker.next().await;
            broker.send(&[0x20, 2, 0, code]).await;
        }));
        let Err(failure) = ended else { panic!("accepted") };
        assert!(matches!(&failure, Failure::Refused { reason: found, .. } if *found == reason));
        assert!(failure.to_string().contains(words), "{failure}");
    }
}

#[test]
fn a_broker_that_closes_before_it_answers_is_reported() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 4));
    let ended = run(setup.connection(async |broker| {
        broker.next().await;
        broker.send(&[0x20, 2]).await;
    }));
    assert!(matches!(ended, Err(Failure::Closed)));
}

#[test]
fn a_silent_broker_is_asked_and_then_left() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 4));
    setup.config.keep_alive = Duration::from_secs(20);
    let clock = setup.clock.clone();
    let hub = setup.hub.clone();
    let ended = run(setup.connection(async |broker| {
        broker.connack(false).await;
        // Twice: so that nothing that was sent to the agent is still under way.
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
fn the_timer_pings_by_itself() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 4));
    setup.config.keep_alive = Duration::from_millis(20);
    let clock = setup.clock.clone();
    let ended = run(setup.connection(async |broker| {
        broker.connack(false).await;
        // Twice: so that nothing that was sent to the agent is still under way.
        broker.sync().await;
        broker.sync().await;
        clock.advance(Duration::from_millis(20));
        assert_eq!(broker.next().await, Some(Packet::PingReq));
        broker.send(&[0xd0, 0]).await;
        broker.sync().await;
        clock.advance(Duration::from_millis(40));
        while broker.next().await.is_some() {}
    }));
    assert!(matches!(ended, Err(Failure::Silent(_))), "{ended:?}");
}

#[test]
fn an_orderly_end_says_so() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 4));
    setup.take_numbers(3);
    let deadline = setup.clock.boot().after(Duration::from_secs(10));
    let (tell, stop) = watch::channel(None);
    let ended = run(setup.connection_until(stop, 1_024, async |broker| {
        broker.connack(false).await;
        let found = broker.readings(3).await;
        tell.send_replace(Some(deadline));
        for message in found {
            broker.ack(message.pkid).await;
        }
        let Some(Packet::Publish(farewell)) = broker.next().await else { panic!("no farewell") };
        assert_eq!((farewell.topic.as_str(), farewell.retain), ("maison/atelier/availability", true));
        assert_eq!(farewell.payload, r#"{"state":"offline","reason":"shutdown"}"#);
        broker.ack(farewell.pkid).await;
        assert_eq!(broker.next().await, Some(Packet::Disconnect));
        assert_eq!(broker.next().await, None);
    }));
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(setup.backlog(), 0);
}

#[test]
fn a_broker_that_acknowledges_nothing_cannot_hold_up_the_end() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 4));
    setup.take_numbers(3);
    let clock = setup.clock.clone();
    let deadline = clock.boot().after(Duration::from_secs(4));
    let (tell, stop) = watch::channel(None);
    let ended = run(setup.connection_until(stop, 1_024, async |broker| {
        broker.connack(false).await;
        broker.readings(3).await;
        tell.send_replace(Some(deadline));
        broker.sync().await;
        clock.advance(Duration::from_secs(3));
        broker.send(&[0xd0, 0]).await;
        let Some(Packet::Publish(farewell)) = broker.next().await else { panic!("no farewell") };
        assert!(farewell.topic.ends_with("availability"));
        clock.advance(Duration::from_secs(1));
        broker.send(&[0xd0, 0]).await;
        assert_eq!(broker.next().await, Some(Packet::Disconnect));
    }));
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(setup.backlog(), 3);
}

#[test]
fn a_record_is_cut_across_windows_and_a_changed_shape() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 2));
    take_reading(&setup, 1.0);
    take_reading(&setup, 2.0);
    let mut first = Vec::new();
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        first = broker.readings(2).await;
        broker.ack(first[0].pkid).await;
        broker.sync().await;
    }))
    .expect_err("closed by the script");
    setup.config.payload.shape = PayloadShape::Sensor;
    let mut setup = setup.killed();
    run(setup.connection(async |broker| {
        broker.connack(true).await;
        let again = broker.behave(3).await;
        let topics: Vec<&str> = again.iter().map(|message| message.topic.as_str()).collect();
        assert_eq!(topics, ["maison/salon/b", "maison/salon/c", "maison/salon/meteo"]);
        broker.sync().await;
    }))
    .expect_err("closed by the script");
    assert_eq!(setup.backlog(), 0);
}

#[test]
fn a_message_that_is_too_large_does_not_stop_the_others() {
    for qos in EVERY_QOS {
        let mut setup = Setup::new(config(qos, 2));
        let large = "x".repeat(20_000);
        setup.take(["a", &large, "b", &large, "c"]);
        run(setup.connection(async |broker| {
            broker.connack(false).await;
            assert_eq!(texts(&broker.behave(3).await), ["a", "b", "c"]);
            broker.sync().await;
        }))
        .expect_err("closed by the script");
        assert_eq!((setup.backlog(), setup.hub.counters("home").refused.get()), (0, 2), "{qos:?}");
    }
}

#[test]
fn at_qos_0_what_was_not_written_is_kept() {
    let mut setup = Setup::new(config(Qos::AtMostOnce, 2));
    let text = "x".repeat(5_000);
    setup.take(std::iter::repeat_n(text.as_str(), 40));
    let (_keep, stop) = watch::channel(None);
    run(setup.connection_until(stop, 1_024, async |broker| {
        broker.connack(false).await;
        broker.readings(3).await;
    }))
    .expect_err("closed by the script");
    let left = setup.backlog();
    assert!((35..=37).contains(&left), "{left}");
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        broker.behave(usize::try_from(left).expect("few")).await;
        broker.sync().await;
    }))
    .expect_err("closed by the script");
    assert_eq!(setup.backlog(), 0);
}

#[test]
fn messages_to_us_are_acknowledged_and_dropped() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 2));
    run(setup.connection(async |broker| {
        broker.connack(true).await;
        broker.sync().await;
        broker.send(&[0x30, 4, 0, 1, b's', b'!']).await;
        broker.send(&[0x34, 6, 0, 1, b's', 0, 5, b'!']).await;
        assert!(matches!(broker.next().await, Some(Packet::PubRec(received)) if received.pkid == 5));
        broker.acknowledge(0x62, 5).await;
        assert!(matches!(broker.next().await, Some(Packet::PubComp(complete)) if complete.pkid == 5));
    }))
    .expect_err("closed by the script");
}

/// The whole task over TCP: a stranger's session is discarded, a lost connection made again, an orderly end.
#[test]
fn the_task_discards_a_strangers_session_and_comes_back() {
    let mut setup = Setup::new(config(Qos::ExactlyOnce, 4));
    setup.take_numbers(3);
    run(async {
        let listener = TcpListener::bind(super::scripted::any_port()).await.expect("a port");
        setup.config.urls[0].port = listener.local_addr().expect("bound").port();
        let (tell, stop) = watch::channel(None::<BootTime>);
        let broker = async {
            let accept = async || Peer::new(listener.accept().await.expect("a connection").0);
            let mut first = accept().await;
            assert!(!first.connack(true).await.clean_session);
            assert_eq!(first.next().await, Some(Packet::Disconnect));
            let mut second = accept().await;
            assert!(second.connack(false).await.clean_session);
            assert_eq!(second.next().await, Some(Packet::Disconnect));
            let mut third = accept().await;
            assert!(!third.connack(false).await.clean_session);
            third.readings(3).await;
            drop(third);
            let mut fourth = accept().await;
            assert!(!fourth.connack(true).await.clean_session);
            let again = fourth.behave(3).await;
            assert!(again.iter().all(|message| message.dup));
            fourth.sync().await;
            tell.send_replace(Some(setup.clock.boot().after(Duration::from_secs(5))));
            let Some(Packet::Publish(farewell)) = fourth.next().await else { panic!("no farewell") };
            fourth.ack(farewell.pkid).await;
            assert_eq!(fourth.next().await, Some(Packet::Disconnect));
        };
        let task = super::run(setup.config.clone(), setup.hub.clone(), stop);
        let both = async { tokio::join!(task, broker) };
        tokio::time::timeout(Duration::from_secs(60), both).await.expect("in time");
    });
    assert_eq!(setup.backlog(), 0);
    let counters = setup.hub.counters("home");
    assert_eq!((counters.connects.get(), counters.failures.get()), (2, 1));
}

/// Nobody listens: the task waits, and ends at once when told to.
#[test]
fn the_task_ends_at_once_while_it_waits() {
    let mut setup = Setup::new(config(Qos::AtLeastOnce, 4));
    run(async {
        let listener = TcpListener::bind(super::scripted::any_port()).await.expect("a port");
        setup.config.urls[0].port = listener.local_addr().expect("bound").port();
        drop(listener);
        let (tell, stop) = watch::channel(None::<BootTime>);
        let task = super::run(setup.config.clone(), setup.hub.clone(), stop);
        let teller = async {
            let counters = setup.hub.counters("home");
            while counters.failures.get() == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tell.send_replace(Some(setup.clock.boot()));
        };
        let both = async { tokio::join!(task, teller) };
        tokio::time::timeout(Duration::from_secs(60), both).await.expect("in time");
    });
}
