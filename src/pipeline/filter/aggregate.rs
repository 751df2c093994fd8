//! `aggregate`: least, mean, greatest and number of the values of each window.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Due, Example, Filter, FilterType, Given, Shape, Step, Why, between, show, window_end};
use crate::clock::BootTime;
use crate::options::OptionInfo;
use crate::reading::{Kind, Value};

pub(super) static FILTER: FilterType = FilterType {
    name: "aggregate",
    summary: "Least, mean, greatest and number of the values of each window, in one message",
    notes: "Instead of the quantity `NAME` it publishes `NAME_min`, `NAME_mean`, `NAME_max` and `NAME_count`, together \
            (with `payload = \"sensor\"` in one message), at the end of the window and with that time; a topic that is \
            given outright gets the same endings. A window without a value gives nothing. Windows are multiples of their \
            length since the machine was started. Behind it only filters may stand that change each value by itself, \
            such as `round`; they leave `NAME_count` alone. What a window holds survives a restart of vigie, but not one \
            of the machine.",
    options: &[
        OptionInfo {
            name: "window",
            values: "duration, `\"1ms\"` to a year",
            default: None,
            help: "Length of a window.",
        },
        OptionInfo {
            name: "of",
            values: "list of `\"min\"`, `\"mean\"`, `\"max\"` and `\"count\"`",
            default: Some("all four"),
            help: "Which of them are published.",
        },
    ],
    bare: Some("window"),
    sample: "aggregate = { window = \"6s\", of = [\"min\", \"max\"] }",
    example: Example {
        every: 1,
        values: &[20.0, 21.0, 22.0, 23.0, 22.0, 21.0, 25.0, 26.0, 27.0, 26.0, 27.0, 28.0, 21.0, 20.0, 19.0],
    },
    parse,
};

/// A quantity into which an aggregate divides another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The least value of the window.
    Min,
    /// The mean of its values.
    Mean,
    /// The greatest.
    Max,
    /// How many there were: a number without a unit.
    Count,
}

const PARTS: [Part; 4] = [Part::Min, Part::Mean, Part::Max, Part::Count];

impl Part {
    /// The ending of its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Min => "min",
            Self::Mean => "mean",
            Self::Max => "max",
            Self::Count => "count",
        }
    }
}

#[derive(Clone, Debug)]
struct Aggregate {
    length: Duration,
    parts: Vec<Part>,
    window: Option<Window>,
}

/// What is known of a window that is not over.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Window {
    end: BootTime,
    count: u64,
    min: f64,
    mean: f64,
    max: f64,
}

fn parse(given: &Given<'_, '_>) -> Option<Box<dyn Filter>> {
    let length = given.required_period("window");
    let mut parts = PARTS.to_vec();
    if let Some(names) = given.optional::<Vec<String>>("of") {
        if names.is_empty() {
            given.problem("of", "is empty: nothing would be published", None);
        }
        if let Some(unknown) = names.iter().find(|name| PARTS.iter().all(|part| part.name() != name.as_str())) {
            let expected = "expected \"min\", \"mean\", \"max\" or \"count\"";
            given.problem("of", format!("cannot hold {unknown:?}"), Some(expected.to_owned()));
        }
        parts.retain(|part| names.iter().any(|name| name == part.name()));
    }
    Some(Box::new(Aggregate { length: length?, parts, window: None }))
}

impl Filter for Aggregate {
    fn shape(&self, input: Shape) -> Result<Shape, String> {
        Ok(Shape { parts: self.parts.clone(), kind: Kind::Number, ..input.numbers()? })
    }

    fn take(&mut self, value: Value, at: BootTime) -> Step {
        let Value::Number(number) = value else { return Step::Pass(value) };
        let (number, length) = (number.get(), self.length);
        let window = self.window.get_or_insert_with(|| Window {
            end: window_end(at, length),
            count: 0,
            min: number,
            mean: 0.0,
            max: number,
        });
        window.count += 1;
        #[expect(clippy::cast_precision_loss, reason = "nobody takes 2^53 values in a window")]
        let count = window.count as f64;
        window.min = window.min.min(number);
        window.max = window.max.max(number);
        // Divided first: the difference of two large numbers may be infinite.
        window.mean = (window.mean + (number / count - window.mean / count)).clamp(window.min, window.max);
        Step::Hold(Why::plain("it counts for what goes out at the end of its window"))
    }

    fn next_due(&self) -> Option<BootTime> {
        self.window.as_ref().map(|window| window.end)
    }

    fn tick(&mut self, now: BootTime) -> Due {
        if self.next_due().is_none_or(|due| due > now) {
            return Due::Nothing;
        }
        let Some(window) = self.window.take() else { return Due::Nothing };
        let values = self.parts.iter().map(|part| {
            #[expect(clippy::cast_precision_loss, reason = "nobody takes 2^53 values in a window")]
            let number = match part {
                Part::Min => window.min,
                Part::Mean => window.mean,
                Part::Max => window.max,
                Part::Count => window.count as f64,
            };
            (*part, between(number))
        });
        Due::Parts(window.end, values.collect())
    }

    fn keep(&self) -> Option<Vec<u8>> {
        postcard::to_allocvec(&self.window).ok()
    }

    fn restore(&mut self, kept: &[u8], same_boot: bool) {
        let usable = |window: &Window| {
            let ordered = window.min <= window.mean && window.mean <= window.max;
            ordered && window.min.is_finite() && window.max.is_finite() && window.count > 0
        };
        if same_boot {
            self.window = postcard::from_bytes::<Option<Window>>(kept).ok().flatten().filter(usable);
        }
    }

    fn pace(&self, input: Option<Duration>) -> Option<Duration> {
        Some(input?.max(self.length))
    }

    fn settings(&self) -> String {
        let parts: Vec<String> = self.parts.iter().map(|part| format!("{:?}", part.name())).collect();
        format!("{{ window = {}, of = [{}] }}", show(self.length), parts.join(", "))
    }
}
