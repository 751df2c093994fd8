//! Prevents: one broken device that silences the others, a fault that is told under a wrong name, and a sensor that
//! stays away after its device has come back.
//!
//! The built program runs on simulated hardware to which faults happen by a script, each for many times as long as it takes
//! to be seen: a busy host holds the program up now and then, and may make a sensor `stuck` whose `deadline` is short.

use super::harness::{Agent, Gateway, Message, Mosquitto, Subscriber, wait_for, wait_until};

struct Run {
    // Dropped in this order: the agent first.
    _agent: Agent,
    _gateway: Gateway,
    subscriber: Subscriber,
    _broker: Mosquitto,
}

impl Run {
    fn start(tables: &str) -> Self {
        let broker = Mosquitto::start();
        let subscriber = Subscriber::start(&broker, "watch", 1);
        let gateway = Gateway::new();
        let uplink = format!("[uplink.home]\nurl = \"mqtt://localhost:{}\"\n", broker.port());
        gateway.configure(&format!("{uplink}{tables}"));
        let agent = gateway.run();
        Self { _agent: agent, _gateway: gateway, subscriber, _broker: broker }
    }

    /// Waits until a sensor's availability has been through these states, in this order and without any other between but
    /// [`held_up`]; gives those messages.
    #[track_caller]
    fn wait_availability(&self, sensor: &str, expected: &[&str]) -> Vec<Message> {
        let topic = format!("maison/{sensor}/{sensor}/availability");
        wait_for(&format!("{expected:?} on {topic}"), || {
            let mut found = Vec::new();
            for message in self.subscriber.on(&topic) {
                let state = state(&message);
                match expected.get(found.len()) {
                    Some(next) if *next == state => found.push(message),
                    Some(next) => assert!(held_up(&state), "{state} on {topic}, where {next} was to come"),
                    None => break,
                }
            }
            (found.len() == expected.len()).then_some(found)
        })
    }

    /// Checks that a sensor has worked from its start on.
    #[track_caller]
    fn never_failed(&self, sensor: &str) {
        self.wait_availability(sensor, &["online"]);
        let states: Vec<String> =
            self.subscriber.on(&format!("maison/{sensor}/{sensor}/availability")).iter().map(state).collect();
        assert_eq!(states, ["online"], "{sensor} never failed");
    }

    /// How many readings of a sensor came between two messages.
    fn readings_between(&self, sensor: &str, first: &Message, last: &Message) -> usize {
        let messages = self.subscriber.messages();
        readings(sensor, &messages[place(&messages, first)..place(&messages, last)])
    }

    /// Waits for some more readings of a sensor, after a message.
    #[track_caller]
    fn goes_on(&self, sensor: &str, since: &Message) {
        wait_until(&format!("readings of {sensor}"), || {
            let messages = self.subscriber.messages();
            readings(sensor, &messages[place(&messages, since)..]) >= 5
        });
    }
}

/// Where a message is among all.
fn place(messages: &[Message], wanted: &Message) -> usize {
    let same = |message: &Message| message.topic == wanted.topic && message.payload == wanted.payload;
    messages.iter().rposition(same).expect("it was received")
}

fn readings(sensor: &str, messages: &[Message]) -> usize {
    let start = format!("maison/{sensor}/");
    let is_reading =
        |message: &&Message| message.topic.starts_with(&start) && !message.topic.ends_with("/availability");
    messages.iter().filter(is_reading).count()
}

/// `online`, or the reason of the fault.
fn state(message: &Message) -> String {
    let json = message.json();
    let word = if json["state"] == "fault" { &json["reason"] } else { &json["state"] };
    word.as_str().expect("a word").to_owned()
}

/// Is this what a sensor may be for a moment, and be again, because the host holds the program up?
fn held_up(state: &str) -> bool {
    matches!(state, "stuck" | "online")
}

fn detail(message: &Message) -> String {
    message.json()["detail"].as_str().expect("a sentence").to_owned()
}

const SENSORS: &str = r#"
[hardware]
backend = "sim"

[[sensor]]
name = "meteo"
room = "meteo"
driver = "bme280"
address = 0x76
every = "100ms"

[[sensor]]
name = "cave"
room = "cave"
driver = "bme280"
address = 0x77
every = "100ms"

