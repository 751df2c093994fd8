//! The configuration that the agent runs on: complete, checked, with every default filled in.
//!
//! [`load`] reads a file with the fragments in its `.d` folder and gives either a [`Config`] or every problem with
//! its place. The files below `config/` read one section each; nothing outside of this module sees TOML, but for the
//! drivers, which read their own keys through [`Options`].

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use crate::clock::Trust;
use crate::drivers::{DRIVERS, Driver, Source};
use crate::hardware::{PowerSettings, Settings};
use crate::options::{Options, Problem, Problems};
use crate::pipeline::PipelineConfig;
use crate::reading::{Descriptor, Location, SensorIndex};
use crate::topic::Template;

mod backlog;
mod broker;
mod broker_url;
mod checks;
mod clock;
mod connection;
mod discovery;
mod filters;
mod gateway;
mod hardware;
mod integrity;
mod keys;
mod lan;
mod lints;
mod machine;
mod outbox_key;
mod payload;
mod place;
mod preset;
mod privacy;
#[cfg(test)]
mod property;
mod pseudonyms;
mod read;
mod redact;
mod report;
mod secret;
mod sensor;
mod source;
mod sparkplug;
mod token;
mod uplink;
mod wiring;

pub use broker::{BrokerConfig, BrokerLimits, BrokerListener, BrokerRules, ListenerTls};
pub use broker_url::BrokerUrl;
pub use connection::{Connect, ProxyConfig, TlsConfig};
pub use discovery::Discovery;
pub use filters::KnownQuantity;
pub use integrity::Integrity;
pub use keys::{SECTIONS, Section, docs};
pub use lan::{Becomes, Deliver, Ingest, LanRoom, LanSensor};
pub use machine::{Machine, board_serial};
pub use outbox_key::OutboxKey;
pub use payload::{Batch, CHANNEL_FIELDS, FORMATS, Field, Format, FormatInfo, MAX_BATCH, Payload, TimeFormat};
pub use place::{Follows, Place};
pub use preset::Preset;
pub use privacy::{FixedRate, Omit, Privacy};
pub use pseudonyms::{Named, Pseudonyms};
pub use read::{MAX_LABEL_CHARS, MAX_NAME_BYTES};
pub use report::{MAX_SHOWN, Report, render};
pub use secret::{Password, Username};
pub use source::MAX_FILE_BYTES;
pub use sparkplug::{Sparkplug, Writable};
pub use token::Token;
pub use uplink::BROKER_UPLINK;

use read::Surroundings;
use sensor::Inherited;
use source::Files;

/// Reads and checks a configuration file with its fragments: `vigie.toml`, then `vigie.d/*.toml` sorted by name.
/// Tables of several files merge, `[[sensor]]` lists add up, and no key may be given twice.
///
/// Touches no hardware; reads the secrets that the configuration refers to.
///
/// # Errors
/// Everything that is wrong, with its place.
pub fn load(path: &Path) -> Result<Config, Report> {
    load_on(path, &Machine::this(), DRIVERS)
}

/// As [`load`], for somebody who only looks at a gateway: secrets that cannot be read are left out.
///
/// # Errors
/// Everything else that is wrong, with its place.
pub fn load_to_look(path: &Path) -> Result<Config, Report> {
    load_on(path, &Machine { secrets: false, ..Machine::this() }, DRIVERS)
}

/// As [`load`], on a given machine and with given drivers.
///
/// # Errors
/// Everything that is wrong, with its place.
pub fn load_on(path: &Path, machine: &Machine, drivers: &'static [&'static Driver]) -> Result<Config, Report> {
    let mut unreadable = Vec::new();
    let files = Files::read(path, &mut unreadable);
    let folder = path.parent().unwrap_or(Path::new(""));
    build(files, unreadable, &Surroundings { machine, folder }, drivers)
}

/// Reads and checks a configuration that is part of the program; `name` stands for the file's in messages.
///
/// # Errors
/// Everything that is wrong, with its place.
pub fn from_text(
    name: &str,
    text: &str,
    machine: &Machine,
    drivers: &'static [&'static Driver],
) -> Result<Config, Report> {
    build(Files::of_text(name, text), Vec::new(), &Surroundings { machine, folder: Path::new("") }, drivers)
}

