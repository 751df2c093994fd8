//! `docs/payloads.md`, of which every example and every number is what the encoder makes.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use super::tests::{TIME, cut, descriptor, entry, number, settings};
use super::*;
use crate::clock::WallTime;
use crate::config::{Field, Format, Qos, TimeFormat};
use crate::reading::Kind;
use crate::uplink::packet::{self, Alias, Form, Head};

/// One form as the page shows it.
struct Shown {
    title: &'static str,
    for_whom: &'static str,
    /// What stands in `[uplink.NAME]`.
    toml: &'static str,
    payload: Payload,
    says: &'static str,
}

fn plain(format: Format) -> Payload {
    Payload { format, shape: format.info().shape, ..Payload::default() }
}

fn at(topic: &str, payload: Payload) -> Payload {
    Payload { topic: Some(Template::parse(topic).expect("a template")), ..payload }
}

fn shown() -> Vec<Shown> {
    let source = r#"{"at":{{ time }},"{{ quantity }}":{{ value }}}"#;
    let template = crate::template::Template::parse(source, &["time", "quantity", "value"]).expect("a template");
    let channel =
        BTreeMap::from([("temperature".to_owned(), 1), ("humidity".to_owned(), 2), ("pressure".to_owned(), 3)]);
    let short = vec![Field::Time, Field::Value];
    vec![
        Shown {
            title: "json",
            for_whom: "Node-RED, Home Assistant, programs of one's own: whoever reads JSON.",
            toml: "",
            payload: plain(Format::Json),
            says: "What is not known is left out. Numbers have the shortest form that reads back as the same number. Without \
                   a date there is no `time`; `clock` is then `unset`, and `boot` and `uptime` say when it was. The backlog \
                   has `\"backlog\":true`. A place that a GPS receiver gives has `accuracy` (metres) and `age` (seconds between \
                   fix and measurement) in `location`.",
        },
        Shown {
            title: "json, a message for each sensor",
            for_whom: "The same, in a quarter of the messages.",
            toml: "payload = \"sensor\"",
            payload: Payload { shape: PayloadShape::Sensor, ..plain(Format::Json) },
            says: "`values` and `units` stand where `value` and `unit` would.",
        },
        Shown {
            title: "json, cut short",
            for_whom: "Narrow links.",
            toml: "fields = [\"time\", \"value\"]\ntime_format = \"unix\"",
            payload: Payload { fields: short.clone(), time: TimeFormat::Unix, ..plain(Format::Json) },
            says: "`fields` says what is in it, in which order. The topic says what else there is to know.",
        },
        Shown {
            title: "json-array",
            for_whom: "AWS and Azure behind a stream, databases: whoever takes several readings at a time.",
            toml: "format = \"json-array\"\ntopic = \"{site}/readings\"\nfields = [\"time\", \"sensor\", \"quantity\", \"value\"]\nbatch = { max = 100, wait = \"10s\" }",
            payload: at(
                "{site}/readings",
                Payload {
                    fields: vec![Field::Time, Field::Sensor, Field::Quantity, Field::Value],
                    ..plain(Format::JsonArray)
                },
            ),
            says: "An array of what would be messages of their own, also where there is but one.",
        },
        Shown {
            title: "value",
            for_whom: "Displays, PLCs, OpenRemote, Home Assistant without a template.",
            toml: "format = \"value\"",
            payload: plain(Format::Value),
            says: "The value alone: a number, `true` or `false`, a text, or bytes as they are. When it was measured is not \
                   said, nor in which unit.",
        },
        Shown {
            title: "senml",
            for_whom: "Mainflux (Magistrala), LwM2M and CoAP gateways.",
            toml: "format = \"senml\"",
            payload: plain(Format::Senml),
            says: "RFC 8428. The base name is site, room and sensor. Units are those of its registry, with values converted: \
                   hPa to Pa, kWh to J, mV to V; `%` is `%RH` for humidity and moisture, `%EL` for a battery, else a part of \
                   one (`/`). A unit that has no name there is left out. A reading without a date says how long ago it was, \
                   as long as it was in this boot. Bytes are `vd`.",
        },
        Shown {
            title: "senml-cbor",
            for_whom: "The same in fewer bytes.",
            toml: "format = \"senml-cbor\"",
            payload: plain(Format::SenmlCbor),
            says: "The same pack in CBOR, shown here in hexadecimal. Numbers have the shortest form that is the same double.",
        },
        Shown {
            title: "influx",
            for_whom: "InfluxDB, Telegraf, QuestDB, VictoriaMetrics.",
            toml: "format = \"influx\"\ntopic = \"influx/{gateway}\"\nbatch = { max = 100, wait = \"10s\" }",
            payload: at("influx/{gateway}", plain(Format::Influx)),
            says: "The line protocol: table (`measurement`, `vigie` unless given), tags, fields, nanoseconds. Numbers are floats, \
                   whole ones too. In names, backslashes become slashes and quotes apostrophes; in texts, line feeds become \
                   spaces; a quantity `time`, which InfluxDB keeps for itself, becomes `x_time`.",
        },
        Shown {
            title: "template",
            for_whom: "Everybody else.",
            toml: "format = \"template\"\ntime_format = \"unix_ms\"\ntemplate = '''{\"at\":{{ time }},\"{{ quantity }}\":{{ value }}}'''",
            payload: Payload { template: Some(template), time: TimeFormat::UnixMs, ..plain(Format::Template) },
            says: "The language of Jinja, with the fields of JSON as variables (`values.temperature` with `payload = \
                   \"sensor\"`) and filters such as `round`, `upper`, `tojson`; no files, no functions, at most 50000 steps and \
                   1 MiB. What is not known comes out empty. `vigie check` tries it with a reading that has everything; a \
                   reading that it fails for is refused and counted.",
        },
        Shown {
            title: "thingsboard",
            for_whom: "ThingsBoard, the gateway as one device.",
            toml: "format = \"thingsboard\"\ntopic = \"v1/devices/me/telemetry\"",
            payload: at("v1/devices/me/telemetry", plain(Format::Thingsboard)),
            says: "Telemetry of a device; several readings in an array. Quantities of one name of several sensors are one \
                   there: give them other names with `as`, or use the next form.",
        },
        Shown {
            title: "thingsboard-gateway",
            for_whom: "ThingsBoard, each sensor a device.",
            toml: "format = \"thingsboard-gateway\"\ntopic = \"v1/gateway/telemetry\"",
            payload: at("v1/gateway/telemetry", plain(Format::ThingsboardGateway)),
            says: "Devices have the sensors' names.",
        },
        Shown {
            title: "thingspeak",
            for_whom: "ThingSpeak.",
            toml: "format = \"thingspeak\"\ntopic = \"channels/12345/publish\"\nqos = 0\nfields = { temperature = 1, humidity = 2, \"meteo/pressure\" = 3 }\nbatch = { wait = \"15s\" }",
            payload: at("channels/12345/publish", Payload { channel, ..plain(Format::Thingspeak) }),
            says: "`fields` says which quantity goes to which field; others are not sent. With `batch`, readings of several \
                   sensors become one update, until a field would come twice.",
        },
        Shown {
            title: "sparkplug-b",
            for_whom: "Ignition and other host applications of Sparkplug 3.0.",
            toml: "preset = \"sparkplug\"\nsparkplug = { group = \"maison\", node = \"atelier\" }",
            payload: at("spBv1.0/maison/DDATA/atelier/{sensor}", plain(Format::SparkplugB)),
            says: "Protocol Buffers, shown here in hexadecimal: a DDATA of the device that the sensor is, with the aliases that \
                   its DBIRTH gave to the quantities; [targets](targets.md#sparkplug-b-preset--sparkplug) says when there are \
                   births and deaths.",
        },
    ]
}

