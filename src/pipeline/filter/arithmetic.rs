//! `offset` and `multiply`: the simplest calibration.

use super::{Example, Filter, FilterType, Given, Shape, Step, map};
use crate::clock::BootTime;
use crate::options::OptionInfo;
use crate::reading::{Finite, Value};

pub(super) static OFFSET: FilterType = FilterType {
    name: "offset",
    summary: "Adds a number",
    notes: "The key `offset` of a quantity is the same filter, before those in `filters`.",
    options: &[OptionInfo { name: "by", values: "number", default: None, help: "What is added." }],
    bare: Some("by"),
    sample: "offset = -2",
    example: Example { every: 1, values: &[20.0, 21.0, 23.0, 22.0, 24.0, 25.0, 24.0] },
    parse: |given| parse(given, Arithmetic::Offset),
};

pub(super) static MULTIPLY: FilterType = FilterType {
    name: "multiply",
    summary: "Multiplies by a number",
    notes: "The key `multiply` of a quantity is the same filter, before `offset` and those in `filters`.",
    options: &[OptionInfo { name: "by", values: "number but 0", default: None, help: "The factor." }],
    bare: Some("by"),
    sample: "multiply = 0.5",
    example: Example { every: 1, values: &[20.0, 21.0, 23.0, 22.0, 24.0, 25.0, 24.0] },
    parse: |given| {
        let filter = parse(given, Arithmetic::Multiply)?;
        if given.number("by").is_some_and(|by| by.get() == 0.0) {
            given.problem("by", "is 0: every value would be 0", None);
        }
        Some(filter)
    },
};

/// Adds a number.
#[must_use]
pub fn offset(by: Finite) -> Box<dyn Filter> {
    Box::new(Arithmetic::Offset(by))
}

/// Multiplies by a number.
#[must_use]
pub fn multiply(by: Finite) -> Box<dyn Filter> {
    Box::new(Arithmetic::Multiply(by))
}

#[derive(Clone, Debug)]
enum Arithmetic {
    Offset(Finite),
    Multiply(Finite),
}

fn parse(given: &Given<'_, '_>, make: fn(Finite) -> Arithmetic) -> Option<Box<dyn Filter>> {
    let by = Finite::new(given.required::<f64>("by")?)?;
    Some(Box::new(make(by)))
}

impl Filter for Arithmetic {
    fn shape(&self, input: Shape) -> Result<Shape, String> {
        input.numbers()
    }

    fn take(&mut self, value: Value, _: BootTime) -> Step {
        map(value, |number| match self {
            Self::Offset(by) => number + by.get(),
            Self::Multiply(by) => number * by.get(),
        })
    }

    fn is_map(&self) -> bool {
        true
    }

    fn settings(&self) -> String {
        match self {
            Self::Offset(by) | Self::Multiply(by) => by.to_string(),
        }
    }
}
