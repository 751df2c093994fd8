//! Prevents: a reload that touches what has not changed, one that half takes over a configuration, and one that leaves
//! something behind: on a broker, or in the process.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Output};

use rustix::process::Signal;

use super::harness::{Agent, Exit, Feeder, Gateway, Mosquitto, Receiver, command, mark_number, wait_until};

/// Eighteen sensors beside the two on serial ports: on a simulated bus, on lines, behind the kernel, and programs.
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
name = "load"
room = "load"
driver = "file"
path = "/proc/loadavg"
pattern = '^(?<one>\S+) (?<five>\S+)'
every = "1s"
[[sensor]]
name = "uptime"
room = "uptime"
driver = "file"
path = "/proc/uptime"
pattern = '^(?<seconds>\S+)'
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

/// A gateway with a broker and a receiver, and the text of its tables, to be changed.
struct Site {
    // Dropped in this order: the agent first.
    agent: Agent,
    gateway: Gateway,
    tables: String,
    receiver: Receiver,
    broker: Mosquitto,
}

impl Site {
    fn start(sensors: &str) -> Self {
        let broker = Mosquitto::start();
        let receiver = Receiver::start(&broker);
        let gateway = Gateway::new();
        let tables = format!("[uplink.home]\nurl = \"mqtt://localhost:{}\"\nqos = 2\n{sensors}", broker.port());
        gateway.configure(&tables);
        let agent = gateway.run();
        Self { agent, gateway, tables, receiver, broker }
    }

    /// Writes the configuration with `from` replaced.
    #[track_caller]
    fn change(&mut self, from: &str, to: &str) {
        assert_eq!(self.tables.matches(from).count(), 1, "{from}");
        self.tables = self.tables.replace(from, to);
        self.gateway.configure(&self.tables);
    }

    fn vigie(&self, what: &str) -> Output {
        let file = self.gateway.config_file().display().to_string();
        let args: &[&str] = if what == "check" { &["check", &file] } else { &[what, "--config", &file] };
        command(args, self.gateway.path()).output().expect("vigie starts")
    }

    /// `vigie reload`, which must go well; gives what it says.
    #[track_caller]
    fn reload(&self) -> String {
        let output = self.vigie("reload");
        let (out, error) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success() && error.is_empty(), "{output:?}\n{error}");
        out
    }

    /// How often anybody has connected to the broker under the gateway's name.
    fn connections(&self) -> usize {
        self.broker.log.count(" as vigie-atelier ")
    }

    fn availability(&self, room: &str, sensor: &str) -> Vec<String> {
        let topic = format!("maison/{room}/{sensor}/availability");
        self.receiver.on(&topic).into_iter().map(|message| message.payload).collect()
    }

    /// Waits until these sensors give values.
    #[track_caller]
    fn wait_online(&self, sensors: &[(&str, &str)]) {
        for (room, sensor) in sensors {
            wait_until(&format!("{sensor} to be online"), || {
                self.availability(room, sensor).last().is_some_and(|last| last.contains("online"))
            });
        }
    }

    /// What the broker retains now, by topic.
    fn retained(&self) -> BTreeMap<String, String> {
        let output = Command::new("mosquitto_sub")
            .args(["-h", "localhost", "-p", &self.broker.port().to_string(), "-t", "#"])
            .args(["--retained-only", "-W", "1", "-F", "%t %p"])
            .output()
            .expect("mosquitto_sub starts");
        let lines = text(&output.stdout);
        lines.lines().filter_map(|line| line.split_once(' ')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Descriptors that last: terminals, pipes and sockets, each with the object that it is of. What is opened for a moment,
/// such as a file that a driver reads, is not among them.
fn descriptors(agent: &Agent) -> BTreeMap<String, String> {
    let folder = format!("/proc/{}/fd", agent.pid());
    let entries = fs::read_dir(&folder).expect("the agent runs").flatten();
    entries
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?.display().to_string();
            let lasts = ["/dev/pts/", "pipe:", "socket:", "anon_inode:"].iter().any(|kind| target.starts_with(kind));
            lasts.then(|| (entry.file_name().to_string_lossy().into_owned(), target))
        })
        .collect()
}

/// The threads that ask sensors, by the kernel's number and name.
fn pollers(agent: &Agent) -> BTreeMap<String, String> {
    let folder = format!("/proc/{}/task", agent.pid());
    let entries = fs::read_dir(&folder).expect("the agent runs").flatten();
    entries
        .filter_map(|entry| {
            let name = fs::read_to_string(entry.path().join("comm")).ok()?.trim().to_owned();
            name.starts_with("s:").then(|| (entry.file_name().to_string_lossy().into_owned(), name))
        })
        .collect()
}

/// Everything that a reload must not touch.
fn fixtures(agent: &Agent) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    (descriptors(agent), pollers(agent))
}