fn meteo(seq: Seq) -> Entry {
    let mut known = descriptor();
    known.quantities.truncate(2);
    known.quantities.push(crate::reading::Quantity::new("pressure", Some("hPa"), Kind::Number));
    let record = entry(known, vec![(0, number(21.53)), (1, number(40.1)), (2, number(1_013.27))]);
    Entry { seq, ..record }
}

/// So many readings of one sensor, ten seconds apart.
fn records(count: u32) -> Vec<(Entry, Date)> {
    let Date::Wall(WallTime(first)) = TIME else { panic!("a date") };
    let Body::Reading { descriptor, .. } = meteo(0).body else { panic!("a reading") };
    let record = |index: u32| {
        let mut record = meteo(1_042 + 3 * Seq::from(index));
        if let Body::Reading { descriptor: own, .. } = &mut record.body {
            *own = descriptor.clone();
        }
        (record, Date::Wall(WallTime(first + i64::from(index) * 10_000_000_000)))
    };
    (0..count).map(record).collect()
}

/// The elements of these records, and how many of them go into the first message.
fn parts(payload: &Payload, records: &[(Entry, Date)]) -> Vec<(usize, Range<Seq>)> {
    let mut parts = Vec::new();
    for (index, (entry, _)) in records.iter().enumerate() {
        match payload.shape {
            PayloadShape::Sensor => parts.push((index, entry.seqs())),
            PayloadShape::Quantity => parts.extend(entry.seqs().map(|seq| (index, seq..seq + 1))),
        }
    }
    parts
}

