//! `hysteresis`: a number becomes a switch.

use std::time::Duration;

use super::{Example, Filter, FilterType, Given, Shape, Step, Why};
use crate::clock::BootTime;
use crate::options::OptionInfo;
use crate::reading::{Finite, Kind, Value};

pub(super) static FILTER: FilterType = FilterType {
    name: "hysteresis",
    summary: "Makes a switch of a number: on from an upper limit on, off from a lower one down",
    notes: "Between the limits the switch stays as it is; a first value that lies there is held back, because nobody \
            knows which it is. Each value gives the switch's state: put `delta = 0` behind it to publish only changes. It \
            starts anew at each start of vigie, not after a fault of the sensor.",
    options: &[
        OptionInfo { name: "upper", values: "number", default: None, help: "On from here up." },
        OptionInfo { name: "lower", values: "number up to `upper`", default: None, help: "Off from here down." },
    ],
    bare: None,
    sample: "hysteresis = { upper = 24, lower = 22 }",
    example: Example { every: 1, values: &[23.0, 21.0, 22.5, 23.5, 24.5, 23.5, 22.5, 23.5, 22.5, 21.5, 22.5, 23.5] },
    parse,
};

#[derive(Clone, Debug)]
struct Hysteresis {
    upper: Finite,
    lower: Finite,
    on: Option<bool>,
}

fn parse(given: &Given<'_, '_>) -> Option<Box<dyn Filter>> {
    let upper = given.required::<f64>("upper").and_then(Finite::new);
    let lower = given.required::<f64>("lower").and_then(Finite::new);
    if upper.zip(lower).is_some_and(|(upper, lower)| lower > upper) {
        given.problem("lower", "is above `upper`", None);
    }
    Some(Box::new(Hysteresis { upper: upper?, lower: lower?, on: None }))
}

impl Filter for Hysteresis {
    fn shape(&self, input: Shape) -> Result<Shape, String> {
        Ok(Shape { kind: Kind::Switch, unit: None, ..input.numbers()? })
    }

    fn take(&mut self, value: Value, _: BootTime) -> Step {
        let Value::Number(number) = value else { return Step::Pass(value) };
        if number >= self.upper {
            self.on = Some(true);
        } else if number <= self.lower {
            self.on = Some(false);
        }
        match self.on {
            Some(on) => Step::Pass(Value::Switch(on)),
            None => Step::Hold(Why::plain("it lies between the limits, and none has been reached yet")),
        }
    }

    fn pace(&self, input: Option<Duration>) -> Option<Duration> {
        input
    }

    fn settings(&self) -> String {
        format!("{{ upper = {}, lower = {} }}", self.upper, self.lower)
    }
}
