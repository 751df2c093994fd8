//! Every form gives a payload that its consumers can read, whatever a sensor is called and gives.

use proptest::prelude::*;
use prost::Message as _;

use super::forms::payload;
use super::tests::{TIME, cut, settings};
use super::*;
use crate::config::{FORMATS, Format};
use crate::reading::{Finite, Location, Quantity};

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<f64>().prop_filter_map("finite", Value::number),
        any::<bool>().prop_map(Value::Switch),
        any::<String>().prop_map(|text| Value::Text(text.into())),
        any::<Vec<u8>>().prop_map(|bytes| Value::Bytes(bytes.into())),
    ]
}

/// What a sensor is called: names from the configuration and from devices, of any characters.
fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{1,8}", "[ ,=\\\\\"éµ/:_\n#+{}'-]{1,6}", any::<String>(), Just("time".to_owned())]
}

prop_compose! {
    fn record()(
        names in prop::collection::vec(name(), 6),
        quantities in prop::collection::vec((name(), prop::option::of(name()), any::<bool>()), 1..4),
        values in prop::collection::vec(value(), 1..4),
        tags in prop::collection::vec((name(), name()), 0..3),
        place: bool,
    ) -> Entry {
        let text = |at: usize| -> Box<str> { names[at].as_str().into() };
        let zero = Finite::new(-0.5).expect("finite");
        let descriptor = Descriptor {
            gateway: text(0),
            site: Some(text(1)),
            room: Some(text(2)),
            room_label: Some(text(3)),
            sensor: text(4),
            label: Some(text(5)),
            location: place.then_some(Location { latitude: zero, longitude: zero, altitude: None }),
            tags: tags.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            quantities: quantities.into_iter().map(|(name, unit, event)| {
                Quantity::new(&name, unit.as_deref(), if event { Kind::Event } else { Kind::Number })
            }).collect(),
        };
        let last = u16::try_from(descriptor.quantities.len() - 1).expect("few");
        let values = (0..).zip(values).map(|(index, value): (u16, Value)| (index.min(last), value)).collect();
        super::tests::entry(descriptor, values)
    }
}

fn is_json(payload: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(payload).is_ok()
}

/// The parts of a line that spaces without a backslash, and outside of quotes, tell apart.
fn parts_of_line(line: &str) -> usize {
    let (mut parts, mut quoted, mut escaped) = (1, false, false);
    for character in line.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' if parts == 2 => quoted = !quoted,
            ' ' if !quoted => parts += 1,
            _ => {}
        }
    }
    assert!(!quoted && !escaped, "{line:?}");
    parts
}

fn check(format: Format, payload: &[u8], elements: usize) -> Result<(), TestCaseError> {
    match format {
        Format::Json | Format::JsonArray | Format::Thingsboard | Format::ThingsboardGateway => {
            prop_assert!(is_json(payload), "{}", String::from_utf8_lossy(payload));
        }
        Format::Senml => {
            let pack: serde_json::Value = serde_json::from_slice(payload).expect("JSON");
            let mut base = String::new();
            for record in pack.as_array().expect("an array") {
                if let Some(name) = record["bn"].as_str() {
                    base = name.to_owned();
                }
                let name = base.clone() + record["n"].as_str().expect("a name");
                let allowed = |it: char| it.is_ascii_alphanumeric() || "-:./_".contains(it);
                prop_assert!(
                    name.chars().all(allowed) && name.starts_with(|it: char| it.is_ascii_alphanumeric()),
                    "{}",
                    name
                );
                let values = ["v", "vb", "vs", "vd"].iter().filter(|key| !record[**key].is_null()).count();
                prop_assert_eq!(values, 1, "{}", record);
            }
            prop_assert!(pack[0]["bt"].is_number());
        }
        Format::SenmlCbor => prop_assert!(payload[0] & 0xe0 == 0x80),
        Format::Influx => {
            let text = std::str::from_utf8(payload).expect("UTF-8");
            prop_assert_eq!(text.split('\n').count(), elements);
            for line in text.split('\n') {
                prop_assert_eq!(parts_of_line(line), 3, "{}", line);
            }
        }
        Format::Thingspeak => {
            let text = std::str::from_utf8(payload).expect("UTF-8");
            let plain = |it: char| it.is_ascii_alphanumeric() || "-._~%&=:".contains(it);
            prop_assert!(text.starts_with("field") && text.chars().all(plain), "{}", text);
        }
        Format::SparkplugB => {
            let payload = crate::uplink::sparkplug::schema::Payload::decode(payload).expect("protobuf");
            prop_assert!(payload.metrics.len() >= elements && payload.seq == Some(0));
            for metric in &payload.metrics {
                prop_assert!(metric.name.is_some() && metric.value.is_some() && metric.timestamp.is_some());
            }
        }
        Format::Value | Format::Template => {}
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_payload_can_be_read(
        records in prop::collection::vec(record(), 1..4), which in 0..FORMATS.len(), base64: bool, backlog: bool,
    ) {
        let info = &FORMATS[which];
        let topic = Some(Template::parse("all").expect("a template"));
        let mut payload = Payload { base64, topic, ..payload(info.format) };
        for (field, quantity) in (1..=8_u8).zip(records.iter().flat_map(|it| match &it.body {
            Body::Reading { descriptor, .. } => descriptor.quantities.iter(),
            Body::Raw(_) => [].iter(),
        })) {
            payload.channel.insert(quantity.name.to_string(), field);
        }
        let mut encoder = Encoder::new(settings(payload));
        let shape = encoder.shape(&records[0]);
        let cut = Cut { backlog, ..cut(shape) };
        let whole = shape == PayloadShape::Sensor;
        let parts: Vec<Part<'_>> = records
            .iter()
            .map(|entry| Part { entry, seqs: if whole { entry.seqs() } else { entry.seq..entry.seq + 1 }, date: TIME })
            .collect();
        let count = if info.several_readings { encoder.group(&parts, cut).count } else { 1 };
        prop_assert!((1..=parts.len()).contains(&count));
        let bytes = matches!(&records[0].body, Body::Reading { values, .. } if matches!(values[0].1, Value::Bytes(_)));
        if let Ok(message) = encoder.message(&parts[..count], cut)
            && (whole || !bytes)
        {
            check(info.format, message.payload, count)?;
        }
    }
}
