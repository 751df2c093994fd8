//! Prevents: a first contact that fails. `vigie` without arguments must show something on any machine, print a line
//! that works when it is copied, and leave nothing behind.

use std::fs;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::harness::{Agent, Exit, Lines, wait_for, wait_until};

#[test]
fn the_printed_line_shows_messages_and_an_interrupt_ends_it() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let mut demo = Agent::start(&[], home.path());
    let line = wait_for("the line to copy", || demo.out.all().into_iter().find(|line| line.contains("mosquitto_sub")));
    assert!(demo.out.text().contains("mqtt://127.0.0.1:"), "the broker's address is shown:\n{}", demo.out.text());

    // As a user would: the line is copied into a shell.
    let mut look = Command::new("sh")
        .args(["-c", &format!("exec {}", line.trim())])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell starts");
    let seen = Lines::default();
    seen.collect(look.stdout.take().expect("a pipe was asked for"));
    for quantity in ["temperature", "humidity", "pressure"] {
        wait_until(&format!("a {quantity}"), || seen.count(&format!("/{quantity} {{")) > 0);
    }
    // What is printed is what is published, readably.
    wait_until("a printed reading", || demo.out.count("temperature") > 0);
    // The other line switches the lamp of the simulated Arduino, whose port is open by then.
    wait_until("a reading of the Arduino", || seen.count("/workshop/light {") > 0);
    let line = wait_for("the second line", || demo.out.all().into_iter().find(|line| line.contains("mosquitto_pub")));
    let sent = Command::new("sh").args(["-c", line.trim()]).status().expect("a shell starts");
    assert!(sent.success(), "{line}");
    wait_until("the lamp to be on", || seen.count("/workshop/led {") > 0 && seen.count("\"led\",\"value\":true") > 0);
    wait_until("the command's result", || {
        seen.count("/workshop/arduino/set/result {") > 0 && seen.count("\"ok\":true") > 0
    });
    let _ = look.kill();
    let _ = look.wait();

    demo.signal(Signal::INT);
    assert_eq!(demo.wait(), Exit::Code(0), "log:\n{}", demo.log.text());
    let left: Vec<_> = fs::read_dir(home.path()).expect("the folder is there").flatten().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}
