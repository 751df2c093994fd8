//! `[uplink.NAME]`, and the uplink to the embedded broker.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::read::{self, Bytes, Surroundings, YEAR};
use super::{
    Backlog, BrokerUrl, Connect, Deliver, Discovery, Gateway, Named, Password, Payload, Preset, Privacy, ProxyConfig,
    Pseudonyms, Selection, Sparkplug, TlsConfig, Token, Username, Writable, backlog, connection, discovery, integrity,
    payload, preset, privacy, secret, sensor, sparkplug, token,
};
use crate::options::{Options, Problem, Problems};
use crate::topic;

/// Name of the uplink that leads to the embedded broker.
pub const BROKER_UPLINK: &str = "broker";

/// `client_id` where it is not given.
pub(super) const DEFAULT_CLIENT_ID: &str = "vigie-{gateway}";

/// Longest text in an MQTT packet, in bytes (MQTT 3.1.1, 1.5.3).
const MAX_TEXT_BYTES: usize = 65_535;

/// `inflight` where it is not given.
const DEFAULT_INFLIGHT: u16 = 100;

/// `keep_alive` where it is not given: short enough for the address translation of mobile networks.
const DEFAULT_KEEP_ALIVE: Duration = Duration::from_secs(30);

/// 16 bits of seconds, where 0 would mean "never" (MQTT 3.1.1, 3.1.2.10).
const KEEP_ALIVE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(65_535);

/// `clock_wait` where it is not given, but for brokers on this machine: those never wait.
const DEFAULT_CLOCK_WAIT: Duration = Duration::from_secs(60);

/// `max_packet` where it is not given.
const DEFAULT_MAX_PACKET: Bytes = Bytes(1 << 20);

/// From what any reading needs to what MQTT's length field can say (MQTT 3.1.1, 2.2.3).
const MAX_PACKET: std::ops::RangeInclusive<Bytes> = Bytes(1 << 10)..=Bytes(268_435_455);

/// `command_max_age` where it is not given.
const DEFAULT_COMMAND_MAX_AGE: Duration = Duration::from_secs(30);

/// The broker is asked for a sign of life twice in it.
const COMMAND_MAX_AGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(2)..=YEAR;

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
#[derive(Clone, Debug, PartialEq)]
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
    /// Are audit events published?
    pub audit: bool,
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

/// An uplink and where it stands.
pub(super) struct Placed {
    pub(super) uplink: UplinkConfig,
    pub(super) at: Range<usize>,
    /// Where the values of its keys stand.
    pub(super) values: Vec<(String, Range<usize>)>,
}

impl Placed {
    /// Where a key's value stands, else the uplink.
    pub(super) fn value(&self, key: &str) -> Range<usize> {
        let found = self.values.iter().find(|(known, _)| known == key);
        found.map_or_else(|| self.at.clone(), |(_, at)| at.clone())
    }
}

/// All `[uplink.NAME]`, sorted by name.
pub(super) fn uplinks(root: &Options<'_>, gateway: &Gateway, around: &Surroundings<'_>) -> Vec<Placed> {
    let Some(table) = root.section_called("uplink", "`uplink`") else { return Vec::new() };
    table.entries().filter_map(|(name, value)| named(name, value, root.problems(), gateway, around)).collect()
}

fn named<'a>(
    key: &Spanned<DeString<'a>>,
    value: &'a Spanned<DeValue<'a>>,
    problems: &'a Problems,
    gateway: &Gateway,
    around: &Surroundings<'_>,
) -> Option<Placed> {
    let name = key.get_ref().as_ref();
    let refusal = read::check_name(name).err().or_else(|| {
        (name == BROKER_UPLINK).then(|| "is the name of the uplink to the embedded broker; choose another".to_owned())
    });
    if let Some(why) = refusal {
        problems.push(Problem::new(key.span(), format!("the uplink name `{name}` {why}")));
    }
    let what = format!("[uplink.{name}]");
    Options::table(value, what.as_str(), problems)?;
    let table = value.get_ref().as_table()?;
    // What is wrong with it is reported where the whole table is read.
    let unsaid = Problems::new();
    let hidden = Options::new(table, value.span(), what.as_str(), &unsaid);
    let pseudonyms = privacy::privacy(&hidden, around).pseudonyms;
    let added = preset::added(table, gateway, around, pseudonyms.as_ref());
    let text = preset::text(&added);
    let filled = preset::filled(table, &text);
    let options = Options::new(&filled, value.span(), what, problems);
    let uplink = uplink(&options, name, gateway, around);
    options.finish();
    let mut uplink = uplink?;
    if let Some(preset) = &mut uplink.preset {
        preset.set = added;
    }
    let at = key.span();
    discovery::check(&uplink, &at, problems);
    privacy::check(&uplink, |key| value_at(&filled, key).unwrap_or_else(|| at.clone()), problems);
    let values = filled.iter().map(|(key, value)| (key.get_ref().as_ref().to_owned(), value.span())).collect();
    Some(Placed { uplink, at, values })
}

