//! What LAN clients publish and is to go up: each message is offered to the outbox before its publisher has the
//! acknowledgement.

use std::collections::HashSet;
use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::clients::Bucket;
use super::refusals::{Refusal, Refusals};
use crate::config::Ingest;
use crate::offer::{Answer, Offer};
use crate::topic::filter::matches;

/// How long an offer may wait for its answer. Then it counts as refused: the publisher sends it again.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The longest that a message is held back because too many come; then it counts as refused.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Bounds and knows what goes up.
#[derive(Debug)]
pub(super) struct Intake {
    rules: Vec<Ingest>,
    states: Mutex<Vec<State>>,
    offers: Option<mpsc::Sender<Offer>>,
    taken: AtomicU64,
}

#[derive(Debug)]
struct State {
    bucket: Bucket,
    topics: HashSet<Box<str>>,
}

/// A message of a client, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incoming<'a> {
    pub(super) topic: &'a str,
    pub(super) payload: &'a [u8],
    pub(super) retain: bool,
    /// Its publisher waits for an acknowledgement, and will send it again.
    pub(super) is_acknowledged: bool,
}

impl Intake {
    pub(super) fn new(rules: &[Ingest], offers: Option<mpsc::Sender<Offer>>, now: Instant) -> Self {
        let state = |rule: &Ingest| State { bucket: Bucket::new(rule.rate, now), topics: HashSet::new() };
        let states = Mutex::new(rules.iter().map(state).collect());
        Self { rules: rules.to_vec(), states, offers, taken: AtomicU64::new(0) }
    }

    /// How many messages the outbox has taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    fn states(&self) -> MutexGuard<'_, Vec<State>> {
        // What it holds is whole after every step.
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is it a topic of what goes up, here or above? Then nothing comes down on it.
    pub(super) fn goes_up(&self, topic: &str) -> bool {
        self.rules.iter().any(|rule| rule.covers(topic))
    }

