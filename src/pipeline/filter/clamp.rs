//! `clamp`: holds values to a range, or drops what is outside of it.

use super::{Example, Filter, FilterType, Given, Shape, Step, Why, map};
use crate::clock::BootTime;
use crate::options::OptionInfo;
use crate::reading::{Finite, Value};

pub(super) static FILTER: FilterType = FilterType {
    name: "clamp",
    summary: "Holds values to a range, or drops those outside of it",
    notes: "At least one of `min` and `max`.",
    options: &[
        OptionInfo { name: "min", values: "number", default: Some("none"), help: "The lowest value that passes." },
        OptionInfo { name: "max", values: "number", default: Some("none"), help: "The highest." },
        OptionInfo {
            name: "ignore_out_of_range",
            values: "true or false",
            default: Some("false"),
            help: "Drop what is outside, instead of moving it to the edge of the range.",
        },
    ],
    bare: None,
    sample: "clamp = { min = 0, max = 30 }",
    example: Example { every: 1, values: &[20.0, 25.0, 36.0, 28.0, 12.0, -6.0, 4.0] },
    parse,
};

#[derive(Clone, Debug)]
struct Clamp {
    min: Option<Finite>,
    max: Option<Finite>,
    drop: bool,
}

fn parse(given: &Given<'_, '_>) -> Option<Box<dyn Filter>> {
    let clamp = Clamp {
        min: given.number("min"),
        max: given.number("max"),
        drop: given.optional("ignore_out_of_range").unwrap_or_default(),
    };
    if !given.has("min") && !given.has("max") {
        given.problem("min", "is not given, nor is `max`: then there is no range", None);
    }
    if clamp.min.zip(clamp.max).is_some_and(|(min, max)| min > max) {
        given.problem("min", "is above `max`", None);
    }
    Some(Box::new(clamp))
}

impl Filter for Clamp {
    fn shape(&self, input: Shape) -> Result<Shape, String> {
        input.numbers()
    }

    fn take(&mut self, value: Value, _: BootTime) -> Step {
        let Value::Number(number) = value else { return Step::Pass(value) };
        let outside = match (self.min, self.max) {
            (Some(min), _) if number < min => {
                Some((min, Why::with("it is below {}, the lowest that passes", min.get())))
            }
            (_, Some(max)) if number > max => {
                Some((max, Why::with("it is above {}, the highest that passes", max.get())))
            }
            _ => None,
        };
        match outside {
            None => Step::Pass(value),
            Some((_, why)) if self.drop => Step::Hold(why),
            Some((edge, _)) => map(value, |_| edge.get()),
        }
    }

    fn is_map(&self) -> bool {
        !self.drop
    }

    fn settings(&self) -> String {
        let bound = |name, bound: Option<Finite>| bound.map(|bound| format!("{name} = {bound}"));
        let drop = self.drop.then(|| "ignore_out_of_range = true".to_owned());
        let parts: Vec<String> = [bound("min", self.min), bound("max", self.max), drop].into_iter().flatten().collect();
        format!("{{ {} }}", parts.join(", "))
    }
}
