use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use proptest::prelude::*;
use prost::Message as _;

use super::super::schema::{Metric as Sent, Payload, Value as Told};
use super::super::wire::{self, DataType, Metric, Scalar};
use super::*;
use crate::reading::{Descriptor, Kind, Quantity};

fn payload(metric: &Metric<'_>) -> BytesMut {
    let mut out = BytesMut::new();
    wire::put_time(&mut out, 1_795_256_130_123);
    wire::put_metric(&mut out, metric);
    wire::put_seq(&mut out, 255);
    out
}

fn asks(payload: &[u8]) -> Result<bool, Malformed> {
    Command::read(payload).map(|command| command.asks_for_rebirth())
}

#[test]
fn a_rebirth_is_asked_for_by_name_and_value() {
    let asked = |name, value| asks(&payload(&Metric::named(name, DataType::Boolean, value)));
    assert_eq!(asked(REBIRTH, Scalar::Boolean(true)), Ok(true));
    assert_eq!(asked(REBIRTH, Scalar::Boolean(false)), Ok(false));
    assert_eq!(asked(REBIRTH, Scalar::Null), Ok(false));
    assert_eq!(asked("Node Control/Reboot", Scalar::Boolean(true)), Ok(false));
    assert_eq!(asks(b""), Ok(false));
    for wrong in [
        &b"\x12"[..],
        b"\x12\x05\x0a",
        b"\x10\x01",
        b"\x00\x01",
        b"\x0b",
        b"\x12\x03\x0a\x01\xff",
        b"\x12\x03\x65\x00\x00",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    ] {
        assert!(asks(wrong).is_err(), "{wrong:?}");
    }
}

/// A device with a relay, a lamp that its sketch calls `l`, and a quantity that is derived from it.
fn known() -> (Book, Writable) {
    let quantity = |(name, kind): (&str, Kind)| Quantity::new(name, None, kind);
    let names = [("relay", Kind::Switch), ("lamp", Kind::Number), ("glow", Kind::Number), ("time", Kind::Text)];
    let descriptor = Arc::new(Descriptor {
        gateway: "atelier".into(),
        sensor: "relais".into(),
        label: Some("Relais".into()),
        quantities: names.map(quantity).into_iter().collect(),
        ..Descriptor::default()
    });
    let mut book = Book::default();
    book.learn(&descriptor, &[]).expect("few");
    let names = [("lamp".to_owned(), Some("l".to_owned())), ("glow".to_owned(), None)];
    (book, Writable { names: BTreeMap::from(names) })
}

/// What the device gets.
fn object(metrics: Vec<Sent>) -> Result<String, String> {
    let (book, writable) = known();
    let sent = Payload { timestamp: Some(1_795_256_130_123), metrics, seq: None }.encode_to_vec();
    let command = Command::read(&sent).expect("protobuf");
    assert_eq!(command.time().as_deref(), Some("2026-11-21T10:15:30.123Z"));
    command.object("relais", &writable, &book)
}

fn named(name: &str, value: Told) -> Sent {
    Sent { name: Some(name.to_owned()), value: Some(value), ..Sent::default() }
}

#[test]
fn metrics_are_written_under_the_names_that_the_device_has_for_them() {
    // The first alias is the node's, the next that of the device's label.
    let by_alias = |alias, value| Sent { alias: Some(alias), value: Some(value), ..Sent::default() };
    assert_eq!(object(vec![by_alias(3, Told::Boolean(true))]).as_deref(), Ok("{\"relay\":true}"));
    let both = vec![named("lamp", Told::Double(40.0)), named("relay", Told::Boolean(false))];
    assert_eq!(object(both).as_deref(), Ok("{\"l\":40,\"relay\":false}"));
    for (metric, why) in [
        (by_alias(2, Told::String("Lampe".to_owned())), "no metric with the alias 2"),
        (by_alias(99, Told::Boolean(true)), "no metric with the alias 99"),
        (named("Properties/Label", Told::String("x".to_owned())), "no metric `Properties/Label`"),
        (named("glow", Told::Double(1.0)), "derived"),
        (named("time", Told::String("2026-11-21T10:15:30Z".to_owned())), "`time` cannot be written"),
        (named("lamp", Told::Double(f64::NAN)), "`lamp` cannot be written with"),
        (named("lamp", Told::Bytes(vec![1])), "`lamp` cannot be written with"),
        (Sent { name: Some("lamp".to_owned()), is_null: Some(true), ..Sent::default() }, "cannot be written with"),
        (Sent { value: Some(Told::Boolean(true)), ..Sent::default() }, "without a name"),
    ] {
        assert!(object(vec![metric.clone()]).is_err_and(|found| found.contains(why)), "{metric:?}: {why}");
    }
    assert!(object(Vec::new()).is_err());
    // One of two that cannot be: none is.
    assert!(object(vec![named("relay", Told::Boolean(true)), named("glow", Told::Double(1.0))]).is_err());
}

