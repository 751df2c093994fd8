//! `exponential_moving_average`: a mean in which old values count ever less.

use std::time::Duration;

use super::sliding::Pace;
use super::{Example, Filter, FilterType, Given, Shape, Step, between};
use crate::clock::BootTime;
use crate::options::OptionInfo;
use crate::reading::{Finite, Value};

pub(super) static FILTER: FilterType = FilterType {
    name: "exponential_moving_average",
    summary: "A mean in which old values count ever less",
    notes: "What goes out is `alpha` times the value and `1 - alpha` times what went out before; the first value goes out \
            as it is. It remembers one number, however smooth it is. It starts anew at each start of vigie, not after a \
            fault of the sensor.",
    options: &[
        OptionInfo {
            name: "alpha",
            values: "number above 0, up to 1",
            default: Some("0.1"),
            help: "How much a new value counts.",
        },
        OptionInfo {
            name: "send_every",
            values: "1 to 1000",
            default: Some("1"),
            help: "After how many values one goes out.",
        },
        OptionInfo {
            name: "send_first_at",
            values: "1 to `send_every`",
            default: Some("1"),
            help: "After how many the first one does.",
        },
    ],
    bare: Some("alpha"),
    sample: "exponential_moving_average = 0.3",
    example: Example {
        every: 1,
        values: &[20.0, 20.0, 20.0, 25.0, 25.0, 25.0, 25.0, 25.0, 25.0, 25.0, 20.0, 20.0, 20.0],
    },
    parse,
};

#[derive(Clone, Debug)]
struct Exponential {
    alpha: Finite,
    pace: Pace,
    mean: Option<f64>,
}

fn parse(given: &Given<'_, '_>) -> Option<Box<dyn Filter>> {
    let alpha = given.optional::<f64>("alpha").unwrap_or(0.1);
    if !(alpha > 0.0 && alpha <= 1.0) {
        given.problem("alpha", "is out of range", Some("expected a number above 0, up to 1".to_owned()));
    }
    let pace = Pace::parse(given);
    Some(Box::new(Exponential { alpha: Finite::new(alpha)?, pace, mean: None }))
}

impl Filter for Exponential {
    fn shape(&self, input: Shape) -> Result<Shape, String> {
        input.numbers()
    }

    fn take(&mut self, value: Value, _: BootTime) -> Step {
        let Value::Number(number) = value else { return Step::Pass(value) };
        let alpha = self.alpha.get();
        let mean = self.mean.map_or(number.get(), |mean| alpha * number.get() + (1.0 - alpha) * mean);
        self.mean = Some(mean.clamp(f64::MIN, f64::MAX));
        match self.pace.holds() {
            Some(why) => Step::Hold(why),
            None => Step::Pass(between(mean)),
        }
    }

    fn pace(&self, input: Option<Duration>) -> Option<Duration> {
        self.pace.of(input)
    }

    fn settings(&self) -> String {
        format!("{{ alpha = {}, {} }}", self.alpha, self.pace.settings())
    }
}
