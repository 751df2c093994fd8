//! `[uplink.NAME]`, and the uplink to the embedded broker.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeValue};

use super::read::{self, Bytes, Surroundings, YEAR};
use super::{
    Backlog, BrokerUrl, Gateway, MqttVersion, PayloadShape, Qos, Selection, TlsConfig, UplinkConfig, backlog, secret,
};
use crate::options::{Options, Problem, Problems};

/// Name of the uplink that leads to the embedded broker.
pub const BROKER_UPLINK: &str = "broker";

/// `client_id` where it is not given.
const DEFAULT_CLIENT_ID: &str = "vigie-{gateway}";

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

/// An uplink and where it stands.
pub(super) struct Placed {
    pub(super) uplink: UplinkConfig,
    pub(super) at: Range<usize>,
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
    let options = Options::table(value, format!("[uplink.{name}]"), problems)?;
    let uplink = uplink(&options, name, gateway, around);
    options.finish();
    Some(Placed { uplink: uplink?, at: key.span() })
}

/// The keys of an uplink.
pub(super) fn uplink(
    options: &Options<'_>,
    name: &str,
    gateway: &Gateway,
    around: &Surroundings<'_>,
) -> Option<UplinkConfig> {
    let url = url(options);
    let client_id = client_id(options, gateway, around);
    let username = username(options);
    let password = secret::password(options, "password", around);
    if options.raw("password").is_some() && options.raw("username").is_none() {
        options.problem_with_help(
            "password",
            format!("{} has a password without a user name, which MQTT does not allow", options.what()),
            None,
            Some("add username = \"…\"".to_owned()),
        );
    }
    let versions = [("3.1.1", MqttVersion::V311), ("5", MqttVersion::V5)];
    let mqtt = options.optional_word("mqtt", &versions).unwrap_or_default();
    let words = [("quantity", PayloadShape::Quantity), ("sensor", PayloadShape::Sensor)];
    let payload = options.optional_word("payload", &words).unwrap_or_default();
    let clock_wait = options.optional_in("clock_wait", Duration::ZERO..=YEAR);
    let max_packet = options.optional_in("max_packet", MAX_PACKET).unwrap_or(DEFAULT_MAX_PACKET);
    let qos = match options.optional_in::<u8>("qos", 0..=2) {
        Some(0) => Qos::AtMostOnce,
        Some(2) => Qos::ExactlyOnce,
        _ => Qos::AtLeastOnce,
    };
    let retain = options.optional("retain").unwrap_or(true);
    let inflight = options.optional_in("inflight", 1..=u16::MAX).unwrap_or(DEFAULT_INFLIGHT);
    let keep_alive = options.optional_in("keep_alive", KEEP_ALIVE).unwrap_or(DEFAULT_KEEP_ALIVE);
    let (selection, backlog) = (backlog::selection(options), backlog::backlog(options));
    let tls = tls(options, url.as_ref(), around);
    let url = url?;
    let default_wait = if is_this_machine(&url.host) { Duration::ZERO } else { DEFAULT_CLOCK_WAIT };
    Some(UplinkConfig {
        name: name.to_owned(),
        mqtt,
        client_id: client_id?,
        username,
        password,
        qos,
        retain,
        inflight,
        keep_alive,
        clock_wait: clock_wait.unwrap_or(default_wait),
        payload,
        max_packet: u32::try_from(max_packet.0).unwrap_or(u32::MAX),
        selection,
        backlog,
        tls: url.tls.then_some(tls).map(Option::unwrap_or_default),
        url,
    })
}

/// The uplink to the embedded broker: as any other, over loopback.
pub(super) fn to_broker(listen: SocketAddr, client_id: String) -> UplinkConfig {
    UplinkConfig {
        name: BROKER_UPLINK.to_owned(),
        url: url_of(listen),
        mqtt: MqttVersion::default(),
        client_id,
        username: None,
        password: None,
        qos: Qos::AtLeastOnce,
        retain: true,
        inflight: DEFAULT_INFLIGHT,
        keep_alive: DEFAULT_KEEP_ALIVE,
        clock_wait: Duration::ZERO,
        payload: PayloadShape::Quantity,
        max_packet: u32::try_from(DEFAULT_MAX_PACKET.0).unwrap_or(u32::MAX),
        selection: Selection::default(),
        backlog: Backlog::default(),
        tls: None,
    }
}

