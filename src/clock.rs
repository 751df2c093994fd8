//! The boot clock, the wall clock, and whether the wall clock is to be believed.
//!
//! A Raspberry Pi has no battery-backed clock: after a boot without network its wall clock is wrong until somebody
//! sets it. So a reading is captured on the boot clock, which always runs evenly, and gets a wall time only from a
//! clock that is set.
//!
//! Both clocks have the same rate: what NTP corrects by running faster or slower (`adjtimex`, leap smears) it corrects in
//! both, and time asleep is added to both. Their difference, the [`Offset`], changes only when somebody sets the wall
//! clock: a *step*, as is a leap second that the kernel inserts. (The kernel's `timekeeping.c` keeps the two offsets from
//! the monotonic clock, `offs_real` and `offs_boot`, and only `timekeeping_inject_offset`, `do_settimeofday64` and leap
//! seconds move them apart.)

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

mod manual;
mod system;

pub use manual::ManualClock;
pub use system::SystemClock;

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

/// The wall clock minus the boot clock, in nanoseconds: what dates all that is measured on the boot clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Offset(pub i64);

impl Offset {
    /// That of two clocks that were looked at in the same moment.
    #[must_use]
    pub fn between(boot: BootTime, WallTime(wall): WallTime) -> Self {
        Self(wall.saturating_sub(i64::try_from(boot.0).unwrap_or(i64::MAX)))
    }

    /// What the wall clock shows at that time.
    #[must_use]
    pub fn wall(self, at: BootTime) -> WallTime {
        WallTime(self.0.saturating_add(i64::try_from(at.0).unwrap_or(i64::MAX)))
    }

    /// How much later this one makes things than `before` does, in nanoseconds.
    #[must_use]
    pub fn minus(self, before: Self) -> i64 {
        self.0.saturating_sub(before.0)
    }
}

/// On whose word a wall clock is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The kernel's: its clock follows a source of time (NTP, PTP).
    Synchronised,
    /// The configuration's: `[clock] trust = "always"`.
    Trusted,
    /// Somebody's, with `vigie clock set`.
    ByHand,
    /// A GPS receiver's.
    Gps,
    /// That of a hardware clock with a battery, from which the system's clock was set at boot.
    Rtc,
}

impl Source {
    /// As published.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Synchronised => "synchronised",
            Self::Trusted => "trusted",
            Self::ByHand => "by-hand",
            Self::Gps => "gps",
            Self::Rtc => "rtc",
        }
    }

    /// The word of a higher rank counts where there are two.
    #[must_use]
    pub fn rank(self) -> u8 {
        match self {
            Self::Synchronised | Self::Trusted => 3,
            Self::ByHand => 2,
            Self::Gps => 1,
            Self::Rtc => 0,
        }
    }
}

/// Why a wall clock is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// Perhaps somebody has set it, but nobody that counts.
    #[error("neither NTP nor a hardware clock vouches for it")]
    NotSynchronised,
    /// The kernel may not be asked.
    #[error(
        "the kernel may not be asked whether it is set (adjtimex: {}): allow the system call `adjtimex` in the service's \
         sandbox (systemd: no ProtectClock=yes, and SystemCallFilter=adjtimex), or say trust = \"always\" in [clock]",
        std::io::Error::from_raw_os_error(*.0)
    )]
    Refused(i32),
    /// It is said to be set, but shows a time before this program was built.
    #[error(
        "it shows {}, which is before this program was built: is the battery of the hardware clock empty?",
        humantime::format_rfc3339_seconds(.0.to_system())
    )]
    BeforeBuild(WallTime),
    /// It was taken from a hardware clock, but shows a time before one that was known in an earlier boot.
    #[error(
        "it was taken from a hardware clock and shows {}, but it was {} already: is its battery empty?",
        humantime::format_rfc3339_seconds(.shown.to_system()),
        humantime::format_rfc3339_seconds(.known.to_system())
    )]
    BeforeKnown {
        /// What it shows.
        shown: WallTime,
        /// What the time was when it was last known.
        known: WallTime,
    },
}

/// Both clocks in the same moment, and what the system says of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The boot clock.
    pub boot: BootTime,
    /// The wall clock, right or wrong.
    pub wall: WallTime,
    /// So far apart, at the most, the two were looked at.
    pub within: Duration,
    /// On whose word it is to be believed, or why not.
    pub word: Result<Source, Doubt>,
}

impl Look {
    /// The difference of the clocks.
    #[must_use]
    pub fn offset(&self) -> Offset {
        Offset::between(self.boot, self.wall)
    }
}

/// Where the time comes from; tests use [`ManualClock`].
pub trait Clock: Send + Sync {
    /// Now, on the boot clock.
    fn boot(&self) -> BootTime;
    /// Now, on both clocks, and what is known of the wall clock.
    fn look(&self) -> Look;
    /// No wall clock that shows an earlier time is right.
    fn earliest(&self) -> WallTime;
    /// Asks hardware clocks whether the wall clock was set by one. May take as long as a chip takes to answer.
    fn ask_hardware_clocks(&self) {}
}

/// How far the system's wall clock is trusted (`[clock] trust`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// When the kernel says that it is synchronised, or it was set by a hardware clock.
    #[default]
    Kernel,
    /// Always: containers, virtual machines, the demo.
    Always,
}

/// When this program was built, or what the build was told with `SOURCE_DATE_EPOCH`.
#[must_use]
pub fn built() -> SystemTime {
    // `build.rs` writes it; without it nothing is known but that it is later than 1970.
    let seconds = env!("VIGIE_BUILD_SECONDS").parse().unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(seconds)
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
    fn a_clock_is_believed_once_it_is_set() {
        let clock = ManualClock::new();
        assert_eq!(clock.look().word, Err(Doubt::NotSynchronised));
        clock.set_wall(UNIX_EPOCH + Duration::from_secs(5));
        clock.advance(Duration::from_secs(1));
        let look = clock.look();
        assert_eq!((look.wall, look.word), (WallTime(6_000_000_000), Ok(Source::Synchronised)));
        assert_eq!((clock.boot(), look.offset()), (BootTime(1_000_000_000), Offset(5_000_000_000)));
    }
}
