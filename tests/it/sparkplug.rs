//! Prevents: a host application of Sparkplug that loses track of a gateway, because births, numbers and deaths are not in
//! the order that the specification (3.0, chapters 5 and 6) wants, whatever happens to the broker and to the agent.
//!
//! What a real Mosquitto hands on is read by `prost`, and followed message by message as a host does it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message as _;

use super::harness::{Exit, Gateway, Mosquitto, Port, Subscriber, mark_number, wait_for, wait_until};
use schema::{Metric, Payload, Value};

#[path = "../../src/uplink/sparkplug/schema.rs"]
mod schema;

const BD_SEQ: &str = "bdSeq";

/// Messages at QoS 0 are kept for a subscriber that is away for a moment.
const BROKER: &str = "allow_anonymous true\nqueue_qos0_messages true\nmax_queued_messages 0\n";

/// A metric as its birth named it.
#[derive(Clone, Debug)]
struct Known {
    device: String,
    name: String,
    datatype: u32,
    /// When its last value that was not historical was measured.
    last: u64,
}

/// A value that came after the birth.
#[derive(Clone, Debug)]
struct Seen {
    device: String,
    name: String,
    value: Value,
    historical: bool,
}

/// What a host makes of the messages of a node.
#[derive(Debug, Default)]
struct Host {
    /// The number of each birth of the node.
    births: Vec<u64>,
    alive: bool,
    seq: u64,
    /// By alias.
    metrics: BTreeMap<u64, Known>,
    /// Whether each device is alive.
    devices: BTreeMap<String, bool>,
    /// How often each was born.
    born: BTreeMap<String, usize>,
    values: Vec<Seen>,
    deaths: Vec<u64>,
}

fn number(payload: &Payload, name: &str) -> u64 {
    let metric = payload.metrics.iter().find(|metric| metric.name.as_deref() == Some(name));
    match metric.and_then(|metric| metric.value.clone()) {
        Some(Value::Long(number)) => number,
        other => panic!("{name} is {other:?}"),
    }
}

impl Host {
    /// Everything that was received of the node so far, held against the rules.
    fn follow(subscriber: &Subscriber) -> Self {
        let mut host = Self::default();
        for message in subscriber.messages() {
            let levels: Vec<&str> = message.topic.split('/').collect();
            let ["spBv1.0", "usine", kind, "pi", device @ ..] = &levels[..] else { continue };
            if matches!(*kind, "NCMD" | "DCMD") {
                continue;
            }
            assert!(!message.retained, "{}", message.topic);
            let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(message.payload.as_bytes()).expect("hexadecimal");
            let payload = Payload::decode(&bytes[..]).expect("protobuf");
            host.take(kind, device.first().copied(), &payload);
        }
        host
    }

    fn take(&mut self, kind: &str, device: Option<&str>, payload: &Payload) {
        if kind == "NDEATH" {
            assert_eq!((payload.seq, payload.metrics.len(), device), (None, 1, None), "{payload:?}");
            let number = number(payload, BD_SEQ);
            self.deaths.push(number);
            // A later one than the birth's is of a connection that ended before its birth.
            if self.births.last() == Some(&number) {
                self.alive = false;
            }
            return;
        }
        let seq = payload.seq.expect("a sequence number");
        assert!(payload.timestamp.is_some(), "{kind} {payload:?}");
        if kind == "NBIRTH" {
            assert_eq!((seq, device), (0, None));
            let number = number(payload, BD_SEQ);
            if let Some(last) = self.births.last() {
                let is_rebirth = self.alive && number == *last;
                assert!(is_rebirth || (1..128).contains(&((number + 256 - last) % 256)), "{number} after {last}");
            }
            self.births.push(number);
            self.alive = true;
            self.metrics.clear();
            self.devices.clear();
            let rebirth = payload.metrics.iter().find(|metric| metric.name.as_deref() == Some("Node Control/Rebirth"));
            let rebirth = rebirth.expect("a way to ask for births");
            assert_eq!((&rebirth.value, rebirth.alias), (&Some(Value::Boolean(false)), None));
        } else {
            assert!(self.alive, "{kind} of {device:?} while the node is dead");
            assert_eq!(seq, (self.seq + 1) % 256, "{kind} of {device:?}");
            let device = device.expect("a device");
            match kind {
                "DBIRTH" => self.birth(device, payload),
                "DDATA" => self.data(device, payload),
                "DDEATH" => {
                    assert_eq!(self.devices.insert(device.to_owned(), false), Some(true), "{device}");
                    assert!(payload.metrics.is_empty());
                }
                _ => panic!("{kind}"),
            }
        }
        self.seq = seq;
    }

