//! pymodbus as the units of an RS-485 bus, which many a device is simulated with; the wires between are ours to spoil.

use std::fmt::Write as _;
use std::process::Command;

use serde_json::{Value, json};

use crate::it::harness::{Agent, Exit, Gateway, Mosquitto, Script, Subscriber, wait_until};

/// A bus with an agent that asks on it, all connected.
struct Bus {
    // Dropped in this order: the agent first, as the port goes with the script.
    agent: Agent,
    subscriber: Subscriber,
    broker: Mosquitto,
    script: Script,
    _gateway: Gateway,
}

/// Are they the same value, written as a whole number or not?
fn is(value: &Value, expected: &Value) -> bool {
    value == expected || value.as_f64().is_some_and(|number| Some(number) == expected.as_f64())
}

/// A sensor on the bus, called like its room.
fn sensor(name: &str, unit: u8, keys: &str, values: &[&str]) -> String {
    let mut text = format!(
        "[[sensor]]\nname = \"{name}\"\nroom = \"{name}\"\ndriver = \"modbus-rtu\"\nport = \"PORT\"\n\
         address = {unit}\nevery = \"200ms\"\n{keys}\n"
    );
    for value in values {
        let _ = writeln!(text, "[[sensor.value]]\n{value}");
    }
    text
}

impl Bus {
    fn start(adapter: &[&str], uplink: &str, sensors: &[String]) -> Self {
        let broker = Mosquitto::start();
        let subscriber = Subscriber::start(&broker, "watch", 1);
        let gateway = Gateway::new();
        let port = gateway.path().join("ttyUSB0").display().to_string();
        let script = Script::start("modbus_device.py", &[&[port.as_str()], adapter].concat());
        wait_until("the units to be there", || script.lines.count("\"ready\"") > 0);
        gateway.configure(&format!(
            "[uplink.home]\nurl = \"mqtt://localhost:{}\"\n{uplink}\n\n{}",
            broker.port(),
            sensors.concat().replace("PORT", &port)
        ));
        let agent = gateway.run();
        Self { agent, subscriber, broker, script, _gateway: gateway }
    }

    /// Waits for a value of that quantity in that room.
    #[track_caller]
    fn value(&self, room: &str, quantity: &str, expected: &Value) {
        self.subscriber.wait(&format!("maison/{room}/{quantity}"), |message| is(&message.json()["value"], expected));
    }

    /// Waits for the sensor's fault.
    #[track_caller]
    fn fault(&self, sensor: &str, reason: &str, part: &str) {
        let topic = format!("maison/{sensor}/{sensor}/availability");
        let message = self.subscriber.wait(&topic, |message| message.json()["state"] == "fault").json();
        let detail = message["detail"].as_str().unwrap_or_default();
        assert!(message["reason"] == reason && detail.contains(part), "{sensor}: {message}");
    }

    /// Has the sensor been well all along?
    fn has_been_well(&self, sensor: &str) -> bool {
        let messages = self.subscriber.on(&format!("maison/{sensor}/{sensor}/availability"));
        messages.iter().all(|message| message.json()["state"] == "online")
    }

    /// Sends a command, and waits for its result.
    #[track_caller]
    fn command(&self, sensor: &str, command: &Value, reference: &str) -> Value {
        let mut payload = command.clone();
        payload["ref"] = reference.into();
        let topic = format!("maison/{sensor}/{sensor}/set");
        let port = self.broker.port().to_string();
        let status = Command::new("mosquitto_pub")
            .args(["-h", "localhost", "-p", &port, "-t", &topic, "-m", &payload.to_string()])
            .status();
        assert!(status.is_ok_and(|status| status.success()), "mosquitto_pub reaches the broker");
        self.subscriber.wait(&format!("{topic}/result"), |message| message.json()["ref"] == reference).json()
    }

    /// Sends a command that is not carried out; gives the reason.
    #[track_caller]
    fn refused(&self, sensor: &str, command: &Value, reference: &str) -> String {
        let result = self.command(sensor, command, reference);
        assert_eq!(result["ok"], false, "{result}");
        result["error"].as_str().expect("a text").to_owned()
    }