fn build(
    files: Files,
    mut syntax: Vec<Problem>,
    around: &Surroundings<'_>,
    drivers: &'static [&'static Driver],
) -> Result<Config, Report> {
    let hash = files.hash();
    let (config, mut found) = {
        let table = files.parse(&mut syntax);
        let problems = if syntax.is_empty() { Problems::new() } else { Problems::of_partial() };
        let root = Options::new(&table, 0..0, "the configuration", &problems);
        let config = read_root(&root, around, drivers, hash);
        root.finish();
        drop(root);
        (config, problems.into_sorted())
    };
    // What follows from a syntax error on the same line would only repeat it.
    found.retain(|problem| syntax.iter().all(|error| !files.same_line(error.span.start, problem.span.start)));
    found.append(&mut syntax);
    found.sort_by_key(|problem| (problem.span.start, problem.span.end));
    match config {
        Some(mut config) if found.iter().all(|problem| problem.is_warning) => {
            config.warnings = (!found.is_empty()).then(|| Report::new(files, found));
            Ok(config)
        }
        _ => Err(Report::new(files, found)),
    }
}

/// Reads all sections. `None` only where something is noted.
fn read_root(
    root: &Options<'_>,
    around: &Surroundings<'_>,
    drivers: &'static [&'static Driver],
    hash: String,
) -> Option<Config> {
    let section = |key: &'static str| root.section_called(key, format!("[{key}]"));
    let (gateway_keys, clock, hardware_keys, outbox) =
        (section("gateway"), section("clock"), section("hardware"), section("outbox"));
    let archive = section("archive");
    let gateway = gateway::gateway(gateway_keys.as_ref(), root, around.machine);
    let clock_config = clock.as_ref().map(self::clock::clock).unwrap_or_default();
    let trust = clock_config.trust;
    let mut hardware_settings = self::hardware::hardware(hardware_keys.as_ref());
    let outbox_config = gateway::outbox(outbox.as_ref(), around);
    let archive_config = archive.as_ref().map(|archive| gateway::archive(archive, around));
    let broker_keys = section("broker");
    let mut broker = broker_keys.as_ref().and_then(|keys| broker::broker(keys, around));
    let broker_commands = broker_keys.as_ref().and_then(uplink::commands);
    let lan = broker_keys.as_ref().map(lan::lists).unwrap_or_default();
    for read in [gateway_keys, clock, hardware_keys, outbox, archive, broker_keys].iter().flatten() {
        read.finish();
    }
    let gateway = gateway?;
    let mut uplinks = uplink::uplinks(root, &gateway, around);
    let expanders = self::hardware::expanders(root);
    let rooms = sensor::rooms(root);
    let known_rooms = sensor::known_rooms(&rooms);
    let mut sensors = sensor::sensors(root, &Inherited { rooms, location: gateway.location.clone() }, drivers);
    if let Some(broker) = &mut broker {
        broker.client_id = uplink::default_client_id(&gateway, around);
        broker.own_topics = broker::own_topics(&gateway, sensors.iter().map(|placed| &placed.sensor));
        let first = broker.listeners.first().map_or(([127, 0, 0, 1], 1883).into(), |first| first.listen);
        let uplink = uplink::to_broker(first, broker.client_id.clone(), broker_commands);
        let at = root.raw("broker").map_or(0..0, toml::Spanned::span);
        uplinks.push(uplink::Placed { uplink, at, values: Vec::new() });
        let context = lan::Context { gateway: &gateway, rooms: known_rooms, problems: root.problems() };
        lan::fill_in(lan, broker, &mut uplinks, &context);
    }
    // A table that could not be parsed may be the one that something else refers to.
    if !root.problems().is_partial() {
        let no_uplink =
            root.raw("uplink").is_none_or(|table| table.get_ref().as_table().is_some_and(toml::de::DeTable::is_empty));
        if no_uplink && root.raw("broker").is_none() {
            root.problems().push(
                Problem::new(0..0, "the configuration has neither an uplink nor a broker: nothing would be published")
                    .help("add [uplink.NAME] with url = \"mqtt://HOST\", or [broker] for the broker that is built in"),
            );
        }
        let on_gateways = uplinks.iter().map(|placed| &placed.uplink.payload).filter(|payload| payload.topic.is_none());
        let shapes: Vec<PayloadShape> = on_gateways.map(|payload| payload.shape).collect();
        uplink::check_client_ids(&uplinks, root.problems());
        sparkplug::check_nodes(&uplinks, root.problems());
        checks::names(&sensors, root.problems());
        checks::claims(&sensors, root.problems());
        wiring::claims(&sensors, &expanders, root.problems());
        wiring::lines(&sensors, &expanders, root.problems());
        backlog::check_names(root, &sensors);
        checks::topics(&sensors, &gateway, &shapes, root.problems());
        lints::targets(&uplinks, &sensors, &gateway, root.problems());
        payload::check_topics(&uplinks, &sensors, &gateway, root.problems());
    }
    hardware_settings.expanders = expanders.into_iter().map(|placed| placed.settings).collect();
    // A sensor that could not be parsed may be the one that is meant.
    if !root.problems().is_partial() {
        place::fill_in(&mut sensors, root.problems());
    }
    let gps =
        (!root.problems().is_partial()).then(|| self::clock::gps(clock_config, &sensors, root.problems())).flatten();
    let mut uplinks: Vec<UplinkConfig> = uplinks.into_iter().map(|placed| placed.uplink).collect();
    for uplink in &mut uplinks {
        uplink::fill_in_commands(uplink, &gateway, &sensors);
    }
    uplinks.sort_by(|a, b| a.name.cmp(&b.name));
    Some(Config {
        gateway,
        trust,
        gps,
        hardware: hardware_settings,
        outbox: outbox_config,
        archive: archive_config,
        uplinks,
        sensors: sensors.into_iter().map(|placed| placed.sensor).collect(),
        broker,
        hash,
        warnings: None,
    })
}

