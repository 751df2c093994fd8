//! How regularly somebody publishes, and how much.

use std::time::{Duration, Instant};

/// Messages in a row, each within the time of silence of the one before, that make a publisher a regular one.
const REGULAR: u32 = 3;
/// Messages are counted in pieces of this length.
const WINDOW: Duration = Duration::from_secs(10);
/// The slow average is one over this time.
const AVERAGE: Duration = Duration::from_secs(3600);
/// Pieces that must have been counted before a rate can be unusual: five minutes.
const LEARNT: u32 = 30;
/// A rate below this one, in messages a second, is never unusual.
const LOWEST: f64 = 1.0;

/// Tells who has fallen silent.
#[derive(Debug)]
pub(super) struct Rhythm {
    last: Instant,
    seen: u32,
    silent: bool,
}

impl Rhythm {
    /// The first message.
    pub(super) fn new(now: Instant) -> Self {
        Self { last: now, seen: 1, silent: false }
    }

    /// A further message; `Some`: it had been silent, for so long.
    pub(super) fn seen(&mut self, after: Duration, now: Instant) -> Option<Duration> {
        let gap = now.saturating_duration_since(self.last);
        self.last = now;
        if std::mem::take(&mut self.silent) {
            return Some(gap);
        }
        self.seen = if gap < after { self.seen.saturating_add(1) } else { 1 };
        None
    }

    /// Has it fallen silent since this was last asked?
    pub(super) fn falls_silent(&mut self, after: Duration, now: Instant) -> bool {
        let falls = !self.silent && self.seen >= REGULAR && now.saturating_duration_since(self.last) >= after;
        self.silent |= falls;
        falls
    }

    /// When the last message came.
    pub(super) fn last(&self) -> Instant {
        self.last
    }
}

/// Tells a rate that is far above what it used to be.
#[derive(Debug)]
pub(super) struct Speed {
    since: Instant,
    count: u32,
    average: f64,
    windows: u32,
    high: bool,
}

impl Speed {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, count: 0, average: 0.0, windows: 0, high: false }
    }

    /// A message; `Some`: the piece before it was `factor` times the average, with its rate and the average, in messages a
    /// second. It is told once, until the rate is below half of that.
    pub(super) fn counted(&mut self, factor: u32, now: Instant) -> Option<(f64, f64)> {
        let mut told = None;
        let passed = now.saturating_duration_since(self.since);
        if passed >= WINDOW {
            let rate = f64::from(self.count) / passed.as_secs_f64();
            let limit = self.average * f64::from(factor);
            let jumps = self.windows >= LEARNT && rate >= LOWEST && rate > limit;
            if jumps && !self.high {
                told = Some((rate, self.average));
            }
            self.high = jumps || (self.high && rate > limit / 2.0);
            self.windows = self.windows.saturating_add(1);
            // A true average at first, then one that forgets slowly.
            let weight = (passed.as_secs_f64() / AVERAGE.as_secs_f64()).max(1.0 / f64::from(self.windows)).min(1.0);
            self.average += (rate - self.average) * weight;
            (self.since, self.count) = (now, 0);
        }
        self.count = self.count.saturating_add(1);
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(60);

    #[test]
    fn who_has_published_regularly_falls_silent_once_and_comes_back_once() {
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let mut rhythm = Rhythm::new(at(0));
        assert_eq!(rhythm.seen(AFTER, at(30)), None);
        assert!(!rhythm.falls_silent(AFTER, at(500)), "two messages are no rhythm");
        // The gap begins anew.
        for second in [500, 530, 560] {
            assert_eq!(rhythm.seen(AFTER, at(second)), None);
        }
        assert!(!rhythm.falls_silent(AFTER, at(619)));
        assert!(rhythm.falls_silent(AFTER, at(620)));
        assert!(!rhythm.falls_silent(AFTER, at(700)), "once");
        assert_eq!(rhythm.seen(AFTER, at(760)), Some(Duration::from_secs(200)));
        assert!(rhythm.falls_silent(AFTER, at(820)), "it is regular still");
    }

    /// Publishes so many times a second for so long; gives what was told.
    fn publish(speed: &mut Speed, now: &mut Instant, rate: u32, seconds: u32) -> Vec<(f64, f64)> {
        let mut told = Vec::new();
        for _ in 0..rate * seconds {
            *now += Duration::from_secs(1) / rate;
            told.extend(speed.counted(10, *now));
        }
        told
    }

    #[test]
    fn a_jump_is_told_once_and_again_when_it_was_over() {
        let mut now = Instant::now();
        let mut speed = Speed::new(now);
        assert!(publish(&mut speed, &mut now, 2, 1200).is_empty(), "as it always was");
        assert!(publish(&mut speed, &mut now, 10, 60).is_empty(), "five times as much");
        let told = publish(&mut speed, &mut now, 50, 60);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].0 > 20.0 && (1.5..4.0).contains(&told[0].1), "{told:?}");
        assert!(publish(&mut speed, &mut now, 2, 1200).is_empty());
        assert_eq!(publish(&mut speed, &mut now, 100, 60).len(), 1);
    }

    #[test]
    fn a_beginner_and_a_slow_one_are_never_told() {
        let mut now = Instant::now();
        let mut speed = Speed::new(now);
        assert!(publish(&mut speed, &mut now, 100, 20).is_empty(), "nobody knows what is usual");
        let mut slow = Speed::new(now);
        for _ in 0..100 {
            now += Duration::from_secs(600);
            assert_eq!(slow.counted(10, now), None);
        }
        for _ in 0..30 {
            now += Duration::from_secs(2);
            assert_eq!(slow.counted(10, now), None, "half a message a second");
        }
    }
}
