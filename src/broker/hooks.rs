//! Where the broker crate asks us: at each login, subscription and message, and when a session begins and ends.
//!
//! [`Hooks::accept`] is the one place that every message of a client passes before it is acknowledged.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rmqtt::codec::v5::{DisconnectReasonCode, PublishAckReason, SubscribeAckReason};
use rmqtt::hook::{Handler, HookResult, Parameter, Register, ReturnType, Type};
use rmqtt::session::Session;
use rmqtt::types::{
    AuthResult, ClientId, ConnectInfo, From, FromType, Id, Publish, PublishAclResult, PublishResult, QoS, Reason,
    Subscribe, SubscribeAclResult,
};

use super::access::Access;
use super::convert;
use super::forward::NOT_STORED;
use super::groups;
use super::ingest::Incoming;
use super::login::{Claim, SELF_CHECK, Verdict};
use super::peers::{Peer, Peers};
use super::refusals::Refusal;
use super::shared::Shared;

/// Longest topic of a message, and longest filter, in bytes; the protocol allows 65,535.
pub const MAX_TOPIC_BYTES: usize = 4096;
/// The longest that a client which publishes too fast is held up at once.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The protocol level of MQTT 5.
const LEVEL_5: u8 = 5;

/// What we want to be asked about.
const TYPES: [Type; 10] = [
    Type::ClientAuthenticate,
    Type::ClientConnected,
    Type::ClientDisconnected,
    Type::SessionTerminated,
    Type::SessionSubscribed,
    Type::SessionUnsubscribed,
    Type::ClientSubscribeCheckAcl,
    Type::MessagePublish,
    Type::MessagePublishCheckAcl,
    Type::MessageDelivered,
];
const MORE_TYPES: [Type; 2] = [Type::MessageAcked, Type::MessageDropped];

/// Registers a handler for each of them.
pub(super) async fn register(with: &dyn Register, shared: &Arc<Shared>, peers: &Arc<Peers>) {
    for typ in TYPES.into_iter().chain(MORE_TYPES) {
        with.add(typ, Box::new(Hooks { shared: Arc::clone(shared), peers: Arc::clone(peers) })).await;
    }
    with.start().await;
}

struct Hooks {
    shared: Arc<Shared>,
    peers: Arc<Peers>,
}

#[async_trait]
impl Handler for Hooks {
    async fn hook(&self, parameter: &Parameter, result: Option<HookResult>) -> ReturnType {
        let now = Instant::now();
        let answer = match parameter {
            Parameter::ClientAuthenticate(connect) => Some(HookResult::AuthResult(self.authenticate(connect).await)),
            Parameter::ClientConnected(session) => {
                self.connected(session, now).await;
                None
            }
            Parameter::ClientDisconnected(session, reason) => {
                if let Some(peer) = self.peer(&session.id) {
                    peer.farewell.ended(reason);
                }
                self.shared.clients().disconnected(&session.id);
                self.disconnected(session, now).await;
                None
            }
            Parameter::SessionTerminated(session, _) => {
                if self.shared.clients().ended(&session.id) {
                    self.change(|shared| shared.store().end_session(&session.id.client_id, now));
                }
                None
            }
            Parameter::SessionSubscribed(session, subscribe) => {
                let options = convert::subscription(&subscribe.opts);
                let group = subscribe.opts.shared_group().map(|group| &**group);
                let (client, filter) = (&session.id.client_id, groups::joined(group, &subscribe.topic_filter));
                self.change(|shared| shared.store().subscribe(client, &filter, options, now));
                None
            }
            Parameter::SessionUnsubscribed(session, unsubscribe) => {
                let group = unsubscribe.shared_group.as_deref();
                let (client, filter) = (&session.id.client_id, groups::joined(group, &unsubscribe.topic_filter));
                self.change(|shared| shared.store().unsubscribe(client, &filter, now));
                None
            }
            Parameter::ClientSubscribeCheckAcl(session, subscribe) => self.subscribe(session, subscribe),
            Parameter::MessagePublish(_, from, publish) if matches!(from.typ(), FromType::LastWill) => {
                self.will(from, publish).await
            }
            Parameter::MessagePublish(_, from, publish) => self.came_back(from, publish),
            Parameter::MessagePublishCheckAcl(session, publish) => {
                Some(HookResult::PublishAclResult(self.accept(session, publish, now).await))
            }
            Parameter::MessageDelivered(session, _, publish) => {
                self.shared.traffic.sent();
                // What needs an acknowledgement waits for it.
                if publish.qos == QoS::AtMostOnce {
                    self.waits_no_more(&session.id.client_id, publish, now);
                }
                None
            }
            Parameter::MessageAcked(session, _, publish) => {
                self.waits_no_more(&session.id.client_id, publish, now);
                None
            }
            Parameter::MessageDropped(to, _, publish, reason) => {
                self.dropped(to.as_ref(), publish, reason, now);
                None
            }
            _ => None,
        };
        (true, answer.or(result))
    }
}

