//! Prevents: not knowing what waits in the outbox, or not getting at it, whether an agent runs or not; looking that
//! changes something; and dropping that drops too much, too little, or what cannot be taken back.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::harness::{
    Exit, Gateway, Mosquitto, Output, Port, Subscriber, command, files, free_port, uplink, wait_for, wait_until,
};

/// Runs `vigie outbox` on a gateway's configuration.
#[track_caller]
fn outbox(gateway: &Gateway, args: &[&str]) -> Output {
    gateway.vigie(&[&["outbox"], args].concat())
}

/// The same, which must go well.
#[track_caller]
fn fine(gateway: &Gateway, args: &[&str]) -> String {
    gateway.fine(&[&["outbox"], args].concat())
}

#[track_caller]
fn status(gateway: &Gateway) -> Value {
    serde_json::from_str(&fine(gateway, &["status", "--json"])).expect("JSON")
}

#[track_caller]
fn exported(gateway: &Gateway, args: &[&str]) -> Vec<Value> {
    let mut all = vec!["export", "--json"];
    all.extend_from_slice(args);
    fine(gateway, &all).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn sensor(name: &str, port: &Port) -> String {
    format!(
        "\n[[sensor]]\nname = \"{name}\"\nroom = \"{name}-room\"\ndriver = \"serial-json\"\nport = \"{}\"\n",
        port.path().display()
    )
}

/// The marks among exported rows.
fn marks(rows: &[Value]) -> Vec<String> {
    let of_mark = rows.iter().filter(|row| row["quantity"] == "mark");
    of_mark.map(|row| row["value"].as_str().expect("a text").to_owned()).collect()
}

fn names(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("mark-{number:08}")).collect()
}

#[test]
fn what_waits_is_the_same_beside_an_agent_and_without_one() {
    let mut port = Port::open();
    let gateway = Gateway::new();
    gateway.configure(&(uplink(free_port()) + &sensor("arduino", &port)));
    let mut agent = gateway.run();
    let first = port.send_until_taken(&gateway);
    port.send(200);
    port.wait_all_taken(&gateway);
    agent.wait_log("cannot connect");

    let beside = status(&gateway);
    let count = u64::from(port.next() - first);
    assert_eq!(beside["waiting"], 2 * count, "two quantities a line: {beside}");
    assert_eq!(beside["uplinks"][0]["name"], "home");
    assert_eq!(beside["uplinks"][0]["link"]["connected"], false);
    assert!(beside["uplinks"][0]["link"]["why"].as_str().is_some_and(|why| why.contains("cannot connect")), "{beside}");
    assert_eq!(beside["uplinks"][0]["oldest"]["sensor"], "arduino");
    assert!(beside["agent"]["taken"].as_u64() >= Some(2 * count), "{beside}");
    let people = fine(&gateway, &["status"]);
    assert!(people.contains("running") && people.contains(&format!("{} values", 2 * count)), "{people}");

    let rows = exported(&gateway, &[]);
    assert_eq!(marks(&rows), names(first..port.next()));
    let csv = fine(&gateway, &["export"]);
    let french = fine(&gateway, &["export", "--locale", "fr"]);
    let shown = fine(&gateway, &["show", "--limit", "4"]);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 4, "{shown}");
    assert!(lines[3].contains(&format!("{}.5", port.next() - 1)), "the newest is the last: {shown}");
    check_tables(&rows, &csv, &french);

    // SIGKILL: what was not flushed is in the tail alone.
    agent.kill();
    let before = files(gateway.path());
    assert_eq!(exported(&gateway, &[]), rows);
    assert_eq!(fine(&gateway, &["export", "--locale", "fr"]), french);
    assert_eq!(fine(&gateway, &["show", "--limit", "4"]), shown);
    let without = status(&gateway);
    assert_eq!(without["agent"], Value::Null);
    assert_eq!(without["uplinks"][0]["link"], Value::Null);
    for key in ["waiting", "run", "path", "tail", "max_bytes", "limit_bytes", "archive"] {
        assert_eq!(without[key], beside[key], "{key}");
    }
    for key in ["name", "broker", "waiting", "oldest", "newest"] {
        assert_eq!(without["uplinks"][0][key], beside["uplinks"][0][key], "{key}");
    }
    let people = fine(&gateway, &["status"]);
    assert!(people.contains("not running") && people.contains("known only to a running agent"), "{people}");
    assert!(files(gateway.path()) == before, "looking changes nothing");

    // The stale socket is no obstacle to the next run.
    let mut agent = gateway.run();
    wait_until("the socket of the new run", || outbox(&gateway, &["status"]).out.contains("running, version"));
    assert_eq!(marks(&exported(&gateway, &[])), names(first..port.next()));
    assert_eq!(agent.terminate(), Exit::Code(0));
    assert_eq!(marks(&exported(&gateway, &[])), names(first..port.next()), "and after an orderly end");
}