/// Where the form has births: the sensor is born, some time before it gives these values.
fn born(encoder: &Encoder, records: &[(Entry, Date)]) {
    let (Some(book), [(first, Date::Wall(time)), ..]) = (encoder.book(), records) else { return };
    let Body::Reading { descriptor, values } = &first.body else { panic!("a reading") };
    let book = &mut *book.borrow_mut();
    book.begin();
    book.set_time(Some(*time));
    assert_eq!(book.learn(descriptor, values), Ok(true));
    book.sent();
    book.born(&descriptor.sensor, None, false, |_| None);
    book.sent();
}

/// Bytes of all PUBLISH packets for these records, headers included, and how many packets there are.
fn bytes(payload: &Payload, records: &[(Entry, Date)], batched: bool, form: impl Fn(bool) -> Form) -> (usize, usize) {
    let mut encoder = Encoder::new(settings(payload.clone()));
    born(&encoder, records);
    let qos = if payload.format == Format::SparkplugB { Qos::AtMostOnce } else { Qos::AtLeastOnce };
    let pieces = parts(payload, records);
    let mut parts: Vec<Part<'_>> = pieces
        .into_iter()
        .map(|(index, seqs)| Part { entry: &records[index].0, seqs, date: records[index].1 })
        .collect();
    let (mut out, mut messages, cut) = (BytesMut::new(), 0, cut(payload.shape));
    while !parts.is_empty() {
        let count = if batched { encoder.group(&parts, cut).count } else { 1 };
        let message = encoder.message(&parts[..count], cut).expect("a message");
        let head = Head {
            topic: message.topic,
            qos,
            retain: true,
            dup: false,
            id: 7,
            reading: Some(message.id),
            expiry: None,
            content_type: None,
            integrity: None,
        };
        let known = messages >= topics(payload);
        packet::put_publish(&mut out, &head, form(known), 1 << 20, |out| out.extend_from_slice(message.payload))
            .expect("small enough");
        parts.drain(..count);
        messages += 1;
    }
    (out.len(), messages)
}

/// How many topics the sensor of the page has.
fn topics(payload: &Payload) -> usize {
    if payload.shape == PayloadShape::Sensor || payload.topic.is_some() { 1 } else { 3 }
}

const HEAD: &str = "\
# Payloads

<!-- Made by `UPDATE_DOCS=1 cargo test --lib payloads`, with what the encoder gives: change src/uplink/encode/docs.rs. -->

What is published for a reading is said by `format` in `[uplink.NAME]`; its other keys are in
[configuration](configuration.md). The outbox keeps values and not payloads, so that another form applies to what waits, too.

All examples are of one sensor, a BME280 in the room `salon` that measures 21.53 °C, 40.1 % and 1013.27 hPa. Where there is
a message for each quantity, the first is shown.
";

/// What is the same in many forms.
const TAIL: &str = "
## What has no place
- **Bytes** (pictures) go out as they are, in a message of their own, with json, json-array, value and template, and inside
  of SenML. With `bytes = \"base64\"` every form has them as a text. The others refuse them.
- **What was measured before the clock was set**, and is sent live, goes without a time with influx, thingsboard and
  thingspeak: the server gives it the time of its arrival. Of the backlog that would be wrong, and it is refused, as it is
  with SenML if it is of an earlier boot.
