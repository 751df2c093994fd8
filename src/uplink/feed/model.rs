//! Outbox, feed and session together against a simple model: crashes and power cuts at any point, operations of the disk
//! and the tail that fail, lost connections, acknowledgements that are lost, reordered or repeated, and a broker that
//! forgets its session.
//!
//! What must hold: everything taken is delivered; nothing is delivered that was not taken; QoS 2 delivers once, and
//! QoS 1 at most a window more for each loss, as long as the broker keeps its session and the tail its content. Where several
//! readings are one message, a packet id stands for the same ones each time that it is sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::BytesMut;
use proptest::prelude::*;
use rumqttc::mqttbytes::v4::Packet;

use crate::clock::{BootId, Clock, ManualClock};
use crate::config::{Batch, Commands, Field, Format, Payload, Qos, UplinkConfig};
use crate::outbox::simulated::{Fault, Simulated};
use crate::outbox::{Body, Outbox, Raw, Recovery, Settings};
use crate::reading::{Descriptor, Kind, Quantity, Value};
use crate::uplink::packet::{Accepted, Incoming, Limits, Reason};
use crate::uplink::scripted::{config, gateway};
use crate::uplink::status::Info;
use crate::uplink::{Hub, LIVE_WITHIN};

use super::{Feed, Fill, Output};

use broker::Broker;

mod broker;

const WINDOW: u16 = 4;
const FLUSH: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
enum Step {
    /// So many records are taken.
    Take(u8),
    /// The agent fills, commits, and writes so many thousandths of its output.
    Turn(u16),
    /// The same, but it is killed before the commit, or after it and before the write, or after the write.
    Killed(u8),
    /// So many packets reach the broker.
    Broker(u8),
    /// So many answers reach the agent.
    Answers(u8),
    /// The answers under way change places.
    Reorder(u8),
    /// The connection is lost with everything under way; was it the broker that closed it?
    Lost(bool),
    /// An answer to nothing.
    Stray(u8, u16),
    /// A connection is made.
    Connect,
    /// The broker restarts without its memory.
    Forget,
    /// Everything is flushed, as far as the disk takes it.
    Flush,
    Wait(u16),
    /// The power goes; the seed says what of the unsynced sectors survives.
    PowerCut(u64),
    /// Operations of tail or disk fail, after so many, so many times.
    Fail(bool, u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..6_u8).prop_map(Step::Take),
        12 => (0..1_500_u16).prop_map(Step::Turn),
        2 => (0..3_u8).prop_map(Step::Killed),
        10 => (1..8_u8).prop_map(Step::Broker),
        10 => (1..8_u8).prop_map(Step::Answers),
        2 => any::<u8>().prop_map(Step::Reorder),
        3 => any::<bool>().prop_map(Step::Lost),
        1 => (any::<u8>(), any::<u16>()).prop_map(|(kind, id)| Step::Stray(kind, id)),
        6 => Just(Step::Connect),
        1 => Just(Step::Forget),
        4 => Just(Step::Flush),
        3 => (1..8_000_u16).prop_map(Step::Wait),
        1 => any::<u64>().prop_map(Step::PowerCut),
        1 => (any::<bool>(), 0..10_u64, 1..3_u64).prop_map(|(tail, after, times)| Step::Fail(tail, after, times)),
    ]
}

fn raw(number: u32) -> Body {
    Body::Raw(Raw { topic: "t".into(), payload: number.to_string().into_bytes().into(), retain: false })
}

/// A record of one or two values, which go to one topic.
fn reading(numbers: &[u32]) -> Body {
    let quantity = |name: &str| Quantity { topic: Some("t".into()), ..Quantity::new(name, None, Kind::Number) };
    let descriptor = Descriptor {
        gateway: "atelier".into(),
        sensor: "meteo".into(),
        quantities: vec![quantity("a"), quantity("b")],
        ..Descriptor::default()
    };
    let values = (0..).zip(numbers.iter().map(|number| Value::number(f64::from(*number)).expect("finite"))).collect();
    Body::Reading { descriptor: descriptor.into(), values }
}

#[derive(Default)]
struct Connection {
    output: Output,
    to_broker: BytesMut,
    to_agent: VecDeque<Incoming>,
}