/// Where the value of a key stands.
fn value_at(table: &DeTable<'_>, key: &str) -> Option<Range<usize>> {
    table.get(key).map(Spanned::span)
}

/// The keys of an uplink.
pub(super) fn uplink(
    options: &Options<'_>,
    name: &str,
    gateway: &Gateway,
    around: &Surroundings<'_>,
) -> Option<UplinkConfig> {
    let preset = preset::target(options).map(|target| Preset { target, set: Vec::new() });
    let urls = connection::urls(options);
    let privacy = privacy::privacy(options, around);
    let client_id = client_id(options, gateway, around, privacy.pseudonyms.as_ref());
    let username = secret::username(options, around);
    let password = secret::password(options, "password", around);
    if options.raw("password").is_some() && options.raw("username").is_none() {
        options.problem_with_help(
            "password",
            format!("{} has a password without a user name, which MQTT does not allow", options.what()),
            None,
            Some("add username = \"…\"".to_owned()),
        );
    }
    let token = token::token(options, urls.as_deref(), client_id.as_deref(), around);
    let versions = [("3.1.1", MqttVersion::V311), ("5", MqttVersion::V5)];
    let mqtt = options.optional_word("mqtt", &versions).unwrap_or_default();
    let mut payload = payload::payload(options);
    let sparkplug = sparkplug::sparkplug(options, &mut payload, gateway, around);
    payload.integrity = integrity::integrity(options, payload.format, mqtt, around);
    if privacy.rate.is_some() {
        // A picture that goes out as it is has a size of its own.
        (payload.base64, payload.batch) = (true, payload.batch.or(Some(privacy::BATCH)));
    }
    let clock_wait = options.optional_in("clock_wait", Duration::ZERO..=YEAR);
    let max_packet = options.optional_in("max_packet", MAX_PACKET).unwrap_or(DEFAULT_MAX_PACKET);
    let qos = match options.optional_in::<u8>("qos", 0..=2) {
        Some(0) => Qos::AtMostOnce,
        Some(2) => Qos::ExactlyOnce,
        _ => Qos::AtLeastOnce,
    };
    let retain = options.optional("retain").unwrap_or(payload.batch.is_none());
    let state = options.optional("state").unwrap_or(privacy.rate.is_none());
    let discovery = discovery::discovery(options);
    let inflight = options.optional_in("inflight", 1..=u16::MAX).unwrap_or(DEFAULT_INFLIGHT);
    let keep_alive = options.optional_in("keep_alive", KEEP_ALIVE).unwrap_or(DEFAULT_KEEP_ALIVE);
    let (selection, backlog) = (backlog::selection(options), backlog::backlog(options));
    let tls = connection::tls(options, urls.as_deref(), around);
    let proxy = connection::proxy(options, around);
    let interface = connection::interface(options);
    let connect = connection::connect(options);
    let failback = connection::failback(options);
    let (commands, audit) = (commands(options), audit(options));
    let urls = urls?;
    let default_wait = if urls.iter().all(BrokerUrl::is_this_machine) { Duration::ZERO } else { DEFAULT_CLOCK_WAIT };
    Some(UplinkConfig {
        name: name.to_owned(),
        mqtt,
        client_id: client_id?,
        username,
        password,
        token,
        qos,
        retain,
        state,
        discovery,
        preset,
        inflight,
        keep_alive,
        clock_wait: clock_wait.unwrap_or(default_wait),
        payload,
        sparkplug,
        privacy,
        max_packet: u32::try_from(max_packet.0).unwrap_or(u32::MAX),
        selection,
        backlog,
        tls,
        proxy,
        interface,
        connect,
        failback,
        commands,
        audit,
        deliver: Vec::new(),
        urls,
    })
}

/// `commands` and `command_max_age`; the topics are filled in when the sensors are known.
pub(super) fn commands(options: &Options<'_>) -> Option<Commands> {
    let max_age = options.optional_in("command_max_age", COMMAND_MAX_AGE);
    let max_age = max_age.unwrap_or(DEFAULT_COMMAND_MAX_AGE);
    options.optional("commands").unwrap_or(false).then_some(Commands { max_age, topics: Vec::new() })
}

/// `audit`, also of `[broker]`.
pub(super) fn audit(options: &Options<'_>) -> bool {
    options.optional("audit").unwrap_or(false)
}

/// The topics on which an uplink takes commands: those of the sensors whose readings it sends, so that it sends the
/// results as well.
pub(super) fn fill_in_commands(uplink: &mut UplinkConfig, gateway: &Gateway, sensors: &[sensor::Placed]) {
    let Some(commands) = &mut uplink.commands else { return };
    for sensor in sensors.iter().map(|placed| &placed.sensor) {
        let descriptor = sensor.descriptor(gateway);
        if sensor.source.takes_commands()
            && uplink.selection.holds(&sensor.name, sensor.room.as_deref())
            && topic::result_topic(&gateway.topic, &descriptor).len() <= topic::MAX_BYTES
        {
            commands.topics.push((topic::command_topic(&gateway.topic, &descriptor), sensor.name.clone()));
            if let Some(node) = &mut uplink.sparkplug {
                node.writable.insert(sensor.name.clone(), Writable::of(sensor));
            }
        }
    }
}

