//! The clients that have a session: who they are, what waits for them, how fast they publish.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rmqtt::types::{ClientId, Id};

use super::access::Access;

/// What a client takes of the broker.
#[derive(Debug)]
struct Client {
    /// Of its last connection.
    id: Id,
    access: Arc<Access>,
    /// Is it the bridge of another broker?
    bridge: bool,
    /// Has its session a connection?
    connected: bool,
    waiting: Waiting,
    bucket: Bucket,
}

#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    messages: usize,
    bytes: usize,
}

/// Bytes that a waiting message takes beside its topic and payload, estimated.
const OVERHEAD: usize = 256;
/// A client with less waiting than this gets its messages also when all queues together are full.
const FAIR_SHARE: usize = 64 * 1024;

/// All of them.
#[derive(Debug)]
pub(super) struct Clients {
    by_name: HashMap<ClientId, Client>,
    /// Who has logged in and does not have its session yet.
    admitted: HashMap<Id, (Arc<Access>, bool)>,
    bytes: usize,
    limits: QueueLimits,
}

/// Bounds of what waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueLimits {
    /// Messages for one client.
    pub(super) messages: usize,
    /// Bytes for one client.
    pub(super) bytes: usize,
    /// Bytes for all of them.
    pub(super) total: usize,
    /// Messages that a client may publish a second; twice as many at once.
    pub(super) rate: u32,
}

/// Logins that have no session yet; more than these are in no handshake.
const MAX_ADMITTED: usize = 1024;

impl Clients {
    pub(super) fn new(limits: QueueLimits) -> Self {
        Self { by_name: HashMap::new(), admitted: HashMap::new(), bytes: 0, limits }
    }

    /// A client has logged in, perhaps the bridge of another broker.
    pub(super) fn admit(&mut self, id: &Id, access: Arc<Access>, bridge: bool) {
        if self.admitted.len() >= MAX_ADMITTED {
            // They are of handshakes that failed: without a login a client has no rights.
            self.admitted.clear();
        }
        self.admitted.insert(id.clone(), (access, bridge));
    }

    /// A client that has logged in has its session. What waited for an earlier one still does, unless it is `clean`.
    pub(super) fn connected(&mut self, id: &Id, clean: bool, now: Instant) {
        let (access, bridge) = self.admitted.remove(id).unwrap_or_default();
        let waiting = self.remove(&id.client_id).filter(|_| !clean).unwrap_or_default();
        self.insert(id, access, waiting, now);
        if let Some(client) = self.by_name.get_mut(&id.client_id) {
            client.bridge = bridge;
            client.connected = true;
        }
    }

    /// A connection is at its end; its session may be kept.
    pub(super) fn disconnected(&mut self, id: &Id) {
        if let Some(client) = self.by_name.get_mut(&id.client_id).filter(|client| client.id == *id) {
            client.connected = false;
        }
    }

    /// How many are connected, and how many have a session, connected or not; without the gateway itself.
    pub(super) fn counts(&self) -> (usize, usize) {
        let clients = self.by_name.values().filter(|client| !client.access.is_gateway());
        clients.fold((0, 0), |(connected, all), client| (connected + usize::from(client.connected), all + 1))
    }

    /// A session was found in the store.
    pub(super) fn restored(&mut self, id: &Id, access: Arc<Access>, now: Instant) {
        self.insert(id, access, Waiting::default(), now);
    }

    fn insert(&mut self, id: &Id, access: Arc<Access>, waiting: Waiting, now: Instant) {
        self.bytes += waiting.bytes;
        let bucket = Bucket::new(self.limits.rate, now);
        let client = Client { id: id.clone(), access, bridge: false, connected: false, waiting, bucket };
        self.by_name.insert(own(&id.client_id), client);
    }

    fn remove(&mut self, client: &str) -> Option<Waiting> {
        let waiting = self.by_name.remove(client)?.waiting;
        self.bytes -= waiting.bytes;
        Some(waiting)
    }

    /// A session is at its end; `false`: it was another one that had this name.
    pub(super) fn ended(&mut self, id: &Id) -> bool {
        let same = self.by_name.get(&id.client_id).is_some_and(|client| client.id == *id);
        if same {
            self.remove(&id.client_id);
        }
        same
    }

    /// What a client may do; nothing, if it has no session.
    pub(super) fn access(&self, client: &str) -> Arc<Access> {
        self.by_name.get(client).map(|client| Arc::clone(&client.access)).unwrap_or_default()
    }

    /// Is it the bridge of another broker?
    pub(super) fn is_bridge(&self, client: &str) -> bool {
        self.by_name.get(client).is_some_and(|client| client.bridge)
    }

    /// Who has the session of that name.
    pub(super) fn owner(&self, client: &str) -> Option<&Arc<Access>> {
        self.by_name.get(client).map(|client| &client.access)
    }

    /// A message of that size is to wait for a client; `false`: there is no room.
    pub(super) fn enqueue(&mut self, client: &str, size: usize) -> bool {
        let size = size + OVERHEAD;
        let limits = self.limits;
        let Some(client) = self.by_name.get_mut(client) else { return true };
        let waiting = &mut client.waiting;
        let bytes = waiting.bytes + size;
        let room = bytes <= limits.bytes && (bytes <= FAIR_SHARE || self.bytes + size <= limits.total);
        if waiting.messages >= limits.messages || !(room || waiting.messages == 0) {
            return false;
        }
        waiting.messages += 1;
        waiting.bytes = bytes;
        self.bytes += size;
        true
    }

