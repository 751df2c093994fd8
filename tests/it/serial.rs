//! Prevents: a port that nobody else can have for a moment, that two programs have at once, or whose boot text is taken
//! for readings. What each framing makes of its bytes is in `framings`.
//!
//! The ports are ptys, reached by a link as one below `/dev/serial/by-id` is.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use super::harness::{Agent, Gateway, Mosquitto, Port, Subscriber, command, wait_for, wait_until};

struct Run {
    // Dropped in this order: the agent first.
    _agent: Agent,
    subscriber: Subscriber,
    _broker: Mosquitto,
    gateway: Gateway,
}

impl Run {
    /// An agent with the sensor `arduino` on the link of [`Self::link`], which leads to that port.
    fn start(port: &Port, more: &str) -> Self {
        let broker = Mosquitto::start();
        let subscriber = Subscriber::start(&broker, "watch", 1);
        let gateway = Gateway::new();
        gateway.configure(&format!(
            "[uplink.home]\nurl = \"mqtt://localhost:{}\"\n\n\
             [[sensor]]\nname = \"arduino\"\nroom = \"salle\"\ndriver = \"serial-json\"\nport = \"{}\"\n{more}\n",
            broker.port(),
            link(&gateway).display()
        ));
        lead(&gateway, port);
        let mut agent = gateway.run();
        agent.wait_log("connected");
        Self { _agent: agent, subscriber, _broker: broker, gateway }
    }

    /// The marks that were received, in order.
    fn marks(&self) -> Vec<String> {
        let text = |message: &super::harness::Message| message.json()["value"].as_str().expect("a text").to_owned();
        self.subscriber.on("maison/salle/mark").iter().map(text).collect()
    }

    /// Writes a line until it has come through: what is written to a port that was just opened may be skipped.
    #[track_caller]
    fn works(&self, port: &mut Port, mark: &str) {
        wait_until("the port to be opened", || port.is_open());
        wait_until(&format!("the line {mark}"), || {
            port.write_line(&format!("{{\"mark\":\"{mark}\"}}"));
            std::thread::sleep(std::time::Duration::from_millis(20));
            self.marks().iter().any(|found| found == mark)
        });
    }

    /// Waits for an availability of the sensor after the first `seen`; gives it, and how many there are now.
    #[track_caller]
    fn availability(&self, seen: usize, state: &str) -> (Value, usize) {
        wait_for(&format!("the sensor to be {state}"), || {
            let messages = self.subscriber.on("maison/salle/arduino/availability");
            let place = messages.iter().skip(seen).position(|message| {
                let json = message.json();
                json["state"] == state || json["reason"] == state
            })?;
            Some((messages[seen + place].json(), seen + place + 1))
        })
    }

    fn vigie(&self, args: &[&str]) -> Output {
        let config = self.gateway.config_file().display().to_string();
        let all: Vec<&str> = args.iter().copied().chain(["--config", &config]).collect();
        command(&all, self.gateway.path()).output().expect("vigie starts")
    }

    #[track_caller]
    fn says(&self, args: &[&str]) -> String {
        let output = self.vigie(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && err.is_empty(), "{args:?}: {out}{err}");
        out.into_owned()
    }
}

fn link(gateway: &Gateway) -> PathBuf {
    gateway.path().join("usb-Arduino_Uno-if00")
}

/// The pty itself.
fn node(port: &Port) -> PathBuf {
    fs::read_link(port.path()).expect("a link")
}

/// Has the link lead to that port.
fn lead(gateway: &Gateway, port: &Port) {
    symlink(node(port), link(gateway)).expect("a link can be made");
}

