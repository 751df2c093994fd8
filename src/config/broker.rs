//! `[broker]`: listeners, users, limits.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::broker_watch::{self, BrokerJwt, BrokerWatch};
use super::read::{Bytes, Surroundings};
use super::{Gateway, Ingest, SensorConfig};
use crate::clock::Trust;
use crate::options::{Options, Problem, YEAR};
use crate::topic::{self, filter};

/// The port of MQTT (IANA).
const PORT: u16 = 1883;
/// Between two messages about itself, where nothing else is said.
const SYS_INTERVAL: Duration = Duration::from_secs(60);
/// Name that stands for clients without a user in `[broker.user.NAME]`.
const ANONYMOUS: &str = "anonymous";

/// `[broker]`
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// Where it listens; at least one.
    pub listeners: Vec<BrokerListener>,
    /// May clients without a user come in?
    pub anonymous: bool,
    /// File with users and the hashes of their passwords; `None`: nobody is asked for one.
    pub users: Option<PathBuf>,
    /// Logins with tokens.
    pub jwt: Option<BrokerJwt>,
    /// What users may do, by name; one without rules may do everything that is not the gateway's alone. Those of
    /// `anonymous` are for clients without a user.
    pub rules: BTreeMap<String, BrokerRules>,
    /// Bounds.
    pub limits: BrokerLimits,
    /// Folder of what outlives the process.
    pub path: PathBuf,
    /// Client identifier of the gateway itself, which nobody else may use.
    pub client_id: String,
    /// Topics that the gateway publishes on, as far as the configuration tells; nobody else may.
    pub own_topics: BTreeSet<String>,
    /// Messages of its clients that enter the outbox; the first that matches counts.
    pub ingest: Vec<Ingest>,
    /// Client identifiers of bridges that do not say themselves that they are.
    pub bridges: Vec<String>,
    /// What of its clients is told.
    pub watch: BrokerWatch,
    /// Are listeners that others reach announced to their networks (DNS-SD)?
    pub discoverable: bool,
    /// What it is announced as: the gateway's name.
    pub name: String,
    /// Between two messages below `$SYS`; zero: none.
    pub sys_interval: Duration,
    /// How far the wall clock is trusted, where tokens are checked against it.
    pub trust: Trust,
}

/// A listener of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerListener {
    /// Address and port.
    pub listen: SocketAddr,
    /// TLS; `None`: plain.
    pub tls: Option<ListenerTls>,
    /// MQTT over WebSocket?
    pub websocket: bool,
}

impl BrokerListener {
    /// Are its clients asked for a certificate?
    #[must_use]
    pub fn asks_for_certificates(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some())
    }
}

/// `tls` of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// Our certificate with its chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authority of the clients' certificates; `None`: clients are not asked for one.
    pub client_ca: Option<PathBuf>,
}

/// `[broker.user.NAME]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerRules {
    /// Filters of topics that the user may subscribe to; `%u` and `%c` stand for user and client identifier.
    pub read: Vec<String>,
    /// ...and publish on.
    pub write: Vec<String>,
    /// Common name of the certificate that is this user's.
    pub certificate: Option<String>,
}

/// `[broker.limits]`; the defaults are for a Pi with 512 MB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerLimits {
    /// Connections at a time; one address other than this machine may have half of them.
    pub connections: usize,
    /// Connections that an address may open a second; twice as many at once.
    pub connect_rate: u32,
    /// Largest packet from a client, in bytes.
    pub packet: u32,
    /// Messages that a client may publish a second; twice as many at once.
    pub message_rate: u32,
    /// Messages that wait for one client.
    pub queue: usize,
    /// Their bytes.
    pub queue_bytes: usize,
    /// Retained messages.
    pub retained: usize,
    /// Their bytes.
    pub retained_bytes: usize,
    /// Subscriptions of a client.
    pub subscriptions: usize,
    /// The longest keep-alive of a client of MQTT 5, in seconds; `None`: what the client asks for.
    pub keep_alive: Option<NonZeroU16>,
}

impl Default for BrokerLimits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connect_rate: 100,
            packet: 1024 * 1024,
            message_rate: 1000,
            queue: 10_000,
            queue_bytes: 4 * 1024 * 1024,
            retained: 10_000,
            retained_bytes: 16 * 1024 * 1024,
            subscriptions: 500,
            keep_alive: None,
        }
    }
}

