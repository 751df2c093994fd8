//! What an uplink's messages look like: `format`, `payload`, `fields`, `batch` and what goes with them.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::de::DeValue;

use super::Integrity;
use super::read::YEAR;
use crate::options::{Options, Problem, did_you_mean};
use crate::reading::{Descriptor, Quantity};
use crate::template::Template;
use crate::topic;

mod template;
mod topics;

pub(super) use topics::check_topics;

/// `batch = { max = … }`
const MAX: std::ops::RangeInclusive<u16> = 2..=MAX_BATCH;

/// So many messages become one at the most.
pub const MAX_BATCH: u16 = 1_000;

/// `batch = { wait = … }`
const WAIT: std::ops::RangeInclusive<Duration> = Duration::ZERO..=YEAR;

/// `batch = { }`
const DEFAULT_BATCH: Batch = Batch { max: 100, wait: Duration::from_secs(10) };

/// `measurement` where it is not given.
const DEFAULT_MEASUREMENT: &str = "vigie";

/// A channel of ThingSpeak has so many fields.
pub const CHANNEL_FIELDS: u8 = 8;

/// The form of a payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A JSON object.
    #[default]
    Json,
    /// An array of such objects.
    JsonArray,
    /// The value alone.
    Value,
    /// SenML in JSON (RFC 8428, 5).
    Senml,
    /// SenML in CBOR (RFC 8428, 6).
    SenmlCbor,
    /// InfluxDB's line protocol.
    Influx,
    /// As a template of the user's says.
    Template,
    /// `ThingsBoard`, as a device.
    Thingsboard,
    /// `ThingsBoard`, as a gateway of devices.
    ThingsboardGateway,
    /// `ThingSpeak`, an update of a channel.
    Thingspeak,
    /// Sparkplug B, with births and deaths.
    SparkplugB,
}

/// What is to be known of a form before there are readings.
#[derive(Debug)]
pub struct FormatInfo {
    /// What `format` calls it.
    pub name: &'static str,
    /// Which one.
    pub format: Format,
    /// How records are cut where `payload` does not say it.
    pub shape: PayloadShape,
    /// Can one message hold all quantities of a sensor?
    pub several_quantities: bool,
    /// Can one message hold several readings?
    pub several_readings: bool,
}

const fn form(name: &'static str, format: Format, shape: PayloadShape) -> FormatInfo {
    FormatInfo { name, format, shape, several_quantities: true, several_readings: true }
}

/// Every form that there is.
pub static FORMATS: &[FormatInfo] = &[
    FormatInfo { several_readings: false, ..form("json", Format::Json, PayloadShape::Quantity) },
    form("json-array", Format::JsonArray, PayloadShape::Quantity),
    FormatInfo {
        several_quantities: false,
        several_readings: false,
        ..form("value", Format::Value, PayloadShape::Quantity)
    },
    form("senml", Format::Senml, PayloadShape::Sensor),
    form("senml-cbor", Format::SenmlCbor, PayloadShape::Sensor),
    form("influx", Format::Influx, PayloadShape::Sensor),
    FormatInfo { several_readings: false, ..form("template", Format::Template, PayloadShape::Quantity) },
    form("thingsboard", Format::Thingsboard, PayloadShape::Sensor),
    form("thingsboard-gateway", Format::ThingsboardGateway, PayloadShape::Sensor),
    form("thingspeak", Format::Thingspeak, PayloadShape::Sensor),
    form("sparkplug-b", Format::SparkplugB, PayloadShape::Sensor),
];

impl Format {
    /// What there is to know of it.
    #[must_use]
    pub fn info(self) -> &'static FormatInfo {
        FORMATS.iter().find(|info| info.format == self).expect("every form is in the list")
    }
}

/// A part of a JSON payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names say it, and docs/payloads.md")]
pub enum Field {
    Id,
    Time,
    Gateway,
    Site,
    Room,
    RoomLabel,
    Sensor,
    Label,
    Quantity,
    Value,
    ContentType,
    Unit,
    Clock,
    Backlog,
    Location,
    Tags,
}

