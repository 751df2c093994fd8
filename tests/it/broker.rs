//! Prevents: an embedded broker that clients of others cannot use, that is open where it should not be, or that forgets
//! what it has acknowledged. The program as built, with mosquitto_pub and mosquitto_sub.

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};

use super::harness::{Agent, Exit, Gateway, Lines, free_port, wait_until};

mod crowd;
mod malformed;
#[path = "../../src/broker/tests/packets.rs"]
mod packets;
mod raw;
mod rights;

/// A gateway with users anna and eve (their passwords are their names), and a plain and a TLS listener.
struct Lan {
    gateway: Gateway,
    plain: u16,
    tls: u16,
}

impl Lan {
    fn new() -> Self {
        let lan = Self { gateway: Gateway::new(), plain: free_port(), tls: free_port() };
        let dir = lan.gateway.path().display().to_string();
        for user in ["anna", "eve"] {
            let said = lan.vigie(&["broker", "passwd", user, "--users", &format!("{dir}/users")], user);
            assert!(said.contains("has a password"), "{said}");
        }
        let said = lan.vigie(&["broker", "cert", "--dir", &format!("{dir}/tls"), "--name", "localhost"], "");
        assert!(said.contains("tls = {") && said.contains("ca.pem"), "{said}");
        lan.gateway.configure(&format!(
            "[hardware]\nbackend = \"sim\"\n\n\
             [broker]\nlisten = \"127.0.0.1:{}\"\nusers = \"users\"\npath = \"{dir}/broker\"\n\n\
             [[broker.listener]]\nlisten = \"127.0.0.1:{}\"\n\
             tls = {{ certificate = \"tls/server.pem\", key = \"tls/server.key\" }}\n\n\
             [broker.user.eve]\nread = [\"maison/#\", \"for/%u\"]\nwrite = [\"for/%u\"]\n\n\
             [[sensor]]\nname = \"meteo\"\nroom = \"salon\"\ndriver = \"bme280\"\nevery = \"50ms\"\n",
            lan.plain, lan.tls
        ));
        lan
    }

    fn vigie(&self, args: &[&str], input: &str) -> String {
        vigie(&self.gateway, args, input)
    }

    fn run(&self) -> Agent {
        let mut agent = self.gateway.run();
        agent.wait_log(&format!("mqtts://127.0.0.1:{}", self.tls));
        agent
    }