#[test]
fn numbers_are_what_was_meant_or_refused() {
    let lamp = |value, datatype| object(vec![Sent { datatype, ..named("lamp", value) }]);
    for (value, datatype, number) in [
        (Told::Double(21.5), None, Some("21.5")),
        (Told::Double(-0.25), Some(10), Some("-0.25")),
        (Told::Double(1e300), None, Some("1e+300")),
        (Told::Float(0.5), Some(9), Some("0.5")),
        (Told::Int(7), None, Some("7")),
        (Told::Int(7), Some(7), Some("7")),
        (Told::Int(u32::MAX), Some(3), Some("-1")),
        (Told::Int(u32::MAX), Some(7), Some("4294967295")),
        (Told::Int(u32::MAX), None, None),
        (Told::Long(u64::MAX), Some(4), Some("-1")),
        (Told::Long(u64::MAX), Some(8), Some("18446744073709551615")),
        (Told::Long(u64::MAX), None, None),
    ] {
        let expected = number.map(|number| format!("{{\"l\":{number}}}"));
        assert_eq!(lamp(value.clone(), datatype).ok(), expected, "{value:?} {datatype:?}");
    }
    assert_eq!(lamp(Told::String("on \"1\"".to_owned()), None).as_deref(), Ok("{\"l\":\"on \\\"1\\\"\"}"));
}

proptest! {
    #[test]
    fn whatever_comes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (book, writable) = known();
        if let Ok(command) = Command::read(&bytes) {
            let _ = (command.time(), command.asks_for_rebirth(), command.object("relais", &writable, &book));
        }
    }

    /// Whatever a host writes that has a form in JSON is what the device gets.
    #[test]
    fn what_is_written_arrives(number: f64, on: bool, text in ".{0,40}") {
        let sent = vec![named("lamp", Told::Double(number)), named("relay", Told::Boolean(on))];
        let found = object(sent).ok().map(|text| serde_json::from_str::<Value>(&text).expect("JSON"));
        prop_assert_eq!(found.is_some(), number.is_finite());
        if let Some(found) = found {
            prop_assert_eq!((found["l"].as_f64(), found["relay"].as_bool()), (Some(number), Some(on)));
        }
        let found: Value = serde_json::from_str(&object(vec![named("lamp", Told::String(text.clone()))]).expect("a text")).expect("JSON");
        prop_assert_eq!(found["l"].as_str(), Some(text.as_str()));
    }

    /// However long it is, and whatever surrounds it; and cut anywhere it is refused, or asks for nothing.
    #[test]
    fn a_rebirth_is_found_among_others(
        before in ".{0,300}", alias: u64, number: f64, blob in prop::collection::vec(any::<u8>(), 0..20_000), cut: prop::sample::Index,
    ) {
        let mut out = BytesMut::new();
        wire::put_metric(&mut out, &Metric { alias: Some(alias), ..Metric::named(&before, DataType::Double, Scalar::Double(number)) });
        wire::put_metric(&mut out, &Metric::named("blob", DataType::Bytes, Scalar::Bytes(&blob)));
        let rest = out.len();
        prop_assert_eq!(asks(&out), Ok(false));
        wire::put_metric(&mut out, &Metric::named(REBIRTH, DataType::Boolean, Scalar::Boolean(true)));
        prop_assert_eq!(asks(&out), Ok(true));
        let cut = rest + cut.index(out.len() - rest);
        prop_assert_ne!(asks(&out[..cut]), Ok(true));
    }
}