impl Field {
    /// Every field under its name, in the order in which they come where `fields` says nothing; `gateway` does not come
    /// then, because its topics say it.
    pub const ALL: [(&'static str, Self); 16] = [
        ("id", Self::Id),
        ("time", Self::Time),
        ("gateway", Self::Gateway),
        ("site", Self::Site),
        ("room", Self::Room),
        ("room_label", Self::RoomLabel),
        ("sensor", Self::Sensor),
        ("label", Self::Label),
        ("quantity", Self::Quantity),
        ("value", Self::Value),
        ("content_type", Self::ContentType),
        ("unit", Self::Unit),
        ("clock", Self::Clock),
        ("backlog", Self::Backlog),
        ("location", Self::Location),
        ("tags", Self::Tags),
    ];
}

/// How a time is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeFormat {
    /// `2026-11-21T10:15:30.123Z`
    #[default]
    Rfc3339,
    /// Seconds since 1970, with three decimals.
    Unix,
    /// Milliseconds since 1970.
    UnixMs,
}

/// `batch = { … }`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// How many messages become one at the most, from 2.
    pub max: u16,
    /// How long a live reading waits for others.
    pub wait: Duration,
}

/// `payload = "…"`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PayloadShape {
    /// One message a quantity.
    #[default]
    Quantity,
    /// One message a sensor.
    Sensor,
}

/// What messages look like.
#[derive(Clone, Debug, PartialEq)]
pub struct Payload {
    /// `format`
    pub format: Format,
    /// How records are cut.
    pub shape: PayloadShape,
    /// Do bytes go out as base64 inside of the form, rather than as they are?
    pub base64: bool,
    /// What JSON holds, in this order.
    pub fields: Vec<Field>,
    /// How JSON writes times.
    pub time: TimeFormat,
    /// With [`Format::Template`].
    pub template: Option<Template>,
    /// The table of [`Format::Influx`].
    pub measurement: String,
    /// With [`Format::Thingspeak`]: which quantity, or `sensor/quantity`, goes to which field, 1 to 8.
    pub channel: BTreeMap<String, u8>,
    /// With it, several readings become one message.
    pub batch: Option<Batch>,
    /// Topic of this uplink's readings, whatever the gateway's and the quantities' are.
    pub topic: Option<topic::Template>,
    /// A checksum of each.
    pub integrity: Option<Integrity>,
}

impl Default for Payload {
    fn default() -> Self {
        Self {
            format: Format::Json,
            shape: PayloadShape::Quantity,
            base64: false,
            fields: default_fields(),
            time: TimeFormat::Rfc3339,
            template: None,
            measurement: DEFAULT_MEASUREMENT.to_owned(),
            channel: BTreeMap::new(),
            batch: None,
            topic: None,
            integrity: None,
        }
    }
}

impl Payload {
    /// The topic of a quantity, where the gateway's template is this.
    #[must_use]
    pub fn quantity_topic(&self, gateway: &topic::Template, descriptor: &Descriptor, quantity: &Quantity) -> String {
        match &self.topic {
            Some(own) => own.filled(descriptor, &quantity.name),
            None => gateway.quantity_topic(descriptor, quantity),
        }
    }

    /// The name of the checksum of a payload, and the checksum, where there is one.
    #[must_use]
    pub fn beside(&self, payload: &[u8]) -> Option<(&'static str, String)> {
        self.integrity.as_ref().map(|integrity| (integrity.name(), integrity.of(payload)))
    }

    /// The topic of a sensor's own messages, where the gateway's template is this.
    #[must_use]
    pub fn sensor_topic(&self, gateway: &topic::Template, descriptor: &Descriptor) -> String {
        self.topic.as_ref().unwrap_or(gateway).sensor_topic(descriptor)
    }
}

fn default_fields() -> Vec<Field> {
    Field::ALL.iter().map(|(_, field)| *field).filter(|field| *field != Field::Gateway).collect()
}

