//! How long to wait before the next attempt to connect.

use std::time::Duration;

/// The shortest wait.
pub const FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
pub const CEILING: Duration = Duration::from_secs(60);
/// A connection that lasted so long makes the next wait short again. One that the broker accepts and drops at once
/// does not.
pub const STABLE: Duration = Duration::from_secs(60);

/// Exponential back-off with full jitter: after a broker's restart its gateways come back spread out in time.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait before the next attempt: anything from [`FIRST`] to twice as much after each failure, at most
    /// [`CEILING`], chosen by `random`.
    pub fn failed(&mut self, random: u64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let widest = FIRST.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(CEILING);
        let spread = u64::try_from((widest - FIRST).as_nanos()).expect("at most a minute");
        FIRST + Duration::from_nanos(random % (spread + 1))
    }

    /// A connection ended after it had been up for so long.
    pub fn was_up(&mut self, duration: Duration) {
        if duration >= STABLE {
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod fleet;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_ceiling_and_start_over_after_a_stable_minute() {
        let mut backoff = Backoff::default();
        let widest: Vec<u64> = (0..8)
            .map(|_| {
                let spread = backoff.failures + 1;
                let full = FIRST * 2_u32.pow(spread);
                let most = u64::try_from(full.min(CEILING).as_nanos()).expect("small") - 1_000_000_000;
                backoff.failed(most).as_secs()
            })
            .collect();
        assert_eq!(widest, [2, 4, 8, 16, 32, 60, 60, 60]);
        backoff.was_up(Duration::from_secs(59));
        assert!(backoff.failed(u64::MAX) > Duration::from_secs(2));
        backoff.was_up(STABLE);
        assert!(backoff.failed(u64::MAX) <= Duration::from_secs(2));
    }

    #[test]
    fn no_wait_is_shorter_than_the_first_or_longer_than_the_ceiling() {
        let mut backoff = Backoff::default();
        for random in (0..u64::MAX).step_by(usize::try_from(u64::MAX / 1_000).expect("64 bits")) {
            assert!((FIRST..=CEILING).contains(&backoff.failed(random)));
        }
    }
}