    fn birth(&mut self, device: &str, payload: &Payload) {
        self.metrics.retain(|_, known| known.device != device);
        self.devices.insert(device.to_owned(), true);
        *self.born.entry(device.to_owned()).or_default() += 1;
        let mut last = 0;
        for metric in &payload.metrics {
            let Metric {
                name: Some(name), alias: Some(alias), timestamp: Some(time), datatype: Some(datatype), ..
            } = metric
            else {
                panic!("{metric:?}")
            };
            assert_ne!(metric.is_null == Some(true), metric.value.is_some(), "{metric:?}");
            assert!(metric.is_historical.is_none());
            if !name.starts_with("Properties/") {
                assert!(*time >= last, "births are in the order of time");
                last = *time;
            }
            let known = Known {
                device: device.to_owned(),
                name: name.clone(),
                datatype: *datatype,
                last: if metric.value.is_some() { *time } else { 0 },
            };
            assert!(self.metrics.insert(*alias, known).is_none(), "{name} has the alias of another");
        }
    }

    fn data(&mut self, device: &str, payload: &Payload) {
        assert_eq!(self.devices.get(device), Some(&true), "{device} is not alive");
        assert!(!payload.metrics.is_empty());
        for metric in &payload.metrics {
            let (alias, time) = (metric.alias.expect("an alias"), metric.timestamp.expect("a time"));
            assert_eq!((&metric.name, metric.datatype, metric.is_null), (&None, None, None));
            let known = self.metrics.get_mut(&alias).filter(|known| known.device == device).expect("a metric of it");
            let historical = metric.is_historical == Some(true);
            if !historical {
                assert!(time >= known.last, "{known:?}: {time}");
                known.last = time;
            }
            let value = metric.value.clone().expect("a value");
            let datatype = match &value {
                Value::Double(_) => 10,
                Value::Boolean(_) => 11,
                Value::String(_) => 12,
                Value::Bytes(_) => 17,
                other => panic!("{other:?}"),
            };
            assert_eq!(datatype, known.datatype, "{known:?}");
            self.values.push(Seen { device: device.to_owned(), name: known.name.clone(), value, historical });
        }
    }

    /// The marks that have come, and whether each is marked as historical.
    fn marks(&self) -> Vec<(u32, bool)> {
        let of_marks = self.values.iter().filter(|seen| seen.device == "arduino" && seen.name == "mark");
        of_marks
            .filter_map(|seen| match &seen.value {
                Value::String(text) => Some((mark_number(text.as_bytes())?, seen.historical)),
                _ => None,
            })
            .collect()
    }
}

/// Publishes these bytes on a topic.
fn publish(gateway: &Gateway, broker: &Mosquitto, topic: &str, bytes: &[u8], retain: bool) {
    let file = gateway.path().join("payload");
    fs::write(&file, bytes).expect("a writable folder");
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", "localhost", "-p", &broker.port().to_string(), "-t", topic, "-q", "1", "-f"]).arg(&file);
    if retain {
        command.arg("-r");
    }
    assert!(command.status().is_ok_and(|status| status.success()), "mosquitto_pub reaches the broker");
}

/// A host's command that gives this metric a value, as it was sent then.
fn write(alias: u64, value: Value, sent: SystemTime) -> Vec<u8> {
    let metric = Metric { alias: Some(alias), value: Some(value), ..Metric::default() };
    let sent = sent.duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let timestamp = u64::try_from(sent).expect("milliseconds of this age");
    Payload { timestamp: Some(timestamp), metrics: vec![metric], seq: None }.encode_to_vec()
}

fn rebirth() -> Vec<u8> {
    let metric = Metric {
        name: Some("Node Control/Rebirth".to_owned()),
        datatype: Some(11),
        value: Some(Value::Boolean(true)),
        ..Metric::default()
    };
    Payload { timestamp: Some(1), metrics: vec![metric], seq: None }.encode_to_vec()
}

fn configure(gateway: &Gateway, broker: &Mosquitto, port: &Port, version: &str, more: &str) {
    configure_with(gateway, broker, port, version, more, "");
}

