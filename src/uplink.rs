//! The uplink: what the outbox keeps goes to a broker by MQTT.
//!
//! ```text
//! outbox ──> feed ──> session (ids, window, replay) ──> output ──> link ──> broker
//!    ▲        │  └──> encode (JSON), dating                          │
//!    └─ acks ─┴───────────────── packets <───────────────────────────┘
//! ```
//!
//! Packet ids, window and QoS 2 states are in the outbox's state before the packet that depends on them is written:
//! that is what makes QoS 2 exactly once across a crash. One turn of the loop takes everything that can be read,
//! makes one write to the outbox's tail and one to the socket.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::clock::{BootId, BootTime, Clock};
use crate::config::{Gateway, Qos, UplinkConfig};
use crate::outbox::{Outbox, Seq};

use backoff::Backoff;
use counters::Counters;
use dating::Dating;
use dial::Stream;
use expiry::{Expiry, Warnings};
use feed::Feed;
use link::{Link, Manners};
use packet::{Accepted, ConnectSettings, Will};
use refused::RefusedMessage;
use status::{Board, CertificateInfo, Info};

pub use failure::Failure;

pub mod backoff;
pub mod counters;
pub mod dating;
pub mod dial;
pub mod encode;
pub mod expiry;
pub mod failure;
pub mod feed;
pub mod keepalive;
pub mod link;
#[cfg(test)]
mod misbehaves;
#[cfg(test)]
mod model;
pub mod pace;
pub mod packet;
pub mod refused;
pub mod saved;
#[cfg(test)]
mod scripted;
pub mod session;
pub mod status;
pub mod terms;
#[cfg(test)]
mod tests;
pub mod tls;

/// How often it is looked whether the clock has been set.
const CLOCK_CHECK: Duration = Duration::from_secs(1);

/// How often it is looked whether a certificate expires soon, on a connection that lasts.
const EXPIRY_CHECK: Duration = Duration::from_secs(6 * 60 * 60);

/// What was taken so shortly before a connection was up is live all the same.
pub const LIVE_WITHIN: Duration = Duration::from_secs(5);

/// Times that are remembered to tell what was taken within [`LIVE_WITHIN`].
const MARKS: u32 = 25;

/// So many different causes of failure are remembered, so that each is logged once until a connection
/// has been stable.
const MAX_CAUSES: usize = 16;

/// What the tasks of the core thread share. Nobody holds a borrow across an await.
pub struct Hub {
    /// The records.
    pub outbox: RefCell<Outbox>,
    /// The machine's clocks.
    pub clock: Arc<dyn Clock>,
    /// This boot.
    pub boot: BootId,
    /// `[gateway]`
    pub gateway: Gateway,
    tail_found: bool,
    board: RefCell<Board>,
    info: RefCell<Info>,
    dating: RefCell<Dating>,
    work: watch::Sender<()>,
    /// How far the outbox had come at which time, for the last [`LIVE_WITHIN`] and once before.
    marks: RefCell<VecDeque<(BootTime, Seq)>>,
    counters: RefCell<BTreeMap<String, Rc<Counters>>>,
}

impl Hub {
    /// `tail_found`: the outbox had a tail when it was opened (a run that ends in order leaves none).
    #[must_use]
    pub fn new(
        outbox: Outbox,
        clock: Arc<dyn Clock>,
        boot: BootId,
        gateway: Gateway,
        info: Info,
        tail_found: bool,
    ) -> Rc<Self> {
        let dating = outbox.state(dating::STATE_KEY).map(Dating::restore).unwrap_or_default();
        // What an earlier run took is backlog.
        let marks = VecDeque::from([(BootTime(0), outbox.end())]);
        let hub = Rc::new(Self {
            outbox: RefCell::new(outbox),
            clock,
            boot,
            gateway,
            tail_found,
            board: RefCell::default(),
            info: RefCell::new(info),
            dating: RefCell::new(dating),
            work: watch::Sender::new(()),
            marks: RefCell::new(marks),
            counters: RefCell::default(),
        });
        hub.set_state(&hub.topic("availability"), status::ONLINE);
        hub.update_info(|_| ());
        hub
    }

    /// `<site>/<gateway>/<leaf>`
    #[must_use]
    pub fn topic(&self, leaf: &str) -> String {
        status::gateway_topic(self.gateway.site.as_deref(), &self.gateway.name, leaf)
    }

