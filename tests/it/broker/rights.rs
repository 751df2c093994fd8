//! Every cell of pattern × topic × reading or writing × version, each with a user that has that pattern alone.

use super::raw::{Answer, Raw};
use crate::it::harness::{Exit, Gateway, free_port};

/// Topics that are tried; `u` stands for the user and `c` for the client.
const TOPICS: [&str; 10] =
    ["a", "a/b", "a/b/c", "a//c", "b/a", "of/u", "of/v", "of/u/c", "$SYS/a", "maison/atelier/availability"];

/// A pattern, and which of the topics it allows to read and to write: written out by hand, so that the broker's matching
/// is not judged by itself. The last two topics are the broker's and the gateway's: nobody writes them.
const TABLE: [(&str, &str, &str); 12] = [
    ("a", "1000000000", "1000000000"),
    ("a/b", "0100000000", "0100000000"),
    ("a/+", "0100000000", "0100000000"),
    ("a/#", "1111000000", "1111000000"),
    ("a/+/c", "0011000000", "0011000000"),
    ("+/a", "0000100000", "0000100000"),
    ("+/+", "0100111000", "0100111000"),
    ("of/%u", "0000010000", "0000010000"),
    ("of/%u/%c", "0000000100", "0000000100"),
    ("#", "1111111101", "1111111100"),
    ("$SYS/#", "0000000010", "0000000000"),
    ("maison/#", "0000000001", "0000000000"),
];

/// Which pattern a user may write who reads that of its own number: another one, so that neither stands for the other.
fn writes(number: usize) -> usize {
    (number + 5) % TABLE.len()
}

#[test]
fn every_cell_of_pattern_topic_direction_and_version() {
    let (gateway, port) = (Gateway::new(), free_port());
    let dir = gateway.path().display().to_string();
    let user = |number: usize| format!("u{number}");
    let mut rules = String::new();
    for (number, (reads, _, _)) in TABLE.iter().enumerate() {
        let said = super::vigie(
            &gateway,
            &["broker", "passwd", &user(number), "--users", &format!("{dir}/users")],
            &user(number),
        );
        assert!(said.contains("has a password"), "{said}");
        let written = TABLE[writes(number)].0;
        rules += &format!("[broker.user.{}]\nread = [\"{reads}\"]\nwrite = [\"{written}\"]\n\n", user(number));
    }
    gateway.configure(&format!(
        "[broker]\nlisten = \"127.0.0.1:{port}\"\nusers = \"users\"\npath = \"{dir}/broker\"\n\n\
         [broker.limits]\nconnect_rate = 1000000\n\n{rules}"
    ));
    let mut agent = gateway.run();
    agent.wait_log(&format!("mqtt://127.0.0.1:{port}"));
    let (mut allowed, mut cells) = (0, 0);
    for version in [4, 5] {
        for number in 0..TABLE.len() {
            let name = user(number);
            let enter = |id: &str| {
                Raw::login(port, version, id, Some((&name, &name))).unwrap_or_else(|code| panic!("{name}: {code:#x}"))
            };
            for (place, topic) in TOPICS.iter().enumerate() {
                // The client's name is the topic's number, so that none has to wait for the session of the one before.
                let id = format!("{name}-{version}-{place}");
                let topic = topic.replace("of/u", &format!("of/{name}")).replace("/c", &format!("/{id}"));
                let topic = if topic.starts_with("of/") { topic } else { topic.replace(&id, "c") };
                let may = |row: &str| row.as_bytes()[place] == b'1';
                let (may_read, may_write) = (may(TABLE[number].1), may(TABLE[writes(number)].2));
                let cell = format!(
                    "version {version}, {topic}, reads {}, writes {}",
                    TABLE[number].0,
                    TABLE[writes(number)].0
                );
                let mut client = enter(&id);
                let refused = if version == 5 { 0x87 } else { 0x80 };
                assert_eq!(client.subscribe(&[&topic]), [if may_read { 1 } else { refused }], "read {cell}");
                let expected = match (may_write, version) {
                    (true, _) => Answer::Taken,
                    (_, 5) => Answer::Refused(0x87),
                    _ => Answer::Closed,
                };
                assert_eq!(client.publish(&topic, b"x"), expected, "write {cell}");
                cells += 2;
                allowed += usize::from(may_read) + usize::from(may_write);
            }
        }
    }
    eprintln!("{cells} cells, {allowed} of them allowed");
    assert_eq!(agent.terminate(), Exit::Code(0));
}
