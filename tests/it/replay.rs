//! Prevents: readings lost, doubled, out of order or re-dated when the broker goes away and the agent is killed.
//!
//! An Arduino (a pseudo-terminal of ours) writes numbered lines; Mosquitto is stopped and started in the middle, and
//! the agent is killed with SIGKILL in the middle, both while the broker is away and while readings flow. What the
//! receiver's persistent session gets is compared with the feeder's own list.
//!
//! **What counts as taken.** A line that the kernel still held when the agent died was never read, and is lost with
//! the port. So "taken" is asked of the outbox itself, in its own terms ("taken: the record is in the tail") but from
//! outside: right after the kill, the marks that lie in the tail and log are found by their bytes. All of those must
//! arrive, and since lines are read in order, everything from the first line that a run took up to the last must
//! arrive without a hole. Before the kill that happens while the broker is away, the feeder pauses until its last line
//! is there, so that the list of what must arrive is known to the last line.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use super::harness::{Exit, Gateway, Mosquitto, Port, Receiver, mark_number, wait_until};

/// Messages that may wait for their acknowledgement.
const WINDOW: usize = 20;

/// Times that the connection is lost in [`survives`]: Mosquitto stopped, and the agent killed twice, of which once
/// without a connection.
const LOSSES: usize = 3;

fn configure(gateway: &Gateway, broker: &Mosquitto, port: &Port, mqtt: &str, qos: u8) {
    gateway.configure(&format!(
        "[hardware]\nbackend = \"sim\"\n\n\
         [uplink.home]\nurl = \"mqtt://localhost:{}\"\nmqtt = \"{mqtt}\"\nqos = {qos}\ninflight = {WINDOW}\nlive_first = false\n\n\
         [[sensor]]\nname = \"arduino\"\nroom = \"salle\"\ndriver = \"serial-json\"\nport = \"{}\"\n\n\
         [[sensor]]\nname = \"meteo\"\nroom = \"salle\"\ndriver = \"bme280\"\nevery = \"50ms\"\n",
        broker.port(),
        port.path().display()
    ));
}

/// A mark as it arrived.
#[derive(Debug)]
struct Arrival {
    id: String,
    mark: u32,
    time: SystemTime,
}

fn arrivals(subscriber: &Receiver, topic: &str, value: impl Fn(&serde_json::Value) -> Option<u32>) -> Vec<Arrival> {
    let arrival = |json: serde_json::Value| Arrival {
        id: json["id"].as_str().expect("an id").to_owned(),
        mark: value(&json["value"]).unwrap_or_else(|| panic!("a value of ours: {json}")),
        time: humantime::parse_rfc3339(json["time"].as_str().expect("a time")).expect("a time"),
    };
    // What the broker had retained before the subscription is not a delivery.
    let delivered = |message: &super::harness::Message| !message.retained;
    subscriber.on(topic).into_iter().filter(delivered).map(|message| arrival(message.json())).collect()
}

fn marks(subscriber: &Receiver) -> Vec<Arrival> {
    arrivals(subscriber, "maison/salle/mark", |value| mark_number(value.as_str()?.as_bytes()))
}

/// The second quantity of the same lines, on a topic of its own: the number and a half.
fn levels(subscriber: &Receiver) -> Vec<Arrival> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small positive numbers of ours")]
    arrivals(subscriber, "maison/salle/level", |value| Some((value.as_f64()? - 0.5) as u32))
}

/// Checks the readings of the simulated bus, of which nobody keeps a list: in order, none doubled beyond what is
/// allowed, and some from each run.
#[track_caller]
fn check_bus(subscriber: &Receiver, runs: usize, most_doubled: usize) {
    let id = |arrival: &Arrival| {
        let (run, seq) = arrival.id.split_once('-').expect("run and sequence");
        (run.parse::<u32>().expect("a number"), seq.parse::<u64>().expect("a number"))
    };
    let (first, doubled) = first_arrivals(arrivals(subscriber, "maison/salle/temperature", |_| Some(0)));
    assert!(doubled.len() <= most_doubled, "temperature: doubled, {most_doubled} allowed: {doubled:?}");
    let ids: Vec<(u32, u64)> = first.iter().map(id).collect();
    assert!(ids.is_sorted(), "temperature: out of order: {ids:?}");
    let found: BTreeSet<u32> = ids.iter().map(|(run, _)| *run).collect();
    assert_eq!(found.len(), runs, "runs with temperatures: {found:?}");
    assert!(first.is_sorted_by_key(|arrival| arrival.time), "temperature: times go back");
}

/// Splits into the first arrivals of each id, in order of arrival, and the ids that came again.
fn first_arrivals(arrivals: Vec<Arrival>) -> (Vec<Arrival>, Vec<String>) {
    let mut seen = BTreeMap::new();
    let (first, again): (Vec<Arrival>, Vec<Arrival>) =
        arrivals.into_iter().partition(|arrival| seen.insert(arrival.id.clone(), arrival.mark).is_none());
    (first, again.into_iter().map(|arrival| arrival.id).collect())
}

/// What a run must have delivered: everything from `first` to `last`.
struct Run {
    first: u32,
    last: u32,
}