    /// Records were committed: the uplinks look for them.
    pub fn appended(&self) {
        let (now, end) = (self.clock.boot(), self.outbox.borrow().end());
        let marks = &mut *self.marks.borrow_mut();
        // The last mark is always the newest; those before it lie apart.
        if let [.., (before, _), _] = *marks.make_contiguous()
            && now.since(before) < LIVE_WITHIN / MARKS
        {
            marks.pop_back();
        }
        marks.push_back((now, end));
        while marks.get(1).is_some_and(|(then, _)| now.since(*then) >= LIVE_WITHIN) {
            marks.pop_front();
        }
        self.work.send_replace(());
    }

    /// What lies below this position is backlog for a connection that is made now.
    fn live_from(&self) -> Seq {
        let (now, marks) = (self.clock.boot(), self.marks.borrow());
        let old = marks.iter().rev().find(|(then, _)| now.since(*then) >= LIVE_WITHIN);
        old.or(marks.front()).map_or(0, |(_, end)| *end)
    }

    /// Writes messages that a broker refuses into their folder, on another thread.
    fn put_aside(&self, messages: Vec<RefusedMessage>) {
        let folder = self.outbox.borrow().folder().join(refused::FOLDER);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = refused::put_aside(&folder, &messages) {
                let (folder, messages) = (folder.display(), messages.len());
                tracing::warn!(%folder, messages, "refused messages cannot be put aside and are gone: {error}");
            }
        });
    }

    /// Publishes state on a topic, retained, if it is news.
    pub fn set_state(&self, topic: &str, payload: impl Into<Bytes>) {
        if self.board.borrow_mut().set(topic, payload) {
            self.work.send_replace(());
        }
    }

    /// Changes what `…/info` says.
    pub fn update_info(&self, change: impl FnOnce(&mut Info)) {
        let payload = {
            let info = &mut *self.info.borrow_mut();
            change(info);
            info.to_json()
        };
        self.set_state(&self.topic("info"), payload);
    }

    /// The counters of an uplink.
    #[must_use]
    pub fn counters(&self, uplink: &str) -> Rc<Counters> {
        self.counters.borrow_mut().entry(uplink.to_owned()).or_default().clone()
    }

    /// Notes this boot's offset between boot clock and wall clock if the clock is set; says whether it is known.
    fn note_clock(&self) -> bool {
        let dating = &mut *self.dating.borrow_mut();
        if dating.note(self.boot, &*self.clock) {
            let outbox = &mut *self.outbox.borrow_mut();
            outbox.put_state(dating::STATE_KEY, Some(dating.save()));
            outbox.persist_soon();
            outbox.commit(self.clock.boot());
            self.work.send_replace(());
        }
        dating.knows(self.boot)
    }
}

/// Waits until the clock is set, and notes what dates the readings that were taken before. The agent runs it once.
pub async fn watch_clock(hub: Rc<Hub>) {
    while !hub.note_clock() {
        tokio::time::sleep(CLOCK_CHECK).await;
    }
}

/// Brings the outbox's records to one broker, until `stop` gives a deadline for an orderly end.
///
/// Never ends before that: whatever fails is tried again. The outbox is to be closed after it.
pub async fn run(config: UplinkConfig, hub: Rc<Hub>, mut stop: watch::Receiver<Option<BootTime>>) {
    let mut feed = Feed::new(&config, &hub);
    let mut uplink = Uplink { certificates: Certificates::default(), causes: Vec::new(), config, hub: hub.clone() };
    uplink.keep_connected(&mut feed, &mut stop).await;
    feed.close(&mut hub.outbox.borrow_mut(), hub.clock.boot());
}
/// Returns when there is a deadline, or nobody left to set one.
async fn told_to_stop(stop: &mut watch::Receiver<Option<BootTime>>) {
    let _ = stop.wait_for(Option::is_some).await;
}

struct Uplink {
    config: UplinkConfig,
    hub: Rc<Hub>,
    certificates: Certificates,
    /// What has failed since the last stable connection.
    causes: Vec<String>,
}