impl Hooks {
    fn change(&self, change: impl FnOnce(&Shared)) {
        change(&self.shared);
        self.shared.wake_flusher();
    }

    /// The connection behind it. The gateway itself comes to the broker directly, everybody else through a listener.
    fn peer(&self, id: &Id) -> Option<Arc<Peer>> {
        id.remote_addr.and_then(|inner| self.peers.get(inner))
    }

    async fn authenticate(&self, connect: &ConnectInfo) -> AuthResult {
        let id = connect.id();
        let peer = self.peer(id);
        if let Some(peer) = &peer {
            peer.introduced.store(true, Ordering::Relaxed);
        }
        let address = peer.as_ref().map_or(IpAddr::from([127, 0, 0, 1]), |peer| peer.address);
        let claim = Claim {
            address,
            client: &id.client_id,
            username: connect.username().map(|name| &**name),
            password: connect.password().map(|password| &**password).unwrap_or_default(),
            certificate: peer.as_ref().and_then(|peer| peer.certificate.as_deref()),
        };
        let about = |what: &str| format!("{what} (client {:?}, address {address})", &*id.client_id);
        let access = match self.shared.logins.look(claim).await {
            Verdict::Welcome(access) => access,
            Verdict::WelcomeUntil(access, until) => {
                if let Some(peer) = &peer {
                    peer.may_stay(until);
                }
                access
            }
            Verdict::Wrong(why) => {
                let name = claim.username.map_or("no user name".to_owned(), |name| format!("user {name:?}"));
                let why = why.map(|why| format!(", {why}")).unwrap_or_default();
                self.shared.refusals.note(Refusal::Login, &about(&format!("{name}{why}")));
                return AuthResult::BadUsernameOrPassword;
            }
            Verdict::Blocked => {
                self.shared.refusals.note(Refusal::LoginBlocked, &about("it must wait"));
                return AuthResult::NotAuthorized;
            }
            Verdict::Refused(why) => {
                self.shared.refusals.note(Refusal::Login, &about(why));
                return AuthResult::NotAuthorized;
            }
        };
        if peer.is_none() && !access.is_gateway() {
            // Somebody on this machine has found the port that is for the gateway alone.
            self.shared.refusals.note(Refusal::Login, &about("it came past the listeners"));
            return AuthResult::NotAuthorized;
        }
        let mut clients = self.shared.clients();
        let taken = clients.owner(&id.client_id).is_some_and(|owner| {
            owner.is_someone() && (owner.user(), owner.is_gateway()) != (access.user(), access.is_gateway())
        });
        if taken {
            drop(clients);
            self.shared.refusals.note(Refusal::Login, &about("another user has a session of that name"));
            return AuthResult::NotAuthorized;
        }
        let bridge = peer.is_some_and(|peer| peer.bridge.load(Ordering::Relaxed))
            || self.shared.config.bridges.iter().any(|bridge| **bridge == *id.client_id);
        clients.admit(id, access, bridge);
        AuthResult::Allow(false, None)
    }

    async fn connected(&self, session: &Session, now: Instant) {
        let Ok(connect) = session.connect_info().await else { return };
        let clean = connect.clean_start();
        let access = {
            let mut clients = self.shared.clients();
            clients.connected(&session.id, clean, now);
            clients.access(&session.id.client_id)
        };
        let peer = self.peer(&session.id);
        if connect.proto_ver() == LEVEL_5
            && let Some(peer) = &peer
        {
            peer.farewell.is_awaited();
        }
        if !access.is_gateway() && &*session.id.client_id != SELF_CHECK {
            let (client, address) = (&session.id.client_id, peer.map(|peer| peer.address));
            self.shared.watch.connected(client, access.user(), address, &self.shared.notices, now);
        }
        let expiry = session.fitter.session_expiry_interval(None).as_secs();
        // A 3.1.1 client says with one flag that it wants a new session, and that it does not want to keep it.
        let kept = if connect.proto_ver() == LEVEL_5 { expiry > 0 } else { !clean };
        let created_at = session.created_at().await.unwrap_or_default();
        self.change(|shared| {
            let mut store = shared.store();
            let client: &str = &session.id.client_id;
            if clean || !kept {
                store.end_session(client, now);
            }
            if kept {
                let mut new =
                    convert::session(&connect, &access, u32::try_from(expiry).unwrap_or(u32::MAX), created_at);
                let old =
                    store.sessions().find(|(name, _)| &***name == client).map(|(_, old)| old.subscriptions.clone());
                new.subscriptions = old.unwrap_or_default();
                store.put_session(Arc::from(client), new, now);
            }
        });
    }

