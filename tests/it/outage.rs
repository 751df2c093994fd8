//! Prevents: readings that wait in memory alone while the broker is away, so that a power cut loses all of them.

use super::harness::{Gateway, Mosquitto, Port, Subscriber, wait_until};

#[test]
fn what_the_broker_does_not_take_goes_to_disk_although_it_did_before() {
    let mut broker = Mosquitto::start();
    let subscriber = Subscriber::start(&broker, "server", 1);
    let mut port = Port::open();
    let gateway = Gateway::new();
    gateway.configure(&format!(
        "[uplink.home]\nurl = \"mqtt://localhost:{}\"\n\n\
         [[sensor]]\nname = \"arduino\"\nroom = \"salle\"\ndriver = \"serial-json\"\nport = \"{}\"\n",
        broker.port(),
        port.path().display()
    ));
    let mut agent = gateway.run();
    agent.wait_log("connected");
    // From here on the session of the uplink waits to be written within minutes; records must not wait for that.
    let first = port.send_until_taken(&gateway);
    subscriber.wait("maison/salle/mark", |message| message.payload.contains(&format!("{first:08}")));

    broker.stop();
    agent.wait_log("cannot connect");
    let before = port.next();
    port.send(20);
    wait_until("the readings to be on disk", || {
        let marks = gateway.marks_on_disk();
        (before..port.next()).all(|mark| marks.contains(&mark))
    });
}
