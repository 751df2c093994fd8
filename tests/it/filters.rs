//! Prevents: an explanation of the filters that says something else than what they do, a rehearsal that shows something
//! else than what is then published, a value that is held back and never comes, and a total that a crash takes away.
//!
//! `tests/filters/` holds a configuration, recorded readings and what the commands make of them; `UPDATE_GOLDEN=1`
//! writes that anew.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use super::harness::{Exit, Gateway, Mosquitto, Port, Subscriber, command, wait_until};

struct Output {
    code: i32,
    out: String,
    err: String,
}

#[track_caller]
fn vigie(args: &[&str], input: &str) -> Output {
    let mut child = command(args, Path::new("/")).stdin(Stdio::piped()).spawn().expect("vigie starts");
    let mut stdin = child.stdin.take().expect("a pipe was asked for");
    // It may end before it has read all.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("vigie ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Output { code: output.status.code().expect("not killed"), out: text(output.stdout), err: text(output.stderr) }
}

#[track_caller]
fn check_golden(name: &str, output: &Output) {
    let path = Path::new("tests/filters").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &output.out).expect("a writable folder");
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(output.out, golden, "\n(if it is meant: UPDATE_GOLDEN=1)\n{}", output.err);
}

const CONFIG: &str = "tests/filters/vigie.toml";
const READINGS: &str = "tests/filters/readings.jsonl";

#[test]
fn the_filters_of_each_quantity_are_explained() {
    let output = vigie(&["explain", CONFIG], "");
    assert_eq!((output.code, output.err.as_str()), (0, ""));
    check_golden("explain.txt", &output);
    let one = vigie(&["explain", CONFIG, "mains"], "");
    assert!(one.code == 0 && output.out.ends_with(&one.out), "{}", one.out);
    let other = vigie(&["explain", CONFIG, "main"], "");
    assert_eq!((other.code, other.out.as_str()), (2, ""));
    assert!(other.err.contains("did you mean `mains`?"), "{}", other.err);
}

#[test]
fn recorded_readings_are_replayed() {
    let plain = vigie(&["replay", CONFIG, "--input", READINGS], "");
    assert_eq!(plain.code, 0, "{}", plain.err);
    assert!(plain.err.contains("no sensor `stranger`"), "{}", plain.err);
    check_golden("replay.txt", &plain);
    let why = vigie(&["replay", CONFIG, "--input", READINGS, "--why"], "");
    check_golden("replay-why.txt", &why);
    // As JSON it says the same, and can be replayed again.
    let json = vigie(&["replay", CONFIG, "--input", READINGS, "--json", "--why"], "");
    assert_eq!(json.out.lines().count(), why.out.lines().count());
    let rows: Vec<Value> = json.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let published = |row: &&Value| row.get("topic").is_some();
    assert_eq!(rows.iter().filter(published).count(), plain.out.lines().filter(|line| !line.contains(" ! ")).count());
    let json = vigie(&["replay", CONFIG, "--input", READINGS, "--json"], "");
    let events: String =
        json.out.lines().filter(|line| line.contains("button")).flat_map(|line| [line, "\n"]).collect();
    let again = vigie(&["replay", CONFIG, "--input", "-", "--json"], &events);
    assert_eq!((again.code, again.out.as_str()), (0, events.as_str()), "{}", again.err);
}

#[test]
fn a_table_as_it_is_exported_can_be_replayed() {
    let table = "time,site,room,sensor,quantity,value,unit,id,boot,uptime,topic\n\
                 ,,,mains,power,36000,W,3-1,00,10,\n,,,mains,power,36000,W,3-2,00,11.5,\n";
    let output = vigie(&["replay", CONFIG, "--input", "-"], table);
    assert_eq!(
        output.out,
        "10.000s  maison/salon/power = 36000 W\n10.000s  maison/salon/energy = 0 Wh\n\
                 11.500s  maison/salon/power = 36000 W\n11.500s  maison/salon/energy = 15 Wh\n",
        "{}",
        output.err
    );
}

#[test]
fn what_cannot_be_replayed_is_named_with_its_line() {
    let line = |second: u32| {
        format!(
            "{{\"time\":\"2026-11-21T10:00:{second:02}Z\",\"sensor\":\"mains\",\"quantity\":\"power\",\"value\":1}}\n"
        )
    };
    let good = line(1);
    for (wrong, part) in [
        ("nonsense\n".to_owned(), "line 2: is neither JSON nor the head of a table"),
        (line(0), "line 2: measured before line 1"),
        (good.replace("mains", "x").replace("\"value\":1", "\"value\":null"), "line 2: the value of `power`"),
        (good.replace("\"time\":\"2026-11-21T10:00:01Z\"", "\"uptime\":4"), "line 2: some readings have a `time`"),
    ] {
        let output = vigie(&["replay", CONFIG, "--input", "-"], &format!("{good}{wrong}"));
        assert_eq!(output.code, 2, "{wrong}");
        assert!(output.err.contains(part), "{wrong}: {}", output.err);
    }
    for args in [["--input", "absent.jsonl"], ["--speed", "0"], ["--speed", "fast"]] {
        let output = vigie(&[&["replay", CONFIG][..], &args].concat(), "");
        assert_eq!(output.code, 2, "{args:?}");
    }
}

