//! `debounce`: only what has stood for a while.

use std::time::Duration;

use super::{Due, Example, Filter, FilterType, Given, Shape, Step, Why, seconds, show};
use crate::clock::BootTime;
use crate::options::OptionInfo;
use crate::reading::Value;

pub(super) static FILTER: FilterType = FilterType {
    name: "debounce",
    summary: "Lets a value pass once no other has come for a while",
    notes: "The value goes out when the time is over, and keeps the time at which it was first measured. The same value \
            again does not begin the wait anew; another one takes its place. What waits while the sensor has a fault is \
            dropped.",
    options: &[OptionInfo {
        name: "quiet",
        values: "duration, `\"1ms\"` to a year",
        default: None,
        help: "For how long no other value may come.",
    }],
    bare: Some("quiet"),
    sample: "debounce = \"3s\"",
    example: Example {
        every: 1,
        values: &[20.0, 20.0, 20.0, 20.0, 25.0, 20.0, 25.0, 25.0, 25.0, 25.0, 25.0, f64::NAN, f64::NAN],
    },
    parse,
};

#[derive(Clone, Debug)]
struct Debounce {
    quiet: Duration,
    /// What waits, and when it was first measured.
    waits: Option<(Value, BootTime)>,
}

fn parse(given: &Given<'_, '_>) -> Option<Box<dyn Filter>> {
    Some(Box::new(Debounce { quiet: given.required_period("quiet")?, waits: None }))
}

impl Filter for Debounce {
    fn shape(&self, input: Shape) -> Result<Shape, String> {
        Ok(input)
    }

    fn take(&mut self, value: Value, at: BootTime) -> Step {
        if self.waits.as_ref().is_some_and(|(waits, _)| *waits == value) {
            return Step::Hold(Why::plain("the same value is waiting already"));
        }
        self.waits = Some((value, at));
        Step::Hold(Why::with("it waits until no other has come for {} s", seconds(self.quiet)))
    }

    fn next_due(&self) -> Option<BootTime> {
        self.waits.as_ref().map(|(_, since)| since.after(self.quiet))
    }

    fn tick(&mut self, now: BootTime) -> Due {
        if self.next_due().is_none_or(|due| due > now) {
            return Due::Nothing;
        }
        self.waits.take().map_or(Due::Nothing, |(value, since)| Due::Value(since, value))
    }

    fn interrupted(&mut self) {
        self.waits = None;
    }

    fn settings(&self) -> String {
        show(self.quiet)
    }
}
