//! Prevents: programs that outlive the agent, take it with them when they go wild, or learn its secrets; and pictures that
//! arrive as something else.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::Signal;

use super::harness::{Agent, Exit, Gateway, Mosquitto, Subscriber, command, wait_for, wait_until};

fn uplink(broker: &Mosquitto, keys: &str) -> String {
    format!("[uplink.home]\nurl = \"mqtt://localhost:{}\"\n{keys}\n", broker.port())
}

/// A sensor that runs a shell script.
fn script(gateway: &Gateway, name: &str, text: &str, keys: &str) -> String {
    let path = gateway.path().join(format!("{name}.sh"));
    fs::write(&path, text).expect("a script");
    sensor(name, &["/bin/sh", &path.display().to_string()], keys)
}

fn sensor(name: &str, command: &[&str], keys: &str) -> String {
    format!("[[sensor]]\nname = \"{name}\"\nroom = \"{name}\"\ndriver = \"exec\"\ncommand = {command:?}\n{keys}\n")
}

fn availability(watch: &Subscriber, sensor: &str) -> Vec<String> {
    watch.on(&format!("maison/{sensor}/{sensor}/availability")).into_iter().map(|message| message.payload).collect()
}

/// Is there such a process, other than one that has ended and that nobody has asked for?
fn lives(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The processes whose ids a script has written, once there are so many.
fn pids(path: &Path, count: usize) -> Vec<String> {
    wait_for("the script's processes", || {
        let text = fs::read_to_string(path).unwrap_or_default();
        let pids: Vec<String> = text.lines().map(str::to_owned).collect();
        (pids.len() >= count && text.ends_with('\n')).then_some(pids)
    })
}

#[track_caller]
fn wait_gone(pids: &[String]) {
    wait_until(&format!("the end of {pids:?}"), || pids.iter().all(|pid| !lives(pid)));
}

/// Starts a child in the background, one in a session of its own, and one that does not listen to SIGTERM.
fn family(gateway: &Gateway) -> (String, PathBuf) {
    let list = gateway.path().join("pids");
    let text = format!(
        "list={}\n\
         sleep 1000 & echo $! >> $list\n\
         setsid sh -c 'echo $$ >> '$list'; exec sleep 1000' &\n\
         sh -c 'trap \"\" TERM; echo $$ >> '$list'; while :; do sleep 1; done' &\n\
         echo $$ >> $list\n\
         while :; do echo '{{\"a\":1}}'; sleep 0.1; done\n",
        list.display()
    );
    (script(gateway, "family", &text, ""), list)
}

#[test]
fn what_a_program_says_arrives() {
    let (broker, gateway) = (Mosquitto::start(), Gateway::new());
    let watch = Subscriber::start(&broker, "watch", 1);
    let text = "echo 'starting up' >&2\n\
                echo '{\"temp\":{\"value\":21.5,\"unit\":\"°C\"},\"dot\":{\"base64\":\"aGk=\",\"content_type\":\"text/plain\"}}'\n\
                read -r line\n";
    let told = "echo '{\"fault\":\"too cold\"}'; read -r line\n";
    let sensors = [
        script(&gateway, "good", text, ""),
        script(&gateway, "told", told, ""),
        script(&gateway, "one", "echo '{\"b\":2}'\n", "mode = \"once\"\nevery = \"100ms\""),
        script(&gateway, "bad", "echo '{\"b\":2}'; echo 'no such sensor' >&2; exit 3\n", "mode = \"once\""),
        script(&gateway, "slow", "sleep 1000\n", "mode = \"once\"\ndeadline = \"200ms\""),
        sensor("missing", &["/no/such/program"], ""),
    ];
    gateway.configure(&(uplink(&broker, "") + &sensors.concat()));
    let mut agent = gateway.run();
    wait_until("the reading", || !watch.on("maison/good/temp").is_empty() && !watch.on("maison/good/dot").is_empty());
    let reading = watch.on("maison/good/temp")[0].json();
    assert_eq!((reading["value"].as_f64(), reading["unit"].as_str()), (Some(21.5), Some("°C")));
    assert_eq!(watch.on("maison/good/dot")[0].payload, "hi");
    wait_until("several runs", || watch.on("maison/one/b").len() > 2);
    for (sensor, part) in [
        ("told", "\"too cold\""),
        ("bad", "ended with status 3; its last line on standard error: no such sensor"),
        ("slow", "ran longer than 200ms"),
        ("missing", "`/no/such/program` is not there"),
    ] {
        wait_until(sensor, || availability(&watch, sensor).iter().any(|state| state.contains(part)));
    }
    assert!(watch.on("maison/bad/b").is_empty(), "what a run printed that failed does not count");
    agent.wait_log("it says: starting up");
    assert_eq!(agent.terminate(), Exit::Code(0));
}

#[test]
fn a_program_that_ends_is_started_again() {
    let (broker, gateway) = (Mosquitto::start(), Gateway::new());
    let watch = Subscriber::start(&broker, "watch", 1);
    let runs = gateway.path().join("runs");
    let text = format!("date +%s.%N >> {}; echo '{{\"a\":1}}'; echo 'lost it' >&2; exit 7\n", runs.display());
    let sensors = script(&gateway, "again", &text, "");
    gateway.configure(&(uplink(&broker, "") + &sensors));
    let mut agent = gateway.run();
    wait_until("the fourth start", || fs::read_to_string(&runs).unwrap_or_default().lines().count() >= 4);
    assert_eq!(agent.terminate(), Exit::Code(0));
    let text = fs::read_to_string(&runs).expect("the file is there");
    let times: Vec<f64> = text.lines().map(|line| line.parse().expect("a time")).collect();
    let pauses: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // What a loaded machine makes longer it makes no shorter.
    assert!(pauses.iter().zip([0.9, 1.9, 3.9]).all(|(pause, least)| *pause > least), "{pauses:?}");
    let states = availability(&watch, "again");
    assert!(
        states.iter().any(|state| state.contains("ended") && state.contains("status 7") && state.contains("lost it"))
    );
}

#[test]
fn nothing_is_left_of_a_program() {
    for how in [Signal::TERM, Signal::KILL] {
        let gateway = Gateway::new();
        let (sensors, list) = family(&gateway);
        gateway.configure(&format!("[uplink.home]\nurl = \"mqtt://localhost:1\"\n{sensors}"));
        let mut agent = gateway.run();
        let pids = pids(&list, 4);
        assert!(pids.iter().all(|pid| lives(pid)), "{pids:?}");
        agent.signal(how);
        agent.wait();
        wait_gone(&pids);
    }
}

#[test]
fn a_pause_ends_the_program_and_its_end_starts_it_again() {
    let gateway = Gateway::new();
    let (sensors, list) = family(&gateway);
    gateway.configure(&format!("[uplink.home]\nurl = \"mqtt://localhost:1\"\n{sensors}"));
    let mut agent = gateway.run();
    let first = pids(&list, 4);
    let config = gateway.config_file().display().to_string();
    let ask = |words: &[&str]| {
        let status = command(&[words, &["--config", &config]].concat(), gateway.path()).status();
        assert!(status.is_ok_and(|status| status.success()), "{words:?}");
    };
    ask(&["pause", "family", "1h"]);
    wait_gone(&first);
    ask(&["resume", "family"]);
    let all = pids(&list, 8);
    assert_eq!(agent.terminate(), Exit::Code(0));
    wait_gone(&all);
}

#[test]
fn what_a_program_leaves_behind_is_ended_before_it_is_started_again() {
    let gateway = Gateway::new();
    let list = gateway.path().join("pids");
    let text = format!("setsid sleep 1000 & echo $! >> {}; exit 1\n", list.display());
    let sensors = script(&gateway, "leaver", &text, "");
    gateway.configure(&format!("[uplink.home]\nurl = \"mqtt://localhost:1\"\n{sensors}"));
    let agent = gateway.run();
    let pids = pids(&list, 3);
    wait_gone(&pids[..2]);
    drop(agent);
}

#[test]
fn the_environment_is_clean() {
    let gateway = Gateway::new();
    let text = "env | sort | tr '\\n' ' ' | sed 's/.*/{\"env\":\"&\"}/'\n";
    let sensors = script(
        &gateway,
        "env",
        text,
        "mode = \"once\"\ndeadline = \"1m\"\nenv = { OWN = \"yes\", LANG = \"fr_FR.UTF-8\" }",
    );
    gateway.configure(&format!("[uplink.home]\nurl = \"mqtt://localhost:1\"\n{sensors}"));
    let config = gateway.config_file().display().to_string();
    let output = command(&["once", "--config", &config], gateway.path())
        .env("SECRET", "hidden")
        .env("LISTEN_FDS", "1")
        .env("NOTIFY_SOCKET", "/nowhere")
        .env("CREDENTIALS_DIRECTORY", "/nowhere")
        .env("TZ", "Europe/Paris")
        .stderr(Stdio::null())
        .output()
        .expect("vigie runs");
    let table = String::from_utf8_lossy(&output.stdout);
    for part in ["OWN=yes", "LANG=fr_FR.UTF-8", "VIGIE_SENSOR=env", "TZ=Europe/Paris", "PATH=/usr/local"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    for part in ["SECRET", "LISTEN", "NOTIFY", "CREDENTIALS", "RUST"] {
        assert!(!table.contains(part), "{part}: {table}");
    }
}

/// Bytes of memory that a process uses.
fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a live process");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[test]
fn programs_that_go_wild_are_borne() {
    let (broker, gateway) = (Mosquitto::start(), Gateway::new());
    let watch = Subscriber::start(&broker, "watch", 0);
    let sensors = [
        sensor("flood", &["yes", "{\"a\":1}"], ""),
        sensor("noise", &["cat", "/dev/urandom"], ""),
        // Not one line: there is nothing to say of it, and nothing is kept of it.
        sensor("endless", &["cat", "/dev/zero"], ""),
        sensor("talk", &["sh", "-c", "yes 'and another thing' >&2"], ""),
        sensor("much", &["cat", "/dev/zero"], "mode = \"once\"\nevery = \"1s\""),
        script(&gateway, "calm", "while :; do echo '{\"a\":1}'; sleep 0.1; done\n", ""),
    ];
    gateway.configure(&(uplink(&broker, "qos = 0\n") + &sensors.concat()));
    let start = Instant::now();
    let mut agent = gateway.run();
    agent.wait_log("it is made to wait");
    wait_until("noise", || availability(&watch, "noise").iter().any(|state| state.contains("bad-data")));
    wait_until("much", || availability(&watch, "much").iter().any(|state| state.contains("printed more than")));
    let before = watch.on("maison/calm/a").len();
    wait_until("the calm one goes on", || watch.on("maison/calm/a").len() > before + 20);
    assert!(memory(agent.pid()) < 150_000_000, "{}", memory(agent.pid()));
    let most = 21 * (start.elapsed().as_secs() / 10 + 2);
    assert!(agent.log.count("and another thing") as u64 <= most, "the log is not flooded");
    assert_eq!(agent.terminate(), Exit::Code(0));
}

/// Bytes of a picture: no part of it is like another one.
fn picture(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String grows");
        text
    })
}