/// The tables say what the JSON says.
fn check_tables(rows: &[Value], csv: &str, french: &str) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut lines = csv.lines();
    assert_eq!(
        lines.next(),
        Some("time,site,room,sensor,quantity,value,unit,id,boot,uptime,topic,latitude,longitude,altitude,accuracy,age")
    );
    for (line, row) in lines.zip(rows) {
        let [time, value, id] = ["time", "value", "id"].map(|key| text(&row[key]));
        let quantity = text(&row["quantity"]);
        assert_eq!(line, format!("{time},maison,arduino-room,arduino,{quantity},{value},,{id},,,,,,,,"));
    }
    assert_eq!(csv.lines().count(), rows.len() + 1);

    // Byte for byte, with the local time made by another hand.
    let mut expected =
        "\u{feff}date (Europe/Paris);site;pièce;capteur;grandeur;valeur;unité;id;démarrage;secondes;sujet;latitude;longitude;altitude;précision;âge\r\n"
            .to_owned();
    for row in rows {
        let date = std::process::Command::new("date")
            .args(["-d", &text(&row["time"]), "+%d/%m/%Y %H:%M:%S"])
            .env("TZ", "Europe/Paris")
            .output()
            .expect("date(1)");
        let date = String::from_utf8(date.stdout).expect("UTF-8");
        let value = match &row["value"] {
            Value::Number(number) => number.to_string().replace('.', ","),
            other => text(other),
        };
        expected.push_str(&format!(
            "{};maison;arduino-room;arduino;{};{value};;{};;;;;;;;\r\n",
            date.trim(),
            text(&row["quantity"]),
            text(&row["id"])
        ));
    }
    assert_eq!(french, expected);
}

#[test]
fn one_sensor_is_dropped_by_hand_and_the_other_delivered() {
    let (mut port, mut other) = (Port::open(), Port::open());
    let broker_port = free_port();
    let gateway = Gateway::new();
    gateway.configure(&(uplink(broker_port) + &sensor("arduino", &port) + &sensor("other", &other)));
    let mut agent = gateway.run();
    let first = port.send_until_taken(&gateway);
    wait_until("the other port to be open", || other.is_open());
    // In turns, so that the records of the two lie between each other: many more stretches than a cursor has ranges.
    for _ in 0..700 {
        port.send(1);
        other.write_line("{\"count\":1}");
    }
    wait_until("all lines to be taken", || {
        let rows = exported(&gateway, &["--sensor", "other"]);
        rows.len() == 700 && marks(&exported(&gateway, &["--sensor", "arduino"])) == names(first..port.next())
    });

    let refused = outbox(&gateway, &["drop", "--sensor", "other"]);
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert!(refused.err.contains("--yes"), "{}", refused.err);
    assert_eq!(fine(&gateway, &["drop", "--sensor", "nobody", "--yes"]), "0 values dropped.\n");
    assert_eq!(fine(&gateway, &["drop", "--sensor", "other", "--older-than", "1h", "--yes"]), "0 values dropped.\n");
    assert_eq!(fine(&gateway, &["drop", "--sensor", "other", "--yes"]), "700 values dropped.\n");
    assert_eq!(fine(&gateway, &["drop", "--sensor", "other", "--yes"]), "0 values dropped.\n");
    assert_eq!(exported(&gateway, &["--sensor", "other"]), Vec::<Value>::new());
    let status = status(&gateway);
    assert_eq!(status["agent"]["dropped"]["by-hand"], 700, "{status}");
    assert_eq!(status["waiting"], u64::from(port.next() - first) * 2, "{status}");

    // It lasts across a kill, and holds for what was there alone.
    agent.kill();
    let mut agent = gateway.run();
    wait_until("the port to be open again", || other.is_open());
    wait_until("a line of the other sensor", || {
        other.write_line("{\"count\":2}");
        !exported(&gateway, &["--sensor", "other"]).is_empty()
    });
    assert_eq!(marks(&exported(&gateway, &["--sensor", "arduino"])), names(first..port.next()));
    assert_eq!(agent.terminate(), Exit::Code(0));

    let broker = Mosquitto::start();
    gateway.configure(&(uplink(broker.port()) + &sensor("arduino", &port) + &sensor("other", &other)));
    let subscriber = Subscriber::start(&broker, "server", 1);
    let _agent = gateway.run();
    let last = format!("mark-{:08}", port.next() - 1);
    subscriber.wait("maison/arduino-room/mark", |message| message.payload.contains(&last));
    subscriber.wait("maison/other-room/count", |message| message.json()["value"] == 2);
    assert!(subscriber.on("maison/other-room/count").iter().all(|message| message.json()["value"] == 2));
    assert_eq!(subscriber.on("maison/arduino-room/mark").len(), names(first..port.next()).len());
}

