//! `throttle`: the first value of each period.

use std::time::Duration;

use super::{Example, Filter, FilterType, Given, MAX_LIST, Shape, Step, Why, seconds, show, show_list};
use crate::clock::BootTime;
use crate::options::OptionInfo;
use crate::reading::{Finite, Value};

pub(super) static FILTER: FilterType = FilterType {
    name: "throttle",
    summary: "Lets at most one value pass in each period: the first",
    notes: "Values in between are dropped, not averaged: see `throttle_average`.",
    options: &[
        OptionInfo {
            name: "period",
            values: "duration, `\"1ms\"` to a year",
            default: None,
            help: "At least so long after the last value that passed.",
        },
        OptionInfo {
            name: "priority",
            values: "list of up to 64 numbers",
            default: Some("none"),
            help: "Values that pass in any case, such as 0 for a motor that stands still; the period then begins anew.",
        },
    ],
    bare: Some("period"),
    sample: "throttle = \"5s\"",
    example: Example { every: 1, values: &[20.0, 21.0, 22.0, 23.0, 24.0, 25.0, 24.0, 23.0, 22.0, 21.0, 20.0, 19.0] },
    parse,
};

#[derive(Clone, Debug)]
struct Throttle {
    period: Duration,
    priority: Vec<Finite>,
    passed: Option<BootTime>,
}

fn parse(given: &Given<'_, '_>) -> Option<Box<dyn Filter>> {
    let period = given.required_period("period");
    let priority: Vec<Finite> =
        given.optional::<Vec<f64>>("priority").unwrap_or_default().into_iter().filter_map(Finite::new).collect();
    if priority.len() > MAX_LIST {
        given.problem("priority", format!("has more than {MAX_LIST} entries"), None);
    }
    Some(Box::new(Throttle { period: period?, priority, passed: None }))
}

impl Filter for Throttle {
    fn shape(&self, input: Shape) -> Result<Shape, String> {
        if self.priority.is_empty() { Ok(input) } else { input.numbers() }
    }

    fn take(&mut self, value: Value, at: BootTime) -> Step {
        let urgent = matches!(&value, Value::Number(number) if self.priority.contains(number));
        if let Some(passed) = self.passed
            && !urgent
            && at.since(passed) < self.period
        {
            return Step::Hold(Why::with("the last passed {} s before", seconds(at.since(passed))));
        }
        self.passed = Some(at);
        Step::Pass(value)
    }

    fn pace(&self, input: Option<Duration>) -> Option<Duration> {
        Some(input?.max(self.period))
    }

    fn settings(&self) -> String {
        if self.priority.is_empty() {
            return show(self.period);
        }
        format!("{{ period = {}, priority = {} }}", show(self.period), show_list(self.priority.iter().copied()))
    }
}
