//! What announces the embedded broker, seen by responders and browsers of others: python-zeroconf, and Avahi on the same
//! machine.
//!
//! The gateway's machine and the browser's are network namespaces. Avahi and its message bus have a `/run` of their own as
//! well, because that is where both keep their sockets.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::it::harness::{Agent, Exit, Gateway, Lines, Net, Script, command, command_through, wait_for, wait_until};

const MQTT: &str = "_mqtt._tcp.local.";
const SECURE: &str = "_secure-mqtt._tcp.local.";
/// What Avahi says of the machine that it runs on.
const WORKSTATION: &str = "_workstation._tcp.local.";

/// Browses for these kinds of service on the other machine.
fn browse() -> Script {
    let script = Script::start("browse.py", &[MQTT, SECURE, WORKSTATION]);
    wait_until("the browser", || script.lines.count("\"browses\"") > 0);
    script
}

/// What the browser has said of the services whose names end so, in order.
fn said(script: &Script, event: &str, kind: &str) -> Vec<Value> {
    let lines = script.lines.all().into_iter().map(|line| serde_json::from_str::<Value>(&line).expect("JSON"));
    lines
        .filter(|line| line["event"] == event && line["name"].as_str().is_some_and(|name| name.ends_with(kind)))
        .collect()
}

/// Waits until it has found one of that kind; gives its name and what that stands for.
#[track_caller]
fn found(script: &Script, kind: &str) -> (String, Value) {
    let line = wait_for(&format!("{kind} at the browser"), || said(script, "here", kind).pop());
    (line["name"].as_str().expect("a name").to_owned(), line["found"].clone())
}

/// A gateway for anybody, with a plain listener and one with TLS.
fn open_gateway() -> Gateway {
    let gateway = Gateway::new();
    let dir = gateway.path().display().to_string();
    let cert = ["broker", "cert", "--dir", &format!("{dir}/tls"), "--name", "localhost"];
    let made = command(&cert, gateway.path()).output().expect("vigie");
    assert!(made.status.success(), "{made:?}");
    gateway.configure(&format!(
        "[broker]\nlisten = \"0.0.0.0:1884\"\nanonymous = true\npath = \"{dir}/broker\"\n\n\
         [[broker.listener]]\nlisten = \"0.0.0.0:8883\"\n\
         tls = {{ certificate = \"tls/server.pem\", key = \"tls/server.key\" }}\n\n\
         [[broker.listener]]\nlisten = \"127.0.0.1:1883\"\n"
    ));
    gateway
}

#[test]
fn a_browser_finds_each_listener_with_its_port_and_hears_when_it_goes() {
    let mut net = Net::new();
    // Another network of the gateway's, whose address is nothing to the browser.
    let (_neighbour, elsewhere) = net.join();
    let gateway = open_gateway();
    let early = browse();
    let mut agent = net.run(&gateway);
    agent.wait_log("is announced as _secure-mqtt");
    // Who browses when it comes hears the announcement, who comes later asks.
    for script in [&early, &browse()] {
        for (kind, port) in [(MQTT, 1884), (SECURE, 8883)] {
            let (name, service) = found(script, kind);
            assert_eq!(name, format!("atelier.{kind}"));
            assert_eq!(service["port"], port, "{service}");
            assert_eq!(service["text"], json!({ "server": "vigie" }), "{service}");
            let host = service["host"].as_str().expect("a host");
            assert!(host.ends_with(".local."), "{service}");
            assert_eq!(service["addresses"], json!(["10.0.0.2"]), "{elsewhere} is not of this network");
        }
    }
    // It is where it says: MQTT is spoken there.
    let args = ["-h", "10.0.0.2", "-p", "1884", "-t", "x", "-m", "x", "-q", "1"];
    assert!(Command::new("mosquitto_pub").args(args).status().expect("mosquitto_pub").success());
    assert_eq!(agent.terminate(), Exit::Code(0));
    for kind in [MQTT, SECURE] {
        wait_until("the farewell", || said(&early, "gone", kind).len() == 1);
    }
    // And back again.
    let mut agent = net.run(&gateway);
    wait_until("its return", || said(&early, "here", MQTT).len() == 2);
    assert_eq!(agent.terminate(), Exit::Code(0));
}

/// Avahi on the agent's machine.
struct Avahi {
    bus: Child,
    daemon: Child,
    log: Lines,
}

