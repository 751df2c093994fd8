//! `skip_initial`: the first values of a sensor that must warm up.

use std::time::Duration;

use super::{Example, Filter, FilterType, Given, Shape, Step, Why};
use crate::clock::BootTime;
use crate::options::OptionInfo;
use crate::reading::Value;

pub(super) static FILTER: FilterType = FilterType {
    name: "skip_initial",
    summary: "Drops the first values after the start",
    notes: "For sensors that must settle. It counts anew at each start of vigie, not after a fault of the sensor.",
    options: &[OptionInfo { name: "count", values: "1 to 65535", default: None, help: "How many values are dropped." }],
    bare: Some("count"),
    sample: "skip_initial = 3",
    example: Example { every: 1, values: &[35.0, 28.0, 24.0, 21.0, 21.0, 22.0, 21.0] },
    parse,
};

#[derive(Clone, Debug)]
struct SkipInitial {
    count: u16,
    left: u16,
}

fn parse(given: &Given<'_, '_>) -> Option<Box<dyn Filter>> {
    let count = given.required_in("count", 1..=u16::MAX)?;
    Some(Box::new(SkipInitial { count, left: count }))
}

impl Filter for SkipInitial {
    fn shape(&self, input: Shape) -> Result<Shape, String> {
        Ok(input)
    }

    fn take(&mut self, value: Value, _: BootTime) -> Step {
        let Some(left) = self.left.checked_sub(1) else { return Step::Pass(value) };
        self.left = left;
        Step::Hold(Why::with("it is one of the first; {} more are skipped", f64::from(left)))
    }

    fn pace(&self, input: Option<Duration>) -> Option<Duration> {
        input
    }

    fn settings(&self) -> String {
        self.count.to_string()
    }
}
