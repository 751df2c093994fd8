//! How much a program may print in a second. What is beyond waits in its pipe, and then the program waits.

use std::time::Duration;

use tokio::time::Instant;

/// Lines a second.
pub(super) const LINES: usize = 1000;

/// Bytes a second: a picture, or a thousand long lines.
pub(super) const BYTES: usize = 1024 * 1024;

const SECOND: Duration = Duration::from_secs(1);

/// What was printed since `since`.
#[derive(Debug)]
pub(super) struct Budget {
    since: Instant,
    not_before: Instant,
    lines: usize,
    bytes: usize,
    told: bool,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, not_before: now, lines: 0, bytes: 0, told: false }
    }

    /// Takes note of what was read; true when that is too much for the first time.
    pub(super) fn spend(&mut self, bytes: usize, lines: usize, now: Instant) -> bool {
        if now >= self.since + SECOND {
            *self = Self { told: self.told, ..Self::new(now) };
        }
        self.bytes += bytes;
        self.lines += lines;
        if self.bytes < BYTES && self.lines < LINES {
            return false;
        }
        self.not_before = self.since + SECOND;
        !std::mem::replace(&mut self.told, true)
    }

    /// When to read on.
    pub(super) fn not_before(&self) -> Instant {
        self.not_before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_its_own_and_too_much_is_told_once() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        assert!(!budget.spend(100, LINES - 1, start));
        assert!(budget.not_before() <= start);
        assert!(budget.spend(100, 1, start));
        assert_eq!(budget.not_before(), start + SECOND);
        let next = start + SECOND;
        assert!(!budget.spend(BYTES - 1, 1, next));
        assert!(budget.not_before() <= next);
        assert!(!budget.spend(1, 1, next), "told already");
        assert_eq!(budget.not_before(), next + SECOND);
    }
}