    /// The requests that the unit was sent, in hexadecimal digits, and their functions.
    fn requests(&self, unit: u8) -> Vec<(u64, String)> {
        let lines = self.script.lines.all();
        let requests = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let of_unit = requests.filter(|request| request["unit"] == unit);
        of_unit
            .filter_map(|request| Some((request["function"].as_u64()?, request["request"].as_str()?.to_owned())))
            .collect()
    }

    #[track_caller]
    fn end(mut self) {
        assert_eq!(self.requests(0), [], "a broadcast has no answer");
        assert_eq!(self.agent.terminate(), Exit::Code(0), "log:\n{}", self.agent.log.text());
    }
}

fn meter(keys: &str) -> String {
    sensor("meter", 1, keys, &["quantity = \"voltage\"\ninput = 0\ntype = \"f32\""])
}

#[test]
fn values_of_each_type_and_order_arrive_as_they_are() {
    // By their names here, with their places from where they begin.
    let numbers = [
        ("i16", 0, json!(-2)),
        ("u16", 1, json!(65_000)),
        ("i32", 2, json!(-100_000)),
        ("u32", 4, json!(4_000_000_000_u32)),
        ("f32", 6, json!(230.25)),
        ("i64", 8, json!(-1_234_567_890_123_i64)),
        ("u64", 12, json!(1_234_567_890_123_i64)),
        ("f64", 16, json!(-0.1)),
    ];
    let mut values = Vec::new();
    for (order, base) in [("big", 100), ("little", 200)] {
        values.extend(numbers.iter().map(|(kind, place, _)| {
            let register = base + place;
            format!("quantity = \"{kind}_{order}\"\nholding = {register}\ntype = \"{kind}\"\nword_order = \"{order}\"")
        }));
    }
    for (name, place) in [
        ("badc", "holding = 300\ntype = \"f32\"\nbyte_order = \"little\""),
        ("dcba", "holding = 310\ntype = \"f32\"\nbyte_order = \"little\"\nword_order = \"little\""),
        ("model", "holding = 320\ntype = \"text\"\nlength = 4"),
        ("bit9", "holding = 400\nbit = 9"),
        ("bit8", "holding = 400\nbit = 8"),
        ("power", "input = 12\ntype = \"f32\"\nscale = 0.001\nunit = \"kW\""),
        ("coil16", "coil = 16"),
        ("coil17", "coil = 17"),
        ("discrete5", "discrete = 5"),
        ("discrete7", "discrete = 7"),
    ] {
        values.push(format!("quantity = \"{name}\"\n{place}"));
    }
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    // An adapter that hears what it sends changes nothing.
    for adapter in [&[][..], &["echo"]] {
        let bus = Bus::start(adapter, "", &[sensor("meter", 1, "timeout = \"10s\"", &values)]);
        for order in ["big", "little"] {
            for (kind, _, expected) in &numbers {
                bus.value("meter", &format!("{kind}_{order}"), expected);
            }
        }
        for (name, expected) in [
            ("badc", json!(230.25)),
            ("dcba", json!(230.25)),
            ("model", json!("SDM120")),
            ("bit9", json!(true)),
            ("bit8", json!(false)),
            ("power", json!(-1.1505)),
            ("coil16", json!(true)),
            ("coil17", json!(false)),
            ("discrete5", json!(false)),
            ("discrete7", json!(true)),
        ] {
            bus.value("meter", name, &expected);
        }
        assert!(bus.has_been_well("meter"));
        bus.end();
    }
}

