//! What the broker keeps beyond the process: retained messages, sessions, and what waits for their clients.
//!
//! Every change is in the *tail* (a file on a tmpfs) before the packet that depends on it is acknowledged, so that it
//! survives SIGKILL. The *file* on disk gets what is still true after a while: messages and sessions after
//! [`FLUSH`], retained messages after [`FLUSH_RETAINED`], each with its last value only. So a message that was
//! delivered to every session within [`FLUSH`] is never written to disk, and a topic that changes many times a second
//! is written once in a while. A power cut loses what was younger. `docs/broker.md` says what this amounts to.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) mod record;

pub mod snapshot;

mod file;
mod state;
mod tail;

pub(super) use file::FlushJob;
use record::{Message, Record, Session, Subscription, Waiting};
use state::{Key, State};
use tail::Tail;

/// How long a message that waits, or a change of a session, may stay in memory alone.
pub const FLUSH: Duration = Duration::from_secs(1);
/// The same for retained messages: they are the latest value, and the next one is on its way.
pub const FLUSH_RETAINED: Duration = Duration::from_secs(10);
/// After a flush that failed.
const RETRY: Duration = Duration::from_secs(10);
/// A file up to this length is never written anew because of its length.
const SMALL_FILE: u64 = 1024 * 1024;
/// A tail of this length is written anew, with what is still true.
const LONG_TAIL: usize = 8 * 1024 * 1024;

/// Counts of the store, since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Sessions that are kept.
    pub sessions: usize,
    /// Messages that wait for at least one of them.
    pub messages: usize,
    /// Flushes that wrote something.
    pub flushes: u64,
    /// Flushes that failed.
    pub failures: u64,
    /// Files that could not be read, wholly or in part, and were put aside.
    pub put_aside: u64,
}

/// The store.
#[derive(Debug)]
pub(super) struct Store {
    state: State,
    tail: Tail,
    folder: PathBuf,
    id: u64,
    /// Length of the file; `None`: it must be written anew.
    length: Option<u64>,
    /// Its length when it was last written anew.
    compact: u64,
    /// What is not on disk as it is, and since when.
    dirty: BTreeMap<Key, Instant>,
    /// Nothing of it is due before.
    due: Option<Instant>,
    /// What the running flush writes.
    in_flush: BTreeSet<Key>,
    flushing: bool,
    /// Messages that the file speaks of.
    on_disk: BTreeSet<u32>,
    next: u32,
    not_before: Option<Instant>,
    stats: StoreStats,
}

impl Store {
    /// Opens the store of a folder with its tail in another one; a file that cannot be read is put aside.
    ///
    /// # Errors
    /// One of the folders cannot be used.
    pub(super) fn open(folder: &Path, tail: &Path, fresh_id: u64, now: Instant) -> io::Result<Self> {
        let mut state = State::default();
        let found = file::load(folder, fresh_id, |record| drop(state.apply(record)))?;
        let on_disk = state.messages.keys().copied().collect();
        let mut dirty = BTreeMap::new();
        let mut aside: Vec<PathBuf> = found.aside.into_iter().collect();
        let take = |record| dirty.extend(state.apply(record).into_iter().map(|key| (key, now)));
        let spoilt = |bytes: &[u8]| {
            aside.push(file::put_aside(folder, "tail", bytes)?);
            Ok(())
        };
        let tail = Tail::open(tail, found.id, take, spoilt)?;
        // A message that waits for nobody whose session is kept was left by a damaged file.
        let State { sessions, messages, .. } = &mut state;
        messages.retain(|number, (_, waiting)| {
            waiting.retain(|one| sessions.contains_key(&one.client));
            if waiting.is_empty() {
                dirty.insert(Key::Message(*number), now);
            }
            !waiting.is_empty()
        });
        for file in &aside {
            tracing::warn!(
                file = %file.display(),
                retained = state.retained.len(),
                sessions = state.sessions.len(),
                "the broker's store was damaged: what could be read is used, and a copy of it is kept"
            );
        }
        let next = state.messages.keys().next_back().map_or(1, |last| last.wrapping_add(1).max(1));
        let mut store = Self {
            state,
            tail,
            folder: folder.to_owned(),
            id: found.id,
            length: (!found.rewrite).then_some(found.length),
            compact: found.length,
            due: dirty.keys().next().map(|_| now),
            dirty,
            in_flush: BTreeSet::new(),
            flushing: false,
            on_disk,
            next,
            not_before: None,
            stats: StoreStats { put_aside: aside.len() as u64, ..StoreStats::default() },
        };
        if found.rewrite {
            // Without the file, nobody would find the tail again.
            let job = store.job(store.state.keys().collect(), None);
            store.finish_flush(&job, job.run(), now);
        }
        Ok(store)
    }

