//! `outlier`: values that do not fit those before them.
//!
//! The Hampel identifier: a value that is farther from the median of its neighbours than some times their median
//! absolute deviation is an outlier (F. R. Hampel, "The influence curve and its role in robust estimation", JASA 69,
//! 1974; as a filter of a series: R. K. Pearson, "Outliers in process modeling and identification", IEEE Transactions on
//! Control Systems Technology 10, 2002). Here the neighbours are the values before it, because those after it are not
//! known yet.

use std::collections::VecDeque;

use super::sliding::median;
use super::{Example, Filter, FilterType, Given, MAX_WINDOW, Shape, Step, Why};
use crate::clock::BootTime;
use crate::options::OptionInfo;
use crate::reading::{Finite, Value};

/// The median absolute deviation times this estimates the standard deviation of normal noise.
const NORMAL: f64 = 1.4826;

pub(super) static FILTER: FilterType = FilterType {
    name: "outlier",
    summary: "Drops values that do not fit those before them (Hampel identifier)",
    notes: "A value is dropped when it is farther from the median of the last `window` values than `threshold` times their \
            spread (1.4826 times the median absolute deviation, which is the standard deviation where the noise is \
            normal), and also farther than `floor`. What is dropped still counts as a neighbour of what follows, so that \
            a true step comes through after half a window. Until the window is full everything passes. Source: Hampel, \
            JASA 69 (1974); Pearson, IEEE Trans. Control Syst. Technol. 10 (2002).",
    options: &[
        OptionInfo {
            name: "floor",
            values: "number from 0 on",
            default: None,
            help: "A step up to this size is never an outlier: of a sensor that stands still the spread is 0, and its \
                   smallest step would be one.",
        },
        OptionInfo {
            name: "window",
            values: "3 to 1000",
            default: Some("7"),
            help: "How many values before it are looked at.",
        },
        OptionInfo {
            name: "threshold",
            values: "number above 0",
            default: Some("3"),
            help: "How many spreads are too far.",
        },
    ],
    bare: Some("floor"),
    sample: "outlier = { floor = 2, window = 5 }",
    example: Example {
        every: 1,
        values: &[20.0, 20.5, 20.2, 20.4, 20.1, 27.0, 20.3, 20.6, 20.2, 25.0, 25.2, 25.1, 25.3, 25.0, 25.2],
    },
    parse,
};

#[derive(Clone, Debug)]
struct Outlier {
    floor: Finite,
    window: u16,
    threshold: Finite,
    before: VecDeque<f64>,
}

fn parse(given: &Given<'_, '_>) -> Option<Box<dyn Filter>> {
    let floor = given.required_in("floor", 0.0..=f64::MAX).and_then(Finite::new);
    let window = given.optional_in("window", 3..=MAX_WINDOW).unwrap_or(7);
    let threshold = given.optional::<f64>("threshold").unwrap_or(3.0);
    if threshold <= 0.0 {
        given.problem("threshold", "is not above 0", None);
    }
    Some(Box::new(Outlier { floor: floor?, window, threshold: Finite::new(threshold)?, before: VecDeque::new() }))
}

impl Filter for Outlier {
    fn shape(&self, input: Shape) -> Result<Shape, String> {
        input.numbers()
    }

    fn take(&mut self, value: Value, _: BootTime) -> Step {
        let Value::Number(number) = value else { return Step::Pass(value) };
        let mut outlier = None;
        if self.before.len() >= usize::from(self.window) {
            let middle = median(self.before.iter().copied());
            let spread = NORMAL * median(self.before.iter().map(|value| (value - middle).abs()));
            let far = (number.get() - middle).abs();
            if far > self.floor.get() && far > self.threshold.get() * spread {
                outlier = Some(Why::with("it is too far from {}, the median of those before it", middle));
            }
            self.before.pop_front();
        }
        self.before.push_back(number.get());
        outlier.map_or(Step::Pass(value), Step::Hold)
    }

    fn settings(&self) -> String {
        format!("{{ floor = {}, window = {}, threshold = {} }}", self.floor, self.window, self.threshold)
    }
}
