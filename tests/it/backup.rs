//! Prevents: a backup that lacks what was taken before it, that is not whole because the agent went on meanwhile, or that
//! has secrets which nobody asked for; a restore that spoils what is there, or leaves out what was in the backup.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use super::harness::{
    Exit, Feeder, Gateway, Mosquitto, Output, Port, Subscriber, files, free_port, mark_number, uplink, wait_until,
};

fn sensor(port: &Path) -> String {
    format!(
        "\n[[sensor]]\nname = \"arduino\"\nroom = \"salon\"\ndriver = \"serial-json\"\nport = \"{}\"\n",
        port.display()
    )
}

/// The marks that wait in a gateway's outbox, in order.
fn marks(gateway: &Gateway) -> Vec<u32> {
    let rows = gateway.fine(&["outbox", "export", "--json"]);
    let rows = rows.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let marks = rows.filter(|row| row["quantity"] == "mark");
    marks.map(|row| mark_number(row["value"].as_str().expect("a text").as_bytes()).expect("a mark")).collect()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn what_was_taken_before_a_backup_is_in_it_while_the_agent_goes_on() {
    let mut feeder = Feeder::start();
    let gateway = Gateway::new();
    // As often as it can be, so that a flush falls into each of the moments that there are.
    gateway.configure(&format!("flush = \"5ms\"\n{}{}", uplink(free_port()), sensor(feeder.path())));
    let mut agent = gateway.run();
    for round in 0..10 {
        let grown = 100 * (round + 1);
        wait_until("more marks are taken", || gateway.marks_held().len() >= grown);
        let before = gateway.marks_held().last().copied().expect("marks were taken");
        let file = gateway.path().join(format!("backup-{round}"));
        gateway.fine(&["backup", &text(&file)]);

        let other = Gateway::new();
        other.configure(&uplink(free_port()));
        let said = other.fine(&["restore", &text(&file), "--without", "configuration"]);
        assert!(said.contains("outbox is in "), "{said}");
        let marks = marks(&other);
        let first = marks.first().copied().expect("some wait");
        let last = marks.last().copied().expect("some wait");
        assert!(last >= before, "{last} is the last one, and {before} was taken before");
        assert_eq!(marks, (first..=last).collect::<Vec<_>>(), "each is there once");
    }
    feeder.stop();
    assert_eq!(agent.terminate(), Exit::Code(0));
}

#[test]
fn a_gateway_whose_card_is_gone_comes_back_whole() {
    let mut broker = Mosquitto::start();
    let subscriber = Subscriber::start(&broker, "watcher", 1);
    broker.stop();
    let mut port = Port::open();
    let gateway = Gateway::new();
    gateway.configure(&(uplink(broker.port()) + &sensor(port.path())));
    fs::create_dir(gateway.path().join("vigie.d")).expect("a folder");
    fs::write(gateway.path().join("vigie.d/salon.toml"), "[room.salon]\nlabel = \"Salon\"\n").expect("a file");
    let mut agent = gateway.run();
    let first = port.send_until_taken(&gateway);
    port.send(200);
    port.wait_all_taken(&gateway);
    // What is not flushed yet is in the tail alone.
    agent.kill();
    let last = port.next();
    let elsewhere = tempfile::tempdir().expect("a folder");
    let file = elsewhere.path().join("backup.tar.gz");
    gateway.fine(&["backup", &text(&file)]);
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);

    for folder in ["outbox", "tail", "vigie.d"] {
        fs::remove_dir_all(gateway.path().join(folder)).expect("a folder");
    }
    fs::remove_file(gateway.config_file()).expect("a file");
    let said = gateway.fine(&["restore", &text(&file), "--check"]);
    assert!(said.contains("is whole") && said.contains("of             atelier"), "{said}");
    assert!(!gateway.config_file().exists(), "it was only looked at");
    let said = gateway.fine(&["restore", &text(&file)]);
    assert!(said.contains(&format!("{} values wait", 2 * (last - first))), "{said}");
    assert!(gateway.path().join("vigie.d/salon.toml").exists());

    broker.start_again();
    let mut agent = gateway.run();
    let next = port.send_until_taken(&gateway);
    let id_of = |number: u32| {
        let mark = format!("mark-{number:08}");
        let message = subscriber.wait("maison/salon/mark", |message| message.json()["value"] == mark);
        message.json()["id"].as_str().expect("an id").to_owned()
    };
    assert!(id_of(first).starts_with("1-"), "what waited keeps its id");
    // Else it could be that of something that was measured after the backup.
    let run = id_of(next).split('-').next().expect("a run").parse::<u32>().expect("a number");
    assert!(run > 1 << 31, "a run that was never counted: {run}");
    let arrived = |number: u32| {
        let mark = format!("mark-{number:08}");
        subscriber.on("maison/salon/mark").iter().filter(|message| message.json()["value"] == mark).count()
    };
    wait_until("everything has arrived", || (first..last).all(|number| arrived(number) > 0));
    assert!((first..last).all(|number| arrived(number) == 1), "once");
    assert_eq!(agent.terminate(), Exit::Code(0));
}