impl BrokerConfig {
    /// A broker as an empty `[broker]` makes it.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self {
            listeners: vec![default_listener()],
            anonymous: true,
            users: None,
            rules: BTreeMap::new(),
            limits: BrokerLimits::default(),
            path,
            client_id: "vigie".to_owned(),
            own_topics: BTreeSet::new(),
            ingest: Vec::new(),
            bridges: Vec::new(),
            jwt: None,
            watch: BrokerWatch::default(),
            discoverable: true,
            name: "vigie".to_owned(),
            sys_interval: SYS_INTERVAL,
            trust: Trust::default(),
        }
    }
}

fn default_listener() -> BrokerListener {
    BrokerListener { listen: (Ipv4Addr::LOCALHOST, PORT).into(), tls: None, websocket: false }
}

/// Reads `[broker]`.
pub(super) fn broker(options: &Options<'_>, around: &Surroundings<'_>) -> Option<BrokerConfig> {
    let path = path(options, "path", around).unwrap_or_else(|| around.machine.state_dir.join("broker"));
    let users = self::path(options, "users", around);
    let wants_jwt = options.raw("jwt").is_some();
    let jwt = options.section_called("jwt", "[broker.jwt]").and_then(|section| {
        let read = broker_watch::jwt(&section, around);
        section.finish();
        read
    });
    let known = users.is_some() || wants_jwt;
    let anonymous = options.optional::<bool>("anonymous");
    let before = options.problems().len();
    let mut listeners = Vec::new();
    if let Some(listen) = address(options, options.raw("listen").is_none().then(default_listener)) {
        let given = options.raw("listen").is_some();
        if given || options.raw("listener").is_none() {
            listeners.push(BrokerListener { listen, tls: None, websocket: false });
            check_open(options, options.raw("listen"), listen, known, anonymous);
        }
    }
    more_listeners(options, around, known, anonymous, &mut listeners);
    let rules = rules(options);
    let bridges = options.optional::<Vec<String>>("bridges").unwrap_or_default();
    let watch = options.section_called("watch", "[broker.watch]").map(|section| {
        let read = broker_watch::watch(&section);
        section.finish();
        read
    });
    let discoverable = options.optional("discoverable").unwrap_or(true);
    let sys_interval = options.optional_in("sys_interval", Duration::ZERO..=YEAR).unwrap_or(SYS_INTERVAL);
    let limits = options.section_called("limits", "[broker.limits]");
    let limits = limits.as_ref().map_or_else(BrokerLimits::default, |section| {
        let read = self::limits(section);
        section.finish();
        read
    });
    if !around.machine.has_broker {
        options.problems().push(
            Problem::new(options.span(), "this build of vigie has no embedded broker")
                .help("install the full build, or use a broker of your own with [uplink.NAME]"),
        );
        return None;
    }
    if options.problems().len() > before {
        return None;
    }
    let certificates = listeners.iter().any(BrokerListener::asks_for_certificates);
    let anonymous = anonymous.unwrap_or(!known && !certificates);
    Some(BrokerConfig {
        listeners,
        anonymous,
        users,
        jwt,
        rules,
        limits,
        bridges,
        watch: watch.unwrap_or_default(),
        discoverable,
        sys_interval,
        ..BrokerConfig::new(path)
    })
}

fn path(options: &Options<'_>, key: &'static str, around: &Surroundings<'_>) -> Option<PathBuf> {
    let text = options.optional::<String>(key)?;
    if text.is_empty() || text.contains('\0') {
        options.problem(key, format!("`{key}` of {} is not a path", options.what()), None);
        return None;
    }
    Some(around.resolve(&text))
}

/// `listen`; without it, that of the default.
fn address(options: &Options<'_>, default: Option<BrokerListener>) -> Option<SocketAddr> {
    const EXPECTED: &str = "expected an address and a port, such as \"127.0.0.1:1883\"";
    if let Some(default) = default {
        return Some(default.listen);
    }
    let text = options.required::<String>("listen")?;
    let Ok(address) = text.parse::<SocketAddr>() else {
        options.problem("listen", format!("`listen` of {} is not an address", options.what()), Some(EXPECTED.into()));
        return None;
    };
    if address.port() == 0 {
        options.problem("listen", format!("`listen` of {} has the port 0", options.what()), Some(EXPECTED.into()));
        return None;
    }
    Some(address)
}

