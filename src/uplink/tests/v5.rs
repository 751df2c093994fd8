//! What only MQTT 5 says, and everything else once more in MQTT 5.

use std::time::Duration;

use rumqttc::mqttbytes::v4::Packet;

use crate::config::{MqttVersion, Qos};
use crate::uplink::failure::Failure;
use crate::uplink::scripted::{Setup, config, numbers, run, speak, texts};

macro_rules! hold_in_mqtt_5_too {
    ($module:path => $($test:ident)*) => { $(
        #[test]
        fn $test() {
            use $module as tests;
            speak(MqttVersion::V5);
            tests::$test();
        }
    )* };
}

hold_in_mqtt_5_too! { super =>
    everything_arrives_once_and_in_order
    readings_that_come_later_are_sent_at_once
    bytes_come_and_go_one_at_a_time
    state_comes_before_readings
    a_broker_that_never_acknowledges_gets_a_window_and_is_left
    a_connection_closed_in_the_middle_of_a_packet_is_taken_up_again
    a_packet_that_is_announced_too_large_is_not_waited_for
    acknowledgements_that_nothing_waits_for_are_counted_and_change_nothing
    a_silent_broker_is_asked_and_then_left
    the_timer_pings_by_itself
    an_orderly_end_says_so
    a_broker_that_acknowledges_nothing_cannot_hold_up_the_end
    a_record_is_cut_across_windows_and_a_changed_shape
    a_message_that_is_too_large_does_not_stop_the_others
    at_qos_0_what_was_not_written_is_kept
    the_task_discards_a_strangers_session_and_comes_back
}

hold_in_mqtt_5_too! { super::resume =>
    a_broker_that_lost_the_session_gets_the_window_anew
    what_was_in_flight_at_a_kill_is_sent_again_under_its_ids
    a_kill_half_way_through_qos_2_doubles_nothing
    a_reboot_half_way_through_qos_2_doubles_nothing
    after_a_power_cut_the_brokers_session_is_a_strangers
}

pub(super) fn setup(qos: Qos, inflight: u16) -> Setup {
    speak(MqttVersion::V5);
    Setup::new(config(qos, inflight))
}

/// What the agent says to a broker that answers CONNECT like this.
pub(super) fn failure(setup: &mut Setup, answer: &[u8]) -> Failure {
    run(setup.connection(async |broker| {
        broker.next().await;
        broker.send(answer).await;
        while broker.next().await.is_some() {}
    }))
    .expect_err("refused")
}

#[test]
fn connect_says_what_we_want() {
    let mut setup = setup(Qos::AtLeastOnce, 4);
    run(setup.connection(async |broker| {
        let connect = broker.connack(false).await;
        assert_eq!((connect.client_id.as_str(), connect.clean_session), ("vigie-test", false));
        assert_eq!(connect.login.expect("a login").username, "pi");
        let properties = broker.said.connect.take().expect("properties");
        assert_eq!((properties.session_expiry_interval, properties.max_packet_size), (Some(u32::MAX), Some(10_000)));
        assert_eq!(properties.topic_alias_max, None, "messages to us have none");
        broker.sync().await;
    }))
    .expect_err("closed by the script");
}

