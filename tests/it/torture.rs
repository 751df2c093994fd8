//! Prevents: readings lost or doubled by a kill or a broker's end at a moment that nobody thought of.
//!
//! Two agents, one at QoS 1 and one at QoS 2, read numbered lines that never stop from ports of their own, and publish
//! through a [`Recorder`] each to one Mosquitto. Again and again each of them is killed with SIGKILL and started anew,
//! and in some rounds the broker is ended and started anew too, in random order and at random moments: after so many
//! more acknowledgements or lines, or at once, which meets agents that are only just starting. `TORTURE_ROUNDS` says how
//! many rounds (default [`ROUNDS`]), `TORTURE_SEED` repeats the choices of a run, though not the scheduler's.
//!
//! **What counts as taken.** A line that the kernel or the process's memory held when it died was never taken, and may
//! be lost. Taken is, in the outbox's own terms, what is in the tail, so it is looked there from outside, after each
//! kill and before the next start: every mark that lies in the files of tail and log ([`Gateway::marks_held`]) was
//! taken. So was every mark that was published, because the outbox commits before the session sends; the recorder knows
//! these. And since lines are read in order, so was everything between two marks that one run published. A record that
//! is taken leaves the tail only when it is acknowledged, thus published: so the three together are *all* that was
//! taken, unless the outbox breaks that very promise at the end of a run; in the middle of one it leaves a hole.
//!
//! **What is claimed**
//! 1. Each reading that was taken is acknowledged in full (PUBACK, PUBCOMP), as the recorder saw it. The agent ends in
//!    order only after all of them are: it treats nothing as done that was not acknowledged.
//! 2. Whatever is sent again is the same message under the same packet id with DUP set, for as long as the broker
//!    has the session; no packet id stands for two messages; no PUBLISH follows its PUBREL; no more is in flight than
//!    the window holds; a reading has one content and a mark one reading, so that nothing was taken twice.
//! 3. At QoS 1 a reading is published again only because a connection was lost, at most a window each time. At QoS 2 a
//!    reading is acknowledged in full exactly once, if the broker keeps its sessions; where it lost them, at most a
//!    window each time.
//! 4. With a broker that is ended by SIGTERM, and so keeps what it acknowledged, a subscriber gets each reading that
//!    was taken: at QoS 2 exactly once, at QoS 1 at most a window more each time that a connection was lost.
//!
//! A broker that is killed forgets what it acknowledged. So for those rounds the fourth claim is not made; the others
//! are about the agent alone, and hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rustix::process::Signal;

use super::harness::{
    Agent, DEADLINE, Exit, Feeder, Gateway, Mosquitto, Random, Reading, Receiver, Recorder, mark_number, wait_until,
};

/// Rounds, unless the environment says otherwise.
const ROUNDS: u32 = 15;

/// Messages that may wait for their acknowledgement.
const WINDOW: usize = 20;

/// An agent with all that belongs to it.
struct Side {
    qos: u8,
    gateway: Gateway,
    recorder: Recorder,
    feeder: Feeder,
    agent: Option<Agent>,
    /// Marks that were found in tail and log after a kill.
    held: BTreeSet<u32>,
    kills: usize,
    /// What the agents warned of, or found when they started; with the last mark that was held when they were killed.
    notes: Vec<(u32, String)>,
}

impl Side {
    fn start(qos: u8, broker: &Mosquitto) -> Self {
        let (gateway, recorder, feeder) = (Gateway::new(), Recorder::to(broker.port()), Feeder::start());
        gateway.configure(&format!(
            "[uplink.home]\nurl = \"mqtt://localhost:{}\"\nclient_id = \"torture-{qos}\"\nqos = {qos}\n\
             inflight = {WINDOW}\n\n\
             [[sensor]]\nname = \"arduino\"\nroom = \"qos{qos}\"\ndriver = \"serial-json\"\nport = \"{}\"\n",
            recorder.port(),
            feeder.path().display()
        ));
        let mut side =
            Self { qos, gateway, recorder, feeder, agent: None, held: BTreeSet::new(), kills: 0, notes: Vec::new() };
        side.ensure_running();
        side
    }

    fn ensure_running(&mut self) {
        if self.agent.is_none() {
            self.agent = Some(self.gateway.run());
        }
    }

    fn kill(&mut self) {
        let Some(mut agent) = self.agent.take() else { return };
        agent.kill();
        self.kills += 1;
        let held = self.gateway.marks_held();
        let last = held.last().copied().unwrap_or_default();
        let telling = |line: &String| line.contains("outbox") || line.contains("refused=") || line.contains("tail");
        self.notes.extend(agent.log.all().into_iter().filter(telling).map(|line| (last, line)));
        self.held.extend(held);
    }

