//! Prevents: a way to the broker that works in a unit test and not with real peers: WebSocket, proxy, interface.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::harness::{Agent, Authority, Exit, Gateway, Mosquitto, Proxy, Subscriber, free_port, wait_until};

/// A subscriber gets what the machine itself measures, by this uplink.
fn configure(gateway: &Gateway, uplink: &str) {
    gateway.configure(&format!(
        "[uplink.home]\n{uplink}\n\n[[sensor]]\nname = \"pi\"\nroom = \"atelier\"\ndriver = \"host\"\nevery = \"200ms\"\n"
    ));
}

/// So many readings arrive, state before them, and the end is an orderly one.
fn readings_pass(gateway: &Gateway, broker: &Mosquitto) -> Agent {
    let subscriber = Subscriber::start(broker, "server", 1);
    let mut agent = gateway.run();
    agent.wait_log("connected");
    let values = || subscriber.messages().iter().filter(|message| message.payload.contains("\"value\"")).count();
    wait_until("readings", || values() > 20);
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
    subscriber.wait("maison/atelier/availability", |message| message.payload.contains("shutdown"));
    agent
}

/// libwebsockets of Mosquitto 2.0.11 binds to an address only for IPv4 alone.
fn websockets(port: u16, more: &str) -> String {
    format!(
        "allow_anonymous true\n\nlistener {port} 127.0.0.1\nprotocol websockets\nsocket_domain ipv4\n\
         allow_anonymous true\n{more}"
    )
}

#[test]
fn readings_pass_over_a_websocket() {
    let port = free_port();
    let broker = Mosquitto::with(&websockets(port, ""));
    let gateway = Gateway::new();
    configure(&gateway, &format!("url = \"ws://127.0.0.1:{port}/mqtt\"\nqos = 2"));
    readings_pass(&gateway, &broker);
}

#[test]
fn readings_pass_over_a_websocket_with_tls() {
    let (gateway, port) = (Gateway::new(), free_port());
    let authority = Authority::new(gateway.path(), "authority");
    let server = authority.issue("localhost", 30);
    let (cert, key) = (server.cert.display(), server.key.display());
    let broker = Mosquitto::with(&websockets(port, &format!("certfile {cert}\nkeyfile {key}\n")));
    let ca = authority.cert();
    configure(&gateway, &format!("url = \"wss://127.0.0.1:{port}/mqtt\"\ntls = {{ ca = \"{}\" }}", ca.display()));
    readings_pass(&gateway, &broker);
}

#[test]
fn a_port_without_websocket_is_named() {
    let broker = Mosquitto::start();
    let gateway = Gateway::new();
    configure(&gateway, &format!("url = \"ws://127.0.0.1:{}/mqtt\"", broker.port()));
    let mut agent = gateway.run();
    agent.wait_log("is this a WebSocket's port?");
    assert!(!agent.log.text().contains(" connected"), "log:\n{}", agent.log.text());
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
}

/// Through a proxy with a password, TLS inside: nobody but the proxy knows where the broker is, and the certificate is
/// for another name.
#[test]
fn readings_pass_through_a_proxy() {
    let (gateway, tls_port) = (Gateway::new(), free_port());
    let authority = Authority::new(gateway.path(), "authority");
    let server = authority.issue("localhost", 30);
    let (ca, cert, key) = (authority.cert(), server.cert.display(), server.key.display());
    let broker = Mosquitto::with(&format!(
        "allow_anonymous true\n\nlistener {tls_port} 127.0.0.1\ncertfile {cert}\nkeyfile {key}\nallow_anonymous true\n"
    ));
    // "pi:open sesame"
    let proxy = Proxy::start("broker.invalid:8883", tls_port, "Basic cGk6b3BlbiBzZXNhbWU=");
    let password = gateway.path().join("proxy-password");
    fs::write(&password, "wrong\n").expect("a file");
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).expect("permissions");
    configure(
        &gateway,
        &format!(
            "url = \"mqtts://broker.invalid\"\ninterface = \"lo\"\n\
             tls = {{ ca = \"{}\", server_name = \"localhost\" }}\n\
             proxy = {{ url = \"http://127.0.0.1:{}\", username = \"pi\", password = {{ file = \"{}\" }} }}",
            ca.display(),
            proxy.port(),
            password.display()
        ),
    );
    let mut agent = gateway.run();
    agent.wait_log("the proxy wants a user name and password");
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
    fs::write(&password, "open sesame\n").expect("a file");
    let agent = readings_pass(&gateway, &broker);
    let requests = proxy.requests();
    assert!(requests.iter().all(|request| request == "CONNECT broker.invalid:8883 HTTP/1.1"), "{requests:?}");
    assert!(!agent.log.text().contains("sesame"), "the password is in the log");
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let broker = Mosquitto::start();
    let gateway = Gateway::new();
    configure(&gateway, &format!("url = \"mqtt://127.0.0.1:{}\"\ninterface = \"nosuch0\"", broker.port()));
    let mut agent = gateway.run();
    agent.wait_log("cannot connect through the network interface `nosuch0`: there is none of that name");
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
}
