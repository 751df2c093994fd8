//! From a device's own milliseconds since its start (`millis()` of an Arduino) to the boot clock, so that what is read
//! late still has the time at which it was measured.
//!
//! The *lag* of a reading is the time at which it was read less what the device's clock says. It is the device's start
//! on the boot clock plus the reading's delay; so the least lag is nearest to the truth, and how the least lag moves is
//! how much slower or faster the device's clock runs. Both are followed over the last [`INTERVALS`] intervals in which
//! the device spoke. Time in which it was not read does not count: what has gathered meanwhile is then dated by what
//! was known before.
//!
//! The error is that of the least delays: a link whose fastest reading of each interval takes `d` to `d + j` dates all
//! readings within `d + 4 j`; the drift of the first two intervals, before the clock's speed is known, comes on top of
//! that, and with what is read late by `t` a further `j` for each 20 s of `t`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::BootTime;
use crate::drivers::OptionInfo;
use crate::options::Options;
use crate::reading::{Fault, FaultCode, Sample, Value};

/// Intervals that are remembered, each with the reading of the least lag.
const INTERVALS: usize = 15;

/// An interval is at least this long.
const INTERVAL: Duration = Duration::from_secs(4);

/// The fastest or slowest that a device's clock is believed to run: the resonators of common boards keep to 0.5 %.
const MAX_DRIFT: f64 = 0.01;

/// A device's clock goes on by less than the time in which it was read and this (half of what 32 bits hold) where the
/// reading before was late. What goes beyond that, as every step back does, says that the device has restarted.
const MAX_CATCH_UP: Duration = Duration::from_millis(1 << 31);

const NANOS_PER_MILLI: i64 = 1_000_000;

/// Maps a device's milliseconds to the boot clock.
#[derive(Debug, Default)]
pub(crate) struct DeviceClock {
    /// The reading before.
    last: Option<Last>,
    /// In order; the last one is still going on.
    intervals: VecDeque<Interval>,
    /// Nanoseconds of lag per millisecond of the device's clock.
    slope: f64,
    /// The lag that the line through the least ones has where the device's time is zero.
    base: f64,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    raw: u32,
    /// Milliseconds since the first reading after the device's start.
    device: i64,
    read_at: BootTime,
    given: BootTime,
}

#[derive(Debug)]
struct Interval {
    began: BootTime,
    /// Of its reading of the least lag: the device's time in milliseconds, and the lag in nanoseconds.
    device: i64,
    lag: i64,
}

impl Interval {
    /// How far above a line of this slope the reading lies.
    fn above(&self, slope: f64) -> f64 {
        height(self.device, self.lag, slope)
    }
}

/// What is left of a lag when the line's rise is taken off.
#[expect(clippy::cast_precision_loss, reason = "a double holds the nanoseconds of a hundred days")]
fn height(device: i64, lag: i64, slope: f64) -> f64 {
    lag as f64 - slope * device as f64
}

