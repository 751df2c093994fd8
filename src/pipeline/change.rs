//! The filter by change.

use crate::reading::{Finite, Value};

/// How far a value must move from the last *published* one to be published.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Deadband {
    /// By at least this much, in the quantity's unit; 0: by anything at all.
    Absolute(Finite),
    /// By at least this fraction of the last published value.
    Relative(Finite),
}

/// 21.5 - 21.4 is a little less than 0.1 in binary; a step of just the deadband is meant to count.
const ROUNDING: f64 = 1.0 - 1e-9;

impl Deadband {
    /// Is `value` far enough from `last`? Anything but two numbers counts as soon as it differs.
    #[must_use]
    pub fn exceeded(self, last: &Value, value: &Value) -> bool {
        let (Value::Number(last), Value::Number(value)) = (last, value) else { return last != value };
        let moved = (value.get() - last.get()).abs();
        let band = match self {
            Self::Absolute(band) => band.get(),
            Self::Relative(fraction) => fraction.get() * last.get().abs(),
        };
        moved > 0.0 && moved >= band * ROUNDING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exceeded(deadband: fn(Finite) -> Deadband, band: f64, last: f64, value: f64) -> bool {
        let number = |number| Value::number(number).expect("finite");
        deadband(Finite::new(band).expect("finite")).exceeded(&number(last), &number(value))
    }

    #[test]
    fn absolute() {
        assert!(exceeded(Deadband::Absolute, 0.1, 21.4, 21.5));
        assert!(!exceeded(Deadband::Absolute, 0.1, 21.4, 21.49));
        assert!(exceeded(Deadband::Absolute, 0.0, 1.0, 1.0001));
        assert!(!exceeded(Deadband::Absolute, 0.0, 1.0, 1.0));
    }

    #[test]
    fn relative() {
        assert!(exceeded(Deadband::Relative, 0.001, 1000.0, 1001.0));
        assert!(!exceeded(Deadband::Relative, 0.001, 1000.0, 1000.9));
        assert!(exceeded(Deadband::Relative, 0.5, 0.0, 0.1), "from zero, anything is a change");
    }

    #[test]
    fn other_values_count_as_soon_as_they_differ() {
        let band = Deadband::Absolute(Finite::new(5.0).expect("finite"));
        assert!(band.exceeded(&Value::Switch(true), &Value::Switch(false)));
        assert!(!band.exceeded(&Value::Text("a".into()), &Value::Text("a".into())));
    }
}