/// Reads the keys.
pub(super) fn payload(options: &Options<'_>) -> Payload {
    let names: Vec<(&str, Format)> = FORMATS.iter().map(|info| (info.name, info.format)).collect();
    let info = options.optional_word("format", &names).unwrap_or_default().info();
    let words = [("quantity", PayloadShape::Quantity), ("sensor", PayloadShape::Sensor)];
    let shape = options.optional_word("payload", &words);
    if shape == Some(PayloadShape::Sensor) && !info.several_quantities {
        options.problem_with_help(
            "payload",
            format!("a message of format = \"{}\" in {} holds one quantity", info.name, options.what()),
            None,
            Some("take `payload` out, or choose another format".to_owned()),
        );
    }
    if shape == Some(PayloadShape::Quantity) && matches!(info.format, Format::Thingspeak | Format::SparkplugB) {
        options.problem_with_help(
            "payload",
            format!("a message of format = \"{}\" in {} holds all quantities of a sensor", info.name, options.what()),
            None,
            Some("take `payload` out".to_owned()),
        );
    }
    let shape = shape.unwrap_or(info.shape);
    let times = [("rfc3339", TimeFormat::Rfc3339), ("unix", TimeFormat::Unix), ("unix_ms", TimeFormat::UnixMs)];
    let time = options.optional_word("time_format", &times);
    let (fields, channel) = fields(options, info.format);
    if !matches!(info.format, Format::Json | Format::JsonArray | Format::Template) {
        only_for(options, "time_format", "json, json-array and template", info);
    }
    let measurement = options.optional::<String>("measurement");
    if info.format != Format::Influx {
        only_for(options, "measurement", "influx", info);
    }
    if measurement.as_deref().is_some_and(|name| name.is_empty() || name.chars().any(char::is_control)) {
        options.problem(
            "measurement",
            format!("`measurement` of {} is empty, or has a control character", options.what()),
            Some("expected the name of a table".to_owned()),
        );
    }
    Payload {
        format: info.format,
        shape,
        base64: options.optional_word("bytes", &[("raw", false), ("base64", true)]).unwrap_or(false),
        fields,
        time: time.unwrap_or_default(),
        template: template::template(options, info, shape),
        measurement: measurement.unwrap_or_else(|| DEFAULT_MEASUREMENT.to_owned()),
        channel,
        batch: batch(options, info),
        topic: topic(options),
        integrity: None,
    }
}

/// Notes a key that says nothing in this form.
fn only_for(options: &Options<'_>, key: &'static str, forms: &str, info: &FormatInfo) {
    if options.raw(key).is_some() {
        options.problem_with_help(
            key,
            format!("`{key}` of {} means nothing with format = \"{}\"", options.what(), info.name),
            None,
            Some(format!("take it out: it is for {forms}")),
        );
    }
}

/// `fields`: for JSON a list of what is in it, for `ThingSpeak` which quantity goes where.
fn fields(options: &Options<'_>, format: Format) -> (Vec<Field>, BTreeMap<String, u8>) {
    match format {
        Format::Thingspeak => (default_fields(), channel(options)),
        Format::Json | Format::JsonArray => (head(options).unwrap_or_else(default_fields), BTreeMap::new()),
        _ => {
            only_for(options, "fields", "json, json-array and thingspeak", format.info());
            (default_fields(), BTreeMap::new())
        }
    }
}

fn head(options: &Options<'_>) -> Option<Vec<Field>> {
    let value = options.raw("fields")?;
    let names: Vec<String> = options.optional("fields")?;
    let items = value.get_ref().as_array()?;
    let known: Vec<&str> = Field::ALL.iter().map(|(name, _)| *name).collect();
    let mut fields = Vec::new();
    for (name, item) in names.iter().zip(items) {
        let what = options.what();
        match Field::ALL.iter().find(|(known, _)| known == name) {
            Some((_, field)) if fields.contains(field) => {
                options.problems().push(Problem::new(item.span(), format!("`fields` of {what} names `{name}` twice")));
            }
            Some((_, field)) => fields.push(*field),
            None => {
                let problem = Problem::new(item.span(), format!("`fields` of {what} names the unknown `{name}`"))
                    .expected(format!("expected some of {}", known.join(", ")));
                options.problems().push(match did_you_mean(name, &known) {
                    Some(word) => problem.help(format!("did you mean \"{word}\"?")),
                    None => problem,
                });
            }
        }
    }
    if !fields.contains(&Field::Value) {
        fields.push(Field::Value);
    }
    Some(fields)
}

