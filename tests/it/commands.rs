//! Prevents: a relay that switches when nobody wants it to any more, and a sender who does not know whether it did.
//!
//! A device of ours on a serial port, the built program, and a real Mosquitto that others publish commands to.

use std::io::Read;
use std::process::Command;

use rustix::event::{PollFd, PollFlags, poll};
use serde_json::{Value, json};

use super::harness::{Agent, Exit, Gateway, Mosquitto, Port, Subscriber, command, wait_for, wait_until};

const SET: &str = "maison/salle/arduino/set";
const RESULT: &str = "maison/salle/arduino/set/result";

/// What the agent says when it has taken the port: until then it refuses commands, also when the other end shows that it
/// is open already.
const OPENED: &str = "opened port=";

/// A gateway with a device, everybody connected.
struct Setup {
    broker: Mosquitto,
    subscriber: Subscriber,
    port: Port,
    /// What the device has read and not yet looked at.
    input: Vec<u8>,
    gateway: Gateway,
    agent: Agent,
}

fn configure(gateway: &Gateway, broker: &Mosquitto, port: &Port, keys: &str) {
    gateway.configure(&format!(
        "[uplink.home]\nurl = \"mqtt://localhost:{}\"\n{keys}\n\
         [[sensor]]\nname = \"arduino\"\nroom = \"salle\"\ndriver = \"serial-json\"\nport = \"{}\"\n\
         acknowledge = \"30s\"\n",
        broker.port(),
        port.path().display()
    ));
}

impl Setup {
    fn start(keys: &str) -> Self {
        Self::with(Mosquitto::start(), keys)
    }

    fn with(broker: Mosquitto, keys: &str) -> Self {
        let subscriber = Subscriber::start(&broker, "watch", 1);
        let (port, gateway) = (Port::open(), Gateway::new());
        configure(&gateway, &broker, &port, keys);
        let agent = gateway.run();
        let mut setup = Self { broker, subscriber, port, input: Vec::new(), gateway, agent };
        setup.wait_ready();
        setup
    }

    /// Waits until a command would be taken.
    fn wait_ready(&mut self) {
        self.agent.wait_log("commands are taken");
        self.agent.wait_log(OPENED);
    }

    fn publish(&self, payload: &str) {
        self.publish_with(payload, &[]);
    }

    fn publish_with(&self, payload: &str, args: &[&str]) {
        publish(&self.broker, payload, args);
    }

    /// Is there something for the device to read?
    fn is_spoken_to(&self) -> bool {
        let mut fds = [PollFd::new(&self.port, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 }));
        !self.input.is_empty() || fds[0].revents().contains(PollFlags::IN)
    }

    /// The next line that the device is sent.
    #[track_caller]
    fn command(&mut self) -> Value {
        let line = wait_for("a command at the device", || {
            if !self.input.contains(&b'\n') && self.is_spoken_to() {
                let mut buffer = [0; 1_024];
                let count = self.port.master().read(&mut buffer).expect("the port is open");
                self.input.extend(&buffer[..count]);
            }
            let end = self.input.iter().position(|byte| *byte == b'\n')?;
            Some(self.input.drain(..=end).collect::<Vec<u8>>())
        });
        serde_json::from_slice(&line).expect("a line of JSON")
    }

    /// The result of the command with this reference.
    #[track_caller]
    fn result(&self, reference: &str) -> Value {
        self.subscriber.wait(RESULT, |message| message.json()["ref"] == reference).json()
    }

    /// Why the command with this reference failed.
    #[track_caller]
    fn error(&self, reference: &str) -> String {
        let result = self.result(reference);
        assert_eq!(result["ok"], false, "{result}");
        result["error"].as_str().expect("a text").to_owned()
    }

    #[track_caller]
    fn end(mut self) {
        assert_eq!(self.agent.terminate(), Exit::Code(0), "log:\n{}", self.agent.log.text());
    }
}

/// `mosquitto_pub`, at QoS 0 unless the arguments say otherwise.
fn publish(broker: &Mosquitto, payload: &str, args: &[&str]) {
    let status = Command::new("mosquitto_pub")
        .args(["-h", "localhost", "-p", &broker.port().to_string(), "-t", SET, "-m", payload])
        .args(args)
        .status();
    assert!(status.is_ok_and(|status| status.success()), "mosquitto_pub reaches the broker");
}