#[test]
fn each_refusal_of_the_connection_is_put_in_words() {
    let cases: [(u8, &str); 22] = [
        (0x80, "unspecified error (0x80)"),
        (0x81, "malformed packet (0x81)"),
        (0x82, "protocol error (0x82)"),
        (0x83, "implementation specific error (0x83)"),
        (0x84, "does not speak MQTT 5: set `mqtt = \"3.1.1\"`"),
        (0x85, "rejects the client identifier `vigie-test`"),
        (0x86, "refuses user `pi`: user name or password is wrong"),
        (0x87, "does not authorise user `pi`"),
        (0x88, "its service is unavailable"),
        (0x89, "server busy (0x89)"),
        (0x8a, "banned (0x8a)"),
        (0x8c, "bad authentication method (0x8c)"),
        (0x90, "topic name invalid (0x90)"),
        (0x95, "packet too large (0x95)"),
        (0x97, "quota exceeded (0x97)"),
        (0x99, "payload format invalid (0x99)"),
        (0x9a, "retains no messages"),
        (0x9b, "at QoS 0 only"),
        (0x9c, "use another server (0x9c)"),
        (0x9d, "server moved (0x9d)"),
        (0x9f, "connection rate exceeded (0x9f)"),
        (0xee, "a reason that MQTT does not know (0xee)"),
    ];
    for (code, words) in cases {
        let mut setup = setup(Qos::AtLeastOnce, 4);
        // With the properties left out, empty, and with a Reason String that tries to clear the screen.
        for answer in [
            vec![0x20, 2, 0, code],
            vec![0x20, 3, 0, code, 0],
            vec![0x20, 10, 0, code, 7, 0x1f, 0, 4, b'w', b'h', b'y', 0x1b],
        ] {
            let failure = failure(&mut setup, &answer);
            assert!(matches!(&failure, Failure::Refused { reason, .. } if reason.code() == code), "{failure}");
            let text = failure.to_string();
            assert!(text.contains(words) && !text.contains('\u{1b}'), "{text}");
            assert_eq!(text.contains(r#"the broker says "why\u{1b}""#), answer.len() > 5, "{text}");
        }
    }
}

#[test]
fn an_older_broker_is_recognised() {
    for (answer, words) in [
        (vec![0x20, 2, 0, 1], "does not speak MQTT 5: set `mqtt = \"3.1.1\"`"),
        (vec![0x20, 2, 0, 0], "set `mqtt = \"3.1.1\"`"),
    ] {
        let text = failure(&mut setup(Qos::AtLeastOnce, 4), &answer).to_string();
        assert!(text.contains(words), "{text}");
    }
    let ended = run(setup(Qos::AtLeastOnce, 4).connection(async |broker| drop(broker.next().await)));
    let text = ended.expect_err("closed").to_string();
    assert!(text.contains("instead of answering") && text.contains("set `mqtt = \"3.1.1\"`"), "{text}");
}

#[test]
fn an_answer_that_breaks_the_rules_is_refused() {
    for (properties, words) in [
        (vec![0x21, 0, 5, 0x21, 0, 5], "the property 0x21 twice"),
        (vec![0x21, 0, 0], "0 for 0x21"),
        (vec![0x27, 0, 0, 0, 0], "0 for 0x27"),
        (vec![0x24, 2], "2 for 0x24"),
        (vec![0x25, 2], "2 for 0x25"),
        (vec![0x21, 0], "ends too early"),
        (vec![0x1f, 0, 9, b'x'], "ends too early"),
        (vec![0x1f, 0, 1, 0xff], "not UTF-8"),
        (vec![0x1f, 0, 1, 0], "a null character"),
        (vec![0x23, 0, 1], "the property 0x23, which has no place there"),
        (vec![0x2b, 0], "the property 0x2b, which MQTT 5 does not have"),
        (vec![0xff, 0], "the property 0xff, which MQTT 5 does not have"),
        (vec![0x12, 0, 3, b'y', b'o', b'u'], "assigns us the client identifier `you`"),
    ] {
        let length = u8::try_from(properties.len()).expect("few");
        let answer = [&[0x20, 3 + length, 0, 0, length], properties.as_slice()].concat();
        let text = failure(&mut setup(Qos::AtLeastOnce, 4), &answer).to_string();
        assert!(text.contains("not MQTT") && text.contains(words), "{properties:x?}: {text}");
    }
    for answer in [
        // The length of the properties runs past the packet, the packet past the properties, and flags that do not exist.
        vec![0x20, 4, 0, 0, 200, 1],
        vec![0x20, 4, 0, 0, 0, 7],
        vec![0x20, 3, 2, 0, 0],
    ] {
        let failure = failure(&mut setup(Qos::AtLeastOnce, 4), &answer);
        assert!(matches!(failure, Failure::Malformed(_)), "{failure}");
    }
}

#[test]
fn what_breaks_the_rules_later_ends_the_connection_with_a_reason() {
    for (packet, words, told) in [
        (vec![0x30, 7, 0, 1, b's', 3, 0x23, 0, 1], "a topic alias, which we never allowed", 0x81),
        (vec![0x30, 6, 0, 0, 3, 0x23, 0, 1], "a topic alias, which we never allowed", 0x81),
        (vec![0x30, 3, 0, 0, 0], "a PUBLISH without a topic", 0x81),
        (vec![0x36, 6, 0, 1, b's', 0, 1, 0], "QoS 3", 0x81),
        (vec![0x32, 6, 0, 1, b's', 0, 0, 0], "the packet id 0", 0x81),
        (vec![0x40, 1, 0], "ends too early", 0x81),
        (vec![0x40, 5, 0, 1, 0, 0, 0], "something after its end", 0x81),
        (vec![0x40, 9, 0, 1, 0x80, 5, 0x1c, 0, 2, b'a', b'b'], "0x1c, which has no place there", 0x81),
        (vec![0x20, 3, 0, 0, 0], "no business here", 0x82),
        (vec![0xf0, 2, 0x18, 0], "no business here", 0x82),
        (vec![0x90, 4, 0, 1, 0, 0], "no business here", 0x82),
        (vec![0x30, 0xff, 0xff, 0x7f], "the limit `max_packet` is 10000", 0x95),
    ] {
        let mut setup = setup(Qos::AtLeastOnce, 7);
        setup.take_numbers(1);
        let ended = run(setup.connection(async |broker| {
            broker.connack(false).await;
            broker.send(&packet).await;
            while broker.next().await.is_some() {}
            assert_eq!(broker.said.disconnect, Some(told), "{packet:x?}");
        }));
        let text = ended.expect_err("against the rules").to_string();
        assert!(text.contains(words), "{packet:x?}: {text}");
        assert_eq!(setup.backlog(), 1);
    }
}

#[test]
fn the_broker_says_why_it_ends_the_connection() {
    for (packet, words) in [
        (vec![0xe0, 0], "success (0x00)"),
        (vec![0xe0, 1, 0x8b], "server shutting down (0x8b)"),
        (vec![0xe0, 2, 0x8e, 0], "session taken over (0x8e). Another client has the same `client_id`"),
        (vec![0xe0, 1, 0x8d], "keep alive timeout (0x8d)"),
        (vec![0xe0, 1, 0x93], "receive maximum exceeded (0x93). Set a smaller `inflight`"),
        (vec![0xe0, 1, 0x95], "packet too large (0x95). Set a smaller `max_packet`"),
        (vec![0xe0, 1, 0x97], "quota exceeded (0x97)"),
        (vec![0xe0, 1, 0x98], "administrative action (0x98)"),
        (vec![0xe0, 1, 0x9a], "Set `retain = false`"),
        (vec![0xe0, 1, 0x9b], "Set a lower `qos`"),
        (
            vec![0xe0, 15, 0x9c, 13, 0x1c, 0, 1, b'b', 0x26, 0, 1, b'k', 0, 3, b'v', 0x1b, b'v'],
            r#"use another server (0x9c); the broker says server reference: "b", k: "v\u{1b}v". Set `url`"#,
        ),
    ] {
        let mut setup = setup(Qos::AtLeastOnce, 7);
        setup.take_numbers(1);
        let ended = run(setup.connection(async |broker| {
            broker.connack(false).await;
            broker.send(&packet).await;
            while broker.next().await.is_some() {}
            assert_eq!(broker.said.disconnect, None, "who is told to go says nothing more");
        }));
        let text = ended.expect_err("told to go").to_string();
        assert!(text.contains(words), "{packet:x?}: {text}");
        assert_eq!(setup.backlog(), 1);
    }
}

#[test]
fn every_reason_of_an_acknowledgement_is_understood() {
    for (qos, kind) in [(Qos::AtLeastOnce, 0x40), (Qos::ExactlyOnce, 0x50)] {
        for (code, taken) in [
            (0x00, true),
            (0x10, true),
            (0x80, false),
            (0x83, false),
            (0x87, false),
            (0x90, false),
            (0x99, false),
            (0xee, false),
        ] {
            let mut setup = setup(qos, 2);
            setup.take_numbers(3);
            run(setup.connection(async |broker| {
                broker.connack(false).await;
                let first = broker.reading().await;
                broker.answer(kind, first.pkid, code).await;
                if taken && qos == Qos::ExactlyOnce {
                    broker.behave(3).await;
                } else {
                    assert_eq!(texts(&broker.behave(2).await), ["1", "2"]);
                }
                broker.sync().await;
            }))
            .expect_err("closed by the script");
            let counters = setup.hub.counters("home");
            assert_eq!((setup.backlog(), counters.refused.get()), (0, u64::from(!taken)), "{qos:?} {code:#04x}");
        }
    }
}

#[test]
fn an_exceeded_quota_is_waited_out() {
    for (qos, kind) in [(Qos::AtLeastOnce, 0x40), (Qos::ExactlyOnce, 0x50)] {
        let mut setup = setup(qos, 2);
        setup.take_numbers(4);
        let clock = setup.clock.clone();
        run(setup.connection(async |broker| {
            broker.connack(false).await;
            let first = broker.readings(2).await;
            for message in &first {
                broker.answer(kind, message.pkid, 0x97).await;
            }
            broker.sync().await;
            clock.advance(Duration::from_secs(1));
            broker.send(&[0xd0, 0]).await;
            assert_eq!(texts(&broker.behave(4).await), numbers(4), "{qos:?}");
            broker.sync().await;
        }))
        .expect_err("closed by the script");
        let counters = setup.hub.counters("home");
        assert_eq!((setup.backlog(), counters.refused.get(), counters.postponed.get()), (0, 0, 2));
    }
}

#[test]
fn a_packet_id_that_is_in_use_makes_the_session_a_strangers() {
    for (qos, kind) in [(Qos::AtLeastOnce, 0x40), (Qos::ExactlyOnce, 0x50)] {
        let mut setup = setup(qos, 2);
        setup.take_numbers(1);
        let ended = run(setup.connection(async |broker| {
            broker.connack(false).await;
            let first = broker.reading().await;
            broker.answer(kind, first.pkid, 0x91).await;
            while broker.next().await.is_some() {}
        }));
        assert!(matches!(ended, Err(Failure::IdInUse)), "{ended:?}");
        assert_eq!((setup.backlog(), setup.hub.counters("home").refused.get()), (1, 0));
        assert!(setup.feed.is_stranger(true));
    }
}

#[test]
fn a_released_message_that_the_broker_does_not_know_is_done_with() {
    let mut setup = setup(Qos::ExactlyOnce, 2);
    setup.take_numbers(1);
    run(setup.connection(async |broker| {
        broker.connack(false).await;
        let first = broker.reading().await;
        broker.acknowledge(0x50, first.pkid).await;
        while !matches!(broker.next().await, Some(Packet::PubRel(_))) {}
        broker.answer(0x70, first.pkid, 0x92).await;
        broker.sync().await;
    }))
    .expect_err("closed by the script");
    assert_eq!((setup.backlog(), setup.hub.counters("home").refused.get()), (0, 0));
}
