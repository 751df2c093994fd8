//! The configuration that the agent runs on: complete, checked, with every default filled in.
//!
//! [`load`] reads a file with the fragments in its `.d` folder and gives either a [`Config`] or every problem with
//! its place. What TOML may say is in `config/raw…`; nothing outside of this module sees it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use crate::clock::Trust;
use crate::drivers::{Driver, Source};
use crate::hardware::Backend;
use crate::pipeline::PipelineConfig;
use crate::reading::Location;
use crate::topic::Template;

/// A configuration without faults.
#[derive(Debug)]
pub struct Config {
    /// `[gateway]`
    pub gateway: Gateway,
    /// `[clock] trust`
    pub trust: Trust,
    /// `[hardware] backend`
    pub backend: Backend,
    /// `[outbox]`
    pub outbox: OutboxConfig,
    /// `[uplink.NAME]`, sorted by name; the embedded broker's is among them.
    pub uplinks: Vec<UplinkConfig>,
    /// `[[sensor]]` in the order of the files.
    pub sensors: Vec<SensorConfig>,
    /// `[broker]`
    pub broker: Option<BrokerConfig>,
    /// CRC-32 of all files' bytes, in hexadecimal: which configuration is running.
    pub hash: String,
}

/// `[gateway]`
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Topic-safe name; default: the host's name.
    pub name: String,
    /// Identity of the board; default: its serial number, else the machine id.
    pub id: String,
    /// Name for people.
    pub label: Option<String>,
    /// First level of the default topics.
    pub site: Option<String>,
    /// Topic of readings.
    pub topic: Template,
    /// Where the gateway is.
    pub location: Option<Location>,
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

/// `[uplink.NAME]`
#[derive(Clone, Debug)]
pub struct UplinkConfig {
    /// The table's name.
    pub name: String,
    /// Where the broker is.
    pub url: BrokerUrl,
    /// Client identifier, placeholders filled in.
    pub client_id: String,
    /// User name.
    pub username: Option<String>,
    /// Password; the file it came from was readable when the configuration was checked.
    pub password: Option<SecretString>,
    /// Quality of service of readings.
    pub qos: Qos,
    /// Are readings (not events) retained?
    pub retain: bool,
    /// How many messages may wait for their acknowledgement, 1 to 65535.
    pub inflight: u16,
    /// Keep-alive.
    pub keep_alive: Duration,
    /// How long to hold undated readings after the connection is up.
    pub clock_wait: Duration,
    /// How messages are cut.
    pub payload: PayloadShape,
    /// Largest packet that is sent or accepted, in bytes.
    pub max_packet: u32,
    /// TLS settings, for `mqtts`.
    pub tls: Option<TlsConfig>,
}

/// `mqtt://host:port` or `mqtts://host:port`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerUrl {
    /// `mqtts`
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// Default 1883, with TLS 8883.
    pub port: u16,
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

/// Files for TLS, read anew at each connection, so that renewed ones are used without a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// PEM file of the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of our certificate chain and its key.
    pub client: Option<(PathBuf, PathBuf)>,
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
    /// Free tags, sorted by name.
    pub tags: Vec<(String, String)>,
    /// The driver.
    pub driver: &'static Driver,
    /// What the driver made of its keys.
    pub source: Source,
    /// Between two samples of a poller; between two looks at a line's level.
    pub every: Duration,
    /// How long one sample may take before the sensor counts as stuck.
    pub deadline: Duration,
    /// What is filtered and how; shared with the pipeline.
    pub pipeline: Arc<PipelineConfig>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Poller(_) => "Poller",
            Self::Serial { .. } => "Serial",
            Self::Line { .. } => "Line",
        })
    }
}

/// `[broker]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerConfig {
    /// Address to listen on.
    pub listen: std::net::SocketAddr,
}
