//! `filter_out`: drops certain values.

use toml::de::DeValue;

use super::{Example, Filter, FilterType, Given, Shape, Step, Why, bad_length};
use crate::clock::BootTime;
use crate::options::{FromToml, OptionInfo};
use crate::reading::{Finite, Value};

pub(super) static FILTER: FilterType = FilterType {
    name: "filter_out",
    summary: "Drops certain values",
    notes: "For the values by which a device says that it has none, such as -127 or \"ERR\". Also for texts and switches. \
            NaN need not be filtered out: it is never a value.",
    options: &[
        OptionInfo {
            name: "values",
            values: "number, text or true/false, or a list of up to 64",
            default: None,
            help: "What is dropped.",
        },
        OptionInfo {
            name: "within",
            values: "number from 0 on",
            default: Some("0"),
            help: "Numbers that are so near to one of them are dropped, too.",
        },
    ],
    bare: Some("values"),
    sample: "filter_out = [-127, 85]",
    example: Example { every: 1, values: &[20.0, 21.0, -127.0, 21.0, 85.0, 22.0, 22.0] },
    parse,
};

#[derive(Clone, Debug)]
struct FilterOut {
    values: Vec<Value>,
    within: Finite,
}

fn parse(given: &Given<'_, '_>) -> Option<Box<dyn Filter>> {
    let within = given.optional_in("within", 0.0..=f64::MAX).and_then(Finite::new);
    let Some(raw) = given.raw("values") else {
        // Notes that it is missing.
        let _ = given.required::<f64>("values");
        return None;
    };
    let one = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Some(Value::Text(text.as_ref().into())),
        DeValue::Boolean(on) => Some(Value::Switch(*on)),
        _ => f64::from_toml(value).ok().and_then(Value::number),
    };
    let values: Option<Vec<Value>> = match raw.get_ref().as_array() {
        Some(list) => list.iter().map(|item| one(item.get_ref())).collect(),
        None => one(raw.get_ref()).map(|value| vec![value]),
    };
    let Some(values) = values else {
        let expected = "expected a number, a text, true or false, or a list of them";
        given.problem("values", "holds something that is no value", Some(expected.to_owned()));
        return None;
    };
    if let Some(why) = bad_length(values.len()) {
        given.problem("values", why, None);
        return None;
    }
    Some(Box::new(FilterOut { values, within: within.unwrap_or(Finite::from(false)) }))
}

impl Filter for FilterOut {
    fn shape(&self, input: Shape) -> Result<Shape, String> {
        Ok(input)
    }

    fn take(&mut self, value: Value, _: BootTime) -> Step {
        let is = |out: &Value| match (out, &value) {
            (Value::Number(out), Value::Number(number)) => (out.get() - number.get()).abs() <= self.within.get(),
            (out, value) => out == value,
        };
        if self.values.iter().any(is) {
            return Step::Hold(Why::plain("it is one of the values to filter out"));
        }
        Step::Pass(value)
    }

    fn settings(&self) -> String {
        let values: Vec<String> = self
            .values
            .iter()
            .map(|value| match value {
                Value::Number(number) => number.to_string(),
                Value::Switch(on) => on.to_string(),
                Value::Text(text) => format!("{text:?}"),
                Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
            })
            .collect();
        format!("{{ values = [{}], within = {} }}", values.join(", "), self.within)
    }
}
