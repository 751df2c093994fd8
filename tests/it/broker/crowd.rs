//! As many clients as a configuration allows, and clients that take what they can get: nobody else is harmed.

use std::io::Write;
use std::net::TcpStream;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use vigie::broker::RECEIVE_MAXIMUM;

use super::raw::{Answer, Canary, Hello, Raw, Size, closed, open, packet, publish, subscribe};
use crate::it::harness::{Agent, Exit, Gateway, free_port, wait_until};

/// A gateway whose broker asks nobody for a name, with these limits.
fn open_house(limits: &str) -> (Gateway, Agent, u16) {
    let (gateway, port) = (Gateway::new(), free_port());
    let dir = gateway.path().display().to_string();
    gateway.configure(&format!(
        "[broker]\nlisten = \"127.0.0.1:{port}\"\npath = \"{dir}/broker\"\n\n\
         [broker.limits]\nconnect_rate = 1000000\n{limits}"
    ));
    let mut agent = gateway.run();
    agent.wait_log(&format!("mqtt://127.0.0.1:{port}"));
    (gateway, agent, port)
}

/// Connections of the crowd, and the memory that it may take: 100 KiB each, in an unoptimised build.
const CROWD: usize = 1000;
const MOST_KIB: usize = CROWD * 100;

#[test]
fn a_thousand_clients_all_get_a_message_and_the_next_one_is_refused() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).expect("up to the maximum");
    let (_gateway, mut agent, port) = open_house(&format!("connections = {CROWD}\n"));
    let before = Size::of(&agent);
    let mut crowd: Vec<Raw> = (0..CROWD)
        .map(|number| {
            let mut client = Raw::connect(port, if number % 2 == 0 { 4 } else { 5 }, &format!("crowd{number}"));
            assert_eq!(client.subscribe(&["to/all"]), [1]);
            client
        })
        .collect();
    let mut late = open(port);
    let _ = late.write_all(&Hello::new(5, "late").packet());
    assert!(closed(&mut late).is_empty(), "it is closed without a word");
    agent.wait_log("connection refused: the broker has `connections` clients");
    // One to all, from each side of the versions, and each to one.
    for sender in [0, 1] {
        let payload = format!("from {sender}");
        assert_eq!(crowd[sender].publish("to/all", payload.as_bytes()), Answer::Taken);
        for client in &mut crowd {
            // Its acknowledgement came before its own copy, or after it.
            assert_eq!(client.message(), payload.as_bytes());
        }
    }
    assert_eq!(crowd[0].subscribe(&["to/one"]), [1]);
    for client in &mut crowd[1..] {
        assert_eq!(client.publish("to/one", b"x"), Answer::Taken);
    }
    for _ in 1..CROWD {
        assert_eq!(crowd[0].message(), b"x");
    }
    let with = Size::of(&agent);
    let grown = with.kib.saturating_sub(before.kib);
    eprintln!("{CROWD} clients: {} KiB, {grown} KiB more than without; {} descriptors", with.kib, with.descriptors);
    assert!(grown < MOST_KIB, "{grown} KiB for {CROWD} clients");
    // Where one has left, there is room for another.
    drop(crowd.pop());
    wait_until("room for another", || {
        let mut stream = open(port);
        let _ = stream.write_all(&Hello::new(4, "another").packet());
        let mut answer = [0; 4];
        std::io::Read::read_exact(&mut stream, &mut answer).is_ok() && answer == [0x20, 2, 0, 0]
    });
    drop(crowd);
    wait_until("the descriptors to be closed", || Size::of(&agent).descriptors <= before.descriptors + 4);
    assert_eq!(agent.terminate(), Exit::Code(0));
}

/// What all the clients together that want to do harm may take for good.
const MOST_KIB_LEFT: usize = 64 * 1024;

