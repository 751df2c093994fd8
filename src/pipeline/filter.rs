//! Filters: what stands between a measured value and what is published of it.
//!
//! A filter is one file below `filter/` with a [`FilterType`] and its line in [`FILTERS`]; `docs/filters.md` is made
//! from that. It sees a value and the time at which it was measured, and nothing else.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::clock::BootTime;
use crate::options::{FromToml, OptionInfo};
use crate::reading::{Finite, Kind, Value};

mod aggregate;
mod arithmetic;
mod calibrate;
mod clamp;
mod debounce;
mod delta;
pub mod docs;
mod exponential;
mod expression;
mod filter_out;
mod given;
mod heartbeat;
mod hysteresis;
mod integral;
mod outlier;
mod rate;
mod round;
mod skip_initial;
mod sliding;
mod throttle;
mod throttle_average;
mod timeout;

pub use aggregate::Part;
pub use arithmetic::{multiply, offset};
pub use delta::{Deadband, delta};
pub use given::{Given, Placed, list};
pub use round::{MAX_DIGITS, digits};

/// The most values that a filter looks back on: eight bytes each.
pub const MAX_WINDOW: u16 = 1000;

/// The most points of a calibration, values to filter out, and the like.
pub const MAX_LIST: usize = 64;

/// The most filters in a row of one quantity.
pub const MAX_FILTERS: usize = 16;

/// The most bytes that a filter keeps across restarts.
pub const MAX_FILTER_KEPT: usize = 64;

/// All filters, those that change a value first, then those that hold values back, then those that remember.
pub static FILTERS: &[&FilterType] = &[
    &arithmetic::OFFSET,
    &arithmetic::MULTIPLY,
    &calibrate::LINEAR,
    &calibrate::POLYNOMIAL,
    &expression::FILTER,
    &round::FILTER,
    &clamp::FILTER,
    &filter_out::FILTER,
    &skip_initial::FILTER,
    &outlier::FILTER,
    &delta::FILTER,
    &throttle::FILTER,
    &debounce::FILTER,
    &heartbeat::FILTER,
    &timeout::FILTER,
    &sliding::MEDIAN,
    &sliding::MIN,
    &sliding::MAX,
    &sliding::QUANTILE,
    &sliding::MEAN,
    &exponential::FILTER,
    &throttle_average::FILTER,
    &aggregate::FILTER,
    &hysteresis::FILTER,
    &rate::FILTER,
    &integral::FILTER,
];

/// A kind of filter: how it is configured, and what people should know of it.
#[derive(Debug)]
pub struct FilterType {
    /// Its name in TOML.
    pub name: &'static str,
    /// What it does, in a few words.
    pub summary: &'static str,
    /// What else is to be known. Markdown.
    pub notes: &'static str,
    /// Its options.
    pub options: &'static [OptionInfo],
    /// The option that a value alone stands for: `throttle = "10s"` is `throttle = { period = "10s" }`.
    pub bare: Option<&'static str>,
    /// The filter as one writes it, for the documentation.
    pub sample: &'static str,
    /// What goes in where the documentation shows it at work.
    pub example: Example,
    /// Reads its options. `None` only where a problem was noted.
    pub parse: fn(&Given<'_, '_>) -> Option<Box<dyn Filter>>,
}

/// Values to show a filter at work with.
#[derive(Debug)]
pub struct Example {
    /// Seconds between two values.
    pub every: u16,
    /// The values; NaN: none came.
    pub values: &'static [f64],
}

/// What a quantity is at some place between its filters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How its values are treated.
    pub kind: Kind,
    /// Their unit.
    pub unit: Option<Box<str>>,
    /// The quantities into which a filter has divided it; none where it is still one.
    pub parts: Vec<Part>,
}

impl Shape {
    /// The same, if it is of numbers.
    ///
    /// # Errors
    /// What it is instead.
    pub fn numbers(self) -> Result<Self, String> {
        match self.kind {
            Kind::Number | Kind::Event => Ok(self),
            Kind::Switch => Err("is for numbers, but what comes to it is a switch".to_owned()),
            Kind::Text => Err("is for numbers, but what comes to it is a text".to_owned()),
            Kind::Bytes => Err("is for numbers, but what comes to it are bytes".to_owned()),
        }
    }
}

/// What a filter makes of a value that comes to it.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// This goes on, with the time of the value that came.
    Pass(Value),
    /// Nothing goes on now.
    Hold(Why),
    /// The value cannot be used, and that is no intention of the configuration: it is counted and logged.
    Reject(String),
}

/// What a filter does by itself when time has passed.
#[derive(Clone, Debug, PartialEq)]
pub enum Due {
    /// Nothing after all.
    Nothing,
    /// This goes on, measured at that time.
    Value(BootTime, Value),
    /// These go on together, as the parts that [`Filter::shape`] told of.
    Parts(BootTime, Vec<(Part, Value)>),
    /// No value has come for too long: a fault of the sensor, until one comes.
    Absent(String),
}