    /// A message of that size waits no more.
    pub(super) fn dequeue(&mut self, client: &str, size: usize) {
        let Some(client) = self.by_name.get_mut(client) else { return };
        let waiting = &mut client.waiting;
        let size = (size + OVERHEAD).min(waiting.bytes);
        waiting.messages = waiting.messages.saturating_sub(1);
        waiting.bytes -= size;
        self.bytes -= size;
    }

    /// A client publishes: how long it must wait before that is taken.
    pub(super) fn publishes(&mut self, client: &str, now: Instant) -> Duration {
        self.by_name.get_mut(client).map_or(Duration::ZERO, |client| {
            if client.access.is_gateway() { Duration::ZERO } else { client.bucket.take(now) }
        })
    }
}

/// A key of our own: the one at hand is a window into the CONNECT packet.
fn own(client: &ClientId) -> ClientId {
    ClientId::from(client.to_string())
}

/// A token bucket: so many a second, twice as many at once.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    pub(super) fn new(rate: u32, now: Instant) -> Self {
        let rate = f64::from(rate.max(1));
        Self { rate, tokens: 2.0 * rate, at: now }
    }

    /// Takes one, which may be of the future: how long it takes until there is one again.
    pub(super) fn take(&mut self, now: Instant) -> Duration {
        self.refill(now);
        self.tokens -= 1.0;
        if self.tokens >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-self.tokens / self.rate) }
    }

    /// As [`take`](Self::take), if that takes no longer than `limit`; else nothing is taken.
    pub(super) fn take_within(&mut self, limit: Duration, now: Instant) -> Option<Duration> {
        let wait = self.take(now);
        if wait > limit {
            self.tokens += 1.0;
            return None;
        }
        Some(wait)
    }

    /// Is it as if nothing had ever been taken?
    pub(super) fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.tokens >= 2.0 * self.rate
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.tokens = (self.tokens + passed * self.rate).min(2.0 * self.rate);
    }
}

/// The part of an address that one customer has: a host in IPv4, a network in IPv6 (RFC 6177).
pub(super) fn customer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => IpAddr::V6((six.to_bits() & (u128::MAX << 64)).into()),
        four => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(client: &str) -> Id {
        Id::from(1, ClientId::from(client.to_owned()))
    }

    fn clients() -> Clients {
        let limits = QueueLimits { messages: 3, bytes: 200_000, total: 250_000, rate: 10 };
        Clients::new(limits)
    }

    #[test]
    fn what_waits_is_bounded_in_messages_and_in_bytes_for_each_and_for_all() {
        let mut clients = clients();
        let now = Instant::now();
        for name in ["a", "b", "c"] {
            clients.connected(&id(name), true, now);
        }
        assert!((0..3).all(|_| clients.enqueue("a", 10)));
        assert!(!clients.enqueue("a", 10), "a fourth message");
        clients.dequeue("a", 10);
        assert!(clients.enqueue("a", 10));
        assert!(clients.enqueue("b", 150_000));
        assert!(!clients.enqueue("b", 60_000), "more bytes than one may have");
        assert!(clients.enqueue("c", 60_000), "within its fair share");
        assert!(!clients.enqueue("c", 60_000), "more than all may have together");
        assert!(clients.ended(&clients.by_name["b"].id.clone()));
        assert!(clients.enqueue("c", 60_000), "b has left room");
    }

    #[test]
    fn a_message_that_is_larger_than_the_bound_passes_where_nothing_waits() {
        let mut clients = clients();
        clients.connected(&id("a"), true, Instant::now());
        assert!(clients.enqueue("a", 500_000));
        assert!(!clients.enqueue("a", 1));
        clients.dequeue("a", 500_000);
        assert_eq!(clients.bytes, 0);
    }

    #[test]
    fn what_waits_is_kept_with_the_session_and_goes_with_a_clean_start() {
        let mut clients = clients();
        let now = Instant::now();
        clients.connected(&id("a"), true, now);
        assert!(clients.enqueue("a", 1));
        clients.connected(&id("a"), false, now);
        assert_eq!(clients.by_name["a"].waiting.messages, 1);
        clients.connected(&id("a"), true, now);
        assert_eq!((clients.by_name["a"].waiting.messages, clients.bytes), (0, 0));
    }

    #[test]
    fn who_is_connected_and_who_has_a_session_is_counted() {
        let (mut clients, now) = (clients(), Instant::now());
        clients.restored(&id("a"), Arc::default(), now);
        assert_eq!(clients.counts(), (0, 1));
        let second = Id::from(2, ClientId::from_static("a"));
        clients.connected(&id("a"), false, now);
        clients.connected(&second, false, now);
        clients.disconnected(&id("a"));
        assert_eq!(clients.counts(), (1, 1), "another connection has the session since");
        clients.disconnected(&second);
        clients.admit(&id("gateway"), Arc::new(Access::gateway()), false);
        clients.connected(&id("gateway"), true, now);
        assert_eq!(clients.counts(), (0, 1), "the gateway itself is no client");
    }

    #[test]
    fn a_client_is_slowed_down_to_its_rate() {
        let mut clients = clients();
        let start = Instant::now();
        clients.connected(&id("a"), true, start);
        let delays: Vec<Duration> = (0..30).map(|_| clients.publishes("a", start)).collect();
        assert!(delays[..20].iter().all(Duration::is_zero));
        assert_eq!(delays[29], Duration::from_secs(1));
        assert_eq!(clients.publishes("a", start + Duration::from_secs(10)), Duration::ZERO);
    }

    #[test]
    fn addresses_of_one_customer_are_one() {
        let of = |text: &str| customer(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2::"));
        assert_ne!(of("2001:db8:1:3::"), of("2001:db8:1:2::"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