/// At a million times the speed, half an hour takes two milliseconds.
#[test]
fn time_passes_as_fast_as_it_is_asked_to() {
    let output = vigie(&["replay", CONFIG, "--input", READINGS, "--speed", "1000000"], "");
    check_golden("replay.txt", &output);
}

fn tables(broker: &Mosquitto, port: &Port) -> String {
    format!(
        "[uplink.home]\nurl = \"mqtt://localhost:{}\"\n\n\
         [[sensor]]\nname = \"arduino\"\nroom = \"salon\"\ndriver = \"serial-json\"\nport = \"{}\"\n\
         [sensor.quantity.door]\nkind = \"switch\"\nfilters = [{{ debounce = \"200ms\" }}]\n\
         [sensor.quantity.level]\nfilters = [{{ aggregate = \"500ms\" }}]\n\
         [sensor.quantity.alive]\nfilters = [{{ timeout = \"1s\" }}]\n\
         [sensor.quantity.power]\nfilters = [{{ integral = \"1s\" }}]\n",
        broker.port(),
        port.path().display()
    )
}

/// Lines that come while a port is being set up are lost: one more is sent until one has come through.
fn wait_reading(port: &mut Port, subscriber: &Subscriber) {
    let before = subscriber.on("maison/salon/probe").len();
    wait_until("a line to come through", || {
        port.write_line("{\"probe\":1}");
        subscriber.on("maison/salon/probe").len() > before
    });
}

/// The agent serves the filters' timers: what was held back comes although nothing more is measured.
#[test]
fn what_is_held_back_comes_in_its_time() {
    let broker = Mosquitto::start();
    let subscriber = Subscriber::start(&broker, "watch", 1);
    let mut port = Port::open();
    let gateway = Gateway::new();
    gateway.configure(&tables(&broker, &port));
    let mut agent = gateway.run();
    wait_reading(&mut port, &subscriber);
    port.write_line("{\"door\":1,\"level\":1,\"alive\":1}");
    port.write_line("{\"level\":4}");
    let door = subscriber.wait("maison/salon/door", |_| true).json();
    assert_eq!(door["value"], Value::Bool(true));
    let count = subscriber.wait("maison/salon/level_count", |_| true).json();
    // Both lines are in one window, or the second is in the next.
    let whole = count["value"] == 2.0;
    let max = subscriber.wait("maison/salon/level_max", |_| true).json();
    assert_eq!(max["value"], if whole { 4.0 } else { 1.0 });
    assert!(max["time"].as_str() > door["time"].as_str(), "the end of the window: {max}, {door}");
    let silent = subscriber.wait("maison/salon/arduino/availability", |message| message.payload.contains("fault"));
    assert_eq!(silent.json()["reason"], "silent");
    port.write_line("{\"alive\":1}");
    wait_until("the sensor to be well again", || {
        let told = subscriber.on("maison/salon/arduino/availability");
        told.last().is_some_and(|message| message.payload.contains("online"))
    });
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
}

#[test]
fn a_total_survives_a_kill() {
    let broker = Mosquitto::start();
    let subscriber = Subscriber::start(&broker, "watch", 1);
    let mut port = Port::open();
    let gateway = Gateway::new();
    gateway.configure(&tables(&broker, &port));
    let total = |run: u32, index: usize| {
        let id = format!("\"id\":\"{run}-");
        let of_run = || subscriber.on("maison/salon/power").into_iter().filter(|message| message.payload.contains(&id));
        wait_until("a total", || of_run().count() > index);
        of_run().nth(index).expect("it was waited for").json()["value"].as_f64().expect("a number")
    };
    let mut agent = gateway.run();
    wait_reading(&mut port, &subscriber);
    port.write_line("{\"power\":1000}");
    assert_eq!(total(1, 0), 0.0);
    port.write_line("{\"power\":1000}");
    let before = total(1, 1);
    assert!(before > 0.0, "{before}");
    agent.kill();
    let mut agent = gateway.run();
    wait_reading(&mut port, &subscriber);
    port.write_line("{\"power\":1000}");
    // In the same boot what was between counts, too.
    let after = total(2, 0);
    assert!(after > before, "{after} after {before}");
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
}