/// Why a value is held back: a sentence in which `{}` stands for the number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Why(pub &'static str, pub Option<f64>);

impl Why {
    /// A reason without a number.
    #[must_use]
    pub fn plain(text: &'static str) -> Self {
        Self(text, None)
    }

    /// A reason with one.
    #[must_use]
    pub fn with(text: &'static str, number: f64) -> Self {
        Self(text, Some(number))
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.1, self.0.split_once("{}")) {
            (Some(number), Some((before, after))) => write!(f, "{before}{number}{after}"),
            _ => f.write_str(self.0),
        }
    }
}

/// A filter with its settings and what it remembers. A fresh one has only its settings: each quantity gets a copy.
///
/// [`tick`](Self::tick) is called for all that is due before a value comes, so that what a filter does does not depend
/// on when its timer is served.
pub trait Filter: fmt::Debug + Copied + Send + Sync {
    /// What comes out where that goes in.
    ///
    /// # Errors
    /// Why it cannot stand there, as the rest of a sentence that begins with its name.
    fn shape(&self, input: Shape) -> Result<Shape, String>;

    /// Takes a value measured at `at`.
    fn take(&mut self, value: Value, at: BootTime) -> Step;

    /// When it wants to do something by itself.
    fn next_due(&self) -> Option<BootTime> {
        None
    }

    /// It is `now`, and [`next_due`](Self::next_due) is not later. Afterwards `next_due` is later than it was, or
    /// `None`: after a long sleep, what is in arrears is caught up with few calls.
    fn tick(&mut self, now: BootTime) -> Due {
        let _ = now;
        Due::Nothing
    }

    /// Does it miss values, as [`Due::Absent`] told?
    fn misses(&self) -> bool {
        false
    }

    /// The sensor had a fault: what was before says nothing about what comes now.
    fn interrupted(&mut self) {}

    /// Each value goes through, changed or not, whatever came before: such filters may also stand where values must
    /// not be held back (events) or are divided.
    fn is_map(&self) -> bool {
        false
    }

    /// The longest time between two values that it lets go while the sensor works, where that is certain. `input`: the same
    /// of the values that come to it.
    fn pace(&self, input: Option<Duration>) -> Option<Duration> {
        input.filter(|_| self.is_map())
    }

    /// What is to be kept across a restart, at most [`MAX_FILTER_KEPT`] bytes; `None`: it starts anew.
    fn keep(&self) -> Option<Vec<u8>> {
        None
    }

    /// Goes on from what [`keep`](Self::keep) gave. `same_boot`: on the same boot clock. What cannot be read is as
    /// nothing.
    fn restore(&mut self, kept: &[u8], same_boot: bool) {
        let _ = (kept, same_boot);
    }

    /// Its settings with all defaults, as one would write them in TOML behind the name and the equals sign.
    fn settings(&self) -> String;
}

/// A filter's copy of itself, for each quantity.
pub trait Copied {
    /// The copy.
    fn copied(&self) -> Box<dyn Filter>;
}

impl<T: Filter + Clone + 'static> Copied for T {
    fn copied(&self) -> Box<dyn Filter> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn Filter> {
    fn clone(&self) -> Self {
        (**self).copied()
    }
}

/// Applies a function to a number. Anything else, which only an event may be, passes as it is.
fn map(value: Value, function: impl FnOnce(f64) -> f64) -> Step {
    let Value::Number(number) = value else { return Step::Pass(value) };
    match Value::number(function(number.get())) {
        Some(value) => Step::Pass(value),
        None => Step::Reject(format!("{number} gives no finite number")),
    }
}

/// The end of the window in which `at` lies: windows are multiples of their length on the boot clock, so that those of
/// several quantities end together.
fn window_end(at: BootTime, length: Duration) -> BootTime {
    let length = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX).max(1);
    BootTime((at.0 / length).saturating_add(1).saturating_mul(length))
}

/// A duration as one writes it in TOML.
fn show(duration: Duration) -> String {
    duration.show()
}

/// Seconds of a duration, for people and for rates.
fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// A mean or another number between finite ones, which rounding may have moved past the largest.
fn between(number: f64) -> Value {
    Value::Number(Finite::new(number.clamp(f64::MIN, f64::MAX)).unwrap_or(Finite::from(false)))
}

/// A list of numbers as in TOML.
fn show_list(numbers: impl IntoIterator<Item = Finite>) -> String {
    let numbers: Vec<String> = numbers.into_iter().map(|number| number.to_string()).collect();
    format!("[{}]", numbers.join(", "))
}

/// What is the matter with a list, if it is too long or empty.
fn bad_length(length: usize) -> Option<Cow<'static, str>> {
    match length {
        0 => Some("is empty".into()),
        length if length > MAX_LIST => Some(format!("has {length} entries, {MAX_LIST} at most").into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
