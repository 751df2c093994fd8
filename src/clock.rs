//! The boot clock, the wall clock, and whether the wall clock is to be believed.
//!
//! A Raspberry Pi has no battery-backed clock: after a boot without network its wall clock is wrong until somebody
//! sets it. So a reading is captured on the boot clock, which always runs evenly, and gets a wall time only from a
//! clock that is set.

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Nanoseconds on CLOCK_BOOTTIME: since boot, time asleep included; never steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BootTime(pub u64);

impl BootTime {
    /// The time `duration` later, or the end of time.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Nanoseconds since 1970-01-01T00:00:00Z on a wall clock that was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WallTime(pub i64);

impl WallTime {
    /// From the system's clock; times outside of the years 1970 to 2262 are held to those bounds.
    #[must_use]
    pub fn from_system(time: SystemTime) -> Self {
        let nanos = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        Self(i64::try_from(nanos).unwrap_or(i64::MAX))
    }

    /// As the standard library's type.
    #[must_use]
    pub fn to_system(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(u64::try_from(self.0).unwrap_or_default())
    }
}

/// The kernel's random identity of this boot (`/proc/sys/kernel/random/boot_id`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BootId(pub [u8; 16]);

impl BootId {
    /// Reads the kernel's; `None` where it cannot be read (no /proc).
    #[must_use]
    pub fn current() -> Option<Self> {
        Self::parse(std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim())
    }

    fn parse(text: &str) -> Option<Self> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
        let mut id = [0; 16];
        if digits.len() != 32 {
            return None;
        }
        for (byte, pair) in id.iter_mut().zip(digits.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(id))
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BootId({self})")
    }
}

/// Where the time comes from; tests use [`ManualClock`].
pub trait Clock: Send + Sync {
    /// Now, on the boot clock.
    fn boot(&self) -> BootTime;
    /// Now, on the wall clock, right or wrong.
    fn wall(&self) -> SystemTime;
    /// Is the wall clock to be believed?
    fn is_set(&self) -> bool;

    /// Now on the wall clock, if that is to be believed.
    fn wall_if_set(&self) -> Option<WallTime> {
        self.is_set().then(|| WallTime::from_system(self.wall()))
    }
}

/// How far the system's wall clock is trusted (`[clock] trust`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// When the kernel says that it is synchronised, or took its time from a hardware clock at boot.
    #[default]
    Kernel,
    /// Always: containers, virtual machines, the demo.
    Always,
}

/// The machine's own clocks.
#[derive(Debug)]
pub struct SystemClock {
    trust: Trust,
    /// The kernel took its time from a real-time clock at boot; cannot change later.
    from_rtc: bool,
}

impl SystemClock {
    /// The machine's clocks with the given trust.
    #[must_use]
    pub fn new(trust: Trust) -> Self {
        Self { trust, from_rtc: kernel_took_time_from_rtc() }
    }
}

/// `hctosys` is 1 for the clock from which the kernel set its time at boot
/// (Documentation/ABI/testing/sysfs-class-rtc).
fn kernel_took_time_from_rtc() -> bool {
    let Ok(clocks) = std::fs::read_dir("/sys/class/rtc") else { return false };
    clocks
        .flatten()
        .any(|clock| std::fs::read_to_string(clock.path().join("hctosys")).is_ok_and(|text| text.trim() == "1"))
}

impl Clock for SystemClock {
    fn boot(&self) -> BootTime {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        let nanos = u64::try_from(time.tv_nsec).unwrap_or_default();
        BootTime(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn is_set(&self) -> bool {
        self.trust == Trust::Always || self.from_rtc || crate::hardware::adjtimex::synchronised()
    }
}

/// A clock that moves when told to.
#[derive(Debug)]
pub struct ManualClock(Mutex<(BootTime, SystemTime, bool)>);

impl ManualClock {
    /// Starts at boot time 0 with an unset wall clock at 1970.
    #[must_use]
    pub fn new() -> Self {
        Self(Mutex::new((BootTime(0), UNIX_EPOCH, false)))
    }

    /// Lets time pass on both clocks.
    pub fn advance(&self, by: Duration) {
        let mut now = self.lock();
        now.0 = now.0.after(by);
        now.1 += by;
    }

    /// Somebody sets the wall clock.
    pub fn set_wall(&self, time: SystemTime) {
        let mut now = self.lock();
        now.1 = time;
        now.2 = true;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (BootTime, SystemTime, bool)> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn boot(&self) -> BootTime {
        self.lock().0
    }

    fn wall(&self) -> SystemTime {
        self.lock().1
    }

    fn is_set(&self) -> bool {
        self.lock().2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_id_is_read_as_the_kernel_writes_it() {
        let id = BootId::parse("6fa2b5c0-77b3-4f0f-9a54-0123456789ab").expect("a boot id");
        assert_eq!(id.to_string(), "6fa2b5c077b34f0f9a540123456789ab");
        assert!(BootId::parse("6fa2b5c0").is_none());
        assert!(BootId::parse("zfa2b5c0-77b3-4f0f-9a54-0123456789ab").is_none());
    }

    #[test]
    fn the_boot_clock_moves_forward() {
        let clock = SystemClock::new(Trust::Kernel);
        let first = clock.boot();
        assert!(clock.boot() >= first);
        assert!(first > BootTime(0));
    }

    #[test]
    fn an_unset_clock_gives_no_wall_time() {
        let clock = ManualClock::new();
        assert_eq!(clock.wall_if_set(), None);
        clock.set_wall(UNIX_EPOCH + Duration::from_secs(5));
        clock.advance(Duration::from_secs(1));
        assert_eq!(clock.wall_if_set(), Some(WallTime(6_000_000_000)));
        assert_eq!(clock.boot(), BootTime(1_000_000_000));
    }
}
