//! How much of the backlog may be under way, so that a live reading never waits long behind it.
//!
//! Whatever is written and not yet acknowledged stands before the next live reading, in the kernel's buffers, in
//! those of modems and routers, or at the broker. The window of the backlog therefore follows the delay of its own
//! acknowledgements: it doubles with each round trip at first, and is halved when one takes longer than it does for a
//! single message, by more than [`QUEUE`] and more than the link varies by itself. After that it grows slowly. On a
//! fast link that is the whole window; on one of a kilobyte a second it is a single message. Time is an argument; one
//! message at a time is measured.

use std::time::Duration;

use crate::clock::BootTime;

/// So much longer than that of a single message a round trip may take before it counts as queueing.
pub const QUEUE: Duration = Duration::from_millis(25);

/// The most that is allowed for where round trips vary by themselves, as with a radio that sends lost packets again.
const MOST_QUEUE: Duration = Duration::from_secs(1);

/// Where a single message more took longer than [`QUEUE`], it is tried again only after so many round trips.
const PATIENCE: u32 = 32;

/// The window at the start of a connection, before anything is known of the link.
const FIRST: usize = 1;

/// A `backlog_rate` is kept to over this time: what was not used of it before is gone.
const BURST: Duration = Duration::from_secs(1);

/// The backlog's share of one connection.
#[derive(Debug)]
pub struct Pace {
    window: usize,
    /// Round trips of messages that were alone under way.
    alone: Option<Alone>,
    /// The packet id that is measured, and when it was sent.
    probe: Option<(u16, BootTime)>,
    /// It was once halved: from then on it grows slowly.
    settled: bool,
    /// Round trips before a growth that may be too much.
    patience: u32,
    /// Time between two messages at `backlog_rate`; zero: no limit.
    interval: Duration,
    /// When the next message may go by that rate.
    next: BootTime,
}

/// The mean round trip and its mean deviation, smoothed as TCP does it (RFC 6298, 2.3).
#[derive(Clone, Copy, Debug)]
struct Alone {
    mean: Duration,
    deviation: Duration,
}

impl Alone {
    fn with(self, took: Duration) -> Self {
        let deviation = (self.deviation * 3 + self.mean.abs_diff(took)) / 4;
        Self { mean: (self.mean * 7 + took) / 8, deviation }
    }

    /// A round trip longer than this is one that had to queue.
    fn most(self) -> Duration {
        self.mean + (self.deviation * 4).clamp(QUEUE, MOST_QUEUE)
    }
}

