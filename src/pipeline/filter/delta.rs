//! `delta`: only what has changed enough. The keys `change` and `heartbeat` of a sensor are the same filter.

use std::time::Duration;

use super::{Example, Filter, FilterType, Given, Shape, Step, Why, show};
use crate::clock::BootTime;
use crate::options::OptionInfo;
use crate::reading::{Finite, Value};

pub(super) static FILTER: FilterType = FilterType {
    name: "delta",
    summary: "Lets a value pass when it has changed enough since the last one that passed",
    notes: "At least one of `absolute` and `relative`; with both, a value must have moved by both. A text or a switch \
            passes when it is another one. The first value passes, and the first after a fault of the sensor. The keys \
            `change` and `heartbeat` of a sensor are the same filter, behind all others.",
    options: &[
        OptionInfo {
            name: "absolute",
            values: "number from 0 on",
            default: Some("none"),
            help: "By at least this much, in the quantity's unit; 0: by anything at all.",
        },
        OptionInfo {
            name: "relative",
            values: "number above 0 and below 1",
            default: Some("none"),
            help: "By at least this fraction of the last value that passed.",
        },
        OptionInfo {
            name: "heartbeat",
            values: "duration, `\"1ms\"` to a year",
            default: Some("never"),
            help: "A value passes in any case when it was measured so long after the last that passed.",
        },
    ],
    bare: Some("absolute"),
    sample: "delta = { absolute = 1, heartbeat = \"6s\" }",
    example: Example {
        every: 1,
        values: &[20.0, 20.2, 20.6, 21.1, 21.5, 22.3, 22.2, 22.0, 22.1, 22.3, 22.2, 22.1, 22.0, 20.9],
    },
    parse,
};

/// How far a value must move from the last one that passed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Deadband {
    /// By at least this much, in the quantity's unit; 0: by anything at all.
    Absolute(Finite),
    /// By at least this fraction of the last value that passed.
    Relative(Finite),
    /// By both.
    Both {
        /// As of `Absolute`.
        absolute: Finite,
        /// As of `Relative`.
        relative: Finite,
    },
}

/// 21.5 - 21.4 is a little less than 0.1 in binary; a step of just the deadband is meant to count.
const ROUNDING: f64 = 1.0 - 1e-9;

impl Deadband {
    /// Is `value` far enough from `last`? Anything but two numbers counts as soon as it differs.
    #[must_use]
    pub fn exceeded(self, last: &Value, value: &Value) -> bool {
        let (Value::Number(last), Value::Number(value)) = (last, value) else { return last != value };
        let moved = (value.get() - last.get()).abs();
        let fraction = |relative: Finite| relative.get() * last.get().abs();
        let band = match self {
            Self::Absolute(band) => band.get(),
            Self::Relative(relative) => fraction(relative),
            Self::Both { absolute, relative } => absolute.get().max(fraction(relative)),
        };
        moved > 0.0 && moved >= band * ROUNDING
    }
}

/// The filter by change.
#[must_use]
pub fn delta(deadband: Deadband, heartbeat: Option<Duration>) -> Box<dyn Filter> {
    Box::new(Delta { deadband, heartbeat, passed: None })
}

#[derive(Clone, Debug)]
struct Delta {
    deadband: Deadband,
    heartbeat: Option<Duration>,
    /// The last value that passed, and when it was measured.
    passed: Option<(Value, BootTime)>,
}

fn parse(given: &Given<'_, '_>) -> Option<Box<dyn Filter>> {
    let absolute = given.optional_in("absolute", 0.0..=f64::MAX).and_then(Finite::new);
    let relative = given.number("relative");
    if relative.is_some_and(|relative| relative.get() <= 0.0 || relative.get() >= 1.0) {
        let expected = "expected a fraction above 0 and below 1; 0.01 is one percent";
        given.problem("relative", "is out of range", Some(expected.to_owned()));
    }
    let heartbeat = given.period("heartbeat");
    let deadband = match (absolute, relative) {
        (Some(absolute), Some(relative)) => Deadband::Both { absolute, relative },
        (Some(absolute), None) => Deadband::Absolute(absolute),
        (None, Some(relative)) => Deadband::Relative(relative),
        (None, None) => {
            if !given.has("absolute") && !given.has("relative") {
                given.problem("absolute", "is not given, nor is `relative`: then nothing is asked for", None);
            }
            return None;
        }
    };
    Some(delta(deadband, heartbeat))
}

impl Filter for Delta {
    fn shape(&self, input: Shape) -> Result<Shape, String> {
        Ok(input)
    }

    fn take(&mut self, value: Value, at: BootTime) -> Step {
        if let Some((last, when)) = &self.passed
            && self.heartbeat.is_none_or(|heartbeat| at.since(*when) < heartbeat)
            && !self.deadband.exceeded(last, &value)
        {
            return Step::Hold(match last {
                Value::Number(last) => Why::with("it is too near to {}, the last that passed", last.get()),
                _ => Why::plain("it is the same as the last that passed"),
            });
        }
        self.passed = Some((value.clone(), at));
        Step::Pass(value)
    }

    fn interrupted(&mut self) {
        self.passed = None;
    }

    fn pace(&self, input: Option<Duration>) -> Option<Duration> {
        Some(input?.max(self.heartbeat?))
    }

    fn settings(&self) -> String {
        let (absolute, relative) = match self.deadband {
            Deadband::Absolute(band) => (Some(band), None),
            Deadband::Relative(fraction) => (None, Some(fraction)),
            Deadband::Both { absolute, relative } => (Some(absolute), Some(relative)),
        };
        let parts = [
            absolute.map(|band| format!("absolute = {band}")),
            relative.map(|fraction| format!("relative = {fraction}")),
            self.heartbeat.map(|heartbeat| format!("heartbeat = {}", show(heartbeat))),
        ];
        format!("{{ {} }}", parts.into_iter().flatten().collect::<Vec<String>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exceeded(deadband: Deadband, last: f64, value: f64) -> bool {
        let number = |number| Value::number(number).expect("finite");
        deadband.exceeded(&number(last), &number(value))
    }

    fn finite(number: f64) -> Finite {
        Finite::new(number).expect("finite")
    }

    #[test]
    fn absolute() {
        let band = Deadband::Absolute(finite(0.1));
        assert!(exceeded(band, 21.4, 21.5));
        assert!(!exceeded(band, 21.4, 21.49));
        assert!(exceeded(Deadband::Absolute(finite(0.0)), 1.0, 1.0001));
        assert!(!exceeded(Deadband::Absolute(finite(0.0)), 1.0, 1.0));
    }

    #[test]
    fn relative() {
        let band = Deadband::Relative(finite(0.001));
        assert!(exceeded(band, 1000.0, 1001.0));
        assert!(!exceeded(band, 1000.0, 1000.9));
        assert!(exceeded(Deadband::Relative(finite(0.5)), 0.0, 0.1), "from zero, anything is a change");
    }

    #[test]
    fn with_both_a_value_must_have_moved_by_both() {
        let band = Deadband::Both { absolute: finite(1.0), relative: finite(0.1) };
        assert!(!exceeded(band, 100.0, 105.0));
        assert!(!exceeded(band, 1.0, 1.5));
        assert!(exceeded(band, 100.0, 110.0) && exceeded(band, 1.0, 2.0));
    }

    #[test]
    fn other_values_count_as_soon_as_they_differ() {
        let band = Deadband::Absolute(finite(5.0));
        assert!(band.exceeded(&Value::Switch(true), &Value::Switch(false)));
        assert!(!band.exceeded(&Value::Text("a".into()), &Value::Text("a".into())));
    }
}
