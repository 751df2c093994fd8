//! What the parts of the broker share; it outlives a restart of the broker within the process.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Notify, mpsc, oneshot};

use super::away::Away;
use super::clients::{Clients, QueueLimits};
use super::ingest::Intake;
use super::login::Logins;
use super::looks::Looks;
use super::notices::{Event, Notice, Notices};
use super::refusals::{Refusal, Refusals};
use super::retained::Retained;
use super::store::Store;
use super::sys::{Latest, Traffic};
use super::watch::Watch;
use super::{BrokerError, Place, convert};
use crate::config::BrokerConfig;
use crate::offer::Offer;

/// Bytes that may wait for all clients together.
const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;
/// Topics that the gateway has published on, which are remembered beyond those that the configuration tells.
const MAX_OWN_TOPICS: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: BrokerConfig,
    pub(super) retained: Retained,
    pub(super) refusals: Refusals,
    pub(super) logins: Logins,
    store: Mutex<Store>,
    clients: Mutex<Clients>,
    /// Topics that the gateway publishes on.
    own_topics: Mutex<BTreeSet<Box<str>>>,
    changed: Notify,
    /// What of its clients' messages goes up.
    pub(super) intake: Intake,
    /// Listeners without an address.
    pub(super) away: Away,
    /// Connections that are the broker's own looks at its listeners.
    pub(super) looks: Looks,
    /// What there is to tell.
    pub(super) notices: Notices,
    /// Watches the clients.
    pub(super) watch: Watch,
    /// What is below `$SYS`.
    pub(super) latest: Latest,
    pub(super) traffic: Traffic,
    #[cfg(test)]
    pub(super) faults: super::faults::Faults,
}

impl Shared {
    /// Opens what was stored.
    pub(super) fn open(
        config: &BrokerConfig,
        place: &Place,
        offers: Option<mpsc::Sender<Offer>>,
    ) -> Result<Self, BrokerError> {
        let now = Instant::now();
        let store = Store::open(&place.folder, &place.tail, super::random()?, now)
            .map_err(|why| BrokerError::Store { folder: place.folder.clone(), why })?;
        let mut config = config.clone();
        config.limits.connections = super::listeners::room_for(config.limits.connections);
        let limits = &config.limits;
        let retained = Retained::new(limits.retained, limits.retained_bytes);
        for message in store.retained() {
            retained.set(&convert::retain(message), now);
        }
        let notices = Notices::default();
        let shared = Self {
            logins: Logins::new(&config)?,
            retained,
            refusals: Refusals::default(),
            clients: Mutex::new(Clients::new(queue_limits(&config))),
            own_topics: Mutex::new(config.own_topics.iter().map(|topic| topic.as_str().into()).collect()),
            changed: Notify::new(),
            intake: Intake::new(&config.ingest, offers, now),
            away: Away::default(),
            looks: Looks::default(),
            watch: Watch::open(&config.watch, &config.ingest, &place.folder, &notices, now),
            notices,
            latest: Latest::default(),
            traffic: Traffic::default(),
            #[cfg(test)]
            faults: super::faults::Faults::default(),
            config,
            store: Mutex::new(store),
        };
        let put_aside = shared.store().stats().put_aside;
        if put_aside > 0 {
            let detail = "the store was damaged: what could be read of it is used, and a copy of it is kept".to_owned();
            shared.notices.tell(Notice { event: Event::PutAside, client: None, topic: None, detail });
        }
        Ok(shared)
    }

    /// The clients of a broker that starts anew are unknown; sessions are restored from the store.
    pub(super) fn forget_clients(&self) {
        *self.clients() = Clients::new(queue_limits(&self.config));
    }

    /// The store. Nothing that could panic leaves it half-changed.
    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The clients.
    pub(super) fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store has something to flush.
    pub(super) fn wake_flusher(&self) {
        self.changed.notify_one();
    }

    /// Brings to disk what is due, until it is told to stop; then the last flush is finished.
    pub(super) async fn flush(&self, mut stop: oneshot::Receiver<()>) {
        loop {
            let due = self.store().next_due();
            let wait = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = &mut stop => return,
                // It may be due sooner now.
                () = self.changed.notified() => continue,
                () = wait => {}
            }
            let Some(job) = self.store().begin_flush(Instant::now(), false).map(Arc::new) else { continue };
            let running = Arc::clone(&job);
            let written = tokio::task::spawn_blocking(move || running.run()).await;
            let result = written.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
            self.store().finish_flush(&job, result, Instant::now());
        }
    }

    /// Brings everything to disk, at the end.
    pub(super) fn flush_all(&self) {
        let mut store = self.store();
        let now = Instant::now();
        if let Some(job) = store.begin_flush(now, true) {
            let result = job.run();
            store.finish_flush(&job, result, now);
        }
    }

    /// Messages that did not reach a subscriber.
    pub(super) fn dropped(&self) -> u64 {
        self.refusals.count(Refusal::Dropped) + self.refusals.count(Refusal::Queue)
    }

    /// Is it a topic of the gateway's own?
    pub(super) fn is_own(&self, topic: &str) -> bool {
        self.own_topics.lock().unwrap_or_else(PoisonError::into_inner).contains(topic)
    }

    /// The gateway publishes on that topic: nobody else may, from now on.
    pub(super) fn learn_own(&self, topic: &str) {
        let mut own = self.own_topics.lock().unwrap_or_else(PoisonError::into_inner);
        if own.len() < MAX_OWN_TOPICS + self.config.own_topics.len() && !own.contains(topic) {
            own.insert(topic.into());
        }
    }
}

fn queue_limits(config: &BrokerConfig) -> QueueLimits {
    let limits = &config.limits;
    QueueLimits {
        messages: limits.queue,
        bytes: limits.queue_bytes,
        total: MAX_QUEUED_BYTES,
        rate: limits.message_rate,
    }
}
