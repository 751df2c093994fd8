//! Twenty sensors of many drivers, and one that changes.

use std::collections::BTreeMap;
use std::fs;

use rustix::process::Signal;

use super::super::harness::{Exit, Feeder, Message, Receiver, mark_number, wait_until};
use super::{FEW, Site, fixtures, text, wait_same};

/// Sixteen sensors beside [`FEW`] and the two on serial ports: on a simulated bus, on lines, behind the kernel, and programs.
const SENSORS: &str = r#"
[hardware]
backend = "sim"

[room.salon]
label = "Salon"

[[sensor]]
name = "meteo"
room = "salon"
driver = "bme280"
address = 0x76
every = "1s"
align = true
filters.temperature = [{ median = 3 }]
[[sensor]]
name = "luxmeter"
room = "salon"
driver = "bh1750"
every = "1s"
[[sensor]]
name = "aht"
room = "aht"
driver = "aht20"
every = "1s"
[[sensor]]
name = "power"
room = "power"
driver = "ina219"
every = "1s"
[[sensor]]
name = "board"
room = "board"
driver = "lm75"
address = 0x4a
every = "1s"
[[sensor]]
name = "precise"
room = "precise"
driver = "mcp9808"
every = "1s"
[[sensor]]
name = "sht"
room = "sht"
driver = "sht3x"
address = 0x45
every = "1s"
[[sensor]]
name = "sht-four"
room = "sht-four"
driver = "sht4x"
every = "1s"
[[sensor]]
name = "water"
room = "cave"
driver = "pulse-counter"
pin = 23
every = "300ms"
pulses_per_unit = 10
unit = "l"
total = 1000
[[sensor]]
name = "motion"
room = "hall"
driver = "gpio-input"
pin = 17
every = "1s"
[[sensor]]
name = "arduino"
room = "arduino"
driver = "serial-json"
port = "sim:arduino"
[[sensor]]
name = "gps"
room = "gps"
driver = "nmea"
port = "sim:gps"
[[sensor]]
name = "boiler"
room = "boiler"
driver = "w1"
id = "28-000005e2fdc3"
every = "2s"
[[sensor]]
name = "machine"
room = "machine"
driver = "host"
every = "1s"
[[sensor]]
name = "program"
room = "program"
driver = "exec"
command = ["/bin/sh", "-c", "n=0; while :; do echo \"{\\\"n\\\":$n}\"; n=$((n+1)); sleep 0.1; done"]
[[sensor]]
name = "rack"
room = "rack"
driver = "hwmon"
chip = "lm75"
every = "2s"
"#;

/// The numbers under a key of the payloads on a topic, as they came.
fn numbers(receiver: &Receiver, topic: &str) -> Vec<f64> {
    let value = |payload: &str| serde_json::from_str::<serde_json::Value>(payload).ok()?["value"].as_f64();
    receiver.on(topic).iter().filter_map(|message| value(&message.payload)).collect()
}

const ALL: &[(&str, &str)] = &[
    ("salon", "meteo"),
    ("salon", "luxmeter"),
    ("aht", "aht"),
    ("power", "power"),
    ("board", "board"),
    ("precise", "precise"),
    ("sht", "sht"),
    ("sht-four", "sht-four"),
    ("cave", "water"),
    ("hall", "motion"),
    ("arduino", "arduino"),
    ("gps", "gps"),
    ("boiler", "boiler"),
    ("machine", "machine"),
    ("load", "load"),
    ("uptime", "uptime"),
    ("program", "program"),
    ("rack", "rack"),
    ("first", "first"),
    ("second", "second"),
];

