//! What the simulated sensors sense: pure functions of seed and time, so that nothing needs to be kept or told.

use std::f64::consts::TAU;
use std::time::Duration;

use crate::clock::BootTime;

/// The air around a sensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Air {
    /// °C
    pub(super) temperature: f64,
    /// % relative humidity
    pub(super) humidity: f64,
    /// Pa
    pub(super) pressure: f64,
}

/// An ordinary room: temperature and humidity swing with the heating (40 min), the pressure with the weather (hours),
/// and a little noise lies on everything.
pub(super) fn air(seed: u64, at: BootTime) -> Air {
    let seconds = Duration::from_nanos(at.0).as_secs_f64();
    let phase = unit(mix(seed));
    let swing = |period: f64, shift: f64| (TAU * (seconds / period + phase + shift)).sin();
    let noise = |salt: u64| unit(mix(seed ^ at.0 ^ mix(salt))) - 0.5;
    let heating = swing(2_400.0, 0.0);
    let temperature = 20.5 + 1.2 * heating + 0.2 * swing(310.0, 0.3) + 0.02 * noise(1);
    // Warmer air at the same water content is relatively drier.
    let humidity = 47.0 - 4.0 * heating + 1.5 * swing(3_300.0, 0.6) + 0.1 * noise(2);
    let pressure = 101_100.0 + 900.0 * swing(20_000.0, 0.1) + 3.0 * noise(3);
    Air { temperature, humidity, pressure }
}

/// Volts at an input of an analog-to-digital converter, 0 to 3.3: eight potentiometers and light-dependent resistors,
/// each about 0.4 V above the one before, that drift by up to 0.15 V within minutes.
pub(super) fn voltage(seed: u64, at: BootTime, input: u8) -> f64 {
    let seconds = Duration::from_nanos(at.0).as_secs_f64();
    let phase = unit(mix(seed ^ mix(u64::from(input))));
    let noise = unit(mix(seed ^ at.0 ^ mix(u64::from(input) + 100))) - 0.5;
    0.2 + 0.4 * f64::from(input % 8) + 0.15 * (TAU * (seconds / 420.0 + phase)).sin() + 0.002 * noise
}

/// Volts and amperes of a supply of 5 V whose load comes and goes within minutes.
pub(super) fn supply(seed: u64, at: BootTime) -> (f64, f64) {
    let seconds = Duration::from_nanos(at.0).as_secs_f64();
    let phase = unit(mix(seed));
    let noise = unit(mix(seed ^ at.0 ^ mix(200))) - 0.5;
    let amperes = 0.55 + 0.35 * (TAU * (seconds / 180.0 + phase)).sin() + 0.004 * noise;
    // The cable has 0.2 Ω.
    (5.15 - 0.2 * amperes, amperes)
}

/// Lux on the table of that room: daylight behind clouds that come and go, and a lamp.
pub(super) fn illuminance(seed: u64, at: BootTime) -> f64 {
    let seconds = Duration::from_nanos(at.0).as_secs_f64();
    let phase = unit(mix(seed));
    let swing = |period: f64| (TAU * (seconds / period + phase)).sin();
    320.0 + 180.0 * swing(5_400.0) + 40.0 * swing(130.0) + 2.0 * (unit(mix(seed ^ at.0)) - 0.5)
}

/// CO2 in ppm: people come, and the window is opened.
pub(super) fn carbon_dioxide(seed: u64, at: BootTime) -> f64 {
    let seconds = Duration::from_nanos(at.0).as_secs_f64();
    let phase = unit(mix(seed));
    let swing = |period: f64| (TAU * (seconds / period + phase)).sin();
    800.0 + 330.0 * swing(7_200.0) + 30.0 * swing(700.0) + 6.0 * (unit(mix(seed ^ at.0)) - 0.5)
}

/// Motion happens once in each span of this length, in nanoseconds.
const MOTION_SPAN: u64 = 10_000_000_000;

/// Does the motion sensor see anything?
pub(super) fn motion(seed: u64, at: BootTime) -> bool {
    let (start, end) = movement(seed, at.0 / MOTION_SPAN);
    (start..end).contains(&at.0)
}

/// The next time after `at` at which [`motion`] changes, and what it changes to.
pub(super) fn next_motion(seed: u64, at: BootTime) -> (BootTime, bool) {
    let span = at.0 / MOTION_SPAN;
    let (start, end) = movement(seed, span);
    if at.0 < start {
        (BootTime(start), true)
    } else if at.0 < end {
        (BootTime(end), false)
    } else {
        (BootTime(movement(seed, span + 1).0), true)
    }
}

/// The movement within a span: it begins in the span's first 4 s and lasts 2 to 5 s, so that spans never touch.
fn movement(seed: u64, span: u64) -> (u64, u64) {
    let random = mix(seed ^ mix(span));
    let start = span.saturating_mul(MOTION_SPAN).saturating_add(random % 4_000_000_000);
    (start, start.saturating_add(2_000_000_000 + mix(random) % 3_000_000_000))
}

/// A train of pulses without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Train {
    /// 1 kHz, high for 0.3 ms of each period, as a PWM output gives it.
    Fixed,
    /// 2 to 20 Hz and back in 10 minutes, as long high as low, as a flow meter gives it.
    Flow,
}

