//! The listeners: TCP, TLS, WebSocket, WebSocket over TLS. Each connection is bounded, shakes hands, and is then carried
//! to the broker over loopback.
//!
//! The broker crate accepts any number of connections that say nothing, and its TLS would bring a second library for
//! cryptography, written in C. So its own listener is open to this machine alone and refuses whoever did not come
//! through here (`hooks.rs`); only the gateway itself does not make the detour.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rmqtt::codec::v5::DisconnectReasonCode;
use rustix::net::sockopt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use super::bridge::Introduced;
use super::peers::{Peer, Peers, Seat};
use super::refusals::Refusal;
use super::shared::Shared;
use super::tls::{self, Tls};
use super::{BrokerError, HANDSHAKE_TIMEOUT, MAX_SESSIONS, PortOwner, pump, websocket};
use crate::config::BrokerListener;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// After an error of accept(2), which mostly means that there are no descriptors left.
const PAUSE: Duration = Duration::from_secs(1);
/// A connection that would have to wait for longer than this, because its address connects too often, is refused.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A listener that has its port.
#[derive(Debug)]
pub(super) struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<Tls>>,
    websocket: bool,
}

impl Bound {
    /// Takes the port of a listener.
    pub(super) fn bind(config: &BrokerListener, users: bool) -> Result<Self, BrokerError> {
        let tls = match &config.tls {
            // Where there are users, a client may say a password instead of showing a certificate.
            Some(files) => Some(Arc::new(Tls::open(files, users)?)),
            None => None,
        };
        let failed = |why: std::io::Error| match why.kind() {
            std::io::ErrorKind::AddrInUse => {
                BrokerError::InUse { address: config.listen, owner: PortOwner::of(config.listen) }
            }
            _ => BrokerError::Listen { address: config.listen, why },
        };
        let listener = listen(config.listen).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, tls, websocket: config.websocket })
    }

    /// Where it listens, also where the configuration says port 0.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes connections for ever.
    pub(super) async fn run(self, inner: SocketAddr, shared: Arc<Shared>, peers: Arc<Peers>) {
        loop {
            #[cfg(test)]
            if shared.faults.at_accept().await {
                return;
            }
            let (stream, address) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, address = %self.address, "broker: a connection cannot be accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            if shared.looks.is_ours(address) {
                continue;
            }
            let (seat, wait) = match peers.seat(address.ip(), &shared.config.limits, Instant::now()) {
                Ok(seat) => seat,
                Err(refusal) => {
                    shared.refusals.note(refusal, &address.ip());
                    continue;
                }
            };
            if wait > LONGEST_WAIT {
                shared.refusals.note(Refusal::ConnectRate, &address.ip());
                continue;
            }
            let connection = Connection {
                stream,
                address,
                seat,
                inner,
                tls: self.tls.clone(),
                websocket: self.websocket.then(|| websocket::longest_message(shared.config.limits.packet)),
                shared: Arc::clone(&shared),
            };
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                connection.serve().await;
            });
        }
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of a broker that was killed keep the port for a minute otherwise (TIME_WAIT).
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() {
        // IPv4 has a listener of its own where it is wanted.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    match socket.bind(address) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrNotAvailable => {
            // A network that comes later (Wi-Fi, DHCP), or comes back: the port is taken now, and connections come as soon
            // as the address is there (IP_FREEBIND, ip(7)). Who looks after the broker says so (`away.rs`).
            if address.is_ipv4() {
                sockopt::set_ip_freebind(&socket, true)?;
            } else {
                sockopt::set_ipv6_freebind(&socket, true)?;
            }
            socket.bind(address)?;
        }
        bound => bound?,
    }
    socket.listen(BACKLOG)
}

/// Descriptors that a connection takes: one outside, two for the way to the broker.
const DESCRIPTORS: u64 = 3;
/// Descriptors that are left to everything else in the process.
const RESERVE: u64 = 256;
/// Descriptors of clients that have left: the broker crate keeps that of a session's last connection for as long as it
/// keeps the session.
const LEFT: u64 = MAX_SESSIONS as u64;