/// Where the embedded broker is reached.
pub(super) fn url_of(listen: SocketAddr) -> BrokerUrl {
    BrokerUrl { tls: false, host: listen.ip().to_string(), port: listen.port() }
}

/// The default client identifier, for the uplink to the embedded broker.
pub(super) fn default_client_id(gateway: &Gateway, around: &Surroundings<'_>) -> String {
    fill(DEFAULT_CLIENT_ID, gateway, around).unwrap_or_else(|_| "vigie".to_owned())
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn url(options: &Options<'_>) -> Option<BrokerUrl> {
    let text = options.required::<String>("url")?;
    match parse_url(&text) {
        Ok(url) => Some(url),
        Err((why, help)) => {
            options.problem_with_help(
                "url",
                format!("`url` of {} {why}", options.what()),
                Some("expected \"mqtt://HOST:PORT\" or \"mqtts://HOST:PORT\"".to_owned()),
                help.map(str::to_owned),
            );
            None
        }
    }
}

/// Reads a URL. The messages do not repeat it: it may hold a password by mistake.
fn parse_url(text: &str) -> Result<BrokerUrl, (String, Option<&'static str>)> {
    let plain = |why: &str| (why.to_owned(), None);
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(plain("has no scheme"));
    };
    let tls = match scheme {
        "mqtt" => false,
        "mqtts" => true,
        "tcp" => return Err(("has the scheme `tcp`".to_owned(), Some("it is called `mqtt` here"))),
        "ssl" | "tls" => return Err((format!("has the scheme `{scheme}`"), Some("it is called `mqtts` here"))),
        "ws" | "wss" => {
            return Err((format!("has the scheme `{scheme}`"), Some("MQTT over WebSocket is not supported yet")));
        }
        _ => return Err(plain("has an unknown scheme")),
    };
    if rest.contains('@') {
        return Err((
            "contains a user name or password".to_owned(),
            Some("give them apart: username = \"…\" and password = { file = \"…\" }"),
        ));
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#']) {
        return Err(plain("has something after host and port"));
    }
    let (host, port) = match rest.strip_prefix('[') {
        Some(bracketed) => {
            let (address, after) = bracketed.split_once(']').ok_or_else(|| plain("lacks a `]`"))?;
            if !address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()) {
                return Err(plain("has no IPv6 address between its brackets"));
            }
            match after.strip_prefix(':') {
                Some(port) => (address, Some(port)),
                None if after.is_empty() => (address, None),
                None => return Err(plain("has something else than a port after `]`")),
            }
        }
        None => match rest.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(("has an IPv6 address without brackets".to_owned(), Some("write it as [ADDRESS]")));
            }
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    if host.is_empty() {
        return Err(plain("has no host"));
    }
    if !host.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '.' | '_' | ':')) || host.len() > 253 {
        return Err(plain("has a host that cannot be one"));
    }
    let port = match port {
        None => {
            if tls {
                8883
            } else {
                1883
            }
        }
        Some(port) => match port.parse::<u16>() {
            Ok(port) if port > 0 => port,
            _ => return Err(plain("has a port that is not a number from 1 to 65535")),
        },
    };
    Ok(BrokerUrl { tls, host: host.to_owned(), port })
}