    fn client(&self, program: &str, version: &str, user: &str, over_tls: bool, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        let port = if over_tls { self.tls } else { self.plain };
        command.args(["-h", "localhost", "-p", &port.to_string(), "-V", version, "-u", user, "-P", user]);
        if over_tls {
            command.arg("--cafile").arg(self.gateway.path().join("tls/ca.pem"));
        }
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn publish(&self, version: &str, user: &str, over_tls: bool, args: &[&str]) -> bool {
        let output = self.client("mosquitto_pub", version, user, over_tls, args).output().expect("mosquitto_pub");
        output.status.success() && output.stderr.is_empty()
    }
}

/// Runs the program to its end; gives what it printed.
fn vigie(gateway: &Gateway, args: &[&str], input: &str) -> String {
    let mut child = super::harness::command(args, gateway.path()).stdin(Stdio::piped()).spawn().expect("vigie");
    writeln!(child.stdin.take().expect("a pipe was asked for"), "{input}").expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{args:?}: {text}");
    assert!(input.is_empty() || !text.contains("argon2"), "a hash is shown: {text}");
    text
}

/// A subscriber and what it has seen; ended when dropped.
pub(super) struct Subscriber(Child, pub(super) Lines);

impl Subscriber {
    pub(super) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("mosquitto_sub");
        let lines = Lines::default();
        lines.collect(child.stdout.take().expect("a pipe was asked for"));
        Self(child, lines)
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn users_reach_it_over_tcp_and_tls_in_both_versions_and_may_do_what_their_rules_say() {
    let lan = Lan::new();
    let mut agent = lan.run();
    for version in ["mqttv311", "mqttv5"] {
        for over_tls in [false, true] {
            // The gateway's own readings, which anna may read and nobody else may write.
            let args = ["-t", "maison/salon/temperature", "-C", "1", "-W", "300"];
            let output = lan.client("mosquitto_sub", version, "anna", over_tls, &args).output().expect("mosquitto_sub");
            assert!(String::from_utf8_lossy(&output.stdout).contains("\"value\""), "{output:?}");
            let forged = ["-t", "maison/salon/temperature", "-m", "99", "-q", "1"];
            let good = lan.publish(version, "anna", over_tls, &forged);
            assert!(!good, "{version}, TLS {over_tls}: a reading was forged");
            assert!(lan.publish(version, "eve", over_tls, &["-t", "for/eve", "-m", "x", "-q", "2"]));
            assert!(!lan.publish(version, "eve", over_tls, &["-t", "for/anna", "-m", "x", "-q", "1"]));
            assert!(!lan.publish(version, "nobody", over_tls, &["-t", "for/eve", "-m", "x", "-q", "1"]));
        }
    }
    agent.wait_log("login refused");
    agent.wait_log("message refused");
    assert_eq!(agent.terminate(), Exit::Code(0));
    let log = agent.log.text();
    assert!(!log.contains("argon2"), "{log}");
}

#[test]
fn what_it_acknowledged_is_there_after_sigkill() {
    let lan = Lan::new();
    let mut agent = lan.run();
    // A session that wants everything, and leaves.
    let session = ["-i", "absent", "-c", "-t", "for/#", "-q", "1", "-x", "3600"];
    let join = [&session[..], &["-E"]].concat();
    let status = lan.client("mosquitto_sub", "mqttv5", "anna", false, &join).status().expect("mosquitto_sub");
    assert!(status.success());
    for number in 0..20 {
        let text = number.to_string();
        assert!(lan.publish("mqttv311", "anna", false, &["-t", "for/all", "-m", &text, "-q", "1"]));
    }
    assert!(lan.publish("mqttv5", "anna", true, &["-t", "state", "-m", "kept", "-q", "1", "-r"]));
    agent.kill();
    let mut agent = lan.run();
    let subscriber = Subscriber::start(lan.client("mosquitto_sub", "mqttv5", "anna", true, &session));
    wait_until("all that waited", || subscriber.1.all().len() >= 20);
    let expected: Vec<String> = (0..20).map(|number: u8| number.to_string()).collect();
    assert_eq!(subscriber.1.all(), expected);
    let retained = lan
        .client("mosquitto_sub", "mqttv311", "anna", false, &["-t", "state", "-C", "1", "-W", "300"])
        .output()
        .expect("mosquitto_sub");
    assert_eq!(retained.stdout, b"kept\n");
    assert_eq!(agent.terminate(), Exit::Code(0));
}

#[test]
fn passwords_and_certificates_are_made_for_their_owner_alone_and_never_overwritten() {
    use std::os::unix::fs::MetadataExt;

    let lan = Lan::new();
    let mode = |name: &str| fs::metadata(lan.gateway.path().join(name)).expect("it was made").mode() & 0o777;
    for name in ["users", "tls/ca.key", "tls/server.key"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    let users = fs::read_to_string(lan.gateway.path().join("users")).expect("text");
    assert!(users.lines().all(|line| line.contains(":$argon2id$")), "{users}");
    let dir = lan.gateway.path().join("tls").display().to_string();
    let again =
        super::harness::command(&["broker", "cert", "--dir", &dir], lan.gateway.path()).output().expect("vigie");
    assert_eq!(again.status.code(), Some(1));
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(said.contains("is there already"), "{said}");
    let said = lan.vigie(&["broker", "cert", "--dir", &dir, "--client", "esp"], "");
    assert!(said.contains("client_ca"), "{said}");
}
