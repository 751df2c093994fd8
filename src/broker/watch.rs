//! Watches clients: who has fallen silent, who was never here before, who publishes many times as much as usual. Nothing
//! of it unless `[broker.watch]`, or `silent_after` of an `[[broker.ingest]]`, asks for it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::known::{self, Known};
use super::notices::{Event, Notice, Notices};
use super::rhythm::{Rhythm, Speed};
use crate::config::{BrokerWatch, Ingest};
use crate::topic::filter::matches;

/// Clients, and topics, that are watched; beyond it, the one that was quiet for the longest time is forgotten.
const MAX_WATCHED: usize = 1024;
/// While nobody was ever known, all who come are taken as known for so long.
const LEARNING: Duration = Duration::from_secs(3600);
/// How often it is looked who is silent, at least and at most: a quarter of the time of silence.
const LOOKS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(60));
/// How often the known clients are written, if there are new ones.
const WRITE_EVERY: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(super) struct Watch {
    settings: BrokerWatch,
    /// Filters of topics, with the time of silence.
    topics: Vec<(String, Duration)>,
    folder: PathBuf,
    learning_until: Option<Instant>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    clients: HashMap<Box<str>, (Rhythm, Speed)>,
    by_topic: HashMap<Box<str>, (Rhythm, Duration)>,
    known: Option<Known>,
}

