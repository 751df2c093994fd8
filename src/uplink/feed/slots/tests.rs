//! Prevents: traffic that tells when a shop is open. Somebody who sees the packets, but not what is in them, tries to
//! find that out from a week of door and motion readings that are published when they change.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use proptest::prelude::*;
use rumqttc::mqttbytes::v4::Packet;
use secrecy::SecretBox;

use super::*;
use crate::config::{Batch, Format, Payload, Privacy, Pseudonyms, UplinkConfig};
use crate::outbox::Body;
use crate::reading::{Descriptor, Finite, Kind, Quantity, Value};
use crate::topic::Template;
use crate::uplink::packet::{Accepted, Incoming, Limits, Reason};
use crate::uplink::scripted::{Setup, config};

const EVERY: Duration = Duration::from_secs(60);

/// Between two looks of the simulation.
const STEP: Duration = Duration::from_secs(15);
const STEPS_PER_HOUR: u32 = 240;
const HOURS: u32 = 7 * 24;

fn fixed(format: Format, size: usize) -> UplinkConfig {
    let key = Arc::new(SecretBox::new(Box::new([7; 32])));
    let batch = Some(Batch { max: 100, wait: Duration::ZERO });
    let topic = Some(Template::parse("{site}/{gateway}/readings").expect("a template"));
    UplinkConfig {
        state: false,
        retain: false,
        payload: Payload { format, shape: format.info().shape, base64: true, batch, topic, ..Payload::default() },
        privacy: Privacy {
            pseudonyms: Some(Pseudonyms::new(&key)),
            rate: Some(FixedRate { every: EVERY, size }),
            ..Privacy::default()
        },
        ..config(Qos::AtLeastOnce, 20)
    }
}

/// What somebody on the way sees of a message, and what its receiver does.
struct Seen {
    at: BootTime,
    bytes: usize,
    topic: String,
    payload: Vec<u8>,
}

/// An uplink whose broker acknowledges at once.
struct Line {
    setup: Setup,
    output: Output,
    sensors: BTreeMap<&'static str, Arc<Descriptor>>,
    seen: Vec<Seen>,
}

impl Line {
    fn new(config: UplinkConfig) -> Self {
        let mut setup = Setup::new(config);
        let accepted = Accepted { session_present: false, limits: Limits::default() };
        setup.feed.connected(&accepted, 0, setup.hub.clock.boot());
        Self { setup, output: Output::default(), sensors: BTreeMap::new(), seen: Vec::new() }
    }

    fn take(&mut self, sensor: &'static str, value: Value) {
        let quantity = Quantity::new("state", None, Kind::Switch);
        let descriptor = self.sensors.entry(sensor).or_insert_with(|| {
            Arc::new(Descriptor {
                gateway: "atelier".into(),
                site: Some("maison".into()),
                room: Some("boutique".into()),
                sensor: sensor.into(),
                quantities: vec![quantity],
                ..Descriptor::default()
            })
        });
        let (hub, body) =
            (&self.setup.hub, Body::Reading { descriptor: Arc::clone(descriptor), values: vec![(0, value)] });
        let outbox = &mut *hub.outbox.borrow_mut();
        outbox.append(hub.clock.boot(), hub.now(), body);
        outbox.commit(hub.clock.boot());
    }

    /// One turn of the loop, and the broker's answers.
    fn turn(&mut self) {
        let Self { setup, output, seen, .. } = self;
        let (hub, feed) = (setup.hub.clone(), &mut setup.feed);
        hub.appended();
        let now = hub.clock.boot();
        feed.fill(&hub, output, Fill { now, readings: true, at_once: false, hold_until: now });
        let outbox = &mut *hub.outbox.borrow_mut();
        feed.commit(outbox, now);
        let mut written = BytesMut::from(&output.buffer[..]);
        feed.wrote(outbox, output, written.len());
        let mut answers = Vec::new();
        while !written.is_empty() {
            let before = written.len();
            let Ok(Packet::Publish(message)) = Packet::read(&mut written, 1 << 20) else { panic!("a PUBLISH") };
            answers.push(message.pkid);
            let (bytes, topic) = (before - written.len(), message.topic);
            seen.push(Seen { at: now, bytes, topic, payload: message.payload.to_vec() });
        }
        for id in answers {
            feed.received(outbox, output, Incoming::PubAck(id, Reason::SUCCESS), now).expect("an acknowledgement");
        }
        feed.commit(outbox, now);
    }
}

