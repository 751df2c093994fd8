//! Who is at the other end of the connections that listeners pass on to the broker.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::clients::{Bucket, customer};
use super::farewell::Farewell;
use super::refusals::Refusal;
use super::token::Until;
use crate::config::BrokerLimits;

/// Of all connections, the part that one address may have, where it is not this machine.
const SHARE_OF_ADDRESS: usize = 2;
/// Addresses whose rate is remembered; the others have just begun.
const MAX_RATES: usize = 1024;

/// A connection from outside.
#[derive(Debug)]
pub(super) struct Peer {
    /// Where it comes from.
    pub(super) address: IpAddr,
    /// Common name of the certificate that it has shown.
    pub(super) certificate: Option<Box<str>>,
    /// Has it said that it is the bridge of another broker?
    pub(super) bridge: AtomicBool,
    /// Has it sent a whole CONNECT?
    pub(super) introduced: AtomicBool,
    /// What the broker says to it at the end.
    pub(super) farewell: Farewell,
    /// Until when it may stay, where it came in with a token.
    until: OnceLock<Until>,
    has_until: Notify,
}

impl Peer {
    /// A client at that address, of which nothing more is known yet.
    pub(super) fn new(address: IpAddr) -> Self {
        Self {
            address,
            certificate: None,
            bridge: AtomicBool::new(false),
            introduced: AtomicBool::new(false),
            farewell: Farewell::default(),
            until: OnceLock::new(),
            has_until: Notify::new(),
        }
    }

    /// It has come in with a token, and may stay until that expires.
    pub(super) fn may_stay(&self, until: Until) {
        // There is one CONNECT on a connection.
        let _ = self.until.set(until);
        self.has_until.notify_one();
    }

    /// Until when it may stay; waits for ever where nothing says so.
    pub(super) async fn until(&self) -> Until {
        loop {
            if let Some(until) = self.until.get() {
                return *until;
            }
            self.has_until.notified().await;
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Peers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By the address that the broker sees: our end of the connection inside of this machine.
    by_inner: HashMap<SocketAddr, Arc<Peer>>,
    by_customer: HashMap<IpAddr, usize>,
    total: usize,
    rates: HashMap<IpAddr, Bucket>,
}

/// A place for a connection, which is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    peers: Arc<Peers>,
    customer: IpAddr,
    inner: Option<SocketAddr>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.peers.lock();
        state.total -= 1;
        if let Some(count) = state.by_customer.get_mut(&self.customer) {
            *count -= 1;
            if *count == 0 {
                state.by_customer.remove(&self.customer);
            }
        }
        if let Some(inner) = self.inner {
            state.by_inner.remove(&inner);
        }
    }
}

impl Seat {
    /// The connection goes on to the broker.
    pub(super) fn connected(&mut self, inner: SocketAddr, peer: &Arc<Peer>) {
        self.inner = Some(inner);
        self.peers.lock().by_inner.insert(inner, Arc::clone(peer));
    }
}

impl Peers {
    fn lock(&self) -> MutexGuard<'_, State> {
        // What it holds is whole after every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is behind a connection of the broker's; `None`: it did not come through a listener.
    pub(super) fn get(&self, inner: SocketAddr) -> Option<Arc<Peer>> {
        self.lock().by_inner.get(&inner).cloned()
    }

    /// A connection asks for a place. With it comes how long it must wait, because its address is too quick.
    pub(super) fn seat(
        self: &Arc<Self>,
        address: IpAddr,
        limits: &BrokerLimits,
        now: Instant,
    ) -> Result<(Seat, Duration), Refusal> {
        let customer = customer(address);
        let mut state = self.lock();
        if state.total >= limits.connections {
            return Err(Refusal::Connections);
        }
        let of_address = state.by_customer.get(&customer).copied().unwrap_or_default();
        if !customer.is_loopback() && of_address >= limits.connections.div_ceil(SHARE_OF_ADDRESS) {
            return Err(Refusal::ConnectionsOfAddress);
        }
        if state.rates.len() >= MAX_RATES && !state.rates.contains_key(&customer) {
            state.rates.retain(|_, bucket| !bucket.is_full(now));
            if state.rates.len() >= MAX_RATES {
                state.rates.clear();
            }
        }
        let wait = state.rates.entry(customer).or_insert_with(|| Bucket::new(limits.connect_rate, now)).take(now);
        state.total += 1;
        *state.by_customer.entry(customer).or_default() += 1;
        Ok((Seat { peers: Arc::clone(self), customer, inner: None }, wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_bounded_in_all_and_for_each_address_but_ours() {
        let peers = Arc::new(Peers::default());
        let limits = BrokerLimits { connections: 4, connect_rate: 1000, ..BrokerLimits::default() };
        let now = Instant::now();
        let seat = |address: &str| peers.seat(address.parse().unwrap(), &limits, now);
        let first = seat("192.0.2.1").unwrap();
        let _second = seat("192.0.2.1").unwrap();
        assert_eq!(seat("192.0.2.1").unwrap_err(), Refusal::ConnectionsOfAddress);
        drop(first);
        let _again = seat("192.0.2.1").unwrap();
        let _ours = (seat("127.0.0.1").unwrap(), seat("127.0.0.1").unwrap());
        assert_eq!(seat("192.0.2.2").unwrap_err(), Refusal::Connections);
    }

    #[test]
    fn an_address_that_is_too_quick_must_wait() {
        let peers = Arc::new(Peers::default());
        let limits = BrokerLimits { connect_rate: 10, ..BrokerLimits::default() };
        let now = Instant::now();
        let waits: Vec<Duration> =
            (0..25).map(|_| peers.seat("192.0.2.1".parse().unwrap(), &limits, now).unwrap().1).collect();
        assert!(waits[..20].iter().all(Duration::is_zero));
        assert_eq!(waits[24], Duration::from_millis(500));
        assert_eq!(peers.seat("192.0.2.2".parse().unwrap(), &limits, now).unwrap().1, Duration::ZERO);
        let state = peers.lock();
        assert_eq!((state.total, state.by_customer.len()), (0, 0), "all are dropped");
    }

    #[test]
    fn the_rates_of_a_bounded_number_of_addresses_are_remembered() {
        let peers = Arc::new(Peers::default());
        let limits = BrokerLimits::default();
        for number in 0..5000_u32 {
            peers.seat(IpAddr::V4(number.into()), &limits, Instant::now()).unwrap();
        }
        assert!(peers.lock().rates.len() <= MAX_RATES);
    }

    #[test]
    fn a_connection_is_known_by_its_inner_address_while_it_lasts() {
        let peers = Arc::new(Peers::default());
        let inner: SocketAddr = "127.0.0.1:4000".parse().unwrap();
        let (mut seat, _) = peers.seat("192.0.2.1".parse().unwrap(), &BrokerLimits::default(), Instant::now()).unwrap();
        assert!(peers.get(inner).is_none());
        let peer = Peer { certificate: Some("esp".into()), ..Peer::new("192.0.2.1".parse().unwrap()) };
        seat.connected(inner, &Arc::new(peer));
        assert_eq!(peers.get(inner).unwrap().certificate.as_deref(), Some("esp"));
        drop(seat);
        assert!(peers.get(inner).is_none());
    }
}
