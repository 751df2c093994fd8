//! What hosts are told, and what they may ask for, whatever comes from them.

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;

use super::schema::{Metric as Seen, Payload, Value as Given};
use super::*;
use crate::clock::WallTime;
use crate::config::{Qos, Writable};
use crate::reading::{Descriptor, Kind, Quantity};

const GROUP: &str = "maison";

fn node(host: Option<&str>, walks: bool) -> Node {
    let names = Sparkplug {
        group: GROUP.to_owned(),
        node: "atelier".to_owned(),
        primary_host: host.map(str::to_owned),
        writable: [("relais".to_owned(), writable())].into(),
    };
    let mut node = Node::new("ignition", &names, walks, Rc::default(), None);
    let _ = node.next_death();
    node.connected();
    node.book().borrow_mut().set_time(Some(WallTime(1_795_256_130_123_000_000)));
    node
}

fn writable() -> Writable {
    Writable { names: [("lamp".to_owned(), Some("l".to_owned()))].into() }
}

fn message(topic: &str, payload: &[u8], retain: bool) -> Message {
    Message {
        qos: Qos::AtLeastOnce,
        id: 1,
        retain,
        topic: topic.to_owned(),
        payload: Bytes::copy_from_slice(payload),
        time: None,
        correlation: None,
    }
}

fn state(online: bool, timestamp: i64) -> Message {
    let payload = format!("{{\"online\":{online},\"timestamp\":{timestamp}}}");
    message("spBv1.0/STATE/scada", payload.as_bytes(), true)
}

fn at(seconds: u64) -> BootTime {
    BootTime(0).after(Duration::from_secs(seconds))
}

fn ncmd(metric: Seen) -> Vec<u8> {
    Payload { timestamp: Some(1), metrics: vec![metric], seq: None }.encode_to_vec()
}

fn rebirth() -> Vec<u8> {
    ncmd(Seen { name: Some(wire::REBIRTH.to_owned()), value: Some(Given::Boolean(true)), ..Seen::default() })
}

fn number(payload: &[u8], name: &str) -> Option<u64> {
    let payload = Payload::decode(payload).expect("protobuf");
    let metric = payload.metrics.into_iter().find(|metric| metric.name.as_deref() == Some(name))?;
    assert_eq!((metric.datatype, metric.is_null), (Some(4), None));
    let Some(Given::Long(number)) = metric.value else { panic!("{metric:?}") };
    Some(number)
}

#[test]
fn births_and_deaths_of_a_connection_have_its_number_which_wraps() {
    let mut node = node(None, false);
    let mut stored = vec![0];
    for count in 1..600_u64 {
        node = Node::new("ignition", node.names(), false, Rc::default(), Some(&stored));
        stored = node.next_death();
        let mut birth = BytesMut::new();
        node.put_birth(&mut birth);
        assert_eq!(number(&birth, BD_SEQ), Some(count % 256));
        assert_eq!(number(&node.death(), BD_SEQ), Some(count % 256));
    }
    let death = Payload::decode(node.death()).expect("protobuf");
    assert_eq!((death.seq, death.metrics.len()), (None, 1), "nothing else is in it");
}

#[test]
fn a_birth_says_how_to_ask_for_another() {
    let node = node(None, false);
    let mut birth = BytesMut::new();
    node.put_birth(&mut birth);
    let birth = Payload::decode(birth).expect("protobuf");
    assert_eq!((birth.timestamp, birth.seq), (Some(1_795_256_130_123), Some(0)));
    let rebirth = birth.metrics.iter().find(|metric| metric.name.as_deref() == Some("Node Control/Rebirth"));
    let rebirth = rebirth.expect("it is there");
    assert_eq!((rebirth.datatype, &rebirth.value, rebirth.alias), (Some(11), &Some(Given::Boolean(false)), None));
    assert!(birth.metrics.iter().all(|metric| metric.timestamp == Some(1_795_256_130_123)));
}

#[test]
fn births_come_first_again_when_asked_and_not_more_often_than_once_a_second() {
    let mut node = node(None, false);
    assert_eq!(node.turn(at(10), true, at(0)), Turn::Birth { first: true });
    node.bear(at(10));
    assert_eq!(node.turn(at(10), true, at(0)), Turn::Go);
    assert!(node.takes(&message("spBv1.0/maison/NCMD/atelier", &rebirth(), false), at(10)).expect("no failure"));
    assert_eq!(node.turn(at(10), true, at(0)), Turn::Wait(Some(at(11))), "and no data meanwhile");
    assert_eq!(node.turn(at(11), true, at(0)), Turn::Birth { first: false });
    node.bear(at(11));
    assert_eq!(node.turn(at(11), true, at(0)), Turn::Go);
    for (payload, retain) in [
        (rebirth(), true),
        (b"\xff\xff".to_vec(), false),
        (ncmd(Seen { name: Some("Output".to_owned()), value: Some(Given::Boolean(true)), ..Seen::default() }), false),
    ] {
        assert!(node.takes(&message("spBv1.0/maison/NCMD/atelier", &payload, retain), at(12)).expect("no failure"));
        assert_eq!(node.turn(at(12), true, at(0)), Turn::Go);
    }
    assert!(!node.takes(&message("spBv1.0/maison/NCMD/cave", &rebirth(), false), at(12)).expect("no failure"));
}