/// Numbers from 0 to 1, always the same.
struct Chance(u64);

impl Chance {
    fn is(&mut self, probability: f64) -> bool {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let number = u32::try_from(self.0 >> 33).expect("31 bits");
        f64::from(number) / f64::from(1_u32 << 31) < probability
    }
}

/// From nine to seven but on Sundays.
fn is_open(hour: u32) -> bool {
    hour / 24 != 6 && (9..19).contains(&(hour % 24))
}

/// A week of readings: a door, somebody who moves, and a thermometer day and night. Gives how many there were.
fn week(line: &mut Line) -> usize {
    let (mut chance, mut taken, mut moves, mut degrees) = (Chance(1), 0, false, 20.0);
    for hour in 0..HOURS {
        for step in 0..STEPS_PER_HOUR {
            let mut readings = Vec::new();
            if is_open(hour) && chance.is(0.08) {
                readings.extend([("door", Value::Switch(true)), ("door", Value::Switch(false))]);
            }
            // A cat at night.
            if chance.is(if is_open(hour) { 0.1 } else { 0.002 }) {
                moves = !moves;
                readings.push(("motion", Value::Switch(moves)));
            }
            if chance.is(0.02) || step == 0 {
                degrees += if chance.is(0.5) { 0.1 } else { -0.1 };
                readings.push(("meteo", Value::Number(Finite::new(degrees).expect("finite"))));
            }
            for (sensor, value) in readings {
                line.take(sensor, value);
                taken += 1;
            }
            line.turn();
            line.setup.clock.advance(STEP);
        }
    }
    // The last slots.
    for _ in 0..40 {
        line.turn();
        line.setup.clock.advance(STEP);
    }
    taken
}

/// What the observer makes of it: bytes and messages in each hour.
fn by_hour(line: &Line) -> Vec<f64> {
    let mut hours = vec![0.0; HOURS as usize];
    let start = 0;
    for seen in &line.seen {
        let hour = usize::try_from((seen.at.0 - start) / 3_600_000_000_000).expect("small");
        if let Some(sum) = hours.get_mut(hour) {
            *sum += f64::from(u32::try_from(seen.bytes).expect("small"));
        }
    }
    hours
}

/// Pearson's correlation; 0 where one of the two does not vary.
fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let mean = |numbers: &[f64]| numbers.iter().sum::<f64>() / f64::from(u32::try_from(numbers.len()).expect("few"));
    let (mean_a, mean_b) = (mean(a), mean(b));
    let sum =
        |term: &dyn Fn(f64, f64) -> f64| -> f64 { a.iter().zip(b).map(|(a, b)| term(a - mean_a, b - mean_b)).sum() };
    let (together, own) = (sum(&|a, b| a * b), (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt());
    if own == 0.0 { 0.0 } else { together / own }
}

/// The share of hours that are told rightly by saying "open" where there is more traffic than halfway between the least
/// and the most.
fn recovered(hours: &[f64]) -> f64 {
    let (least, most) =
        hours.iter().fold((f64::MAX, 0.0_f64), |(least, most), hour| (least.min(*hour), most.max(*hour)));
    let right = (0..HOURS).zip(hours).filter(|(hour, bytes)| is_open(*hour) == (**bytes > f64::midpoint(least, most)));
    f64::from(u32::try_from(right.count()).expect("few")) / f64::from(HOURS)
}

fn truth() -> Vec<f64> {
    (0..HOURS).map(|hour| f64::from(u8::from(is_open(hour)))).collect()
}

/// How many readings the payloads hold.
fn received(line: &Line, per_reading: &str) -> usize {
    line.seen.iter().map(|seen| String::from_utf8_lossy(&seen.payload).matches(per_reading).count()).sum()
}

