//! Prevents: a certificate or password that is wrong, and an agent that does not say what, hammers the broker, or must
//! be restarted after the mistake is mended.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::harness::{Authority, Door, Exit, Gateway, Mosquitto, Pair, Subscriber, free_port, wait_until};

/// A broker with a plain listener for the subscriber and a TLS listener for the agent.
struct Site {
    broker: Mosquitto,
    tls_port: u16,
    door: Door,
    gateway: Gateway,
    authority: Authority,
}

impl Site {
    /// The broker's certificate is valid for so many days; `rules` holds further lines for its TLS listener.
    fn new(days: i32, rules: &str) -> Self {
        let gateway = Gateway::new();
        let authority = Authority::new(gateway.path(), "authority");
        let tls_port = free_port();
        let server = authority.issue("localhost", days);
        let broker = Mosquitto::with(&listeners(tls_port, &authority, &server, rules));
        Self { broker, tls_port, door: Door::to(tls_port), gateway, authority }
    }

    /// The agent's configuration: TLS with these files, and further keys of the uplink.
    fn configure(&self, ca: &Path, client: &Pair, keys: &str) {
        self.gateway.configure(&format!(
            "[uplink.home]\nurl = \"mqtts://localhost:{}\"\nlive_first = false\n{keys}\n\
             tls = {{ ca = \"{}\", cert = \"{}\", key = \"{}\" }}\n\n\
             [[sensor]]\nname = \"pi\"\nroom = \"atelier\"\ndriver = \"host\"\nevery = \"1s\"\n",
            self.door.port(),
            ca.display(),
            client.cert.display(),
            client.key.display()
        ));
    }

    /// Runs the agent: it must complain with `words`, once, and not hammer the broker; then `mend` is called, and
    /// what was measured since the agent's start must arrive.
    fn fails_then_recovers(&mut self, words: &str, mend: impl FnOnce(&mut Self)) {
        let subscriber = Subscriber::start(&self.broker, "server", 1);
        let started = Instant::now();
        let mut agent = self.gateway.run();
        agent.wait_log(words);
        wait_until("three attempts", || self.door.count() >= 3);
        let (attempts, seconds) = (self.door.count(), started.elapsed().as_secs());
        // The first pause is at least a second, and so is each that follows; the first attempt costs none.
        assert!(attempts as u64 <= seconds + 2, "{attempts} attempts in {seconds} s: a busy loop");
        assert_eq!(agent.log.count(words), 1, "one complaint for one cause; log:\n{}", agent.log.text());
        assert!(subscriber.messages().is_empty(), "nothing passes: {:?}", subscriber.messages());

        mend(self);
        agent.wait_log("connected");
        let readings = |message: &&super::harness::Message| message.payload.contains("\"value\"");
        wait_until("readings", || subscriber.messages().iter().any(|message| readings(&message)));
        let messages = subscriber.messages();
        let first = messages.iter().find(readings).expect("the wait ended because there was one").json();
        let id = first["id"].as_str().expect("an id");
        assert!(id.ends_with("-0") || id.ends_with("-1"), "the first reading ever taken comes first, not {id}");
        assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
    }
}

fn listeners(tls_port: u16, authority: &Authority, server: &Pair, rules: &str) -> String {
    format!(
        "allow_anonymous true\n\nlistener {tls_port} 127.0.0.1\ncafile {}\ncertfile {}\nkeyfile {}\n\
         require_certificate true\n{rules}",
        authority.cert().display(),
        server.cert.display(),
        server.key.display()
    )
}

const ANYBODY: &str = "allow_anonymous true\n";

#[test]
fn readings_pass_with_certificates_on_both_sides() {
    let site = Site::new(30, ANYBODY);
    let client = site.authority.issue("gateway", 30);
    site.configure(&site.authority.cert(), &client, "");
    let subscriber = Subscriber::start(&site.broker, "server", 1);
    let mut agent = site.gateway.run();
    agent.wait_log("connected");
    wait_until("a reading", || subscriber.messages().iter().any(|message| message.payload.contains("\"value\"")));
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
}

#[test]
fn a_wrong_authority_is_named_and_mended_by_its_file() {
    let mut site = Site::new(30, ANYBODY);
    let client = site.authority.issue("gateway", 30);
    let other = Authority::new(site.gateway.path(), "other");
    let ca = site.gateway.path().join("ca.pem");
    fs::copy(other.cert(), &ca).expect("a copy");
    site.configure(&ca, &client, "");
    site.fails_then_recovers("authority that is not trusted", |site| {
        fs::copy(site.authority.cert(), &ca).expect("a copy");
    });
}

#[test]
fn an_expired_broker_certificate_is_named_and_mended_on_the_broker() {
    let mut site = Site::new(-1, ANYBODY);
    let client = site.authority.issue("gateway", 30);
    site.configure(&site.authority.cert(), &client, "");
    site.fails_then_recovers("the broker's certificate has expired", |site| {
        let server = site.authority.issue("localhost", 30);
        site.broker.set_extra(&listeners(site.tls_port, &site.authority, &server, ANYBODY));
        site.broker.stop();
        site.broker.start_again();
    });
}

#[test]
fn a_client_certificate_of_the_wrong_authority_is_named_and_mended_by_its_files() {
    let mut site = Site::new(30, ANYBODY);
    let other = Authority::new(site.gateway.path(), "other");
    let wrong = other.issue("gateway", 30);
    site.configure(&site.authority.cert(), &wrong, "");
    site.fails_then_recovers("does not accept our certificate", |site| {
        let right = site.authority.issue("gateway", 30);
        fs::copy(right.cert, &wrong.cert).expect("a copy");
        fs::copy(right.key, &wrong.key).expect("a copy");
    });
}

#[test]
fn a_wrong_password_is_named_and_mended_on_the_broker() {
    let secrets = tempfile::tempdir().expect("a temporary folder");
    let passwords = secrets.path().join("passwords");
    let set = |password: &str| {
        let status =
            Command::new("mosquitto_passwd").arg("-c").arg("-b").arg(&passwords).args(["pi", password]).status();
        assert!(status.is_ok_and(|status| status.success()), "mosquitto_passwd works");
    };
    set("another");
    let rules = format!("allow_anonymous false\npassword_file {}\n", passwords.display());
    let mut site = Site::new(30, &rules);
    let client = site.authority.issue("gateway", 30);
    let file = site.gateway.path().join("password");
    fs::write(&file, "s3cret-passphrase\n").expect("a file");
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("permissions");
    let keys = format!("username = \"pi\"\npassword = {{ file = \"{}\" }}", file.display());
    site.configure(&site.authority.cert(), &client, &keys);
    site.fails_then_recovers("password", |site| {
        set("s3cret-passphrase");
        site.broker.stop();
        site.broker.start_again();
    });
}