/// A configuration without faults.
#[derive(Debug)]
pub struct Config {
    /// `[gateway]`
    pub gateway: Gateway,
    /// `[clock] trust`
    pub trust: Trust,
    /// `[clock] gps`: the sensor whose fixes date readings where nothing else does.
    pub gps: Option<SensorIndex>,
    /// `[hardware]`
    pub hardware: Settings,
    /// `[outbox]`
    pub outbox: OutboxConfig,
    /// `[archive]`; `None`: there is none.
    pub archive: Option<ArchiveConfig>,
    /// `[uplink.NAME]`, sorted by name; the embedded broker's is among them.
    pub uplinks: Vec<UplinkConfig>,
    /// `[[sensor]]` in the order of the files.
    pub sensors: Vec<SensorConfig>,
    /// `[broker]`
    pub broker: Option<BrokerConfig>,
    /// CRC-32 of all files' bytes, in hexadecimal: which configuration is running.
    pub hash: String,
    /// What works, but not as well as it could.
    pub warnings: Option<Report>,
}

impl Config {
    /// The uplink to the embedded broker goes to where that really is, and logs in as the gateway.
    pub fn reach_broker(&mut self, entrance: SocketAddr, username: &str, password: &SecretString) {
        for uplink in self.uplinks.iter_mut().filter(|uplink| uplink.name == BROKER_UPLINK) {
            uplink.urls = vec![BrokerUrl::of(entrance)];
            uplink.username = Some(Username::Text(username.to_owned()));
            uplink.password = Some(Password::given(password.clone()));
        }
    }
}

/// `[gateway]`
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Topic-safe name; default: the host's name.
    pub name: String,
    /// Identity of the board; default: its serial number, else a hash of the machine id.
    pub id: String,
    /// Name for people.
    pub label: Option<String>,
    /// First level of the default topics.
    pub site: Option<String>,
    /// Topic of readings.
    pub topic: Template,
    /// Where the gateway is.
    pub location: Option<Place>,
}