#[test]
fn everything_is_dropped_without_an_agent() {
    let mut port = Port::open();
    let gateway = Gateway::new();
    gateway.configure(&(uplink(free_port()) + &sensor("arduino", &port)));
    let missing = outbox(&gateway, &["status"]);
    assert_eq!(missing.code, 1);
    assert!(missing.err.contains("there is no outbox in"), "{}", missing.err);

    let mut agent = gateway.run();
    let first = port.send_until_taken(&gateway);
    port.send(50);
    port.wait_all_taken(&gateway);
    agent.kill();
    let wrong = outbox(&gateway, &["drop", "--all", "--uplink", "hom", "--yes"]);
    assert_eq!(wrong.code, 1);
    assert!(wrong.err.contains("there is no uplink `hom`; there are: home"), "{}", wrong.err);
    assert_eq!(outbox(&gateway, &["drop", "--yes"]).code, 2, "what, must be said");
    let count = 2 * (port.next() - first);
    assert_eq!(fine(&gateway, &["drop", "--all", "--yes"]), format!("{count} values dropped.\n"));
    assert_eq!(exported(&gateway, &[]), Vec::<Value>::new());
    let status = status(&gateway);
    assert_eq!((&status["waiting"], &status["tail_bytes"]), (&Value::from(0), &Value::from(0)), "{status}");

    let mut agent = gateway.run();
    let again = port.send_until_taken(&gateway);
    let rows = exported(&gateway, &[]);
    assert_eq!(marks(&rows).first(), Some(&format!("mark-{again:08}")));
    assert_eq!(agent.terminate(), Exit::Code(0));
}

#[test]
fn what_is_in_flight_is_not_dropped() {
    let broker = Mosquitto::start();
    let mut port = Port::open();
    let gateway = Gateway::new();
    gateway.configure(&(uplink(broker.port()) + "inflight = 10\n" + &sensor("arduino", &port)));
    let mut agent = gateway.run();
    agent.wait_log("connected");
    // It acknowledges nothing from here on: what is sent stays in flight.
    broker.freeze();
    let first = port.send_until_taken(&gateway);
    port.send(100);
    port.wait_all_taken(&gateway);
    let sent = wait_for("ten messages to be in flight", || {
        status(&gateway)["uplinks"][0]["link"]["sent"].as_u64().filter(|sent| *sent >= 10)
    });
    assert!(sent >= 10);
    let all = u64::from(2 * (port.next() - first));
    let said = fine(&gateway, &["drop", "--all", "--yes"]);
    assert_eq!(said, format!("{} values dropped; 10 values in flight, which cannot be taken back.\n", all - 10));
    assert_eq!(exported(&gateway, &[]).len(), 10);
}

