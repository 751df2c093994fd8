//! The wall time of what was measured while the clock was not set.
//!
//! A boot's offset (wall clock minus boot clock) is noted once, as soon as the clock is set during that boot. From
//! then on everything measured in that boot has a date, also what is sent by a later run.

use crate::clock::{BootId, BootTime, Clock, WallTime};
use crate::outbox::{Entry, Moment, Outbox};

/// The offsets of so many boots are kept; of the oldest ones none.
pub const BOOTS: usize = 16;

/// The key of the stored form in the outbox's state.
pub const STATE_KEY: &str = "clock/offsets";

/// Bytes of one boot in the stored form: boot id, offset in nanoseconds (i64, little-endian).
const STORED: usize = 16 + 8;

/// When something was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Date {
    /// At this time.
    Wall(WallTime),
    /// Nobody knows; so long after the start of that boot.
    Uptime(BootId, BootTime),
}

/// The offsets known so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dating {
    /// The newest boot last.
    offsets: Vec<(BootId, i64)>,
}

impl Dating {
    /// What an outbox knows.
    #[must_use]
    pub fn of(outbox: &Outbox) -> Self {
        outbox.state(STATE_KEY).map(Self::restore).unwrap_or_default()
    }

    /// Reads the stored form; what is damaged gives no dates rather than wrong ones.
    #[must_use]
    pub fn restore(stored: &[u8]) -> Self {
        if !stored.len().is_multiple_of(STORED) || stored.len() > BOOTS * STORED {
            return Self::default();
        }
        let offsets = stored.chunks_exact(STORED).map(|boot| {
            let (id, offset) = boot.split_at(16);
            (
                BootId(id.try_into().expect("16 of 24 bytes")),
                i64::from_le_bytes(offset.try_into().expect("8 of 24 bytes")),
            )
        });
        Self { offsets: offsets.collect() }
    }

    /// The stored form.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        self.offsets.iter().flat_map(|(id, offset)| id.0.into_iter().chain(offset.to_le_bytes())).collect()
    }

    /// Is the offset of this boot known?
    #[must_use]
    pub fn knows(&self, boot: BootId) -> bool {
        self.offsets.iter().any(|(id, _)| *id == boot)
    }

    /// Notes the offset of the current boot if the clock is set. Says whether there is something new to save.
    pub fn note(&mut self, boot: BootId, clock: &dyn Clock) -> bool {
        if self.knows(boot) {
            return false;
        }
        let Some(WallTime(wall)) = clock.wall_if_set() else { return false };
        let Ok(since_boot) = i64::try_from(clock.boot().0) else { return false };
        if self.offsets.len() == BOOTS {
            self.offsets.remove(0);
        }
        self.offsets.push((boot, wall.saturating_sub(since_boot)));
        true
    }

    /// The date of a record: the one that it was taken with, else one from its boot's offset.
    #[must_use]
    pub fn date(&self, entry: &Entry) -> Date {
        self.date_of(&entry.moment())
    }

    /// The same of the moment at which something was measured.
    #[must_use]
    pub fn date_of(&self, moment: &Moment) -> Date {
        let Moment { boot, at, time } = *moment;
        if let Some(time) = time {
            return Date::Wall(time);
        }
        let offset = self.offsets.iter().find(|(id, _)| *id == boot);
        match offset.and_then(|(_, offset)| offset.checked_add(i64::try_from(at.0).ok()?)) {
            Some(nanos) => Date::Wall(WallTime(nanos)),
            None => Date::Uptime(boot, at),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::clock::ManualClock;
    use crate::outbox::{Body, Raw};

    fn entry(boot: BootId, at: u64, time: Option<WallTime>) -> Entry {
        let body = Body::Raw(Raw { topic: "t".into(), payload: Box::default(), retain: false });
        Entry { seq: 1, run: 1, boot, at: BootTime(at), time, body }
    }

    #[test]
    fn what_was_measured_before_the_clock_was_set_gets_its_true_time() {
        let (boot, other) = (BootId([1; 16]), BootId([2; 16]));
        let clock = ManualClock::new();
        let mut dating = Dating::default();
        clock.advance(Duration::from_secs(100));
        assert!(!dating.note(boot, &clock));
        assert_eq!(dating.date(&entry(boot, 7, None)), Date::Uptime(boot, BootTime(7)));

        clock.set_wall(UNIX_EPOCH + Duration::from_secs(1_000_000));
        assert!(dating.note(boot, &clock));
        let measured = entry(boot, 40_000_000_000, None);
        assert_eq!(dating.date(&measured), Date::Wall(WallTime(999_940_000_000_000)));
        assert_eq!(dating.date(&entry(boot, 7, Some(WallTime(9)))), Date::Wall(WallTime(9)));
        assert_eq!(dating.date(&entry(other, 7, None)), Date::Uptime(other, BootTime(7)));

        // A step of the clock later on does not move what is already dated.
        clock.set_wall(UNIX_EPOCH + Duration::from_secs(2_000_000));
        assert!(!dating.note(boot, &clock));
        assert_eq!(dating.date(&measured), Date::Wall(WallTime(999_940_000_000_000)));
    }

    #[test]
    fn only_the_newest_boots_are_kept_and_survive() {
        let clock = ManualClock::new();
        clock.set_wall(UNIX_EPOCH + Duration::from_secs(1));
        let mut dating = Dating::default();
        for boot in 0..20 {
            assert!(dating.note(BootId([boot; 16]), &clock));
        }
        assert!(!dating.knows(BootId([3; 16])) && dating.knows(BootId([4; 16])));
        assert_eq!(Dating::restore(&dating.save()), dating);
        assert_eq!(Dating::restore(&dating.save()[1..]), Dating::default());
    }
}