    /// The retained messages.
    pub(super) fn retained(&self) -> impl Iterator<Item = &Message> {
        self.state.retained.values()
    }

    /// The sessions, by client.
    pub(super) fn sessions(&self) -> impl Iterator<Item = (&Arc<str>, &Session)> {
        self.state.sessions.iter()
    }

    /// Is a session of that client kept?
    pub(super) fn has_session(&self, client: &str) -> bool {
        self.state.sessions.contains_key(client)
    }

    /// What waits for a client, in the order in which it came, with its number.
    pub(super) fn waiting_for(&self, client: &str) -> impl Iterator<Item = (u32, &Message, &Waiting)> {
        self.state.messages.iter().flat_map(move |(number, (message, waiting))| {
            waiting.iter().filter(move |one| &*one.client == client).map(move |one| (*number, message, one))
        })
    }

    /// The retained message of a topic changes.
    pub(super) fn retain(&mut self, topic: Arc<str>, message: Option<Message>, now: Instant) {
        if message.is_some() || self.state.retained.contains_key(&topic) {
            self.change(Record::Retained(topic, message), now);
        }
    }

    /// A session begins, or changes. Nothing is written if it is as it was.
    pub(super) fn put_session(&mut self, client: Arc<str>, session: Session, now: Instant) {
        if self.state.sessions.get(&client) != Some(&session) {
            self.change(Record::Session(client, Some(session)), now);
        }
    }

    /// A session changes in place; nothing happens where there is none.
    pub(super) fn change_session(&mut self, client: &str, now: Instant, change: impl FnOnce(&mut Session)) {
        let Some((client, session)) = self.state.sessions.get_key_value(client) else { return };
        let (client, mut session) = (Arc::clone(client), session.clone());
        change(&mut session);
        self.put_session(client, session, now);
    }

    /// A client subscribes, or changes a subscription.
    pub(super) fn subscribe(&mut self, client: &str, filter: &str, options: Subscription, now: Instant) {
        self.change_session(client, now, |session| {
            match session.subscriptions.iter_mut().find(|(known, _)| &**known == filter) {
                Some((_, known)) => *known = options,
                None => session.subscriptions.push((filter.into(), options)),
            }
        });
    }

    /// A client ends a subscription.
    pub(super) fn unsubscribe(&mut self, client: &str, filter: &str, now: Instant) {
        self.change_session(client, now, |session| session.subscriptions.retain(|(known, _)| &**known != filter));
    }

    /// A session ends, and with it what waits for its client.
    pub(super) fn end_session(&mut self, client: &str, now: Instant) {
        if let Some((client, _)) = self.state.sessions.get_key_value(client) {
            let client = Arc::clone(client);
            self.change(Record::Session(client, None), now);
        }
    }

    /// A message waits for clients. Gives its number, which is never 0.
    pub(super) fn enqueue(&mut self, message: Message, waiting: Vec<Waiting>, now: Instant) -> u32 {
        let number = self.next;
        self.next = self.next.wrapping_add(1).max(1);
        self.change(Record::Message(number, Some((message, waiting))), now);
        number
    }

    /// A client has a message, or never gets it any more.
    pub(super) fn done(&mut self, number: u32, client: &str, now: Instant) {
        let Some((_, waiting)) = self.state.messages.get(&number) else { return };
        let Some(client) = waiting.iter().find(|one| &*one.client == client).map(|one| Arc::clone(&one.client)) else {
            return;
        };
        self.change(Record::Done(number, client), now);
    }

    fn change(&mut self, record: Record, now: Instant) {
        if let Err(error) = self.tail.append(&record) {
            // The next flush brings it to disk, and writes the tail anew.
            if self.not_before.is_none() {
                tracing::warn!(%error, "the broker's tail cannot be written: what changes now does not survive a crash");
                self.not_before = Some(now + RETRY);
            }
        }
        for key in self.state.apply(record) {
            self.mark(key, now);
        }
        if self.tail.length() > LONG_TAIL && !self.flushing {
            self.renew_tail();
        }
    }

    fn mark(&mut self, key: Key, now: Instant) {
        if let Key::Message(number) = key
            && !self.state.messages.contains_key(&number)
            && !self.on_disk.contains(&number)
            && !self.in_flush.contains(&key)
        {
            // It came and went, and the disk knows nothing of it.
            self.dirty.remove(&key);
            if self.dirty.is_empty() {
                self.due = None;
            }
            return;
        }
        let due = Self::due(&key, now);
        self.due = Some(self.due.map_or(due, |first| first.min(due)));
        self.dirty.entry(key).or_insert(now);
    }