fn client_id(options: &Options<'_>, gateway: &Gateway, around: &Surroundings<'_>) -> Option<String> {
    let text = match options.raw("client_id") {
        Some(_) => options.optional::<String>("client_id")?,
        None => DEFAULT_CLIENT_ID.to_owned(),
    };
    match fill(&text, gateway, around) {
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

/// Fills in the placeholders of a client identifier.
fn fill(text: &str, gateway: &Gateway, around: &Surroundings<'_>) -> Result<String, String> {
    let mut id = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        id.push_str(before);
        let (name, after) = after.split_once('}').ok_or("has a `{` without a `}`")?;
        id.push_str(match name {
            "gateway" => &gateway.name,
            "hostname" => &around.machine.hostname,
            "id" => &gateway.id,
            _ => return Err(format!("has the unknown placeholder `{{{name}}}`")),
        });
        rest = after;
    }
    id.push_str(rest);
    check_text(&id)?;
    Ok(id)
}

/// Checks a text that goes into an MQTT packet.
fn check_text(text: &str) -> Result<(), String> {
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

fn username(options: &Options<'_>) -> Option<String> {
    let text = options.optional::<String>("username")?;
    match check_text(&text) {
        Ok(()) => Some(text),
        Err(why) => {
            options.problem("username", format!("`username` of {} {why}", options.what()), None);
            None
        }
    }
}

fn tls(options: &Options<'_>, url: Option<&BrokerUrl>, around: &Surroundings<'_>) -> Option<TlsConfig> {
    let table = options.section("tls")?;
    if url.is_some_and(|url| !url.tls) {
        options.problem_with_help(
            "tls",
            format!("{} has `tls`, but its url is mqtt://, without TLS", options.what()),
            None,
            Some("write mqtts:// in url, or take out tls".to_owned()),
        );
    }
    let tls = tls_files(&table, around);
    table.finish();
    Some(tls)
}

/// The keys of `tls`.
pub(super) fn tls_files(table: &Options<'_>, around: &Surroundings<'_>) -> TlsConfig {
    let ca = secret::pem_file(table, "ca", "CERTIFICATE", false, around);
    let cert = secret::pem_file(table, "cert", "CERTIFICATE", false, around);
    let key = secret::pem_file(table, "key", "PRIVATE KEY", true, around);
    for (given, lacking) in [("cert", "key"), ("key", "cert")] {
        if table.raw(given).is_some() && table.raw(lacking).is_none() {
            table.problem_with_help(
                given,
                format!("{} has `{given}` without `{lacking}`", table.what()),
                None,
                Some(format!("add {lacking} = \"PATH\": a client certificate and its key go together")),
            );
        }
    }
    TlsConfig { ca, client: cert.zip(key) }
}

/// Two uplinks to one broker under one client identifier would throw each other out for ever (MQTT 3.1.1, 3.1.4).
pub(super) fn check_client_ids(uplinks: &[Placed], problems: &Problems) {
    for (index, second) in uplinks.iter().enumerate() {
        let same = |first: &&Placed| {
            (first.uplink.url.host.as_str(), first.uplink.url.port, &first.uplink.client_id)
                == (second.uplink.url.host.as_str(), second.uplink.url.port, &second.uplink.client_id)
        };
        let Some(first) = uplinks[..index].iter().find(same) else { continue };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let url = |tls, host: &str, port| BrokerUrl { tls, host: host.to_owned(), port };
        assert_eq!(parse_url("mqtt://broker.lan"), Ok(url(false, "broker.lan", 1883)));
        assert_eq!(parse_url("mqtts://broker.lan/"), Ok(url(true, "broker.lan", 8883)));
        assert_eq!(parse_url("mqtt://[::1]:1884"), Ok(url(false, "::1", 1884)));
        assert_eq!(parse_url("mqtts://10.0.0.1:1"), Ok(url(true, "10.0.0.1", 1)));
        for wrong in [
            "",
            "broker",
            "broker:1883",
            "http://broker",
            "tcp://broker",
            "mqtt://",
            "mqtt://:1883",
            "mqtt://b:0",
            "mqtt://b:65536",
            "mqtt://b:",
            "mqtt://::1",
            "mqtt://[::1",
            "mqtt://[::1]x",
            "mqtt://[b]",
            "mqtt://b/path",
            "mqtt://u:p@b",
            "mqtt://a b",
        ] {
            assert!(parse_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_broker_on_this_machine_is_known() {
        for host in ["localhost", "127.0.0.1", "127.1.2.3", "::1"] {
            assert!(is_this_machine(host), "{host}");
        }
        assert!(!is_this_machine("10.0.0.1"));
    }
}
