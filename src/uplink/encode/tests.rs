use super::*;
use crate::clock::WallTime;
use crate::config::{Field, Format};
use crate::reading::{Finite, Fix, Location, Quantity};

/// 2026-11-21T10:15:30.123Z
pub(super) const TIME: Date = Date::Wall(WallTime(1_795_256_130_123_000_000));

fn finite(number: f64) -> Finite {
    Finite::new(number).expect("finite")
}

fn quantity(name: &str, unit: Option<&str>, kind: Kind) -> Quantity {
    Quantity::new(name, unit, kind)
}

pub(super) fn descriptor() -> Descriptor {
    Descriptor {
        gateway: "atelier".into(),
        site: Some("maison".into()),
        room: Some("salon".into()),
        sensor: "meteo".into(),
        location: Some(Location { latitude: finite(47.5921), longitude: finite(0.9117), altitude: Some(finite(85.0)) }),
        quantities: vec![
            quantity("temperature", Some("°C"), Kind::Number),
            quantity("humidity", Some("%"), Kind::Number),
            quantity("bouton", None, Kind::Event),
            quantity("image", None, Kind::Bytes),
        ],
        ..Descriptor::default()
    }
}

pub(super) fn entry(descriptor: Descriptor, values: Vec<(u16, Value)>) -> Entry {
    Entry {
        seq: 1042,
        run: 17,
        boot: BootId([0xab; 16]),
        at: BootTime(83_004_567_891),
        time: None,
        place: None,
        body: Body::Reading { descriptor: Arc::new(descriptor), values },
    }
}

pub(super) fn settings(payload: Payload) -> Settings {
    let template = Template::parse("{site}/{room}/{quantity}").expect("a template");
    Settings { template, payload, retain: true, backlog_topic: None, veil: Veil::default() }
}

fn encoder(shape: PayloadShape) -> Encoder {
    Encoder::new(settings(Payload { shape, ..Payload::default() }))
}

pub(super) fn cut(shape: PayloadShape) -> Cut {
    Cut { shape, backlog: false, now: (BootId([0xab; 16]), BootTime(90_000_000_000)) }
}

fn part(entry: &Entry, seqs: Range<Seq>, date: Date) -> Part<'_> {
    Part { entry, seqs, date }
}

/// Topic, retained?, payload of the message at this value.
fn quantity_message(entry: &Entry, place: u64, date: Date) -> (String, bool, String) {
    let mut encoder = encoder(PayloadShape::Quantity);
    let start = entry.seq + place;
    let parts = [part(entry, start..start + 1, date)];
    shown(&encoder.message(&parts, cut(PayloadShape::Quantity)).expect("a message"))
}

fn sensor_message(entry: &Entry, date: Date) -> (String, bool, String) {
    let mut encoder = encoder(PayloadShape::Sensor);
    assert_eq!(encoder.shape(entry), PayloadShape::Sensor);
    let parts = [part(entry, entry.seqs(), date)];
    shown(&encoder.message(&parts, cut(PayloadShape::Sensor)).expect("a message"))
}

fn shown(message: &Message<'_>) -> (String, bool, String) {
    let payload = String::from_utf8(message.payload.to_vec()).expect("UTF-8");
    (message.topic.to_owned(), message.retain, payload)
}

pub(super) fn number(number: f64) -> Value {
    Value::Number(finite(number))
}

