//! `connect = "every …"`: when to connect, and for how long.

use std::time::Duration;

use crate::clock::BootTime;

/// Gateways that were switched on together do not call together: each waits up to this part of the interval longer.
const JITTER: u32 = 10;

/// ... but no longer than this.
const JITTER_MOST: Duration = Duration::from_secs(60);

/// Until when a connection that was begun at `woken` may last: half of the interval. What is not sent by then waits
/// for the next.
#[must_use]
pub fn awake_until(woken: BootTime, every: Duration) -> BootTime {
    woken.after(every / 2)
}

/// The next time to connect: the next multiple of the interval since boot, and a little that `random` chooses.
#[must_use]
pub fn next(now: BootTime, every: Duration, random: u64) -> BootTime {
    let nanos = u64::try_from(every.as_nanos()).unwrap_or(u64::MAX).max(1);
    let multiple = (now.0 / nanos).saturating_add(1).saturating_mul(nanos);
    let spread = u64::try_from((every / JITTER).min(JITTER_MOST).as_nanos()).unwrap_or(0);
    BootTime(multiple).after(Duration::from_nanos(random % (spread + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(900);

    #[test]
    fn each_multiple_is_met_once() {
        let at = |seconds| BootTime(0).after(Duration::from_secs(seconds));
        assert_eq!(next(at(0), EVERY, 0), at(900));
        assert_eq!(next(at(899), EVERY, 0), at(900));
        assert_eq!(next(at(900), EVERY, 0), at(1_800));
        for random in (0..u64::MAX).step_by(usize::MAX / 1_000) {
            let woken = next(at(1_000), EVERY, random);
            assert!((at(1_800)..=at(1_860)).contains(&woken));
            // Even one that lasts as long as it may ends before the next.
            assert!(awake_until(woken, EVERY) < next(woken, EVERY, 0));
        }
    }

    #[test]
    fn no_interval_and_no_time_overflow() {
        for every in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            for now in [0, 1, u64::MAX] {
                assert!(next(BootTime(now), every, u64::MAX) >= BootTime(now));
            }
        }
    }
}
