//! The embedded broker and what LANs have: Eclipse Paho for Python and for C, and mqtt.js in a browser.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use data_encoding::BASE64;

use crate::it::harness::{Agent, Exit, Gateway, Lines, Script, command, free_port, wait_until};

/// A gateway that nobody needs a name for, with a listener of each kind.
struct House {
    gateway: Gateway,
    plain: u16,
    tls: u16,
    websocket: u16,
    secure: u16,
}

impl House {
    fn new() -> Self {
        let house = Self {
            gateway: Gateway::new(),
            plain: free_port(),
            tls: free_port(),
            websocket: free_port(),
            secure: free_port(),
        };
        let dir = house.gateway.path().display().to_string();
        let cert = ["broker", "cert", "--dir", &format!("{dir}/tls"), "--name", "localhost"];
        let made = command(&cert, house.gateway.path()).output().expect("vigie");
        assert!(made.status.success(), "{made:?}");
        let listener = |port: u16, more: &str| format!("[[broker.listener]]\nlisten = \"127.0.0.1:{port}\"\n{more}\n");
        let tls = "tls = { certificate = \"tls/server.pem\", key = \"tls/server.key\" }\n";
        house.gateway.configure(&format!(
            "[broker]\nlisten = \"127.0.0.1:{}\"\npath = \"{dir}/broker\"\n\n{}{}{}",
            house.plain,
            listener(house.tls, tls),
            listener(house.websocket, "websocket = true\n"),
            listener(house.secure, &format!("websocket = true\n{tls}")),
        ));
        house
    }

    fn certs(&self) -> PathBuf {
        self.gateway.path().join("tls")
    }

    /// The SHA-256 of its server's public key, as browsers want it (RFC 7469, 2.4).
    fn key(&self) -> String {
        let certificate = self.certs().join("server.pem");
        let output = Command::new("openssl")
            .args(["x509", "-pubkey", "-noout", "-in"])
            .arg(certificate)
            .output()
            .expect("openssl is installed");
        let text = String::from_utf8(output.stdout).expect("PEM is ASCII");
        let base64: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
        let key = BASE64.decode(base64.as_bytes()).expect("PEM");
        BASE64.encode(ring::digest::digest(&ring::digest::SHA256, &key).as_ref())
    }

    fn run(&self) -> Agent {
        let mut agent = self.gateway.run();
        agent.wait_log(&format!("wss://127.0.0.1:{}", self.secure));
        agent
    }

    /// Runs the gateway for as long as a script talks to it, and ends it as often and in the way that the script says.
    fn serve(&self, mut script: Script) -> Lines {
        let mut agent = self.run();
        let mut read = 0;
        loop {
            let line = script.line(read);
            read += 1;
            match line.as_str() {
                "restart" => assert_eq!(agent.terminate(), Exit::Code(0)),
                "kill" => agent.kill(),
                "done" => break,
                _ => continue,
            }
            agent = self.run();
        }
        eprintln!("{}", script.lines.text());
        assert_eq!(agent.terminate(), Exit::Code(0));
        script.lines.clone()
    }
}

#[test]
fn paho_in_every_way_with_3_1_1() {
    let house = House::new();
    house.serve(Script::start("broker_paho.py", &[&house.plain.to_string(), "4"]));
}

#[test]
fn paho_in_every_way_with_5() {
    let house = House::new();
    house.serve(Script::start("broker_paho.py", &[&house.plain.to_string(), "5"]));
}

#[test]
fn mqtt_js_in_a_browser_over_both_kinds_of_websocket() {
    let house = House::new();
    let library = std::env::var("INTEROP_MQTT_JS").expect("INTEROP_MQTT_JS is set: tests/interop/run does so");
    let urls = [format!("ws://127.0.0.1:{}", house.websocket), format!("wss://localhost:{}", house.secure)];
    let script = Script::start("browser.py", &[&library, &house.key(), &urls[0], &urls[1]]);
    let said = house.serve(script);
    assert_eq!(said.count("after a kill"), 4, "both URLs, both versions");
}

/// Runs one of Paho's programs in C to its end.
fn paho_c(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).stdin(Stdio::null()).output().expect("paho.mqtt.c-examples is installed")
}

#[test]
fn paho_in_c_over_every_kind_of_listener() {
    let house = House::new();
    let mut agent = house.run();
    let ca = house.certs().join("ca.pem").display().to_string();
    let urls = [
        format!("tcp://127.0.0.1:{}", house.plain),
        format!("ssl://localhost:{}", house.tls),
        format!("ws://127.0.0.1:{}", house.websocket),
        format!("wss://localhost:{}", house.secure),
    ];
    for url in &urls {
        for version in ["311", "5"] {
            let scheme = url.split(':').next().expect("a scheme");
            let topic = format!("c/{scheme}/{version}");
            let to = ["-c", url, "-V", version, "--cafile", &ca, "-t", &topic];
            let publish = |id: &str, payload: &str, qos: &str, more: &[&str]| {
                let args = [&to[..], &["-i", id, "-m", payload, "-q", qos], more].concat();
                let output = paho_c("paho_cs_pub", &args);
                assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
            };
            let mut child = Command::new("paho_cs_sub")
                .args([&to[..], &["-i", "c-sub", "-q", "2"]].concat())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .expect("paho.mqtt.c-examples is installed");
            let lines = Lines::default();
            lines.collect(child.stdout.take().expect("a pipe was asked for"));
            publish("c-kept", "retained", "1", &["--retained"]);
            wait_until(&format!("{topic}: the subscription"), || lines.count("retained") > 0);
            for qos in ["0", "1", "2"] {
                publish("c-pub", &format!("quality {qos}"), qos, &[]);
                wait_until(&format!("{topic}: {qos}"), || lines.count(&format!("quality {qos}")) > 0);
            }
            let expected = ["retained", "quality 0", "quality 1", "quality 2"];
            assert_eq!(lines.all(), expected, "{topic}");
            child.kill().expect("it runs");
            child.wait().expect("it was killed");
        }
    }
    assert_eq!(agent.terminate(), Exit::Code(0));
}
