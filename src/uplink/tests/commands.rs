//! Commands over a real session: which of a broker's messages get through, and that none of them disturbs the readings.

use std::time::Duration;

use proptest::prelude::*;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Packet, PubAck, PubComp, PubRec};
use tokio::io::DuplexStream;
use tokio::sync::mpsc::{self, Receiver};

use crate::command::{MAX_BYTES, Request};
use crate::config::{Commands, MqttVersion, Qos};
use crate::uplink::scripted::{Peer, Setup, config, ids, numbers, run, speak, texts};

const TOPIC: &str = "maison/relais/set";

const VERSIONS: [MqttVersion; 2] = [MqttVersion::V311, MqttVersion::V5];

/// A gateway whose uplink takes commands, and what it hands on.
fn setup(version: MqttVersion) -> (Setup, Receiver<Request>) {
    speak(version);
    let topics = vec![(TOPIC.to_owned(), "relais".to_owned())];
    let commands = Some(Commands { max_age: Duration::from_secs(30), topics });
    let setup = Setup::new(crate::config::UplinkConfig { commands, ..config(Qos::AtLeastOnce, 4) });
    let (sender, requests) = mpsc::channel(200);
    setup.hub.send_commands_to(sender);
    (setup, requests)
}

/// A PUBLISH; the packet id is 77.
fn publish(version: MqttVersion, flags: u8, topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = u16::try_from(topic.len()).expect("short").to_be_bytes().to_vec();
    body.extend(topic.as_bytes());
    if flags & 6 != 0 {
        body.extend([0, 77]);
    }
    if version == MqttVersion::V5 {
        body.push(0);
    }
    body.extend(payload);
    let mut packet = vec![0x30 | flags];
    let mut length = body.len();
    while length > 127 {
        packet.push(u8::try_from(length % 128 + 128).expect("a digit"));
        length /= 128;
    }
    packet.push(u8::try_from(length).expect("a digit"));
    packet.extend(body);
    packet
}

/// The packet id of the SUBSCRIBE, which is the first thing that comes.
async fn subscribe(broker: &mut Peer<DuplexStream>) -> u16 {
    let Some(Packet::Subscribe(subscribe)) = broker.next().await else { panic!("no SUBSCRIBE") };
    assert_eq!(subscribe.filters.len(), 1);
    assert_eq!((subscribe.filters[0].path.as_str(), subscribe.filters[0].qos), (TOPIC, QoS::AtMostOnce));
    subscribe.pkid
}

async fn suback(version: MqttVersion, broker: &mut Peer<DuplexStream>, id: u16, code: u8) {
    let [high, low] = id.to_be_bytes();
    match version {
        MqttVersion::V311 => broker.send(&[0x90, 3, high, low, code]).await,
        MqttVersion::V5 => broker.send(&[0x90, 4, high, low, 0, code]).await,
    }
}

/// Accepts connection and subscription.
async fn accept(version: MqttVersion, broker: &mut Peer<DuplexStream>, session: bool) {
    broker.connack(session).await;
    let id = subscribe(broker).await;
    suback(version, broker, id, 0).await;
}

/// The next packet that is no message of ours.
async fn answer(broker: &mut Peer<DuplexStream>) -> Packet {
    loop {
        match broker.next().await.expect("the connection lives") {
            Packet::Publish(message) => broker.ack(message.pkid).await,
            other => return other,
        }
    }
}

/// Payload and refusal of everything that was handed on.
fn handed_on(requests: &mut Receiver<Request>) -> Vec<(String, Option<String>)> {
    let mut found = Vec::new();
    while let Ok(Request { payload, refused, .. }) = requests.try_recv() {
        found.push((String::from_utf8_lossy(&payload).into_owned(), refused));
    }
    found
}

#[test]
fn commands_come_beside_readings() {
    for version in VERSIONS {
        let (mut setup, mut requests) = setup(version);
        setup.take_numbers(10);
        run(setup.connection(async |broker| {
            accept(version, broker, false).await;
            broker.send(&publish(version, 0, TOPIC, b"one")).await;
            assert_eq!(texts(&broker.behave(10).await), numbers(10));
            broker.send(&publish(version, 0, TOPIC, b"two")).await;
            broker.sync().await;
        }))
        .expect_err("closed by the script");
        assert_eq!(handed_on(&mut requests), [("one".to_owned(), None), ("two".to_owned(), None)]);
        assert_eq!(setup.backlog(), 0);
        assert_eq!(setup.hub.counters("home").commands.get(), 2);
    }
}