#[test]
fn opening_hours_are_in_the_traffic_and_at_a_fixed_rate_are_not() {
    let mut open = Line::new(UplinkConfig { state: false, ..config(Qos::AtLeastOnce, 20) });
    let taken = week(&mut open);
    assert!(taken > 3_000, "{taken}");
    assert_eq!(received(&open, "\"value\""), taken);
    let (hours, truth) = (by_hour(&open), truth());
    let (found, share) = (correlation(&hours, &truth), recovered(&hours));
    println!("{taken} readings as they come: r = {found:.2}, {share:.2} of the hours told rightly");
    assert!(found > 0.9 && share > 0.95, "the attack works where nothing is hidden: {found} {share}");

    for format in [Format::JsonArray, Format::Senml] {
        let mut hidden = Line::new(fixed(format, 1_500));
        assert_eq!(week(&mut hidden), taken);
        let per_reading = if format == Format::Senml { "\"n\":\"state\"" } else { "\"value\"" };
        assert_eq!(received(&hidden, per_reading), taken, "nothing is lost by it");
        let (hours, first) = (by_hour(&hidden), &hidden.seen[0]);
        // The first hour has no slot at its very beginning.
        let (found, share) = (correlation(&hours[1..], &truth[1..]), recovered(&hours[1..]));
        assert_eq!(found, 0.0, "{format:?}: {hours:?}");
        let always = truth.iter().filter(|open| **open == 0.0).count();
        let guess = f64::from(u32::try_from(always).expect("few")) / f64::from(HOURS);
        assert!(share <= guess, "no better than to say always the same: {share} {guess}");
        for pair in hidden.seen.windows(2) {
            assert_eq!(pair[1].at.since(pair[0].at), EVERY);
            assert_eq!((pair[1].bytes, &pair[1].topic), (first.bytes, &first.topic));
        }
        let empty = hidden.seen.iter().filter(|seen| seen.payload.trim_ascii() == b"[]").count();
        assert!(empty > 2_000, "{empty} had nothing to tell");
        for seen in &hidden.seen {
            let json: serde_json::Value = serde_json::from_slice(&seen.payload).expect("JSON, filled up or not");
            assert!(json.is_array());
        }
        let slots = hidden.seen.len();
        println!(
            "{format:?}: {slots} messages, {empty} of them empty: r = {found:.2}, {share:.2} of the hours told rightly"
        );
    }
}

#[test]
fn what_does_not_fit_waits_and_what_never_fits_is_put_aside() {
    let mut line = Line::new(fixed(Format::JsonArray, 600));
    line.take("odd", Value::Text("x".repeat(700).into()));
    for _ in 0..20 {
        line.take("door", Value::Switch(true));
    }
    for _ in 0..120 {
        line.turn();
        line.setup.clock.advance(STEP);
    }
    assert_eq!(received(&line, "\"value\":true"), 20);
    assert!(line.seen.iter().all(|seen| seen.bytes == line.seen[0].bytes));
    let most = line.seen.iter().map(|seen| String::from_utf8_lossy(&seen.payload).matches("\"value\"").count()).max();
    assert!(most.is_some_and(|most| (2..5).contains(&most)), "{most:?}");
    let refused = line.setup.feed.take_refused();
    assert!(refused.len() == 1 && refused[0].reason.contains("`size` of `rate`"), "{refused:?}");
}

proptest! {
    /// Whatever was slept through, slots lie at least an interval apart, and one that is due is never waited for.
    #[test]
    fn slots_lie_apart(steps in prop::collection::vec(0_u64..200, 1..60)) {
        let mut slots = Slots::new(FixedRate { every: EVERY, size: 256 });
        slots.connected(BootTime(0));
        let (mut now, mut last) = (BootTime(0), BootTime(0));
        for seconds in steps {
            now = now.after(Duration::from_secs(seconds));
            match slots.open(now) {
                Ok(()) => {
                    prop_assert!(slots.next > now);
                    last = now;
                }
                Err(next) => prop_assert!(next > now && next.since(last) <= EVERY),
            }
        }
    }
}