[[sensor]]
name = "mouvement"
room = "mouvement"
driver = "gpio-input"
pin = 17
every = "100ms"
deadline = "5m"

[[sensor]]
name = "arduino"
room = "arduino"
driver = "serial-json"
port = "sim:arduino"
"#;

fn fault(device: &str, kind: &str, at: &str, lasts: &str) -> String {
    format!("[[hardware.fault]]\ndevice = \"{device}\"\nkind = \"{kind}\"\nat = \"{at}\"\nfor = \"{lasts}\"\n")
}

#[test]
fn a_bus_that_hangs_is_told_of_all_on_it_and_nobody_else_waits() {
    let run = Run::start(&format!("{SENSORS}{}", fault("i2c 1 0x76", "hang", "10s", "20s")));
    let meteo = run.wait_availability("meteo", &["online", "stuck", "online"]);
    assert!(detail(&meteo[1]).contains("still running"), "{meteo:?}");
    let cave = run.wait_availability("cave", &["online", "bus-hang", "online"]);
    assert!(detail(&cave[1]).contains("a transfer to address 0x76 has been running for"), "{cave:?}");
    for sensor in ["mouvement", "arduino"] {
        assert!(run.readings_between(sensor, &cave[1], &cave[2]) >= 5, "{sensor} went on");
        run.never_failed(sensor);
    }
    assert_eq!(run.readings_between("meteo", &meteo[1], &meteo[2]), 0, "nothing is made up meanwhile");
}

#[test]
fn what_is_unplugged_or_another_chip_is_told_and_comes_back() {
    let faults = [
        fault("i2c 1 0x76", "wrong-chip", "0s", "10s"),
        fault("i2c 1 0x77", "unplug", "0s", "10s"),
        fault("i2c 1 0x77", "timeout", "40s", "10s"),
        fault("line GPIO17", "unplug", "10s", "10s"),
        fault("port sim:arduino", "unplug", "10s", "10s"),
    ];
    let run = Run::start(&format!("{SENSORS}{}", faults.concat()));
    let meteo = run.wait_availability("meteo", &["wrong-chip", "online"]);
    assert!(detail(&meteo[0]).contains("0x76"), "{meteo:?}");
    let cave = run.wait_availability("cave", &["missing", "online", "bus", "online"]);
    assert!(detail(&cave[0]).contains("vigie scan") && detail(&cave[2]).contains("holds a wire low"), "{cave:?}");
    run.wait_availability("mouvement", &["online", "unplugged", "missing", "online"]);
    run.wait_availability("arduino", &["online", "unplugged", "missing", "online"]);
}

#[test]
fn chips_on_spi_and_of_the_kernels_drivers_break_and_come_back() {
    let faults = [
        fault("spi 0 0", "unplug", "0s", "10s"),
        fault("spi 0 0", "hang", "30s", "12s"),
        fault("w1 28-000005e2fdc3", "garbage", "0s", "10s"),
        fault("iio dht11@4", "unplug", "0s", "10s"),
        fault("hwmon lm75", "nak", "0s", "10s"),
    ];
    let sensor = |name: &str, keys: &str| {
        format!("[[sensor]]\nname = \"{name}\"\nroom = \"{name}\"\nevery = \"100ms\"\n{keys}\n\n")
    };
    let sensors = [
        sensor("plantes", "driver = \"mcp3008\"\nchip_select = 0\ninputs = [\"ch0\"]\ndeadline = \"2s\""),
        sensor("chaudiere", "driver = \"w1\"\nid = \"28-000005e2fdc3\""),
        sensor("retour", "driver = \"w1\"\nid = \"28-0114503d4aff\"\ndeadline = \"5m\""),
        sensor("cave", "driver = \"iio\"\ndevice = \"dht11@4\""),
        sensor("baie", "driver = \"hwmon\"\nchip = \"lm75\""),
    ];
    let run = Run::start(&format!("[hardware]\nbackend = \"sim\"\n\n{}{}", sensors.concat(), faults.concat()));
    let plantes = run.wait_availability("plantes", &["missing", "online", "stuck", "online"]);
    assert!(detail(&plantes[0]).contains("no MCP3008 answers"), "{plantes:?}");
    for (sensor, code, part) in [
        ("chaudiere", "crc", "checksum"),
        ("cave", "missing", "no IIO device `dht11@4`"),
        ("baie", "missing", "the chip does not answer"),
    ] {
        let states = run.wait_availability(sensor, &[code, "online"]);
        assert!(detail(&states[0]).contains(part), "{states:?}");
        run.goes_on(sensor, &states[1]);
    }
    run.never_failed("retour");
}

