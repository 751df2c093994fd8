//! The embedded MQTT broker: 3.1.1 and 5, over TCP, TLS and WebSocket, in this process.
//!
//! It has a thread and a runtime of its own, so that its clients never slow down the sensors, and so that it can be
//! stopped whatever they do. The agent reaches it over loopback like any other broker. Clients come in through
//! listeners of ours (`listeners.rs`), which bound their number and shake hands; the broker crate asks us about each
//! login, subscription and message (`hooks.rs`), and leaves delivery to us where it must be bounded or stored
//! (`forward.rs`). Retained messages, sessions and what waits for them outlive the process (`store.rs`). This module
//! and its folder are the only code that knows which broker it is (`docs/decisions/0003-embedded-broker.md`).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::mpsc;

use crate::config::{BrokerConfig, BrokerListener};
use crate::offer::Offer;

mod access;
mod announce;
mod away;
mod bridge;
mod check;
mod clients;
mod convert;
mod farewell;
#[cfg(test)]
pub(crate) mod faults;
mod fitter;
mod forward;
mod groups;
mod hooks;
mod ingest;
mod known;
mod listeners;
mod login;
mod looks;
mod notices;
mod peers;
mod port_owner;
mod pump;
mod refusals;
mod restore;
mod retained;
mod rhythm;
mod server;
mod shared;
mod stamp;
mod store;
mod sys;
mod throttle;
mod tls;
mod token;
mod topics;
mod watch;
mod websocket;

pub mod authority;
pub mod users;

pub use check::Silence;
pub use hooks::MAX_TOPIC_BYTES;
pub use ingest::ANSWER_WITHIN;
pub use notices::{Event, Notice};
pub use port_owner::PortOwner;
pub use refusals::Refusal;
pub use retained::RetainedStats;
pub use store::{FLUSH, FLUSH_RETAINED, StoreStats, snapshot};
pub use tls::TlsError;
pub use token::TokenKeyError;

use announce::Announcer;
use server::Server;
use shared::Shared;

/// Clients, connected or with a session that is kept.
pub const MAX_SESSIONS: u16 = 2048;
/// Unacknowledged messages from one client: the protocol's own limit. rmqtt closes the connection of a 3.1.1
/// client that has more in flight, and such a client cannot be told a smaller number.
pub const MAX_IN_FLIGHT: u16 = u16::MAX;
/// ...from one of MQTT 5, whose clients are told, and to any client: what is above it waits.
pub const RECEIVE_MAXIMUM: NonZeroU16 = NonZeroU16::new(1000).expect("it is not 0");
/// Levels of a topic.
pub const MAX_TOPIC_LEVELS: usize = 64;
/// Topic aliases of one connection (MQTT 5), each way.
pub const MAX_TOPIC_ALIASES: u16 = 16;
/// Length of a client identifier in bytes.
pub const MAX_CLIENT_ID_BYTES: usize = 1024;
/// Connections that are in the middle of their handshake.
pub const MAX_HANDSHAKES: usize = 16;
/// How long a client may take from connecting to the end of its CONNECT packet.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the session of a 3.1.1 client (`clean_session` false) is kept after it left. MQTT 5 clients say it
/// themselves, up to the same limit.
pub const SESSION_EXPIRY: Duration = Duration::from_secs(24 * 60 * 60);
/// Ports that [`Broker::start_on_first_free`] tries.
pub const PORTS_TRIED: u16 = 100;
/// Starts before giving up on a broker that takes the port and does not answer.
pub const STARTS_TRIED: u32 = 3;
/// Between two of these starts.
pub const START_PAUSE: Duration = Duration::from_millis(500);
/// How long the broker's thread may take to bring back what was stored, and to listen.
pub const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long [`Broker::stop`] waits for the broker's thread.
pub const STOP_DEADLINE: Duration = Duration::from_secs(2);

