//! What the broker has to tell whoever looks after the LAN, on its way to the agent, which publishes it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Notices that wait to be taken; beyond it the oldest goes, which the totals still tell.
const MAX_WAITING: usize = 64;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// The broker did not answer, or ended, and was started anew.
    Restarted,
    /// A file of the broker's was damaged, and put aside.
    PutAside,
    /// A client, or a topic, that was published regularly, is so no more.
    Silent,
    /// ...and is again.
    Back,
    /// A client identifier that was never seen before.
    UnknownClient,
    /// A client publishes many times as much as it used to.
    RateJump,
}

impl Event {
    /// As it is published.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restarted => "restarted",
            Self::PutAside => "put-aside",
            Self::Silent => "silent",
            Self::Back => "back",
            Self::UnknownClient => "unknown-client",
            Self::RateJump => "rate-jump",
        }
    }
}

/// Something that happened, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What.
    pub event: Event,
    /// The client, where it is about one.
    pub client: Option<Box<str>>,
    /// The topic, where it is about one.
    pub topic: Option<Box<str>>,
    /// One sentence for people.
    pub detail: String,
}

/// Those that nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct Notices {
    waiting: Mutex<VecDeque<Notice>>,
    news: Notify,
}

impl Notices {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Notice>> {
        // What it holds is whole after every step.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something has happened.
    pub(super) fn tell(&self, notice: Notice) {
        let mut waiting = self.lock();
        if waiting.len() >= MAX_WAITING {
            waiting.pop_front();
        }
        waiting.push_back(notice);
        drop(waiting);
        self.news.notify_one();
    }

    /// The next one, in the order in which they happened. One taker at a time.
    pub(super) async fn next(&self) -> Notice {
        loop {
            if let Some(notice) = self.lock().pop_front() {
                return notice;
            }
            self.news.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(number: usize) -> Notice {
        Notice { event: Event::Silent, client: None, topic: None, detail: number.to_string() }
    }

    #[tokio::test]
    async fn they_come_in_order_and_a_bounded_number_waits() {
        let notices = Notices::default();
        for number in 0..MAX_WAITING + 2 {
            notices.tell(notice(number));
        }
        for number in 2..MAX_WAITING + 2 {
            assert_eq!(notices.next().await, notice(number));
        }
        let (next, ()) = tokio::join!(notices.next(), async { notices.tell(notice(7)) });
        assert_eq!(next, notice(7));
    }
}