    fn find_due(&mut self) {
        self.due = self.dirty.iter().map(|(key, since)| Self::due(key, *since)).min();
    }

    /// How long it may stay in memory alone.
    fn patience(key: &Key) -> Duration {
        match key {
            Key::Retained(_) => FLUSH_RETAINED,
            Key::Session(_) | Key::Message(_) => FLUSH,
        }
    }

    fn due(key: &Key, since: Instant) -> Instant {
        since + Self::patience(key)
    }

    /// When there may be something to flush; `None`: everything is on disk.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.map(|first| self.not_before.map_or(first, |not_before| first.max(not_before)))
    }

    /// Begins a flush of what is due, or of everything. `None`: there is nothing to write, or one is running.
    pub(super) fn begin_flush(&mut self, now: Instant, everything: bool) -> Option<FlushJob> {
        if self.flushing || (!everything && self.next_due().is_none_or(|due| due > now)) {
            return None;
        }
        let grown = self.length.is_some_and(|length| length > SMALL_FILE.max(self.compact.saturating_mul(2)));
        let at = self.length.filter(|_| !grown);
        let keys: BTreeSet<Key> = if at.is_none() {
            self.state.keys().chain(self.dirty.keys().cloned()).collect()
        } else {
            // What is due takes along all that may wait as long: one write for twenty topics, not one for each.
            let due: BTreeSet<Duration> = self
                .dirty
                .iter()
                .filter(|(key, since)| Self::due(key, **since) <= now)
                .map(|(key, _)| Self::patience(key))
                .collect();
            let goes = |key: &&Key| everything || due.contains(&Self::patience(key));
            self.dirty.keys().filter(goes).cloned().collect()
        };
        if keys.is_empty() {
            // What was due has come and gone.
            self.find_due();
            return None;
        }
        Some(self.job(keys, at))
    }

    fn job(&mut self, keys: BTreeSet<Key>, at: Option<u64>) -> FlushJob {
        let mut bytes = Vec::new();
        for key in &keys {
            let record = self.state.record(key);
            let gone =
                matches!(record, Record::Retained(_, None) | Record::Session(_, None) | Record::Message(_, None));
            if !(gone && at.is_none()) {
                record::write(&record, &mut bytes);
            }
            self.dirty.remove(key);
        }
        self.find_due();
        self.in_flush = keys;
        self.flushing = true;
        FlushJob { folder: self.folder.clone(), id: self.id, at, bytes }
    }

    /// Takes note of what became of a flush.
    pub(super) fn finish_flush(&mut self, job: &FlushJob, result: io::Result<u64>, now: Instant) {
        self.flushing = false;
        let keys = std::mem::take(&mut self.in_flush);
        match result {
            Ok(length) => {
                self.stats.flushes += 1;
                self.not_before = None;
                if job.at.is_none() {
                    self.compact = length;
                    self.on_disk.clear();
                }
                self.length = Some(length);
                for key in keys {
                    let Key::Message(number) = key else { continue };
                    // Gone since, or written as gone: in the first case it is dirty again.
                    if self.state.messages.contains_key(&number) || self.dirty.contains_key(&key) {
                        self.on_disk.insert(number);
                    } else {
                        self.on_disk.remove(&number);
                    }
                }
                self.renew_tail();
            }
            Err(error) => {
                if self.stats.failures == 0 || self.not_before.is_none() {
                    tracing::warn!(
                        folder = %self.folder.display(), %error,
                        "the broker's store cannot be written; it is tried again"
                    );
                }
                self.stats.failures += 1;
                self.not_before = Some(now + RETRY);
                // Nobody knows how much of it was written.
                self.length = None;
                for key in keys {
                    self.dirty.entry(key).or_insert(now);
                }
                self.find_due();
            }
        }
    }

    /// The tail needs only what the disk does not have.
    fn renew_tail(&mut self) {
        let state = &self.state;
        if let Err(error) = self.tail.replace(self.dirty.keys().map(|key| state.record(key))) {
            tracing::warn!(%error, "the broker's tail cannot be written anew");
        }
    }

    /// The end, in order: a tail of which the disk has everything goes. What changes after this is written by a flush.
    pub(super) fn close(&mut self) {
        if self.dirty.is_empty()
            && let Err(error) = self.tail.remove()
        {
            tracing::warn!(%error, "the broker's tail cannot be removed");
        }
    }

    /// Counts.
    pub(super) fn stats(&self) -> StoreStats {
        StoreStats { sessions: self.state.sessions.len(), messages: self.state.messages.len(), ..self.stats }
    }
}

#[cfg(test)]
mod tests;