impl Pace {
    /// `rate`: messages a second, above zero.
    #[must_use]
    pub fn new(rate: Option<f64>) -> Self {
        let interval = rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(1.0 / rate));
        Self { window: FIRST, alone: None, probe: None, settled: false, patience: 0, interval, next: BootTime(0) }
    }

    /// A new connection, of which nothing is known.
    pub fn connected(&mut self, now: BootTime) {
        let Self { interval, next, .. } = *self;
        *self = Self { interval, next: next.max(now), ..Self::new(None) };
    }

    /// How many messages of the backlog may be in flight.
    #[must_use]
    pub fn window(&self) -> usize {
        self.window
    }

    /// When the next message may be sent at the earliest, if that is not now.
    #[must_use]
    pub fn wait(&self, now: BootTime) -> Option<BootTime> {
        (!self.interval.is_zero() && self.next > now).then_some(self.next)
    }

    /// A message was sent.
    pub fn sent(&mut self, id: u16, now: BootTime) {
        self.probe = self.probe.or(Some((id, now)));
        if !self.interval.is_zero() {
            let earliest = BootTime(now.0.saturating_sub(u64::try_from(BURST.as_nanos()).unwrap_or(u64::MAX)));
            self.next = self.next.max(earliest).after(self.interval);
        }
    }

    /// A message was acknowledged, whichever it was. `limit`: the window needs to be no larger.
    pub fn acknowledged(&mut self, id: u16, limit: usize, now: BootTime) {
        let Some((_, sent)) = self.probe.take_if(|(probe, _)| *probe == id) else { return };
        let took = now.since(sent);
        let unknown = Alone { mean: took, deviation: Duration::ZERO };
        let alone = match self.alone {
            Some(alone) if self.window == FIRST => alone.with(took),
            known => known.unwrap_or(unknown),
        };
        self.alone = Some(alone);
        let grown = if took > alone.most() {
            let others = u32::try_from(self.window - FIRST).unwrap_or(u32::MAX).max(1);
            let dear = took.saturating_sub(alone.mean) / others > QUEUE;
            (self.settled, self.patience) = (true, if dear { PATIENCE } else { 0 });
            self.window / 2
        } else if !self.settled {
            self.window * 2
        } else if self.patience > 0 {
            self.patience -= 1;
            self.window
        } else {
            // The first message after a growth has the old queue before it: the next one tells.
            self.patience = 1;
            self.window + 1 + self.window / 8
        };
        self.window = grown.clamp(FIRST, limit.max(FIRST));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// A link that takes `serial` for each message and `latency` for the way there and back. Gives how many messages
    /// were in flight in the second half, on average and at the most.
    fn drain(serial: Duration, latency: Duration, messages: u32, limit: usize) -> (f64, usize) {
        let mut pace = Pace::new(None);
        let (mut now, mut link_free) = (BootTime(0), BootTime(0));
        let (mut most, mut sum) = (0, 0_u32);
        let mut under_way: VecDeque<(u16, BootTime)> = VecDeque::new();
        for message in 0..messages {
            while under_way.len() >= pace.window().min(limit) {
                let (id, arrives) = under_way.pop_front().expect("the window is at least one");
                now = now.max(arrives);
                pace.acknowledged(id, limit, now);
            }
            link_free = link_free.max(now).after(serial);
            let id = u16::try_from(message % 60_000).expect("below 65536");
            under_way.push_back((id, link_free.after(latency)));
            pace.sent(id, now);
            if message > messages / 2 {
                most = most.max(under_way.len());
                sum += u32::try_from(under_way.len()).expect("at most 1000");
            }
        }
        (f64::from(sum) / f64::from(messages / 2), most)
    }

    #[test]
    fn a_fast_link_gets_the_whole_window() {
        assert_eq!(drain(Duration::from_micros(20), ms(1), 20_000, 100).1, 100);
        assert_eq!(drain(Duration::from_micros(20), ms(600), 20_000, 1_000).1, 1_000, "by satellite");
    }

    #[test]
    fn on_a_slow_link_one_message_is_under_way() {
        let (average, most) = drain(ms(200), ms(50), 500, 100);
        assert!(average < 1.2 && most <= 2, "{average} {most}");
    }

    #[test]
    fn in_between_the_queue_stays_short() {
        // 5 ms a message: 25 ms of queue are five messages, and a round trip of 20 ms holds four more.
        let (average, most) = drain(ms(5), ms(20), 5_000, 100);
        assert!(average > 4.0 && most <= 16, "{average} {most}");
    }

    /// A lossy radio: every tenth packet is sent again after 300 ms, and what is behind it waits for it.
    #[test]
    fn a_link_that_varies_by_itself_is_still_used() {
        let mut pace = Pace::new(None);
        let (mut now, mut in_order) = (BootTime(0), BootTime(0));
        let mut under_way: VecDeque<(u16, BootTime)> = VecDeque::new();
        for message in 0..2_000_u16 {
            while under_way.len() >= pace.window().min(100) {
                let (id, arrives) = under_way.pop_front().expect("the window is at least one");
                now = now.max(arrives);
                pace.acknowledged(id, 100, now);
            }
            let lost = u32::from(message).wrapping_mul(2_654_435_761) >> 16 & 0xffff;
            let trip = if lost < 6_554 { 340 } else { 40 };
            in_order = in_order.max(now.after(ms(trip)));
            under_way.push_back((message, in_order));
            pace.sent(message, now);
        }
        // One at a time, it takes 70 ms a message: 140 s.
        assert!(now < BootTime(0).after(ms(35_000)), "{now:?}");
    }

    #[test]
    fn a_rate_is_kept_to() {
        let mut pace = Pace::new(Some(10.0));
        pace.connected(BootTime(0).after(ms(60_000)));
        let (mut now, mut sent) = (BootTime(0).after(ms(60_000)), 0);
        let end = now.after(ms(10_000));
        while now < end {
            match pace.wait(now) {
                Some(at) => now = at,
                None => {
                    pace.sent(1, now);
                    sent += 1;
                }
            }
        }
        assert!((100..=111).contains(&sent), "{sent}");
        assert_eq!(Pace::new(None).wait(now), None);
    }

    #[test]
    fn a_new_connection_starts_over() {
        let mut pace = Pace::new(None);
        pace.sent(1, BootTime(0));
        pace.acknowledged(1, 100, BootTime(0).after(ms(1)));
        assert_eq!(pace.window(), 2);
        pace.connected(BootTime(0).after(ms(5)));
        assert_eq!(pace.window(), 1);
        pace.sent(2, BootTime(0).after(ms(6)));
        pace.acknowledged(1, 100, BootTime(0).after(ms(7)));
        assert_eq!(pace.window(), 1, "an acknowledgement of another message says nothing");
    }
}