#[test]
fn a_quantity_has_a_message_of_its_own() {
    let entry = entry(descriptor(), vec![(0, number(21.53)), (1, number(40.0))]);
    assert_eq!(
        quantity_message(&entry, 0, TIME),
        (
            "maison/salon/temperature".to_owned(),
            true,
            concat!(
                r#"{"id":"17-1042","time":"2026-11-21T10:15:30.123Z","site":"maison","room":"salon","sensor":"meteo","#,
                r#""quantity":"temperature","value":21.53,"unit":"°C","clock":"set","#,
                r#""location":{"latitude":47.5921,"longitude":0.9117,"altitude":85}}"#
            )
            .to_owned()
        )
    );
    let (topic, _, payload) = quantity_message(&entry, 1, TIME);
    assert_eq!(topic, "maison/salon/humidity");
    assert!(payload.starts_with(r#"{"id":"17-1043","time""#), "{payload}");
    assert!(payload.contains(r#""quantity":"humidity","value":40,"unit":"%","clock""#), "{payload}");
}

#[test]
fn a_sensor_has_one_message() {
    let entry = entry(descriptor(), vec![(0, number(21.53)), (1, number(40.1))]);
    assert_eq!(
        sensor_message(&entry, TIME),
        (
            "maison/salon/meteo".to_owned(),
            true,
            concat!(
                r#"{"id":"17-1042","time":"2026-11-21T10:15:30.123Z","site":"maison","room":"salon","sensor":"meteo","#,
                r#""values":{"temperature":21.53,"humidity":40.1},"units":{"temperature":"°C","humidity":"%"},"#,
                r#""clock":"set","location":{"latitude":47.5921,"longitude":0.9117,"altitude":85}}"#
            )
            .to_owned()
        )
    );
}

#[test]
fn everything_that_can_be_said_has_its_place() {
    let mut full = descriptor();
    full.room_label = Some("Salon d'été".into());
    full.label = Some("Météo \"du\" salon".into());
    full.tags = vec![("floor".into(), "2".into()), ("wall".into(), "nord".into())];
    full.location = Some(Location { latitude: finite(-1.5), longitude: finite(-0.0), altitude: None });
    let (_, _, payload) = quantity_message(&entry(full, vec![(0, Value::Switch(true))]), 0, TIME);
    assert_eq!(
        payload,
        concat!(
            r#"{"id":"17-1042","time":"2026-11-21T10:15:30.123Z","site":"maison","room":"salon","#,
            r#""room_label":"Salon d'été","sensor":"meteo","label":"Météo \"du\" salon","quantity":"temperature","#,
            r#""value":true,"unit":"°C","clock":"set","location":{"latitude":-1.5,"longitude":0},"#,
            r#""tags":{"floor":"2","wall":"nord"}}"#
        )
    );
}

#[test]
fn what_is_not_known_is_left_out() {
    let bare = Descriptor { site: None, room: None, location: None, ..descriptor() };
    let entry = entry(bare, vec![(2, Value::Text("pressé\n".into()))]);
    let head = r#"{"id":"17-1042","time":"2026-11-21T10:15:30.123Z","sensor":"meteo","#;
    let (topic, retain, payload) = quantity_message(&entry, 0, TIME);
    assert_eq!(payload, format!(r#"{head}"quantity":"bouton","value":"pressé\n","clock":"set"}}"#));
    assert_eq!((topic.as_str(), retain), ("bouton", false), "an event is not retained");
    let (_, retain, payload) = sensor_message(&entry, TIME);
    assert_eq!(payload, format!(r#"{head}"values":{{"bouton":"pressé\n"}},"clock":"set"}}"#));
    assert!(!retain);
}

#[test]
fn without_a_date_the_boot_and_its_uptime_are_said() {
    let entry = entry(Descriptor { location: None, ..descriptor() }, vec![(0, number(1.0))]);
    let (_, _, payload) = quantity_message(&entry, 0, Date::Uptime(entry.boot, entry.at));
    assert_eq!(
        payload,
        concat!(
            r#"{"id":"17-1042","site":"maison","room":"salon","sensor":"meteo","quantity":"temperature","value":1,"#,
            r#""unit":"°C","clock":"unset","boot":"abababababababababababababababab","uptime":83.004}"#
        )
    );
}

/// The first value of a record, cut by quantity.
fn first_message<'a>(encoder: &'a mut Encoder, entry: &'a Entry) -> Result<Message<'a>, String> {
    encoder.message(&[part(entry, 1042..1043, TIME)], cut(PayloadShape::Quantity))
}

#[test]
fn raw_messages_and_bytes_go_out_as_they_are() {
    let mut with_image = entry(descriptor(), vec![(3, Value::Bytes([0xff, 0x00].into())), (0, number(1.0))]);
    let mut encoder = encoder(PayloadShape::Sensor);
    assert_eq!(encoder.shape(&with_image), PayloadShape::Quantity, "bytes are no JSON");
    let message = first_message(&mut encoder, &with_image).expect("a message of bytes");
    assert_eq!((message.topic, message.payload), ("maison/salon/image", [0xff, 0x00].as_slice()));

    with_image.body = Body::Raw(Raw { topic: "z2m/lampe".into(), payload: b"\xfe{}".as_slice().into(), retain: false });
    let message = first_message(&mut encoder, &with_image).expect("a raw message");
    assert_eq!((message.topic, message.retain, message.payload), ("z2m/lampe", false, b"\xfe{}".as_slice()));

    // What a LAN client wants retained is, but not as backlog; what comes down to them always.
    let up = Raw { topic: "z2m/lampe".into(), payload: Box::default(), retain: true };
    for (raw, also_backlog) in [(up, false), (Raw::down("z2m/lampe", b"", true), true)] {
        with_image.body = Body::Raw(raw);
        for backlog in [false, true] {
            let cut = Cut { backlog, ..cut(PayloadShape::Quantity) };
            let parts = [part(&with_image, 1042..1043, TIME)];
            let message = encoder.message(&parts, cut).expect("a raw message");
            assert_eq!((message.topic, message.retain), ("z2m/lampe", !backlog || also_backlog));
        }
    }
}

#[test]
fn bytes_say_what_they_are_beside_them_or_in_json() {
    let mut picture = descriptor();
    picture.quantities[3].content_type = Some("image/png".into());
    let entry = entry(Descriptor { location: None, ..picture }, vec![(3, Value::Bytes([0xff, 0x00].into()))]);
    let mut encoder = encoder(PayloadShape::Sensor);
    let raw = first_message(&mut encoder, &entry).expect("a message");
    assert_eq!((raw.content_type, raw.retain), (Some("image/png"), true));
    let mut encoder = Encoder::new(settings(Payload { base64: true, ..Payload::default() }));
    let json = first_message(&mut encoder, &entry).expect("a message");
    assert_eq!(json.content_type, None);
    let (topic, _, payload) = shown(&json);
    assert_eq!(topic, "maison/salon/image");
    let value = r#""quantity":"image","value":"/wA=","content_type":"image/png","clock":"set"}"#;
    assert!(payload.ends_with(value), "{payload}");
}

#[test]
fn no_topic_leaves_that_a_broker_would_end_the_connection_for() {
    let mut odd = descriptor();
    odd.quantities[0].name = "a+b#\u{7}".into();
    let odd = entry(odd, vec![(0, number(1.0))]);
    assert_eq!(quantity_message(&odd, 0, TIME).0, "maison/salon/a_b__");

    let mut encoder = encoder(PayloadShape::Quantity);
    for topic in ["", "a/#", "a\u{0}b", &"x".repeat(70_000)] {
        let raw = Body::Raw(Raw { topic: topic.into(), payload: Box::default(), retain: false });
        let entry = Entry { body: raw, ..odd.clone() };
        assert!(first_message(&mut encoder, &entry).is_err());
    }
    // Positions and indices that the record does not hold give no message, and no panic.
    for seqs in [1..2, 1050..1051, 1042..1044, 1042..1042] {
        assert!(encoder.message(&[part(&odd, seqs, TIME)], cut(PayloadShape::Quantity)).is_err());
    }
    let unknown = entry(descriptor(), vec![(9, number(1.0))]);
    assert!(first_message(&mut encoder, &unknown).is_err());
    assert!(encoder.message(&[], cut(PayloadShape::Quantity)).is_err());
}

#[test]
fn the_cache_is_bounded_and_never_mixes_sensors_up() {
    let mut encoder = encoder(PayloadShape::Quantity);
    for sensor in 0..MAX_CACHED + 10 {
        let name = format!("s{sensor}");
        let entry = entry(Descriptor { room: Some(name.clone().into()), ..descriptor() }, vec![(0, number(1.0))]);
        let message = first_message(&mut encoder, &entry).expect("a message");
        assert_eq!(message.topic, format!("maison/{name}/temperature"));
        assert!(encoder.maker.cache.len() <= MAX_CACHED);
    }
}

#[test]
fn where_a_receiver_was_goes_before_where_the_sensor_is() {
    let finite = |number| Finite::new(number).expect("finite");
    let location = Location { latitude: finite(-12.5), longitude: finite(3.25), altitude: None };
    for (accuracy, expected) in [
        (Some(finite(4.4)), r#""location":{"latitude":-12.5,"longitude":3.25,"accuracy":4.4,"age":0.25}"#),
        (None, r#""location":{"latitude":-12.5,"longitude":3.25,"age":0.25}"#),
    ] {
        let mut record = entry(descriptor(), vec![(0, number(21.53))]);
        record.place = Some(Fix { location, accuracy, age: 250 });
        let mut encoder = encoder(PayloadShape::Quantity);
        let (_, _, payload) = shown(&first_message(&mut encoder, &record).expect("a message"));
        assert!(payload.contains(expected), "{payload}");
        assert_eq!(payload.matches("latitude").count(), 1, "{payload}");
        let source = "{{ location.latitude }} {{ location.accuracy }} {{ location.age }}";
        let template = crate::template::Template::parse(source, &["location"]).expect("a template");
        let form = Payload { format: Format::Template, template: Some(template), ..Payload::default() };
        let mut encoder = Encoder::new(settings(form));
        let (_, _, payload) = shown(&first_message(&mut encoder, &record).expect("a message"));
        let shown = accuracy.map_or_else(String::new, |accuracy| accuracy.to_string());
        assert_eq!(payload, format!("-12.5 {shown} 0.25"));
    }
}

/// The expected sums were made with Python's `zlib.crc32` and `hmac`.
#[test]
fn a_checksum_is_the_last_field_or_stands_beside_the_payload() {
    let key: [u8; 32] = std::array::from_fn(|index| u8::try_from(index).expect("below 256"));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
    let record = entry(descriptor(), vec![(0, number(21.53))]);
    let crc = "55801e90";
    let hmac = "8d7f6deb08adb48b3330cc29139849b20b3842478fc71353c883cbd16326d9f8";
    for (integrity, field) in [
        (Integrity::Crc32, format!("\"crc32\":\"{crc}\"")),
        (Integrity::Hmac(Arc::new(key)), format!("\"hmac-sha256\":\"{hmac}\"")),
    ] {
        let payload = Payload { fields: vec![Field::Value], integrity: Some(integrity.clone()), ..Payload::default() };
        let mut encoder = Encoder::new(settings(payload.clone()));
        let message = first_message(&mut encoder, &record).expect("a message");
        assert_eq!((shown(&message).2, &message.integrity), (format!("{{\"value\":21.53,{field}}}"), &None));
        let mut encoder = Encoder::new(settings(Payload { format: Format::Value, ..payload }));
        let message = first_message(&mut encoder, &record).expect("a message");
        assert_eq!(message.payload, b"21.53");
        assert_eq!(message.integrity, Some((integrity.name(), integrity.of(b"21.53"))));
        let raw = Body::Raw(Raw { topic: "tv".into(), payload: (*b"on").into(), retain: false });
        let raw = Entry { body: raw, ..record.clone() };
        let message = first_message(&mut encoder, &raw).expect("a message");
        assert_eq!(message.integrity, Some((integrity.name(), integrity.of(b"on"))));
    }
}

#[test]
fn the_backlog_says_so_and_is_not_retained() {
    let entry = entry(descriptor(), vec![(0, number(21.53))]);
    let around = BacklogTopic { before: "late/".to_owned(), after: String::new() };
    for (backlog_topic, topic) in [(None, "maison/salon/temperature"), (Some(around), "late/maison/salon/temperature")]
    {
        let mut encoder = Encoder::new(Settings { backlog_topic, ..settings(Payload::default()) });
        let late = Cut { backlog: true, ..cut(PayloadShape::Quantity) };
        let parts = [part(&entry, 1042..1043, TIME)];
        let (found, retain, payload) = shown(&encoder.message(&parts, late).expect("a message"));
        assert_eq!((found.as_str(), retain), (topic, false));
        assert!(payload.contains(r#""clock":"set","backlog":true,"location""#), "{payload}");
        let live = first_message(&mut encoder, &entry).expect("a message");
        assert_eq!((live.topic, live.retain), ("maison/salon/temperature", true));
    }
}
