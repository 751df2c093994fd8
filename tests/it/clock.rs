//! Prevents: not knowing whether the agent knows the time, a time that is set where a better word counts, and samples that
//! are off the multiples which `align` promises. What needs a clock that is not set is shown in a machine of our own
//! (`tests/lab/clock`).

use std::process::Output;

use super::harness::{Gateway, Mosquitto, Subscriber, command, free_port};

fn clock(gateway: &Gateway, args: &[&str]) -> (Option<i32>, String) {
    let config = gateway.config_file().display().to_string();
    let args = [&["clock"], args, &["--config", &config]].concat();
    let Output { status, stdout, stderr } = command(&args, gateway.path()).output().expect("vigie starts");
    let said = [stdout, stderr].concat();
    (status.code(), String::from_utf8(said).expect("UTF-8"))
}

#[test]
fn the_clock_is_told_and_a_worse_word_is_refused() {
    let gateway = Gateway::new();
    gateway.configure(&format!("[uplink.away]\nurl = \"mqtt://localhost:{}\"\n", free_port()));
    let (code, said) = clock(&gateway, &[]);
    assert!(code == Some(1) && said.contains("no agent runs"), "{said}");

    let mut agent = gateway.run();
    agent.wait_log("vigie starts");
    let status = || Some(clock(&gateway, &[])).filter(|(code, _)| *code == Some(0));
    let (_, said) = super::harness::wait_for("the control socket", status);
    assert!(said.contains("trust = \"always\" in [clock]") && said.contains("uptime"), "{said}");
    let (code, said) = clock(&gateway, &["set", "+1h"]);
    assert!(code == Some(1) && said.contains("set the machine's clock (`date -s`)"), "{said}");
    let (code, said) = clock(&gateway, &["set", "noon"]);
    assert!(code == Some(2) && said.contains("`noon` is not a date"), "{said}");
}

#[test]
fn aligned_samples_are_on_multiples() {
    let broker = Mosquitto::start();
    let subscriber = Subscriber::start(&broker, "server", 1);
    let gateway = Gateway::new();
    gateway.configure(&format!(
        "[uplink.home]\nurl = \"mqtt://localhost:{}\"\n\n[room.lab]\nalign = true\nevery = \"500ms\"\n\n\
         [[sensor]]\nname = \"load\"\nroom = \"lab\"\ndriver = \"file\"\npath = \"/proc/uptime\"\npattern = '^(?<up>\\S+)'\n",
        broker.port(),
    ));
    let _agent = gateway.run();
    let mut found = Vec::new();
    super::harness::wait_until("samples", || {
        found = subscriber.on("maison/lab/up");
        found.len() >= 10
    });
    let past: Vec<u32> = found
        .iter()
        .map(|message| {
            let json: serde_json::Value = serde_json::from_str(&message.payload).expect("JSON");
            let time = json["time"].as_str().expect("a time").to_owned();
            time[20..23].parse::<u32>().expect("milliseconds") % 500
        })
        .collect();
    // A busy machine makes some late. Of samples without alignment, one in ten would be so near.
    let near = past.iter().filter(|past| **past < 50).count();
    assert!(near * 2 > past.len(), "milliseconds past a multiple: {past:?}");
}