#[test]
fn a_picture_arrives_byte_for_byte_even_late_and_in_both_forms() {
    let (mut broker, gateway) = (Mosquitto::start(), Gateway::new());
    let watch = Subscriber::showing(&broker, "watch", 1, &["-V", "5"], "%C %x");
    let bytes = picture(500_000);
    let path = gateway.path().join("picture.jpg");
    fs::write(&path, &bytes).expect("a picture");
    let file = format!(
        "[[sensor]]\nname = \"file\"\nroom = \"file\"\ndriver = \"file\"\npath = \"{}\"\ncontent_type = \"image/jpeg\"\n",
        path.display()
    );
    let once = sensor(
        "shot",
        &["cat", &path.display().to_string()],
        "mode = \"once\"\nevery = \"1h\"\ncontent_type = \"image/jpeg\"\n",
    );
    let second = uplink(&broker, "mqtt = \"5\"\nbytes = \"base64\"\nclient_id = \"other\"\nsensors = [\"file\"]")
        .replace("home", "other");
    gateway.configure(&(uplink(&broker, "mqtt = \"5\"\n") + &second + &file + &once));
    broker.stop();
    let mut agent = gateway.run();
    // Both pictures are taken and on disk when the agent is killed.
    wait_until("the pictures on disk", || {
        let files = fs::read_dir(gateway.path().join("outbox")).into_iter().flatten().flatten();
        files.filter(|file| holds(&file.path(), &bytes[..64])).count() > 0
    });
    agent.kill();
    broker.start_again();
    let mut agent = gateway.run();
    let expected = format!("image/jpeg {}", hex(&bytes));
    for topic in ["maison/file/value", "maison/shot/value"] {
        wait_until(topic, || watch.on(topic).iter().any(|message| message.payload == expected));
    }
    wait_until("the other form", || {
        watch
            .on("maison/file/value")
            .iter()
            .any(|message| message.payload.starts_with(&format!(" {}", hex(b"{\"id\""))))
    });
    let messages = watch.on("maison/file/value");
    let json = messages.iter().find(|message| message.payload.starts_with(' ')).expect("it is there");
    let text = data_encoding::HEXLOWER.decode(json.payload.trim().as_bytes()).expect("hexadecimal");
    let json: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(json["content_type"], "image/jpeg");
    assert_eq!(json["value"].as_str(), Some(data_encoding::BASE64.encode(&bytes).as_str()));
    assert_eq!(agent.terminate(), Exit::Code(0));
}

