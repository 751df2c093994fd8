//! What each form makes of the same readings, and what it refuses.
//!
//! The documents that the expected texts come from are named in the forms' files.

use std::collections::BTreeMap;

use super::tests::{TIME, cut, descriptor, entry, number, settings};
use super::*;
use crate::clock::WallTime;
use crate::config::{Batch, Field, Format, TimeFormat};

pub(super) fn payload(format: Format) -> Payload {
    let channel = BTreeMap::from([("temperature".to_owned(), 1), ("meteo/humidity".to_owned(), 2)]);
    let source = r#"{{ sensor }} {{ values.temperature|round(1) }}{{ quantity }} {{ time }}"#;
    let template =
        crate::template::Template::parse(source, &["sensor", "values", "quantity", "time"]).expect("a template");
    Payload { format, shape: format.info().shape, channel, template: Some(template), ..Payload::default() }
}

/// The payload that these records make, each as one element.
fn bytes(payload: Payload, records: &[(&Entry, Date)], backlog: bool) -> Result<Vec<u8>, String> {
    let shape = payload.shape;
    let mut encoder = Encoder::new(settings(payload));
    let parts: Vec<Part<'_>> = records
        .iter()
        .map(|(entry, date)| Part {
            entry,
            seqs: if shape == PayloadShape::Sensor { entry.seqs() } else { entry.seq..entry.seq + 1 },
            date: *date,
        })
        .collect();
    let cut = Cut { backlog, ..cut(shape) };
    let count = encoder.group(&parts, cut);
    encoder.message(&parts[..count], cut).map(|message| message.payload.to_vec())
}

fn text(payload: Payload, records: &[(&Entry, Date)]) -> String {
    String::from_utf8(bytes(payload, records, false).expect("a message")).expect("UTF-8")
}

fn two() -> Entry {
    entry(descriptor(), vec![(0, number(21.53)), (1, number(40.0))])
}

/// So many milliseconds after [`TIME`].
fn later(milliseconds: i64) -> Date {
    let Date::Wall(WallTime(time)) = TIME else { panic!("a date") };
    Date::Wall(WallTime(time + milliseconds * 1_000_000))
}