#[test]
fn nothing_is_brought_back_beside_an_agent_or_over_what_is_there() {
    let mut port = Port::open();
    let gateway = Gateway::new();
    gateway.configure(&(uplink(free_port()) + &sensor(port.path())));
    let mut agent = gateway.run();
    port.send_until_taken(&gateway);
    port.wait_all_taken(&gateway);
    let elsewhere = tempfile::tempdir().expect("a folder");
    let file = text(&elsewhere.path().join("backup.tar.gz"));
    gateway.fine(&["backup", &file]);
    let Output { code, err, .. } = gateway.vigie(&["backup", &file]);
    assert!(code == 1 && err.contains("exists"), "a backup is not overwritten: {err}");

    let Output { code, err, .. } = gateway.vigie(&["restore", &file, "--force"]);
    assert_eq!(code, 1);
    assert!(err.contains("an agent runs") && err.contains("stop"), "{err}");
    assert_eq!(agent.terminate(), Exit::Code(0));

    let before = files(gateway.path());
    let Output { code, err, .. } = gateway.vigie(&["restore", &file]);
    assert_eq!(code, 1);
    assert!(err.contains("already") && err.contains("--force") && err.contains("Nothing was changed"), "{err}");
    assert_eq!(files(gateway.path()), before);

    let mut cut = fs::read(&file).expect("a file");
    cut.truncate(cut.len() / 2);
    let spoilt = text(&elsewhere.path().join("spoilt"));
    fs::write(&spoilt, cut).expect("a file");
    let Output { code, err, .. } = gateway.vigie(&["restore", &spoilt, "--force"]);
    assert_eq!(code, 1);
    assert!(err.contains("damaged") && err.contains("ends too early"), "{err}");
    assert_eq!(files(gateway.path()), before);

    let said = gateway.fine(&["restore", &file, "--force"]);
    assert!(said.contains("what was there before is in"), "{said}");
    assert!(gateway.path().join("before-restore-1/vigie.toml").exists());
    assert!(!marks(&gateway).is_empty());
    let mut agent = gateway.run();
    agent.wait_log("outbox opened");
    assert_eq!(agent.terminate(), Exit::Code(0));
}

#[test]
fn secrets_are_left_out_and_named_unless_they_are_asked_for() {
    let gateway = Gateway::new();
    let write = |name: &str, text: &str, mode: u32| {
        let path = gateway.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    write("password", "hunter2-in-a-file\n", 0o600);
    write("credentials/mqtt", "hunter2-as-a-credential\n", 0o644);
    fs::set_permissions(gateway.path().join("credentials"), fs::Permissions::from_mode(0o700)).expect("a mode");
    write("greet.sh", "echo '{\"greeting\":1}'\n", 0o755);
    gateway.configure(&format!(
        "{}username = \"pi\"\npassword = {{ file = \"password\" }}\n\
         [[sensor]]\nname = \"program\"\ndriver = \"exec\"\ncommand = [\"/bin/sh\", \"{}/greet.sh\"]\n",
        uplink(free_port()),
        gateway.path().display()
    ));
    let elsewhere = tempfile::tempdir().expect("a folder");
    let (plain, whole) = (elsewhere.path().join("plain"), elsewhere.path().join("whole"));
    let unpacked = |file: &Path| {
        let output = std::process::Command::new("tar").args(["-xzOf"]).arg(file).output().expect("tar");
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let said = gateway.fine(&["backup", &text(&plain)]);
    assert!(said.contains("Not in it") && said.contains("/password") && said.contains("credentials/mqtt"), "{said}");
    let inside = unpacked(&plain);
    assert!(!inside.contains("hunter2") && inside.contains("greeting"), "{inside}");

    let said = gateway.fine(&["backup", &text(&whole), "--secrets"]);
    assert!(said.contains("Passwords and keys are in it"), "{said}");
    assert_eq!(unpacked(&whole).matches("hunter2").count(), 2);

    for (file, there) in [(&plain, false), (&whole, true)] {
        for name in ["vigie.toml", "password", "credentials/mqtt", "greet.sh"] {
            let _ = fs::remove_file(gateway.path().join(name));
        }
        let said = gateway.fine(&["restore", &text(file)]);
        assert_eq!(said.contains("Not in it"), !there, "{said}");
        assert_eq!(gateway.path().join("password").exists(), there);
        let mode = |name: &str| fs::metadata(gateway.path().join(name)).expect(name).permissions().mode() & 0o777;
        assert_eq!(mode("greet.sh"), 0o755);
        if there {
            assert_eq!((mode("password"), mode("credentials")), (0o600, 0o700));
        }
    }
}

#[cfg(feature = "broker")]
#[test]
fn what_the_embedded_broker_keeps_comes_back() {
    let (gateway, port) = (Gateway::new(), free_port());
    let dir = gateway.path().display();
    gateway.configure(&format!("[broker]\nlisten = \"127.0.0.1:{port}\"\npath = \"{dir}/broker\"\n"));
    let mut agent = gateway.run();
    agent.wait_log("the embedded broker listens");
    let client = |program: &str, args: &[&str]| {
        let mut command = std::process::Command::new(program);
        command.args(["-h", "127.0.0.1", "-p", &port.to_string()]).args(args).output().expect(program)
    };
    let published = client("mosquitto_pub", &["-t", "lan/door", "-m", "open", "-r", "-q", "1"]);
    assert!(published.status.success(), "{published:?}");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let file = text(&elsewhere.path().join("backup"));
    // Retained messages are written to disk after ten seconds: it is in the broker's tail.
    let said = gateway.fine(&["backup", &file]);
    assert!(said.contains("broker "), "{said}");
    assert_eq!(agent.terminate(), Exit::Code(0));
    for folder in ["outbox", "tail", "broker"] {
        fs::remove_dir_all(gateway.path().join(folder)).expect("a folder");
    }
    gateway.fine(&["restore", &file, "--force"]);
    let mut agent = gateway.run();
    agent.wait_log("the embedded broker listens");
    let received = client("mosquitto_sub", &["-t", "lan/door", "-C", "1", "-W", "30"]);
    assert_eq!(received.stdout, b"open\n");
    assert_eq!(agent.terminate(), Exit::Code(0));
}