struct World {
    disk: Simulated,
    clock: Arc<ManualClock>,
    boots: u8,
    config: UplinkConfig,
    agent: Option<(Rc<Hub>, Feed)>,
    connection: Option<Connection>,
    broker: Broker,
    next: u32,
    /// Committed, and delivered for sure in the end.
    taken: BTreeSet<u32>,
    /// Committed, but lost if the power goes.
    unflushed: BTreeSet<u32>,
    /// Committed, and perhaps lost.
    perhaps: BTreeSet<u32>,
    /// Connections lost and kills: each may double a window at QoS 1.
    losses: usize,
    /// The broker's session and ours may not fit together any more, or acknowledgements be lost that were on no disk yet:
    /// then QoS 2 may double, and QoS 1 more than a window.
    parted: bool,
    /// The tail or the disk has failed since the last crash.
    faulty: bool,
}

impl World {
    fn new(config: UplinkConfig) -> Self {
        let clock = Arc::new(ManualClock::new());
        clock.set_wall(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let mut world = Self {
            disk: Simulated::new(Path::new("/run")),
            clock,
            boots: 0,
            config,
            agent: None,
            connection: None,
            broker: Broker::default(),
            next: 0,
            taken: BTreeSet::new(),
            unflushed: BTreeSet::new(),
            perhaps: BTreeSet::new(),
            losses: 0,
            parted: false,
            faulty: false,
        };
        world.start();
        world
    }

    fn open(&self) -> (Outbox, Recovery) {
        let settings = Settings {
            dir: PathBuf::from("/disk"),
            tail_dir: PathBuf::from("/run"),
            flush: FLUSH,
            max_bytes: 64 << 20,
            free_share: 50,
            full: crate::outbox::Full::DropOldest,
            memory_bytes: 8 << 20,
            persist: Duration::from_secs(300),
            key: None,
        };
        let open = || self.disk.open_outbox(settings.clone(), BootId([self.boots; 16]), self.clock.boot());
        open().unwrap_or_else(|_| {
            // The service manager starts it again.
            self.disk.fail(None);
            open().expect("nothing fails any more")
        })
    }

    fn start(&mut self) {
        let (outbox, recovery) = self.open();
        let info = Info { version: "0", run: outbox.run(), ..Info::default() };
        let boot = BootId([self.boots; 16]);
        let hub = Hub::new(outbox, self.clock.clone(), boot, gateway(), info, recovery.tail_found);
        let feed = Feed::new(&self.config, &hub);
        self.agent = Some((hub, feed));
    }

    /// The process is gone.
    fn end(&mut self) {
        self.connection = None;
        self.agent = None;
        self.losses += 1;
    }

    fn kill(&mut self) {
        self.end();
        if self.faulty {
            self.perhaps.append(&mut self.unflushed);
            self.parted = true;
        }
        self.faulty = false;
        self.disk.fail(None);
        self.start();
    }

    fn agent(&mut self) -> (&Rc<Hub>, &mut Feed) {
        let (hub, feed) = self.agent.as_mut().expect("it runs");
        (hub, feed)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Take(count) => self.take(count),
            Step::Turn(part) => {
                self.fill();
                self.commit();
                self.write(part);
            }
            Step::Killed(when) => {
                self.fill();
                if when > 0 {
                    self.commit();
                }
                if when > 1 {
                    self.write(1_000);
                    self.broker(u8::MAX);
                }
                self.kill();
            }
            Step::Broker(count) => self.broker(count),
            Step::Answers(count) => self.answers(count),
            Step::Reorder(by) => {
                if let Some(Connection { to_agent, .. }) = &mut self.connection
                    && !to_agent.is_empty()
                {
                    to_agent.rotate_left(usize::from(by) % to_agent.len());
                }
            }
            Step::Lost(closed) => self.lose(closed),
            Step::Stray(kind, id) => {
                let packet = match kind % 3 {
                    0 => Incoming::PubAck(id, Reason::SUCCESS),
                    1 => Incoming::PubRec(id, Reason::SUCCESS),
                    _ => Incoming::PubComp(id, Reason::SUCCESS),
                };
                // One that hits what is in flight by chance would be a lie of the broker.
                if id > 5_000
                    && let Some(connection) = &mut self.connection
                {
                    connection.to_agent.push_back(packet);
                }
            }
            Step::Connect => self.connect(),
            Step::Forget => {
                self.lose(false);
                self.broker.forget();
                self.parted = true;
            }
            Step::Flush => self.flush(),
            Step::Wait(milliseconds) => self.clock.advance(Duration::from_millis(milliseconds.into())),
            Step::PowerCut(mut seed) => {
                self.end();
                self.disk.power_cut(|| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    seed >> 63 == 0
                });
                self.perhaps.append(&mut self.unflushed);
                self.parted = true;
                self.faulty = false;
                self.boots += 1;
                self.start();
            }
            Step::Fail(tail, after, times) => {
                let below = PathBuf::from(if tail { "/run" } else { "/disk" });
                self.disk.fail(Some(Fault { below, after, times, kind: std::io::ErrorKind::Other }));
                self.faulty = true;
            }
        }
    }

    fn take(&mut self, count: u8) {
        let numbers: Vec<u32> = (self.next..).take(count.into()).collect();
        self.next += u32::from(count);
        let several = self.config.payload.batch.is_some();
        let (hub, _) = self.agent();
        for chunk in numbers.chunks(2) {
            let bodies = if several { vec![reading(chunk)] } else { chunk.iter().map(|number| raw(*number)).collect() };
            for body in bodies {
                hub.outbox.borrow_mut().append(hub.clock.boot(), hub.now(), body);
            }
        }
        hub.outbox.borrow_mut().commit(hub.clock.boot());
        hub.appended();
        self.taken.extend(&numbers);
        self.unflushed.extend(&numbers);
    }

    fn fill(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let now = self.clock.boot();
        let (hub, feed) = self.agent();
        feed.fill(hub, &mut connection.output, Fill { now, readings: true, at_once: false, hold_until: now });
        self.connection = Some(connection);
    }

    fn commit(&mut self) {
        let now = self.clock.boot();
        let (hub, feed) = self.agent();
        feed.commit(&mut hub.outbox.borrow_mut(), now);
        assert!(feed.take_refused().is_empty());
    }

    fn write(&mut self, part: u16) {
        let Some(mut connection) = self.connection.take() else { return };
        let length = connection.output.buffer.len();
        let bytes = (length * usize::from(part) / 1_000).min(length);
        connection.to_broker.extend_from_slice(&connection.output.buffer[..bytes]);
        let (hub, feed) = self.agent();
        feed.wrote(&mut hub.outbox.borrow_mut(), &mut connection.output, bytes);
        self.connection = Some(connection);
    }

    fn broker(&mut self, count: u8) {
        let Some(connection) = &mut self.connection else { return };
        for _ in 0..count {
            let Ok(packet) = Packet::read(&mut connection.to_broker, 10_000) else { return };
            connection.to_agent.extend(self.broker.take(packet));
        }
    }

    fn answers(&mut self, count: u8) {
        let Some(mut connection) = self.connection.take() else { return };
        let now = self.clock.boot();
        let (hub, feed) = self.agent();
        for _ in 0..count {
            let Some(packet) = connection.to_agent.pop_front() else { break };
            let outbox = &mut *hub.outbox.borrow_mut();
            feed.received(outbox, &mut connection.output, packet, now).expect("an acknowledgement");
        }
        self.connection = Some(connection);
    }

    fn lose(&mut self, closed: bool) {
        if self.connection.take().is_some() {
            self.losses += 1;
            let (hub, feed) = self.agent();
            let hub = hub.clone();
            // That the broker takes something is never in doubt here, so that nobody is a culprit.
            feed.disconnected(&hub, closed && !feed.session().is_alone());
        }
    }

    fn connect(&mut self) {
        if self.connection.is_some() {
            return;
        }
        let present = self.broker.has_session;
        let (hub, feed) = self.agent();
        let (stranger, now, live_from) = (feed.is_stranger(present), hub.clock.boot(), hub.live_from());
        if stranger {
            feed.broker_forgot();
        }
        let accepted = Accepted { session_present: present && !stranger, limits: Limits::default() };
        feed.connected(&accepted, live_from, now);
        if stranger {
            self.broker.forget();
        }
        self.broker.has_session = true;
        self.connection = Some(Connection::default());
    }

    /// Flushes until nothing waits; what was taken is on disk if nothing failed.
    fn flush(&mut self) {
        self.clock.advance(FLUSH);
        let now = self.clock.boot();
        let hub = self.agent().0.clone();
        let outbox = &mut *hub.outbox.borrow_mut();
        outbox.commit(now);
        let before = outbox.stats().write_errors;
        while let Some(job) = outbox.begin_flush(now) {
            let done = job.run();
            outbox.finish_flush(done, now);
        }
        let stats = outbox.stats();
        if stats.write_errors == before && stats.disk_works {
            self.unflushed.clear();
        }
    }

    /// Everything works again, until nothing is left to be done.
    fn settle(&mut self) {
        self.disk.fail(None);
        self.clock.advance(Duration::from_secs(120));
        for _ in 0..2_000 {
            self.connect();
            self.clock.advance(Duration::from_millis(1));
            for step in
                [Step::Turn(1_000), Step::Broker(u8::MAX), Step::Answers(u8::MAX), Step::Turn(1_000), Step::Flush]
            {
                self.step(step);
            }
            let idle = self.connection.as_ref().is_some_and(|connection| connection.to_agent.is_empty());
            let (hub, feed) = self.agent();
            let outbox = &mut *hub.outbox.borrow_mut();
            let cursor = outbox.cursor("home");
            if outbox.backlog(cursor) == 0 && !feed.session().is_waiting() && idle {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn check(&self) {
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        for number in &self.broker.deliveries {
            *counts.entry(*number).or_default() += 1;
        }
        let lost: Vec<&u32> =
            self.taken.iter().filter(|number| !counts.contains_key(number) && !self.perhaps.contains(number)).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        assert!(counts.keys().all(|number| self.taken.contains(number)), "nothing else is delivered");
        let doubled = self.broker.deliveries.len() - counts.len();
        if self.config.qos == Qos::ExactlyOnce {
            assert!(self.parted || doubled == 0, "{doubled} doubled at QoS 2");
        }
        let in_one = self.config.payload.batch.map_or(1, |batch| usize::from(batch.max));
        let most = self.losses * usize::from(WINDOW) * in_one;
        assert!(self.parted || doubled <= most, "{doubled} doubled in {} losses", self.losses);
        if !self.config.backlog.live_first && !self.parted {
            let mut seen = BTreeSet::new();
            let first: Vec<u32> =
                self.broker.deliveries.iter().copied().filter(|number| seen.insert(*number)).collect();
            assert!(first.is_sorted(), "out of order: {first:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_taken_is_delivered(
        exactly_once: bool,
        live_first: bool,
        commands: bool,
        batch in proptest::option::of((2..9_u16, 0..2_000_u64, 100..400_u32)),
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut config = config(if exactly_once { Qos::ExactlyOnce } else { Qos::AtLeastOnce }, WINDOW);
        config.backlog.live_first = live_first;
        // Subscriptions take packet ids from between those of messages.
        let topics = vec![("maison/relais/set".to_owned(), "relais".to_owned())];
        if let Some((max, wait, max_packet)) = batch {
            config.payload = Payload {
                format: Format::JsonArray,
                fields: vec![Field::Value],
                batch: Some(Batch { max, wait: Duration::from_millis(wait) }),
                ..Payload::default()
            };
            config.max_packet = max_packet;
        }
        config.commands = commands.then_some(Commands { max_age: Duration::from_secs(10), topics });
        let mut world = World::new(config);
        for step in steps {
            world.step(step);
        }
        world.settle();
        world.check();
    }
}

/// The model must be able to fail: without its session a kill doubles at QoS 2.
#[test]
fn the_model_notices_a_lost_session() {
    let mut world = World::new(config(Qos::ExactlyOnce, WINDOW));
    for step in [Step::Take(3), Step::Connect, Step::Turn(1_000), Step::Broker(8), Step::Flush] {
        world.step(step);
    }
    assert_eq!(world.broker.deliveries.len(), 3);
    world.end();
    world.disk.delete(&world.disk.files(Path::new("/run"))[0].clone());
    world.start();
    world.clock.advance(LIVE_WITHIN);
    world.settle();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.check()));
    assert!(caught.is_err(), "{:?}", world.broker.deliveries);
}
