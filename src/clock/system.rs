//! The machine's own clocks.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use super::{BootTime, Clock, Doubt, Look, Source, Trust, WallTime, built};
use crate::hardware::adjtimex::{self, Answer};

/// The hardware clocks (Documentation/ABI/testing/sysfs-class-rtc).
const HARDWARE_CLOCKS: &str = "/sys/class/rtc";

/// A hardware clock has whole seconds, and `hwclock` waits for the next: what was set by one agrees with it to this.
const AGREES: Duration = Duration::from_secs(2);

/// The two clocks are looked at again when a look took longer than this, because something else ran in between...
const QUICK: Duration = Duration::from_micros(20);
/// ...but so often at the most; the quickest counts.
const LOOKS: u32 = 8;

/// The machine's own clocks.
#[derive(Debug)]
pub struct SystemClock {
    trust: Trust,
    /// The wall clock was set by a hardware clock, at boot. Does not become false again.
    from_hardware: AtomicBool,
}

impl SystemClock {
    /// The machine's clocks with the given trust.
    #[must_use]
    pub fn new(trust: Trust) -> Self {
        Self { trust, from_hardware: AtomicBool::new(kernel_took_time_from(Path::new(HARDWARE_CLOCKS))) }
    }

    fn word(&self) -> Result<Source, Doubt> {
        if self.trust == Trust::Always {
            return Ok(Source::Trusted);
        }
        let asked = adjtimex::synchronised();
        if asked == Answer::Yes {
            return Ok(Source::Synchronised);
        }
        if self.from_hardware.load(Ordering::Relaxed) {
            return Ok(Source::Rtc);
        }
        Err(match asked {
            Answer::Refused(error) => Doubt::Refused(error),
            Answer::Yes | Answer::No => Doubt::NotSynchronised,
        })
    }
}

/// `hctosys` is 1 for the clock from which the kernel has set its own at boot. Where the hardware clock had no valid time
/// (an empty battery that it knows of), the kernel did not take it, and says 0.
fn kernel_took_time_from(clocks: &Path) -> bool {
    attributes(clocks, "hctosys").any(|text| text.trim() == "1")
}

/// Where the kernel is built without that, as for a Raspberry Pi with the driver of its clock as a module, `hwclock` sets
/// the wall clock. Nobody keeps note of it, but then it goes with the hardware clock.
fn agrees_with_one_of(clocks: &Path, shown: SystemTime) -> bool {
    attributes(clocks, "since_epoch").filter_map(|text| text.trim().parse().ok()).any(|seconds| {
        let told = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        // Its second has begun, and may be over by now.
        let apart = shown.duration_since(told).unwrap_or_else(|earlier| earlier.duration());
        apart <= AGREES
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
        Look { boot, wall, within, word: self.word() }
    }

    fn earliest(&self) -> WallTime {
        WallTime::from_system(built())
    }

    fn ask_hardware_clocks(&self) {
        if !self.from_hardware.load(Ordering::Relaxed)
            && agrees_with_one_of(Path::new(HARDWARE_CLOCKS), SystemTime::now())
        {
            self.from_hardware.store(true, Ordering::Relaxed);
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
    fn hardware_clocks_say_where_the_time_is_from() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(!kernel_took_time_from(&folder.path().join("none")));
        let clock = |name: &str, attribute: &str, text: &str| {
            let clock = folder.path().join(name);
            fs::create_dir_all(&clock).expect("a folder");
            fs::write(clock.join(attribute), text).expect("a file");
        };
        clock("rtc0", "hctosys", "0\n");
        // What the battery of which is empty has no time to tell.
        clock("rtc1", "hctosys", "0\n");
        assert!(!kernel_took_time_from(folder.path()));
        let shown = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_500);
        assert!(!agrees_with_one_of(folder.path(), shown));
        for (told, agrees) in [("0", false), ("1799999998", false), ("1799999999", true), ("1800000002", true)] {
            clock("rtc0", "since_epoch", &format!("{told}\n"));
            assert_eq!(agrees_with_one_of(folder.path(), shown), agrees, "{told}");
        }
        clock("rtc1", "hctosys", "1\n");
        assert!(kernel_took_time_from(folder.path()));
    }
}