/// The period of [`Train::Fixed`] and how much of it is high, in nanoseconds.
const FIXED_PERIOD: u64 = 1_000_000;
const FIXED_HIGH: u64 = 300_000;

/// Mean frequency of [`Train::Flow`] and how far it swings, in hertz, and the time of a swing, in seconds.
const FLOW_MEAN: f64 = 11.0;
const FLOW_SWING: f64 = 9.0;
const FLOW_PERIOD: f64 = 600.0;

impl Train {
    /// How often the level has changed since the beginning, when it went high. Even: it is high.
    fn changes(self, at: u64) -> u64 {
        match self {
            Self::Fixed => at / FIXED_PERIOD * 2 + u64::from(at % FIXED_PERIOD >= FIXED_HIGH),
            Self::Flow => {
                let seconds = Duration::from_nanos(at).as_secs_f64();
                let turn = TAU / FLOW_PERIOD;
                // The integral of mean + swing * sin(turn * t).
                let cycles = FLOW_MEAN * seconds + FLOW_SWING / turn * (1.0 - (turn * seconds).cos());
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "not negative, and below 2^53"
                )]
                let changes = (2.0 * cycles) as u64;
                changes
            }
        }
    }

    /// Is the line high?
    pub(super) fn is_high(self, at: BootTime) -> bool {
        self.changes(at.0).is_multiple_of(2)
    }

    /// The next time after `at` at which it changes, and what it changes to.
    pub(super) fn next_change(self, at: BootTime) -> (BootTime, bool) {
        let wanted = self.changes(at.0) + 1;
        let (mut before, mut step) = (at.0, 1_000);
        while self.changes(before + step) < wanted {
            before += step;
            step *= 2;
        }
        let mut after = before + step;
        while after - before > 1 {
            let middle = before.midpoint(after);
            if self.changes(middle) < wanted { before = middle } else { after = middle }
        }
        (BootTime(after), wanted.is_multiple_of(2))
    }
}

/// A well-mixed number from another one (the finaliser of splitmix64, Steele, Lea and Flood 2014).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 0 to 1.
fn unit(random: u64) -> f64 {
    f64::from(u32::try_from(random >> 32).expect("a u64 shifted by 32 bits fits u32")) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_air_is_that_of_a_room_and_moves_slowly() {
        let mut before = air(7, BootTime(0));
        for second in 1..40_000_u64 {
            let now = air(7, BootTime(second * 1_000_000_000));
            assert!((15.0..26.0).contains(&now.temperature), "{now:?}");
            assert!((35.0..60.0).contains(&now.humidity), "{now:?}");
            assert!((99_000.0..103_000.0).contains(&now.pressure), "{now:?}");
            assert!((now.temperature - before.temperature).abs() < 0.05, "{before:?} {now:?}");
            before = now;
        }
    }

    #[test]
    fn trains_change_exactly_where_it_is_said_and_have_their_frequency() {
        for (train, from, seconds, rising) in [
            (Train::Fixed, 123, 2, 2_000),
            // One whole swing: 11 Hz in the mean.
            (Train::Flow, 1, 600, 6_600),
        ] {
            let end = BootTime(seconds * 1_000_000_000 + from);
            let (mut at, mut count) = (BootTime(from), 0);
            loop {
                let level = train.is_high(at);
                let (next, after) = train.next_change(at);
                assert!(next > at && after != level, "{train:?} {at:?}");
                assert_eq!(train.is_high(BootTime(next.0 - 1)), level, "{train:?} before {next:?}");
                assert_eq!(train.is_high(next), after, "{train:?} at {next:?}");
                if next > end {
                    break;
                }
                count += u64::from(after);
                at = next;
            }
            assert_eq!(count, rising, "{train:?}");
        }
    }

    #[test]
    fn voltages_and_the_supply_stay_within_what_is_connected() {
        for second in 0..2_000_u64 {
            let now = BootTime(second * 1_000_000_000);
            for input in 0..8 {
                let volts = voltage(7, now, input);
                assert!((0.0..3.3).contains(&volts), "{input}: {volts}");
                assert!(input == 0 || volts > voltage(7, now, input - 1), "inputs can be told apart");
            }
            let (volts, amperes) = supply(7, now);
            assert!((4.9..5.15).contains(&volts) && (0.15..0.95).contains(&amperes), "{volts} V, {amperes} A");
        }
    }

    #[test]
    fn light_and_carbon_dioxide_are_those_of_a_room() {
        for second in 0..20_000_u64 {
            let at = BootTime(second * 1_000_000_000);
            assert!((90.0..550.0).contains(&illuminance(7, at)), "{at:?}");
            assert!((420.0..1_200.0).contains(&carbon_dioxide(7, at)), "{at:?}");
        }
    }

    #[test]
    fn motion_changes_exactly_where_it_is_said_to_change() {
        let mut at = BootTime(0);
        let mut level = motion(3, at);
        for _ in 0..200 {
            let (next, after) = next_motion(3, at);
            assert!(next > at);
            assert_eq!(motion(3, BootTime(next.0 - 1)), level, "before {next:?}");
            assert_eq!(motion(3, next), after, "at {next:?}");
            assert_ne!(after, level);
            (at, level) = (next, after);
        }
        assert!(at.0 > 90 * MOTION_SPAN, "two changes in each span");
    }
}