- With Sparkplug B, such a reading goes live without a timestamp, although the specification wants one, and of the backlog it
  is refused, too.
- **Messages that LAN clients sent** to the embedded broker go on as they came, in every form.

What is refused is counted, and put aside with its reason: see [delivery](delivery.md).

## Several readings in one message
With `batch = { max = 100, wait = \"10s\" }` consecutive readings on one topic become one message. Give the uplink a `topic`
that they share. A live reading waits for others for `wait` at most; the backlog fills its messages at once; before vigie
ends, and while a connection is only made now and then (`connect`), nothing waits.

All readings of a message are acknowledged together, and sent again together: the same ones under the same packet id, so that
QoS 2 delivers each exactly once. What would be larger than `max_packet`, or than the broker says that it takes, is cut; a
reading that is too large by itself is refused alone. What the broker refuses, it refuses as a whole. Messages of several
readings are never retained. When `format` or `topic` changes while such messages are in flight, they are sent anew.
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    let one = records(1);
    let hundred = records(100);
    let mut table = String::new();
    for Shown { title, for_whom, toml, payload, says } in shown() {
        let mut encoder = Encoder::new(settings(payload.clone()));
        born(&encoder, &one);
        let (entry, date) = &one[0];
        let first = parts(&payload, &one).remove(0);
        let parts = [Part { entry, seqs: first.1, date: *date }];
        let message = encoder.message(&parts, cut(payload.shape)).expect("a message");
        let text = std::str::from_utf8(message.payload)
            .map_or_else(|_| data_encoding::HEXLOWER.encode(message.payload), str::to_owned);
        let _ = write!(page, "\n## {title}\nFor: {for_whom}\n\n");
        if !toml.is_empty() {
            let _ = write!(page, "```toml\n{toml}\n```\n\n");
        }
        let _ = write!(page, "On `{}`:\n```\n{text}\n```\n{says}\n", message.topic);

        let (v3, messages) = bytes(&payload, &one, false, |_| Form::V311);
        let (aliased, _) = bytes(&payload, &hundred, false, |known| Form::V5(Some(Alias { number: 1, known })));
        let batched = payload.format.info().several_readings && payload.format != Format::Thingspeak;
        let together = if batched {
            let (all, _) = bytes(&payload, &hundred, true, |_| Form::V311);
            format!("{}", (all + 50) / 100)
        } else {
            "".to_owned()
        };
        let _ = writeln!(table, "| {title} | {messages} | {v3} | {} | {together} |", (aliased + 50) / 100);
    }
    page += "\n## How many bytes that is\n\
             For one look at the sensor, which gives three values: what is written for it, header, topic and packet id included, \
             at QoS 1 (Sparkplug B: 0). TCP adds 40 bytes to each packet and TLS about 22, and acknowledgements come back; that is where a batch \
             saves most. MQTT 5 with aliases leaves the topic out from the second time on, but carries the reading's `id` beside \
             each message.\n\n\
             | form | messages | bytes | with aliases | of a hundred in a batch |\n|---|---|---|---|---|\n";
    page + &table + TAIL
}

#[test]
fn the_page_of_payloads_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/payloads.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, page()).expect("a writable folder");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == page(), "docs/payloads.md is not current: run `UPDATE_DOCS=1 cargo test --lib payloads`");
}

/// The `toml` of each form is a configuration that gives this form.
#[test]
fn the_examples_of_the_page_of_payloads_are_right() {
    for Shown { title, toml, payload, .. } in shown() {
        let text = format!("[gateway]\nsite = \"maison\"\n[uplink.home]\nurl = \"mqtt://localhost\"\n{toml}\n");
        let config =
            crate::config::from_text("vigie.toml", &text, &crate::config::Machine::this(), crate::drivers::DRIVERS)
                .map_err(|report| crate::config::render(&report, false))
                .expect(title);
        let found = &config.uplinks[0].payload;
        assert_eq!(
            (found.format, found.shape, &found.fields),
            (payload.format, payload.shape, &payload.fields),
            "{title}"
        );
        assert_eq!((found.time, &found.topic), (payload.time, &payload.topic), "{title}");
        assert_eq!(found.template.is_some(), payload.template.is_some(), "{title}");
    }
}