    /// An MQTT 5 client may say at the end how long its session is to be kept (3.14.2.2.2).
    async fn disconnected(&self, session: &Session, now: Instant) {
        let Ok(Some(said)) = session.disconnect().await else { return };
        let expiry = session.fitter.session_expiry_interval(Some(&said)).as_secs();
        let expiry = u32::try_from(expiry).unwrap_or(u32::MAX);
        let is_v5 = session.protocol().await.is_ok_and(|level| level == LEVEL_5);
        if is_v5 && expiry > 0 {
            let client = &session.id.client_id;
            self.change(|shared| shared.store().change_session(client, now, |kept| kept.expiry = expiry));
        }
    }

    fn subscribe(&self, session: &Session, subscribe: &Subscribe) -> Option<HookResult> {
        let client = &session.id.client_id;
        let refused = |why| Some(HookResult::SubscribeAclResult(SubscribeAclResult::new_failure(why)));
        let group = subscribe.opts.shared_group();
        if group.is_some_and(|group| !groups::is_name(group) || subscribe.opts.no_local() == Some(true)) {
            // Who shares cannot ask to be left out (MQTT 5, 3.8.3.1).
            return refused(SubscribeAckReason::TopicFilterInvalid);
        }
        let access = self.shared.clients().access(client);
        if !fits(&subscribe.topic_filter) {
            self.shared.refusals.note(Refusal::Topic, &who(&session.id, access.user(), &subscribe.topic_filter));
            return Some(HookResult::SubscribeAclResult(SubscribeAclResult::new_failure(
                rmqtt::codec::v5::SubscribeAckReason::TopicFilterInvalid,
            )));
        }
        if access.may_read(client, &subscribe.topic_filter) {
            return None;
        }
        self.shared.refusals.note(Refusal::Read, &who(&session.id, access.user(), &subscribe.topic_filter));
        refused(SubscribeAckReason::NotAuthorized)
    }

    /// A last will is published without being asked about again, so that one that is not allowed must be made harmless
    /// here: it goes to a client that cannot exist, and is not retained.
    async fn will(&self, from: &From, publish: &Publish) -> Option<HookResult> {
        let (client, access) = (&from.id.client_id, self.shared.clients().access(&from.id.client_id));
        let own = self.shared.is_own(&publish.topic);
        if fits(&publish.topic) && access.may_write(client, &publish.topic, own) {
            // Nobody waits for its acknowledgement.
            if let Err((refusal, why)) = self.take_up(&from.id, &access, publish, false).await {
                self.shared.refusals.note(refusal, &why);
            }
            return None;
        }
        self.shared.refusals.note(Refusal::Write, &who(&from.id, access.user(), &publish.topic));
        Some(HookResult::Publish(harmless(publish)))
    }

    /// What a bridge brings on a topic that goes up, or that is the gateway's, has been here before. It is
    /// acknowledged, because the bridge would send it again, and is not delivered.
    fn came_back(&self, from: &From, publish: &Publish) -> Option<HookResult> {
        let client = &from.id.client_id;
        // Hardly anybody is a bridge: that is asked first.
        if !self.shared.clients().is_bridge(client)
            || !(self.shared.intake.goes_up(&publish.topic) || self.shared.is_own(&publish.topic))
        {
            return None;
        }
        let access = self.shared.clients().access(client);
        self.shared.refusals.note(Refusal::CameBack, &who(&from.id, access.user(), &publish.topic));
        Some(HookResult::Publish(harmless(publish)))
    }

    /// Sees to it that a message that goes up is in the outbox.
    async fn take_up(
        &self,
        id: &Id,
        access: &Access,
        publish: &Publish,
        is_acknowledged: bool,
    ) -> Result<(), (Refusal, String)> {
        let topic: &str = &publish.topic;
        let message = Incoming { topic, payload: &publish.payload, retain: publish.retain, is_acknowledged };
        self.shared.intake.take(message, &who(id, access.user(), topic), &self.shared.refusals).await
    }