    /// Lets some time of the agent's pass, in terms of what it does.
    fn progress(&mut self, random: &mut Random, connected: bool) {
        let (complete, written) = (self.recorder.ledger().complete, self.feeder.written());
        // At the end of a condition everybody has just done the same thing: a little more, and they have not.
        let beyond = Duration::from_micros(random.below(5_000).into());
        match random.below(4) {
            0 => {}
            1 if self.agent.is_some() => {
                let more = random.below(60);
                wait_until("lines to be read", || self.feeder.written() >= written + more);
            }
            _ if self.agent.is_some() && connected => {
                let more = random.below(120) as usize;
                wait_until("readings to be acknowledged", || self.recorder.ledger().complete >= complete + more);
            }
            _ => {}
        }
        std::thread::sleep(beyond);
    }

    /// Marks that were taken: those seen in the files, those published, and what lies between these in one run.
    fn taken(&self) -> BTreeSet<u32> {
        let mut taken = self.held.clone();
        let mut runs = BTreeMap::<u32, (u32, u32)>::new();
        for (id, reading) in &self.recorder.ledger().readings {
            taken.insert(reading.mark);
            let run = id.split_once('-').expect("run and sequence").0.parse().expect("a number");
            let (first, last) = runs.entry(run).or_insert((reading.mark, reading.mark));
            (*first, *last) = ((*first).min(reading.mark), (*last).max(reading.mark));
        }
        for (first, last) in runs.into_values() {
            taken.extend(first..=last);
        }
        taken
    }

    /// Marks that were taken and whose readings were not acknowledged in full.
    fn unacknowledged(&self) -> BTreeSet<u32> {
        let mut taken = self.taken();
        for reading in self.recorder.ledger().readings.values().filter(|reading| reading.completed > 0) {
            taken.remove(&reading.mark);
        }
        taken
    }

    /// What is known about readings that were taken and not acknowledged.
    fn story(&self, missing: &BTreeSet<u32>) -> String {
        let ledger = self.recorder.ledger();
        let sent: Vec<_> = ledger.readings.iter().filter(|(_, reading)| missing.contains(&reading.mark)).collect();
        let (first, last) = (missing.first().copied().unwrap_or(0), missing.last().copied().unwrap_or(0));
        let near = |(held, _): &&(u32, String)| (first.saturating_sub(300)..last + 300).contains(held);
        let notes: Vec<_> = self.notes.iter().filter(near).collect();
        let held: Vec<_> = missing.iter().filter(|mark| self.held.contains(mark)).collect();
        format!("taken, not acknowledged: {missing:?}; published of these: {sent:#?}; held: {held:?}; {notes:#?}")
    }

    /// Stops the feeder, waits until everything that was taken is acknowledged, and ends the agent in order.
    fn drain(&mut self) {
        let _port = self.feeder.stop();
        let start = std::time::Instant::now();
        loop {
            let missing = self.unacknowledged();
            if missing.is_empty() {
                break;
            }
            assert!(start.elapsed() < DEADLINE, "QoS {}: {}", self.qos, self.story(&missing));
            std::thread::sleep(Duration::from_millis(50));
        }
        let agent = self.agent.as_mut().expect("it runs");
        assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
        let missing = self.unacknowledged();
        assert!(missing.is_empty(), "QoS {}: ended as if these were acknowledged: {missing:?}", self.qos);
    }

    /// Claims 1 to 3. Gives how many readings there were, and how many of them were sent more than once.
    fn check_ledger(&self, broker_forgets: bool) -> (usize, usize) {
        let (qos, ledger) = (self.qos, self.recorder.ledger());
        assert!(ledger.violations.is_empty(), "QoS {qos}: {:#?}", ledger.violations);
        assert!(ledger.most_in_flight <= WINDOW, "QoS {qos}: {} in flight", ledger.most_in_flight);
        assert!(ledger.most_in_flight > WINDOW / 2, "QoS {qos}: the window was never used");
        let mut by_mark = BTreeMap::new();
        for (id, reading) in &ledger.readings {
            let other = by_mark.insert(reading.mark, id);
            assert_eq!(other, None, "QoS {qos}: mark {} was taken twice, the second time as {id}", reading.mark);
        }
        let beyond_first = |count: fn(&Reading) -> usize| -> usize {
            ledger.readings.values().map(|reading| count(reading).saturating_sub(1)).sum()
        };
        let again = beyond_first(|reading| reading.published);
        assert!(again <= WINDOW * (ledger.connections - 1), "QoS {qos}: {again} were sent again");
        if qos == 2 {
            let twice = beyond_first(|reading| reading.completed);
            assert!(twice <= WINDOW * ledger.forgotten, "{twice} were completed more than once");
        }
        if !broker_forgets {
            assert_eq!(ledger.forgotten, 0, "QoS {qos}: the broker lost a session although it was ended in order");
        }
        (ledger.readings.len(), again)
    }
}