/// `[outbox]`
#[derive(Clone, Debug)]
pub struct OutboxConfig {
    /// Folder of the log; default: `outbox` in the state folder.
    pub path: PathBuf,
    /// Folder on tmpfs for the tail; `None`: chosen as docs say (`/run/vigie`, `$XDG_RUNTIME_DIR`, `/dev/shm`).
    pub tail: Option<PathBuf>,
    /// How long a record may wait for its acknowledgement before it is written to disk; zero: on disk at once.
    pub flush: Duration,
    /// Bytes that the log may take on disk.
    pub max_bytes: u64,
    /// At most this share, in per cent, of what the log takes and what is free on its disk.
    pub free_share: u8,
    /// `full = "drop-newest"`: at the limit what is new goes instead of what is old.
    pub drop_newest: bool,
    /// What the outbox is encrypted with; `None`: it is not.
    pub key: Option<OutboxKey>,
}

/// `[archive]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveConfig {
    /// Its folder; default: `archive` in the state folder.
    pub path: PathBuf,
    /// How long it is kept.
    pub keep: Duration,
    /// Bytes that it may take on disk.
    pub max: u64,
    /// Between two writes.
    pub batch: Duration,
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

/// MQTT quality of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qos {
    /// 0: at most once.
    AtMostOnce,
    /// 1: at least once.
    AtLeastOnce,
    /// 2: exactly once.
    ExactlyOnce,
}

/// `mqtt = "…"`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MqttVersion {
    /// MQTT 3.1.1, protocol level 4.
    #[default]
    V311,
    /// MQTT 5, protocol level 5.
    V5,
}

impl fmt::Display for MqttVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V311 => "3.1.1",
            Self::V5 => "5",
        })
    }
}

/// `[uplink.NAME]`
#[derive(Clone, Debug)]
pub struct UplinkConfig {
    /// The table's name.
    pub name: String,
    /// Where the brokers are, the preferred one first; at least one. None knows the sessions of another.
    pub urls: Vec<BrokerUrl>,
    /// While connected to a later one of `urls`, how often the first is tried.
    pub failback: Duration,
    /// Connected always, or only now and then?
    pub connect: Connect,
    /// Network interface that the connection must go through.
    pub interface: Option<String>,
    /// HTTP proxy that the connection goes through.
    pub proxy: Option<ProxyConfig>,
    /// Version of MQTT.
    pub mqtt: MqttVersion,
    /// Client identifier, placeholders filled in.
    pub client_id: String,
    /// User name.
    pub username: Option<Username>,
    /// Where the password is read from at each connection; it was readable when the configuration was checked.
    pub password: Option<Password>,
    /// What makes the password instead; then there is none.
    pub token: Option<Token>,
    /// Quality of service of readings.
    pub qos: Qos,
    /// Are readings (not events) retained?
    pub retain: bool,
    /// Are availability, information about the gateway and gaps published?
    pub state: bool,
    /// Where sensors are announced to a home automation; `None`: nowhere.
    pub discovery: Option<Discovery>,
    /// What a preset has set of all this.
    pub preset: Option<Preset>,
    /// How many messages may wait for their acknowledgement, 1 to 65535.
    pub inflight: u16,
    /// Keep-alive.
    pub keep_alive: Duration,
    /// How long to hold undated readings after the connection is up.
    pub clock_wait: Duration,
    /// What messages look like.
    pub payload: Payload,
    /// Who it is among those that speak Sparkplug B; `None` in other forms.
    pub sparkplug: Option<Sparkplug>,
    /// What they are not to tell.
    pub privacy: Privacy,
    /// Largest packet that is sent or accepted, in bytes.
    pub max_packet: u32,
    /// Which readings it sends.
    pub selection: Selection,
    /// How it catches up.
    pub backlog: Backlog,
    /// TLS settings, for `mqtts` and `wss`.
    pub tls: TlsConfig,
    /// Which commands it takes; `None`: none.
    pub commands: Option<Commands>,
    /// What of its broker is delivered to the clients of the embedded one.
    pub deliver: Vec<Deliver>,
}