/// So many connections there can be of those that are wanted: each takes descriptors, and without any left the sensors
/// would stand still, too. The process's limit is raised as far as the system allows.
pub(super) fn room_for(connections: usize) -> usize {
    let wanted = RESERVE + LEFT + DESCRIPTORS * u64::try_from(connections).unwrap_or(u64::MAX / DESCRIPTORS);
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
        if setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum }).is_ok() {
            limit.current = Some(raised);
        }
    }
    let room = limit.current.map_or(connections, |current| {
        usize::try_from(current.saturating_sub(RESERVE + LEFT) / DESCRIPTORS)
            .unwrap_or(usize::MAX)
            .clamp(1, connections)
    });
    if room < connections {
        tracing::warn!(
            room,
            connections,
            "the broker takes fewer connections than configured: the system allows this process no more open files \
             (LimitNOFILE of its unit)"
        );
    }
    room
}

struct Connection {
    stream: TcpStream,
    address: SocketAddr,
    seat: Seat,
    inner: SocketAddr,
    tls: Option<Arc<Tls>>,
    /// The longest message of a WebSocket; `None`: it is none.
    websocket: Option<usize>,
    shared: Arc<Shared>,
}

impl Connection {
    async fn serve(self) {
        let Self { stream, address, seat, inner, tls, websocket, shared } = self;
        // A client that is gone without a word and has no keep-alive is noticed by the kernel. What these cannot do for
        // a socket they do for none; the connection works without.
        let _ = stream.set_nodelay(true);
        let _ = sockopt::set_socket_keepalive(&stream, true);
        let failed = |why: String| shared.refusals.note(Refusal::Handshake, &format_args!("{}: {why}", address.ip()));
        let late = || failed(format!("not done within {} s", HANDSHAKE_TIMEOUT.as_secs()));
        let mut peer = Peer::new(address.ip());
        let Some(tls) = tls else {
            return upgrade(stream, websocket, seat, peer, inner, &shared, failed).await;
        };
        match timeout(HANDSHAKE_TIMEOUT, tls.acceptor(Instant::now()).accept(stream)).await {
            Ok(Ok(stream)) => {
                peer.certificate = tls::client_name(stream.get_ref().1);
                upgrade(stream, websocket, seat, peer, inner, &shared, failed).await;
            }
            Ok(Err(error)) => failed(tls::explain(&error)),
            Err(_) => late(),
        }
    }
}

/// Makes a WebSocket of the stream where the listener is for such, and joins it to the broker.
async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    websocket: Option<usize>,
    seat: Seat,
    peer: Peer,
    inner: SocketAddr,
    shared: &Shared,
    failed: impl Fn(String),
) {
    let Some(longest) = websocket else {
        return join(stream, seat, peer, inner, shared, failed).await;
    };
    match timeout(HANDSHAKE_TIMEOUT, websocket::accept(stream, longest)).await {
        Ok(Ok(stream)) => join(stream, seat, peer, inner, shared, failed).await,
        Ok(Err(error)) => failed(error.to_string()),
        Err(_) => failed(format!("no WebSocket within {} s", HANDSHAKE_TIMEOUT.as_secs())),
    }
}

async fn join<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    mut seat: Seat,
    peer: Peer,
    inner: SocketAddr,
    shared: &Shared,
    failed: impl Fn(String),
) {
    let peer = Arc::new(peer);
    let joined = async {
        let broker = TcpStream::connect(inner).await?;
        broker.set_nodelay(true)?;
        seat.connected(broker.local_addr()?, &peer);
        Ok::<_, std::io::Error>(broker)
    };
    let broker = match joined.await {
        Ok(broker) => broker,
        Err(error) => return tracing::warn!(%error, "broker: a connection cannot be passed on"),
    };
    let too_late = async {
        tokio::time::sleep(HANDSHAKE_TIMEOUT).await;
        if peer.introduced.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    let expired = async {
        shared.logins.expires(peer.until().await).await;
        shared.refusals.note(Refusal::TokenExpired, &peer.address);
        // The time for which the connection was authorised is over (MQTT 5, 3.14.2.1): another token opens a new one.
        peer.farewell.because(DisconnectReasonCode::MaximumConnectTime);
    };
    tokio::select! {
        () = pump::carry(Introduced::new(stream, Arc::clone(&peer)), broker, expired, peer.farewell.packet()) => {}
        () = too_late => failed(format!("no CONNECT within {} s", HANDSHAKE_TIMEOUT.as_secs())),
    }
}

/// Where the broker's own listener is: any port of this machine alone.
pub(super) const INNER: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);
