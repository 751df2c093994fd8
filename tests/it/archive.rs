//! Prevents: an archive that misses what was delivered, has what was not, or costs the card or the outbox something
//! that it should not.

use std::fs;

use serde_json::Value;

use super::harness::{Agent, Exit, Gateway, Mosquitto, Port, Subscriber, command, wait_until};

fn configure(gateway: &Gateway, broker: u16, port: &Port, archive: &str) {
    gateway.configure(&format!(
        "[uplink.home]\nurl = \"mqtt://localhost:{broker}\"\n\n[archive]\npath = \"{}\"\nbatch = \"1m\"\n\n\
         [[sensor]]\nname = \"arduino\"\nroom = \"salle\"\ndriver = \"serial-json\"\nport = \"{}\"\n",
        gateway.path().join(archive).display(),
        port.path().display()
    ));
}

/// `vigie export` on a gateway's configuration: its status, standard output and errors.
fn export(gateway: &Gateway, args: &[&str]) -> (i32, String, String) {
    let config = gateway.config_file().display().to_string();
    let all = [&["export", "--config", &config], args].concat();
    let output = command(&all, gateway.path()).env("TZ", "Europe/Paris").output().expect("vigie starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("it was not killed"), text(output.stdout), text(output.stderr))
}

fn rows(gateway: &Gateway, args: &[&str]) -> Vec<Value> {
    let (code, out, err) = export(gateway, &[&["--json"], args].concat());
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn ids(rows: &[Value]) -> Vec<String> {
    let mut ids: Vec<String> = rows.iter().map(|row| row["id"].as_str().expect("an id").to_owned()).collect();
    ids.sort();
    ids
}

/// Starts an agent, sends lines, waits until the broker has them all.
fn deliver(gateway: &Gateway, port: &mut Port, subscriber: &Subscriber, count: usize) -> Agent {
    let mut agent = gateway.run();
    agent.wait_log("connected");
    wait_until("the port to be open", || port.is_open());
    wait_until("a line to be delivered", || {
        let before = port.next();
        port.send(1);
        subscriber.on("maison/salle/mark").iter().any(|message| message.payload.contains(&format!("{before:08}")))
    });
    port.send(count);
    let last = format!("mark-{:08}", port.next() - 1);
    subscriber.wait("maison/salle/mark", |message| message.payload.contains(&last));
    // The other quantity of the last line is the last message of all.
    let level = f64::from(port.next() - 1) + 0.5;
    subscriber.wait("maison/salle/level", |message| message.json()["value"] == level);
    agent
}

#[test]
fn what_was_delivered_is_archived_once_and_the_log_stays_empty() {
    let broker = Mosquitto::start();
    let subscriber = Subscriber::start(&broker, "server", 1);
    let mut port = Port::open();
    let gateway = Gateway::new();
    configure(&gateway, broker.port(), &port, "archive");
    let (code, _, err) = export(&gateway, &[]);
    assert_eq!(code, 1);
    assert!(err.contains("there is no archive in"), "{err}");

    // Two runs: an orderly end writes the last batch.
    for _ in 0..2 {
        let mut agent = deliver(&gateway, &mut port, &subscriber, 300);
        assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
    }
    let found = rows(&gateway, &[]);
    let mut sent: Vec<String> = ["mark", "level"]
        .iter()
        .flat_map(|leaf| subscriber.on(&format!("maison/salle/{leaf}")))
        .map(|message| message.json()["id"].as_str().expect("an id").to_owned())
        .collect();
    sent.sort();
    assert_eq!(ids(&found), sent, "each once, and with its own id");
    let segments = fs::read_dir(gateway.path().join("outbox"))
        .expect("the outbox")
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"segment-"));
    assert_eq!(segments.count(), 0, "nothing was written to the log for the archive's sake");

    // What is asked for, and nothing else.
    let time = found.last().expect("rows")["time"].as_str().expect("a time");
    let later = rows(&gateway, &["--from", time]);
    assert!(later.len() < found.len() && later.iter().all(|row| row["time"].as_str() >= Some(time)));
    let earlier = rows(&gateway, &["--to", time]);
    assert_eq!(ids(&[earlier, later].concat()), sent);
    assert_eq!(rows(&gateway, &["--sensor", "nobody"]), Vec::<Value>::new());
    assert_eq!(rows(&gateway, &["--room", "salle", "--sensor", "arduino"]).len(), found.len());
    assert_eq!(rows(&gateway, &["--to", "2020-01-01"]), Vec::<Value>::new());
    let (code, french, _) = export(&gateway, &["--locale", "fr"]);
    assert_eq!((code, french.lines().count()), (0, found.len() + 1));
    assert!(french.starts_with("\u{feff}date (Europe/Paris);site;pièce;"), "{french}");
    let (code, _, err) = export(&gateway, &["--from", "yesterday"]);
    assert_eq!(code, 2);
    assert!(err.contains("2026-11-01T14:30"), "{err}");
}

#[test]
fn a_kill_loses_nothing_that_was_delivered_and_not_yet_archived() {
    let broker = Mosquitto::start();
    let subscriber = Subscriber::start(&broker, "server", 1);
    let mut port = Port::open();
    let gateway = Gateway::new();
    configure(&gateway, broker.port(), &port, "archive");
    let mut agent = deliver(&gateway, &mut port, &subscriber, 300);
    // Acknowledgements that are not in the tail yet would only be archived twice: wait until nothing waits.
    wait_until("everything to be acknowledged", || {
        let config = gateway.config_file().display().to_string();
        let output = command(&["outbox", "status", "--json", "--config", &config], gateway.path()).output();
        let status: Value = serde_json::from_slice(&output.expect("vigie starts").stdout).expect("JSON");
        let archive = &status["archive"];
        let counts = (archive["bytes"].as_u64(), archive["max_bytes"].as_u64() > Some(0));
        assert_eq!(counts, (Some(0), true), "nothing is in it yet: {status}");
        status["waiting"] == 0 && archive["waiting"].as_u64() >= Some(600)
    });
    agent.kill();
    assert!(!gateway.path().join("archive").exists(), "no batch was due yet");
    let mut agent = gateway.run();
    agent.wait_log("connected");
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
    let mut sent: Vec<String> = ["mark", "level"]
        .iter()
        .flat_map(|leaf| subscriber.on(&format!("maison/salle/{leaf}")))
        .map(|message| message.json()["id"].as_str().expect("an id").to_owned())
        .collect();
    sent.sort();
    assert_eq!(ids(&rows(&gateway, &[])), sent);
}

#[test]
fn an_archive_that_cannot_be_written_harms_nothing() {
    let broker = Mosquitto::start();
    let subscriber = Subscriber::start(&broker, "server", 1);
    let mut port = Port::open();
    let gateway = Gateway::new();
    configure(&gateway, broker.port(), &port, "archive");
    fs::write(gateway.path().join("archive"), "in the way").expect("a file");
    let mut agent = deliver(&gateway, &mut port, &subscriber, 100);
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
    wait_until("a warning", || agent.log.count("nothing is archived") == 1);
}