fn channel(options: &Options<'_>) -> BTreeMap<String, u8> {
    const EXPECTED: &str = "expected `fields = { temperature = 1, \"sensor/humidity\" = 2 }`, numbers from 1 to 8";
    let Some(value) = options.raw("fields") else {
        options.problem(
            "fields",
            format!("{} does not say which quantity goes to which field of the channel", options.what()),
            Some(EXPECTED.to_owned()),
        );
        return BTreeMap::new();
    };
    let mut channel = BTreeMap::new();
    let problem = |span, what: String| options.problems().push(Problem::new(span, what).expected(EXPECTED));
    let Some(table) = value.get_ref().as_table() else {
        problem(value.span(), format!("`fields` of {} is not a table", options.what()));
        return channel;
    };
    for (name, number) in table.iter() {
        let parsed = match number.get_ref() {
            DeValue::Integer(number) => u8::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        match parsed.filter(|number| (1..=CHANNEL_FIELDS).contains(number)) {
            Some(number) if channel.values().any(|other| *other == number) => {
                problem(
                    number_span(value, name.get_ref()),
                    format!("`fields` of {} uses field {number} twice", options.what()),
                );
            }
            Some(number) => {
                channel.insert(name.get_ref().to_string(), number);
            }
            None => {
                problem(number.span(), format!("`{}` in `fields` of {} has no field", name.get_ref(), options.what()));
            }
        }
    }
    channel
}

fn number_span(table: &toml::Spanned<DeValue<'_>>, name: &str) -> std::ops::Range<usize> {
    let inner = table.get_ref().as_table().and_then(|table| table.get(name));
    inner.map_or_else(|| table.span(), toml::Spanned::span)
}

fn batch(options: &Options<'_>, info: &FormatInfo) -> Option<Batch> {
    let keys = options.section("batch")?;
    let batch = batch_keys(&keys);
    keys.finish();
    if !info.several_readings {
        let several: Vec<&str> = FORMATS.iter().filter(|info| info.several_readings).map(|info| info.name).collect();
        options.problem_with_help(
            "batch",
            format!("a message of format = \"{}\" in {} holds one reading", info.name, options.what()),
            None,
            Some(format!("take `batch` out, or choose one of the formats {}", several.join(", "))),
        );
    }
    if options.optional::<bool>("retain") == Some(true) {
        options.problem_with_help(
            "retain",
            format!("{} has `retain` with `batch`", options.what()),
            None,
            Some("take one of them out: the last batch says nothing of the sensors that are not in it".to_owned()),
        );
    }
    Some(batch)
}

/// `batch = { … }`
pub(super) fn batch_keys(keys: &Options<'_>) -> Batch {
    Batch {
        max: keys.optional_in("max", MAX).unwrap_or(DEFAULT_BATCH.max),
        wait: keys.optional_in("wait", WAIT).unwrap_or(DEFAULT_BATCH.wait),
    }
}

fn topic(options: &Options<'_>) -> Option<topic::Template> {
    let text = options.optional::<String>("topic")?;
    let why = match topic::Template::parse(&text) {
        Ok(_) if text.starts_with('$') && !text.starts_with("$aws/") => {
            "starts with `$`: such topics belong to the broker".to_owned()
        }
        Ok(topic) => return Some(topic),
        Err(why) => why,
    };
    options.problem(
        "topic",
        format!("`topic` of {} {why}", options.what()),
        Some(format!("expected a topic; these are filled in: {}", topic::PLACEHOLDERS)),
    );
    None
}
