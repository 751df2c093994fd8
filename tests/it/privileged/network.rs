//! Prevents: a bad line that costs readings, or that nobody notices.
//!
//! The agent and Mosquitto run on machines of their own (network namespaces) with a cable between them that loses
//! packets, carries little or goes dead, in one direction or both. The receiver sits beside the broker.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::super::harness::{Agent, Exit, Gateway, Mosquitto, Net, Port, Receiver, Way, mark_number, wait_until};

/// Seconds between two looks whether a silent broker is still there.
const KEEP_ALIVE: u32 = 4;

/// A gateway on one machine, a broker and a receiver on the other.
struct Site {
    net: Net,
    receiver: Receiver,
    /// Marks that were received, and how often.
    received: BTreeMap<u32, usize>,
    /// They arrived in this order.
    order: Vec<u32>,
    port: Port,
    first: u32,
    gateway: Gateway,
    agent: Agent,
    broker: Mosquitto,
}

impl Site {
    /// Everything is connected, and a first reading has arrived.
    fn start(qos: u8) -> Self {
        let net = Net::new();
        let broker = net.broker();
        let receiver = Receiver::start(&broker);
        let mut port = Port::open();
        let gateway = Gateway::new();
        gateway.configure(&format!(
            "[uplink.home]\nurl = \"{}\"\nqos = {qos}\nkeep_alive = \"{KEEP_ALIVE}s\"\n\n\
             [[sensor]]\nname = \"arduino\"\nroom = \"salle\"\ndriver = \"serial-json\"\nport = \"{}\"\n",
            net.url(),
            port.path().display()
        ));
        let mut agent = net.run(&gateway);
        agent.wait_log("connected");
        let first = port.send_until_taken(&gateway);
        let (received, order) = (BTreeMap::new(), Vec::new());
        let mut site = Self { net, receiver, received, order, port, first, gateway, agent, broker };
        site.wait_all_received();
        site
    }

    fn look(&mut self) {
        for message in self.receiver.take() {
            if message.topic == "maison/salle/mark" {
                let mark = mark_number(message.json()["value"].as_str().expect("a text").as_bytes()).expect("a mark");
                *self.received.entry(mark).or_default() += 1;
                self.order.push(mark);
            }
        }
    }

    /// Waits until every line has arrived. The agent is never killed here, so what was written is taken, from the
    /// first line on that was.
    #[track_caller]
    fn wait_all_received(&mut self) {
        let all: BTreeSet<u32> = (self.first..self.port.next()).collect();
        wait_until(&format!("marks {}..{}", self.first, self.port.next()), || {
            self.look();
            all.iter().all(|mark| self.received.contains_key(mark))
        });
    }

    /// Sends lines on, waits for all of them, and ends. Gives how many arrived more than once.
    fn end(mut self) -> usize {
        self.port.send(20);
        self.wait_all_received();
        assert_eq!(self.agent.terminate(), Exit::Code(0), "log:\n{}", self.agent.log.text());
        self.look();
        self.received.values().map(|times| times - 1).sum()
    }
}

#[test]
fn on_a_line_that_loses_every_third_packet_nothing_is_lost_or_doubled() {
    let mut site = Site::start(2);
    site.net.lose(Way::Both, 30);
    for _ in 0..5 {
        site.port.send(20);
        site.wait_all_received();
    }
    assert!(site.net.lost(Way::Both) > 5, "the line did lose packets");
    assert_eq!(site.end(), 0, "doubled at QoS 2");
}

/// The line goes dead without a word. `received` and `sent` are what the kernel still believes in.
fn goes_dead(way: Way, qos: u8) -> usize {
    let mut site = Site::start(qos);
    site.net.lose(way, 100);
    // Some of them are on their way when the line is found dead, the others wait.
    site.port.send(150);
    site.agent.wait_log("the broker was silent for ");
    let log = site.agent.log.all();
    let line = log.iter().find(|line| line.contains("was silent for")).expect("it was waited for");
    let seconds = line.split("silent for ").nth(1).and_then(|rest| rest.split('.').next());
    let seconds: u32 = seconds.and_then(|text| text.parse().ok()).expect("seconds");
    // One and a half intervals, and not before; a busy machine may take long to wake up.
    assert!(seconds >= KEEP_ALIVE * 3 / 2, "{line}");
    assert!(site.net.lost(way) > 0);
    site.port.wait_all_taken(&site.gateway);
    site.net.heal(way);
    site.wait_all_received();
    site.end()
}

#[test]
fn a_dead_line_is_found_and_nothing_is_doubled_at_qos_2() {
    assert_eq!(goes_dead(Way::Both, 2), 0);
}

#[test]
fn a_line_that_is_dead_towards_the_broker_is_found() {
    assert_eq!(goes_dead(Way::ToBroker, 2), 0);
}

#[test]
fn a_line_that_is_dead_towards_us_is_found() {
    // What arrived unacknowledged is sent again: at QoS 1 at most a window (the default).
    assert!(goes_dead(Way::ToAgent, 1) <= 100);
}

/// Readings that wait, and how many of them may arrive before one that was measured meanwhile. It goes before all that
/// is not sent yet; what a busy machine's agent sends before it looks at its sensor is allowed for.
const BACKLOG: usize = 100;
const MOST_BEFORE: usize = 45;

/// How old a reading must be to be backlog, not live.
const LIVE_WITHIN: Duration = Duration::from_secs(5);

#[test]
fn at_a_kilobyte_a_second_everything_arrives_and_the_latest_first() {
    let mut site = Site::start(1);
    site.broker.stop();
    site.agent.wait_log("(readings wait in the outbox");
    site.port.send(BACKLOG);
    site.port.wait_all_taken(&site.gateway);
    let (newest, taken) = (site.port.next() - 1, Instant::now());
    wait_until("the readings to be backlog", || taken.elapsed() > LIVE_WITHIN);
    site.net.narrow(8_000);
    let delivered = site.order.len();
    site.broker.start_again();
    site.agent.wait_log_times("connected", 2);
    wait_until("the backlog to come", || {
        site.look();
        site.order.len() > delivered + 3
    });
    site.port.send(1);
    let (live, before) = (newest + 1, site.order.len());
    site.wait_all_received();
    let place = site.order.iter().position(|mark| *mark == live).expect("it arrived") - before;
    assert!(place <= MOST_BEFORE, "{place} of the backlog arrived before it: {:?}", site.order);
    assert!(site.order.len() - before > place + MOST_BEFORE, "the backlog was still waiting: {:?}", site.order);
    site.end();
}