fn configure_with(gateway: &Gateway, broker: &Mosquitto, port: &Port, version: &str, more: &str, keys: &str) {
    gateway.configure(&format!(
        "[hardware]\nbackend = \"sim\"\n\n\
         [uplink.scada]\n{keys}preset = \"sparkplug\"\nurl = \"mqtt://localhost:{}\"\nmqtt = \"{version}\"\n\
         sparkplug = {{ group = \"usine\", node = \"pi\"{more} }}\n\n\
         [[sensor]]\nname = \"meteo\"\nroom = \"salon\"\ndriver = \"bme280\"\nevery = \"20ms\"\n\n\
         [[sensor]]\nname = \"arduino\"\ndriver = \"serial-json\"\nport = \"{}\"\n",
        broker.port(),
        port.path().display()
    ));
}

#[test]
fn births_numbers_and_deaths_are_in_order_whatever_happens() {
    let mut broker = Mosquitto::with(BROKER);
    let subscriber = Subscriber::showing(&broker, "host", 1, &[], "%x");
    let mut port = Port::open();
    let gateway = Gateway::new();
    configure(&gateway, &broker, &port, "3.1.1", "");
    let mut agent = gateway.run();
    wait_until("the agent to open the port", || port.is_open());
    wait_until("data of both devices, past the wrap of the sequence", || {
        port.send(1);
        let host = Host::follow(&subscriber);
        host.values.len() > 3 * 300 && host.marks().len() > 3
    });

    let births = Host::follow(&subscriber).births;
    assert_eq!(births.len(), 1);
    publish(&gateway, &broker, "spBv1.0/usine/NCMD/pi", &rebirth(), false);
    wait_until("a second birth", || Host::follow(&subscriber).births == [births[0], births[0]]);

    // What is taken while the broker is away survives SIGKILL, and comes as history.
    broker.stop();
    agent.wait_log("cannot connect");
    let first = port.next();
    port.send(20);
    port.wait_all_taken(&gateway);
    agent.kill();
    let mut agent = gateway.run();
    broker.start_again();
    wait_until("all that was taken meanwhile", || {
        let marks = Host::follow(&subscriber).marks();
        (first..first + 20).all(|mark| marks.contains(&(mark, true)))
    });

    // The same once more, with nobody but the agent to blame.
    wait_until("live values again", || {
        port.send(1);
        Host::follow(&subscriber).marks().iter().any(|(mark, historical)| *mark >= first + 20 && !historical)
    });
    let before = Host::follow(&subscriber);
    agent.kill();
    wait_until("the death of the node", || Host::follow(&subscriber).deaths.len() > before.deaths.len());
    let mut agent = gateway.run();
    wait_until("another birth", || Host::follow(&subscriber).births.len() > before.births.len());
    wait_until("the device", || {
        port.send(1);
        Host::follow(&subscriber).devices.get("arduino") == Some(&true)
    });

    // A sensor that fails dies, and the node lives.
    drop(port);
    wait_until("the device's death", || Host::follow(&subscriber).devices.get("arduino") == Some(&false));
    assert!(Host::follow(&subscriber).alive);

    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
    wait_until("the death of the node", || !Host::follow(&subscriber).alive);
    let host = Host::follow(&subscriber);
    assert_eq!(host.deaths.last(), host.births.last());
}