    /// A client publishes: says whether that is taken. Whatever is to happen with a message before its publisher has
    /// the acknowledgement is to happen here.
    async fn accept(&self, session: &Session, publish: &Publish, now: Instant) -> PublishAclResult {
        let (id, topic) = (&session.id, &publish.topic);
        self.shared.traffic.received();
        if has_alias_above(publish, super::MAX_TOPIC_ALIASES) {
            // The crate looks only at how many there are.
            if let Some(peer) = self.peer(id) {
                peer.farewell.because(DisconnectReasonCode::TopicAliasInvalid);
            }
            return PublishAclResult::rejected(true, None);
        }
        let (access, pause, bridge) = {
            let mut clients = self.shared.clients();
            let pause = clients.publishes(&id.client_id, now);
            (clients.access(&id.client_id), pause, clients.is_bridge(&id.client_id))
        };
        if access.is_gateway() {
            self.shared.learn_own(topic);
            return PublishAclResult::allow();
        }
        self.shared.watch.published(&id.client_id, topic, &self.shared.notices, now);
        if publish.target_clientid.is_some() {
            // It came back: see there.
            return PublishAclResult::allow();
        }
        let refusal = if !fits(topic) {
            Some(Refusal::Topic)
        } else if access.may_write(&id.client_id, topic, self.shared.is_own(topic)) {
            None
        } else {
            Some(Refusal::Write)
        };
        if let Some(refusal) = refusal {
            self.shared.refusals.note(refusal, &who(id, access.user(), topic));
            // A PUBACK of MQTT 3.1.1 cannot refuse: only closing the connection tells the client (3.3.5-2).
            let is_v5 = session.protocol().await.is_ok_and(|level| level == LEVEL_5);
            let disconnect = !is_v5 && publish.qos != QoS::AtMostOnce;
            return PublishAclResult::rejected(disconnect, None);
        }
        if !pause.is_zero() {
            self.shared.refusals.note(Refusal::MessageRate, &who(id, access.user(), topic));
            // Its connection is not read meanwhile: the network slows it down.
            tokio::time::sleep(pause.min(LONGEST_PAUSE)).await;
        }
        let is_acknowledged = publish.qos != QoS::AtMostOnce;
        if bridge {
            // What comes from above never goes up again.
            return PublishAclResult::allow();
        }
        if let Err((refusal, why)) = self.take_up(id, &access, publish, is_acknowledged).await {
            self.shared.refusals.note(refusal, &why);
            let is_v5 = session.protocol().await.is_ok_and(|level| level == LEVEL_5);
            let reason = PublishAckReason::QuotaExceeded;
            return PublishAclResult(PublishResult::reason_code(reason, None, !is_v5 && is_acknowledged));
        }
        PublishAclResult::allow()
    }

    /// A message that was counted in a client's queue leaves it.
    fn waits_no_more(&self, client: &ClientId, publish: &Publish, now: Instant) {
        let Some(number) = publish.delay_interval else { return };
        self.shared.clients().dequeue(client, publish.topic.len() + publish.payload.len());
        if number != NOT_STORED {
            self.change(|shared| shared.store().done(number, client, now));
        }
    }

    fn dropped(&self, to: Option<&Id>, publish: &Publish, reason: &Reason, now: Instant) {
        let Some(to) = to else { return };
        self.waits_no_more(&to.client_id, publish, now);
        // A session that ends takes what waits for it along; a last will that was refused is counted where it was.
        let ends = matches!(reason, Reason::SessionExpiration) || publish.target_clientid.is_some();
        if !ends {
            self.shared.refusals.note(Refusal::Dropped, &format_args!("for client {:?}: {reason}", &*to.client_id));
        }
    }
}

/// Does it name an alias that was not allowed (MQTT 5, 3.3.2.3.4)?
fn has_alias_above(publish: &Publish, most: u16) -> bool {
    let alias = publish.properties.as_ref().and_then(|properties| properties.topic_alias);
    alias.is_some_and(|alias| alias.get() > most)
}

/// The same for a client that cannot exist.
fn harmless(publish: &Publish) -> Publish {
    let mut harmless = publish.clone().target_clientid(ClientId::from_static(""));
    harmless.retain = false;
    harmless
}

fn fits(topic: &str) -> bool {
    topic.len() <= MAX_TOPIC_BYTES && topic.split('/').count() <= super::MAX_TOPIC_LEVELS
}

/// Names a client and a topic for the log. Most messages are in no log, so that it is put in words only there.
struct Who<'a> {
    id: &'a Id,
    user: Option<&'a str>,
    topic: &'a str,
}

fn who<'a>(id: &'a Id, user: Option<&'a str>, topic: &'a str) -> Who<'a> {
    Who { id, user, topic }
}

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 200;
        let Self { id, user, topic } = self;
        let end = topic.char_indices().nth(SHOWN).map_or(topic.len(), |(at, _)| at);
        let more = if end < topic.len() { "…" } else { "" };
        write!(f, "client {:?}, ", &*id.client_id)?;
        match user {
            Some(user) => write!(f, "user {user:?}")?,
            None => f.write_str("anonymous")?,
        }
        write!(f, ": {:?}{more}", &topic[..end])
    }
}
