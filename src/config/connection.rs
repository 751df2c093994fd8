//! How an uplink's connection is made: the list of URLs, TLS, proxy, interface, and when.

use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::broker_url::{self, BrokerUrl};
use super::read::{Surroundings, YEAR};
use super::secret::{self, Password};
use super::uplink::check_text;
use crate::options::{Options, Problem};

/// An uplink has at most so many URLs.
const MAX_URLS: usize = 16;

/// `failback` where it is not given.
pub(super) const DEFAULT_FAILBACK: Duration = Duration::from_secs(180);

/// More often than every second, the look whether the first broker answers would be a nuisance to it.
const FAILBACK: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=YEAR;

/// Below a minute, connecting anew each time costs more than staying connected.
const CONNECT_EVERY: std::ops::RangeInclusive<Duration> = Duration::from_secs(60)..=YEAR;

/// Longest name of a network interface: IFNAMSIZ less the closing zero (netdevice(7)).
const MAX_INTERFACE_BYTES: usize = 15;

/// Longest name of a protocol in ALPN (RFC 7301, section 3.1).
const MAX_ALPN_BYTES: usize = 255;

/// An uplink names at most so many protocols for ALPN.
const MAX_ALPN: usize = 8;

/// Settings of TLS. The files are read anew at each connection, so that renewed ones are used without a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// PEM file of the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of our certificate chain and its key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Name that the broker's certificate must be for, and that is asked for (SNI), instead of the URL's host.
    pub server_name: Option<String>,
    /// Protocols to offer (ALPN, RFC 7301).
    pub alpn: Vec<String>,
}

/// An HTTP proxy that opens connections for us (CONNECT; RFC 9110, section 9.3.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User name.
    pub username: Option<String>,
    /// Where its password is read from at each connection.
    pub password: Option<Password>,
}

/// When an uplink is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connect {
    /// Always, or as nearly as it can be.
    Always,
    /// Once in this time, as long as it takes to send what waits: metered links, batteries.
    Every(Duration),
}

/// `url`: one, or a list to fail over along.
pub(super) fn urls(options: &Options<'_>) -> Option<Vec<BrokerUrl>> {
    let Some(list) = options.raw("url").and_then(|value| Some((value.span(), value.get_ref().as_array()?))) else {
        let text = options.required::<String>("url")?;
        let at = options.raw("url").map_or(0..0, Spanned::span);
        return Some(vec![parsed(&text, at, "`url`", options)?]);
    };
    let (span, list) = list;
    if list.is_empty() || list.len() > MAX_URLS {
        let what = if list.is_empty() { "is an empty list" } else { "has too many URLs" };
        options.problems().push(
            Problem::new(span, format!("`url` of {} {what}", options.what()))
                .expected(format!("expected one URL, or a list of 1 to {MAX_URLS}")),
        );
        return None;
    }
    let read: Vec<(std::ops::Range<usize>, Option<BrokerUrl>)> =
        list.iter().enumerate().map(|(index, value)| (value.span(), entry(index, value, options))).collect();
    for (index, (span, url)) in read.iter().enumerate() {
        let same = |(_, other): &&(std::ops::Range<usize>, Option<BrokerUrl>)| {
            url.as_ref().zip(other.as_ref()).is_some_and(|(url, other)| url == other)
        };
        if let Some((first, _)) = read[..index].iter().find(same) {
            options.problems().push(
                Problem::new(span.clone(), format!("`url` of {} has the same URL twice", options.what()))
                    .expected("second")
                    .related(first.clone(), "first"),
            );
            return None;
        }
    }
    read.into_iter().map(|(_, url)| url).collect()
}

fn entry(index: usize, value: &Spanned<DeValue<'_>>, options: &Options<'_>) -> Option<BrokerUrl> {
    let what = format!("entry {} of `url`", index + 1);
    let Some(text) = value.get_ref().as_str() else {
        options.problems().push(
            Problem::new(
                value.span(),
                format!("{what} of {} is of type {}", options.what(), value.get_ref().type_str()),
            )
            .expected(broker_url::EXPECTED),
        );
        return None;
    };
    parsed(text, value.span(), &what, options)
}

fn parsed(text: &str, at: std::ops::Range<usize>, what: &str, options: &Options<'_>) -> Option<BrokerUrl> {
    match BrokerUrl::parse(text) {
        Ok(url) => Some(url),
        Err((why, help)) => {
            let problem =
                Problem::new(at, format!("{what} of {} {why}", options.what())).expected(broker_url::EXPECTED);
            options.problems().push(match help {
                Some(help) => problem.help(help),
                None => problem,
            });
            None
        }
    }
}

/// `tls`, which only makes sense with a URL that uses it.
pub(super) fn tls(options: &Options<'_>, urls: Option<&[BrokerUrl]>, around: &Surroundings<'_>) -> TlsConfig {
    let Some(table) = options.section("tls") else { return TlsConfig::default() };
    if urls.is_some_and(|urls| urls.iter().all(|url| !url.tls)) {
        options.problem_with_help(
            "tls",
            format!("{} has `tls`, but its url is one without TLS", options.what()),
            None,
            Some("write mqtts:// or wss:// in url, or take out tls".to_owned()),
        );
    }
    let tls = tls_keys(&table, around);
    table.finish();
    tls
}

/// The keys of `tls`.
pub(super) fn tls_keys(table: &Options<'_>, around: &Surroundings<'_>) -> TlsConfig {
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
    TlsConfig { ca, client: cert.zip(key), server_name: server_name(table), alpn: alpn(table) }
}

