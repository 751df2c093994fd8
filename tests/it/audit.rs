//! Prevents: an auditor who must have the journal of each gateway, one who is told less than it says, or a secret that
//! goes out with what happened. The program as built, with real brokers.

#[cfg(feature = "broker")]
use std::fs;
#[cfg(feature = "broker")]
use std::os::unix::fs::PermissionsExt as _;
#[cfg(feature = "broker")]
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use super::harness::{Agent, Exit, Gateway, Message, Mosquitto, Receiver, command, wait_for, wait_until};

/// The events of a kind, in their order.
fn events(receiver: &Receiver, kind: &str) -> Vec<Value> {
    let parsed = receiver.on("maison/atelier/audit").into_iter().map(|Message { payload, retained, .. }| {
        assert!(!retained, "{payload}");
        serde_json::from_str::<Value>(&payload).expect("JSON")
    });
    parsed.filter(|event| event["event"] == kind).collect()
}

fn event(receiver: &Receiver, kind: &str) -> Value {
    wait_for(&format!("an event `{kind}`"), || events(receiver, kind).into_iter().next())
}

const SENSOR: &str = "[[sensor]]\nname = \"uptime\"\ndriver = \"file\"\npath = \"/proc/uptime\"\n\
    pattern = '^(?<seconds>\\S+)'\nevery = \"200ms\"\n";

#[test]
fn what_happens_is_published_where_it_is_asked_for_and_waits_for_the_broker() {
    let (broker, other) = (Mosquitto::start(), Mosquitto::start());
    let (receiver, nobody) = (Receiver::start(&broker), Receiver::start(&other));
    let gateway = Gateway::new();
    let config = |more: &str| {
        gateway.configure(&format!(
            "[uplink.home]\nurl = \"mqtt://localhost:{}\"\naudit = true\n\
             [uplink.other]\nurl = \"mqtt://localhost:{}\"\n{SENSOR}{more}",
            broker.port(),
            other.port()
        ));
    };
    let vigie = |args: &[&str]| {
        let file = gateway.config_file().display().to_string();
        command(&[args, &["--config", &file]].concat(), gateway.path()).output().expect("vigie starts")
    };
    // What the log leaves out is published all the same.
    let quiet = || {
        let file = gateway.config_file().display().to_string();
        Agent::start(&["--log", "error", "run", "--config", &file], gateway.path())
    };
    config("");
    let mut agent = quiet();
    let start = event(&receiver, "start");
    assert_eq!(start["version"], env!("CARGO_PKG_VERSION"), "{start}");
    let running = start["configuration"].clone();
    assert!(start["time"].is_string() && start["id"].is_string() && running.is_string(), "{start}");
    // A reload that is refused changes no configuration; one that goes well says both.
    config("[nonsense]\n");
    agent.signal(Signal::HUP);
    let refused = event(&receiver, "reload");
    assert_eq!(refused["configuration"], running);
    assert_eq!(refused["message"], "not reloaded: the new configuration is wrong: nothing has changed");
    config("label = \"since when\"\n");
    assert!(vigie(&["reload"]).status.success());
    let done = wait_for("the second reload", || events(&receiver, "reload").into_iter().nth(1));
    assert_eq!(done["before"], running, "{done}");
    assert_ne!(done["configuration"], running, "{done}");
    assert!(done["message"].as_str().is_some_and(|text| text.contains("changed: uptime")), "{done}");
    // Who asked is told, and the clock is none to be set by hand here.
    assert!(!vigie(&["clock", "set", "2027-01-01T00:00:00Z"]).status.success());
    let requests = || events(&receiver, "request");
    wait_until("the requests", || requests().len() == 2);
    let asked: Vec<Value> = requests().into_iter().map(|event| event["request"].clone()).collect();
    assert_eq!(asked, ["reload", "set-clock"]);
    assert!(requests().iter().all(|event| event["user"].is_u64()), "{:?}", requests());
    assert!(
        event(&receiver, "clock")["message"].as_str().is_some_and(|text| text.starts_with("the clock was not set"))
    );
    let backup = gateway.path().join("backup.tar.gz").display().to_string();
    assert!(vigie(&["backup", &backup, "--secrets"]).status.success());
    wait_until("the backup", || requests().last().is_some_and(|event| event["request"] == "backup-with-secrets"));
    // The end of one run and the beginning of the next reach a broker that was away.
    assert_eq!(agent.terminate(), Exit::Code(0));
    assert_eq!(event(&receiver, "stop")["message"], "SIGTERM: shutting down");
    wait_until("the second uplink's readings", || !nobody.on("maison/seconds").is_empty());
    assert!(nobody.on("maison/atelier/audit").is_empty(), "nobody asked for it there");
    assert!(events(&receiver, "restore").is_empty());
    assert!(vigie(&["restore", &backup, "--force"]).status.success());
    let mut agent = quiet();
    wait_until("the second start", || events(&receiver, "start").len() == 2);
    event(&receiver, "restore");
    assert_eq!(agent.terminate(), Exit::Code(0));
    let mut agent = quiet();
    wait_until("the third start", || events(&receiver, "start").len() == 3);
    assert_eq!(agent.terminate(), Exit::Code(0));
    assert_eq!(events(&receiver, "restore").len(), 1, "it is told once");
}

#[cfg(feature = "broker")]
#[test]
fn logins_that_fail_at_the_embedded_broker_are_told_without_passwords_and_in_bounds() {
    let (broker, gateway) = (Mosquitto::start(), Gateway::new());
    let (receiver, port) = (Receiver::start(&broker), super::harness::free_port());
    let dir = gateway.path().display().to_string();
    let users = gateway.path().join("users");
    fs::write(&users, "").expect("a file");
    fs::set_permissions(&users, fs::Permissions::from_mode(0o600)).expect("a file of ours");
    gateway.configure(&format!(
        "[uplink.home]\nurl = \"mqtt://localhost:{}\"\naudit = true\n\
         [broker]\nlisten = \"127.0.0.1:{port}\"\nusers = \"users\"\npath = \"{dir}/broker\"\n{SENSOR}",
        broker.port(),
    ));
    let mut agent = gateway.run();
    agent.wait_log("the embedded broker listens");
    for _ in 0..3 {
        let status = Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-u", "mallory", "-P", "hunter2", "-t", "t", "-m", "x"])
            .output()
            .expect("mosquitto_pub starts")
            .status;
        assert!(!status.success());
    }
    let login = event(&receiver, "login");
    assert!(login["message"].as_str().is_some_and(|text| text.contains("login refused")), "{login}");
    assert_eq!(agent.terminate(), Exit::Code(0));
    event(&receiver, "stop");
    // One a minute: what comes between is counted in the next.
    assert_eq!(events(&receiver, "login").len(), 1);
    let told = receiver.on("maison/atelier/audit");
    assert!(told.iter().all(|message| !message.payload.contains("hunter2")), "{told:?}");
}
