//! How often pulses come, from their own times.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::BootTime;

/// A pulse: when it came, and how many there were with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pulse {
    at: BootTime,
    number: u64,
}

/// So many ends of former looks are remembered.
const MARKS: usize = 2;

/// The frequency of pulses, asked for now and then.
///
/// It is a number of pulses divided by the time between the first and the last of them, never by the time between two
/// looks: that varies, and pulses that are told late would seem to come in a crowd.
#[derive(Debug)]
pub(crate) struct Rate {
    /// After so long without a pulse it is zero.
    standstill: Duration,
    last: Option<Pulse>,
    /// Since the last look.
    first_since: Option<BootTime>,
    looked: Option<BootTime>,
    /// The last pulses before former looks at which there were new ones; the newest in front.
    marks: VecDeque<Pulse>,
    number: u64,
    hertz: Option<f64>,
}

impl Rate {
    pub(crate) fn new(standstill: Duration) -> Self {
        Self {
            standstill,
            last: None,
            first_since: None,
            looked: None,
            marks: VecDeque::with_capacity(MARKS),
            number: 0,
            hertz: None,
        }
    }

    /// Pulses: one at that time, and those that were lost before it.
    pub(crate) fn add(&mut self, at: BootTime, pulses: u64) {
        self.number += pulses;
        self.last = Some(Pulse { at, number: self.number });
        self.first_since.get_or_insert(at);
    }

    /// In hertz; `None` as long as it cannot be known.
    pub(crate) fn look(&mut self, now: BootTime) -> Option<f64> {
        let looked = self.looked.replace(now)?;
        let window = now.since(looked);
        let Some(last) = self.last else { return Some(0.0) };
        self.hertz = match self.first_since.take() {
            None => self.without_a_pulse(now.since(last.at)),
            Some(first) => self.with_pulses(first, last, window),
        };
        self.hertz
    }

    /// None has come since the last look: it is at most as if one came now.
    fn without_a_pulse(&self, silence: Duration) -> Option<f64> {
        if silence >= self.standstill {
            return Some(0.0);
        }
        let most = silence.as_secs_f64().recip();
        self.hertz.map(|hertz| hertz.min(most))
    }