    /// Sees to it that a message is in the outbox, if it is one that goes up. What never can be is counted and goes to
    /// the LAN alone.
    ///
    /// # Errors
    /// It is not, and its publisher must not think so.
    pub(super) async fn take(
        &self,
        message: Incoming<'_>,
        who: &(dyn Display + Sync),
        refusals: &Refusals,
    ) -> Result<(), (Refusal, String)> {
        let is_of = |rule: &Ingest| rule.topics.iter().any(|filter| matches(filter, message.topic));
        let Some((index, rule)) = self.rules.iter().enumerate().find(|(_, rule)| is_of(rule)) else { return Ok(()) };
        let Some(offers) = &self.offers else { return Ok(()) };
        if message.payload.len() > rule.max_bytes {
            let bytes = message.payload.len();
            refusals.note(Refusal::IngestSize, &format_args!("{who}: {bytes} bytes"));
            return Ok(());
        }
        let wait = {
            let state = &mut self.states()[index];
            if !state.topics.contains(message.topic) {
                if state.topics.len() >= rule.max_topics {
                    refusals.note(Refusal::IngestTopics, who);
                    return Ok(());
                }
                state.topics.insert(message.topic.into());
            }
            // Nobody sends it again: it is dropped, and those behind it need not wait.
            let limit = if message.is_acknowledged { LONGEST_WAIT } else { Duration::ZERO };
            state.bucket.take_within(limit, Instant::now())
        };
        let Some(wait) = wait else {
            if message.is_acknowledged {
                return Err((Refusal::IngestFull, format!("{who}: more than `rate` come")));
            }
            refusals.note(Refusal::IngestRate, who);
            return Ok(());
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let (answer, told) = oneshot::channel();
        let offer = Offer {
            rule: index,
            topic: message.topic.to_owned(),
            payload: message.payload.to_vec(),
            retain: message.retain,
            answer,
        };
        let told = async {
            offers.send(offer).await.ok()?;
            told.await.ok()
        };
        match tokio::time::timeout(ANSWER_WITHIN, told).await {
            Ok(Some(Answer::Taken)) => {
                self.taken.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Ok(Some(Answer::Unfit(why))) => {
                refusals.note(Refusal::IngestUnfit, &format_args!("{who}: {why}"));
                Ok(())
            }
            Ok(Some(Answer::Full)) => Err((Refusal::IngestFull, format!("{who}: the outbox is full"))),
            Ok(None) => Err((Refusal::IngestFull, format!("{who}: the gateway ends"))),
            Err(_) => {
                let seconds = ANSWER_WITHIN.as_secs();
                Err((Refusal::IngestFull, format!("{who}: the outbox has not taken it for {seconds} s")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Becomes;
    use crate::topic::mapping::Mapping;

    fn rule() -> Ingest {
        Ingest {
            topics: vec!["esp/#".to_owned()],
            becomes: Becomes::Raw(Mapping::parse("lan/{topic}").unwrap()),
            rate: 2,
            max_bytes: 4,
            max_topics: 2,
            silent_after: None,
        }
    }

    fn message<'a>(topic: &'a str, payload: &'a str, is_acknowledged: bool) -> Incoming<'a> {
        Incoming { topic, payload: payload.as_bytes(), retain: false, is_acknowledged }
    }

    /// Answers every offer; counts them.
    fn answering(mut offered: mpsc::Receiver<Offer>, answer: Answer) -> tokio::task::JoinHandle<usize> {
        tokio::spawn(async move {
            let mut count = 0;
            while let Some(offer) = offered.recv().await {
                count += 1;
                let _ = offer.answer.send(answer.clone());
            }
            count
        })
    }

    #[tokio::test]
    async fn what_never_goes_up_is_counted_with_its_reason_and_stays_on_the_lan() {
        let (offers, offered) = mpsc::channel(1);
        let taken = answering(offered, Answer::Taken);
        let intake = Intake::new(&[rule()], Some(offers), Instant::now());
        let refusals = Refusals::default();
        for (topic, payload) in [("other", "x"), ("esp/a", "large"), ("esp/a", "x"), ("esp/b", "x"), ("esp/c", "x")] {
            assert!(intake.take(message(topic, payload, true), &"who", &refusals).await.is_ok(), "{topic}");
        }
        // The bucket held four, of which two are left.
        for _ in 0..10 {
            assert!(intake.take(message("esp/a", "x", false), &"who", &refusals).await.is_ok());
        }
        let counted = intake.taken();
        drop(intake);
        let counts = [Refusal::IngestSize, Refusal::IngestTopics, Refusal::IngestRate].map(|why| refusals.count(why));
        let taken = taken.await.unwrap();
        assert_eq!((counts[0], counts[1]), (1, 1));
        assert_eq!(taken as u64, counted);
        assert_eq!(taken as u64 + counts[2], 12, "each is taken or counted");
        assert!((4..12).contains(&taken), "{taken}");
    }

    #[tokio::test]
    async fn what_the_outbox_does_not_take_is_not_acknowledged() {
        let refusals = Refusals::default();
        let (offers, offered) = mpsc::channel(1);
        let _full = answering(offered, Answer::Full);
        let intake = Intake::new(&[rule()], Some(offers), Instant::now());
        assert!(intake.take(message("esp/a", "x", true), &"who", &refusals).await.is_err());
        // Nobody is there.
        let (offers, offered) = mpsc::channel(1);
        let intake = Intake::new(&[rule()], Some(offers), Instant::now());
        drop(offered);
        assert!(intake.take(message("esp/a", "x", true), &"who", &refusals).await.is_err());
    }

    #[test]
    fn what_goes_up_has_one_direction_here_and_above() {
        let intake = Intake::new(&[rule()], None, Instant::now());
        for (topic, expected) in [("esp/a", true), ("lan/esp/a", true), ("lan/a", false), ("a", false)] {
            assert_eq!(intake.goes_up(topic), expected, "{topic}");
        }
    }
}
