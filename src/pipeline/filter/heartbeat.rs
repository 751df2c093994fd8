//! `heartbeat`: the last value again and again.

use std::time::Duration;

use super::{Due, Example, Filter, FilterType, Given, Shape, Step, Why, show, window_end};
use crate::clock::BootTime;
use crate::options::OptionInfo;
use crate::reading::Value;

pub(super) static FILTER: FilterType = FilterType {
    name: "heartbeat",
    summary: "Gives the last value again and again, at an even pace",
    notes: "For consumers that take silence for a failure. What is repeated keeps the time at which it was measured: \
            nothing is made to look fresher than it is. While the sensor has a fault nothing is repeated, nor are beats \
            made up for that fell into a sleep of the machine. To publish what changes, and at least now and then when \
            measured, `delta` with its `heartbeat` is the cheaper way.",
    options: &[
        OptionInfo {
            name: "period",
            values: "duration, `\"1ms\"` to a year",
            default: None,
            help: "Between two beats.",
        },
        OptionInfo {
            name: "optimistic",
            values: "true or false",
            default: Some("false"),
            help: "Let values pass as they come, too; without it they go out with the beats alone.",
        },
    ],
    bare: Some("period"),
    sample: "heartbeat = { period = \"3s\", optimistic = true }",
    example: Example {
        every: 1,
        values: &[f64::NAN, 20.0, f64::NAN, f64::NAN, f64::NAN, f64::NAN, f64::NAN, 23.0, 22.0, f64::NAN, f64::NAN],
    },
    parse,
};

#[derive(Clone, Debug)]
struct Heartbeat {
    period: Duration,
    optimistic: bool,
    last: Option<(Value, BootTime)>,
    next: Option<BootTime>,
}

fn parse(given: &Given<'_, '_>) -> Option<Box<dyn Filter>> {
    let period = given.required_period("period");
    let optimistic = given.optional("optimistic").unwrap_or_default();
    Some(Box::new(Heartbeat { period: period?, optimistic, last: None, next: None }))
}

impl Filter for Heartbeat {
    fn shape(&self, input: Shape) -> Result<Shape, String> {
        Ok(input)
    }

    fn take(&mut self, value: Value, at: BootTime) -> Step {
        self.last = Some((value.clone(), at));
        self.next = self.next.or_else(|| Some(window_end(at, self.period)));
        if self.optimistic { Step::Pass(value) } else { Step::Hold(Why::plain("it goes out with the next beat")) }
    }

    fn next_due(&self) -> Option<BootTime> {
        self.next
    }

    fn tick(&mut self, now: BootTime) -> Due {
        self.next = Some(window_end(now, self.period));
        self.last.clone().map_or(Due::Nothing, |(value, at)| Due::Value(at, value))
    }

    fn interrupted(&mut self) {
        (self.last, self.next) = (None, None);
    }

    fn pace(&self, _: Option<Duration>) -> Option<Duration> {
        Some(self.period)
    }

    fn settings(&self) -> String {
        format!("{{ period = {}, optimistic = {} }}", show(self.period), self.optimistic)
    }
}
