//! Prevents: a renewed certificate or password that is used only after a restart, and a half-written one that costs
//! the connection.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::harness::{Authority, Exit, Gateway, Mosquitto, Subscriber, free_port, wait_until};

fn configure(gateway: &Gateway, uplink: &str) {
    gateway.configure(&format!(
        "[uplink.home]\n{uplink}\n\n[[sensor]]\nname = \"pi\"\nroom = \"atelier\"\ndriver = \"host\"\nevery = \"200ms\"\n"
    ));
}

/// Replaces a file as those do who know how: in one step.
fn replace(path: &Path, content: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, content).expect("a file");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).expect("permissions");
    fs::rename(&new, path).expect("the file is replaced");
}

/// Readings come, beyond those that were there.
fn wait_readings(subscriber: &Subscriber) {
    let count = || subscriber.messages().iter().filter(|message| message.payload.contains("\"value\"")).count();
    let before = count();
    wait_until("further readings", || count() > before + 5);
}

#[test]
fn a_certificate_that_is_renewed_is_used_and_a_broken_one_is_not() {
    let (gateway, tls_port) = (Gateway::new(), free_port());
    let authority = Authority::new(gateway.path(), "authority");
    let server = authority.issue("localhost", 30);
    let broker = Mosquitto::with(&format!(
        "allow_anonymous true\n\nlistener {tls_port} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\n\
         require_certificate true\nallow_anonymous true\n",
        authority.cert().display(),
        server.cert.display(),
        server.key.display()
    ));
    let (first, renewed) = (authority.issue("gateway", 30), authority.issue("gateway", 60));
    let (cert, key) = (gateway.path().join("own.pem"), gateway.path().join("own.key"));
    let read = |path: &Path| fs::read(path).expect("a file of ours");
    replace(&cert, &read(&first.cert));
    replace(&key, &read(&first.key));
    configure(
        &gateway,
        &format!(
            "url = \"mqtts://localhost:{tls_port}\"\ntls = {{ ca = \"{}\", cert = \"{}\", key = \"{}\" }}",
            authority.cert().display(),
            cert.display(),
            key.display()
        ),
    );
    let subscriber = Subscriber::start(&broker, "server", 1);
    let mut agent = gateway.run();
    agent.wait_log("connected");
    let expiry = |subscriber: &Subscriber| {
        let info = subscriber.on("maison/atelier/info").last()?.json();
        info["certificates"]["home"]["expires"].as_str().map(str::to_owned)
    };
    wait_until("the expiry in the gateway's information", || expiry(&subscriber).is_some());
    let before = expiry(&subscriber);

    // The new certificate without its key: said once, and the connection stays.
    replace(&cert, &read(&renewed.cert));
    agent.wait_log("have changed, but cannot be used");
    assert!(agent.log.text().contains("does not belong to the certificate"), "log:\n{}", agent.log.text());
    assert_eq!(agent.log.count(" connected"), 1, "log:\n{}", agent.log.text());
    wait_readings(&subscriber);

    replace(&key, &read(&renewed.key));
    agent.wait_log("files for the connection have changed: it is made anew");
    agent.wait_log_times(" connected", 2);
    wait_readings(&subscriber);
    assert_eq!(agent.log.count("cannot be used"), 1, "log:\n{}", agent.log.text());
    // The server's certificate is the first to expire before and after.
    assert_eq!(expiry(&subscriber), before);
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
}

#[test]
fn a_password_that_is_changed_on_both_sides_is_used_without_a_restart() {
    let secrets = tempfile::tempdir().expect("a temporary folder");
    let passwords = secrets.path().join("passwords");
    let set = |password: &str| {
        let status =
            Command::new("mosquitto_passwd").arg("-c").arg("-b").arg(&passwords).args(["pi", password]).status();
        assert!(status.is_ok_and(|status| status.success()), "mosquitto_passwd works");
    };
    set("first");
    let guarded = free_port();
    let broker = Mosquitto::with(&format!(
        "allow_anonymous true\n\nlistener {guarded} 127.0.0.1\nallow_anonymous false\npassword_file {}\n",
        passwords.display()
    ));
    let gateway = Gateway::new();
    let file = gateway.path().join("password");
    replace(&file, b"first\n");
    let keys = format!("username = \"pi\"\npassword = {{ file = \"{}\" }}", file.display());
    configure(&gateway, &format!("url = \"mqtt://localhost:{guarded}\"\n{keys}"));
    let subscriber = Subscriber::start(&broker, "server", 1);
    let mut agent = gateway.run();
    agent.wait_log("connected");

    // The broker throws out whom its new file does not know.
    set("second");
    broker.reload();
    agent.wait_log("password is wrong");
    replace(&file, b"second\n");
    agent.wait_log_times(" connected", 2);
    wait_readings(&subscriber);
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
}
