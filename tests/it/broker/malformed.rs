//! Prevents: a broker that one bad packet ends, or many of them wear out.
//!
//! Sequences of good packets of both versions, changed at random, over many connections at a time: `BROKER_PACKETS` says how
//! many packets in all (default [`PACKETS`]; `tests/soak/malformed` sends a million), `BROKER_SEED` which (default
//! [`SEED`]).

use std::io::Write;
use std::net::Shutdown;

use super::raw::{Canary, Hello, Size, closed, open, packet, publish, subscribe};
use vigie::broker::MAX_SESSIONS;

use crate::it::harness::{Exit, Gateway, Random, free_port, wait_until};

const PACKETS: u32 = 20_000;
const SEED: u64 = 7;
/// Connections at a time.
const ATTACKERS: u32 = 8;
/// Packets of a connection: some, so that a few of them come after a CONNECT that is good.
const AT_ONCE: u32 = 10;
/// What the gateway may have more at the end than at first: what its bounds let clients leave behind, sessions above all.
const MOST_KIB_LEFT: usize = 64 * 1024;
/// ...in descriptors: one for each session that is kept.
const MOST_DESCRIPTORS: usize = MAX_SESSIONS as usize + 4;
/// What the second half may add to the first, in KiB. A leak of 100 bytes a packet would show within a million.
const MOST_KIB_LATER: usize = 16 * 1024;

/// A packet as a client might send it.
fn good(random: &mut Random, version: u8) -> Vec<u8> {
    let id = u16::try_from(1 + random.below(5)).expect("small");
    let level = random.below(6);
    let topic = format!("fuzz/{level}");
    let body = id.to_be_bytes();
    let with_reason = |reason: u8| if version == 5 { [&body[..], &[reason, 0]].concat() } else { body.to_vec() };
    match random.below(12) {
        0 => hello(random, version),
        1 => subscribe(version, &["fuzz/+", "#", "$share/group/fuzz/#"]),
        2..=4 => {
            let qos = u8::try_from(random.below(3)).expect("small");
            let mut bytes = publish(version, &topic, "payload", qos, id);
            bytes[0] |= u8::from(random.one_in(4));
            bytes
        }
        // An alias of a topic, an expiry, a property of the user's.
        5 => {
            let properties =
                [&[20, 0x23, 0, 1, 2, 0, 0, 0, 9][..], &[0x26, 0, 3, b'k', b'e', b'y', 0, 3, b'a', b'b', b'c'], b"x"];
            packet(0x30, &[&[0, 4][..], b"fuzz", &properties.concat()].concat())
        }
        6 => packet(0x62, &with_reason(0)),
        7 => packet(0x50, &with_reason(0x10)),
        8 => packet(0x70, &with_reason(0x92)),
        9 => {
            let filter = [0, 6, b'f', b'u', b'z', b'z', b'/', b'+'];
            packet(0xa2, &[&body[..], if version == 5 { &[0] } else { &[] }, &filter].concat())
        }
        10 => packet(0x40, &with_reason(0)),
        _ => [&[0xc0, 0][..], &[0xe0, 0], &[0xf0, 2, 0x18, 0]][random.below(3) as usize].to_vec(),
    }
}

/// CONNECT, of one of a few clients, whose sessions remain in part.
fn hello(random: &mut Random, version: u8) -> Vec<u8> {
    let id = format!("attacker-{}", random.below(50));
    let (clean, user) = (!random.one_in(3), random.one_in(5).then_some(("name", "word")));
    Hello { clean, user, ..Hello::new(version, &id) }.packet()
}

/// Changes it in up to four places.
fn spoil(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..random.below(4) {
        let length = u32::try_from(bytes.len()).expect("a short packet");
        let at = random.below(length) as usize;
        let byte = u8::try_from(random.below(256)).expect("a byte");
        match random.below(8) {
            0 => bytes[at] = byte,
            1 => bytes[at] ^= 1 << (byte % 8),
            2 => bytes.insert(at, byte),
            3 => bytes.truncate(at.max(1)),
            // Its type or flags, and its length.
            4 => bytes[0] = byte,
            5 => bytes.iter_mut().skip(1).take(1).for_each(|length| *length = byte),
            6 => bytes.extend_from_within(at..),
            _ => drop(bytes.drain(at..(at + 3).min(bytes.len() - 1).max(at))),
        }
    }
}

/// One connection after the other.
fn attack(port: u16, mut random: Random, packets: u32) {
    let mut sent = 0;
    while sent < packets {
        let version = if random.one_in(2) { 4 } else { 5 };
        let mut bytes = if random.one_in(8) { Vec::new() } else { hello(&mut random, version) };
        let count = 1 + random.below(2 * AT_ONCE);
        for _ in 0..count {
            let mut next = good(&mut random, version);
            spoil(&mut random, &mut next);
            bytes.extend(next);
        }
        sent += count;
        let mut stream = open(port);
        // The broker may close it wherever it likes to.
        if random.one_in(3) {
            for part in bytes.chunks(7) {
                let _ = stream.write_all(part);
            }
        } else {
            let _ = stream.write_all(&bytes);
        }
        let _ = stream.shutdown(Shutdown::Write);
        closed(&mut stream);
    }
}

#[test]
fn malformed_packets_end_nothing_leak_nothing_and_hold_up_nobody() {
    let given = std::env::var("BROKER_PACKETS").ok();
    let packets: u32 = given.map_or(PACKETS, |text| text.parse().expect("BROKER_PACKETS is a number"));
    let mut random = Random::seeded_or("BROKER_SEED", SEED);
    let (gateway, port) = (Gateway::new(), free_port());
    let dir = gateway.path().display().to_string();
    gateway.configure(&format!(
        "[broker]\nlisten = \"127.0.0.1:{port}\"\npath = \"{dir}/broker\"\n\n\
         [broker.limits]\nconnect_rate = 1000000\nmessage_rate = 1000000\nretained = 100\n"
    ));
    let mut agent = gateway.run();
    agent.wait_log(&format!("mqtt://127.0.0.1:{port}"));
    let canary = Canary::start(port, None);
    canary.sings("the start");
    let first = Size::of(&agent);
    let mut half = || {
        std::thread::scope(|scope| {
            for _ in 0..ATTACKERS {
                let random = random.fork();
                scope.spawn(move || attack(port, random, packets / 2 / ATTACKERS));
            }
        });
        canary.sings("malformed packets");
        wait_until("the descriptors to be closed", || {
            Size::of(&agent).descriptors <= first.descriptors + MOST_DESCRIPTORS
        });
        Size::of(&agent)
    };
    let (middle, last) = (half(), half());
    let rounds = canary.end();
    eprintln!(
        "{packets} packets; the canary was served {rounds} times; {} KiB at first, {} in the middle, {} at the end; \
         {} descriptors at first, {} at the end",
        first.kib, middle.kib, last.kib, first.descriptors, last.descriptors
    );
    assert!(last.kib < first.kib + MOST_KIB_LEFT && last.kib < middle.kib + MOST_KIB_LATER, "memory grows");
    assert_eq!(agent.terminate(), Exit::Code(0));
    assert_eq!(agent.log.count("panicked"), 0);
}
