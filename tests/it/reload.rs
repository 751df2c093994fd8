//! Prevents: a reload that touches what has not changed, one that half takes over a configuration, and one that leaves
//! something behind: on a broker, or in the process.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Output};

use super::harness::{Agent, Exit, Gateway, Message, Mosquitto, Receiver, command, wait_until};

mod stopped;
mod twenty;

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
    let ids = || -> Vec<u64> {
        let topics = ["maison/uptime/seconds", "maison/load/one", "maison/load/five"];
        let messages = topics.iter().flat_map(|topic| site.receiver.on(topic));
        let id = |message: Message| {
            let json = message.json();
            let (_, seq) = json["id"].as_str().and_then(|id| id.split_once('-')).expect("an id");
            seq.parse().expect("a number")
        };
        let mut ids: Vec<u64> = messages.filter(|message| !message.payload.is_empty()).map(id).collect();
        ids.sort_unstable();
        ids
    };
    assert!(ids().windows(2).all(|pair| pair[0] < pair[1]), "none came twice: {:?}", ids());
    wait_until("all that was taken, none missing and none twice", || {
        ids().windows(2).all(|pair| pair[1] == pair[0] + 1)
    });
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
    // What is on its way out, such as the command's connection, is counted with what is there.
    let (before, memory) = (descriptors(&site.agent).len(), resident(&site));
    for _ in 0..10 {
        round(&mut site);
    }
    wait_until("no more descriptors than before, and two pollers", || {
        let mut names: Vec<String> = pollers(&site.agent).into_values().collect();
        names.sort();
        descriptors(&site.agent).len() <= before && names == ["s:load", "s:uptime"]
    });
    let grown = resident(&site).saturating_sub(memory);
    assert!(grown < 4 * 1024, "{grown} kB more after 30 reloads");
    assert_eq!(site.connections(), 1, "{}", site.broker.log());
    assert_eq!(site.agent.terminate(), Exit::Code(0));
}

/// A program that takes commands, under this name and in a room of the same name.
fn obedient(name: &str) -> String {
    format!(
        "[[sensor]]\nname = \"{name}\"\nroom = \"{name}\"\ndriver = \"exec\"\n\
         command = [\"/bin/sh\", \"-c\", \"echo '{{}}'; while read line; do echo '{{\\\"taken\\\":1}}'; done\"]\n"
    )
}

#[test]
fn commands_follow_on_a_connection_that_stays_up() {
    const ACCEPTED: &str = "the broker has accepted the subscriptions";
    let mut site = Site::start(&format!("commands = true\n{}", obedient("one")));
    site.agent.wait_log_times(ACCEPTED, 1);
    site.agent.wait_log_times("started program=", 1);
    let publish = |site: &Site, sensor: &str| {
        let port = site.broker.port().to_string();
        let topic = format!("maison/{sensor}/{sensor}/set");
        let args = ["-h", "localhost", "-p", &port, "-t", &topic, "-m", "{}"];
        let status = Command::new("mosquitto_pub").args(args).status();
        assert!(status.is_ok_and(|status| status.success()), "mosquitto_pub reaches the broker");
    };
    let wait_done = |site: &Site, sensor: &str| {
        let topic = format!("maison/{sensor}/{sensor}/set/result");
        wait_until("a result", || site.receiver.on(&topic).iter().any(|result| result.json()["ok"] == true));
    };
    publish(&site, "one");
    wait_done(&site, "one");
    for (name, times) in [("two", 2), ("three", 3)] {
        if name == "three" {
            site.change(&obedient("one"), "");
            assert!(site.reload().contains("removed: one; 1 untouched. Uplinks: 1 untouched."));
        }
        site.tables.push_str(&obedient(name));
        site.gateway.configure(&site.tables);
        assert!(site.reload().contains(&format!("added: {name}; 1 untouched. Uplinks: 1 untouched.")));
        site.agent.wait_log_times(ACCEPTED, times);
        site.agent.wait_log_times("started program=", times);
    }
    // The broker has been told before that nobody wants these any more.
    publish(&site, "one");
    for name in ["two", "three"] {
        publish(&site, name);
        wait_done(&site, name);
    }
    assert_eq!(site.agent.log.count("takes no commands by is ignored"), 0, "log:\n{}", site.agent.log.text());
    assert_eq!(site.connections(), 1, "{}", site.broker.log());
    assert_eq!(site.agent.terminate(), Exit::Code(0));
}
