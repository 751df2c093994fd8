//! What an auditor asks for, on its way to whoever publishes it.
//!
//! Each event with the target [`AUDIT`] is kept here, whatever the log's filter says, until the agent takes it. So what
//! goes to the journal and what is published can never differ.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;

use super::AUDIT;

/// Events that wait to be taken. Further ones are counted, and gone.
const MAX_WAITING: usize = 64;

/// Bytes of a text that are kept.
const MAX_TEXT: usize = 1_000;

/// The fields of an event: `event` says which kind it is, `message` is for people.
pub type Fields = Map<String, Value>;

/// Events on their way.
#[derive(Debug)]
pub struct Trail(Mutex<Waiting>);

#[derive(Debug)]
struct Waiting {
    events: VecDeque<Fields>,
    lost: u64,
    taker: Option<Waker>,
}

/// What the whole process leaves.
pub static TRAIL: Trail = Trail::new();

impl Trail {
    /// An empty one.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "one is made for the process")]
    pub const fn new() -> Self {
        Self(Mutex::new(Waiting { events: VecDeque::new(), lost: 0, taker: None }))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // What it holds is whole after every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, fields: Fields) {
        let waiting = &mut *self.lock();
        if waiting.events.len() < MAX_WAITING {
            waiting.events.push_back(fields);
        } else {
            waiting.lost += 1;
        }
        if let Some(taker) = waiting.taker.take() {
            taker.wake();
        }
    }

    /// The oldest event that waits, and how many were lost behind it; `None`: there is none.
    pub fn take(&self) -> Option<(Fields, u64)> {
        let waiting = &mut *self.lock();
        let event = waiting.events.pop_front()?;
        // What was lost came after everything that waits.
        let lost = if waiting.events.is_empty() { std::mem::take(&mut waiting.lost) } else { 0 };
        Some((event, lost))
    }

    /// Is ready when an event waits. One taker at a time.
    pub fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        let waiting = &mut *self.lock();
        if waiting.events.is_empty() {
            waiting.taker = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

/// Fills a trail.
pub struct AuditLayer(pub &'static Trail);

impl<S: Subscriber> Layer<S> for AuditLayer {
    fn on_event(&self, event: &Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        if event.metadata().target() == AUDIT {
            let mut visitor = Visitor(Map::new());
            event.record(&mut visitor);
            self.0.put(visitor.0);
        }
    }
}

struct Visitor(Fields);

impl Visitor {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        let name = if field.name() == "audit" { "event" } else { field.name() };
        self.0.insert(name.to_owned(), value.into());
    }

    fn put_text(&mut self, field: &Field, mut text: String) {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        self.put(field, text);
    }
}

impl Visit for Visitor {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put_text(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn of_this_test() -> &'static Trail {
        Box::leak(Box::new(Trail::new()))
    }

    fn json(trail: &Trail) -> Option<(String, u64)> {
        trail.take().map(|(fields, lost)| (Value::Object(fields).to_string(), lost))
    }

    #[test]
    fn audit_events_are_kept_with_their_fields_and_no_others_are() {
        let trail = of_this_test();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(AuditLayer(trail)), || {
            tracing::info!(audit = "no", "of another target");
            let (nobody, sensor) = (None::<&str>, Some("meteo"));
            tracing::info!(target: AUDIT, audit = "command", sensor, nobody, bytes = 7, took = %"3ms", "carried out");
            tracing::warn!(target: AUDIT, audit = "reload", "{}", "é".repeat(MAX_TEXT));
        });
        let expected =
            r#"{"bytes":7,"event":"command","message":"carried out","sensor":"meteo","took":"3ms"}"#.to_owned();
        assert_eq!(json(trail), Some((expected, 0)));
        let (fields, _) = trail.take().expect("the second one");
        assert_eq!(fields["message"].as_str().map(str::len), Some(MAX_TEXT));
        assert!(trail.take().is_none());
    }

    #[test]
    fn a_bounded_number_waits_and_what_is_lost_is_counted() {
        let trail = of_this_test();
        for number in 0..MAX_WAITING + 3 {
            trail.put(Map::from_iter([("number".to_owned(), number.into())]));
        }
        let taken: Vec<(Fields, u64)> = std::iter::from_fn(|| trail.take()).collect();
        assert_eq!(taken.len(), MAX_WAITING);
        assert_eq!(taken.iter().map(|(_, lost)| *lost).sum::<u64>(), 3);
        assert_eq!(taken[MAX_WAITING - 1], (Map::from_iter([("number".to_owned(), (MAX_WAITING - 1).into())]), 3));
    }

    #[test]
    fn whoever_waits_is_woken() {
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let (trail, count) = (of_this_test(), Arc::new(Count(AtomicUsize::new(0))));
        let waker = Waker::from(count.clone());
        assert!(trail.poll(&mut Context::from_waker(&waker)).is_pending());
        trail.put(Map::new());
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(trail.poll(&mut Context::from_waker(&waker)).is_ready());
    }
}
