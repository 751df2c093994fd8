//! Encoding a record into the output buffer, and what the codec of rumqttc would take for the same.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use divan::{Bencher, black_box, counter::ItemsCount};
use rumqttc::mqttbytes::{QoS, v4::Publish};
use vigie::clock::{BootId, BootTime, WallTime};
use vigie::config::{self, Machine, MqttVersion, Payload, PayloadShape, Qos};
use vigie::drivers::DRIVERS;
use vigie::outbox::{Body, Entry};
use vigie::reading::{Descriptor, Finite, Kind, Location, Quantity, Value};
use vigie::topic::Template;
use vigie::uplink::dating::Date;
use vigie::uplink::encode::{Cut, Encoder, Part, Settings};
use vigie::uplink::packet::{self, Form, Head, Incoming, Reason};
use vigie::uplink::saved::{self, Origin};
use vigie::uplink::session::Session;
use vigie::uplink::veil::Veil;

fn main() {
    divan::main();
}

const DATE: Date = Date::Wall(WallTime(1_795_256_130_123_000_000));
/// Messages of one turn.
const TURN: usize = 100;

fn finite(number: f64) -> Finite {
    Finite::new(number).expect("finite")
}

fn entry() -> Entry {
    let quantity = |name: &str, unit: &str| Quantity::new(name, Some(unit), Kind::Number);
    let descriptor = Descriptor {
        gateway: "atelier".into(),
        site: Some("maison".into()),
        room: Some("salon".into()),
        sensor: "meteo".into(),
        location: Some(Location { latitude: finite(47.5921), longitude: finite(0.9117), altitude: Some(finite(85.0)) }),
        quantities: vec![quantity("temperature", "°C"), quantity("humidity", "%"), quantity("pressure", "hPa")],
        ..Descriptor::default()
    };
    let values =
        vec![(0, Value::Number(finite(21.53))), (1, Value::Number(finite(40.1))), (2, Value::Number(finite(1_013.25)))];
    let body = Body::Reading { descriptor: Arc::new(descriptor), values };
    Entry { seq: 1_042, run: 17, boot: BootId([1; 16]), at: BootTime(83_004_567_891), time: None, place: None, body }
}

fn encoder(shape: PayloadShape) -> Encoder {
    let template = Template::parse("{site}/{room}/{quantity}").expect("a template");
    let payload = Payload { shape, ..Payload::default() };
    Encoder::new(Settings { template, payload, retain: true, backlog_topic: None, veil: Veil::default() })
}

fn publish(bencher: Bencher, shape: PayloadShape, form: Form) {
    let (mut encoder, entry) = (encoder(shape), entry());
    let seqs = if shape == PayloadShape::Sensor { entry.seqs() } else { 1_042..1_043 };
    let parts = [Part { entry: &entry, seqs, date: DATE }];
    let cut = Cut { shape, backlog: false, now: (entry.boot, entry.at) };
    let mut out = BytesMut::with_capacity(64 * 1_024);
    bencher.counter(ItemsCount::new(1_u8)).bench_local(|| {
        out.clear();
        let message = encoder.message(black_box(&parts), cut).expect("a message");
        let head = Head {
            topic: message.topic,
            qos: Qos::AtLeastOnce,
            retain: true,
            dup: false,
            id: 7,
            reading: Some(message.id),
            expiry: None,
            content_type: None,
            integrity: None,
        };
        packet::put_publish(&mut out, &head, form, 10_000, |out| out.extend_from_slice(message.payload))
            .expect("small enough");
        black_box(out.len())
    });
}

/// A whole PUBLISH with the JSON of one value.
#[divan::bench]
fn quantity(bencher: Bencher) {
    publish(bencher, PayloadShape::Quantity, Form::V311);
}

/// The same in MQTT 5, with the reading's id as a user property.
#[divan::bench]
fn quantity_v5(bencher: Bencher) {
    publish(bencher, PayloadShape::Quantity, Form::V5(None));
}

/// A whole PUBLISH with the JSON of three values.
#[divan::bench]
fn sensor(bencher: Bencher) {
    publish(bencher, PayloadShape::Sensor, Form::V311);
}

/// Every form by its name, with what else its uplink says.
const FORMS: [(&str, &str); 13] = [
    ("json", ""),
    ("json, a message for each sensor", "payload = \"sensor\"\n"),
    ("json, cut short", "fields = [\"time\", \"value\"]\ntime_format = \"unix\"\n"),
    ("json-array", "format = \"json-array\"\ntopic = \"{site}/readings\"\n"),
    ("value", "format = \"value\"\n"),
    ("senml", "format = \"senml\"\n"),
    ("senml-cbor", "format = \"senml-cbor\"\n"),
    ("influx", "format = \"influx\"\n"),
    ("template", "format = \"template\"\ntemplate = '{\"at\":{{ time }},\"{{ quantity }}\":{{ value }}}'\n"),
    ("thingsboard", "format = \"thingsboard\"\ntopic = \"v1/devices/me/telemetry\"\n"),
    ("thingsboard-gateway", "format = \"thingsboard-gateway\"\ntopic = \"v1/gateway/telemetry\"\n"),
    (
        "thingspeak",
        "format = \"thingspeak\"\ntopic = \"channels/1/publish\"\nqos = 0\n\
         fields = { temperature = 1, humidity = 2, pressure = 3 }\n",
    ),
    ("sparkplug-b", "preset = \"sparkplug\"\nsparkplug = { group = \"maison\", node = \"atelier\" }\n"),
];

