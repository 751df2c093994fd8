//! Prevents: a stop that hangs, exits with an error, or loses what was taken.

use rustix::process::Signal;

use super::harness::{Exit, Gateway, Mosquitto, Port, Subscriber};

fn configure(gateway: &Gateway, broker: &Mosquitto, port: &Port) {
    gateway.configure(&format!(
        "[uplink.home]\nurl = \"mqtt://localhost:{}\"\n\n\
         [[sensor]]\nname = \"arduino\"\nroom = \"salle\"\ndriver = \"serial-json\"\nport = \"{}\"\n",
        broker.port(),
        port.path().display()
    ));
}

/// Stops the agent with `signal` right after it took lines, with the broker there or away; all of them must arrive, at
/// once or with the next run.
fn stop(signal: Signal, broker_there: bool) {
    let mut broker = Mosquitto::start();
    let subscriber = Subscriber::start(&broker, "server", 1);
    let mut port = Port::open();
    let gateway = Gateway::new();
    configure(&gateway, &broker, &port);
    let mut agent = gateway.run();
    agent.wait_log("connected");
    let first = port.send_until_taken(&gateway);
    if !broker_there {
        broker.stop();
    }
    port.send(100);
    port.wait_all_taken(&gateway);
    let last = port.next() - 1;
    agent.signal(signal);
    assert_eq!(agent.wait(), Exit::Code(0), "log:\n{}", agent.log.text());

    if !broker_there {
        broker.start_again();
    }
    let _next = gateway.run();
    for mark in first..=last {
        let text = format!("\"mark-{mark:08}\"");
        subscriber.wait("maison/salle/mark", |message| message.payload.contains(&text));
    }
}

#[test]
fn sigterm_while_connected() {
    stop(Signal::TERM, true);
}

#[test]
fn sigterm_while_the_broker_is_away() {
    stop(Signal::TERM, false);
}

#[test]
fn sigint_while_connected() {
    stop(Signal::INT, true);
}