impl Avahi {
    fn start(net: &Net, gateway: &Gateway) -> Self {
        let own_run = "mount -t tmpfs run /run && mkdir /run/dbus && exec dbus-daemon --system --nofork --nopidfile";
        let mut bus = Command::new("unshare");
        bus.args(["--mount", "--propagation", "private", "sh", "-c", own_run]).stdin(Stdio::null());
        let bus = net.does(|| bus.spawn()).expect("unshare");
        let socket = PathBuf::from(format!("/proc/{}/root", bus.id())).join("run/dbus/system_bus_socket");
        wait_until("the message bus", || socket.exists());
        let config = gateway.path().join("avahi.conf");
        let text = "[server]\nhost-name=board\n[publish]\npublish-workstation=yes\n";
        std::fs::write(&config, text).expect("it can be written");
        let mut daemon = Command::new("nsenter");
        daemon.args([&run_of(&bus), "avahi-daemon", "--file", &config.display().to_string()]).stderr(Stdio::piped());
        let mut daemon = net.does(|| daemon.spawn()).expect("nsenter");
        let log = Lines::default();
        log.collect(daemon.stderr.take().expect("a pipe was asked for"));
        let avahi = Self { bus, daemon, log };
        wait_until("Avahi", || avahi.log.count("Server startup complete. Host name is board.local") > 0);
        avahi
    }

    /// Starts the agent where Avahi is.
    fn run(&self, net: &Net, gateway: &Gateway) -> Agent {
        let config = gateway.config_file().display().to_string();
        let mut agent =
            command_through(&["nsenter", &run_of(&self.bus)], &["run", "--config", &config], gateway.path());
        net.does(|| Agent::spawn(&mut agent))
    }

    /// What Avahi itself finds of that kind over the network: name, kind, domain, host, address, port and text.
    fn browses(&self, net: &Net, kind: &str) -> Vec<String> {
        let mut browser = Command::new("nsenter");
        browser.args([&run_of(&self.bus), "avahi-browse", "--resolve", "--parsable", "--terminate", kind]);
        let output = net.does(|| browser.output()).expect("nsenter");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let found = text.lines().filter_map(|line| line.strip_prefix("=;wire;IPv4;"));
        found.map(str::to_owned).collect()
    }
}

/// The option with which `nsenter` goes where that process has its `/run`.
fn run_of(process: &Child) -> String {
    format!("--mount=/proc/{}/ns/mnt", process.id())
}

impl Drop for Avahi {
    fn drop(&mut self) {
        for child in [&mut self.daemon, &mut self.bus] {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- Avahi's log\n{}", self.log.text());
        }
    }
}

#[test]
fn beside_avahi_both_answer_and_neither_takes_anything_from_the_other() {
    let net = Net::new();
    let gateway = open_gateway();
    let mut avahi = Avahi::start(&net, &gateway);
    let early = browse();
    let mut agent = avahi.run(&net, &gateway);
    agent.wait_log("is announced as _secure-mqtt");
    let both_are_found = |script: &Script| {
        let (name, service) = found(script, MQTT);
        let of_ours = (&service["host"], &service["port"], &service["addresses"]);
        let expected = (&json!("vigie-atelier.local."), &json!(1884), &json!(["10.0.0.2"]));
        assert_eq!((name.as_str(), of_ours), ("atelier._mqtt._tcp.local.", expected));
        let (_, service) = found(script, WORKSTATION);
        assert_eq!((&service["host"], &service["addresses"]), (&json!("board.local."), &json!(["10.0.0.2"])));
    };
    both_are_found(&early);
    both_are_found(&browse());
    // Avahi's own tool, on the same machine.
    wait_until("the broker in Avahi", || {
        avahi.browses(&net, "_mqtt._tcp")
            == ["atelier;_mqtt._tcp;local;vigie-atelier.local;10.0.0.2;1884;\"server=vigie\""]
    });
    // Ours goes and comes; Avahi's stays.
    assert_eq!(agent.terminate(), Exit::Code(0));
    wait_until("the farewell", || said(&early, "gone", MQTT).len() == 1);
    wait_until("the farewell at Avahi", || avahi.browses(&net, "_mqtt._tcp").is_empty());
    let mut agent = avahi.run(&net, &gateway);
    both_are_found(&browse());
    assert_eq!(said(&early, "gone", WORKSTATION), Vec::<Value>::new());
    // Avahi goes; ours stays.
    let daemon = Pid::from_child(&avahi.daemon);
    kill_process(daemon, Signal::TERM).expect("it runs");
    assert!(avahi.daemon.wait().expect("it ends").success());
    wait_until("Avahi's farewell", || said(&early, "gone", WORKSTATION).len() == 1);
    found(&browse(), MQTT);
    assert_eq!(said(&early, "gone", MQTT).len(), 1);
    assert_eq!(agent.terminate(), Exit::Code(0));
    assert_eq!(avahi.log.count("onflict"), 0, "{}", avahi.log.text());
}
