//! The time that certificates are checked against.
//!
//! While the clock is not set, all that is known is that it is later than some moments: when the time was last known,
//! when this program was built. So a certificate that had expired by then is refused; one that is valid only from
//! later on is not, because it may well be later.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::clock::{WallTime, built};

/// The key of the stored form of the last known time in the outbox's state.
pub const STATE_KEY: &str = "clock/last";

/// What is known of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateTime {
    /// It is this.
    Exact(SystemTime),
    /// It is this or later.
    AtLeast(SystemTime),
}

impl CertificateTime {
    /// The time, or the earliest that it can be.
    #[must_use]
    pub fn earliest(self) -> SystemTime {
        match self {
            Self::Exact(time) | Self::AtLeast(time) => time,
        }
    }
}

/// What is known while the clock is not set: the latest of what it shows, the time last known, and the build's.
///
/// A clock that was not set shows 1970, or, with a service that saves the time at shutdown, a moment that has passed.
#[must_use]
pub fn at_least(shown: SystemTime, last: Option<WallTime>) -> CertificateTime {
    let last = last.map_or(UNIX_EPOCH, WallTime::to_system);
    CertificateTime::AtLeast(shown.max(last).max(built()))
}

/// The stored form: nanoseconds since 1970 (i64, little-endian).
#[must_use]
pub fn save(now: WallTime) -> Vec<u8> {
    now.0.to_le_bytes().to_vec()
}

/// Reads the stored form; `None` if it is damaged.
#[must_use]
pub fn restore(stored: &[u8]) -> Option<WallTime> {
    stored.try_into().ok().map(i64::from_le_bytes).map(WallTime)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_latest_of_what_is_known_counts() {
        let later = built() + Duration::from_secs(1_000);
        let wall = WallTime::from_system;
        assert_eq!(at_least(UNIX_EPOCH, None), CertificateTime::AtLeast(built()));
        assert_eq!(at_least(UNIX_EPOCH, Some(wall(later))), CertificateTime::AtLeast(later));
        assert_eq!(at_least(later, Some(wall(UNIX_EPOCH))), CertificateTime::AtLeast(later));
        assert!(built() > UNIX_EPOCH + Duration::from_secs(1_700_000_000), "the build knows its date");
    }

    #[test]
    fn the_stored_form_comes_back() {
        let time = WallTime(1_800_000_000_000_000_001);
        assert_eq!(restore(&save(time)), Some(time));
        assert_eq!(restore(&save(time)[1..]), None);
    }
}
