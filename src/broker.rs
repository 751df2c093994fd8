//! The embedded MQTT broker: 3.1.1 and 5 on one TCP port, in this process.
//!
//! It has a thread and a runtime of its own, so that its clients never slow down the sensors, and so that it can be
//! stopped whatever they do. The agent reaches it over loopback like any other broker. Retained messages outlive a
//! restart of the broker within the process; sessions do not. This module and its folder are the only code that knows
//! which broker it is (`docs/decisions/0003-embedded-broker.md`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::BrokerConfig;

mod check;
mod port_owner;
mod retained;
mod server;

pub use check::Silence;
pub use port_owner::PortOwner;
pub use retained::RetainedStats;

use server::{Server, Shared};

/// Largest packet taken from a client, in bytes.
pub const MAX_PACKET_BYTES: u32 = 1024 * 1024;
/// Clients, connected or with a session that is kept.
pub const MAX_SESSIONS: u16 = 1024;
/// Messages that wait for one client, on top of those in flight; what exceeds it is dropped and counted. As many as
/// there may be retained ones, so that a subscription to everything gets them all.
pub const MAX_QUEUED: usize = retained::MAX_MESSAGES;
/// Unacknowledged messages from or to one client: the protocol's own limit. rmqtt closes the connection of a 3.1.1
/// client that has more in flight, and such a client cannot be told a smaller number.
pub const MAX_IN_FLIGHT: u16 = u16::MAX;
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
    /// It has the port and does not answer.
    #[error("the broker listens on {address} and does not answer, {STARTS_TRIED} starts in a row: {why}")]
    Silent {
        /// Where it listens.
        address: SocketAddr,
        /// What came instead of an answer.
        why: Silence,
    },
    /// Its thread does not end.
    #[error("the broker's thread did not end within {} s; its port stays taken until the process ends", STOP_DEADLINE.as_secs())]
    Stuck,
}

fn hint(why: &std::io::Error) -> &'static str {
    match why.kind() {
        std::io::ErrorKind::PermissionDenied => ". Ports below 1024 belong to root: choose a higher one",
        std::io::ErrorKind::AddrNotAvailable => ". No interface of this machine has that address",
        _ => "",
    }
}

/// Counts since the process began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerStats {
    /// Messages that did not reach a subscriber: its queue was full, or they expired in it.
    pub dropped: u64,
    /// What is retained.
    pub retained: RetainedStats,
}

/// A broker that runs. Dropping it without [`stop`](Self::stop) stops it too, without waiting.
#[derive(Debug)]
pub struct Broker {
    server: Server,
    shared: Arc<Shared>,
}

impl Broker {
    /// Starts the broker and connects to it to see that it answers.
    ///
    /// # Errors
    /// Why it does not run; nothing is left behind.
    pub async fn start(config: &BrokerConfig) -> Result<Self, BrokerError> {
        let shared = Arc::new(Shared::default());
        let server = start(&[config.listen], &shared).await?;
        Ok(Self { server, shared })
    }

    /// As [`start`](Self::start), on the first port that is free, counted from that of `from`. A port counts as free
    /// when the broker has taken it: nobody can come in between.
    ///
    /// # Errors
    /// Why it does not run.
    pub async fn start_on_first_free(from: SocketAddr) -> Result<Self, BrokerError> {
        let last = from.port().saturating_add(PORTS_TRIED - 1);
        let candidates: Vec<_> = (from.port()..=last).map(|port| SocketAddr::new(from.ip(), port)).collect();
        let shared = Arc::new(Shared::default());
        let server = start(&candidates, &shared).await?;
        Ok(Self { server, shared })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Connects as a client and waits for the answer, at most [`Silence::DEADLINE`].
    ///
    /// # Errors
    /// What came instead of an answer.
    pub async fn check(&self) -> Result<(), Silence> {
        check::answers(self.address()).await
    }

    /// Waits until the broker's thread ends by itself (a bug of the broker's), and tells why.
    pub async fn ended(&self) -> String {
        self.server.ended().await
    }

    /// Stops the broker and starts it again on the same address, with the same retained messages. After an error it
    /// does not run, and this may be called again.
    ///
    /// # Errors
    /// Why it does not run.
    pub async fn restart(&mut self) -> Result<(), BrokerError> {
        self.server.stop().await?;
        self.server = start(&[self.address()], &self.shared).await?;
        Ok(())
    }

    /// Closes the port and every connection, whatever the clients do. Their last wills are not published: the broker
    /// goes, not they.
    ///
    /// # Errors
    /// The thread did not end within [`STOP_DEADLINE`].
    pub async fn stop(mut self) -> Result<(), BrokerError> {
        self.server.stop().await
    }

    /// Counts, for the gateway's own report.
    #[must_use]
    pub fn stats(&self) -> BrokerStats {
        BrokerStats { dropped: self.shared.dropped(), retained: self.shared.retained.stats() }
    }
}

async fn start(candidates: &[SocketAddr], shared: &Arc<Shared>) -> Result<Server, BrokerError> {
    let mut tries = 0;
    loop {
        let mut server = Server::spawn(candidates.to_vec(), Arc::clone(shared)).await?;
        let address = server.address();
        let Err(why) = check::answers(address).await else { return Ok(server) };
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