    fn with_pulses(&mut self, first: BootTime, last: Pulse, window: Duration) -> Option<f64> {
        let before = self.marks.front().copied();
        // From a pulse before the last look on, so that no interval is left out. Half a window back at least: of two
        // pulses close to each other on both sides of a look nothing follows for all the time around them.
        let from = self.marks.iter().find(|mark| last.at.since(mark.at) >= window / 2).copied();
        if self.marks.len() == MARKS {
            self.marks.pop_back();
        }
        self.marks.push_front(last);
        let new = last.number - before.map_or(0, |mark| mark.number);
        match from {
            // A single pulse ends an interval, however long that was.
            Some(from) if new == 1 || last.at.since(from.at) <= window * 3 => {
                Some(per_second(last.number - from.number, last.at.since(from.at)))
            }
            // Of a single pulse alone nothing follows.
            None if new == 1 && before.is_none() => None,
            // They begin anew after a pause, or there are too few: spread over the window.
            _ => Some(per_second(new, last.at.since(first).max(window))),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "more than 2^53 pulses do not come between two looks")]
fn per_second(pulses: u64, time: Duration) -> f64 {
    let rate = pulses as f64 / time.as_secs_f64();
    if rate.is_finite() { rate } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const STANDSTILL: Duration = Duration::from_secs(300);

    fn seconds(seconds: f64) -> BootTime {
        BootTime(Duration::from_secs_f64(seconds).as_nanos().try_into().expect("a short time"))
    }

    /// Looks at these times at pulses that are told as they come; gives what each look says.
    fn looks(pulses: &[f64], looks: &[f64]) -> Vec<Option<f64>> {
        let mut rate = Rate::new(STANDSTILL);
        let mut pulses = pulses.iter().peekable();
        looks
            .iter()
            .map(|look| {
                while let Some(at) = pulses.next_if(|at| *at <= look) {
                    rate.add(seconds(*at), 1);
                }
                rate.look(seconds(*look))
            })
            .collect()
    }

    fn near(found: Option<f64>, expected: f64) -> bool {
        found.is_some_and(|found| (found - expected).abs() <= expected * 1e-6)
    }

    #[test]
    fn nothing_is_known_at_once_and_without_pulses_it_is_zero() {
        assert_eq!(looks(&[], &[0.0, 10.0, 20.0]), [None, Some(0.0), Some(0.0)]);
    }

    #[test]
    fn late_looks_change_nothing() {
        let pulses: Vec<f64> = (0..400).map(|n| 0.05 + f64::from(n) * 0.1).collect();
        let found = looks(&pulses, &[0.0, 10.0, 20.3, 29.9, 40.0]);
        assert!(found[2..].iter().all(|rate| near(*rate, 10.0)), "{found:?}");
    }

    #[test]
    fn pulses_that_are_told_late_are_no_crowd() {
        let mut rate = Rate::new(STANDSTILL);
        rate.look(BootTime(0));
        for n in 1..=100 {
            rate.add(BootTime(n * SECOND / 10), 1);
        }
        rate.look(BootTime(10 * SECOND));
        // Nothing by the next look, and then twenty seconds' worth of them.
        rate.look(BootTime(20 * SECOND));
        for n in 101..=300 {
            rate.add(BootTime(n * SECOND / 10), 1);
        }
        assert!(near(rate.look(BootTime(30 * SECOND)), 10.0));
    }

    #[test]
    fn slow_pulses_keep_their_rate_between_them_and_fade() {
        // A meter with a pulse each 36 s.
        let pulses: Vec<f64> = (0..5).map(|n| 5.0 + f64::from(n) * 36.0).collect();
        let times: Vec<f64> = (0..60).map(|n| f64::from(n) * 10.0).collect();
        let found = looks(&pulses, &times);
        assert_eq!((found[1], found[4]), (None, None), "one pulse has no rate yet");
        assert!(found[5..=18].iter().all(|rate| near(*rate, 1.0 / 36.0)), "{found:?}");
        let after: Vec<f64> = found[19..].iter().map(|rate| rate.expect("known")).collect();
        assert!(after.is_sorted_by(|a, b| a >= b), "{after:?}");
        assert_eq!(after.last(), Some(&0.0), "at last it stands still");
    }

    #[test]
    fn two_pulses_close_together_are_no_storm() {
        // A rain gauge that tips twice within a second, before and after a look, or between two.
        for pulses in [[59.5, 60.5], [70.0, 71.0]] {
            let found = looks(&pulses, &[0.0, 60.0, 120.0, 180.0]);
            for rate in found.into_iter().flatten() {
                assert!(rate <= 2.0 / 60.0 + 1e-9, "{pulses:?}: {rate}");
            }
        }
    }

    #[test]
    fn a_tap_that_is_opened_is_not_spread_over_the_time_that_it_was_closed() {
        let mut pulses: Vec<f64> = (0..100).map(|n| f64::from(n) * 0.1).collect();
        pulses.extend((0..150).map(|n| 3605.05 + f64::from(n) * 0.1));
        let times: Vec<f64> = (0..363).map(|n| f64::from(n) * 10.0).collect();
        let found = looks(&pulses, &times);
        assert_eq!(found[200], Some(0.0));
        assert!(near(found[361], 5.0), "half of the window: {:?}", found[361]);
        assert!(near(found[362], 10.0), "{:?}", found[362]);
    }

    #[test]
    fn lost_pulses_count() {
        let mut rate = Rate::new(STANDSTILL);
        rate.look(BootTime(0));
        rate.add(BootTime(SECOND), 1);
        rate.look(BootTime(2 * SECOND));
        rate.add(BootTime(3 * SECOND), 20);
        assert!(near(rate.look(BootTime(4 * SECOND)), 10.0));
    }

    proptest! {
        #[test]
        fn a_steady_train_has_its_frequency_whenever_it_is_looked_at(
            hertz in 0.5..2_000.0_f64,
            waits in proptest::collection::vec(5.0..20.0_f64, 2..6),
        ) {
            let looked: Vec<f64> =
                std::iter::once(0.0).chain(waits.iter().scan(0.0, |at, wait| { *at += wait; Some(*at) })).collect();
            let end = looked.last().copied().unwrap_or_default();
            let pulses: Vec<f64> = (1..).map(|n| f64::from(n) / hertz).take_while(|at| *at < end).collect();
            for rate in &looks(&pulses, &looked)[2..] {
                prop_assert!(rate.is_some_and(|rate| (rate / hertz - 1.0).abs() < 1e-5), "{rate:?} for {hertz}");
            }
        }

        #[test]
        fn whatever_comes_it_is_a_number(
            steps in proptest::collection::vec((0..3_u64, 0..u64::MAX / 4096), 1..60),
        ) {
            let mut rate = Rate::new(STANDSTILL);
            let mut now = BootTime(0);
            for (what, step) in steps {
                now = BootTime(now.0 + step);
                match what {
                    0 => rate.add(now, 1),
                    1 => rate.add(BootTime(now.0.saturating_sub(step)), 3),
                    _ => if let Some(hertz) = rate.look(now) {
                        prop_assert!(hertz.is_finite() && hertz >= 0.0);
                    },
                }
            }
        }
    }
}
