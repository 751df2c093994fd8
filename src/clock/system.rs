//! The machine's own clocks.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use super::{BootTime, Clock, Doubt, Look, Offset, Source, Trust, WallTime, built};
use crate::hardware::adjtimex;

/// The hardware clocks (Documentation/ABI/testing/sysfs-class-rtc).
const HARDWARE_CLOCKS: &str = "/sys/class/rtc";

/// A hardware clock has whole seconds, and who sets the wall clock by it may wait for the next: they agree to this...
const AGREES: Duration = Duration::from_secs(2);
/// ...and to one part in so many of the time since, in which both run by crystals of their own.
const DRIFT: u32 = 5_000;

/// The two clocks are looked at again when a look took longer than this, because something else ran in between...
const QUICK: Duration = Duration::from_micros(20);
/// ...but so often at the most; the quickest counts.
const LOOKS: u32 = 8;

/// The machine's own clocks.
#[derive(Debug)]
pub struct SystemClock {
    trust: Trust,
    /// The offset at which the wall clock was seen to agree with a hardware clock.
    vouched: Mutex<Option<Offset>>,
    /// A hardware clock is being asked, and may never answer.
    asking: AtomicBool,
}

impl SystemClock {
    /// The machine's clocks with the given trust.
    #[must_use]
    pub fn new(trust: Trust) -> Self {
        Self { trust, vouched: Mutex::default(), asking: AtomicBool::new(false) }
    }

    fn word(&self, offset: Offset) -> Result<Source, Doubt> {
        if self.trust == Trust::Always {
            return Ok(Source::Trusted);
        }
        let asked = adjtimex::synchronised();
        if asked == adjtimex::Answer::Yes {
            return Ok(Source::Synchronised);
        }
        // Where somebody has set it since, the hardware clock does not vouch for that.
        let is_near = |vouched: Offset| Duration::from_nanos(offset.minus(vouched).unsigned_abs()) < AGREES;
        if self.vouched().is_some_and(is_near) {
            return Ok(Source::Rtc);
        }
        Err(match asked {
            adjtimex::Answer::Refused(error) => Doubt::Refused(error),
            adjtimex::Answer::Yes | adjtimex::Answer::No => Doubt::NotSynchronised,
        })
    }

    fn vouched(&self) -> MutexGuard<'_, Option<Offset>> {
        self.vouched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, clocks: &Path) {
        let (boot, shown) = (self.boot(), SystemTime::now());
        if agrees_with_one_of(clocks, shown, AGREES + boot.since(BootTime(0)) / DRIFT) {
            *self.vouched() = Some(Offset::between(boot, WallTime::from_system(shown)));
        }
    }
}

/// Does the wall clock go with a hardware clock? Then it was set by it: by the kernel at boot (`hctosys`), or later by
/// `hwclock`, of which nobody keeps note. A clock that knows that its battery was empty has no valid time, which the
/// kernel does not take either.
fn agrees_with_one_of(clocks: &Path, shown: SystemTime, within: Duration) -> bool {
    attributes(clocks, "since_epoch").filter_map(|text| text.trim().parse().ok()).any(|seconds| {
        let told = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        // Its second has begun, and may be over by now.
        told.is_some_and(|told| shown.duration_since(told).unwrap_or_else(|earlier| earlier.duration()) <= within)
    })
}

/// What all hardware clocks say of something; one without a valid time says nothing.
fn attributes(clocks: &Path, name: &'static str) -> impl Iterator<Item = String> {
    let folders = fs::read_dir(clocks).into_iter().flatten().flatten();
    folders.filter_map(move |clock| fs::read_to_string(clock.path().join(name)).ok())
}

impl Clock for SystemClock {
    fn boot(&self) -> BootTime {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        let nanos = u64::try_from(time.tv_nsec).unwrap_or_default();
        BootTime(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    fn look(&self) -> Look {
        let pair = || {
            let before = self.boot();
            let wall = WallTime::from_system(SystemTime::now());
            let within = self.boot().since(before);
            // In the middle, it is wrong by half at the most.
            (before.after(within / 2), wall, within / 2)
        };
        let mut quickest = pair();
        for _ in 1..LOOKS {
            if quickest.2 <= QUICK {
                break;
            }
            let next = pair();
            if next.2 < quickest.2 {
                quickest = next;
            }
        }
        let (boot, wall, within) = quickest;
        Look { boot, wall, within, word: self.word(Offset::between(boot, wall)) }
    }

    fn earliest(&self) -> WallTime {
        WallTime::from_system(built())
    }

    fn ask_hardware_clocks(&self) {
        if !self.asking.swap(true, Ordering::Relaxed) {
            self.ask(Path::new(HARDWARE_CLOCKS));
            self.asking.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_moves_forward() {
        let clock = SystemClock::new(Trust::Kernel);
        let first = clock.boot();
        assert!(clock.boot() >= first);
        assert!(first > BootTime(0));
    }

    /// NTP makes both clocks run faster or slower: what is between them stays.
    #[test]
    fn the_offset_stands_still() {
        let clock = SystemClock::new(Trust::Always);
        let looks: Vec<Look> = (0..1_000).map(|_| clock.look()).collect();
        let [first, .., last] = looks.as_slice() else { unreachable!("there are a thousand") };
        assert_eq!(first.word, Ok(Source::Trusted));
        let moved = Duration::from_nanos(last.offset().minus(first.offset()).unsigned_abs());
        assert!(moved <= first.within + last.within, "{moved:?} apart: {first:?}, {last:?}");
    }

    #[test]
    fn a_hardware_clock_that_agrees_vouches() {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = |name: &str, attribute: &str, text: &str| {
            let clock = folder.path().join(name);
            fs::create_dir_all(&clock).expect("a folder");
            fs::write(clock.join(attribute), text).expect("a file");
        };
        let shown = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_500);
        // One whose battery is empty has no time to tell.
        clock("rtc1", "name", "rtc-ds1307");
        assert!(!agrees_with_one_of(folder.path(), shown, AGREES));
        for (told, agrees) in [("0", false), ("1799999998", false), ("1799999999", true), ("1800000002", true)] {
            clock("rtc0", "since_epoch", &format!("{told}\n"));
            assert_eq!(agrees_with_one_of(folder.path(), shown, AGREES), agrees, "{told}");
        }
        clock("rtc0", "since_epoch", "18446744073709551615");
        assert!(!agrees_with_one_of(folder.path(), shown, AGREES));

        let system = SystemClock::new(Trust::Kernel);
        let now = system.look();
        let moved = |seconds: i64| Offset(now.offset().0 + seconds * 1_000_000_000);
        system.ask(&folder.path().join("none"));
        assert!(!matches!(system.word(now.offset()), Ok(Source::Rtc)));
        clock("rtc0", "since_epoch", &(now.wall.0 / 1_000_000_000).to_string());
        system.ask(folder.path());
        let vouches = system.word(moved(1)).is_ok() && adjtimex::synchronised() != adjtimex::Answer::Yes;
        let set_since = matches!(system.word(moved(3_600)), Ok(Source::Rtc));
        assert!((vouches || adjtimex::synchronised() == adjtimex::Answer::Yes) && !set_since);
    }
}
