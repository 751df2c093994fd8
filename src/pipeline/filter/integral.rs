//! `integral`: what a rate adds up to, such as energy from power.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Example, Filter, FilterType, Given, Shape, Step, rate, seconds, show};
use crate::clock::BootTime;
use crate::options::OptionInfo;
use crate::reading::Value;

pub(super) static FILTER: FilterType = FilterType {
    name: "integral",
    summary: "What a rate adds up to over time: W become Wh, L/min become L",
    notes: "Each value gives the total so far; the first ever gives 0. The total survives restarts of vigie and of the \
            machine as the totals of counters do: SIGKILL costs none of it, a power cut what was added within minutes. \
            The unit follows from the quantity's unless that has a `unit` of its own: `W` by hours is `Wh`, and a unit by \
            the same time (`L/min` by minutes) loses that. What happened while nothing was measured for longer than \
            `gap`, or while the machine was off, is not made up for. For the rate and its total, make a quantity \
            of its own for the total, with `of`.",
    options: &[
        OptionInfo {
            name: "per",
            values: "duration, `\"1ms\"` to a year",
            default: Some("`\"1h\"`"),
            help: "The time in the unit of the total.",
        },
        OptionInfo {
            name: "method",
            values: "`\"trapezoid\"`, `\"left\"` or `\"right\"`",
            default: Some("`\"trapezoid\"`"),
            help: "What held between two values: the mean of both, the earlier or the later.",
        },
        OptionInfo {
            name: "gap",
            values: "duration, `\"1ms\"` to a year",
            default: Some("`\"1h\"`"),
            help: "Between values that are farther apart nothing is added.",
        },
    ],
    bare: Some("per"),
    sample: "integral = \"10s\"",
    example: Example { every: 1, values: &[0.0, 0.0, 10.0, 10.0, 10.0, 10.0, 0.0, 0.0, 0.0, 5.0, 5.0, 5.0, 5.0] },
    parse,
};

#[derive(Clone, Copy, Debug)]
enum Method {
    Trapezoid,
    Left,
    Right,
}

const METHODS: [(&str, Method); 3] =
    [("trapezoid", Method::Trapezoid), ("left", Method::Left), ("right", Method::Right)];

#[derive(Clone, Debug)]
struct Integral {
    per: Duration,
    method: Method,
    gap: Duration,
    sum: Sum,
}

/// What is kept across restarts.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Sum {
    total: f64,
    /// What rounding has kept from the total: a small step is lost against a large total, and thousands of them are
    /// not small (Neumaier's summation).
    carry: f64,
    last: Option<(f64, BootTime)>,
}

fn parse(given: &Given<'_, '_>) -> Option<Box<dyn Filter>> {
    const HOUR: Duration = Duration::from_secs(3600);
    Some(Box::new(Integral {
        per: given.period("per").unwrap_or(HOUR),
        method: given.word("method", &METHODS).unwrap_or(Method::Trapezoid),
        gap: given.period("gap").unwrap_or(HOUR),
        sum: Sum::default(),
    }))
}

impl Sum {
    fn add(&mut self, step: f64) {
        let total = self.total + step;
        let lost =
            if self.total.abs() >= step.abs() { (self.total - total) + step } else { (step - total) + self.total };
        self.total = total;
        self.carry += lost;
    }

    fn value(&self) -> f64 {
        self.total + self.carry
    }
}

impl Filter for Integral {
    fn shape(&self, input: Shape) -> Result<Shape, String> {
        let shape = input.numbers()?;
        let per = rate::unit(self.per);
        let unit = shape.unit.map(|unit| match unit.strip_suffix(&format!("/{per}")) {
            Some(whole) => whole.into(),
            None if self.per == Duration::from_secs(3600) && ["W", "kW", "MW", "A", "mA"].contains(&&*unit) => {
                format!("{unit}h").into()
            }
            None => format!("{unit}·{per}").into(),
        });
        Ok(Shape { unit, ..shape })
    }

    fn take(&mut self, value: Value, at: BootTime) -> Step {
        let Value::Number(number) = value else { return Step::Pass(value) };
        let number = number.get();
        let mut sum = self.sum;
        if let Some((last, when)) = sum.last
            && at.since(when) <= self.gap
        {
            let held = match self.method {
                Method::Trapezoid => last / 2.0 + number / 2.0,
                Method::Left => last,
                Method::Right => number,
            };
            sum.add(held * seconds(at.since(when)) / seconds(self.per));
        }
        sum.last = Some((number, at));
        match Value::number(sum.value()) {
            Some(total) => {
                self.sum = sum;
                Step::Pass(total)
            }
            None => Step::Reject(format!("with {number} the total is no finite number any more")),
        }
    }

    fn keep(&self) -> Option<Vec<u8>> {
        postcard::to_allocvec(&self.sum).ok()
    }

    fn restore(&mut self, kept: &[u8], same_boot: bool) {
        let Ok(sum) = postcard::from_bytes::<Sum>(kept) else { return };
        if sum.value().is_finite() && sum.last.is_none_or(|(value, _)| value.is_finite()) {
            // Another boot clock says nothing about how long ago that was.
            self.sum = Sum { last: sum.last.filter(|_| same_boot), ..sum };
        }
    }

    fn pace(&self, input: Option<Duration>) -> Option<Duration> {
        input
    }

    fn settings(&self) -> String {
        let method = match self.method {
            Method::Trapezoid => "trapezoid",
            Method::Left => "left",
            Method::Right => "right",
        };
        format!("{{ per = {}, method = {method:?}, gap = {} }}", show(self.per), show(self.gap))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_steps_are_not_lost_against_a_large_total() {
        let mut sum = Sum { total: 1e16, ..Sum::default() };
        for _ in 0..1000 {
            sum.add(0.25);
        }
        assert_eq!(sum.value(), 1e16 + 250.0);
    }

    #[test]
    fn units_of_totals() {
        let integral = |per: u64| Integral {
            per: Duration::from_secs(per),
            method: Method::Left,
            gap: Duration::from_secs(1),
            sum: Sum::default(),
        };
        let of = |per, unit: &str| {
            let input = Shape { kind: crate::reading::Kind::Number, unit: Some(unit.into()), parts: Vec::new() };
            integral(per).shape(input).expect("numbers").unit.expect("a unit")
        };
        assert_eq!((&*of(3600, "W"), &*of(60, "L/min"), &*of(1, "W")), ("Wh", "L", "W·s"));
        assert_eq!((&*of(3600, "lx"), &*of(3600, "L/min")), ("lx·h", "L/min·h"));
    }
}
