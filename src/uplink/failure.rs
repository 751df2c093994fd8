//! Why there is no connection, in words.

use std::net::SocketAddr;
use std::time::Duration;

use super::dial;
use super::packet::{Malformed, Verdict};
use super::proxy::ProxyError;
use super::session::ACK_DEADLINE;
use super::tls::TlsError;
use super::websocket::WebSocketError;

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
    /// The password cannot be read.
    #[error("no password for the broker: {0}")]
    Password(String),
    /// The proxy's password cannot be read.
    #[error("no password for the proxy: {0}")]
    ProxyPassword(String),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// CONNECT cannot be made of these settings.
    #[error("{0}")]
    Settings(String),
    /// CONNACK says no.
    #[error("{}", refusal(*.verdict, .client_id, .username))]
    Refused {
        /// Why.
        verdict: Verdict,
        /// Our client identifier.
        client_id: String,
        /// Our user name.
        username: String,
    },
    /// Connecting took too long.
    #[error("no connection within {} s", dial::DEADLINE.as_secs())]
    Deadline,
    /// What came is not MQTT.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A packet that may not come now.
    #[error("the broker sent a packet that has no business here: is this an MQTT 3.1.1 broker?")]
    OutOfPlace,
    /// The broker closed the connection.
    #[error(
        "the broker closed the connection, and MQTT 3.1.1 lets it give no reason: its log may; another client with \
         the same `client_id` would be one"
    )]
    Closed,
    /// The connection is lost.
    #[error("the connection is lost: {0}")]
    Lost(String),
    /// Nothing came for too long.
    #[error("the broker was silent for {}.{} s, though asked", .0.as_secs(), .0.subsec_millis() / 100)]
    Silent(Duration),
    /// It answers, but takes nothing.
    #[error("the broker has acknowledged nothing for {} s", ACK_DEADLINE.as_secs())]
    Hung,
}

fn refusal(verdict: Verdict, client_id: &str, username: &str) -> String {
    match verdict {
        Verdict::Accepted => "the broker accepted the connection".to_owned(),
        Verdict::ProtocolVersion => "the broker does not speak MQTT 3.1.1".to_owned(),
        Verdict::IdentifierRejected => {
            format!("the broker rejects the client identifier `{client_id}`: choose another `client_id`")
        }
        Verdict::ServerUnavailable => "the broker is there but says that its service is unavailable".to_owned(),
        Verdict::BadCredentials => {
            format!("the broker refuses user `{username}`: user name or password is wrong")
        }
        Verdict::NotAuthorised => format!(
            "the broker does not authorise user `{username}`, client `{client_id}`: the password is wrong (many brokers \
             say it this way), or its access rules do not admit us"
        ),
        Verdict::Reserved(code) => format!("the broker refuses the connection with the unknown code {code}"),
    }
}
