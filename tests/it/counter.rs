//! Prevents: a meter that begins at zero after a crash, counts twice what it had counted, or writes to the card for it.

use super::harness::{Exit, Gateway, Mosquitto, Subscriber, command};

fn configure(gateway: &Gateway, broker: &Mosquitto, more: &str) {
    // 1 kHz on the simulated machine; looked at so rarely that nothing is published in between.
    gateway.configure(&format!(
        "[hardware]\nbackend = \"sim\"\n\n[uplink.home]\nurl = \"mqtt://localhost:{}\"\n\n\
         [[sensor]]\nname = \"water\"\nroom = \"cave\"\ndriver = \"pulse-counter\"\npin = 23\nevery = \"1h\"\n\
         pulses_per_unit = 10\nunit = \"l\"\n{more}\n",
        broker.port()
    ));
}

/// The count and the total that the run of that number, from 1 on, begins with. (What is delivered twice counts once.)
fn beginning(subscriber: &Subscriber, run: u64) -> (u64, f64) {
    let first = |quantity: &str| {
        let id = format!("\"id\":\"{run}-");
        let message = subscriber.wait(&format!("maison/cave/{quantity}"), |message| message.payload.contains(&id));
        message.json()["value"].as_f64().expect("a number")
    };
    let count = first("count");
    assert!(count >= 0.0 && count.fract() == 0.0, "{count}");
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number, as was seen")]
    let count = count as u64;
    (count, first("total"))
}

/// Waits until this many pulses are kept in the tail, whatever is published.
fn wait_kept(gateway: &Gateway, pulses: u64) {
    super::harness::wait_until("pulses to be kept", || kept(gateway).is_some_and(|count| count >= pulses));
}

/// The count that the tail keeps, as docs/outbox-format.md describes it: behind the last mention of the sensor's key
/// comes the length of the value (in a change, a 1 before it), the form 1, and the count.
fn kept(gateway: &Gateway) -> Option<u64> {
    let folders = std::fs::read_dir(gateway.path().join("tail")).ok()?;
    let files = folders.flatten().filter_map(|folder| std::fs::read_dir(folder.path()).ok()).flatten().flatten();
    let bytes: Vec<u8> = files.filter_map(|file| std::fs::read(file.path()).ok()).flatten().collect();
    let key = b"sensor/water";
    let at = bytes.windows(key.len()).rposition(|window| window == key)?;
    let value = &bytes[at + key.len()..];
    let value = value.get(if value.first() == Some(&1) { 2.. } else { 1.. })?;
    // What is just being written may end anywhere.
    assert_eq!(*value.first()?, 1, "the form");
    let (mut count, mut shift) = (0, 0);
    for byte in value.get(1..)? {
        count |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return Some(count);
        }
    }
    None
}

/// Is the total what was set at the first start and what was counted since?
fn is_right(count: u64, total: f64) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let counted = count as f64 / 10.0;
    (total - 1000.0 - counted).abs() < 1e-9
}

#[test]
fn what_was_counted_survives_a_kill_and_a_stop() {
    let broker = Mosquitto::start();
    let subscriber = Subscriber::start(&broker, "server", 1);
    let gateway = Gateway::new();
    configure(&gateway, &broker, "total = 1000");

    let mut agent = gateway.run();
    let (count, total) = beginning(&subscriber, 1);
    assert!(is_right(count, total), "{total} with {count}");
    wait_kept(&gateway, 100);
    agent.kill();
    let at_the_kill = kept(&gateway).expect("it was kept");

    let mut agent = gateway.run();
    let (count, total) = beginning(&subscriber, 2);
    assert!(count >= at_the_kill, "{count} after {at_the_kill}");
    assert!(is_right(count, total), "{total} with {count}: the total was set once");
    wait_kept(&gateway, count + 1000);
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());

    // After a clean stop it is on disk: a tmpfs would be empty after a reboot.
    std::fs::remove_dir_all(gateway.path().join("tail")).expect("the tail can be removed");
    configure(&gateway, &broker, "");
    let mut agent = gateway.run();
    let (after, total) = beginning(&subscriber, 3);
    assert!(after >= count + 1000, "{after} after {count}");
    assert!(is_right(after, total), "{total} with {after}");
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());

    // Looked at once, it is where it was left; and what is seen then is not counted.
    let args = ["once", "--config", &gateway.config_file().display().to_string()];
    let output = command(&args, gateway.path()).output().expect("vigie starts");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    let shown_count = shown.lines().find_map(|line| line.split_once(" count ")?.1.trim().parse::<u64>().ok());
    assert!(shown_count.is_some_and(|count| count >= after), "{after}:\n{shown}");

    // A sensor of another name begins at zero, and does not touch what the first one has.
    let text = std::fs::read_to_string(gateway.config_file()).expect("the configuration");
    std::fs::write(gateway.config_file(), text.replace("name = \"water\"", "name = \"rain\"")).expect("written");
    let mut agent = gateway.run();
    let (new, total) = beginning(&subscriber, 4);
    assert!(new < after && is_right(new, total + 1000.0), "{total} with {new}");
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
    configure(&gateway, &broker, "");
    let mut agent = gateway.run();
    let (back, _) = beginning(&subscriber, 5);
    assert!(back >= after, "{back} after {after}");
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
}