#[test]
fn the_fields_of_json_are_chosen_and_ordered() {
    let fields = vec![Field::Value, Field::Time, Field::Unit, Field::Gateway];
    let chosen = |shape, time| Payload { fields: fields.clone(), shape, time, ..Payload::default() };
    let record = two();
    for (shape, time, expected) in [
        (
            PayloadShape::Quantity,
            TimeFormat::Unix,
            r#"{"value":21.53,"time":1795256130.123,"unit":"°C","gateway":"atelier"}"#,
        ),
        (
            PayloadShape::Sensor,
            TimeFormat::UnixMs,
            concat!(
                r#"{"values":{"temperature":21.53,"humidity":40},"time":1795256130123,"#,
                r#""units":{"temperature":"°C","humidity":"%"},"gateway":"atelier"}"#
            ),
        ),
    ] {
        assert_eq!(text(chosen(shape, time), &[(&record, TIME)]), expected);
    }
    let only = Payload { fields: vec![Field::Time, Field::Backlog, Field::Value], ..Payload::default() };
    assert_eq!(text(only, &[(&record, Date::Uptime(record.boot, record.at))]), r#"{"value":21.53}"#);
}

#[test]
fn an_array_holds_several_objects() {
    let fields = vec![Field::Sensor, Field::Value];
    let array = Payload { fields, ..payload(Format::JsonArray) };
    let other = entry(Descriptor { sensor: "cave".into(), ..descriptor() }, vec![(0, number(12.0))]);
    let record = two();
    // The topic is the same, because it does not name the sensor.
    assert_eq!(
        text(array.clone(), &[(&record, TIME), (&other, TIME)]),
        r#"[{"sensor":"meteo","value":21.53},{"sensor":"cave","value":12}]"#
    );
    assert_eq!(text(array, &[(&record, TIME)]), r#"[{"sensor":"meteo","value":21.53}]"#);
}

#[test]
fn a_value_goes_alone() {
    for (value, expected) in [
        (number(21.530), "21.53"),
        (number(-0.0), "0"),
        (Value::Switch(true), "true"),
        (Value::Text("ouvert \"à demi\"".into()), "ouvert \"à demi\""),
        (Value::Bytes([b'a', b'b'].into()), "ab"),
    ] {
        let record = entry(descriptor(), vec![(0, value)]);
        assert_eq!(text(payload(Format::Value), &[(&record, TIME)]), expected);
    }
}

#[test]
fn a_pack_of_senml_says_names_and_times_once() {
    let (first, second) = (two(), entry(descriptor(), vec![(0, number(21.6)), (3, Value::Bytes([0xff, 0xfe].into()))]));
    let mut second = second;
    second.seq = 1_050;
    assert_eq!(
        text(payload(Format::Senml), &[(&first, TIME), (&second, later(10_500))]),
        concat!(
            r#"[{"bn":"maison/salon/meteo/","bt":1795256130.123,"n":"temperature","u":"Cel","v":21.53},"#,
            r#"{"n":"humidity","u":"%RH","v":40},"#,
            // Another descriptor, as after a change of the configuration: the base name is said anew.
            r#"{"bn":"maison/salon/meteo/","n":"temperature","u":"Cel","t":10.5,"v":21.6},"#,
            r#"{"n":"image","t":10.5,"vd":"__4"}]"#
        )
    );
    let mut again = first.clone();
    again.seq = 1_044;
    assert_eq!(
        text(payload(Format::Senml), &[(&first, TIME), (&again, later(-250))]),
        concat!(
            r#"[{"bn":"maison/salon/meteo/","bt":1795256130.123,"n":"temperature","u":"Cel","v":21.53},"#,
            r#"{"n":"humidity","u":"%RH","v":40},{"n":"temperature","u":"Cel","t":-0.25,"v":21.53},"#,
            r#"{"n":"humidity","u":"%RH","t":-0.25,"v":40}]"#
        )
    );
    let odd = Descriptor { site: None, room: Some("été 1".into()), sensor: "météo".into(), ..descriptor() };
    let switch = entry(odd, vec![(0, Value::Switch(true)), (2, Value::Text("\u{7}é".into()))]);
    assert_eq!(
        text(payload(Format::Senml), &[(&switch, TIME)]),
        concat!(
            r#"[{"bn":"x_t__1/m_t_o/","bt":1795256130.123,"n":"temperature","u":"Cel","vb":true},"#,
            r#"{"n":"bouton","vs":"\u0007é"}]"#
        )
    );
}

#[test]
fn cbor_has_the_labels_of_the_rfc() {
    let record = two();
    let found = bytes(payload(Format::SenmlCbor), &[(&record, TIME)], false).expect("a message");
    assert_eq!(
        data_encoding::HEXLOWER.encode(&found),
        concat!(
            "82",
            // {-2: "maison/salon/meteo/", -3: 1795256130.123, 0: "temperature", 1: "Cel", 2: 21.53}
            "a5",
            "21736d6169736f6e2f73616c6f6e2f6d6574656f2f",
            "22fb41dac05bd087df3b",
            "006b74656d7065726174757265",
            "016343656c",
            "02fb403587ae147ae148",
            // {0: "humidity", 1: "%RH", 2: 40}
            "a3",
            "006868756d6964697479",
            "0163255248",
            "021828"
        )
    );
}

#[test]
fn what_nobody_knows_the_time_of_is_not_taken_for_the_present() {
    let record = two();
    let (this_boot, other_boot) = (Date::Uptime(record.boot, record.at), Date::Uptime(BootId([9; 16]), record.at));
    // It was measured 6.995 s ago.
    let relative = text(payload(Format::Senml), &[(&record, this_boot)]);
    assert!(relative.starts_with(r#"[{"bn":"maison/salon/meteo/","bt":-6.995,"n""#), "{relative}");
    assert_eq!(text(payload(Format::Thingsboard), &[(&record, this_boot)]), r#"{"temperature":21.53,"humidity":40}"#);
    let line = text(payload(Format::Influx), &[(&record, this_boot)]);
    assert!(line.ends_with(" temperature=21.53,humidity=40"), "{line}");
    for (format, date) in [
        (Format::Senml, other_boot),
        (Format::SenmlCbor, other_boot),
        (Format::Influx, this_boot),
        (Format::Thingsboard, this_boot),
        (Format::ThingsboardGateway, other_boot),
        (Format::Thingspeak, this_boot),
    ] {
        let why = bytes(payload(format), &[(&record, date)], true).expect_err("it has no time");
        assert!(why.contains("before the clock was set"), "{format:?}: {why}");
    }
    for format in [Format::Json, Format::JsonArray, Format::Value] {
        bytes(payload(format), &[(&record, other_boot)], true).expect("it says that the clock was not set, or no time");
    }
    let ancient = bytes(payload(Format::Senml), &[(&record, Date::Wall(WallTime(1_000_000)))], false);
    assert!(ancient.expect_err("relative").contains("1978"));
}

#[test]
fn lines_of_influx_are_escaped() {
    let mut odd = descriptor();
    odd.room = Some("salle 12, nord=1".into());
    odd.sensor = "c:\\m\u{e9}t\u{e9}o\\".into();
    odd.tags = vec![("a b".into(), "x\ny".into()), ("empty".into(), "".into()), ("room".into(), "twice".into())];
    odd.quantities[0].name = "time".into();
    odd.quantities[1].name = "_a,b=c d".into();
    let record = entry(odd, vec![(0, number(40.0)), (1, Value::Switch(false)), (2, Value::Text("\"a\\b\"\nc".into()))]);
    assert_eq!(
        text(Payload { measurement: "my table,1".to_owned(), ..payload(Format::Influx) }, &[(&record, TIME)]),
        concat!(
            r"my\ table\,1,gateway=atelier,site=maison,room=salle\ 12\,\ nord\=1,sensor=c:/météo/,a\ b=x\ y ",
            r#"x_time=40,x_a\,b\=c\ d=false,bouton="\"a\\b\" c" 1795256130123000000"#
        )
    );
}

#[test]
fn thingsboard_has_telemetry_by_device() {
    let (first, mut again) = (two(), two());
    again.seq = 1_044;
    let other = entry(Descriptor { sensor: "cave".into(), ..descriptor() }, vec![(0, number(12.5))]);
    let one = r#"{"ts":1795256130123,"values":{"temperature":21.53,"humidity":40}}"#;
    let two = r#"{"ts":1795256140123,"values":{"temperature":21.53,"humidity":40}}"#;
    let topic = Some(Template::parse("v1/devices/me/telemetry").expect("a template"));
    let device = Payload { topic: topic.clone(), ..payload(Format::Thingsboard) };
    assert_eq!(text(device.clone(), &[(&first, TIME)]), one);
    assert_eq!(text(device, &[(&first, TIME), (&again, later(10_000))]), format!("[{one},{two}]"));
    let gateway = Payload { topic, ..payload(Format::ThingsboardGateway) };
    assert_eq!(
        text(gateway, &[(&first, TIME), (&other, TIME), (&again, later(10_000))]),
        format!(r#"{{"meteo":[{one},{two}],"cave":[{{"ts":1795256130123,"values":{{"temperature":12.5}}}}]}}"#)
    );
}

#[test]
fn thingspeak_takes_each_field_once() {
    let place = "&lat=47.5921&long=0.9117&elevation=85";
    let topic = Some(Template::parse("channels/12/publish").expect("a template"));
    let channel = Payload { topic, ..payload(Format::Thingspeak) };
    let first = entry(descriptor(), vec![(0, number(1e300)), (2, Value::Text("not sent".into()))]);
    let mut second = entry(descriptor(), vec![(1, Value::Switch(true))]);
    second.seq = 1_044;
    let mut third = entry(descriptor(), vec![(0, number(7.0))]);
    third.seq = 1_045;
    assert_eq!(
        text(channel.clone(), &[(&first, TIME), (&second, later(1_000)), (&third, later(2_000))]),
        format!("field1=1e%2B300&field2=1&created_at=2026-11-21T10:15:31.123Z{place}"),
        "the third needs a field that is taken"
    );
    let other = entry(Descriptor { sensor: "cave".into(), ..descriptor() }, vec![(1, number(3.0))]);
    let mut encoder = Encoder::new(settings(channel.clone()));
    assert!(encoder.takes(&first) && !encoder.takes(&other), "the humidity of another sensor");
    assert!(bytes(channel, &[(&other, TIME)], false).is_err());
}

#[test]
fn a_template_has_the_fields_of_json() {
    let record = two();
    let sensor = Payload { shape: PayloadShape::Sensor, ..payload(Format::Template) };
    assert_eq!(text(sensor, &[(&record, TIME)]), "meteo 21.5 2026-11-21T10:15:30.123Z");
    let word = entry(descriptor(), vec![(0, Value::Text("x".into()))]);
    let sensor = Payload { shape: PayloadShape::Sensor, ..payload(Format::Template) };
    let why = bytes(sensor, &[(&word, TIME)], false).expect_err("it cannot be rounded");
    assert!(why.contains("the template: line 1"), "{why}");
}

#[test]
fn bytes_without_a_place_are_refused_with_a_remedy() {
    let record = entry(descriptor(), vec![(3, Value::Bytes([0xff, 0].into()))]);
    for format in [Format::Influx, Format::Thingsboard, Format::ThingsboardGateway] {
        let quantity = |base64| Payload { shape: PayloadShape::Quantity, base64, ..payload(format) };
        let why = bytes(quantity(false), &[(&record, TIME)], false).expect_err("no place");
        assert!(why.contains("bytes = \"base64\""), "{why}");
        assert!(text(quantity(true), &[(&record, TIME)]).contains("\"/wA=\""));
    }
}

/// Only what has a place in the same message, and goes to the same topic, becomes one.
#[test]
fn what_cannot_be_together_is_not() {
    let group = |payload: Payload, records: &[(&Entry, Date)]| {
        let shape = payload.shape;
        let mut encoder = Encoder::new(settings(payload));
        let parts: Vec<Part<'_>> =
            records.iter().map(|(entry, date)| Part { entry, seqs: entry.seqs(), date: *date }).collect();
        encoder.group(&parts, cut(shape))
    };
    let batch = Some(Batch { max: 10, wait: Duration::ZERO });
    let array = || Payload { batch, shape: PayloadShape::Sensor, ..payload(Format::JsonArray) };
    let (meteo, cave) = (two(), entry(Descriptor { sensor: "cave".into(), ..descriptor() }, vec![(0, number(1.0))]));
    assert_eq!(group(array(), &[(&meteo, TIME), (&meteo, TIME), (&cave, TIME)]), 2, "the topic names the sensor");
    let undated = Date::Uptime(meteo.boot, meteo.at);
    assert_eq!(group(payload(Format::Senml), &[(&meteo, TIME), (&meteo, undated)]), 1, "one base time for all");
    let raw = Entry {
        body: Body::Raw(Raw { topic: "maison/salon/meteo".into(), payload: Box::default(), retain: false }),
        ..two()
    };
    assert_eq!(group(array(), &[(&raw, TIME), (&meteo, TIME)]), 1);
    assert_eq!(group(array(), &[(&meteo, TIME), (&raw, TIME)]), 1);
    assert_eq!(group(array(), &[]), 1);
}
