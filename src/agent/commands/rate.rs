//! How many commands a sensor takes.

use std::time::Duration;

use crate::clock::BootTime;

/// Commands a second that a sensor takes for long.
const PER_SECOND: u32 = 10;

/// Commands that it takes at once.
const BURST: u32 = 20;

/// Lets through so many a second, and some at once.
#[derive(Debug, Default)]
pub(super) struct Rate {
    /// When all that was let through would have come at an even rate.
    even: BootTime,
}

impl Rate {
    /// May one more pass now?
    pub(super) fn take(&mut self, now: BootTime) -> bool {
        let between = Duration::from_secs(1) / PER_SECOND;
        let even = self.even.max(now);
        let passes = even.since(now) <= between * (BURST - 1);
        if passes {
            self.even = even.after(between);
        }
        passes
    }
}

/// Why one does not.
pub(super) fn too_many() -> String {
    format!("too many commands: the sensor takes {PER_SECOND} a second, and {BURST} at once")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_an_even_rate() {
        let mut rate = Rate::default();
        let start = BootTime(0).after(Duration::from_secs(100));
        let passed = (0..100).filter(|_| rate.take(start)).count();
        assert_eq!(passed, 20);
        // A thousand a second for ten seconds.
        let passed = (1..=10_000).filter(|ms| rate.take(start.after(Duration::from_millis(*ms)))).count();
        assert_eq!(passed, 100);
        // After a rest there is room for a burst, and no more than that.
        let later = start.after(Duration::from_secs(1_000));
        assert_eq!((0..100).filter(|_| rate.take(later)).count(), 20);
    }
}