fn holds(path: &Path, part: &[u8]) -> bool {
    fs::read(path).is_ok_and(|bytes| bytes.windows(part.len()).any(|window| window == part))
}

/// The programs of `deploy/examples/exec`, with the configuration that lies beside them.
#[test]
fn the_examples_work() {
    let (broker, gateway) = (Mosquitto::start(), Gateway::new());
    let watch = Subscriber::start(&broker, "watch", 1);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples/exec");
    let sensors = fs::read_to_string(folder.join("sensors.toml")).expect("the example is there");
    let sensors = sensors.replace("/usr/local/lib/vigie", &folder.display().to_string()).replace("/var/lib/vigie", "/");
    gateway.configure(&(uplink(&broker, "commands = true\n") + &sensors));
    let mut agent: Agent = gateway.run();
    for (topic, unit) in
        [("maison/load", None), ("maison/free", Some("MiB")), ("maison/used", Some("%")), ("maison/uptime", Some("s"))]
    {
        wait_until(topic, || !watch.on(topic).is_empty());
        assert_eq!(watch.on(topic)[0].json()["unit"].as_str(), unit, "{topic}");
    }
    let results = || watch.messages().into_iter().filter(|message| message.topic.ends_with("/set/result"));
    let port = broker.port().to_string();
    for (payload, ok) in [("{\"interval\":0.2}", true), ("{\"interval\":-1}", false)] {
        let before = results().count();
        let status = Command::new("mosquitto_pub")
            .args(["-p", &port, "-t", "maison/load/set", "-q", "1", "-m", payload])
            .status();
        assert!(status.is_ok_and(|status| status.success()));
        let result = wait_for("the result", || results().nth(before)).json();
        assert_eq!(result["ok"].as_bool(), Some(ok), "{result}");
        assert!(ok || result["error"].as_str().is_some_and(|why| why.contains("0.1 to 3600")), "{result}");
    }
    let before = watch.on("maison/load").len();
    wait_until("the interval to be obeyed", || watch.on("maison/load").len() > before + 10);
    assert_eq!(agent.terminate(), Exit::Code(0));
}
