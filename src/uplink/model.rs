//! The session against a simple broker, with connections lost and the agent killed at any point. The broker of MQTT 5
//! also limits what is under way, differently on each connection, and refuses some messages.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use crate::clock::{BootId, BootTime};
use crate::config::{PayloadShape, Qos};
use crate::outbox::Seq;

use super::packet::{Incoming, Limits, Reason};
use super::saved::{self, Origin, Saved};
use super::session::{Outcome, Resend, Session};

const NOW: BootTime = BootTime(0);
const ORIGIN: Origin = Origin { peer: 0, boot: BootId([0; 16]), run: 1 };
const LIMIT: u16 = 4;
const MESSAGES: Seq = 30;

#[derive(Clone, Copy, Debug)]
enum ToBroker {
    Publish { id: u16, seq: Seq, qos: Qos, dup: bool },
    Release(u16),
}

/// A broker that keeps to the specification.
#[derive(Default)]
struct Broker {
    has_session: bool,
    /// Positions that it refuses for good.
    refused: BTreeSet<Seq>,
    /// QoS 2: taken, not yet released.
    unreleased: BTreeMap<u16, Seq>,
    deliveries: Vec<Seq>,
}

impl Broker {
    fn take(&mut self, packet: ToBroker) -> Incoming {
        match packet {
            ToBroker::Publish { id, seq, qos, .. } if self.refused.contains(&seq) => {
                if qos == Qos::ExactlyOnce {
                    Incoming::PubRec(id, Reason::QUOTA_EXCEEDED)
                } else {
                    Incoming::PubAck(id, Reason::QUOTA_EXCEEDED)
                }
            }
            ToBroker::Publish { id, seq, qos: Qos::ExactlyOnce, .. } => {
                if let Some(held) = self.unreleased.insert(id, seq) {
                    assert_eq!(held, seq, "packet id {id} stands for two messages: one of them would be lost");
                } else {
                    self.deliveries.push(seq);
                }
                Incoming::PubRec(id, Reason::SUCCESS)
            }
            ToBroker::Publish { id, seq, .. } => {
                self.deliveries.push(seq);
                Incoming::PubAck(id, Reason::SUCCESS)
            }
            ToBroker::Release(id) => {
                self.unreleased.remove(&id);
                Incoming::PubComp(id, Reason::SUCCESS)
            }
        }
    }
}

/// The agent: session and outbox, of which only what was committed survives a kill.
struct Agent {
    session: Session,
    acked: BTreeSet<Seq>,
    next: Seq,
    refused: BTreeSet<Seq>,
    /// Encoded, not yet on the wire.
    output: Vec<ToBroker>,
    committed: (Vec<u8>, BTreeSet<Seq>, Seq),
    qos: Qos,
}

impl Agent {
    fn new(qos: Qos) -> Self {
        let session = Session::new(LIMIT);
        let committed = (saved::save(&session, ORIGIN, true, false), BTreeSet::new(), 0);
        Self { session, acked: BTreeSet::new(), refused: BTreeSet::new(), next: 0, output: Vec::new(), committed, qos }
    }

    fn fill(&mut self) {
        while let Some(resend) = self.session.next_resend() {
            self.session.resent();
            self.output.push(match resend {
                Resend::Publish { message, dup } => {
                    ToBroker::Publish { id: message.id, seq: message.seqs.start, qos: message.qos, dup }
                }
                Resend::Release(id) => ToBroker::Release(id),
            });
        }
        while self.session.free() > 0 && self.next < MESSAGES {
            let (id, seq) = (self.session.next_id(), self.next);
            self.session.sent(seq..seq + 1, PayloadShape::Quantity, self.qos, false, NOW);
            self.output.push(ToBroker::Publish { id, seq, qos: self.qos, dup: false });
            self.next += 1;
        }
    }

    fn handle(&mut self, packet: Incoming) {
        match self.session.handle(packet, NOW) {
            Outcome::Acked(seqs) => self.acked.extend(seqs),
            Outcome::Release(id) => self.output.push(ToBroker::Release(id)),
            Outcome::Refused(message, _) => {
                self.refused.extend(message.seqs.clone());
                self.acked.extend(message.seqs);
            }
            Outcome::StatusAcked | Outcome::StatusRefused(_) | Outcome::Ignored => {}
        }
    }

    fn commit(&mut self) {
        self.committed = (saved::save(&self.session, ORIGIN, true, false), self.acked.clone(), self.next);
    }

    fn killed(&mut self) {
        let (session, acked, next) = self.committed.clone();
        self.session = Saved::restore(&session, LIMIT).expect("as saved").session;
        (self.acked, self.next) = (acked, next);
        self.output.clear();
    }
}