/// Waits until it is as it was: the client of the control socket has just gone.
#[track_caller]
fn wait_same(agent: &Agent, before: &(BTreeMap<String, String>, BTreeMap<String, String>)) {
    let mut now = fixtures(agent);
    for _ in 0..3_000 {
        if now == *before {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
        now = fixtures(agent);
    }
    assert_eq!(now, *before, "what was open, and who asks");
}

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
    let mut site = Site::start(&format!("{SENSORS}{}{}", port("first", &first), port("second", &second)));
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
    let lines = numbers(&site.receiver, "maison/program/n");
    assert!(lines.len() > 10 && lines.iter().zip(0..).all(|(line, number)| *line == f64::from(number)), "{lines:?}");
    // Nor was a sample of an aligned sensor taken twice, or one of its seconds.
    let seconds: Vec<i64> = site
        .receiver
        .on("maison/salon/temperature")
        .iter()
        .filter_map(|message| {
            let time: jiff::Timestamp = message.json()["time"].as_str()?.parse().ok()?;
            Some(time.as_second())
        })
        .collect();
    assert!(seconds.len() > 3 && seconds.windows(2).all(|pair| pair[0] < pair[1]), "{seconds:?}");
    // The meter's total is what it was set to, and what was counted since.
    let (counts, totals) = (numbers(&site.receiver, "maison/cave/count"), numbers(&site.receiver, "maison/cave/total"));
    assert!(counts.len() > 3 && counts.windows(2).all(|pair| pair[0] <= pair[1]), "{counts:?}");
    for (count, total) in counts.iter().zip(&totals) {
        assert!((total - 1000.0 - count / 10.0).abs() < 1e-6, "{total} with {count}");
    }
    assert_eq!(site.agent.terminate(), Exit::Code(0));
}

/// Two small sensors and one that is going to change.
const FEW: &str = r#"
[[sensor]]
name = "uptime"
room = "uptime"
driver = "file"
path = "/proc/uptime"
pattern = '^(?<seconds>\S+)'
every = "200ms"

[[sensor]]
name = "load"
room = "load"
driver = "file"
path = "/proc/loadavg"
pattern = '^(?<one>\S+) (?<five>\S+)'
every = "200ms"
"#;

/// The table of the sensor `load`.
const LOAD: &str = "[[sensor]]\nname = \"load\"\nroom = \"load\"\ndriver = \"file\"\npath = \"/proc/loadavg\"\n\
    pattern = '^(?<one>\\S+) (?<five>\\S+)'\nevery = \"200ms\"\n";

#[test]
fn what_a_broker_retains_of_a_sensor_goes_with_it_and_comes_back() {
    let mut site = Site::start(FEW);
    site.wait_online(&[("uptime", "uptime"), ("load", "load")]);
    let of_load = |site: &Site| -> Vec<String> {
        site.retained().into_keys().filter(|topic| topic.starts_with("maison/load/")).collect()
    };
    let all = ["maison/load/five", "maison/load/load/availability", "maison/load/one"];
    wait_until("all to be retained", || of_load(&site) == all);
    // A quantity gets another name, in another room.
    site.change("room = \"load\"", "room = \"engine\"");
    assert!(site.reload().contains("changed: load; 1 untouched"));
    wait_until("the old room to be empty", || of_load(&site).is_empty());
    wait_until("the new room", || site.retained().contains_key("maison/engine/load/availability"));
    site.change("room = \"engine\"", "room = \"load\"");
    site.reload();
    wait_until("all to be retained again", || of_load(&site) == all);
    assert!(!site.retained().keys().any(|topic| topic.starts_with("maison/engine/")), "{:?}", site.retained());
    // It goes altogether.
    site.change(LOAD, "");
    assert!(site.reload().contains("removed: load; 1 untouched"));
    wait_until("nothing to be retained", || of_load(&site).is_empty());
    // And it stays away, whatever came late.
    let seen = site.receiver.on("maison/uptime/seconds").len();
    wait_until("more of the others", || site.receiver.on("maison/uptime/seconds").len() > seen + 5);
    assert!(of_load(&site).is_empty());
    assert_eq!(site.connections(), 1, "{}", site.broker.log());
    assert_eq!(site.agent.terminate(), Exit::Code(0));
}

