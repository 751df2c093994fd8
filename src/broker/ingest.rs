//! What LAN clients publish and is to go up: each message is offered to the outbox before its publisher has the
//! acknowledgement.

use std::collections::HashSet;
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
        Self { rules: rules.to_vec(), states: Mutex::new(rules.iter().map(state).collect()), offers }
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
        who: &str,
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
                    refusals.note(Refusal::IngestTopics, &who);
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
            refusals.note(Refusal::IngestRate, &who);
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
            Ok(Some(Answer::Taken)) => Ok(()),
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