/// What comes of a command that was sent to the device `relais` on this topic.
fn read(topic: &str, payload: &[u8], refused: Option<&str>) -> Request {
    let node = node(None, false);
    let lamp = Quantity::new("lamp", None, Kind::Number);
    let descriptor =
        Descriptor { gateway: "pi".into(), sensor: "relais".into(), quantities: vec![lamp], ..Descriptor::default() };
    node.book().borrow_mut().learn(&descriptor.into(), &[]).expect("few");
    let mut request = Request {
        uplink: "ignition".to_owned(),
        sensor: "relais".to_owned(),
        payload: payload.into(),
        reference: None,
        time: None,
        at: at(1),
        max_age: Duration::from_secs(30),
        refused: refused.map(str::to_owned),
    };
    node.read_command(topic, &mut request);
    request
}

#[test]
fn what_a_host_writes_is_a_command_as_any_other() {
    let topic = "spBv1.0/maison/DCMD/atelier/relais";
    let lamp = |number| {
        let metric = Seen { alias: Some(2), value: Some(Given::Double(number)), ..Seen::default() };
        Payload { timestamp: Some(1_795_256_130_123), metrics: vec![metric], seq: None }.encode_to_vec()
    };
    let request = read(topic, &lamp(40.5), None);
    assert_eq!((&*request.payload, request.refused), (&b"{\"l\":40.5}"[..], None));
    assert_eq!(request.time.as_deref(), Some("2026-11-21T10:15:30.123Z"));
    for (payload, why) in [(lamp(f64::INFINITY), "`lamp` cannot be written"), (b"{\"l\":1}".to_vec(), "no payload of")]
    {
        let request = read(topic, &payload, None);
        assert!(request.payload.is_empty() && request.refused.is_some_and(|found| found.contains(why)), "{why}");
    }
    // What was refused before stays so, and is not looked at; what came on `…/set` is the device's.
    let request = read(topic, &lamp(1.0), Some("it is retained"));
    assert_eq!((request.payload.len(), request.refused.as_deref()), (0, Some("it is retained")));
    assert_eq!(&*read("maison/relais/set", b"{\"l\":1}", None).payload, b"{\"l\":1}");
}

#[test]
fn what_hosts_may_write_to_is_subscribed_to_and_said() {
    let node = node(Some("scada"), false);
    let topics: Vec<String> = Node::topics(node.names()).into_iter().map(|(topic, _)| topic).collect();
    assert_eq!(topics, ["spBv1.0/maison/DCMD/atelier/relais", "spBv1.0/STATE/scada", "spBv1.0/maison/NCMD/atelier"]);
    assert_eq!(node.writable(), "hosts may write to relais, and to no other device");
}

#[test]
fn births_wait_for_the_clock_as_long_as_readings_do() {
    let node = node(None, false);
    assert_eq!(node.turn(at(10), false, at(60)), Turn::Wait(Some(at(60))));
    assert_eq!(node.turn(at(10), true, at(60)), Turn::Birth { first: true });
    assert_eq!(node.turn(at(60), false, at(60)), Turn::Birth { first: true });
}

#[test]
fn nothing_is_born_before_the_primary_host_is_there() {
    let mut node = node(Some("scada"), false);
    assert_eq!(node.turn(at(10), true, at(0)), Turn::Wait(None));
    for (said, turn) in [
        (state(false, 100), Turn::Wait(None)),
        (state(true, 99), Turn::Wait(None)),
        (message("spBv1.0/STATE/scada", b"ONLINE", true), Turn::Wait(None)),
        (message("spBv1.0/STATE/scada", b"{\"online\":true}", true), Turn::Wait(None)),
        (state(true, 100), Turn::Birth { first: true }),
    ] {
        node.takes(&said, at(10)).expect("no failure");
        assert_eq!(node.turn(at(10), true, at(0)), turn, "{said:?}");
    }
    node.bear(at(10));
    // The death of a connection before the present one.
    node.takes(&state(false, 99), at(11)).expect("no failure");
    assert_eq!(node.turn(at(11), true, at(0)), Turn::Go);
    assert!(matches!(node.takes(&state(false, 100), at(12)), Err(Failure::HostOffline(host)) if host == "scada"));
    node.connected();
    assert_eq!(node.turn(at(13), true, at(0)), Turn::Wait(None), "of another broker nothing is known");
}

#[test]
fn where_there_are_other_brokers_the_host_is_looked_for_there() {
    let mut node = node(Some("scada"), true);
    assert!(matches!(node.takes(&state(false, 100), at(12)), Err(Failure::HostOffline(_))));
}

proptest! {
    #[test]
    fn whatever_comes_is_taken(
        payload in prop_oneof![prop::collection::vec(any::<u8>(), 0..100), ".{0,50}".prop_map(String::into_bytes)],
        of_state: bool, retain: bool,
    ) {
        let mut node = node(Some("scada"), false);
        let topic = if of_state { "spBv1.0/STATE/scada" } else { "spBv1.0/maison/NCMD/atelier" };
        prop_assert!(node.takes(&message(topic, &payload, retain), at(1)).expect("no failure"));
    }
}