fn server_name(table: &Options<'_>) -> Option<String> {
    let name = table.optional::<String>("server_name")?;
    match broker_url::host_and_port(&name) {
        Ok((host, None)) if !name.starts_with('[') => Some(host),
        _ => {
            let message = format!("`server_name` of {} is no host name", table.what());
            table.problem(
                "server_name",
                message,
                Some("expected a name such as \"broker.lan\", without port".to_owned()),
            );
            None
        }
    }
}

fn alpn(table: &Options<'_>) -> Vec<String> {
    let Some(value) = table.raw("alpn") else { return Vec::new() };
    let names: Option<Vec<String>> = value.get_ref().as_array().and_then(|list| {
        let name = |value: &Spanned<DeValue<'_>>| value.get_ref().as_str().map(str::to_owned);
        list.iter().map(name).collect()
    });
    let fine = |name: &String| (1..=MAX_ALPN_BYTES).contains(&name.len());
    match names.filter(|names| (1..=MAX_ALPN).contains(&names.len()) && names.iter().all(fine)) {
        Some(names) => names,
        None => {
            let message = format!("`alpn` of {} is no list of protocols", table.what());
            let expected = format!("expected 1 to {MAX_ALPN} texts such as [\"x-amzn-mqtt-ca\"]");
            table.problem("alpn", message, Some(expected));
            Vec::new()
        }
    }
}

/// `proxy`
pub(super) fn proxy(options: &Options<'_>, around: &Surroundings<'_>) -> Option<ProxyConfig> {
    let table = options.section("proxy")?;
    let proxy = proxy_keys(&table, around);
    table.finish();
    proxy
}

/// The keys of `proxy`.
pub(super) fn proxy_keys(table: &Options<'_>, around: &Surroundings<'_>) -> Option<ProxyConfig> {
    let place = table.required::<String>("url").and_then(|text| match proxy_place(&text) {
        Ok(place) => Some(place),
        Err((why, help)) => {
            let message = format!("`url` of {} {why}", table.what());
            let expected = "expected \"http://HOST:PORT\"".to_owned();
            table.problem_with_help("url", message, Some(expected), help.map(str::to_owned));
            None
        }
    });
    let username = table.optional::<String>("username").filter(|name| {
        // RFC 7617, section 2: the first colon ends the user name.
        let why = check_text(name).err().or_else(|| name.contains(':').then(|| "contains a colon".to_owned()));
        if let Some(why) = &why {
            table.problem("username", format!("`username` of {} {why}", table.what()), None);
        }
        why.is_none()
    });
    let password = secret::password(table, "password", around);
    if table.raw("password").is_some() && table.raw("username").is_none() {
        let message = format!("{} has a password without a user name", table.what());
        table.problem_with_help("password", message, None, Some("add username = \"…\"".to_owned()));
    }
    let (host, port) = place?;
    Some(ProxyConfig { host, port, username, password })
}

fn proxy_place(text: &str) -> Result<(String, u16), (String, Option<&'static str>)> {
    let place = match text.split_once("://") {
        Some(("http", place)) => place.strip_suffix('/').unwrap_or(place),
        Some(("https", _)) => {
            return Err((
                "has the scheme `https`".to_owned(),
                Some("the way to the proxy is plain; TLS goes through it to the broker: write http://"),
            ));
        }
        _ => return Err(("is not an http:// URL".to_owned(), None)),
    };
    if place.contains('@') {
        let help = "give them apart: username = \"…\" and password = { file = \"…\" }";
        return Err(("contains a user name or password".to_owned(), Some(help)));
    }
    match broker_url::host_and_port(place)? {
        (host, Some(port)) => Ok((host, port)),
        (_, None) => {
            Err(("has no port".to_owned(), Some("proxies have no port of their own; 3128 and 8080 are usual")))
        }
    }
}

/// `interface`. Whether there is one of that name is seen when it is used: a modem may come later.
pub(super) fn interface(options: &Options<'_>) -> Option<String> {
    let name = options.optional::<String>("interface")?;
    let fine = (1..=MAX_INTERFACE_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
        && name != "."
        && name != "..";
    if fine {
        return Some(name);
    }
    let message = format!("`interface` of {} cannot be the name of a network interface", options.what());
    options.problem("interface", message, Some("expected a name such as \"wlan0\"; `ip link` lists them".to_owned()));
    None
}

/// `connect`
pub(super) fn connect(options: &Options<'_>) -> Connect {
    const EXPECTED: &str = "expected \"always\", or \"every\" and a duration from 1m to a year, such as \"every 15m\"";
    let Some(text) = options.optional::<String>("connect") else { return Connect::Always };
    let wrong = |why: &str| {
        options.problem("connect", format!("`connect` of {} {why}", options.what()), Some(EXPECTED.to_owned()));
        Connect::Always
    };
    match text.split_once(' ') {
        None if text == "always" => Connect::Always,
        Some(("every", every)) => match humantime::parse_duration(every.trim()) {
            Ok(every) if CONNECT_EVERY.contains(&every) => Connect::Every(every),
            Ok(_) => wrong("is out of range"),
            Err(_) => wrong("has no duration after `every`"),
        },
        _ => wrong("is neither \"always\" nor \"every …\""),
    }
}

/// `failback`
pub(super) fn failback(options: &Options<'_>) -> Duration {
    options.optional_in("failback", FAILBACK).unwrap_or(DEFAULT_FAILBACK)
}