#[test]
fn whatever_others_do_a_client_goes_on_being_served() {
    let limits = "queue_bytes = \"256 KiB\"\nsubscriptions = 100\nretained = 50\nmessage_rate = 100000\n";
    let (_gateway, mut agent, port) = open_house(limits);
    let before = Size::of(&agent);
    let canary = Canary::start(port, None);
    // These say a byte now and then until they are closed, meanwhile others do worse.
    let mut slow: Vec<TcpStream> = (0..50).map(|_| open(port)).collect();
    let drip = Hello::new(4, "drip").packet();
    let mut next = drip.iter();
    let mut a_byte_more = || {
        if let Some(byte) = next.next().filter(|_| next.len() > 2) {
            slow.iter_mut().for_each(|stream| drop(stream.write_all(&[*byte])));
        }
    };
    for version in [4, 5] {
        a_byte_more();
        // Reads nothing of what it has subscribed to.
        let mut deaf = Raw::connect(port, version, "deaf");
        assert_eq!(deaf.subscribe(&["loud/#"]), [1]);
        let mut loud = Raw::connect(port, version, "loud");
        for _ in 0..500 {
            assert_eq!(loud.publish("loud/x", &[b'x'; 9000]), Answer::Taken);
        }
        canary.sings("a client that never reads");
        a_byte_more();
        // Subscribes to more than it may, again and again, without waiting for the answers.
        let filters: Vec<String> = (0..2000).map(|number| format!("bomb/{number}/+/#")).collect();
        let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
        let mut bomber = Raw::connect(port, version, "bomber");
        let codes = bomber.subscribe(&filters);
        assert!(codes[..100].iter().all(|code| *code == 1) && codes[100..].iter().all(|code| *code >= 0x80));
        for _ in 0..20 {
            bomber.send(&subscribe(version, &filters));
        }
        canary.sings("a bomb of subscriptions");
        a_byte_more();
        // A topic as long as the protocol can say, and one as deep.
        for topic in ["t".repeat(65_535), "t/".repeat(32_767)] {
            let mut long = Raw::connect(port, version, "long");
            let refused = if version == 5 { Answer::Refused(0x87) } else { Answer::Closed };
            assert_eq!(long.publish(&topic, b"x"), refused);
            let mut long = Raw::connect(port, version, "long");
            long.send(&subscribe(version, &[&topic]));
            let answer = long.next();
            assert!(
                answer.as_ref().is_none_or(|(_, body)| body.last().is_some_and(|code| *code >= 0x80)),
                "{answer:?}"
            );
        }
        canary.sings("topics of 64 KiB");
        a_byte_more();
        // A packet that is larger than it may be; one that says that it has 256 MiB, and one that goes on for ever.
        for mut bytes in
            [publish(version, "big", vec![0; 2_000_000].as_slice(), 1, 1), vec![0x30, 0xff, 0xff, 0xff, 0x7f]]
        {
            let mut big = Raw::connect(port, version, "big");
            bytes.resize(bytes.len().max(2_000_000), 0);
            big.send(&bytes);
            while big.next().is_some() {}
        }
        canary.sings("packets that are too large");
        a_byte_more();
        // Keeps more than there is room for.
        let mut keeper = Raw::connect(port, version, "keeper");
        for number in 0..500 {
            let mut kept = publish(version, &format!("kept/{number}"), &[b'k'; 1000], 1, 7);
            kept[0] |= 1;
            keeper.send(&kept);
            assert_eq!(keeper.next().expect("an answer").0, 0x40);
        }
        canary.sings("a bomb of retained messages");
        a_byte_more();
        // Takes its own place again and again, and leaves its connections to die.
        let taken: Vec<Raw> = (0..100).map(|_| Raw::connect(port, version, "same")).collect();
        canary.sings("a storm of connections");
        drop(taken);
    }
    for stream in &mut slow {
        closed(stream);
    }
    canary.sings("connections that never say who they are");
    for reason in ["too much waits for this client", "it did not come to the end of its handshake", "topic refused"] {
        agent.wait_log(reason);
    }
    let rounds = canary.end();
    wait_until("the descriptors to be closed", || Size::of(&agent).descriptors <= before.descriptors + 4);
    let grown = Size::of(&agent).kib.saturating_sub(before.kib);
    eprintln!("the canary was served {rounds} times; {grown} KiB more than at first");
    assert!(grown < MOST_KIB_LEFT, "{grown} KiB are left");
    assert_eq!(agent.terminate(), Exit::Code(0));
}

#[test]
fn a_client_that_acknowledges_late_gets_everything_and_never_too_much_at_once() {
    let (_gateway, mut agent, port) = open_house("message_rate = 100000\n");
    let most = usize::from(RECEIVE_MAXIMUM.get());
    for version in [4, 5] {
        let mut late = Raw::connect(port, version, "late");
        assert_eq!(late.subscribe(&["x"]), [1]);
        let mut publisher = Raw::connect(port, version, "publisher");
        let expected: Vec<String> = (0..most + 500).map(|number| number.to_string()).collect();
        for text in &expected {
            assert_eq!(publisher.publish("x", text.as_bytes()), Answer::Taken);
        }
        let (ids, mut got): (Vec<_>, Vec<_>) = (0..most).map(|_| late.unacknowledged()).unzip();
        // Whatever else were on its way would come before one of these answers (PINGRESP).
        for _ in 0..50 {
            late.send(&packet(0xc0, &[]));
            assert_eq!(late.next(), Some((0xd0, Vec::new())), "more than {most} are in flight");
        }
        late.send(&ids.iter().flatten().flat_map(|id| packet(0x40, id)).collect::<Vec<_>>());
        got.extend((most..expected.len()).map(|_| late.message()));
        assert!(got.iter().eq(expected.iter().map(String::as_bytes)), "all of them, in order");
    }
    assert_eq!(agent.terminate(), Exit::Code(0));
}
