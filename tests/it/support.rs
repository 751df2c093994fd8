//! Prevents: a text for others that has a password in it, or that lacks what is needed to help.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::harness::{Exit, Gateway, command, free_port};

/// Planted wherever a secret can stand.
const SECRET: &str = "hunter2-Zx9";

fn support(gateway: &Gateway, args: &[&str]) -> String {
    let config = gateway.config_file().display().to_string();
    let mut all = vec!["support", "--config", &config];
    all.extend_from_slice(args);
    let output = command(&all, gateway.path()).output().expect("vigie starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn it_says_how_it_stands_and_no_secret() {
    let gateway = Gateway::new();
    let secret = gateway.path().join("password");
    fs::write(&secret, format!("{SECRET}\n")).expect("a file");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("a mode");
    // What an error message, a topic or a label says by mistake is looked for as well.
    gateway.configure(&format!(
        "[uplink.home]\nurl = \"mqtt://localhost:{}\"\nusername = \"pi\"\npassword = {{ file = \"password\" }}\n\
         client_id = \"client-{SECRET}\"\n\
         [room.salon]\nlabel = \"Salon {SECRET}\"\n\
         [[sensor]]\nname = \"program\"\ndriver = \"exec\"\nenv = {{ WORD = \"{SECRET}-1\" }}\n\
         command = [\"/bin/sh\", \"-c\", \"sleep 600\", \"{SECRET}-2\"]\n",
        free_port()
    ));
    let mut agent = gateway.run();
    agent.wait_log("cannot connect");
    let said = support(&gateway, &[]);
    assert!(!said.contains(SECRET) && !said.contains("sleep 600"), "{said}");
    for part in [
        "=== vigie\nversion ",
        "commit: ",
        "=== machine\n",
        "kernel ",
        "=== clock\nclock    set: trust = \"always\"",
        "=== outbox\nagent ",
        " running, version ",
        "uplink home",
        "=== folders\n",
        "name = \"atelier\"",
        "command = [\"/bin/sh\", \"**",
        "password = { file = \"password\" }",
        "=== log\n",
    ] {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    assert_eq!(agent.terminate(), Exit::Code(0));

    let file = gateway.path().join("support.txt");
    let told = support(&gateway, &["--output", &file.display().to_string()]);
    assert!(told.contains("read it before"), "{told}");
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    let said = fs::read_to_string(&file).expect("a text");
    assert!(said.contains("not running") && !said.contains(SECRET), "{said}");
}

#[test]
fn a_wrong_configuration_is_told_without_its_passwords() {
    let gateway = Gateway::new();
    fs::write(
        gateway.config_file(),
        format!(
            "[uplink.home]\nurl = \"mqtt://pi:{SECRET}@broker\"\npassword = \"{SECRET}\"\n\
             [uplink.other]\nurl = \"wss://broker/mqtt?sig={SECRET}\"\nproxy = {{ password = '{SECRET}' }}\n\
             [outbox]\nkey = \"{SECRET}\"\n"
        ),
    )
    .expect("a file");
    let said = support(&gateway, &[]);
    assert!(said.contains("=== the configuration is wrong") && said.contains("[uplink.home]"), "{said}");
    assert!(!said.contains(SECRET), "{said}");
}