#[test]
fn a_reload_during_an_outage_loses_nothing_and_holds_afterwards() {
    let mut site = Site::start(FEW);
    site.wait_online(&[("uptime", "uptime"), ("load", "load")]);
    site.broker.stop();
    site.agent.wait_log("readings wait in the outbox");
    let waiting = |site: &Site| -> u64 {
        let args = ["outbox", "status", "--json", "--config", &site.gateway.config_file().display().to_string()];
        let output = command(&args, site.gateway.path()).output().expect("vigie starts");
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        status["waiting"].as_u64().expect("a number")
    };
    wait_until("a backlog", || waiting(&site) > 20);
    site.change(LOAD, "");
    site.change("name = \"uptime\"", "name = \"since-boot\"");
    assert!(site.reload().contains("added: since-boot; removed: load, uptime; 0 untouched"));
    assert!(waiting(&site) > 20, "the outbox is not touched");
    site.broker.start_again();
    // What the former sensors gave before is delivered as theirs, without a gap.
    wait_until("the new sensor", || {
        let last = site.receiver.on("maison/uptime/seconds");
        last.iter().any(|message| message.payload.contains("\"sensor\":\"since-boot\""))
    });
    wait_until("an empty outbox", || waiting(&site) < 3);
    let ids: Vec<(u64, u64)> = site
        .receiver
        .on("maison/uptime/seconds")
        .iter()
        .chain(&site.receiver.on("maison/load/one"))
        .chain(&site.receiver.on("maison/load/five"))
        .filter(|message| !message.payload.is_empty())
        .map(|message| {
            let json = message.json();
            let (run, seq) = json["id"].as_str().and_then(|id| id.split_once('-')).expect("an id");
            (run.parse().expect("a number"), seq.parse().expect("a number"))
        })
        .collect();
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    assert!(sorted.windows(2).all(|pair| pair[1].1 == pair[0].1 + 1), "none is missing, none came twice: {sorted:?}");
    wait_until("the retained topics to be cleared", || {
        let retained = site.retained();
        !retained.keys().any(|topic| topic.starts_with("maison/load/") || topic.contains("/uptime/availability"))
    });
    assert_eq!(site.agent.terminate(), Exit::Code(0));
}

#[test]
fn only_an_uplink_that_changes_connects_anew() {
    let other = Mosquitto::start();
    let at_other = Receiver::start(&other);
    let mut site = Site::start(FEW);
    site.wait_online(&[("uptime", "uptime"), ("load", "load")]);
    let table = format!("[uplink.other]\nurl = \"mqtt://localhost:{}\"\nclient_id = \"second\"\n", other.port());
    site.change("[uplink.home]", &format!("{table}[uplink.home]"));
    assert!(site.reload().ends_with("Uplinks: added: other; 1 untouched.\n"));
    wait_until("readings there", || !at_other.on("maison/load/one").is_empty());
    // It hides the names from now on: what it had published under them is taken back.
    site.change("client_id = \"second\"\n", "client_id = \"second\"\nqos = 2\nprivacy = { time_grain = \"1m\" }\n");
    assert!(site.reload().ends_with("Uplinks: connected anew: other; 1 untouched.\n"));
    wait_until("two connections", || other.log.count(" as second ") >= 2);
    wait_until("rounded times", || {
        at_other.on("maison/load/one").iter().any(|message| message.payload.contains(":00.000Z"))
    });
    let status = site.vigie("reload");
    assert!(text(&status.stdout).contains("Uplinks: 2 untouched"), "{status:?}");
    site.change(&format!("{table}qos = 2\nprivacy = {{ time_grain = \"1m\" }}\n"), "");
    assert!(site.reload().ends_with("Uplinks: removed: other; 1 untouched.\n"));
    wait_until("the farewell", || {
        at_other.on("maison/atelier/availability").last().is_some_and(|last| last.payload.contains("offline"))
    });
    let args = ["outbox", "status", "--config", &site.gateway.config_file().display().to_string()];
    let output = command(&args, site.gateway.path()).output().expect("vigie starts");
    assert!(!text(&output.stdout).contains("other"), "{output:?}");
    assert_eq!((site.connections(), other.log.count(" as second ")), (1, 2));
    assert_eq!(site.agent.terminate(), Exit::Code(0));
}

/// Reloads, and what is left of them. Debug builds, the allocator and threads that rest vary by hundreds of kilobytes.
#[test]
fn reloads_leave_nothing_behind_in_the_process() {
    let mut site = Site::start(FEW);
    site.wait_online(&[("uptime", "uptime"), ("load", "load")]);
    let resident = |site: &Site| -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", site.agent.pid())).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    let round = |site: &mut Site| {
        site.change("path = \"/proc/loadavg\"", "path = \"/proc/self/../loadavg\"");
        assert!(site.reload().contains("opened anew: load; 1 untouched"));
        site.change("path = \"/proc/self/../loadavg\"", "path = \"/proc/loadavg\"");
        site.change(LOAD, "");
        site.reload();
        site.tables.push_str(LOAD);
        site.gateway.configure(&site.tables);
        assert!(site.reload().contains("added: load; 1 untouched"));
    };
    for _ in 0..3 {
        round(&mut site);
    }
    let (before, memory) = (fixtures(&site.agent), resident(&site));
    for _ in 0..10 {
        round(&mut site);
    }
    let names = |all: &BTreeMap<String, String>| {
        let mut names: Vec<String> = all.values().cloned().collect();
        names.sort();
        names
    };
    let descriptors = before.0.len();
    wait_until("as many descriptors and pollers", || {
        let now = fixtures(&site.agent);
        now.0.len() == descriptors && names(&now.1) == names(&before.1)
    });
    let grown = resident(&site).saturating_sub(memory);
    assert!(grown < 4 * 1024, "{grown} kB more after 30 reloads");
    assert_eq!(site.connections(), 1, "{}", site.broker.log());
    assert_eq!(site.agent.terminate(), Exit::Code(0));
}