/// Why the broker does not run.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Somebody else listens there.
    #[error(
        "the broker cannot listen on {address}: the port is in use by {owner}. Choose another `listen` in [broker], \
         or stop that program; if it is an MQTT broker, leave out [broker] and use it as an uplink \
         (url = \"mqtt://{address}\")"
    )]
    InUse {
        /// Where it should listen.
        address: SocketAddr,
        /// Who does.
        owner: PortOwner,
    },
    /// All ports that were tried are taken.
    #[error("the broker finds no free port on {}: {} to {} are all in use", from.ip(), from.port(), last)]
    NoneFree {
        /// The first that was tried.
        from: SocketAddr,
        /// The last that was tried.
        last: u16,
    },
    /// The address cannot be had for another reason.
    #[error("the broker cannot listen on {address}: {why}{}", hint(why))]
    Listen {
        /// Where it should listen.
        address: SocketAddr,
        /// The system's words.
        why: std::io::Error,
    },
    /// Its thread or runtime could not be made.
    #[error("the broker's thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
    /// It ended while starting.
    #[error("the broker ended while it started: {0}")]
    Ended(String),
    /// It has the ports and does not come to the end of its start.
    #[error("the broker was not ready within {} s", START_DEADLINE.as_secs())]
    Late,
    /// It has the port and does not answer.
    #[error("the broker listens on {address} and does not answer, {STARTS_TRIED} starts in a row: {why}")]
    Silent {
        /// Where it listens.
        address: SocketAddr,
        /// What came instead of an answer.
        why: Silence,
    },
    /// The folder of what it keeps cannot be used.
    #[error("the broker's store in {} cannot be used: {why}", folder.display())]
    Store {
        /// Which folder.
        folder: PathBuf,
        /// The system's words.
        why: std::io::Error,
    },
    /// Its users' file.
    #[error(transparent)]
    Users(#[from] users::UsersError),
    /// The key that tokens are verified with.
    #[error(transparent)]
    Token(#[from] TokenKeyError),
    /// The certificate, key or authority of a listener.
    #[error("a listener of the broker: {0}")]
    Tls(#[from] TlsError),
    /// Its thread does not end.
    #[error("the broker's thread did not end within {} s; its port stays taken until the process ends", STOP_DEADLINE.as_secs())]
    Stuck,
}

fn hint(why: &std::io::Error) -> &'static str {
    match why.kind() {
        std::io::ErrorKind::PermissionDenied => ". Ports below 1024 belong to root: choose a higher one",
        _ => "",
    }
}

/// Where a broker keeps what outlives it.
#[derive(Clone, Debug)]
pub struct Place {
    /// Folder on disk, made where it is missing; no other broker may use it.
    pub folder: PathBuf,
    /// Folder in memory (tmpfs), for what survives the process alone.
    pub tail: PathBuf,
}

/// What the gateway logs in with. They are made anew at each start, and known to this process alone.
#[derive(Clone, Debug)]
pub struct Credentials {
    username: String,
    password: SecretString,
    key: hmac::Key,
}

impl Credentials {
    fn new() -> Result<Self, BrokerError> {
        let failed = |_| BrokerError::Thread(std::io::Error::other("the system gives no random bytes"));
        let mut bytes = [0; 24];
        SystemRandom::new().fill(&mut bytes).map_err(failed)?;
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(failed)?;
        Ok(Self { username: "vigie".to_owned(), password: HEXLOWER.encode(&bytes).into(), key })
    }

    /// The user name.
    #[must_use]
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The password, for the connection itself.
    #[must_use]
    pub fn secret(&self) -> &SecretString {
        &self.password
    }

    fn password(&self) -> &str {
        self.password.expose_secret()
    }

    /// Are these the ones? How long that takes tells nothing about them.
    fn are(&self, username: &str, password: &[u8]) -> bool {
        let tag = hmac::sign(&self.key, self.password().as_bytes());
        username == self.username && hmac::verify(&self.key, password, tag.as_ref()).is_ok()
    }
}

fn random() -> Result<u64, BrokerError> {
    let mut bytes = [0; 8];
    let failed = |_| BrokerError::Thread(std::io::Error::other("the system gives no random bytes"));
    SystemRandom::new().fill(&mut bytes).map_err(failed)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Counts since the process began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerStats {
    /// Clients that are connected, without the gateway itself.
    pub connected: usize,
    /// Clients that are connected, or have a session that is kept.
    pub sessions: usize,
    /// Messages that were published, also by the gateway.
    pub received: u64,
    /// Messages that were sent to clients.
    pub delivered: u64,
    /// Messages of LAN clients that the outbox has taken.
    pub ingested: u64,
    /// What was refused or dropped, by [`Refusal::as_str`].
    pub refused: BTreeMap<&'static str, u64>,
    /// Listeners whose address no interface of this machine has at the moment. They work as soon as one does.
    pub away: Vec<SocketAddr>,
    /// Messages that did not reach a subscriber: its queue was full, or they expired in it.
    pub dropped: u64,
    /// What is retained.
    pub retained: RetainedStats,
    /// What is kept beyond the process.
    pub store: StoreStats,
}

/// A broker that runs. Dropping it without [`stop`](Self::stop) stops it too, without waiting.
#[derive(Debug)]
pub struct Broker {
    server: Server,
    shared: Arc<Shared>,
    announcer: Option<Announcer>,
}

impl Broker {
    /// Starts the broker and connects to it to see that it answers. Messages that are to go up are sent to `offers`;
    /// without it none do.
    ///
    /// # Errors
    /// Why it does not run; nothing is left behind.
    pub async fn start(
        config: &BrokerConfig,
        place: &Place,
        offers: Option<mpsc::Sender<Offer>>,
    ) -> Result<Self, BrokerError> {
        let shared = Arc::new(Shared::open(config, place, offers)?);
        let server = start(&config.listeners, None, &shared).await?;
        Ok(Self::announced(server, shared))
    }

    /// As [`start`](Self::start), with the first listener on the first port that is free, counted from its own. A port
    /// counts as free when the broker has taken it: nobody can come in between.
    ///
    /// # Errors
    /// Why it does not run.
    pub async fn start_on_first_free(
        config: &BrokerConfig,
        place: &Place,
        offers: Option<mpsc::Sender<Offer>>,
    ) -> Result<Self, BrokerError> {
        let shared = Arc::new(Shared::open(config, place, offers)?);
        let mut listeners = config.listeners.clone();
        let from = first(&listeners).listen;
        let last = from.port().saturating_add(PORTS_TRIED - 1);
        for port in from.port()..=last {
            if let Some(listener) = listeners.first_mut() {
                listener.listen.set_port(port);
            }
            match start(&listeners, None, &shared).await {
                Err(BrokerError::InUse { address, .. }) if address == first(&listeners).listen => {}
                started => return Ok(Self::announced(started?, shared)),
            }
        }
        Err(BrokerError::NoneFree { from, last })
    }

    /// Tells the networks that it is there, where that is wanted. It works without.
    fn announced(server: Server, shared: Arc<Shared>) -> Self {
        let config = &shared.config;
        let announcer = if config.discoverable {
            Announcer::start(&config.name, &config.listeners, &server.addresses().outer).unwrap_or_else(|error| {
                tracing::warn!(%error, "the broker cannot be announced to the network");
                None
            })
        } else {
            None
        };
        Self { server, shared, announcer }
    }

    /// The addresses at which clients reach a listener: its own, or those of this machine's networks.
    #[must_use]
    pub fn reachable(address: SocketAddr) -> Vec<SocketAddr> {
        announce::reachable(address)
    }

    /// Where its first listener is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        *self.server.addresses().outer.first().expect("a broker has a listener")
    }

    /// Where all its listeners are, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.server.addresses().outer
    }

    /// Where the gateway itself connects to, over loopback and past the listeners.
    #[must_use]
    pub fn entrance(&self) -> SocketAddr {
        self.server.addresses().inner
    }

    /// What the gateway logs in with there.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        self.shared.logins.credentials()
    }

    /// Connects as a client and waits for the answer, and looks whether each listener accepts connections; at most
    /// [`Silence::DEADLINE`] for each.
    ///
    /// # Errors
    /// What came instead of an answer.
    pub async fn check(&self) -> Result<(), Silence> {
        check(&self.server, &self.shared).await
    }

    /// The next thing that whoever looks after the LAN should hear of.
    pub async fn notice(&self) -> Notice {
        self.shared.notices.next().await
    }

    /// Something is to go wrong.
    #[cfg(test)]
    pub(crate) fn inject(&self, fault: faults::Fault) {
        self.shared.faults.inject(fault);
    }

    /// Waits until the broker's thread ends by itself (a bug of the broker's), and tells why.
    pub async fn ended(&self) -> String {
        self.server.ended().await
    }

    /// Stops the broker and starts it again on the same addresses, with the same retained messages and sessions. After
    /// an error it does not run, and this may be called again.
    ///
    /// # Errors
    /// Why it does not run.
    pub async fn restart(&mut self) -> Result<(), BrokerError> {
        self.server.stop().await?;
        let mut listeners = self.shared.config.listeners.clone();
        for (listener, address) in listeners.iter_mut().zip(self.addresses()) {
            listener.listen = *address;
        }
        self.server = start(&listeners, Some(self.entrance()), &self.shared).await?;
        Ok(())
    }

    /// Closes the ports and every connection, whatever the clients do. Their last wills are not published: the broker
    /// goes, not they.
    ///
    /// # Errors
    /// The thread did not end within [`STOP_DEADLINE`].
    pub async fn stop(mut self) -> Result<(), BrokerError> {
        if let Some(announcer) = self.announcer.take() {
            announcer.stop().await;
        }
        self.server.stop().await
    }

    /// How many times something was refused or dropped for that reason.
    #[must_use]
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.shared.refusals.count(refusal)
    }

    /// Counts, for the gateway's own report.
    #[must_use]
    pub fn stats(&self) -> BrokerStats {
        self.gauge().stats()
    }

    /// Counts, for whoever has not the broker at hand.
    #[must_use]
    pub fn gauge(&self) -> Gauge {
        Gauge(Arc::clone(&self.shared))
    }
}

