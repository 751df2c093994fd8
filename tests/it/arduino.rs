//! Prevents: a library that compiles and whose sketches print something, while a gateway cannot make anything of it.
//!
//! The sketches of `deploy/arduino/` run on a simulated ATmega328P, whose UART is joined to the built program.
//! `tests/arduino/run` builds them and runs these tests; others leave them out.

use std::process::Command;

use serde_json::Value;

use super::harness::{Agent, Board, Exit, Gateway, Message, Mosquitto, Subscriber, wait_for, wait_until};

/// Where commands to the board go.
const SET: &str = "maison/jardin/uno/set";

/// A board, and an agent between it and a broker.
struct Bench {
    // In this order: the agent goes first.
    agent: Agent,
    board: Board,
    _gateway: Gateway,
    subscriber: Subscriber,
    broker: Mosquitto,
}

impl Bench {
    /// Starts the sketch, and then the agent with that driver and its further options.
    fn start(sketch: &str, driver: &str) -> Self {
        let broker = Mosquitto::start();
        let subscriber = Subscriber::start(&broker, "watch", 1);
        let board = Board::start(sketch);
        let gateway = Gateway::new();
        gateway.configure(&format!(
            "[uplink.home]\nurl = \"mqtt://localhost:{}\"\ncommands = true\n\n\
             [[sensor]]\nname = \"uno\"\nroom = \"jardin\"\nport = \"{}\"\ndriver = {driver}\n",
            broker.port(),
            board.port().display()
        ));
        let agent = gateway.run();
        Self { agent, board, _gateway: gateway, subscriber, broker }
    }

    /// Waits for a value of that quantity, published after the first `seen` ones.
    fn wait_value(&self, quantity: &str, seen: usize, condition: impl Fn(&Value) -> bool) -> Value {
        let topic = format!("maison/jardin/{quantity}");
        wait_for(&format!("{topic}; log:\n{}", self.agent.log.text()), || {
            let messages = self.subscriber.on(&topic);
            messages.iter().skip(seen).map(Message::json).find(|json| condition(&json["value"]))
        })
    }

    fn count(&self, quantity: &str) -> usize {
        self.subscriber.on(&format!("maison/jardin/{quantity}")).len()
    }

    /// Sends a command, a JSON object without its end.
    fn send(&self, begun: &str, reference: &str) {
        let payload = format!("{begun},\"ref\":\"{reference}\"}}");
        let sent = Command::new("mosquitto_pub")
            .args(["-h", "localhost", "-p", &self.broker.port().to_string(), "-t", SET, "-m", &payload])
            .status();
        assert!(sent.is_ok_and(|status| status.success()), "mosquitto_pub reaches the broker");
    }

    /// The results of commands with that reference, so far.
    fn results(&self, reference: &str) -> Vec<Value> {
        let results = self.subscriber.on(&format!("{SET}/result"));
        results.iter().map(Message::json).filter(|json| json["ref"] == reference).collect()
    }

    /// Sends a command and gives its result.
    fn command(&self, begun: &str, reference: &str) -> Value {
        self.send(begun, reference);
        wait_for(&format!("a result; log:\n{}", self.agent.log.text()), || self.results(reference).pop())
    }

    /// Commands get through as soon as the broker has accepted the subscription to them.
    fn wait_for_commands(&mut self) {
        self.agent.wait_log("commands are taken");
    }

    /// Ends everything; the sensor must not have had a fault.
    #[track_caller]
    fn end(mut self) {
        assert_eq!(self.agent.terminate(), Exit::Code(0), "log:\n{}", self.agent.log.text());
        let faults: Vec<Message> = self
            .subscriber
            .messages()
            .into_iter()
            .filter(|message| message.topic.ends_with("/availability") && message.json()["state"] == "fault")
            .collect();
        assert!(faults.is_empty(), "{faults:?}; log:\n{}", self.agent.log.text());
    }
}