#[track_caller]
fn check(what: &str, arrivals: Vec<Arrival>, runs: &[Run], port: &Port, most_doubled: usize) -> Vec<Arrival> {
    let (first, doubled) = first_arrivals(arrivals);
    assert!(doubled.len() <= most_doubled, "{what}: doubled, {most_doubled} allowed: {doubled:?}");
    let order: Vec<u32> = first.iter().map(|arrival| arrival.mark).collect();
    assert!(order.is_sorted(), "{what}: out of order: {order:?}");
    for run in runs {
        let missing: Vec<u32> = (run.first..=run.last).filter(|mark| order.binary_search(mark).is_err()).collect();
        assert!(missing.is_empty(), "{what}: taken but not delivered: {missing:?}");
    }
    for arrival in &first {
        // The payload's time has milliseconds, rounded down; and a busy machine may put the agent to sleep between its
        // looks at the two clocks.
        let sent = port.sent_at(arrival.mark) - Duration::from_millis(50);
        assert!(arrival.time >= sent, "{what}: measured before it was written: {arrival:?}, written at {sent:?}");
    }
    first
}

fn survives(mqtt: &str, qos: u8, limits: &str, most_doubled: usize) {
    let mut broker = Mosquitto::with(&format!("allow_anonymous true\n{limits}"));
    let subscriber = Receiver::start(&broker);
    let mut port = Port::open();
    let gateway = Gateway::new();
    configure(&gateway, &broker, &port, mqtt, qos);

    // Everything is well.
    let mut agent = gateway.run();
    agent.wait_log("connected");
    let first = port.send_until_taken(&gateway);
    port.send(200);
    let last_online = port.next() - 1;
    wait_until("readings to arrive", || marks(&subscriber).iter().any(|arrival| arrival.mark == last_online));

    // The broker goes away while readings flow, and comes back to the same agent.
    port.send(50);
    broker.stop();
    port.send(100);
    port.wait_all_taken(&gateway);
    let before_first_return = SystemTime::now();
    broker.start_again();
    let last = port.next() - 1;
    wait_until("the backlog to arrive", || marks(&subscriber).iter().any(|arrival| arrival.mark == last));

    // The agent is killed in the middle of readings flowing to a connected broker.
    port.send(300);
    let held = || gateway.marks_held().last().copied().unwrap_or_default();
    wait_until("some of them to be taken", || held() > last + 50);
    agent.kill();
    let first_run = Run { first, last: held() };
    assert!(first_run.last > last + 50);

    // The next run takes over; the broker goes away again, and the agent is killed while it is away.
    let mut agent = gateway.run();
    let second = port.send_until_taken(&gateway);
    broker.stop();
    port.send(150);
    port.wait_all_taken(&gateway);
    agent.kill();
    let second_run = Run { first: second, last: held() };
    assert_eq!(second_run.last, port.next() - 1, "the feeder paused until its last line was taken");

    // The third run finds the broker still away, takes readings all the same, and delivers everything.
    let mut agent = gateway.run();
    let third = port.send_until_taken(&gateway);
    port.send(50);
    port.wait_all_taken(&gateway);
    let before_second_return = SystemTime::now();
    broker.start_again();
    agent.wait_log("connected");
    port.send(50);
    let end = port.next() - 1;
    let third_run = Run { first: third, last: end };
    wait_until("the last mark", || marks(&subscriber).iter().any(|arrival| arrival.mark == end));
    wait_until("the last level", || levels(&subscriber).iter().any(|arrival| arrival.mark == end));
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());

    let runs = [first_run, second_run, third_run];
    let arrived = check("mark", marks(&subscriber), &runs, &port, most_doubled);
    check("level", levels(&subscriber), &runs, &port, most_doubled);
    check_bus(&subscriber, runs.len(), most_doubled);

    // Each run has its own number, and what was measured while the broker was away carries a time from before its
    // return, not that of the replay.
    let run_of = |mark: u32| {
        let arrival = arrived.iter().find(|arrival| arrival.mark == mark).expect("it was delivered");
        arrival.id.split_once('-').expect("run and sequence").0.parse::<u32>().expect("a number")
    };
    let numbers: Vec<u32> = runs.iter().map(|run| run_of(run.last)).collect();
    assert!(numbers[0] < numbers[1] && numbers[1] < numbers[2], "{numbers:?}");
    for (from, to, returned) in
        [(last - 99, last, before_first_return), (runs[1].first, runs[1].last, before_second_return)]
    {
        for arrival in arrived.iter().filter(|arrival| (from..=to).contains(&arrival.mark)) {
            assert!(arrival.time <= returned, "re-dated: {arrival:?}, the broker came back at {returned:?}");
        }
    }
}

#[test]
fn at_qos_1_nothing_is_lost_and_at_most_the_window_doubled() {
    survives("3.1.1", 1, "", WINDOW * LOSSES);
}

#[test]
fn at_qos_2_nothing_is_lost_and_nothing_doubled() {
    survives("3.1.1", 2, "", 0);
}

/// What a broker of MQTT 5 may ask for, below what is configured and needed: fewer messages in flight than the window,
/// fewer aliases than there are topics.
const LIMITS: &str = "max_inflight_messages 6\nmax_packet_size 1500\nmax_topic_alias 2\n";

#[test]
fn in_mqtt_5_at_qos_1_nothing_is_lost_and_at_most_the_window_doubled() {
    survives("5", 1, LIMITS, WINDOW * LOSSES);
}

#[test]
fn in_mqtt_5_at_qos_2_nothing_is_lost_and_nothing_doubled() {
    survives("5", 2, LIMITS, 0);
}