#[test]
fn an_encrypted_outbox_is_read_with_its_key_and_left_alone_without() {
    let mut port = Port::open();
    let gateway = Gateway::new();
    let rest = uplink(free_port()) + &sensor("arduino", &port);
    // The shared tables end with `[outbox]`.
    let key = |digit: &str| {
        let file = gateway.path().join(format!("key-{digit}"));
        fs::write(&file, digit.repeat(64)).expect("a key");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("permissions");
        format!("key = {{ file = \"{}\" }}\n\n", file.display())
    };
    gateway.configure(&(key("a") + &rest));
    let mut agent = gateway.run();
    wait_until("the agent to answer", || outbox(&gateway, &["status"]).out.contains("running, version"));
    wait_until("the port to be opened", || port.is_open());
    let mut rows = Vec::new();
    wait_until("lines to be taken", || {
        port.send(1);
        rows = exported(&gateway, &[]);
        marks(&rows).len() > 20
    });
    agent.kill();
    let (outboxes, tail) = (files(&gateway.path().join("outbox")), files(&gateway.path().join("tail")));
    assert!(outboxes.len() >= 2 && !tail.is_empty(), "{:?} {:?}", outboxes.keys(), tail.keys());
    for (path, bytes) in outboxes.iter().chain(&tail) {
        for text in ["arduino", "mark-", "home"] {
            assert!(!bytes.windows(text.len()).any(|it| it == text.as_bytes()), "{text} in {}", path.display());
        }
    }
    rows = exported(&gateway, &[]);
    assert!(marks(&rows).len() > 20);

    for (wrong, said) in [(String::new(), "no `key`"), (key("b"), "not with the `key`")] {
        gateway.configure(&(wrong + &rest));
        let before = files(gateway.path());
        for args in [&["status"][..], &["export"], &["drop", "--all", "--yes"]] {
            let output = outbox(&gateway, args);
            assert_eq!(output.code, 1, "{args:?}");
            assert!(output.err.contains("is encrypted") && output.err.contains(said), "{}", output.err);
        }
        let config = gateway.config_file().display().to_string();
        let run = command(&["run", "--config", &config], gateway.path()).output().expect("vigie starts");
        let log = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.code() == Some(1) && log.contains(said), "{log}");
        assert!(files(gateway.path()) == before, "nothing was changed");
    }
    gateway.configure(&(key("a") + &rest));
    assert_eq!(exported(&gateway, &[]), rows);
}

#[test]
fn at_a_terminal_it_is_asked_before_anything_is_dropped() {
    let mut port = Port::open();
    let gateway = Gateway::new();
    gateway.configure(&(uplink(free_port()) + &sensor("arduino", &port)));
    let mut agent = gateway.run();
    port.send_until_taken(&gateway);
    port.wait_all_taken(&gateway);
    agent.kill();
    let count = status(&gateway)["waiting"].as_u64().expect("a count");
    let config = gateway.config_file().display().to_string();
    for (answer, dropped) in [("n", 0), ("", 0), ("no\u{e9}", 0), ("Oui", count)] {
        let mut terminal = Port::open();
        let stdin = fs::File::open(terminal.path()).expect("a terminal");
        let child = command(&["outbox", "drop", "--all", "--config", &config], gateway.path())
            .stdin(stdin)
            .spawn()
            .expect("vigie starts");
        terminal.write_line(answer);
        let output = child.wait_with_output().expect("it ends");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!((output.status.code(), &*err), (Some(0), ""), "{answer}: {out}");
        let (question, rest) = out.split_once("Drop? [y/N] ").expect("a question");
        assert_eq!(question, format!("{count} values will never be delivered. "));
        let said =
            if dropped > 0 { format!("{dropped} values dropped.\n") } else { "Nothing was dropped.\n".to_owned() };
        assert_eq!((rest, status(&gateway)["waiting"].as_u64()), (said.as_str(), Some(count - dropped)), "{answer}");
    }
    assert_eq!(fine(&gateway, &["drop", "--all", "--yes"]), "0 values dropped.\n");
}

