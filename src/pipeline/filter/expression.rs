//! `expression`: a formula for the odd case.
//!
//! The crate exmex reads and evaluates it: operators and functions on numbers, no loops, no memory, no access to
//! anything. What it is to compute with the value's unit is for whoever writes it.

use exmex::{Express, FlatEx};

use super::{Example, Filter, FilterType, Given, Shape, Step, map};
use crate::clock::BootTime;
use crate::options::OptionInfo;
use crate::reading::Value;

/// The longest expression, in bytes. It bounds both how deep it nests and how long it takes.
const MAX_EXPRESSION: usize = 256;

/// What the value is called.
const VARIABLE: &str = "x";

pub(super) static FILTER: FilterType = FilterType {
    name: "expression",
    summary: "A formula of the value, which it calls `x`",
    notes: "`+ - * / ^`, parentheses, `sqrt`, `exp`, `ln`, `log2`, `log10`, `sin`, `cos`, `tan`, `asin`, `acos`, `atan`, \
            `sinh`, `cosh`, `tanh`, `abs`, `signum`, `floor`, `ceil`, `round`, `trunc`, `fract`, `cbrt`, \
            `min(a, b)`, `max(a, b)`, `atan2(a, b)`, and the constants `PI`, `TAU` and `E`. A minus before a number \
            binds more tightly than `^`: `-2^2` is 4. A value for which the formula gives no finite number, such as \
            `1 / x` at 0, is rejected: it is counted and logged. A formula is checked at the start; what it makes of the \
            unit is not: set `unit`.",
    options: &[OptionInfo {
        name: "formula",
        values: "text up to 256 characters",
        default: None,
        help: "Such as `\"(x - 32) * 5 / 9\"`.",
    }],
    bare: Some("formula"),
    sample: "expression = \"min(x, 25) ^ 2 / 25\"",
    example: Example { every: 1, values: &[5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 25.0, 20.0] },
    parse,
};

#[derive(Clone, Debug)]
struct Expression {
    text: String,
    formula: FlatEx<f64>,
}

fn parse(given: &Given<'_, '_>) -> Option<Box<dyn Filter>> {
    let text = given.required::<String>("formula")?;
    match Expression::new(text) {
        Ok(filter) => Some(Box::new(filter)),
        Err(why) => {
            given.problem("formula", why, Some("expected a formula such as \"(x - 32) * 5 / 9\"".to_owned()));
            None
        }
    }
}

impl Expression {
    fn new(text: String) -> Result<Self, String> {
        if text.len() > MAX_EXPRESSION {
            return Err(format!("is longer than {MAX_EXPRESSION} bytes"));
        }
        if text.trim().is_empty() {
            return Err("is empty".to_owned());
        }
        let formula = FlatEx::<f64>::parse(&text).map_err(|why| format!("is no formula: {}", why.msg()))?;
        let variables = formula.var_names();
        if let Some(other) = variables.iter().find(|name| name.as_str() != VARIABLE) {
            return Err(format!("names `{other}`, which is neither the value `{VARIABLE}` nor a function"));
        }
        if variables.is_empty() {
            return Err(format!("does not use the value, `{VARIABLE}`"));
        }
        Ok(Self { text, formula })
    }
}

impl Filter for Expression {
    fn shape(&self, input: Shape) -> Result<Shape, String> {
        input.numbers()
    }

    fn take(&mut self, value: Value, _: BootTime) -> Step {
        // It was checked that it takes just the value.
        map(value, |number| self.formula.eval(&[number]).unwrap_or(f64::NAN))
    }

    fn is_map(&self) -> bool {
        true
    }

    fn settings(&self) -> String {
        format!("{:?}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str, number: f64) -> Option<f64> {
        let mut filter = Expression::new(text.to_owned()).expect("a formula");
        match filter.take(Value::number(number).expect("finite"), BootTime(0)) {
            Step::Pass(Value::Number(number)) => Some(number.get()),
            _ => None,
        }
    }

    #[test]
    fn formulas() {
        assert_eq!(of("(x - 32) * 5 / 9", 212.0), Some(100.0));
        assert_eq!(of("-x ^ 2 + 2 * x ^ 3", 2.0), Some(20.0));
        assert_eq!(of("max(x, 3) + min(x, 1)", 2.0), Some(4.0));
        assert_eq!(of("sqrt(x) + abs(-x) + PI - PI", 4.0), Some(6.0));
        assert_eq!(of("1 / x", 0.0), None);
    }

    #[test]
    fn what_the_documentation_names_is_there() {
        for name in FILTER.notes.split('`').filter(|word| word.len() > 1 && word.chars().all(char::is_alphanumeric)) {
            let constant = name.chars().all(char::is_uppercase);
            let call = if constant { format!("x + {name}") } else { format!("{name}(x)") };
            if name != "unit" {
                assert!(Expression::new(call.clone()).is_ok(), "{call}");
            }
        }
        assert!(of("atan2(x, 1)", 0.0).is_some());
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_a_formula_or_refused(
            text in "[x0-9+*/^().,a-e \\-πE]{0,40}|(sin|max|x|y|[(]|[)]|[,]|-|[*]| |1e9|[.]|\\{|\\}|é){0,30}",
            number in proptest::num::f64::NORMAL,
        ) {
            if let Ok(mut filter) = Expression::new(text) {
                let _ = filter.take(Value::number(number).expect("finite"), BootTime(0));
            }
        }
    }

    #[test]
    fn the_deepest_nesting_that_fits_is_no_trouble() {
        let depth = MAX_EXPRESSION / 2 - 1;
        let text = format!("{}x{}", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(of(&text, 3.0), Some(3.0));
        let _ = Expression::new(format!("{}x", "-".repeat(MAX_EXPRESSION - 1)));
    }
}