impl Uplink {
    /// Connects again and again, until it is told to stop.
    async fn keep_connected(&mut self, feed: &mut Feed, stop: &mut watch::Receiver<Option<BootTime>>) {
        let mut backoff = Backoff::default();
        loop {
            let opened = tokio::select! {
                biased;
                () = told_to_stop(stop) => return,
                opened = tokio::time::timeout(dial::DEADLINE, self.open(feed)) => opened,
            };
            let failure = match opened.unwrap_or(Err(Failure::Deadline)) {
                Err(failure) => failure,
                Ok(link) => {
                    let up = self.hub.clock.boot();
                    let ended = self.serve(link, feed, stop).await;
                    feed.disconnected(&self.hub, matches!(ended, Err(Failure::Closed)));
                    let lasted = self.hub.clock.boot().since(up);
                    backoff.was_up(lasted);
                    if lasted >= backoff::STABLE {
                        self.causes.clear();
                    }
                    match ended {
                        Ok(()) => return,
                        Err(failure) => failure,
                    }
                }
            };
            let wait = backoff.failed(RandomState::new().build_hasher().finish());
            self.failed(&failure, wait);
            tokio::select! {
                biased;
                () = told_to_stop(stop) => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Connects, and sees to it that the broker has no session that is not ours.
    async fn open(&mut self, feed: &mut Feed) -> Result<Link<Box<dyn Stream>>, Failure> {
        let (mut link, mut accepted) = self.connect(false).await?;
        if feed.is_stranger(accepted.session_present) {
            tracing::info!(
                uplink = self.config.name,
                "the broker has a session that this outbox does not know: it is discarded"
            );
            link.disconnect().await;
            let (clean, _) = self.connect(true).await?;
            clean.disconnect().await;
            feed.broker_forgot();
            (link, accepted) = self.connect(false).await?;
        }
        let session_present = accepted.session_present;
        tracing::info!(uplink = self.config.name, broker = %self.config.url, session_present, "connected");
        feed.connected(&accepted, self.hub.live_from(), self.hub.clock.boot());
        Ok(link)
    }

    async fn connect(&mut self, clean_session: bool) -> Result<(Link<Box<dyn Stream>>, Accepted), Failure> {
        let config = &self.config;
        let (stream, expiries) = dial::dial(&config.url, config.tls.as_ref(), self.hub.clock.wall()).await?;
        self.certificates.expiries = expiries;
        let mut link = Link::new(stream, &config.url.host, config.mqtt, config.max_packet);
        let will = self.hub.topic("availability");
        let settings = ConnectSettings {
            version: config.mqtt,
            client_id: &config.client_id,
            username: config.username.as_deref(),
            password: config.password.as_ref(),
            keep_alive: config.keep_alive,
            clean_session,
            max_packet: config.max_packet,
            will: Will { topic: &will, payload: status::LOST, qos: Qos::AtLeastOnce, retain: true },
        };
        let accepted = link.connect(&settings).await?;
        Ok((link, accepted))
    }

    async fn serve(
        &mut self,
        link: Link<Box<dyn Stream>>,
        feed: &mut Feed,
        stop: &mut watch::Receiver<Option<BootTime>>,
    ) -> Result<(), Failure> {
        let manners = Manners {
            keep_alive: self.config.keep_alive,
            clock_wait: self.config.clock_wait,
            availability_topic: self.hub.topic("availability"),
        };
        tokio::select! {
            biased;
            ended = link::serve(link, feed, &self.hub, &manners, stop) => ended,
            () = self.certificates.watch(&self.config.name, &self.hub) => unreachable!("it watches for ever"),
        }
    }

    /// Logs a cause once, until a connection has been stable.
    fn failed(&mut self, failure: &Failure, wait: Duration) {
        self.hub.counters(&self.config.name).failures.add(1);
        let (uplink, broker) = (&self.config.name, &self.config.url);
        let cause = failure.to_string();
        if self.causes.contains(&cause) {
            tracing::debug!(uplink, %broker, "{cause}; next attempt in {} ms", wait.as_millis());
            return;
        }
        tracing::warn!(uplink, %broker, "{cause} (readings wait in the outbox, and it is tried again)");
        if self.causes.len() == MAX_CAUSES {
            self.causes.remove(0);
        }
        self.causes.push(cause);
    }
}

/// The certificates of the present connection.
#[derive(Debug, Default)]
struct Certificates {
    expiries: Vec<Expiry>,
    warnings: Warnings,
}

impl Certificates {
    async fn watch(&mut self, uplink: &str, hub: &Hub) {
        let first = self.expiries.iter().min_by_key(|expiry| expiry.at).map(|expiry| CertificateInfo {
            whose: expiry.whose.as_str(),
            expires: humantime::format_rfc3339_seconds(expiry.at).to_string(),
        });
        hub.update_info(|info| match first {
            Some(first) => drop(info.certificates.insert(uplink.to_owned(), first)),
            None => drop(info.certificates.remove(uplink)),
        });
        loop {
            if hub.clock.is_set() {
                let now = hub.clock.wall();
                for expiry in &self.expiries {
                    if let Some(days) = self.warnings.check(expiry, now) {
                        let date = humantime::format_rfc3339_seconds(expiry.at);
                        let (whose, name) = (expiry.whose.as_str(), &expiry.name);
                        tracing::warn!(uplink, whose, name, days, "a certificate expires on {date}: renew it in time");
                    }
                }
            }
            tokio::time::sleep(EXPIRY_CHECK).await;
        }
    }
}