/// `commands = true`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commands {
    /// A command that is older is refused.
    pub max_age: Duration,
    /// Topics, and the sensor that each is for: those of the uplink's sensors whose devices take commands.
    pub topics: Vec<(String, String)>,
}

/// Which readings an uplink sends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Those of these rooms...
    pub rooms: Vec<String>,
    /// ...and of these sensors; all, if neither names any.
    pub sensors: Vec<String>,
    /// But none that is older.
    pub max_age: Option<Duration>,
}

impl Selection {
    /// Does it hold a sensor, which is perhaps in this room? Where it names none, it holds all.
    #[must_use]
    pub fn holds(&self, sensor: &str, room: Option<&str>) -> bool {
        (self.rooms.is_empty() && self.sensors.is_empty())
            || self.sensors.iter().any(|name| name == sensor)
            || self.rooms.iter().any(|name| Some(name.as_str()) == room)
    }
}

/// How an uplink catches up after it was away.
#[derive(Clone, Debug, PartialEq)]
pub struct Backlog {
    /// What is sent of it.
    pub policy: BacklogPolicy,
    /// Messages a second, above zero; `None`: as fast as the link takes them.
    pub rate: Option<f64>,
    /// Where it is published, if not where live readings are.
    pub topic: Option<BacklogTopic>,
    /// Live readings go before it.
    pub live_first: bool,
}

impl Default for Backlog {
    fn default() -> Self {
        Self { policy: BacklogPolicy::All, rate: None, topic: None, live_first: true }
    }
}

/// `backlog = "…"`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BacklogPolicy {
    /// Every reading.
    #[default]
    All,
    /// Of each topic only the newest one.
    Latest,
}

/// `backlog_topic = "…"`: what stands around the topic of live readings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BacklogTopic {
    /// Before it.
    pub before: String,
    /// Behind it.
    pub after: String,
}

impl BacklogTopic {
    /// Where the backlog of a topic goes.
    #[must_use]
    pub fn of(&self, topic: &str) -> String {
        format!("{}{topic}{}", self.before, self.after)
    }
}

/// `[[sensor]]`
#[derive(Debug)]
pub struct SensorConfig {
    /// Topic-safe, unique name.
    pub name: String,
    /// Name for people.
    pub label: Option<String>,
    /// Its room.
    pub room: Option<String>,
    /// The room's name for people.
    pub room_label: Option<String>,
    /// Its own place, else its room's, else the gateway's.
    pub location: Option<Location>,
    /// The receiver that says where it is, in place of that.
    pub follows: Option<Follows>,
    /// Free tags, sorted by name.
    pub tags: Vec<(String, String)>,
    /// The driver.
    pub driver: &'static Driver,
    /// What the driver made of its keys.
    pub source: Source,
    /// Between two samples of a poller; between two looks at a line's level.
    pub every: Duration,
    /// At multiples of that on the wall clock.
    pub align: bool,
    /// How long one sample may take before the sensor counts as stuck.
    pub deadline: Duration,
    /// How its supply is switched, if it is.
    pub power: Option<PowerSettings>,
    /// What is filtered and how; shared with the pipeline.
    pub pipeline: Arc<PipelineConfig>,
}

impl SensorConfig {
    /// Its quantities, as far as they are known before it is read.
    #[must_use]
    pub fn known_quantities(&self) -> Vec<KnownQuantity> {
        filters::known_quantities(self.driver, &self.pipeline)
    }

    /// The sensor as its readings describe it, before any quantity was seen.
    #[must_use]
    pub fn descriptor(&self, gateway: &Gateway) -> Descriptor {
        let text = |text: &Option<String>| text.as_deref().map(Into::into);
        Descriptor {
            gateway: gateway.name.as_str().into(),
            site: text(&gateway.site),
            room: text(&self.room),
            room_label: text(&self.room_label),
            sensor: self.name.as_str().into(),
            label: text(&self.label),
            location: self.location,
            tags: self.tags.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect(),
            quantities: Vec::new(),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Poller(_) => "Poller",
            Self::Serial { .. } => "Serial",
            Self::Line { .. } => "Line",
            Self::Process { .. } => "Process",
        })
    }
}