impl DeviceClock {
    /// When the device measured what it stamped with `device_ms` and what was read at `read_at`: never later than
    /// that, and never earlier than what was returned for a reading before it.
    pub(crate) fn at(&mut self, device_ms: u32, read_at: BootTime) -> BootTime {
        let device = self.since_start(device_ms, read_at);
        let lag = nanos(read_at).saturating_sub(device.saturating_mul(NANOS_PER_MILLI));
        self.learn(device, lag, read_at);

        let delay = height(device, lag, self.slope) - self.base;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "held to zero and above")]
        let delay = Duration::from_nanos(delay.max(0.0) as u64);
        let at = BootTime(read_at.0.saturating_sub(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX)));
        let given = self.last.map_or(at, |last| at.max(last.given)).min(read_at);
        self.last = Some(Last { raw: device_ms, device, read_at, given });
        given
    }

    /// The device's milliseconds without roll-over. Forgets what was known where the device has restarted.
    fn since_start(&mut self, device_ms: u32, read_at: BootTime) -> i64 {
        let Some(last) = self.last else { return 0 };
        let passed = read_at.since(last.read_at);
        let ahead = Duration::from_millis(u64::from(device_ms.wrapping_sub(last.raw)));
        let most = passed.mul_f64(1.0 + MAX_DRIFT) + MAX_CATCH_UP;
        if ahead > most || passed > Duration::from_millis(u64::from(u32::MAX)) {
            self.intervals.clear();
            return 0;
        }
        last.device + i64::from(device_ms.wrapping_sub(last.raw))
    }

    fn learn(&mut self, device: i64, lag: i64, read_at: BootTime) {
        let slope = self.slope;
        match self.intervals.back_mut() {
            Some(current) if read_at.since(current.began) < INTERVAL => {
                if height(device, lag, slope) >= current.above(slope) {
                    return;
                }
                (current.device, current.lag) = (device, lag);
            }
            _ => {
                if self.intervals.len() == INTERVALS {
                    self.intervals.pop_front();
                }
                self.intervals.push_back(Interval { began: read_at, device, lag });
            }
        }
        self.fit();
    }

    /// Lays the line below all remembered readings.
    fn fit(&mut self) {
        if self.intervals.len() == 1 {
            self.slope = 0.0;
        } else if let Some(slope) = self.slope_between_thirds().filter(|slope| slope.abs() <= MAX_SLOPE) {
            // A slope that no clock has says that all readings of one third were late.
            self.slope = slope;
        }
        self.base = self.intervals.iter().map(|interval| interval.above(self.slope)).fold(f64::INFINITY, f64::min);
    }

    /// From the least lag of the oldest third to that of the newest.
    #[expect(clippy::cast_precision_loss, reason = "as in `height`")]
    fn slope_between_thirds(&self) -> Option<f64> {
        let count = self.intervals.len();
        let third = count.div_ceil(3).min(count / 2);
        let least = |from: usize| {
            let third = self.intervals.range(from..from + third);
            third.min_by(|a, b| a.above(self.slope).total_cmp(&b.above(self.slope)))
        };
        let (old, new) = (least(0)?, least(count - third)?);
        (new.device > old.device).then(|| (new.lag - old.lag) as f64 / (new.device - old.device) as f64)
    }
}

/// [`MAX_DRIFT`] in nanoseconds of lag per millisecond.
const MAX_SLOPE: f64 = MAX_DRIFT * 1e6;

fn nanos(at: BootTime) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

/// The key `millis` of drivers whose devices name their quantities.
pub(crate) const OPTION: OptionInfo = OptionInfo {
    name: "millis",
    values: "name of a quantity",
    default: Some("none: a reading's time is that at which it was read"),
    help: "The quantity that holds the device's milliseconds since its start, as `millis()` gives them: readings then \
           have the time at which the device says that they were measured, and the quantity itself is not published.",
};

/// The clock of a device that sends its milliseconds as one of its quantities.
#[derive(Debug)]
pub(crate) struct Stamp {
    quantity: String,
    clock: DeviceClock,
}

impl Stamp {
    /// The clock of a device whose quantity of this name holds its milliseconds.
    pub(crate) fn new(quantity: &str) -> Self {
        Self { quantity: quantity.to_owned(), clock: DeviceClock::default() }
    }

