//! `median`, `min`, `max`, `quantile`, `sliding_window_moving_average`: one number of the last few.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Example, Filter, FilterType, Given, MAX_WINDOW, Shape, Step, Why, between};
use crate::clock::BootTime;
use crate::options::OptionInfo;
use crate::reading::{Finite, Value};

const WINDOW: OptionInfo = OptionInfo {
    name: "window",
    values: "1 to 1000",
    default: None,
    help: "How many of the last values are looked at.",
};

const SEND_EVERY: OptionInfo = OptionInfo {
    name: "send_every",
    values: "1 to 1000",
    default: Some("1"),
    help: "After how many values one goes out.",
};

const SEND_FIRST_AT: OptionInfo = OptionInfo {
    name: "send_first_at",
    values: "1 to `send_every`",
    default: Some("1"),
    help: "After how many the first one does.",
};

const NOTES: &str = "While there are fewer values than `window`, those that there are count. What goes out has the time \
                     of the newest value. The window starts anew at each start of vigie, not after a fault of the sensor.";

/// Some noise, and two values that are far off.
const NOISY: Example =
    Example { every: 1, values: &[20.0, 21.0, 20.5, 29.0, 20.8, 21.2, 21.0, 20.4, 14.0, 20.9, 21.5, 21.1, 20.7, 21.3] };

const fn filter_type(
    name: &'static str,
    summary: &'static str,
    sample: &'static str,
    parse: fn(&Given<'_, '_>) -> Option<Box<dyn Filter>>,
) -> FilterType {
    FilterType {
        name,
        summary,
        notes: NOTES,
        options: &[WINDOW, SEND_EVERY, SEND_FIRST_AT],
        bare: Some("window"),
        sample,
        example: NOISY,
        parse,
    }
}

pub(super) static MEDIAN: FilterType =
    filter_type("median", "The median of the last values", "median = 3", |given| parse(given, Statistic::Median));

pub(super) static MIN: FilterType =
    filter_type("min", "The least of the last values", "min = { window = 4, send_every = 2 }", |given| {
        parse(given, Statistic::Min)
    });

pub(super) static MAX: FilterType =
    filter_type("max", "The greatest of the last values", "max = { window = 4, send_every = 2 }", |given| {
        parse(given, Statistic::Max)
    });

pub(super) static MEAN: FilterType = filter_type(
    "sliding_window_moving_average",
    "The mean of the last values",
    "sliding_window_moving_average = { window = 4, send_every = 2, send_first_at = 2 }",
    |given| parse(given, Statistic::Mean),
);

pub(super) static QUANTILE: FilterType = FilterType {
    options: &[
        WINDOW,
        OptionInfo {
            name: "quantile",
            values: "number above 0, up to 1",
            default: Some("0.9"),
            help: "The share of the values that are not above the one that goes out (nearest rank).",
        },
        SEND_EVERY,
        SEND_FIRST_AT,
    ],
    ..filter_type("quantile", "A quantile of the last values", "quantile = { window = 5, quantile = 0.75 }", |given| {
        let quantile = given.optional::<f64>("quantile").unwrap_or(0.9);
        if !(quantile > 0.0 && quantile <= 1.0) {
            given.problem("quantile", "is out of range", Some("expected a number above 0, up to 1".to_owned()));
        }
        parse(given, Statistic::Quantile(Finite::new(quantile)?))
    })
};

#[derive(Clone, Copy, Debug)]
enum Statistic {
    Median,
    Min,
    Max,
    Quantile(Finite),
    Mean,
}

#[derive(Clone, Debug)]
struct Sliding {
    statistic: Statistic,
    window: u16,
    pace: Pace,
    values: VecDeque<f64>,
}

/// One goes out after so many.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    send_every: u16,
    send_first_at: u16,
    since: u16,
}

impl Pace {
    pub(super) fn parse(given: &Given<'_, '_>) -> Self {
        let send_every = given.optional_in("send_every", 1..=MAX_WINDOW).unwrap_or(1);
        let send_first_at = given.optional_in("send_first_at", 1..=send_every).unwrap_or(1);
        Self { send_every, send_first_at, since: send_every - send_first_at }
    }

    /// Counts a value; why nothing goes out with it, if nothing does.
    pub(super) fn holds(&mut self) -> Option<Why> {
        self.since += 1;
        if self.since >= self.send_every {
            self.since = 0;
            return None;
        }
        let left = self.send_every - self.since;
        Some(Why::with("it counts, but goes out only with the next {}", f64::from(left)))
    }