#[test]
fn commands_go_down_while_readings_go_up() {
    for version in ["3.1.1", "5"] {
        let mut setup = Setup::start(&format!("commands = true\nmqtt = \"{version}\""));
        setup.publish(r#"{ "relay" : true, "ref" : "on" }"#);
        assert_eq!(setup.command(), json!({"id": 1, "relay": true}));
        // Nobody waits for the device but the sender.
        setup.port.write_line(r#"{"temp":21.5}"#);
        setup.subscriber.wait("maison/salle/temp", |_| true);
        setup.publish_with(r#"{"relay":false,"ref":"off"}"#, &["-q", "1"]);
        assert_eq!(setup.command(), json!({"id": 2, "relay": false}));
        assert!(setup.subscriber.on(RESULT).is_empty(), "it has acknowledged nothing");
        setup.port.write_line(r#"{"ack":2,"error":"stuck"}"#);
        assert_eq!(setup.error("off"), "the device says: stuck");
        setup.port.write_line(r#"{"ack":1}"#);
        let result = setup.result("on");
        assert_eq!(
            (&result["ok"], &result["uplink"], &result["sensor"]),
            (&true.into(), &"home".into(), &"arduino".into())
        );
        assert!(setup.subscriber.on("maison/salle/ack").is_empty(), "an answer is no reading");
        setup.agent.wait_log("command carried out");

        // A result is an event: nobody who comes later finds one.
        let late = Subscriber::start(&setup.broker, "late", 1);
        late.wait("maison/atelier/info", |message| message.json()["commands"]["home"] == "accepted");
        assert!(late.on(RESULT).is_empty());
        setup.end();
    }
}

#[test]
fn what_the_device_does_not_get_or_not_answer_is_told() {
    let mut setup = Setup::start("commands = true");
    setup.publish(r#"{"ref":"interrupted"}"#);
    setup.command();
    setup.publish("not json");
    let message = setup.subscriber.wait(RESULT, |message| message.payload.contains("one JSON object"));
    assert_eq!(message.json()["ok"], false);
    setup.publish(r#"{"id":5,"ref":"id"}"#);
    assert!(setup.error("id").contains("the key `id`"));
    setup.publish(&format!(r#"{{"text":"{}"}}"#, "x".repeat(1_100)));
    setup.subscriber.wait(RESULT, |message| message.payload.contains("a command has at most 1024"));

    // While the port is somebody else's, nothing is sent.
    let config = setup.gateway.config_file().display().to_string();
    let says = |args: &[&str]| {
        let output =
            command(&[args, &["--config", &config]].concat(), setup.gateway.path()).output().expect("vigie runs");
        assert!(output.status.success(), "{output:?}");
    };
    says(&["pause", "arduino", "10m"]);
    assert!(setup.error("interrupted").contains("whether it was carried out is not known"));
    setup.publish(r#"{"ref":"paused"}"#);
    assert_eq!(setup.error("paused"), "the sensor is paused");
    says(&["resume", "arduino"]);
    setup.agent.wait_log_times(OPENED, 2);
    setup.publish(r#"{"ref":"pulled"}"#);
    assert_eq!(setup.command(), json!({"id": 3}));

    // The cable is pulled while one waits for its answer; after that, every command is refused at once.
    setup.port = Port::open();
    assert!(setup.error("pulled").contains("whether it was carried out is not known"));
    setup.publish(r#"{"ref":"away"}"#);
    assert!(setup.error("away").contains("the sensor has a fault"));
    setup.end();
}

#[test]
fn a_device_that_does_not_answer_in_time_is_told_of() {
    let broker = Mosquitto::start();
    let (port, gateway) = (Port::open(), Gateway::new());
    let subscriber = Subscriber::start(&broker, "watch", 1);
    configure(&gateway, &broker, &port, "commands = true");
    let text = std::fs::read_to_string(gateway.config_file()).expect("the configuration");
    std::fs::write(gateway.config_file(), text.replace("\"30s\"", "\"200ms\"")).expect("the configuration");
    let agent = gateway.run();
    let mut setup = Setup { broker, subscriber, port, input: Vec::new(), gateway, agent };
    setup.wait_ready();
    setup.publish(r#"{"ref":"late"}"#);
    let id = setup.command()["id"].clone();
    assert!(setup.error("late").contains("not acknowledged it within 200ms"));
    // The answer comes after all: it is nobody's, and the link goes on.
    setup.port.write_line(&json!({"ack": id}).to_string());
    setup.port.write_line(r#"{"temp":21.5}"#);
    setup.subscriber.wait("maison/salle/temp", |_| true);
    assert_eq!(setup.subscriber.on(RESULT).len(), 1);
    setup.end();
}

#[test]
fn what_is_retained_or_old_is_refused() {
    let broker = Mosquitto::start();
    publish(&broker, r#"{"ref":"retained"}"#, &["-r"]);
    let mut setup = Setup::with(broker, "commands = true");
    assert!(setup.error("retained").contains("it is retained"));
    setup.publish(r#"{"time":"2026-01-01T00:00:00Z","ref":"old"}"#);
    assert!(setup.error("old").contains("`command_max_age`"));
    setup.publish(r#"{"time":"2126-01-01T00:00:00Z","ref":"future"}"#);
    assert!(setup.error("future").contains("from now"));
    let now = humantime::format_rfc3339_millis(std::time::SystemTime::now());
    setup.publish(&format!(r#"{{"time":"{now}","on":1,"ref":"now"}}"#));
    assert_eq!(setup.command(), json!({"id": 1, "on": 1}), "the first that gets there");
    setup.end();
}

/// What only MQTT 5 says.
#[test]
fn properties_stand_for_members() {
    let broker = Mosquitto::start();
    publish(&broker, r#"{"ref":"retained"}"#, &["-r"]);
    let mut setup = Setup::with(broker, "commands = true\nmqtt = \"5\"");
    let five = ["-V", "5", "-D", "PUBLISH", "correlation-data"];
    let old = ["-D", "PUBLISH", "user-property", "time", "2026-01-01T00:00:00Z"];
    setup.publish_with("{}", &[&five[..], &["old"], &old[..]].concat());
    assert!(setup.error("old").contains("`command_max_age`"));
    setup.publish_with("{}", &[&five[..], &["kept"], &["-r"]].concat());
    assert!(setup.error("kept").contains("it is retained"), "it says so even to those who are there");
    setup.publish_with(r#"{"on":1}"#, &[&five[..], &["fresh"]].concat());
    let command = setup.command();
    assert_eq!(command, json!({"id": 1, "on": 1}));
    setup.port.write_line(r#"{"ack":1}"#);
    assert_eq!(setup.result("fresh")["ok"], true);
    let retained =
        setup.subscriber.on(RESULT).into_iter().filter(|message| message.json()["ref"] == "retained").count();
    assert_eq!(retained, 0, "the broker is asked to send nothing that it has kept");
    setup.end();
}

/// Mosquitto can be told to keep even messages at QoS 0 for a client that is away; others do it unasked.
#[test]
fn what_a_broker_has_queued_is_not_carried_out() {
    for version in ["3.1.1", "5"] {
        let broker = Mosquitto::with("allow_anonymous true\nqueue_qos0_messages true\n");
        let mut setup = Setup::with(broker, &format!("commands = true\nmqtt = \"{version}\""));
        assert_eq!(setup.agent.terminate(), Exit::Code(0));
        setup.publish(r#"{"ref":"queued"}"#);
        setup.agent = setup.gateway.run();
        setup.wait_ready();
        assert!(setup.error("queued").contains("it may have waited for us"));
        setup.publish(r#"{"ref":"fresh"}"#);
        assert_eq!(setup.command(), json!({"id": 1}), "the first that gets there");
        setup.end();
    }
}

#[test]
fn an_uplink_takes_none_unless_it_is_told_to() {
    let broker = Mosquitto::start();
    let subscriber = Subscriber::start(&broker, "watch", 1);
    let (port, gateway) = (Port::open(), Gateway::new());
    configure(&gateway, &broker, &port, "");
    let mut agent = gateway.run();
    agent.wait_log("connected");
    let mut setup = Setup { broker, subscriber, port, input: Vec::new(), gateway, agent };
    setup.publish(r#"{"ref":"nobody"}"#);
    setup.subscriber.wait(SET, |_| true);
    // Up works, and takes longer than down would.
    wait_until("a reading", || {
        setup.port.write_line(r#"{"temp":21.5}"#);
        !setup.subscriber.on("maison/salle/temp").is_empty()
    });
    assert!(!setup.is_spoken_to() && setup.subscriber.on(RESULT).is_empty());
    setup.end();
}