/// The payloads of all three values, as many as the form makes of them: what is to be held against `json`.
#[divan::bench(args = FORMS.map(|(name, _)| name))]
fn form(bencher: Bencher, name: &str) {
    let keys = FORMS.iter().find(|(known, _)| *known == name).map_or("", |(_, keys)| keys);
    let text = format!("[gateway]\nname = \"atelier\"\nsite = \"maison\"\n[uplink.u]\nurl = \"mqtt://b\"\n{keys}");
    let config = config::from_text("bench.toml", &text, &Machine::this(), DRIVERS).map_err(|report| report.to_string());
    let config = config.expect("no errors");
    let payload = config.uplinks[0].payload.clone();
    let (shape, template) = (payload.shape, config.gateway.topic.clone());
    let settings = Settings { template, payload, retain: false, backlog_topic: None, veil: Veil::default() };
    let (mut encoder, entry) = (Encoder::new(settings), entry());
    if let (Some(book), Body::Reading { descriptor, values }) = (encoder.book(), &entry.body) {
        let book = &mut *book.borrow_mut();
        book.begin();
        book.learn(descriptor, values).expect("few metrics");
        book.born(&descriptor.sensor, None, false, |_| None);
    }
    let pieces = match shape {
        PayloadShape::Sensor => vec![entry.seqs()],
        PayloadShape::Quantity => entry.seqs().map(|seq| seq..seq + 1).collect(),
    };
    let parts: Vec<Part<'_>> = pieces.into_iter().map(|seqs| Part { entry: &entry, seqs, date: DATE }).collect();
    let cut = Cut { shape, backlog: false, now: (entry.boot, entry.at) };
    bencher.counter(ItemsCount::new(1_u8)).bench_local(|| {
        for part in &parts {
            let message = encoder.message(black_box(std::slice::from_ref(part)), cut).expect("a message");
            black_box(message.payload.len());
        }
    });
}

/// The same message as `quantity` by way of the codec's own type.
#[divan::bench]
fn quantity_by_the_codec(bencher: Bencher) {
    let (mut encoder, entry) = (encoder(PayloadShape::Quantity), entry());
    let parts = [Part { entry: &entry, seqs: 1_042..1_043, date: DATE }];
    let cut = Cut { shape: PayloadShape::Quantity, backlog: false, now: (entry.boot, entry.at) };
    let mut out = BytesMut::with_capacity(64 * 1_024);
    bencher.counter(ItemsCount::new(1_u8)).bench_local(|| {
        out.clear();
        let message = encoder.message(black_box(&parts), cut).expect("a message");
        let payload = Bytes::copy_from_slice(message.payload);
        let mut publish = Publish::from_bytes(message.topic, QoS::AtLeastOnce, payload);
        (publish.retain, publish.pkid) = (true, 7);
        publish.write(&mut out).expect("small enough");
        black_box(out.len())
    });
}

/// Send, save, acknowledge: what the session costs a turn of 100 messages at a window of 1000.
#[divan::bench]
fn session_turn(bencher: Bencher) {
    let now = BootTime(0);
    let origin = Origin { peer: 1, boot: BootId([1; 16]), run: 1 };
    let mut session = Session::new(1_000);
    let mut seq = 0;
    let mut acked = 1_u16;
    bencher.counter(ItemsCount::new(TURN)).bench_local(|| {
        while session.free() > 0 {
            session.sent(seq..seq + 1, PayloadShape::Quantity, Qos::AtLeastOnce, false, now);
            seq += 1;
        }
        black_box(saved::save(&session, origin, true, false));
        for _ in 0..TURN {
            black_box(session.handle(Incoming::PubAck(acked, Reason::SUCCESS), now));
            acked = if acked == u16::MAX { 1 } else { acked + 1 };
        }
    });
}

/// Reading acknowledgements that came in one chunk.
#[divan::bench]
fn read_acknowledgements(bencher: Bencher) {
    let chunk: Vec<u8> = (1..=100_u16)
        .flat_map(|id| {
            let [high, low] = id.to_be_bytes();
            [0x40, 2, high, low]
        })
        .collect();
    let mut buffer = BytesMut::with_capacity(8 * 1_024);
    bencher.counter(ItemsCount::new(TURN)).bench_local(|| {
        buffer.reserve(8 * 1_024);
        buffer.extend_from_slice(&chunk);
        while let Some(packet) = packet::read(&mut buffer, MqttVersion::V311, 10_000).expect("MQTT") {
            black_box(packet);
        }
    });
}