/// Tells how a broker is, also while it is restarted, and after its end.
#[derive(Clone, Debug)]
pub struct Gauge(Arc<Shared>);

impl Gauge {
    /// Counts since the process began.
    #[must_use]
    pub fn stats(&self) -> BrokerStats {
        let shared = &self.0;
        let (connected, sessions) = shared.clients().counts();
        let (received, delivered) = shared.traffic.counts();
        BrokerStats {
            connected,
            sessions,
            received,
            delivered,
            ingested: shared.intake.taken(),
            refused: shared.refusals.all(),
            away: shared.away.all(),
            dropped: shared.dropped(),
            retained: shared.retained.stats(),
            store: shared.store().stats(),
        }
    }
}

fn first(listeners: &[BrokerListener]) -> &BrokerListener {
    listeners.first().expect("a broker has a listener")
}

async fn check(server: &Server, shared: &Shared) -> Result<(), Silence> {
    let (addresses, credentials) = (server.addresses(), shared.logins.credentials());
    check::answers(addresses.inner, credentials).await?;
    for address in &addresses.outer {
        let mut address = *address;
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
        }
        let is_here = check::accepts(address, &shared.looks).await?;
        shared.away.note(address, is_here);
    }
    Ok(())
}

async fn start(
    listeners: &[BrokerListener],
    inner: Option<SocketAddr>,
    shared: &Arc<Shared>,
) -> Result<Server, BrokerError> {
    let mut tries = 0;
    loop {
        let mut server = Server::spawn(listeners.to_vec(), inner, Arc::clone(shared)).await?;
        let Err(why) = check(&server, shared).await else { return Ok(server) };
        let address = server.addresses().inner;
        server.stop().await?;
        tries += 1;
        if tries == STARTS_TRIED {
            return Err(BrokerError::Silent { address, why });
        }
        tracing::warn!(%address, %why, "the broker does not answer after its start; starting it again");
        tokio::time::sleep(START_PAUSE).await;
    }
}

#[cfg(test)]
mod tests;
