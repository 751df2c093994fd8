//! Bouncing contacts on an expander, which has no filter of its own: a level counts when it has held long enough.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::BootTime;

/// The filter of one line.
#[derive(Debug)]
pub(super) struct Debounce {
    period: Duration,
    /// The level that was last reported.
    reported: bool,
    /// Another level, when it began, and until when it must hold.
    waiting: Option<(BootTime, bool, Instant)>,
}

impl Debounce {
    pub(super) fn new(period: Duration, active: bool) -> Self {
        Self { period, reported: active, waiting: None }
    }

    /// Does every change count at once?
    pub(super) fn is_off(&self) -> bool {
        self.period.is_zero()
    }

    /// The level that counts.
    pub(super) fn level(&self) -> bool {
        self.reported
    }

    /// When what waits will have held long enough.
    pub(super) fn settles_at(&self) -> Option<Instant> {
        self.waiting.map(|(_, _, until)| until)
    }

    /// A change; gives the one that counts by now.
    pub(super) fn change(&mut self, at: BootTime, active: bool, now: Instant) -> Option<(BootTime, bool)> {
        if self.is_off() {
            self.reported = active;
            return Some((at, active));
        }
        let settled = self.settle(now);
        self.waiting = (active != self.reported).then(|| (at, active, now + self.period));
        settled
    }

    /// The change that has held long enough by now, with the time at which it began.
    pub(super) fn settle(&mut self, now: Instant) -> Option<(BootTime, bool)> {
        let (at, active, _) = self.waiting.take_if(|(_, _, until)| *until <= now)?;
        self.reported = active;
        Some((at, active))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contact_that_bounces_gives_one_change_with_the_time_of_the_last_bounce() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let mut filter = Debounce::new(Duration::from_millis(20), false);
        for (at, active) in [(0, true), (3, false), (5, true), (6, false), (7, true)] {
            assert_eq!(filter.change(BootTime(at), active, ms(at)), None);
        }
        assert_eq!(filter.settles_at(), Some(ms(27)));
        assert_eq!(filter.settle(ms(26)), None);
        assert_eq!((filter.settle(ms(27)), filter.level()), (Some((BootTime(7), true)), true));
        assert_eq!(filter.change(BootTime(50), false, ms(50)), None);
        assert_eq!(filter.change(BootTime(80), true, ms(80)), Some((BootTime(50), false)), "it held for long enough");
        assert_eq!(filter.settle(ms(100)), Some((BootTime(80), true)));
        assert_eq!(filter.settles_at(), None);
    }

    #[test]
    fn without_a_period_everything_counts_at_once() {
        let mut filter = Debounce::new(Duration::ZERO, false);
        assert_eq!(filter.change(BootTime(1), true, Instant::now()), Some((BootTime(1), true)));
    }
}
