//! `timeout`: absence becomes a fault.

use std::time::Duration;

use super::{Due, Example, Filter, FilterType, Given, Shape, Step, show};
use crate::clock::BootTime;
use crate::options::OptionInfo;
use crate::reading::Value;

pub(super) static FILTER: FilterType = FilterType {
    name: "timeout",
    summary: "Makes a fault of it when no value has come for too long",
    notes: "The sensor's availability then says `fault` with the reason `silent`, until a value comes to this place \
            again; its other quantities are published all the while. It counts from the first value on. Before filters \
            that hold values back it watches the sensor, behind them it watches what is left.",
    options: &[OptionInfo {
        name: "after",
        values: "duration, `\"1ms\"` to a year",
        default: None,
        help: "How long no value may come.",
    }],
    bare: Some("after"),
    sample: "timeout = \"3s\"",
    example: Example { every: 1, values: &[20.0, 21.0, 20.0, f64::NAN, f64::NAN, f64::NAN, f64::NAN, 21.0, 21.0] },
    parse,
};

#[derive(Clone, Debug)]
struct Timeout {
    after: Duration,
    due: Option<BootTime>,
    missed: bool,
}

fn parse(given: &Given<'_, '_>) -> Option<Box<dyn Filter>> {
    Some(Box::new(Timeout { after: given.required_period("after")?, due: None, missed: false }))
}

impl Filter for Timeout {
    fn shape(&self, input: Shape) -> Result<Shape, String> {
        Ok(input)
    }

    fn take(&mut self, value: Value, at: BootTime) -> Step {
        self.due = Some(at.after(self.after));
        self.missed = false;
        Step::Pass(value)
    }

    fn next_due(&self) -> Option<BootTime> {
        self.due
    }

    fn tick(&mut self, now: BootTime) -> Due {
        if self.due.is_none_or(|due| due > now) {
            return Due::Nothing;
        }
        self.due = None;
        self.missed = true;
        Due::Absent(format!("no value for {}", humantime::format_duration(self.after)))
    }

    fn misses(&self) -> bool {
        self.missed
    }

    fn pace(&self, input: Option<Duration>) -> Option<Duration> {
        // What takes longer is a fault.
        Some(input.map_or(self.after, |input| input.min(self.after)))
    }

    fn settings(&self) -> String {
        show(self.after)
    }
}