/// A listener that others than this machine reach must know its clients, or be said to be open.
fn check_open(
    options: &Options<'_>,
    at: Option<&Spanned<DeValue<'_>>>,
    listen: SocketAddr,
    known: bool,
    anonymous: Option<bool>,
) {
    if listen.ip().is_loopback() || known || anonymous == Some(true) {
        return;
    }
    let span = at.map_or_else(|| options.span(), Spanned::span);
    let reach = match listen.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => "every network of this machine",
        _ => "the network",
    };
    options.problems().push(
        Problem::new(span, format!("{} is open to {reach}, and everybody there could read and write", options.what()))
            .expected("expected users, client certificates, or an address of this machine alone")
            .help(
                "give it users (`vigie broker passwd NAME`, then `users = \"/etc/vigie/users\"` in [broker]), or \
                 `tls = { …, client_ca = \"…\" }`; if it is to be open, say so: `anonymous = true` in [broker]",
            ),
    );
}

/// `[[broker.listener]]`
fn more_listeners(
    options: &Options<'_>,
    around: &Surroundings<'_>,
    users: bool,
    anonymous: Option<bool>,
    listeners: &mut Vec<BrokerListener>,
) {
    const WHAT: &str = "[[broker.listener]]";
    let Some(value) = options.raw("listener") else { return };
    let Some(array) = value.get_ref().as_array() else {
        let message =
            format!("`listener` of [broker] has the wrong type: this is of type {}", value.get_ref().type_str());
        options.problem("listener", message, Some("expected a list: write [[broker.listener]]".to_owned()));
        return;
    };
    for entry in array.iter() {
        let Some(table) = Options::table(entry, WHAT, options.problems()) else { continue };
        if let Some(listener) = listener(&table, around) {
            let known = users || listener.asks_for_certificates();
            check_open(&table, table.raw("listen"), listener.listen, known, anonymous);
            if listeners.iter().any(|other| clash(other.listen, listener.listen)) {
                table.problem(
                    "listen",
                    format!("two listeners of the broker have the port {}", listener.listen.port()),
                    Some("expected a port of its own".to_owned()),
                );
            }
            listeners.push(listener);
        }
        table.finish();
    }
    if listeners.is_empty() && array.is_empty() {
        options.problem("listener", "[broker] has no listener", Some("expected at least one".to_owned()));
    }
}

fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let wide = a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.is_ipv4() == b.is_ipv4() && (wide || a.ip() == b.ip())
}

/// The keys of a listener.
pub(super) fn listener(table: &Options<'_>, around: &Surroundings<'_>) -> Option<BrokerListener> {
    let listen = address(table, None);
    let websocket = table.optional::<bool>("websocket").unwrap_or(false);
    let wants_tls = table.raw("tls").is_some();
    let tls = table.section("tls").and_then(|section| {
        let read = tls(&section, around);
        section.finish();
        read
    });
    if wants_tls && tls.is_none() {
        return None;
    }
    Some(BrokerListener { listen: listen?, tls, websocket })
}

/// The keys of a listener's `tls`.
pub(super) fn tls(section: &Options<'_>, around: &Surroundings<'_>) -> Option<ListenerTls> {
    for key in ["certificate", "key"] {
        // What is missing is noted.
        let _ = section.required::<String>(key);
    }
    let [certificate, key, client_ca] = ["certificate", "key", "client_ca"].map(|name| {
        let path = section.raw(name).and_then(|value| value.get_ref().as_str()).map(|text| around.resolve(text))?;
        if let Err(error) = std::fs::File::open(&path)
            && around.machine.secrets
        {
            section.problem_with_help(
                name,
                format!("{} cannot be read: {error}", path.display()),
                None,
                Some("`vigie broker cert` makes a certificate and its key".to_owned()),
            );
        }
        Some(path)
    });
    if section.raw("client_ca").is_some() {
        // A value of the wrong type is noted.
        section.optional::<String>("client_ca")?;
    }
    Some(ListenerTls { certificate: certificate?, key: key?, client_ca })
}

/// All `[broker.user.NAME]`.
fn rules(options: &Options<'_>) -> BTreeMap<String, BrokerRules> {
    let Some(users) = options.section_called("user", "`user` of [broker]") else { return BTreeMap::new() };
    let mut rules = BTreeMap::new();
    for (name, value) in users.entries() {
        let name = name.get_ref().as_ref();
        let Some(table) = Options::table(value, format!("[broker.user.{name}]"), options.problems()) else { continue };
        rules.insert(name.to_owned(), user(&table, name));
        table.finish();
    }
    rules
}

/// The keys of a user.
pub(super) fn user(table: &Options<'_>, name: &str) -> BrokerRules {
    let [read, write] = ["read", "write"].map(|key| {
        let patterns = table.optional::<Vec<String>>(key).unwrap_or_default();
        for pattern in &patterns {
            if let Err(why) = check_pattern(pattern) {
                table.problem(key, format!("`{key}` of {}: \"{pattern}\" {why}", table.what()), None);
            }
        }
        patterns
    });
    let certificate = table.optional::<String>("certificate");
    if certificate.is_some() && name == ANONYMOUS {
        table.problem("certificate", "clients without a user have no certificate", None);
    }
    BrokerRules { read, write, certificate }
}