struct World {
    agent: Agent,
    broker: Broker,
    up: bool,
    to_broker: VecDeque<ToBroker>,
    to_agent: VecDeque<Incoming>,
    losses: usize,
    /// The limits of the connections, one after the other, over and over.
    maxima: Vec<u16>,
    connections: usize,
    /// Packet ids that were written on this connection and wait for their acknowledgement.
    outstanding: BTreeSet<u16>,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// So many packets arrive at the broker.
    Broker(u8),
    /// So many packets arrive at the agent, which then fills, commits and writes.
    Agent(u8),
    /// The same, but the agent is killed before its commit.
    KilledBeforeCommit(u8),
    /// The same, but the agent is killed after its commit, before it writes.
    KilledBeforeWrite(u8),
    /// The same, but the agent is killed after it wrote.
    KilledAfterWrite(u8),
    /// The connection is lost with all that is under way.
    Lost,
    /// An acknowledgement comes again.
    Stray(u16, u8),
    /// The broker is restarted without its memory.
    BrokerForgets,
}

impl World {
    fn maximum(&self) -> u16 {
        self.maxima[self.connections % self.maxima.len()]
    }

    fn connect(&mut self) {
        if !self.up {
            let limits = Limits { receive_maximum: self.maximum(), ..Limits::default() };
            self.agent.session.set_limits(LIMIT, &limits);
            self.agent.session.connected(self.broker.has_session, 0, NOW);
            self.broker.has_session = true;
            self.up = true;
        }
    }

    fn lose(&mut self) {
        if self.up {
            self.up = false;
            self.losses += 1;
            self.connections += 1;
            self.outstanding.clear();
            self.agent.session.disconnected(false);
            self.agent.output.clear();
            self.to_broker.clear();
            self.to_agent.clear();
        }
    }

    fn kill(&mut self) {
        self.lose();
        self.agent.killed();
    }

    fn turn(&mut self, packets: u8) {
        self.connect();
        for _ in 0..packets {
            if let Some(packet) = self.to_agent.pop_front() {
                match &packet {
                    Incoming::PubRec(_, reason) if !reason.is_refusal() => {}
                    Incoming::PubAck(id, _) | Incoming::PubRec(id, _) | Incoming::PubComp(id, _) => {
                        self.outstanding.remove(id);
                    }
                    _ => {}
                }
                self.agent.handle(packet);
            }
        }
        self.agent.fill();
    }

    fn write(&mut self) {
        for packet in &self.agent.output {
            if let ToBroker::Publish { id, .. } = packet {
                self.outstanding.insert(*id);
            }
        }
        assert!(self.outstanding.len() <= usize::from(self.maximum()), "more than the broker takes");
        self.to_broker.extend(self.agent.output.drain(..));
    }

    fn serve(&mut self, packets: u8) {
        for _ in 0..packets {
            if let Some(packet) = self.to_broker.pop_front() {
                let answer = self.broker.take(packet);
                self.to_agent.push_back(answer);
            }
        }
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Broker(packets) => self.serve(packets),
            Event::Agent(packets) => {
                self.turn(packets);
                self.agent.commit();
                self.write();
            }
            Event::KilledBeforeCommit(packets) => {
                self.turn(packets);
                self.kill();
            }
            Event::KilledBeforeWrite(packets) => {
                self.turn(packets);
                self.agent.commit();
                self.kill();
            }
            Event::KilledAfterWrite(packets) => {
                self.turn(packets);
                self.agent.commit();
                self.write();
                self.serve(packets);
                self.kill();
            }
            Event::Lost => self.lose(),
            Event::Stray(id, kind) => {
                // Only of the kind that this session never waits for, or for ids that are not in use: a broker that
                // acknowledges what it did not take cannot be seen through.
                let packet = match (self.agent.qos, kind % 2) {
                    (Qos::ExactlyOnce, _) => Incoming::PubAck(id, Reason::SUCCESS),
                    (_, 0) => Incoming::PubRec(id, Reason::SUCCESS),
                    _ => Incoming::PubComp(id, Reason::SUCCESS),
                };
                self.agent.handle(packet);
            }
            Event::BrokerForgets => {
                self.lose();
                self.broker.has_session = false;
                self.broker.unreleased.clear();
            }
        }
    }

    /// Nothing is lost any more: all that is left must get through.
    fn finish(&mut self) {
        for _ in 0..4 * MESSAGES {
            self.step(Event::Agent(100));
            self.serve(100);
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..4_u8).prop_map(Event::Broker),
        6 => (0..4_u8).prop_map(Event::Agent),
        1 => (0..4_u8).prop_map(Event::KilledBeforeCommit),
        1 => (0..4_u8).prop_map(Event::KilledBeforeWrite),
        1 => (0..4_u8).prop_map(Event::KilledAfterWrite),
        2 => Just(Event::Lost),
        1 => (0..20_u16, any::<u8>()).prop_map(|(id, kind)| Event::Stray(id, kind)),
    ]
}