#[test]
fn a_line_of_json_comes_from_a_sketch_of_ten_lines() {
    let mut bench = Bench::start("Minimal", "\"serial-json\"");
    // 1024 steps of 5 V.
    bench.board.order("analog 0 2500");
    bench.wait_value("light", 0, |value| *value == 511);
    bench.board.order("analog 0 1000");
    bench.wait_value("light", 0, |value| *value == 204);
    for _ in 0..3 {
        let seen = bench.count("light");
        bench.board.order("reset");
        bench.wait_value("light", seen, |value| *value == 204);
    }
    bench.end();
}

#[test]
fn frames_bring_several_quantities_and_take_commands() {
    let mut bench = Bench::start("Garden", "\"serial-frames\"\nacknowledge = \"20s\"");
    // The sketch has described its quantities before the port was open: the agent asks.
    bench.board.order("analog 0 750");
    bench.board.order("analog 1 2686");
    let warm = bench.wait_value("temperature", 0, |value| value.as_f64().is_some_and(|value| value > 20.0));
    assert!((24.5..25.5).contains(&warm["value"].as_f64().expect("a number")), "{warm}");
    assert_eq!(warm["unit"], "°C");
    bench.wait_value("moisture", 0, |value| *value == 50);
    let seen = bench.count("gate");
    bench.board.order("digital 2 0");
    bench.wait_value("gate", seen, |value| *value == false);
    bench.board.order("digital 2 1");
    bench.wait_value("gate", seen, |value| *value == true);

    bench.wait_for_commands();
    let result = bench.command("{\"every\":2", "slower");
    assert_eq!(result["ok"], true, "{result}");
    let result = bench.command("{\"every\":-1", "wrong");
    assert_eq!(result["ok"], false, "{result}");
    assert_eq!(result["error"], "the device says: expected {\"every\":1} to {\"every\":3600}");
    let result = bench.command(&format!("{{\"text\":\"{}\"", "x".repeat(60)), "long");
    assert_eq!(result["error"], "the command has 71 bytes; the device takes at most 64", "{result}");

    for _ in 0..3 {
        let seen = bench.count("temperature");
        bench.board.order("reset");
        bench.wait_value("temperature", seen, |_| true);
    }
    let lost: Vec<Value> =
        bench.subscriber.on("maison/jardin/lost").iter().map(|m| m.json()["value"].clone()).collect();
    assert_eq!(lost, [0], "a device that starts anew has lost nothing");
    bench.end();
}

#[test]
fn a_relay_follows_commands_and_goes_off_by_itself() {
    let mut bench = Bench::start("Relay", "\"serial-json\"\nacknowledge = \"20s\"");
    bench.agent.wait_log("opened");
    bench.board.order("reset");
    bench.wait_value("relay", 0, |value| *value == false);
    bench.wait_for_commands();
    let on = |bench: &Bench| bench.board.levels(7).last() == Some(&true);

    let result = bench.command("{\"relay\":true,\"for\":1", "on");
    assert_eq!(result["ok"], true, "{result}");
    bench.wait_value("relay", 0, |value| *value == true);
    // Nobody says it again.
    wait_until("the relay to go off", || !on(&bench));
    assert_eq!(bench.board.levels(7).iter().filter(|level| **level).count(), 1);

    let result = bench.command("{\"relay\":1", "wrong");
    assert_eq!(result["ok"], false, "{result}");
    assert_eq!(result["error"], "the device says: expected {\"relay\":true} or {\"relay\":false}");

    // A board that restarts lets go of its relay, and takes commands again.
    assert_eq!(bench.command("{\"relay\":true", "again")["ok"], true);
    assert!(on(&bench));
    let seen = bench.count("relay");
    bench.board.order("reset");
    bench.wait_value("relay", seen, |value| *value == false);
    wait_until("the relay to go off", || !on(&bench));
    assert_eq!(bench.command("{\"relay\":true", "after")["ok"], true);
    assert!(on(&bench));
    assert_eq!(bench.command("{\"relay\":false", "off")["ok"], true);
    assert!(!on(&bench));
    bench.end();
}