/// Is it a filter (MQTT 3.1.1, 4.7.1)?
fn check_pattern(pattern: &str) -> Result<(), &'static str> {
    filter::check(pattern)?;
    for level in pattern.split('/') {
        if level.contains('%') && level != "%u" && level != "%c" {
            return Err("has a `%` that is neither the level %u nor the level %c");
        }
    }
    Ok(())
}

const CONNECTIONS: RangeInclusive<u32> = 1..=10_000;
const RATE: RangeInclusive<u32> = 1..=1_000_000;
const COUNT: RangeInclusive<u32> = 1..=1_000_000;
const KEEP_ALIVE: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_secs(65_535);
const PACKET: RangeInclusive<Bytes> = Bytes(1024)..=Bytes(16 * 1024 * 1024);
const TOTAL: RangeInclusive<Bytes> = Bytes(64 * 1024)..=Bytes(256 * 1024 * 1024);

/// The keys of `[broker.limits]`.
pub(super) fn limits(section: &Options<'_>) -> BrokerLimits {
    let default = BrokerLimits::default();
    let size = |bytes: u32| usize::try_from(bytes).unwrap_or(usize::MAX);
    let bytes = |bytes: Bytes| usize::try_from(bytes.0).unwrap_or(usize::MAX);
    BrokerLimits {
        connections: section.optional_in("connections", CONNECTIONS).map_or(default.connections, size),
        connect_rate: section.optional_in("connect_rate", RATE).unwrap_or(default.connect_rate),
        packet: section
            .optional_in("packet", PACKET)
            .map_or(default.packet, |bytes| u32::try_from(bytes.0).unwrap_or(u32::MAX)),
        message_rate: section.optional_in("message_rate", RATE).unwrap_or(default.message_rate),
        queue: section.optional_in("queue", COUNT).map_or(default.queue, size),
        queue_bytes: section.optional_in("queue_bytes", TOTAL).map_or(default.queue_bytes, bytes),
        retained: section.optional_in("retained", COUNT).map_or(default.retained, size),
        retained_bytes: section.optional_in("retained_bytes", TOTAL).map_or(default.retained_bytes, bytes),
        subscriptions: section.optional_in("subscriptions", COUNT).map_or(default.subscriptions, size),
        keep_alive: section
            .optional_in("keep_alive", KEEP_ALIVE)
            .and_then(|longest| u16::try_from(longest.as_secs()).ok().and_then(NonZeroU16::new)),
    }
}

/// The topics that the gateway publishes on.
pub(super) fn own_topics<'a>(gateway: &Gateway, sensors: impl Iterator<Item = &'a SensorConfig>) -> BTreeSet<String> {
    let own = match &gateway.site {
        Some(site) => format!("{site}/{}", gateway.name),
        None => gateway.name.clone(),
    };
    let mut topics: BTreeSet<String> =
        topic::GATEWAY_STATE.into_iter().chain([topic::AUDIT]).map(|last| format!("{own}/{last}")).collect();
    for sensor in sensors {
        let descriptor = sensor.known_descriptor(gateway);
        let base = gateway.topic.sensor_topic(&descriptor);
        topics.extend(["availability", "gaps"].into_iter().map(|last| format!("{base}/{last}")));
        topics.insert(topic::result_topic(&gateway.topic, &descriptor));
        topics.extend(descriptor.quantities.iter().map(|quantity| gateway.topic.quantity_topic(&descriptor, quantity)));
        topics.insert(base);
    }
    topics
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_filters_with_placeholders_as_levels() {
        for good in ["#", "+", "a/+/b", "a/#", "%u/%c/x", "$SYS/#", "/"] {
            assert_eq!(check_pattern(good), Ok(()), "{good}");
        }
        for bad in ["", "a/#/b", "a+", "a/b#", "x%u", "%x", "%"] {
            assert!(check_pattern(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_clash_where_one_takes_what_the_other_wants() {
        let address = |text: &str| text.parse().unwrap();
        assert!(clash(address("0.0.0.0:1"), address("127.0.0.1:1")));
        assert!(!clash(address("0.0.0.0:1"), address("127.0.0.1:2")));
        assert!(!clash(address("192.0.2.1:1"), address("127.0.0.1:1")));
        assert!(!clash(address("0.0.0.0:1"), address("[::]:1")));
    }
}