#[test]
fn nothing_is_sent_while_the_primary_host_is_away_and_nothing_is_lost() {
    let broker = Mosquitto::with(BROKER);
    let subscriber = Subscriber::showing(&broker, "host", 1, &[], "%x");
    let mut port = Port::open();
    let gateway = Gateway::new();
    configure(&gateway, &broker, &port, "5", ", primary_host = \"scada\"");
    let says = |online: bool, time: u64| {
        let state = format!("{{\"online\":{online},\"timestamp\":{time}}}");
        publish(&gateway, &broker, "spBv1.0/STATE/scada", state.as_bytes(), true);
    };
    says(false, 100);
    let mut agent = gateway.run();
    agent.wait_log("the primary host is offline");
    let first = port.send_until_taken(&gateway);
    port.wait_all_taken(&gateway);
    assert!(Host::follow(&subscriber).births.is_empty());

    says(true, 200);
    let last = port.next();
    wait_until("all of it", || {
        let marks = Host::follow(&subscriber).marks();
        (first..last).all(|mark| marks.iter().any(|(found, _)| *found == mark))
    });
    // An echo of an earlier connection of the host says nothing; its end does.
    says(false, 199);
    wait_until("live values", || {
        port.send(1);
        let newest = Host::follow(&subscriber).marks().into_iter().filter(|(_, historical)| !historical).max();
        newest.is_some_and(|(mark, _)| mark >= last)
    });
    assert_eq!(Host::follow(&subscriber).births.len(), 1);
    says(false, 200);
    wait_until("the death of the node", || !Host::follow(&subscriber).alive);
    // The connection after it waits again.
    agent.wait_log_times("the primary host is offline", 2);
    let missed = port.next();
    port.send(5);
    port.wait_all_taken(&gateway);
    assert_eq!(Host::follow(&subscriber).births.len(), 1);
    says(true, 300);
    wait_until("what was taken meanwhile", || {
        let marks = Host::follow(&subscriber).marks();
        (missed..missed + 5).all(|mark| marks.iter().any(|(found, _)| *found == mark))
    });
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
    // Once by the node itself, and once because DISCONNECT asks for the will.
    wait_until("both deaths", || {
        let Host { deaths, births, .. } = Host::follow(&subscriber);
        deaths.iter().filter(|number| births.last() == Some(number)).count() == 2
    });
}

#[test]
fn a_host_writes_to_a_device_and_is_told_what_came_of_it() {
    const DCMD: &str = "spBv1.0/usine/DCMD/pi/arduino";
    let broker = Mosquitto::with(BROKER);
    let subscriber = Subscriber::showing(&broker, "host", 1, &[], "%x");
    let mut port = Port::open();
    let gateway = Gateway::new();
    configure_with(&gateway, &broker, &port, "5", "", "commands = true\n");
    let mut agent = gateway.run();
    agent.wait_log("commands are taken; hosts may write to arduino, and to no other device");
    agent.wait_log("opened port=");
    let alias = |host: &Host, name: &str| {
        let mut known = host.metrics.iter();
        known.find(|(_, known)| known.device == "arduino" && known.name == name).map(|(alias, _)| *alias)
    };
    let relay = wait_for("the metric", || {
        port.write_line("{\"relay\":false}");
        alias(&Host::follow(&subscriber), "relay")
    });
    let results = |ok: bool, part: &str| {
        let host = Host::follow(&subscriber);
        let results = host.values.iter().filter_map(|seen| match &seen.value {
            Value::Bytes(json) if seen.name == "result" => serde_json::from_slice::<serde_json::Value>(json).ok(),
            _ => None,
        });
        let is_it = |result: &serde_json::Value| result["ok"] == ok && result.to_string().contains(part);
        results.filter(is_it).count()
    };

    publish(&gateway, &broker, DCMD, &write(relay, Value::Boolean(true), SystemTime::now()), false);
    let mut read = Vec::new();
    wait_until("the command at the device", || {
        let mut buffer = [0; 256];
        let count = port.master().read(&mut buffer).expect("the port is open");
        read.extend(&buffer[..count]);
        read.ends_with(b"\n")
    });
    assert_eq!(String::from_utf8_lossy(&read), "{\"relay\":true}\n");
    wait_until("its result", || results(true, "") == 1);

    // Nothing of these reaches the device.
    let hour_ago = SystemTime::now() - Duration::from_secs(3_600);
    for (payload, why) in [
        (write(relay, Value::Boolean(false), hour_ago), "the limit is 30s"),
        (write(9_999, Value::Boolean(false), SystemTime::now()), "no metric with the alias 9999"),
        (write(relay, Value::Double(f64::NAN), SystemTime::now()), "`relay` cannot be written"),
        (b"{\"relay\":false}".to_vec(), "no payload of Sparkplug B"),
    ] {
        publish(&gateway, &broker, DCMD, &payload, false);
        wait_until(why, || results(false, why) == 1);
    }
    publish(&gateway, &broker, DCMD, &write(relay, Value::Boolean(true), SystemTime::now()), false);
    wait_until("the last result", || results(true, "") == 2);
    let mut buffer = [0; 256];
    let count = port.master().read(&mut buffer).expect("the port is open");
    assert_eq!(String::from_utf8_lossy(&buffer[..count]), "{\"relay\":true}\n", "and nothing before it");
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
}