#[test]
fn whatever_else_a_broker_sends_is_refused_and_the_connection_lives() {
    // What the broker sends, and why it is no command; `None`: nobody is told.
    let cases: [(&str, u8, &str, usize, Option<&str>); 6] = [
        ("retained", 1, TOPIC, 2, Some("it is retained")),
        ("at QoS 1", 2, TOPIC, 2, Some("an old session")),
        ("at QoS 2", 4, TOPIC, 2, Some("an old session")),
        ("too large", 0, TOPIC, MAX_BYTES + 1, Some("a command has at most 1024")),
        ("on another topic", 0, "maison/relais/info", 2, None),
        ("larger than we read", 0, TOPIC, 20_000, None),
    ];
    for version in VERSIONS {
        for (name, flags, topic, size, why) in cases {
            let (mut setup, mut requests) = setup(version);
            setup.take_numbers(3);
            run(setup.connection(async |broker| {
                accept(version, broker, false).await;
                broker.behave(3).await;
                broker.sync().await;
                broker.send(&publish(version, flags, topic, &vec![b'x'; size])).await;
                match flags {
                    2 => assert_eq!(answer(broker).await, Packet::PubAck(PubAck::new(77)), "{name}"),
                    4 => {
                        assert_eq!(answer(broker).await, Packet::PubRec(PubRec::new(77)), "{name}");
                        broker.send(&[0x62, 2, 0, 77]).await;
                        assert_eq!(answer(broker).await, Packet::PubComp(PubComp::new(77)), "{name}");
                    }
                    _ => {}
                }
                broker.send(&publish(version, 0, TOPIC, b"after it")).await;
                broker.sync().await;
            }))
            .expect_err("closed by the script");
            let mut found = handed_on(&mut requests);
            assert_eq!(found.pop(), Some(("after it".to_owned(), None)), "{version} {name}");
            let refused = found.pop().map(|(_, refused)| refused.expect("refused"));
            match (why, refused) {
                (None, None) => {}
                (Some(why), Some(refused)) => assert!(refused.contains(why), "{version} {name}: {refused}"),
                other => panic!("{version} {name}: {other:?}"),
            }
            assert!(found.is_empty());
        }
    }
}

#[test]
fn what_comes_before_the_subscription_is_refused_on_every_connection() {
    for version in VERSIONS {
        let (mut setup, mut requests) = setup(version);
        for session in [false, true] {
            run(setup.connection(async |broker| {
                broker.connack(session).await;
                // What a broker has kept for us comes first.
                broker.send(&publish(version, 0, TOPIC, b"queued")).await;
                let id = subscribe(broker).await;
                broker.send(&publish(version, 0, TOPIC, b"queued")).await;
                suback(version, broker, id, 0).await;
                broker.send(&publish(version, 0, TOPIC, b"fresh")).await;
                broker.sync().await;
            }))
            .expect_err("closed by the script");
            let found = handed_on(&mut requests);
            let early = |(payload, refused): &(String, Option<String>)| {
                payload == "queued" && refused.as_ref().is_some_and(|why| why.contains("may have waited"))
            };
            assert!(found.len() == 3 && found[..2].iter().all(early), "{version}: {found:?}");
            assert_eq!(found[2], ("fresh".to_owned(), None));
        }
    }
}

#[test]
fn after_a_stall_only_a_fresh_sign_of_life_lets_commands_in() {
    for version in VERSIONS {
        let (mut setup, mut requests) = setup(version);
        let (clock, hub) = (setup.clock.clone(), setup.hub.clone());
        run(setup.connection(async |broker| {
            accept(version, broker, false).await;
            broker.sync().await;
            // The machine sleeps for an hour; what is read first may have lain in the socket's buffer.
            clock.advance(Duration::from_secs(3_600));
            broker.send(&publish(version, 0, TOPIC, b"old")).await;
            assert_eq!(answer(broker).await, Packet::PingReq);
            broker.send(&[0xd0, 0]).await;
            broker.send(&publish(version, 0, TOPIC, b"fresh")).await;
            broker.sync().await;
            // Before the limit is reached, the broker is asked again.
            clock.advance(Duration::from_secs(15));
            hub.appended();
            assert_eq!(answer(broker).await, Packet::PingReq);
        }))
        .expect_err("closed by the script");
        let found = handed_on(&mut requests);
        assert_eq!(found.len(), 2, "{version}: {found:?}");
        assert!(found[0].1.as_ref().is_some_and(|why| why.contains("stalled")), "{version}: {found:?}");
        assert_eq!(found[1], ("fresh".to_owned(), None));
    }
}

/// Waits until `…/info` says this.
async fn info(broker: &mut Peer<DuplexStream>, part: &str) {
    loop {
        match broker.next().await {
            Some(Packet::Publish(message)) => {
                broker.ack(message.pkid).await;
                if message.topic.ends_with("/info") && String::from_utf8_lossy(&message.payload).contains(part) {
                    return;
                }
            }
            other => panic!("instead of state: {other:?}"),
        }
    }
}