#[test]
fn units_that_misbehave_are_told_and_harm_no_other() {
    let one = &["quantity = \"x\"\nholding = 0"][..];
    let mut sensors = vec![
        meter("timeout = \"10s\""),
        sensor("damaged-once", 3, "timeout = \"10s\"", one),
        sensor("damaged", 4, "timeout = \"10s\"", one),
        sensor("stray", 5, "timeout = \"10s\"", one),
        sensor("absent", 7, "timeout = \"100ms\"", one),
        sensor("slow", 8, "timeout = \"10s\"", one),
        sensor("novalue", 1, "timeout = \"10s\"", &["quantity = \"x\"\ninput = 30\ntype = \"f32\""]),
    ];
    let exceptions = [
        (1, "illegal function"),
        (2, "illegal data address"),
        (3, "illegal data value"),
        (4, "server device failure"),
        (5, "acknowledge"),
        (6, "server device busy"),
        (8, "memory parity error"),
        (10, "gateway path unavailable"),
        (11, "gateway target device failed to respond"),
    ];
    for (number, _) in exceptions {
        let value = format!("quantity = \"x\"\nholding = {number}");
        sensors.push(sensor(&format!("refuses{number}"), 2, "timeout = \"10s\"", &[&value]));
    }
    let bus = Bus::start(&[], "", &sensors);
    for (number, words) in exceptions {
        let part =
            format!("unit 2, holding register {number} (function 3): it refuses with exception {number}, {words}");
        bus.fault(&format!("refuses{number}"), "reported", &part);
    }
    bus.fault("damaged", "crc", "unit 4, holding register 0 (function 3): its answer is damaged");
    bus.fault("absent", "missing", "unit 7, holding register 0 (function 3): no answer within 100ms");
    bus.fault("novalue", "impossible", "x is no number");
    for room in ["damaged-once", "stray", "slow"] {
        bus.value(room, "x", &json!(42));
    }
    let before = bus.subscriber.on("maison/meter/voltage").len();
    wait_until("the others to go on", || bus.subscriber.on("maison/meter/voltage").len() > before + 5);
    for room in ["meter", "damaged-once", "stray", "slow"] {
        assert!(bus.has_been_well(room), "{room}");
    }
    assert!(bus.requests(4).len() >= 2 && bus.requests(7).len() >= 2, "what the wires may have spoilt is asked again");
    bus.value("damaged-once", "garbled", &json!(1));
    bus.value("damaged-once", "garbled", &json!(2));
    assert!(bus.subscriber.on("maison/meter/garbled").is_empty(), "a count is of its own sensor");
    let reads_only = (1..=11).flat_map(|unit| bus.requests(unit)).all(|(function, _)| function <= 4);
    assert!(reads_only, "nobody has written anything");
    bus.end();
}

#[test]
fn an_answer_that_comes_too_late_is_never_one_to_another_question() {
    let values = ["quantity = \"x\"\nholding = 0", "quantity = \"y\"\nholding = 10"];
    let late = sensor("late", 6, "timeout = \"2s\"\nretries = 1", &values);
    let bus = Bus::start(&[], "", &[late, meter("timeout = \"10s\"")]);
    bus.value("late", "y", &json!(1000));
    bus.value("late", "x", &json!(42));
    for (topic, expected) in [("maison/late/x", json!(42)), ("maison/late/y", json!(1000))] {
        assert!(bus.subscriber.on(topic).iter().all(|message| is(&message.json()["value"], &expected)), "{topic}");
    }
    assert!(bus.has_been_well("late") && bus.has_been_well("meter"));
    assert!(bus.subscriber.on("maison/meter/voltage").len() > 5, "the bus is the others' while it is waited for");
    bus.end();
}

