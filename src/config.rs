//! The configuration that the agent runs on: complete, checked, with every default filled in.
//!
//! [`load`] reads a file with the fragments in its `.d` folder and gives either a [`Config`] or every problem with
//! its place. The files below `config/` read one section each; nothing outside of this module sees TOML, but for the
//! drivers, which read their own keys through [`Options`].

use std::net::SocketAddr;
use std::path::Path;

use secrecy::SecretString;

use crate::clock::Trust;
use crate::drivers::{DRIVERS, Driver};
use crate::hardware::Settings;
use crate::options::{Options, Problem, Problems};
use crate::reading::SensorIndex;

mod backlog;
mod broker;
mod broker_url;
mod broker_watch;
mod checks;
mod clock;
mod connection;
mod discovery;
mod filters;
mod gateway;
mod hardware;
mod hosts;
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
mod quantities;
mod read;
mod redact;
mod report;
mod secret;
mod sensor;
mod source;
mod sparkplug;
mod texts;
mod token;
mod uplink;
mod wiring;
mod written;

pub use backlog::{Backlog, BacklogPolicy, BacklogTopic, Selection};
pub use broker::{BrokerConfig, BrokerLimits, BrokerListener, BrokerRules, ListenerTls};
pub use broker_url::BrokerUrl;
pub use broker_watch::{BrokerJwt, BrokerWatch};
pub use connection::{Connect, ProxyConfig, TlsConfig};
pub use discovery::Discovery;
pub use filters::KnownQuantity;
pub use gateway::{ArchiveConfig, Gateway, OutboxConfig};
pub use hosts::FilesRead;
pub use integrity::Integrity;
pub use keys::{SECTIONS, Section, docs};
pub use lan::{Becomes, Deliver, Ingest, LanRoom, LanSensor};
pub use machine::{Machine, board_serial};
pub use outbox_key::OutboxKey;
pub use payload::{
    Batch, CHANNEL_FIELDS, FORMATS, Field, Format, FormatInfo, MAX_BATCH, Payload, PayloadShape, TimeFormat,
};
pub use place::{Follows, Place};
pub use preset::Preset;
pub use privacy::{FixedRate, Omit, Privacy};
pub use pseudonyms::{Named, Pseudonyms};
pub use read::{MAX_LABEL_CHARS, MAX_NAME_BYTES};
pub use report::{MAX_SHOWN, Report, render};
pub use secret::{Password, Username};
pub use sensor::SensorConfig;
pub use source::MAX_FILE_BYTES;
pub use sparkplug::{Sparkplug, Writable};
pub use texts::{check_texts, files, named_files, redacted, without_secrets};
pub use token::Token;
pub use uplink::{BROKER_UPLINK, Commands, MqttVersion, Qos, UplinkConfig};
pub use written::Written;

use read::Surroundings;
use sensor::Inherited;
use source::Files;

/// Reads and checks a configuration file with its fragments: `vigie.toml`, then `vigie.d/*.toml` sorted by name.
/// Tables of several files merge, `[[sensor]]` lists add up, and no key may be given twice. `vigie.d/host-NAME.toml` is
/// read on the host of that name only, after all others, and may give their keys other values.
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
    load_on(path, &Machine::looking_at(path), DRIVERS)
}

/// As [`load`], on a given machine and with given drivers.
///
/// # Errors
/// Everything that is wrong, with its place.
pub fn load_on(path: &Path, machine: &Machine, drivers: &'static [&'static Driver]) -> Result<Config, Report> {
    let mut unreadable = Vec::new();
    let files = Files::read(path, Some(&machine.hostname), &mut unreadable);
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
    let mut read = files.read_on(&around.machine.hostname);
    let (config, mut found) = {
        let table = files.parse(&mut syntax, &mut read.replaced);
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
            config.files = read;
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
    let broker_audit = broker_keys.as_ref().is_some_and(uplink::audit);
    let lan = broker_keys.as_ref().map(lan::lists).unwrap_or_default();
    let written = broker_keys.as_ref().map(|keys| Written::of(keys, |_| true)).unwrap_or_default();
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
        broker.name.clone_from(&gateway.name);
        broker.trust = trust;
        broker.own_topics = broker::own_topics(&gateway, sensors.iter().map(|placed| &placed.sensor));
        let first = broker.listeners.first().map_or(([127, 0, 0, 1], 1883).into(), |first| first.listen);
        let uplink = uplink::to_broker(first, broker.client_id.clone(), broker_commands, broker_audit);
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
        broker_keys: written,
        hash,
        files: FilesRead::default(),
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
    /// Its keys themselves.
    pub broker_keys: Written,
    /// CRC-32 of all files' bytes, in hexadecimal: which configuration is running.
    pub hash: String,
    /// Which files it was read from.
    pub files: FilesRead,
    /// What works, but not as well as it could.
    pub warnings: Option<Report>,
}

impl Config {
    /// The uplink to the embedded broker goes to where that one does.
    pub fn reach_broker_as(&mut self, running: &UplinkConfig) {
        for uplink in self.uplinks.iter_mut().filter(|uplink| uplink.name == BROKER_UPLINK) {
            uplink.urls.clone_from(&running.urls);
            uplink.username.clone_from(&running.username);
            uplink.password.clone_from(&running.password);
        }
    }

    /// The uplink to the embedded broker goes to where that really is, and logs in as the gateway.
    pub fn reach_broker(&mut self, entrance: SocketAddr, username: &str, password: &SecretString) {
        for uplink in self.uplinks.iter_mut().filter(|uplink| uplink.name == BROKER_UPLINK) {
            uplink.urls = vec![BrokerUrl::of(entrance)];
            uplink.username = Some(Username::Text(username.to_owned()));
            uplink.password = Some(Password::given(password.clone()));
        }
    }
}