#[test]
fn a_refused_subscription_is_told_and_readings_go_on() {
    for version in VERSIONS {
        let (mut setup, mut requests) = setup(version);
        run(setup.connection(async |broker| {
            broker.connack(false).await;
            let id = subscribe(broker).await;
            suback(version, broker, id, 0x80).await;
            info(broker, r#""commands":{"home":"refused: the broker refuses the subscription to maison/relais/set"#)
                .await;
            broker.send(&publish(version, 0, TOPIC, b"all the same")).await;
            broker.sync().await;
        }))
        .expect_err("closed by the script");
        assert!(handed_on(&mut requests)[0].1.is_some(), "nobody has accepted the subscription");
        setup.take_numbers(3);
        run(setup.connection(async |broker| {
            accept(version, broker, true).await;
            broker.behave(3).await;
            info(broker, r#""commands":{"home":"accepted"}"#).await;
        }))
        .expect_err("closed by the script");
        assert_eq!(setup.backlog(), 0);
    }
}

#[test]
fn a_broker_that_closes_over_a_subscription_gets_the_readings_without_it() {
    for version in VERSIONS {
        let (mut setup, _requests) = setup(version);
        setup.take_numbers(10);
        for _ in 0..3 {
            run(setup.connection(async |broker| {
                broker.connack(false).await;
                subscribe(broker).await;
            }))
            .expect_err("closed by the script");
        }
        run(setup.connection(async |broker| {
            broker.connack(false).await;
            assert_eq!(texts(&broker.behave(10).await), numbers(10));
            broker.sync().await;
        }))
        .expect_err("closed by the script");
        assert_eq!(setup.backlog(), 0, "and nothing is put aside: no message was to blame");
        assert_eq!(setup.hub.counters("home").refused.get(), 0);
    }
}

/// The packet id of a SUBSCRIBE is not that of a message, not even while the window is sent again.
#[test]
fn a_subscription_has_a_packet_id_of_its_own() {
    for version in VERSIONS {
        let (mut setup, _requests) = setup(version);
        setup.take_numbers(10);
        let mut sent = Vec::new();
        run(setup.connection(async |broker| {
            accept(version, broker, false).await;
            sent = ids(&broker.readings(4).await);
        }))
        .expect_err("closed by the script");
        run(setup.connection(async |broker| {
            broker.connack(true).await;
            let id = subscribe(broker).await;
            assert!(!sent.contains(&id), "{id} {sent:?}");
            let again = broker.behave(10).await;
            assert_eq!(ids(&again)[..4], sent);
            assert!(!ids(&again).contains(&id));
            suback(version, broker, id, 0).await;
            broker.sync().await;
        }))
        .expect_err("closed by the script");
        assert_eq!(setup.backlog(), 0);
    }
}

#[test]
fn a_flood_is_bounded_and_readings_get_through() {
    for version in VERSIONS {
        let (mut setup, mut requests) = setup(version);
        setup.take_numbers(10);
        run(setup.connection(async |broker| {
            accept(version, broker, false).await;
            let command = publish(version, 0, TOPIC, b"{}");
            for _ in 0..200 {
                broker.send(&command.repeat(20)).await;
            }
            assert_eq!(texts(&broker.behave(10).await), numbers(10));
            broker.sync().await;
        }))
        .expect_err("closed by the script");
        let counters = setup.hub.counters("home");
        let found = handed_on(&mut requests).len() as u64;
        // Nobody takes them here: what there is room for is handed on, and every other one counted.
        assert_eq!(found, 200);
        assert_eq!(found + counters.commands_refused.get(), 4_000);
        assert_eq!(setup.backlog(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever messages come: nothing is accepted but a fresh command, and the readings get through.
    #[test]
    fn no_message_disturbs_the_session(
        messages in prop::collection::vec((0..16_u8, 0..4_usize, prop::collection::vec(any::<u8>(), 0..50)), 0..60),
        five: bool,
    ) {
        let version = VERSIONS[usize::from(five)];
        let (mut setup, mut requests) = setup(version);
        setup.take_numbers(5);
        let mut expected = 0;
        let mut packets = Vec::new();
        for (flags, topic, payload) in &messages {
            // A quality of service of 3 is no MQTT.
            let flags = if flags & 6 == 6 { flags & 9 } else { *flags };
            let topic = [TOPIC, "maison/relais", "s", "maison/atelier/info"][*topic];
            expected += usize::from(topic == TOPIC && flags & 7 == 0);
            packets.extend(publish(version, flags, topic, payload));
        }
        let ended = run(setup.connection(async |broker| {
            accept(version, broker, false).await;
            broker.send(&packets).await;
            let mut left = 5;
            let acked = |flags: u8| flags & 6 == 2 || flags & 6 == 4;
            let mut answers = messages.iter().filter(|(flags, ..)| acked(*flags)).count();
            while left + answers > 0 {
                match broker.next().await.expect("the connection lives") {
                    Packet::PubAck(_) | Packet::PubRec(_) => answers -= 1,
                    Packet::Publish(message) => {
                        left -= usize::from(message.topic == "t");
                        broker.ack(message.pkid).await;
                    }
                    other => panic!("{other:?}"),
                }
            }
            broker.sync().await;
        }));
        prop_assert!(ended.expect_err("closed by the script").to_string().contains("closed the connection"));
        let accepted = handed_on(&mut requests).into_iter().filter(|(_, refused)| refused.is_none()).count();
        prop_assert_eq!(accepted, expected);
        prop_assert_eq!(setup.backlog(), 0);
    }
}
