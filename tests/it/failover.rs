//! Prevents: an agent that stays with a dead broker although another is there, that stays with the spare one although
//! the first is back, or that loses, mixes up or needlessly doubles readings on the way between them.
//!
//! At QoS 2, because Mosquitto may hand a message on twice at QoS 1 when it is stopped, and a session that one broker
//! has kept would swallow messages at QoS 2 if it were taken for another's.

use std::collections::BTreeSet;

use super::harness::{Exit, Gateway, Message, Mosquitto, Port, Receiver, mark_number, wait_until};

/// Messages that may wait for their acknowledgement.
const WINDOW: usize = 10;

/// The marks in the order in which they arrived for the first time, and how many arrived again.
fn marks(receiver: &Receiver) -> (Vec<u32>, usize) {
    let mark = |message: Message| {
        let json = message.json();
        // What the broker had kept is not a delivery.
        (!message.retained).then(|| mark_number(json["value"].as_str()?.as_bytes())).flatten()
    };
    let all: Vec<u32> = receiver.on("maison/salle/mark").into_iter().filter_map(mark).collect();
    let mut seen = BTreeSet::new();
    let first: Vec<u32> = all.iter().copied().filter(|mark| seen.insert(*mark)).collect();
    let again = all.len() - first.len();
    (first, again)
}

#[test]
fn readings_go_to_the_next_broker_and_back_to_the_first() {
    let (mut one, two) = (Mosquitto::start(), Mosquitto::start());
    let (at_one, at_two) = (Receiver::start(&one), Receiver::start(&two));
    let mut port = Port::open();
    let gateway = Gateway::new();
    gateway.configure(&format!(
        "[uplink.home]\nurl = [\"mqtt://localhost:{}\", \"mqtt://localhost:{}\"]\nfailback = \"1s\"\n\
         qos = 2\ninflight = {WINDOW}\nlive_first = false\n\n\
         [[sensor]]\nname = \"arduino\"\nroom = \"salle\"\ndriver = \"serial-json\"\nport = \"{}\"\n",
        one.port(),
        two.port(),
        port.path().display()
    ));
    let mut agent = gateway.run();
    agent.wait_log("connected");
    let first = port.send_until_taken(&gateway);
    let arrived = |receiver: &Receiver, mark: u32| marks(receiver).0.contains(&mark);
    wait_until("readings at the first", || arrived(&at_one, first));

    // Lines keep coming while the first goes away.
    let next = port.next();
    port.send(200);
    wait_until("some of them at the first", || arrived(&at_one, next));
    one.stop();
    port.send(50);
    let connected = |agent: &super::harness::Agent, port: u16| {
        agent.log.all().iter().filter(|line| line.contains("connected") && line.contains(&format!(":{port}"))).count()
    };
    wait_until("the second", || connected(&agent, two.port()) > 0);
    wait_until("readings at the second", || arrived(&at_two, port.next() - 1));

    one.start_again();
    port.send(50);
    agent.wait_log("the first broker answers: back to it");
    port.send(50);
    wait_until("the first again", || connected(&agent, one.port()) > 1);
    let last = port.next();
    port.send(1);
    wait_until("readings at the first again", || arrived(&at_one, last));

    let ((in_one, again_one), (in_two, again_two)) = (marks(&at_one), marks(&at_two));
    let missing: Vec<u32> = (first..=last).filter(|mark| !in_one.contains(mark) && !in_two.contains(mark)).collect();
    assert!(missing.is_empty(), "taken but not delivered: {missing:?}");
    for (name, order) in [("first", &in_one), ("second", &in_two)] {
        assert!(order.is_sorted(), "{name}: out of order: {order:?}");
    }
    // What was in flight when the first went away may be in both, and nothing else: the way back is an orderly one.
    let both = in_one.iter().filter(|mark| in_two.contains(mark)).count();
    assert_eq!((again_one, again_two), (0, 0), "doubled at one broker");
    assert!(both <= WINDOW, "{both} at both brokers");

    // What the first still kept of the session before is not taken for ours.
    assert_eq!(agent.log.count("a session that this outbox does not know"), 1, "log:\n{}", agent.log.text());
    let said = |receiver: &Receiver, topic: &str| receiver.on(topic).last().map(Message::json);
    let farewell = said(&at_two, "maison/atelier/availability").expect("a farewell");
    assert_eq!((&farewell["state"], &farewell["reason"]), (&"offline".into(), &"reconnecting".into()));
    let here = format!("mqtt://localhost:{}", one.port());
    wait_until("the URL in the gateway's information", || {
        said(&at_one, "maison/atelier/info").is_some_and(|info| info["brokers"]["home"] == here.as_str())
    });
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
}