impl Watch {
    pub(super) fn open(
        settings: &BrokerWatch,
        ingest: &[Ingest],
        folder: &Path,
        notices: &Notices,
        now: Instant,
    ) -> Self {
        let silent = |rule: &Ingest| {
            let after = rule.silent_after;
            rule.topics.iter().filter_map(move |filter| Some((filter.clone(), after?))).collect::<Vec<_>>()
        };
        let (mut state, mut learning_until) = (State::default(), None);
        if settings.unknown_clients {
            let found = Known::open(folder);
            if !found.existed {
                learning_until = Some(now + LEARNING);
            }
            if let Some(aside) = found.aside {
                let detail = format!("the list of known clients was damaged: it is {} now", aside.display());
                notices.tell(Notice { event: Event::PutAside, client: None, topic: None, detail });
            }
            state.known = Some(found.known);
        }
        Self {
            settings: settings.clone(),
            topics: ingest.iter().flat_map(silent).collect(),
            folder: folder.to_owned(),
            learning_until,
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What it holds is whole after every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client has connected.
    pub(super) fn connected(
        &self,
        client: &str,
        user: Option<&str>,
        address: Option<IpAddr>,
        notices: &Notices,
        now: Instant,
    ) {
        let known = self.state().known.as_mut().is_none_or(|known| known.come(client));
        if known || self.learning_until.is_some_and(|until| now < until) {
            return;
        }
        let user = user.map_or_else(|| "no user name".to_owned(), |user| format!("user {user:?}"));
        let from = address.map_or_else(|| "this machine".to_owned(), |address| address.to_string());
        let detail = format!("a client that was never here before, with {user}, from {from}");
        notices.tell(Notice { event: Event::UnknownClient, client: Some(client.into()), topic: None, detail });
    }

    /// A client has published.
    pub(super) fn published(&self, client: &str, topic: &str, notices: &Notices, now: Instant) {
        if self.settings.sees_messages() {
            self.of_client(client, notices, now);
        }
        if let Some((_, after)) = self.topics.iter().find(|(filter, _)| matches(filter, topic)) {
            let mut state = self.state();
            let back = match state.by_topic.get_mut(topic) {
                Some((rhythm, after)) => rhythm.seen(*after, now),
                None => {
                    make_room(&mut state.by_topic, |(rhythm, _)| rhythm.last());
                    state.by_topic.insert(topic.into(), (Rhythm::new(now), *after));
                    None
                }
            };
            drop(state);
            if let Some(gap) = back {
                let detail = format!("it was published on again, after {} s", gap.as_secs());
                notices.tell(Notice { event: Event::Back, client: None, topic: Some(topic.into()), detail });
            }
        }
    }

    fn of_client(&self, client: &str, notices: &Notices, now: Instant) {
        let mut state = self.state();
        let Some((rhythm, speed)) = state.clients.get_mut(client) else {
            make_room(&mut state.clients, |(rhythm, _)| rhythm.last());
            let mut speed = Speed::new(now);
            speed.counted(u32::MAX, now);
            state.clients.insert(client.into(), (Rhythm::new(now), speed));
            return;
        };
        let back = rhythm.seen(self.settings.silent_after.unwrap_or(Duration::MAX), now);
        let jump = self.settings.rate_factor.and_then(|factor| speed.counted(factor, now));
        drop(state);
        let tell = |event, detail| {
            notices.tell(Notice { event, client: Some(client.into()), topic: None, detail });
        };
        if let Some(gap) = back {
            tell(Event::Back, format!("it publishes again, after {} s", gap.as_secs()));
        }
        if let Some((rate, average)) = jump {
            tell(Event::RateJump, format!("it publishes {rate:.1} messages a second, on average it was {average:.2}"));
        }
    }

    /// Tells who has fallen silent.
    fn look(&self, notices: &Notices, now: Instant) {
        let mut found = Vec::new();
        let mut state = self.state();
        if let Some(after) = self.settings.silent_after {
            let silent = state.clients.iter_mut().filter(|(_, (rhythm, _))| rhythm.last() + after <= now);
            for (client, (rhythm, _)) in silent {
                if rhythm.falls_silent(after, now) {
                    let detail = format!("it has published nothing for {} s", after.as_secs());
                    let client = Some(client.clone());
                    found.push(Notice { event: Event::Silent, client, topic: None, detail });
                }
            }
        }
        for (topic, (rhythm, after)) in &mut state.by_topic {
            if rhythm.falls_silent(*after, now) {
                let detail = format!("nothing was published on it for {} s", after.as_secs());
                let topic = Some(topic.clone());
                found.push(Notice { event: Event::Silent, client: None, topic, detail });
            }
        }
        drop(state);
        for notice in found {
            notices.tell(notice);
        }
    }

    /// Between two looks who is silent; `None`: nobody wants to know.
    fn looks_every(&self) -> Option<Duration> {
        let silences = self.topics.iter().map(|(_, after)| *after).chain(self.settings.silent_after);
        silences.min().map(|after| (after / 4).clamp(LOOKS.0, LOOKS.1))
    }

    /// Looks for ever, and writes down who is known.
    pub(super) async fn run(&self, notices: &Notices) {
        let writes = self.settings.unknown_clients.then_some(WRITE_EVERY);
        let Some(every) = [self.looks_every(), writes].into_iter().flatten().min() else {
            return std::future::pending().await;
        };
        let mut written = Instant::now();
        loop {
            tokio::time::sleep(every).await;
            let now = Instant::now();
            self.look(notices, now);
            if now.saturating_duration_since(written) >= WRITE_EVERY {
                written = now;
                self.write().await;
            }
        }
    }

    async fn write(&self) {
        let Some(text) = self.state().known.as_mut().and_then(Known::take_changed) else { return };
        let folder = self.folder.clone();
        let result = tokio::task::spawn_blocking(move || known::write(&folder, &text)).await;
        self.see_to(result.unwrap_or_else(|panic| Err(std::io::Error::other(panic))));
    }

    /// Writes what is left, at the end.
    pub(super) fn write_last(&self) {
        let text = self.state().known.as_mut().and_then(Known::take_changed);
        if let Some(text) = text {
            self.see_to(known::write(&self.folder, &text));
        }
    }

    fn see_to(&self, result: std::io::Result<()>) {
        if let Err(error) = result {
            tracing::warn!(%error, folder = %self.folder.display(), "broker: the known clients cannot be written");
            if let Some(known) = &mut self.state().known {
                known.not_written();
            }
        }
    }
}

/// Forgets the one that was quiet for the longest time, if there are as many as there may be.
fn make_room<T>(all: &mut HashMap<Box<str>, T>, last: impl Fn(&T) -> Instant) {
    if all.len() >= MAX_WATCHED
        && let Some(quiet) = all.iter().min_by_key(|(_, one)| last(one)).map(|(name, _)| name.clone())
    {
        all.remove(&quiet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Becomes;
    use crate::topic::mapping::Mapping;

    fn watch(folder: &Path, notices: &Notices, now: Instant) -> Watch {
        let settings =
            BrokerWatch { silent_after: Some(Duration::from_secs(60)), unknown_clients: true, rate_factor: Some(10) };
        let rule = Ingest {
            topics: vec!["esp/#".to_owned()],
            becomes: Becomes::Raw(Mapping::parse("lan/{topic}").unwrap()),
            rate: 2,
            max_bytes: 4,
            max_topics: 2,
            silent_after: Some(Duration::from_secs(10)),
        };
        Watch::open(&settings, &[rule], folder, notices, now)
    }

    async fn told(notices: &Notices, count: usize) -> Vec<(Event, Option<String>, Option<String>)> {
        let mut told = Vec::new();
        for _ in 0..count {
            let Notice { event, client, topic, .. } = notices.next().await;
            told.push((event, client.map(String::from), topic.map(String::from)));
        }
        notices.tell(Notice { event: Event::Restarted, client: None, topic: None, detail: "the end".to_owned() });
        assert_eq!(notices.next().await.detail, "the end", "nothing more");
        told.sort();
        told
    }

    #[tokio::test]
    async fn clients_and_topics_that_were_published_regularly_are_told_when_they_are_silent() {
        let folder = tempfile::tempdir().unwrap();
        let (notices, start) = (Notices::default(), Instant::now());
        let watch = watch(folder.path(), &notices, start);
        let at = |second: u64| start + Duration::from_secs(second);
        for second in 0..5 {
            watch.published("esp", "esp/1/state", &notices, at(second));
            watch.published("other", "other/topic", &notices, at(second));
        }
        watch.published("once", "esp/once", &notices, at(5));
        watch.look(&notices, at(13));
        assert!(told(&notices, 0).await.is_empty());
        watch.look(&notices, at(14));
        assert_eq!(told(&notices, 1).await, [(Event::Silent, None, Some("esp/1/state".to_owned()))]);
        watch.look(&notices, at(100));
        let client = |event, name: &str| (event, Some(name.to_owned()), None);
        assert_eq!(told(&notices, 2).await, [client(Event::Silent, "esp"), client(Event::Silent, "other")]);
        watch.published("esp", "esp/1/state", &notices, at(101));
        let back = (Event::Back, None, Some("esp/1/state".to_owned()));
        assert_eq!(told(&notices, 2).await, [back, client(Event::Back, "esp")]);
    }

    #[tokio::test]
    async fn who_was_never_here_before_is_told_once_the_others_are_known_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (notices, start) = (Notices::default(), Instant::now());
        let first = watch(folder.path(), &notices, start);
        let come = |watch: &Watch, client: &str, after: Duration| {
            watch.connected(client, Some("anna"), Some([192, 0, 2, 4].into()), &notices, start + after);
        };
        come(&first, "esp", Duration::ZERO);
        assert!(told(&notices, 0).await.is_empty(), "it learns");
        come(&first, "late", LEARNING);
        assert_eq!(told(&notices, 1).await, [(Event::UnknownClient, Some("late".to_owned()), None)]);
        first.write_last();
        let again = watch(folder.path(), &notices, start);
        for client in ["esp", "late", "eve", "eve"] {
            come(&again, client, Duration::ZERO);
        }
        let Notice { client, detail, .. } = notices.next().await;
        assert_eq!(client.as_deref(), Some("eve"));
        assert!(detail.contains("user \"anna\"") && detail.contains("192.0.2.4"), "{detail}");
        assert!(told(&notices, 0).await.is_empty());
    }

    #[test]
    fn what_is_watched_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let (notices, start) = (Notices::default(), Instant::now());
        let watch = watch(folder.path(), &notices, start);
        for number in 0..2 * MAX_WATCHED {
            let now = start + Duration::from_millis(number as u64);
            watch.published(&number.to_string(), &format!("esp/{number}"), &notices, now);
        }
        let state = watch.state();
        assert_eq!((state.clients.len(), state.by_topic.len()), (MAX_WATCHED, MAX_WATCHED));
        assert!(state.clients.contains_key("2047") && !state.clients.contains_key("0"));
    }
}