    /// See [`Filter::pace`].
    pub(super) fn of(&self, input: Option<Duration>) -> Option<Duration> {
        input.map(|input| input.saturating_mul(self.send_every.into()))
    }

    pub(super) fn settings(&self) -> String {
        format!("send_every = {}, send_first_at = {}", self.send_every, self.send_first_at)
    }
}

fn parse(given: &Given<'_, '_>, statistic: Statistic) -> Option<Box<dyn Filter>> {
    let window = given.required_in("window", 1..=MAX_WINDOW);
    let pace = Pace::parse(given);
    Some(Box::new(Sliding { statistic, window: window?, pace, values: VecDeque::new() }))
}

impl Statistic {
    /// Of at least one value.
    fn of(self, values: &VecDeque<f64>) -> f64 {
        let nth = |n: usize| {
            let mut sorted: Vec<f64> = values.iter().copied().collect();
            *sorted.select_nth_unstable_by(n, f64::total_cmp).1
        };
        match self {
            Self::Median => median(values.iter().copied()),
            Self::Min => values.iter().copied().fold(f64::INFINITY, f64::min),
            Self::Max => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Self::Quantile(quantile) => {
                #[expect(
                    clippy::cast_precision_loss,
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "at most MAX_WINDOW values"
                )]
                let rank = (values.len() as f64 * quantile.get()).ceil() as usize;
                nth(rank.clamp(1, values.len()) - 1)
            }
            Self::Mean => {
                #[expect(clippy::cast_precision_loss, reason = "at most MAX_WINDOW values")]
                let count = values.len() as f64;
                // Divided first: the sum of a few large numbers may be infinite.
                values.iter().map(|value| value / count).sum()
            }
        }
    }
}

/// The median of at least one number: of an even count, the mean of the two in the middle.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    let even = sorted.len().is_multiple_of(2);
    let middle = sorted.len() / 2;
    let (below, upper, _) = sorted.select_nth_unstable_by(middle, f64::total_cmp);
    match below.iter().copied().max_by(f64::total_cmp) {
        Some(lower) if even => lower / 2.0 + *upper / 2.0,
        _ => *upper,
    }
}

impl Filter for Sliding {
    fn shape(&self, input: Shape) -> Result<Shape, String> {
        input.numbers()
    }

    fn take(&mut self, value: Value, _: BootTime) -> Step {
        let Value::Number(number) = value else { return Step::Pass(value) };
        if self.values.len() >= usize::from(self.window) {
            self.values.pop_front();
        }
        self.values.push_back(number.get());
        match self.pace.holds() {
            Some(why) => Step::Hold(why),
            None => Step::Pass(between(self.statistic.of(&self.values))),
        }
    }

    fn pace(&self, input: Option<Duration>) -> Option<Duration> {
        self.pace.of(input)
    }

    fn settings(&self) -> String {
        let quantile = match self.statistic {
            Statistic::Quantile(quantile) => format!("quantile = {quantile}, "),
            _ => String::new(),
        };
        format!("{{ window = {}, {quantile}{} }}", self.window, self.pace.settings())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_even_and_odd_counts() {
        assert_eq!(median([3.0].into_iter()), 3.0);
        assert_eq!(median([3.0, 1.0].into_iter()), 2.0);
        assert_eq!(median([9.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 3.0, 2.0].into_iter()), 2.5);
        assert_eq!(median([f64::MAX, f64::MAX].into_iter()), f64::MAX);
    }

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let values: VecDeque<f64> = (1..=10).map(f64::from).collect();
        let of = |quantile| Statistic::Quantile(Finite::new(quantile).expect("finite")).of(&values);
        assert_eq!((of(0.9), of(1.0), of(0.01), of(0.5), of(0.51)), (9.0, 10.0, 1.0, 5.0, 6.0));
    }

    #[test]
    fn the_first_goes_out_when_it_is_to_and_then_one_of_so_many() {
        let mut pace = Pace { send_every: 4, send_first_at: 2, since: 2 };
        let out: Vec<bool> = (0..10).map(|_| pace.holds().is_none()).collect();
        assert_eq!(out, [false, true, false, false, false, true, false, false, false, true]);
    }
}