    /// Takes the milliseconds out of the samples: when these were measured. What has none was measured when it was
    /// read.
    ///
    /// # Errors
    /// The quantity is there, but is not a number of milliseconds.
    pub(crate) fn take(&mut self, samples: &mut Vec<Sample>, read_at: BootTime) -> Result<BootTime, Fault> {
        let Some(place) = samples.iter().position(|sample| *sample.quantity == *self.quantity) else {
            return Ok(read_at);
        };
        // The order of the others stays, because quantities are found by their position first.
        let Some(millis) = millis(&samples.remove(place).value) else {
            return Err(Fault::new(
                FaultCode::BadData,
                format!("`{}` should be milliseconds: a whole number from 0 to {}", self.quantity, u32::MAX),
            ));
        };
        Ok(self.clock.at(millis, read_at))
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be whole and in range")]
fn millis(value: &Value) -> Option<u32> {
    let Value::Number(number) = value else { return None };
    let number = number.get();
    ((0.0..=f64::from(u32::MAX)).contains(&number) && number.fract() == 0.0).then_some(number as u32)
}

/// Reads the key `millis`; problems are noted there.
pub(crate) fn parse(options: &Options<'_>) -> Option<String> {
    let name = options.optional::<String>(OPTION.name)?;
    if name.is_empty() {
        options.problem(OPTION.name, "`millis` is empty", Some("expected a quantity's name such as \"ms\"".to_owned()));
        return None;
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MILLI: u64 = 1_000_000;
    const SECOND: u64 = 1000 * MILLI;

    /// A device that starts at a boot time with a clock that is off by a factor.
    struct Device {
        start: u64,
        first: u32,
        factor: f64,
    }

    impl Device {
        /// Its milliseconds at that time.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        fn millis(&self, at: u64) -> u32 {
            self.first.wrapping_add(((at - self.start) as f64 * self.factor / 1e6) as u64 as u32)
        }
    }

    /// How far what the clock gives lies from the truth for each reading, in milliseconds; positive is late.
    fn errors(device: &Device, readings: &[(u64, u64)]) -> Vec<f64> {
        let mut clock = DeviceClock::default();
        let mut read_before = 0;
        let mut given_before = BootTime(0);
        let mut errors = Vec::new();
        for (measured, delay) in readings {
            let read_at = (measured + delay).max(read_before);
            read_before = read_at;
            let given = clock.at(device.millis(*measured), BootTime(read_at));
            assert!(given <= BootTime(read_at), "never later than it was read");
            assert!(given >= given_before, "never backwards");
            given_before = given;
            #[expect(clippy::cast_precision_loss)]
            errors.push((given.0 as f64 - *measured as f64) / 1e6);
        }
        errors
    }

    fn worst(errors: &[f64]) -> f64 {
        errors.iter().fold(0.0, |worst: f64, error| worst.max(error.abs()))
    }

    #[test]
    fn a_burst_that_is_read_late_has_the_time_of_its_measurement() {
        let device = Device { start: 5 * SECOND, first: 0, factor: 1.004 };
        // Each 100 ms for two minutes; then nothing is read for five minutes, and all at once at their end.
        let end = 420 * SECOND;
        let readings: Vec<(u64, u64)> = (0..4200)
            .map(|number| 5 * SECOND + number * 100 * MILLI)
            .map(|at| (at, if at < 120 * SECOND || at > end { 2 * MILLI } else { end - at }))
            .collect();
        let errors = errors(&device, &readings);
        assert!(worst(&errors) < 20.0, "{}", worst(&errors));
        assert!(worst(&errors[200..]) < 5.0, "{}", worst(&errors[200..]));
    }

    #[test]
    fn a_logger_that_tells_a_day_at_once_is_understood_from_the_second_time_on() {
        let (hour, day) = (3600 * SECOND, 86_400 * SECOND);
        let device = Device { start: SECOND, first: 0, factor: 1.0 };
        let readings: Vec<(u64, u64)> =
            (1..72).map(|number| number * hour).map(|at| (at, (day - at % day) % day + 5 * MILLI)).collect();
        let errors = errors(&device, &readings);
        assert!(worst(&errors[24..]) < 10.0, "{:?}", &errors[24..]);
    }

    #[test]
    fn roll_over_is_not_a_restart() {
        let device = Device { start: SECOND, first: u32::MAX - 60_000, factor: 0.997 };
        let readings: Vec<(u64, u64)> = (1..1200).map(|number| (number * SECOND / 10 + SECOND, MILLI)).collect();
        assert!(worst(&errors(&device, &readings)) < 15.0);
    }

    #[test]
    fn a_restarted_device_counts_anew() {
        for uptime in [3_u64, 3000, 30 * 86_400, 49 * 86_400] {
            let mut clock = DeviceClock::default();
            let start = 7 * SECOND;
            for second in (1..=uptime).rev().take(300).collect::<Vec<_>>().into_iter().rev() {
                let at = start + second * SECOND;
                clock.at(u32::try_from(second * 1000).expect("fits"), BootTime(at + MILLI));
            }
            let again = start + uptime * SECOND + 2 * SECOND;
            for second in 0..10 {
                let at = again + second * SECOND;
                let given = clock.at(u32::try_from(second * 1000 + 1).expect("fits"), BootTime(at + MILLI));
                assert!(given.0.abs_diff(at) <= 2 * MILLI, "{uptime} s: {} ms", given.0.abs_diff(at) / MILLI);
            }
        }
    }

    #[test]
    fn a_restart_that_cannot_be_seen_is_forgotten_in_the_end() {
        let mut clock = DeviceClock::default();
        clock.at(1000, BootTime(10 * SECOND));
        let mut last = 0;
        for second in 0..100 {
            let at = (100 + second) * SECOND;
            // Its clock shows more than before, as if the reading were from long ago.
            last = at - clock.at(u32::try_from(second * 1000 + 5000).expect("fits"), BootTime(at)).0;
        }
        assert!(last < MILLI, "{last}");
    }

    #[test]
    fn milliseconds_are_taken_out_of_the_samples() {
        let number = |name: &'static str, number: f64| Sample::new(name, Value::number(number).expect("finite"));
        let mut stamp = Stamp::new("ms");
        let mut samples = vec![number("temp", 21.0), number("ms", 1000.0), number("hum", 40.0)];
        assert_eq!(stamp.take(&mut samples, BootTime(10 * SECOND)), Ok(BootTime(10 * SECOND)));
        let mut late = vec![number("temp", 21.0), number("ms", 1500.0)];
        assert_eq!(stamp.take(&mut late, BootTime(12 * SECOND)), Ok(BootTime(10 * SECOND + 500 * MILLI)));
        assert_eq!(samples.iter().map(|sample| &*sample.quantity).collect::<Vec<_>>(), ["temp", "hum"]);
        assert_eq!(stamp.take(&mut vec![number("temp", 21.0)], BootTime(13 * SECOND)), Ok(BootTime(13 * SECOND)));
        for wrong in [-1.0, 0.5, 4_294_967_296.0] {
            let fault = stamp.take(&mut vec![number("ms", wrong)], BootTime(14 * SECOND)).expect_err("no milliseconds");
            assert_eq!(fault.code, FaultCode::BadData);
            assert!(fault.detail.contains("`ms` should be milliseconds"), "{fault}");
        }
        let mut text = vec![Sample::new("ms", Value::Text("1000".into()))];
        assert!(stamp.take(&mut text, BootTime(14 * SECOND)).is_err());
    }

    proptest! {
        /// The bound that the module's documentation gives.
        #[test]
        fn drift_and_delays_are_followed(
            first in any::<u32>(),
            drift in -0.005..0.005_f64,
            period in prop::sample::select(vec![20_u64, 200, 1000, 3000]),
            least in 0..10_u64,
            jitter in 0..30_u64,
            delays in prop::collection::vec(0..1000_u64, 100..600),
            stalls in prop::collection::vec((0..600_usize, 1..120_000_u64), 0..4),
        ) {
            let device = Device { start: 3 * SECOND, first, factor: 1.0 + drift };
            // It is known for half a minute when the first stall comes.
            let known = usize::try_from(30_000 / period).expect("small");
            let mut readings: Vec<(u64, u64)> = delays
                .iter()
                .cycle()
                .take(known + delays.len())
                .enumerate()
                .map(|(number, delay)| (3 * SECOND + number as u64 * period * MILLI, (least * 1000 + delay * jitter) * 1000))
                .collect();
            for (from, stall) in stalls {
                // Nothing is read for a while; what has gathered comes at its end.
                let Some((begin, _)) = readings.get(known + from % delays.len()).copied() else { continue };
                let end = begin + stall * MILLI;
                for (at, delay) in readings.iter_mut().filter(|(at, _)| (begin..end).contains(at)) {
                    *delay = (*delay).max(end - *at);
                }
            }
            let bound = least as f64 + 4.0 * jitter as f64 + 1.0;
            let begins = drift.abs() * 2.0 * INTERVAL.as_millis() as f64;
            let worst = worst(&errors(&device, &readings));
            let far = jitter as f64 * 120.0 / 20.0;
            prop_assert!(worst <= bound + begins + far, "{} > {} + {} + {}", worst, bound, begins, far);
        }

        #[test]
        fn whatever_a_device_says_time_goes_forward_and_is_never_later_than_the_reading(
            readings in prop::collection::vec((any::<u32>(), prop_oneof![0..10_000_000_u64, any::<u64>()]), 0..200),
        ) {
            let mut clock = DeviceClock::default();
            let (mut now, mut before) = (BootTime(0), BootTime(0));
            for (millis, step) in readings {
                now = BootTime(now.0.saturating_add(step));
                let given = clock.at(millis, now);
                prop_assert!(given <= now && given >= before);
                prop_assert!(clock.intervals.len() <= INTERVALS);
                before = given;
            }
        }
    }
}
