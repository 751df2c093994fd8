//! `round`: fewer digits.

use super::{Example, Filter, FilterType, Given, Shape, Step, map};
use crate::clock::BootTime;
use crate::options::OptionInfo;
use crate::reading::{Finite, Value};

/// More digits after the point than these are noise in a double of everyday size.
pub const MAX_DIGITS: u8 = 12;

/// A double has no more significant digits than these.
const MAX_SIGNIFICANT: u8 = 15;

pub(super) static FILTER: FilterType = FilterType {
    name: "round",
    summary: "Rounds to digits, to significant digits, or to a multiple",
    notes: "Exactly one of the options. Half is rounded away from zero. The key `round` of a quantity is the same \
            filter with `digits`, behind those in `filters`.",
    options: &[
        OptionInfo {
            name: "digits",
            values: "0 to 12",
            default: Some("none"),
            help: "Digits after the decimal point.",
        },
        OptionInfo {
            name: "multiple",
            values: "number above 0",
            default: Some("none"),
            help: "To the nearest multiple of this, such as 0.25.",
        },
        OptionInfo {
            name: "significant",
            values: "1 to 15",
            default: Some("none"),
            help: "Digits in all, wherever the decimal point is.",
        },
    ],
    bare: Some("digits"),
    sample: "round = { multiple = 0.5 }",
    example: Example { every: 1, values: &[20.1, 20.2, 20.3, 20.6, 20.8, 21.1, 21.3, 20.9] },
    parse,
};

/// Rounds to so many digits after the point, at most [`MAX_DIGITS`].
#[must_use]
pub fn digits(digits: u8) -> Box<dyn Filter> {
    Box::new(Round::Digits(digits))
}

#[derive(Clone, Debug)]
enum Round {
    Digits(u8),
    Multiple(Finite),
    Significant(u8),
}

fn parse(given: &Given<'_, '_>) -> Option<Box<dyn Filter>> {
    let count = ["digits", "multiple", "significant"].iter().filter(|option| given.has(option)).count();
    let rounds = [
        given.optional_in("digits", 0..=MAX_DIGITS).map(Round::Digits),
        given.number("multiple").map(Round::Multiple),
        given.optional_in("significant", 1..=MAX_SIGNIFICANT).map(Round::Significant),
    ];
    if count != 1 {
        given.problem(
            if count == 0 { "digits" } else { "multiple" },
            "stands for one of `digits`, `multiple` and `significant`: give exactly one of them",
            None,
        );
        return None;
    }
    let round = rounds.into_iter().flatten().next()?;
    if let Round::Multiple(multiple) = round
        && multiple.get() <= 0.0
    {
        given.problem("multiple", "is not above 0", None);
        return None;
    }
    Some(Box::new(round))
}

/// Rounds half away from zero to so many digits behind the point, or before it. Numbers so large, or so small, that
/// scaling them overflows have no digits left to round.
fn to_digits(number: f64, digits: i32) -> f64 {
    // A power of ten with a negative exponent is not exact: dividing by its inverse is.
    let (scale, up) = (10_f64.powi(digits.abs()), digits >= 0);
    let scaled = if up { number * scale } else { number / scale }.round();
    let back = if up { scaled / scale } else { scaled * scale };
    if back.is_finite() { back } else { number }
}

impl Filter for Round {
    fn shape(&self, input: Shape) -> Result<Shape, String> {
        input.numbers()
    }

    fn take(&mut self, value: Value, _: BootTime) -> Step {
        map(value, |number| match self {
            Self::Digits(digits) => to_digits(number, i32::from(*digits)),
            Self::Multiple(multiple) => {
                let times = (number / multiple.get()).round() * multiple.get();
                if times.is_finite() { times } else { number }
            }
            Self::Significant(_) if number == 0.0 => number,
            Self::Significant(digits) => {
                #[expect(clippy::cast_possible_truncation, reason = "a double's exponent is below 400")]
                let magnitude = number.abs().log10().floor() as i32;
                to_digits(number, i32::from(*digits) - 1 - magnitude)
            }
        })
    }

    fn is_map(&self) -> bool {
        true
    }

    fn settings(&self) -> String {
        match self {
            Self::Digits(digits) => digits.to_string(),
            Self::Multiple(multiple) => format!("{{ multiple = {multiple} }}"),
            Self::Significant(digits) => format!("{{ significant = {digits} }}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_goes_away_from_zero() {
        assert_eq!((to_digits(2.5, 0), to_digits(-2.5, 0), to_digits(21.35, 1)), (3.0, -3.0, 21.4));
        assert_eq!(to_digits(1e300, 12), 1e300);
    }

    #[test]
    fn significant_digits_and_multiples() {
        let rounded = |mut round: Round, number| round.take(Value::number(number).expect("finite"), BootTime(0));
        let is = |number| Step::Pass(Value::number(number).expect("finite"));
        assert_eq!(rounded(Round::Significant(3), 12_345.0), is(12_300.0));
        assert_eq!(rounded(Round::Significant(3), -0.001_234_5), is(-0.001_23));
        assert_eq!(rounded(Round::Significant(2), 0.0), is(0.0));
        assert_eq!(rounded(Round::Multiple(Finite::new(0.25).expect("finite")), 21.4), is(21.5));
        assert_eq!(rounded(Round::Significant(15), 5e-324), is(5e-324));
    }
}
