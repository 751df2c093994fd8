//! `throttle_average`: the mean of each period.

use std::time::Duration;

use super::{Due, Example, Filter, FilterType, Given, Shape, Step, Why, between, show, window_end};
use crate::clock::BootTime;
use crate::options::OptionInfo;
use crate::reading::Value;

pub(super) static FILTER: FilterType = FilterType {
    name: "throttle_average",
    summary: "The mean of the values of each period",
    notes: "The mean goes out at the end of the period, with that time; a period without a value gives nothing. Periods \
            are multiples of their length since the machine was started. One that was going on at a restart of vigie has \
            only the values since. See `aggregate` for more than the mean.",
    options: &[OptionInfo {
        name: "period",
        values: "duration, `\"1ms\"` to a year",
        default: None,
        help: "Length of a period.",
    }],
    bare: Some("period"),
    sample: "throttle_average = \"4s\"",
    example: Example {
        every: 1,
        values: &[20.0, 21.0, 22.0, 23.0, 26.0, 25.0, 26.0, 25.0, 20.0, f64::NAN, 21.0, f64::NAN, f64::NAN],
    },
    parse,
};

#[derive(Clone, Debug)]
struct ThrottleAverage {
    period: Duration,
    window: Option<Window>,
}

/// Values of a period that is not over.
#[derive(Clone, Debug)]
struct Window {
    end: BootTime,
    count: f64,
    mean: f64,
}

fn parse(given: &Given<'_, '_>) -> Option<Box<dyn Filter>> {
    Some(Box::new(ThrottleAverage { period: given.required_period("period")?, window: None }))
}

impl Filter for ThrottleAverage {
    fn shape(&self, input: Shape) -> Result<Shape, String> {
        input.numbers()
    }

    fn take(&mut self, value: Value, at: BootTime) -> Step {
        let Value::Number(number) = value else { return Step::Pass(value) };
        let period = self.period;
        let window = self.window.get_or_insert_with(|| Window { end: window_end(at, period), count: 0.0, mean: 0.0 });
        window.count += 1.0;
        // Divided first: the difference of two large numbers may be infinite.
        window.mean += number.get() / window.count - window.mean / window.count;
        window.mean = window.mean.clamp(f64::MIN, f64::MAX);
        Step::Hold(Why::plain("it counts for the mean of its period"))
    }

    fn next_due(&self) -> Option<BootTime> {
        self.window.as_ref().map(|window| window.end)
    }

    fn tick(&mut self, now: BootTime) -> Due {
        if self.next_due().is_none_or(|due| due > now) {
            return Due::Nothing;
        }
        self.window.take().map_or(Due::Nothing, |window| Due::Value(window.end, between(window.mean)))
    }

    fn pace(&self, input: Option<Duration>) -> Option<Duration> {
        Some(input?.max(self.period))
    }

    fn settings(&self) -> String {
        show(self.period)
    }
}
