//! A clock for tests.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{BootTime, Clock, Doubt, Look, Source, WallTime};

/// A clock that moves when told to.
#[derive(Debug)]
pub struct ManualClock(Mutex<Look>);

impl ManualClock {
    /// Starts at boot time 0 with an unset wall clock at 1970.
    #[must_use]
    pub fn new() -> Self {
        Self(Mutex::new(Look {
            boot: BootTime(0),
            wall: WallTime(0),
            within: Duration::ZERO,
            word: Err(Doubt::NotSynchronised),
        }))
    }

    /// Lets time pass on both clocks.
    pub fn advance(&self, by: Duration) {
        let mut now = self.lock();
        now.boot = now.boot.after(by);
        now.wall = WallTime::from_system(now.wall.to_system() + by);
    }

    /// The wall clock is synchronised from now on, and shows this.
    pub fn set_wall(&self, time: SystemTime) {
        let mut now = self.lock();
        now.wall = WallTime::from_system(time);
        now.word = Ok(Source::Synchronised);
    }

    /// The wall clock goes ahead, or back, by so many nanoseconds.
    pub fn step(&self, nanos: i64) {
        let mut now = self.lock();
        now.wall = WallTime(now.wall.0.saturating_add(nanos).max(0));
    }

    /// What the system says of the wall clock from now on.
    pub fn say(&self, word: Result<Source, Doubt>) {
        self.lock().word = word;
    }

    /// What the wall clock shows.
    #[must_use]
    pub fn wall(&self) -> SystemTime {
        self.lock().wall.to_system()
    }

    fn lock(&self) -> MutexGuard<'_, Look> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn boot(&self) -> BootTime {
        self.lock().boot
    }

    fn look(&self) -> Look {
        *self.lock()
    }

    fn earliest(&self) -> WallTime {
        WallTime::from_system(UNIX_EPOCH)
    }
}
