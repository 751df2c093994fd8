//! The ways in which a broker misbehaves, in a table: what it does on a connection, how that connection ends, and how
//! much is then left in the outbox. After each of them a broker that behaves gets exactly what is left: nothing that
//! was not acknowledged is ever lost, whatever was done to us before.
//!
//! What takes more than a row has a test of its own in `tests.rs` and below (a byte at a time, silence, a
//! stranger's session) and in `feed/`.

use std::collections::BTreeSet;
use std::time::Duration;

use rumqttc::mqttbytes::v4::Packet;
use tokio::io::DuplexStream;

use super::scripted::{Peer, Setup, config, ids, numbers, run, texts};
use super::session::ACK_DEADLINE;
use crate::clock::ManualClock;
use crate::config::Qos;

/// Messages that wait, and how many of them may be in flight.
const MESSAGES: usize = 10;
const WINDOW: u16 = 4;

/// What the broker does next. It has read CONNECT already; when it has nothing left to do, it closes.
#[derive(Clone, Copy)]
enum Does {
    /// Accepts the connection, with our session or without.
    Accepts(bool),
    /// Sends these bytes.
    Sends(&'static [u8]),
    /// Reads so many readings.
    Reads(usize),
    /// Acknowledges readings that it has read, by their order: PUBACK is 0x40, PUBREC 0x50, PUBCOMP 0x70.
    Acks(u8, &'static [usize]),
    /// Acknowledges a packet id that was never used.
    AcksUnknown(u8),
    /// Reads so many PUBREL.
    Releases(usize),
    /// Makes sure that everything it sent was taken.
    Syncs,
    /// Does nothing for so long, but answers keep-alives.
    Hangs(Duration),
    /// Reads on until we close the connection.
    Listens,
}

use Does::{Accepts, Acks, AcksUnknown, Hangs, Listens, Reads, Releases, Sends, Syncs};

const ACK: u8 = 0x40;
const REC: u8 = 0x50;
const COMP: u8 = 0x70;

/// Name, QoS, what it does, how we call the end, and how many messages are left.
type Case = (&'static str, Qos, &'static [Does], &'static str, u64);

const ONE: Qos = Qos::AtLeastOnce;
const TWO: Qos = Qos::ExactlyOnce;

const CLOSED: &str = "closed the connection";
const NOT_MQTT: &str = "not MQTT";
const OUT_OF_PLACE: &str = "has no business here";
const TOO_LARGE: &str = "the limit `max_packet` is 10000";
const HUNG: &str = "has acknowledged nothing for";

#[rustfmt::skip]
const CASES: &[Case] = &[
    // Instead of an orderly CONNACK.
    ("closes without an answer", ONE, &[], CLOSED, 10),
    ("closes in the middle of CONNACK", ONE, &[Sends(&[0x20, 2])], CLOSED, 10),
    ("speaks another version", ONE, &[Sends(&[0x20, 2, 0, 1])], "does not speak MQTT 3.1.1", 10),
    ("rejects our identifier", ONE, &[Sends(&[0x20, 2, 0, 2])], "rejects the client identifier", 10),
    ("is unavailable", ONE, &[Sends(&[0x20, 2, 0, 3])], "its service is unavailable", 10),
    ("rejects our password", ONE, &[Sends(&[0x20, 2, 0, 4])], "user name or password is wrong", 10),
    ("does not admit us", ONE, &[Sends(&[0x20, 2, 0, 5])], "does not authorise", 10),
    ("refuses for a reason that does not exist", ONE, &[Sends(&[0x20, 2, 0, 99])], "does not know", 10),
    ("is a web server", ONE, &[Sends(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Listens], NOT_MQTT, 10),
    ("answers CONNECT with PINGRESP", ONE, &[Sends(&[0xd0, 0]), Listens], OUT_OF_PLACE, 10),
    ("answers CONNECT with PUBACK", ONE, &[Sends(&[0x40, 2, 0, 1]), Listens], OUT_OF_PLACE, 10),
    ("announces a CONNACK of 256 MiB", ONE, &[Sends(&[0x20, 0xff, 0xff, 0xff, 0x7f]), Listens], TOO_LARGE, 10),
    // It accepts, and then says what it may not say.
    ("accepts and closes", ONE, &[Accepts(false)], CLOSED, 10),
    ("accepts twice", ONE, &[Accepts(false), Accepts(false), Listens], OUT_OF_PLACE, 10),
    ("claims a session that never was", ONE, &[Accepts(true), Reads(4), Acks(ACK, &[0, 1, 2, 3]), Syncs], CLOSED, 6),
    ("sends a packet of type 0", ONE, &[Accepts(false), Sends(&[0, 0]), Listens], NOT_MQTT, 10),
    ("sends AUTH, which only MQTT 5 has", ONE, &[Accepts(false), Sends(&[0xf0, 1, 0]), Listens], NOT_MQTT, 10),
    ("sends a length without an end", ONE, &[Accepts(false), Sends(&[0x40, 255, 255, 255, 255]), Listens], NOT_MQTT, 10),
    ("sends PUBACK without a packet id", ONE, &[Accepts(false), Sends(&[0x40, 0]), Listens], NOT_MQTT, 10),
    ("sends CONNECT", ONE, &[Accepts(false), Sends(&[0x10, 3, 1, 0, 2]), Listens], NOT_MQTT, 10),
    ("sends SUBACK unasked", ONE, &[Accepts(false), Sends(&[0x90, 3, 0, 1, 0]), Listens], OUT_OF_PLACE, 10),
    ("sends PINGREQ", ONE, &[Accepts(false), Sends(&[0xc0, 0]), Listens], OUT_OF_PLACE, 10),
    ("announces a message of 256 MiB", ONE, &[Accepts(false), Sends(&[0x30, 0xff, 0xff, 0xff, 0x7f]), Listens],
        TOO_LARGE, 10),
    // Acknowledgements that fail to come.
    ("never acknowledges", ONE, &[Accepts(false), Reads(4), Syncs, Hangs(ACK_DEADLINE), Listens], HUNG, 10),
    ("acknowledges one and no more", ONE,
        &[Accepts(false), Reads(4), Acks(ACK, &[0]), Syncs, Hangs(ACK_DEADLINE), Listens], HUNG, 9),
    ("never releases", TWO,
        &[Accepts(false), Reads(4), Acks(REC, &[0, 1, 2, 3]), Releases(4), Hangs(ACK_DEADLINE), Listens], HUNG, 10),
    ("closes in the middle of an acknowledgement", ONE,
        &[Accepts(false), Reads(4), Acks(ACK, &[0]), Sends(&[0x40, 2, 0])], CLOSED, 9),
    ("closes in the middle of a message to us", ONE, &[Accepts(false), Reads(4), Sends(&[0x32, 6, 0, 1])], CLOSED, 10),
    // Acknowledgements that should not come.
    ("acknowledges twice", ONE, &[Accepts(false), Reads(4), Acks(ACK, &[0, 0, 0]), Syncs], CLOSED, 9),
    ("acknowledges the last first", ONE, &[Accepts(false), Reads(4), Acks(ACK, &[3, 2, 1, 0]), Syncs], CLOSED, 6),
    ("acknowledges only the second", ONE, &[Accepts(false), Reads(4), Acks(ACK, &[1]), Syncs], CLOSED, 9),
    ("acknowledges what was never sent", ONE,
        &[Accepts(false), AcksUnknown(ACK), AcksUnknown(REC), AcksUnknown(COMP), Reads(4), Syncs], CLOSED, 10),
    ("acknowledges packet id 0", ONE, &[Accepts(false), Reads(4), Sends(&[0x40, 2, 0, 0]), Syncs], CLOSED, 10),
    ("answers QoS 1 with PUBREC", ONE, &[Accepts(false), Reads(4), Acks(REC, &[0]), Syncs], CLOSED, 10),
    ("answers QoS 1 with PUBCOMP", ONE, &[Accepts(false), Reads(4), Acks(COMP, &[0]), Syncs], CLOSED, 10),
    ("answers QoS 2 with PUBACK", TWO, &[Accepts(false), Reads(4), Acks(ACK, &[0]), Syncs], CLOSED, 10),
    ("completes what was not released", TWO, &[Accepts(false), Reads(4), Acks(COMP, &[0]), Syncs], CLOSED, 10),
];

/// Follows the row, and then closes.
async fn misbehave(peer: &mut Peer<DuplexStream>, clock: &ManualClock, wake: impl Fn(), does: &[Does]) {
    peer.next().await.expect("CONNECT");
    let mut read = Vec::new();
    for step in does {
        match *step {
            Accepts(session) => peer.send(&[0x20, 2, u8::from(session), 0]).await,
            Sends(bytes) => peer.send(bytes).await,
            Reads(count) => read.extend(ids(&peer.readings(count).await)),
            Acks(kind, which) => {
                for index in which {
                    peer.acknowledge(kind, read[*index]).await;
                }
            }
            AcksUnknown(kind) => peer.acknowledge(kind, 4_711).await,
            Releases(count) => {
                for _ in 0..count {
                    assert!(matches!(peer.next().await, Some(Packet::PubRel(_))), "PUBREL");
                }
            }
            Syncs => peer.sync().await,
            Hangs(time) => {
                clock.advance(time);
                wake();
                peer.send(&[0xd0, 0]).await;
            }
            Listens => while peer.next().await.is_some() {},
        }
    }
}

#[test]
fn whatever_a_broker_does_the_next_one_gets_the_rest() {
    assert!(CASES.len() >= 20);
    for (name, qos, does, ending, left) in CASES {
        // Shown only if it fails.
        println!("{name}");
        let mut setup = Setup::new(config(*qos, WINDOW));
        setup.take_numbers(MESSAGES);
        let (clock, hub) = (setup.clock.clone(), setup.hub.clone());
        let wake = || hub.appended();
        let ended = run(setup.connection(async |peer| misbehave(peer, &clock, wake, does).await));
        let failure = ended.expect_err(name).to_string();
        assert!(failure.contains(ending), "{name}: {failure}");
        assert_eq!(setup.backlog(), *left, "{name}: messages left");

        let knows_us = does.iter().any(|step| matches!(step, Accepts(_)));
        let mut rest = Vec::new();
        run(setup.connection(async |peer| {
            peer.connack(knows_us).await;
            rest = texts(&peer.behave(usize::try_from(*left).expect("few")).await);
            peer.sync().await;
        }))
        .expect_err("closed by the script");
        assert_eq!(setup.backlog(), 0, "{name}: the next broker got everything");
        let all = numbers(MESSAGES);
        let distinct: BTreeSet<&String> = rest.iter().collect();
        assert_eq!(distinct.len(), rest.len(), "{name}: nothing comes twice on one connection");
        assert!(rest.iter().all(|text| all.contains(text)), "{name}: {rest:?}");
    }
}

/// The broker is restarted from an old copy of its store: it knows our session, but only half of what was in flight.
#[test]
fn a_session_that_knows_half_of_the_window_is_taken_up() {
    for qos in [ONE, TWO] {
        let mut setup = Setup::new(config(qos, WINDOW));
        setup.take_numbers(MESSAGES);
        let mut sent = Vec::new();
        run(setup.connection(async |peer| {
            peer.connack(false).await;
            sent = peer.readings(WINDOW.into()).await;
        }))
        .expect_err("closed by the script");
        run(setup.connection(async |peer| {
            peer.connack(true).await;
            let again = peer.readings(WINDOW.into()).await;
            assert_eq!((ids(&again), texts(&again)), (ids(&sent), texts(&sent)));
            assert!(again.iter().all(|message| message.dup));
            // It had two of them; to it the others are new. All are to be acknowledged alike.
            for message in &again {
                peer.complete(message).await;
            }
            peer.behave(if qos == ONE { MESSAGES - usize::from(WINDOW) } else { MESSAGES }).await;
            peer.sync().await;
        }))
        .expect_err("closed by the script");
        assert_eq!(setup.backlog(), 0, "{qos:?}");
    }
}