#[test]
fn commands_write_what_may_be_written() {
    let sensors = [
        sensor(
            "heating",
            1,
            "timeout = \"10s\"",
            &[
                "quantity = \"target\"\nholding = 500\nscale = 0.1\nunit = \"°C\"\nrange = [5, 30]\nwrite = true",
                "quantity = \"gain\"\nholding = 501\ntype = \"f32\"\nword_order = \"little\"\nwrite = true",
                "quantity = \"mode\"\nholding = 510\nwrite = true\nmultiple = true",
                "quantity = \"text\"\nholding = 520\ntype = \"text\"\nlength = 3\nwrite = true",
                "quantity = \"valve\"\ncoil = 40\nwrite = true",
                "quantity = \"pump\"\ncoil = 41\nwrite = true\nmultiple = true",
                "quantity = \"voltage\"\ninput = 0\ntype = \"f32\"",
            ],
        ),
        sensor("absent", 7, "timeout = \"100ms\"", &["quantity = \"x\"\nholding = 0\nwrite = true"]),
        sensor("deaf", 9, "timeout = \"10s\"", &["quantity = \"x\"\nholding = 0\nwrite = true"]),
        sensor("stubborn", 10, "timeout = \"1s\"", &["quantity = \"x\"\nholding = 0\nwrite = true"]),
        meter("timeout = \"10s\"").replace("\"meter\"", "\"readonly\""),
    ];
    for adapter in [&[][..], &["echo"]] {
        let mut bus = Bus::start(adapter, "commands = true", &sensors);
        bus.agent.wait_log("commands are taken");
        bus.value("heating", "target", &json!(20));
        for (number, (command, request)) in [
            (json!({"target": 21.5}), "010601f400d7"),
            (json!({"gain": -2.25}), "011001f50002040000c010"),
            (json!({"mode": 3}), "011001fe0001020003"),
            (json!({"text": "on"}), "011002080003066f6e00000000"),
            (json!({"valve": true}), "01050028ff00"),
            (json!({"pump": true}), "010f002900010101"),
            (json!({"pump": false}), "010f002900010100"),
        ]
        .into_iter()
        .enumerate()
        {
            let result = bus.command("heating", &command, &format!("fine {number}"));
            assert_eq!(result["ok"], true, "{command}: {result}");
            let (quantity, value) = command.as_object().and_then(|object| object.iter().next()).expect("a member");
            bus.value("heating", quantity, value);
            let sent = bus.requests(1).iter().filter(|(_, frame)| frame.starts_with(request)).count();
            assert_eq!(sent, 1, "{command} is written once");
        }
        let result = bus.command("heating", &json!({"valve": false, "target": 5}), "both");
        assert_eq!(result["ok"], true, "{result}");
        bus.value("heating", "valve", &json!(false));
        bus.value("heating", "target", &json!(5));

        for (number, (command, part)) in [
            (json!({"target": 31}), "`target` = 31 is outside of its `range` (5 to 30)"),
            (json!({"target": "warm"}), "`target` is a number"),
            (json!({"valve": 1}), "`valve` is a switch: true or false"),
            (json!({"mode": 70_000}), "`mode` = 70000 does not fit into its u16"),
            (json!({"gain": 1e300}), "does not fit into its f32"),
            (json!({"text": "too long"}), "`text` has room for 6 bytes"),
            (json!({"valve": true, "voltage": 1}), "no value `voltage` can be written"),
            (json!({}), "nothing to write"),
        ]
        .into_iter()
        .enumerate()
        {
            let why = bus.refused("heating", &command, &format!("refused {number}"));
            assert!(why.contains(part), "{command}: {why}");
        }
        let why = bus.refused("absent", &json!({"x": 1}), "absent");
        assert!(why.contains("nothing was written: unit 7, holding register 0 (function 3): no answer"), "{why}");
        let why = bus.refused("deaf", &json!({"x": 1}), "deaf");
        assert!(why.contains("(function 6): it was acknowledged, but 42 is read back"), "{why}");
        let why = bus.refused("deaf", &json!({"x": 99}), "too much");
        assert!(why.contains("(function 6): it refuses with exception 3, illegal data value"), "{why}");
        let why = bus.refused("stubborn", &json!({"x": 1}), "stubborn");
        assert!(why.contains("(function 6): no answer within 1s") && why.contains("; 42 is read back"), "{why}");
        let writes = bus.requests(10).iter().filter(|(function, _)| *function == 6).count();
        assert_eq!(writes, 1, "a write is never sent twice");
        assert!(
            !bus.subscriber.messages().iter().any(|message| message.topic.starts_with("maison/readonly/readonly/set"))
        );
        bus.end();
    }
}