/// The uplink to the embedded broker: as any other, over loopback.
pub(super) fn to_broker(
    listen: SocketAddr,
    client_id: String,
    commands: Option<Commands>,
    audit: bool,
) -> UplinkConfig {
    UplinkConfig {
        name: BROKER_UPLINK.to_owned(),
        urls: vec![BrokerUrl::of(listen)],
        mqtt: MqttVersion::default(),
        client_id,
        username: None,
        password: None,
        token: None,
        qos: Qos::AtLeastOnce,
        retain: true,
        state: true,
        discovery: None,
        preset: None,
        inflight: DEFAULT_INFLIGHT,
        keep_alive: DEFAULT_KEEP_ALIVE,
        clock_wait: Duration::ZERO,
        payload: Payload::default(),
        sparkplug: None,
        privacy: Privacy::default(),
        max_packet: u32::try_from(DEFAULT_MAX_PACKET.0).unwrap_or(u32::MAX),
        selection: Selection::default(),
        // It is never away for long, and what is kept for LAN clients on a topic must be the newest.
        backlog: Backlog { live_first: false, ..Backlog::default() },
        tls: TlsConfig::default(),
        proxy: None,
        interface: None,
        connect: Connect::Always,
        failback: connection::DEFAULT_FAILBACK,
        commands,
        audit,
        deliver: Vec::new(),
    }
}

/// The default client identifier, for the uplink to the embedded broker.
pub(super) fn default_client_id(gateway: &Gateway, around: &Surroundings<'_>) -> String {
    fill(DEFAULT_CLIENT_ID, gateway, around, None).unwrap_or_else(|_| "vigie".to_owned())
}

fn client_id(
    options: &Options<'_>,
    gateway: &Gateway,
    around: &Surroundings<'_>,
    pseudonyms: Option<&Pseudonyms>,
) -> Option<String> {
    let text = match options.raw("client_id") {
        Some(_) => options.optional::<String>("client_id")?,
        None => DEFAULT_CLIENT_ID.to_owned(),
    };
    match fill(&text, gateway, around, pseudonyms) {
        Ok(id) => Some(id),
        Err(why) => {
            options.problem(
                "client_id",
                format!("`client_id` of {} {why}", options.what()),
                Some("expected a text; {gateway}, {hostname} and {id} are filled in".to_owned()),
            );
            None
        }
    }
}

/// Fills in the placeholders of a client identifier, with `pseudonyms` where there are such.
pub(super) fn fill(
    text: &str,
    gateway: &Gateway,
    around: &Surroundings<'_>,
    pseudonyms: Option<&Pseudonyms>,
) -> Result<String, String> {
    let mut id = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        id.push_str(before);
        let (name, after) = after.split_once('}').ok_or("has a `{` without a `}`")?;
        let (what, name) = match name {
            "gateway" => (Named::Gateway, &gateway.name),
            "hostname" => (Named::Host, &around.machine.hostname),
            "id" => (Named::Id, &gateway.id),
            _ => return Err(format!("has the unknown placeholder `{{{name}}}`")),
        };
        match pseudonyms {
            Some(pseudonyms) => id.push_str(&pseudonyms.of(what, name)),
            None => id.push_str(name),
        }
        rest = after;
    }
    id.push_str(rest);
    check_text(&id)?;
    Ok(id)
}

/// Checks a text that goes into an MQTT packet.
pub(super) fn check_text(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("contains a control character".to_owned());
    }
    if text.len() > MAX_TEXT_BYTES {
        return Err(format!("is longer than {MAX_TEXT_BYTES} bytes"));
    }
    Ok(())
}

/// Two uplinks to one broker under one client identifier would throw each other out for ever (MQTT 3.1.1, 3.1.4). Every
/// URL of a list counts: sooner or later both are there.
pub(super) fn check_client_ids(uplinks: &[Placed], problems: &Problems) {
    for (index, second) in uplinks.iter().enumerate() {
        let meet = |first: &&Placed| {
            let same = |a: &BrokerUrl| second.uplink.urls.iter().any(|b| a.is_same_broker(b));
            first.uplink.client_id == second.uplink.client_id && first.uplink.urls.iter().any(same)
        };
        let Some(first) = uplinks[..index].iter().find(meet) else { continue };
        let (a, b) = (&first.uplink.name, &second.uplink.name);
        problems.push(
            Problem::new(
                second.at.clone(),
                format!(
                    "the uplinks `{a}` and `{b}` have the same broker and client_id: they would throw each other out"
                ),
            )
            .expected("second uplink")
            .related(first.at.clone(), "first uplink")
            .help(format!("give one of them a client_id of its own, such as \"{DEFAULT_CLIENT_ID}-{b}\"")),
        );
    }
}