#[test]
fn a_chip_that_hangs_is_switched_off_and_on_with_all_on_its_supply() {
    let power = "power = { pin = 22, after = 2, off = \"300ms\", settle = \"300ms\" }";
    let sensors = format!(
        "[hardware]\nbackend = \"sim\"\n\n\
         [[sensor]]\nname = \"meteo\"\nroom = \"meteo\"\ndriver = \"bme280\"\naddress = 0x76\nevery = \"100ms\"\n{power}\n\n\
         [[sensor]]\nname = \"cave\"\nroom = \"cave\"\ndriver = \"bme280\"\naddress = 0x77\nevery = \"100ms\"\n{power}\n\n\
         [[sensor]]\nname = \"mouvement\"\nroom = \"mouvement\"\ndriver = \"gpio-input\"\npin = 17\nevery = \"100ms\"\n\
         {power}\n\n\
         [[hardware.fault]]\ndevice = \"i2c 1 0x77\"\nkind = \"nak\"\nat = \"10s\"\ncured_by = \"GPIO22\"\n"
    );
    let run = Run::start(&sensors);
    let cave = run.wait_availability("cave", &["online", "missing", "power-cycle", "online"]);
    let told = detail(&cave[2]);
    assert!(told.contains("GPIO22") && told.contains("after 2 faults in a row (1. time"), "{told}");
    for sensor in ["meteo", "mouvement"] {
        let states = run.wait_availability(sensor, &["online", "power-cycle", "online"]);
        assert!(detail(&states[1]).contains("supply that it shares"), "{states:?}");
    }
}

#[test]
fn lines_of_expanders_are_used_as_any_other_and_come_back_with_the_chip() {
    let run = Run::start(&format!(
        r#"
[hardware]
backend = "sim"

[expander.portail]
chip = "mcp23017"
interrupt = {{ pin = 25 }}

[expander.moulin]
chip = "pcf8574"
address = 0x21

[[sensor]]
name = "contact"
room = "contact"
driver = "gpio-input"
line = "portail:GPA3"
bias = "pull-up"
invert = true
every = "100ms"

[[sensor]]
name = "volet"
room = "volet"
driver = "gpio-input"
line = "moulin:P3"
bias = "pull-up"
invert = true
debounce = "5ms"
every = "1m"

[[sensor]]
name = "meteo"
room = "meteo"
driver = "bme280"
every = "100ms"
power = {{ line = "portail:GPB0", settle = "100ms" }}

{}"#,
        fault("i2c 1 0x20", "unplug", "10s", "10s")
    ));
    let contact = run.wait_availability("contact", &["online", "missing", "online"]);
    assert!(detail(&contact[1]).contains("expander `portail`"), "{contact:?}");
    // The simulated contacts close and open once in ten seconds.
    for sensor in ["contact", "volet"] {
        for state in [true, false] {
            let topic = format!("maison/{sensor}/state");
            run.subscriber.wait(&topic, |message| message.json()["value"] == state);
        }
    }
    run.subscriber.wait("maison/meteo/temperature", |_| true);
    run.never_failed("volet");
}

#[test]
fn a_call_that_never_returns_is_ended_by_the_supply() {
    let run = Run::start(
        r#"
[hardware]
backend = "sim"

[[sensor]]
name = "meteo"
room = "meteo"
driver = "bme280"
every = "100ms"
deadline = "2s"
power = { pin = 22, after = 2, off = "100ms", settle = "100ms" }

[[sensor]]
name = "arduino"
room = "arduino"
driver = "serial-json"
port = "sim:arduino"
power = { pin = 22, after = 2, off = "100ms", settle = "100ms" }

[[hardware.fault]]
device = "i2c 1 0x76"
kind = "hang"
at = "10s"
cured_by = "GPIO22"
"#,
    );
    let meteo = run.wait_availability("meteo", &["online", "stuck", "power-cycle", "online"]);
    assert!(detail(&meteo[2]).contains("after 2 faults in a row"), "{meteo:?}");
    run.wait_availability("arduino", &["online", "power-cycle", "online"]);
}
