//! Why there is no connection, in words.

use std::net::SocketAddr;
use std::time::Duration;

use super::dial;
use super::packet::{Malformed, Reason};
use super::proxy::ProxyError;
use super::session::ACK_DEADLINE;
use super::tls::TlsError;
use super::websocket::WebSocketError;
use crate::config::MqttVersion;

/// Why connecting failed or a connection ended, with the remedy where there is one.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The name has no address.
    #[error("cannot find the address of `{host}`: {error}")]
    Resolve {
        /// The name.
        host: String,
        /// What the system said.
        error: String,
    },
    /// Nobody answers.
    #[error("cannot connect to {address}: {error}")]
    Tcp {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        error: String,
    },
    /// The interface to connect through.
    #[error("cannot connect through the network interface `{name}`: {reason}")]
    Interface {
        /// Its name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// The proxy.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The WebSocket.
    #[error(transparent)]
    WebSocket(#[from] WebSocketError),
    /// The user name, which is a secret, cannot be read.
    #[error("no user name for the broker: {0}")]
    Username(String),
    /// The password cannot be read.
    #[error("no password for the broker: {0}")]
    Password(String),
    /// The proxy's password cannot be read.
    #[error("no password for the proxy: {0}")]
    ProxyPassword(String),
    /// The password is made of a key and the time.
    #[error("the password (`shared_access_key`) cannot be made before the clock is set: `vigie clock` tells more")]
    ClockUnset,
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// CONNECT cannot be made of these settings.
    #[error("{0}")]
    Settings(String),
    /// CONNACK says no.
    #[error("{}", refusal(.reason, *.version, .client_id, .username))]
    Refused {
        /// Why.
        reason: Reason,
        /// The version of MQTT that we spoke.
        version: MqttVersion,
        /// Our client identifier.
        client_id: String,
        /// Our user name, as it may be shown.
        username: String,
    },
    /// Connecting took too long.
    #[error("no connection within {} s", dial::DEADLINE.as_secs())]
    Deadline,
    /// What came is not MQTT.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A packet that may not come now.
    #[error("the broker sent a packet that has no business here: is this an MQTT broker?")]
    OutOfPlace,
    /// The broker closed the connection.
    #[error(
        "the broker closed the connection and gave no reason (in MQTT 3.1.1 it cannot): its log may; another client \
         with the same `client_id` would be one"
    )]
    Closed,
    /// The broker closed the connection instead of answering a CONNECT of MQTT 5.
    #[error(
        "the broker closed the connection instead of answering: if it does not speak MQTT 5, set `mqtt = \"3.1.1\"`"
    )]
    NoAnswer,
    /// The broker ended the connection and said why.
    #[error("the broker ended the connection: {}{}", .0, remedy(.0))]
    Disconnected(Reason),
    /// Our packet ids stand for other messages at the broker.
    #[error("the broker holds another message under a packet id of ours: its session is not ours, and is discarded")]
    IdInUse,
    /// The connection is lost.
    #[error("the connection is lost: {0}")]
    Lost(String),
    /// Nothing came for too long.
    #[error("the broker was silent for {}.{} s, though asked", .0.as_secs(), .0.subsec_millis() / 100)]
    Silent(Duration),
    /// The host application that this uplink is for.
    #[error("the primary host `{0}` is offline")]
    HostOffline(String),
    /// It answers, but takes nothing.
    #[error("the broker has acknowledged nothing for {} s", ACK_DEADLINE.as_secs())]
    Hung,
}

impl Failure {
    /// May the broker have ended the connection over a message of ours? It did not say, or named a reason that a
    /// message may be.
    #[must_use]
    pub fn may_be_a_message(&self) -> bool {
        match self {
            Self::Closed => true,
            Self::Disconnected(reason) => {
                matches!(reason.code(), 0x80..=0x83 | 0x87 | 0x90 | 0x94 | 0x95 | 0x99..=0x9b)
            }
            _ => false,
        }
    }

    /// What to tell the broker before the connection is closed, if it is to blame (MQTT 5, 4.13.1).
    #[must_use]
    pub fn blame(&self) -> Option<Reason> {
        match self {
            Self::Malformed(Malformed::TooLarge { .. }) => Some(Reason::PACKET_TOO_LARGE),
            Self::Malformed(Malformed::NotMqtt(_)) => Some(Reason::MALFORMED_PACKET),
            Self::OutOfPlace => Some(Reason::PROTOCOL_ERROR),
            _ => None,
        }
    }
}

fn refusal(reason: &Reason, version: MqttVersion, client_id: &str, username: &str) -> String {
    let words = match reason.code() {
        0x84 => {
            let other = match version {
                MqttVersion::V311 => MqttVersion::V5,
                MqttVersion::V5 => MqttVersion::V311,
            };
            format!("the broker does not speak MQTT {version}: set `mqtt = \"{other}\"`")
        }
        0x85 => format!("the broker rejects the client identifier `{client_id}`: choose another `client_id`"),
        0x86 => format!("the broker refuses user `{username}`: user name or password is wrong"),
        0x87 => format!(
            "the broker does not authorise user `{username}`, client `{client_id}`: the password is wrong (many \
             brokers say it this way), or its access rules do not admit us"
        ),
        0x88 => "the broker is there but says that its service is unavailable".to_owned(),
        0x9a => "the broker retains no messages: the will is sent without that from now on".to_owned(),
        0x9b => "the broker takes messages at QoS 0 only: the will is sent so from now on".to_owned(),
        _ => return format!("the broker refuses the connection: {reason}{}", remedy(reason)),
    };
    match reason.said() {
        Some(said) => format!("{words}; the broker says {said}"),
        None => words,
    }
}

/// What can be done about it, where there is something.
fn remedy(reason: &Reason) -> &'static str {
    match reason.code() {
        0x8a => ". It has banned us: its administrator can tell why",
        0x8d => ". The link is too slow for `keep_alive`: set a longer one",
        0x8e => ". Another client has the same `client_id`: give each its own",
        0x93 => ". Set a smaller `inflight`",
        0x95 => ". Set a smaller `max_packet`",
        0x9a => ". Set `retain = false`",
        0x9b => ". Set a lower `qos`",
        0x9c | 0x9d => ". Set `url` to the server that it means",
        _ => "",
    }
}
