//! The URL of a broker: `mqtt://`, `mqtts://`, `ws://` or `wss://`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Where a broker is, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerUrl {
    /// `mqtts`, `wss`
    pub tls: bool,
    /// `ws`, `wss`: path and query of the endpoint, from its `/` on.
    pub websocket: Option<String>,
    /// Name or address, without brackets.
    pub host: String,
    /// Default 1883, with TLS 8883; over WebSocket 80 and 443.
    pub port: u16,
}

/// What is expected where a URL is wrong.
pub(super) const EXPECTED: &str = "expected \"mqtt://HOST:PORT\", \"mqtts://HOST:PORT\" or \"wss://HOST:PORT/PATH\"";

/// Longest path of a WebSocket, in bytes.
const MAX_PATH_BYTES: usize = 2_048;

/// What is wrong with a URL, and what to do about it.
type Refusal = (String, Option<&'static str>);

impl BrokerUrl {
    /// A broker without TLS at an address.
    #[must_use]
    pub fn of(address: SocketAddr) -> Self {
        Self { tls: false, websocket: None, host: address.ip().to_string(), port: address.port() }
    }

    /// Is the broker on this machine, by its name?
    #[must_use]
    pub fn is_this_machine(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Host and port as they stand in a URL or a `Host` header: an IPv6 address in brackets.
    #[must_use]
    pub fn authority(&self) -> String {
        authority(&self.host, self.port)
    }

    /// Do both lead to one listener?
    pub(super) fn is_same_broker(&self, other: &Self) -> bool {
        (self.host.as_str(), self.port) == (other.host.as_str(), other.port)
    }

    /// Reads a URL. The messages do not repeat it: it may hold a password by mistake.
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(plain("has no scheme"));
        };
        let (tls, websocket) = match scheme {
            "mqtt" => (false, false),
            "mqtts" => (true, false),
            "ws" => (false, true),
            "wss" => (true, true),
            "tcp" => return Err(("has the scheme `tcp`".to_owned(), Some("it is called `mqtt` here"))),
            "ssl" | "tls" => return Err((format!("has the scheme `{scheme}`"), Some("it is called `mqtts` here"))),
            "http" => return Err(("has the scheme `http`".to_owned(), Some("MQTT over WebSocket is `ws`"))),
            "https" => return Err(("has the scheme `https`".to_owned(), Some("MQTT over WebSocket is `wss`"))),
            _ => return Err(plain("has an unknown scheme")),
        };
        let (place, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if place.contains('@') || !websocket && rest.contains('@') {
            return Err((
                "contains a user name or password".to_owned(),
                Some("give them apart: username = \"…\" and password = { file = \"…\" }"),
            ));
        }
        let path = if websocket {
            Some(check_path(path)?)
        } else if path.is_empty() || path == "/" {
            None
        } else {
            return Err(plain("has something after host and port"));
        };
        let (host, port) = host_and_port(place)?;
        let port = port.unwrap_or(match (websocket, tls) {
            (false, false) => 1883,
            (false, true) => 8883,
            (true, false) => 80,
            (true, true) => 443,
        });
        Ok(Self { tls, websocket: path, host, port })
    }
}

fn plain(why: &str) -> Refusal {
    (why.to_owned(), None)
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The path of a WebSocket (RFC 6455, section 3: no fragment).
fn check_path(path: &str) -> Result<String, Refusal> {
    // RFC 3986, section 3.3 and 3.4: all others are to be written as `%XX`.
    let plain_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"/?-._~!$&'()*+,;=:@%".contains(&byte);
    if path.contains('#') {
        return Err(plain("has a `#`, which a WebSocket's URL cannot have"));
    }
    if !path.bytes().all(plain_byte) {
        return Err((
            "has a character in its path that a URL cannot hold".to_owned(),
            Some("write it as `%` and two hexadecimal digits"),
        ));
    }
    if path.len() > MAX_PATH_BYTES {
        return Err((format!("has a path longer than {MAX_PATH_BYTES} bytes"), None));
    }
    Ok(if path.starts_with('/') { path.to_owned() } else { format!("/{path}") })
}

/// Reads `HOST`, `HOST:PORT`, `[ADDRESS]` or `[ADDRESS]:PORT`.
pub(super) fn host_and_port(place: &str) -> Result<(String, Option<u16>), Refusal> {
    let (host, port) = match place.strip_prefix('[') {
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
        None => match place.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(("has an IPv6 address without brackets".to_owned(), Some("write it as [ADDRESS]")));
            }
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    if host.is_empty() {
        return Err(plain("has no host"));
    }
    if !host.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '.' | '_' | ':')) || host.len() > 253 {
        return Err(plain("has a host that cannot be one"));
    }
    let port = match port.map(str::parse::<u16>) {
        None => None,
        Some(Ok(port)) if port > 0 => Some(port),
        Some(_) => return Err(plain("has a port that is not a number from 1 to 65535")),
    };
    Ok((host.to_owned(), port))
}

/// For logs: without the query, in which people put tokens.
impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (self.websocket.is_some(), self.tls) {
            (false, false) => "mqtt",
            (false, true) => "mqtts",
            (true, false) => "ws",
            (true, true) => "wss",
        };
        let path = self.websocket.as_deref().map_or("", |path| path.split('?').next().unwrap_or_default());
        write!(f, "{scheme}://{}{path}", self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let url = |tls, host: &str, port| BrokerUrl { tls, websocket: None, host: host.to_owned(), port };
        assert_eq!(BrokerUrl::parse("mqtt://broker.lan"), Ok(url(false, "broker.lan", 1883)));
        assert_eq!(BrokerUrl::parse("mqtts://broker.lan/"), Ok(url(true, "broker.lan", 8883)));
        assert_eq!(BrokerUrl::parse("mqtt://[::1]:1884"), Ok(url(false, "::1", 1884)));
        assert_eq!(BrokerUrl::parse("mqtts://10.0.0.1:1"), Ok(url(true, "10.0.0.1", 1)));
        let socket = |tls, path: &str, port| BrokerUrl { websocket: Some(path.to_owned()), ..url(tls, "b.lan", port) };
        assert_eq!(BrokerUrl::parse("ws://b.lan"), Ok(socket(false, "/", 80)));
        assert_eq!(BrokerUrl::parse("wss://b.lan/mqtt"), Ok(socket(true, "/mqtt", 443)));
        assert_eq!(BrokerUrl::parse("wss://b.lan:8080/a?b=@c"), Ok(socket(true, "/a?b=@c", 8080)));
        assert_eq!(BrokerUrl::parse("wss://b.lan?b=c"), Ok(socket(true, "/?b=c", 443)));
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
            "ws://u:p@b/",
            "ws://b/a b",
            "ws://b/#a",
            "ws://b/é",
        ] {
            assert!(BrokerUrl::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn urls_are_shown_without_what_may_be_secret() {
        for (text, shown) in [
            ("mqtt://b", "mqtt://b:1883"),
            ("mqtts://[::1]", "mqtts://[::1]:8883"),
            ("wss://b/mqtt?token=hunter2", "wss://b:443/mqtt"),
        ] {
            assert_eq!(BrokerUrl::parse(text).expect("a URL").to_string(), shown);
        }
    }

    #[test]
    fn the_broker_on_this_machine_is_known() {
        let is = |host: &str| BrokerUrl { host: host.to_owned(), ..BrokerUrl::of(([10, 0, 0, 1], 1).into()) };
        for host in ["localhost", "127.0.0.1", "127.1.2.3", "::1"] {
            assert!(is(host).is_this_machine(), "{host}");
        }
        assert!(!is("10.0.0.1").is_this_machine());
    }
}
