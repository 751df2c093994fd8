//! `rate_of_change`: how fast a value moves.

use std::time::Duration;

use super::{Example, Filter, FilterType, Given, Shape, Step, Why, seconds, show};
use crate::clock::BootTime;
use crate::options::OptionInfo;
use crate::reading::Value;

pub(super) static FILTER: FilterType = FilterType {
    name: "rate_of_change",
    summary: "How fast the value moves: the difference of the last two, by the time between them",
    notes: "The first value gives none, nor does the first after a fault of the sensor. The unit becomes the quantity's by \
            that time, such as °C/min, unless the quantity has a `unit` of its own. Noise is magnified: a \
            `sliding_window_moving_average` before it helps.",
    options: &[OptionInfo {
        name: "per",
        values: "duration, `\"1ms\"` to a year",
        default: Some("`\"1s\"`"),
        help: "The time to which the change is related.",
    }],
    bare: Some("per"),
    sample: "rate_of_change = \"1s\"",
    example: Example { every: 2, values: &[20.0, 20.0, 22.0, 24.0, 26.0, 26.0, 26.0, 23.0, 20.0] },
    parse,
};

#[derive(Clone, Debug)]
struct Rate {
    per: Duration,
    last: Option<(f64, BootTime)>,
}

fn parse(given: &Given<'_, '_>) -> Option<Box<dyn Filter>> {
    Some(Box::new(Rate { per: given.period("per").unwrap_or(Duration::from_secs(1)), last: None }))
}

/// A period as the lower half of a unit: `h`, `min`, `s`, `10s`.
pub(super) fn unit(per: Duration) -> String {
    match per.as_millis() {
        1_000 => "s".to_owned(),
        60_000 => "min".to_owned(),
        3_600_000 => "h".to_owned(),
        86_400_000 => "d".to_owned(),
        _ => show(per).trim_matches('"').to_owned(),
    }
}

impl Filter for Rate {
    fn shape(&self, input: Shape) -> Result<Shape, String> {
        let shape = input.numbers()?;
        let unit = shape.unit.map(|of| format!("{of}/{}", unit(self.per)).into());
        Ok(Shape { unit, ..shape })
    }

    fn take(&mut self, value: Value, at: BootTime) -> Step {
        let Value::Number(number) = value else { return Step::Pass(value) };
        let Some((last, when)) = self.last else {
            self.last = Some((number.get(), at));
            return Step::Hold(Why::plain("there is none before it to compare it with"));
        };
        let past = seconds(at.since(when));
        if past <= 0.0 {
            return Step::Hold(Why::plain("no time has passed since the one before it"));
        }
        self.last = Some((number.get(), at));
        match Value::number((number.get() - last) / past * seconds(self.per)) {
            Some(rate) => Step::Pass(rate),
            None => Step::Reject(format!("the step from {last} to {number} is too large for a rate")),
        }
    }

    fn interrupted(&mut self) {
        self.last = None;
    }

    fn pace(&self, input: Option<Duration>) -> Option<Duration> {
        input
    }

    fn settings(&self) -> String {
        show(self.per)
    }
}