#[test]
fn of_twenty_sensors_only_the_one_that_changes_is_touched() {
    let (mut first, mut second) = (Feeder::start(), Feeder::start());
    let port = |name: &str, feeder: &Feeder| {
        format!(
            "[[sensor]]\nname = \"{name}\"\nroom = \"{name}\"\ndriver = \"serial-json\"\nport = \"{}\"\n",
            feeder.path().display()
        )
    };
    let mut site = Site::start(&format!("{SENSORS}{FEW}{}{}", port("first", &first), port("second", &second)));
    site.wait_online(ALL);
    assert_eq!(ALL.len(), 20);
    let before = fixtures(&site.agent);
    let connections = site.connections();
    assert!(before.0.values().filter(|target| target.starts_with("/dev/pts/")).count() >= 2, "{before:?}");
    assert!(before.1.len() >= 12, "{before:?}");

    // Nothing has changed.
    assert_eq!(site.reload(), "Reloaded. sensors: 20 untouched. Uplinks: 1 untouched.\n");
    wait_same(&site.agent, &before);

    // A filter, a schedule and a name: the devices stay open.
    site.change("path = \"/proc/uptime\"\n", "path = \"/proc/uptime\"\nchange = { seconds = 0.5 }\n");
    assert_eq!(site.reload(), "Reloaded. sensors: changed: uptime; 19 untouched. Uplinks: 1 untouched.\n");
    site.change(
        "driver = \"pulse-counter\"\npin = 23\nevery = \"300ms\"",
        "driver = \"pulse-counter\"\npin = 23\nevery = \"200ms\"",
    );
    assert!(site.reload().contains("changed: water; 19 untouched"));
    site.change("[room.salon]\nlabel = \"Salon\"", "[room.salon]\nlabel = \"Living room\"");
    assert!(site.reload().contains("changed: meteo, luxmeter; 18 untouched"));
    wait_until("the room's new name", || {
        site.receiver.on("maison/salon/illuminance").iter().any(|message| message.payload.contains("Living room"))
    });
    wait_same(&site.agent, &before);

    // A bad configuration changes nothing, and says what is wrong as `vigie check` does.
    let good = site.tables.clone();
    site.change("path = \"/proc/loadavg\"", "path = \"/proc/loadavg\"\nevrey = \"1s\"");
    let (checked, refused) = (site.vigie("check"), site.vigie("reload"));
    assert_eq!((refused.status.code(), text(&refused.stderr)), (Some(2), text(&checked.stderr)));
    assert!(text(&refused.stderr).contains("evrey"), "{refused:?}");
    site.agent.signal(Signal::HUP);
    site.agent.wait_log("the new configuration is wrong: nothing has changed");
    // What holds until a restart is named.
    site.tables.clone_from(&good);
    site.gateway.configure(&site.tables);
    let file = site.gateway.config_file();
    let whole = fs::read_to_string(&file).expect("a configuration");
    fs::write(&file, whole.replace("[outbox]\n", "[outbox]\nflush = \"7s\"\n")).expect("written");
    let refused = site.vigie("reload");
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("needs a restart") && text(&refused.stderr).contains("outbox.flush"));
    wait_same(&site.agent, &before);

    // One device is another one; one sensor goes, and one comes.
    site.change("path = \"/proc/loadavg\"", "path = \"/proc/self/../loadavg\"");
    site.change(
        "[[sensor]]\nname = \"board\"\nroom = \"board\"\ndriver = \"lm75\"\naddress = 0x4a\nevery = \"1s\"\n",
        "",
    );
    site.change("name = \"rack\"\nroom = \"rack\"", "name = \"other-rack\"\nroom = \"rack\"");
    site.agent.signal(Signal::HUP);
    site.agent.wait_log("added: other-rack; removed: board, rack; opened anew: load; 17 untouched");
    site.agent.wait_log("audit=\"reload\"");
    site.wait_online(&[("rack", "other-rack"), ("load", "load")]);
    for gone in ["board", "rack"] {
        wait_until("the topic to be cleared", || site.availability(gone, gone).last().is_some_and(String::is_empty));
    }
    // Those that were not meant were not touched.
    let now = fixtures(&site.agent);
    let touched = ["s:load", "s:board", "s:rack", "s:other-rack"];
    let stay = |pollers: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        pollers.clone().into_iter().filter(|(_, name)| !touched.contains(&name.as_str())).collect()
    };
    assert_eq!(stay(&now.1), stay(&before.1));
    for (descriptor, target) in &before.0 {
        if target.starts_with("/dev/pts/") || target.starts_with("socket:") {
            assert_eq!(now.0.get(descriptor), Some(target), "{before:?} {now:?}");
        }
    }
    assert_eq!(site.connections(), connections, "the uplink's connection is the same:\n{}", site.broker.log());

    // No line of the two ports, and none of the program, is missing or came twice.
    let written = [first.written(), second.written()];
    drop((first.stop(), second.stop()));
    let marks = |name: &str| -> Vec<u32> {
        let all = site.receiver.on(&format!("maison/{name}/mark"));
        all.iter().filter_map(|message| mark_number(message.json()["value"].as_str()?.as_bytes())).collect()
    };
    for (name, written) in ["first", "second"].into_iter().zip(written) {
        wait_until("all lines", || marks(name).len() >= written as usize);
        let marks = marks(name);
        // The first line may be cut.
        let begin = marks.first().copied().unwrap_or_default();
        assert!(begin < 2 && marks.iter().copied().eq((begin..).take(marks.len())), "{name}: {marks:?}");
    }
    wait_until("lines of the program", || numbers(&site.receiver, "maison/program/n").len() > 10);
    let lines = numbers(&site.receiver, "maison/program/n");
    assert!(lines.iter().zip(0..).all(|(line, number)| *line == f64::from(number)), "{lines:?}");
    // Nor was a sample of an aligned sensor taken twice, or one of its seconds.
    let seconds = || -> Vec<i64> {
        let second = |message: &Message| {
            let time: jiff::Timestamp = message.json()["time"].as_str()?.parse().ok()?;
            Some(time.as_second())
        };
        site.receiver.on("maison/salon/temperature").iter().filter_map(second).collect()
    };
    wait_until("some seconds", || seconds().len() > 3);
    let seconds = seconds();
    assert!(seconds.windows(2).all(|pair| pair[0] < pair[1]), "{seconds:?}");
    wait_until("some counts", || numbers(&site.receiver, "maison/cave/count").len() > 3);
    // The meter's total is what it was set to, and what was counted since.
    let (counts, totals) = (numbers(&site.receiver, "maison/cave/count"), numbers(&site.receiver, "maison/cave/total"));
    assert!(counts.windows(2).all(|pair| pair[0] <= pair[1]), "{counts:?}");
    for (count, total) in counts.iter().zip(&totals) {
        assert!((total - 1000.0 - count / 10.0).abs() < 1e-6, "{total} with {count}");
    }
    assert_eq!(site.agent.terminate(), Exit::Code(0));
}