#[test]
fn a_paused_sensor_frees_its_port_and_takes_it_back() {
    let mut port = Port::open();
    let run = Run::start(&port, "");
    run.works(&mut port, "before");
    assert_eq!(run.says(&["pause"]), "No sensor is paused.\n");
    let (_, seen) = run.availability(0, "online");

    let said = run.says(&["pause", "arduino", "1h"]);
    assert!(said.contains("arduino") && said.contains("free"), "{said}");
    assert!(!port.is_open(), "the port is free once that is said");
    let (fault, seen) = run.availability(seen, "paused");
    let detail = fault["detail"].as_str().expect("a sentence");
    assert!(detail.contains("paused until 20") && detail.contains("`vigie resume arduino`"), "{detail}");
    // Somebody else has the port now, and hears the device.
    let mut ide = File::open(node(&port)).expect("it opens");
    port.write_line("for the other one");
    let mut heard = [0; 17];
    ide.read_exact(&mut heard).expect("read");
    assert_eq!(&heard, b"for the other one");
    assert!(run.says(&["pause"]).contains("arduino"));
    drop(ide);

    assert_eq!(run.says(&["resume", "arduino"]), "arduino takes its device back.\n");
    run.works(&mut port, "after");
    let (_, seen) = run.availability(seen, "online");

    run.says(&["pause", "arduino", "1s"]);
    let (_, seen) = run.availability(seen, "paused");
    run.works(&mut port, "by itself");
    run.availability(seen, "online");

    for (args, part) in [
        (["pause", "arduinno"], "there is no sensor `arduinno`; there are: arduino"),
        (["resume", "arduino"], "`arduino` is not paused"),
    ] {
        let output = run.vigie(&args);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && err.contains(part), "{args:?}: {err}");
    }
}

/// Another program with a port open. Killed when dropped.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn who_has_the_port_is_named() {
    let mut port = Port::open();
    let stdin = Stdio::from(File::open(node(&port)).expect("it opens"));
    let monitor = Other(Command::new("sleep").arg("1000").stdin(stdin).spawn().expect("it starts"));
    let run = Run::start(&port, "");
    let (fault, seen) = run.availability(0, "busy");
    let detail = fault["detail"].as_str().expect("a sentence");
    assert!(detail.contains(&format!("is in use by `sleep` (process {})", monitor.0.id())), "{detail}");
    drop(monitor);
    run.works(&mut port, "after");
    run.availability(seen, "online");
}

#[test]
fn what_comes_at_first_can_be_skipped() {
    let mut port = Port::open();
    let run = Run::start(&port, "skip = \"3s\"");
    wait_until("the port to be opened", || port.is_open());
    port.write_line("{\"mark\":\"boot\"}\n{\"mark\":\"boot\"}");
    run.works(&mut port, "after");
    assert!(run.marks().iter().all(|mark| mark == "after"), "{:?}", run.marks());
}

#[test]
fn a_port_that_says_nothing_of_use_is_told_with_the_likely_cause() {
    let (silent, mut garbled) = (Port::open(), Port::open());
    let gateway = Gateway::new();
    let sensor = |name: &str, port: &Port| {
        let port = port.path().display();
        // So long does `vigie once` wait: far longer than a busy machine takes to open a port.
        format!(
            "[[sensor]]\nname = \"{name}\"\nroom = \"{name}\"\ndeadline = \"20s\"\ndriver = \"serial-json\"\n\
             port = \"{port}\"\n"
        )
    };
    let sensors = sensor("silent", &silent) + &sensor("garbled", &garbled);
    gateway.configure(&format!("[uplink.home]\nurl = \"mqtt://localhost:1\"\n{sensors}"));
    let config = gateway.config_file().display().to_string();
    let mut once = command(&["once", "--config", &config], gateway.path()).spawn().expect("vigie starts");
    wait_until("the end of `vigie once`", || {
        // What a UART makes of a slower device: hardly anything but long runs of one level.
        garbled.master().write_all(&[0xf8, 0x00, 0x80, 0xfe, 0xe0]).expect("written");
        once.try_wait().expect("a child can be waited for").is_some()
    });
    let output = once.wait_with_output().expect("its output");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    assert!(line("silent").contains("has the device power"), "{text}");
    assert!(line("garbled").contains("no end of a line or frame") && line("garbled").contains("115200"), "{text}");
}