#[test]
fn an_outbox_in_use_without_a_socket_is_said_in_words() {
    let port = Port::open();
    let gateway = Gateway::new();
    gateway.configure(&(uplink(free_port()) + &sensor("arduino", &port)));
    let _agent = gateway.run();
    wait_until("the agent to answer", || outbox(&gateway, &["status"]).out.contains("running, version"));
    let tail = gateway.path().join("tail");
    let socket = fs::read_dir(&tail)
        .expect("the tail's folder")
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"control-")))
        .expect("the socket lies there");
    assert_eq!(fs::metadata(&socket).expect("a socket").permissions().mode() & 0o777, 0o660);
    fs::remove_file(&socket).expect("it can be removed");
    for args in [&["status"][..], &["export"], &["drop", "--all", "--yes"]] {
        let output = outbox(&gateway, args);
        assert_eq!(output.code, 1, "{args:?}");
        assert!(output.err.contains("in use") && output.err.contains("control socket"), "{}", output.err);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut port = Port::open();
    let gateway = Gateway::new();
    gateway.configure(&(uplink(free_port()) + &sensor("arduino", &port)));
    let mut agent = gateway.run();
    port.send_until_taken(&gateway);
    // More than a pipe holds.
    port.send(2_000);
    port.wait_all_taken(&gateway);
    for kill in [true, false] {
        let mut child =
            command(&["outbox", "export", "--config", &gateway.config_file().display().to_string()], gateway.path())
                .spawn()
                .expect("vigie starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        // The second time without an agent.
        if kill {
            agent.kill();
        }
    }
}

#[test]
fn the_socket_takes_no_nonsense() {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;

    let port = Port::open();
    let gateway = Gateway::new();
    gateway.configure(&(uplink(free_port()) + &sensor("arduino", &port)));
    let _agent = gateway.run();
    wait_until("the agent to answer", || outbox(&gateway, &["status"]).out.contains("running, version"));
    let socket = fs::read_dir(gateway.path().join("tail"))
        .expect("the tail's folder")
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"control-")))
        .expect("the socket lies there");
    let connect = || BufReader::new(UnixStream::connect(&socket).expect("the socket is open"));
    let answer = |stream: &mut BufReader<UnixStream>| {
        let mut line = String::new();
        stream.read_line(&mut line).expect("an answer");
        line
    };
    let mut stream = connect();
    for nonsense in ["\n", "{}\n", "{\"request\":\"reboot\"}\n", "\u{1}\u{2}\n", "{\"request\":\"status\",\"x\":1}\n"] {
        stream.get_mut().write_all(nonsense.as_bytes()).expect("taken");
        let said = answer(&mut stream);
        assert!(said.starts_with("{\"error\":\"this is no request"), "{nonsense:?}: {said}");
    }
    stream.get_mut().write_all(b"{\"request\":\"status\"}\n").expect("taken");
    assert!(answer(&mut stream).starts_with("{\"status\":{"), "and serves on");
    stream.get_mut().write_all(&[b'x'; 5_000]).expect("taken");
    assert!(answer(&mut stream).contains("a line of less than 4096 bytes"));
    assert_eq!(answer(&mut stream), "", "and is closed");

    // One more than are served at once is told so; when one goes, there is room again.
    drop(stream);
    let four: Vec<_> = (0..4)
        .map(|_| {
            // Former clients may not be quite gone yet.
            wait_for("a place", || {
                let mut stream = connect();
                let _ = stream.get_mut().write_all(b"{\"request\":\"status\"}\n");
                answer(&mut stream).starts_with("{\"status\":{").then_some(stream)
            })
        })
        .collect();
    assert!(answer(&mut connect()).contains("try again later"));
    drop(four);
    wait_until("room for another client", || outbox(&gateway, &["status"]).code == 0);
}

/// Passwords and certificates are the service's: whoever looks at its outbox by hand has none of them.
#[test]
fn an_outbox_is_looked_at_without_the_services_secrets() {
    let port = Port::open();
    let gateway = Gateway::new();
    let sensor = sensor("arduino", &port);
    let broker = "[uplink.home]\nurl = \"mqtts://localhost:1\"\n";
    gateway.configure(&(broker.to_owned() + "\n" + &sensor));
    let mut agent = gateway.run();
    wait_until("the agent to answer", || outbox(&gateway, &["status"]).out.contains("running, version"));
    gateway.configure(&format!(
        "{broker}username = \"pi\"\npassword = {{ credential = \"mqtt\" }}\ntls = {{ ca = \"gone.pem\" }}\n\n{sensor}"
    ));
    assert!(fine(&gateway, &["status"]).contains("running, version"));
    let config = gateway.config_file().display().to_string();
    let check = command(&["check", &config], gateway.path()).output().expect("vigie starts");
    let said = String::from_utf8_lossy(&check.stderr);
    assert!(said.contains("`password`") && said.contains("gone.pem"), "{said}");
    agent.kill();
    assert!(fine(&gateway, &["status"]).contains("not running"));
    assert!(exported(&gateway, &[]).is_empty());
}