fn run(qos: Qos, events: Vec<Event>) -> World {
    run_with(qos, events, vec![u16::MAX], BTreeSet::new())
}

fn run_with(qos: Qos, events: Vec<Event>, maxima: Vec<u16>, refused: BTreeSet<Seq>) -> World {
    let mut world = World {
        agent: Agent::new(qos),
        broker: Broker { refused, ..Broker::default() },
        maxima,
        connections: 0,
        outstanding: BTreeSet::new(),
        up: false,
        to_broker: VecDeque::new(),
        to_agent: VecDeque::new(),
        losses: 0,
    };
    for event in events {
        world.step(event);
    }
    world.finish();
    world
}

fn first_deliveries(deliveries: &[Seq]) -> Vec<Seq> {
    let mut seen = BTreeSet::new();
    deliveries.iter().copied().filter(|seq| seen.insert(*seq)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn qos_2_is_exactly_once_and_in_order(events in proptest::collection::vec(event(), 0..150)) {
        let world = run(Qos::ExactlyOnce, events);
        prop_assert_eq!(&world.broker.deliveries, &(0..MESSAGES).collect::<Vec<_>>());
        prop_assert_eq!(world.agent.acked.len() as u64, MESSAGES);
        prop_assert!(!world.agent.session.is_waiting());
        prop_assert!(world.broker.unreleased.is_empty());
    }

    #[test]
    fn qos_1_is_at_least_once_with_at_most_a_window_of_duplicates_a_loss(
        events in proptest::collection::vec(event(), 0..150)
    ) {
        let world = run(Qos::AtLeastOnce, events);
        let deliveries = &world.broker.deliveries;
        prop_assert_eq!(first_deliveries(deliveries), (0..MESSAGES).collect::<Vec<_>>());
        let duplicates = deliveries.len() - usize::try_from(MESSAGES).expect("few");
        prop_assert!(duplicates <= world.losses * usize::from(LIMIT), "{duplicates} in {} losses", world.losses);
        prop_assert!(!world.agent.session.is_waiting());
    }

    #[test]
    fn in_mqtt_5_limits_are_kept_to_and_refusals_end_a_message(
        events in proptest::collection::vec(event(), 0..150),
        maxima in proptest::collection::vec(1..6_u16, 1..6),
        refused in proptest::collection::btree_set(0..MESSAGES, 0..8),
        twice: bool,
    ) {
        let qos = if twice { Qos::ExactlyOnce } else { Qos::AtLeastOnce };
        let world = run_with(qos, events, maxima, refused.clone());
        let expected: Vec<Seq> = (0..MESSAGES).filter(|seq| !refused.contains(seq)).collect();
        let deliveries = &world.broker.deliveries;
        prop_assert_eq!(&first_deliveries(deliveries), &expected);
        if twice {
            prop_assert_eq!(deliveries, &expected);
        }
        prop_assert_eq!(&world.agent.refused, &refused);
        prop_assert_eq!(world.agent.acked.len() as u64, MESSAGES);
        prop_assert!(!world.agent.session.is_waiting());
    }

    #[test]
    fn a_broker_that_forgets_gets_everything_at_least_once(
        events in proptest::collection::vec(prop_oneof![12 => event(), 1 => Just(Event::BrokerForgets)], 0..150),
        twice: bool,
    ) {
        let world = run(if twice { Qos::ExactlyOnce } else { Qos::AtLeastOnce }, events);
        prop_assert_eq!(first_deliveries(&world.broker.deliveries), (0..MESSAGES).collect::<Vec<_>>());
        prop_assert!(!world.agent.session.is_waiting());
    }
}

#[test]
fn a_replay_says_that_it_is_one() {
    let mut world = run(Qos::AtLeastOnce, vec![]);
    world.agent.next = 0;
    world.step(Event::Agent(0));
    world.step(Event::Lost);
    world.turn(0);
    let dups: Vec<bool> = world.agent.output.iter().map(|p| matches!(p, ToBroker::Publish { dup: true, .. })).collect();
    assert_eq!(dups, [true; LIMIT as usize]);
}