/// Claim 4, for one side: what the subscriber got.
fn check_delivered(side: &Side, delivered: &BTreeMap<String, (u32, usize)>) -> usize {
    let doubled: usize = delivered.values().map(|(_, times)| times - 1).sum();
    let ledger = side.recorder.ledger();
    let most = if side.qos == 2 { 0 } else { WINDOW * (ledger.connections - 1) };
    let doubles = delivered.iter().filter(|(_, (_, times))| *times > 1);
    let which: Vec<_> = doubles.map(|(id, (_, times))| (id, times, &ledger.readings[id])).take(20).collect();
    assert!(doubled <= most, "QoS {}: {doubled} delivered more than once, {most} allowed: {which:#?}", side.qos);
    doubled
}

/// Sorts what was received by agent, reading id, mark and how often it came.
fn sort(messages: Vec<super::harness::Message>, delivered: &mut [BTreeMap<String, (u32, usize)>; 2]) {
    for message in messages {
        let delivered = match message.topic.as_str() {
            "maison/qos1/mark" => &mut delivered[0],
            "maison/qos2/mark" => &mut delivered[1],
            _ => continue,
        };
        let json = message.json();
        let mark = mark_number(json["value"].as_str().expect("a text").as_bytes()).expect("a mark");
        delivered.entry(json["id"].as_str().expect("an id").to_owned()).or_insert((mark, 0)).1 += 1;
    }
}

/// What happens in a round.
#[derive(Clone, Copy)]
enum Event {
    Agent(usize),
    Broker,
}

fn round(random: &mut Random, sides: &mut [Side; 2], broker: &mut Mosquitto, signal: Signal) {
    let mut events = vec![Event::Agent(0), Event::Agent(1)];
    if random.one_in(3) {
        events.push(Event::Broker);
    }
    for last in (1..events.len()).rev() {
        events.swap(last, random.below(u32::try_from(last + 1).expect("few")) as usize);
    }
    let mut broker_away = false;
    for event in events {
        let subject = if let Event::Agent(index) = event { index } else { random.below(2) as usize };
        sides[subject].progress(random, !broker_away);
        match event {
            Event::Agent(index) => {
                sides[index].kill();
                if !random.one_in(4) {
                    sides[index].ensure_running();
                }
            }
            Event::Broker => {
                broker.end(signal);
                broker_away = random.one_in(2);
                if !broker_away {
                    broker.start_again();
                }
            }
        }
    }
    if broker_away {
        broker.start_again();
    }
    sides.iter_mut().for_each(Side::ensure_running);
}

fn torture(signal: Signal) {
    let rounds = std::env::var("TORTURE_ROUNDS").map_or(ROUNDS, |text| text.parse().expect("a number of rounds"));
    let mut random = Random::seeded("TORTURE_SEED");
    let keeps = signal == Signal::TERM;
    let mut broker = Mosquitto::start();
    let receiver = keeps.then(|| Receiver::start(&broker));
    let mut sides = [Side::start(1, &broker), Side::start(2, &broker)];
    let mut delivered = [BTreeMap::new(), BTreeMap::new()];
    for number in 0..rounds {
        round(&mut random, &mut sides, &mut broker, signal);
        if let Some(receiver) = &receiver {
            sort(receiver.take(), &mut delivered);
        }
        if number % 50 == 49 {
            eprintln!("{} rounds", number + 1);
        }
    }
    sides.iter_mut().for_each(Side::drain);
    let mut figures = Vec::new();
    for (index, side) in sides.iter().enumerate() {
        let (readings, again) = side.check_ledger(!keeps);
        let mut doubled = None;
        if let Some(receiver) = &receiver {
            let taken = side.taken();
            wait_until("the subscriber to get all that was taken", || {
                sort(receiver.take(), &mut delivered);
                taken.is_subset(&delivered[index].values().map(|(mark, _)| *mark).collect())
            });
            doubled = Some(check_delivered(side, &delivered[index]));
        }
        let ledger = side.recorder.ledger();
        figures.push(format!(
            "QoS {}: {} kills, {} connections, {} sessions lost, {readings} readings, 0 lost, {again} sent again, \
             delivered twice: {doubled:?}",
            side.qos, side.kills, ledger.connections, ledger.forgotten
        ));
    }
    eprintln!("{rounds} rounds\n{}", figures.join("\n"));
}

#[test]
fn kills_and_broker_restarts_lose_and_double_nothing() {
    torture(Signal::TERM);
}

#[test]
fn what_a_killed_broker_acknowledged_is_all_that_counts_as_done() {
    torture(Signal::KILL);
}
