//! A measured number as a sample: rounded to what the chip resolves, and within what it can measure.

use crate::drivers::QuantityInfo;
use crate::reading::{Fault, FaultCode, Kind, Sample, Value};

/// What a chip can measure of a quantity.
pub(crate) struct Scale {
    pub(crate) quantity: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Digits behind the point.
    pub(crate) decimals: i32,
}

impl Scale {
    /// The quantity, for the driver's documentation: `help` says range and accuracy in one sentence.
    pub(crate) const fn info(&self, help: &'static str) -> QuantityInfo {
        QuantityInfo { name: self.quantity, unit: Some(self.unit), kind: Kind::Number, help }
    }

    /// The rounded value.
    ///
    /// # Errors
    /// It is no number, or lies outside of the range.
    pub(crate) fn sample(&self, value: f64) -> Result<Sample, Fault> {
        let Self { quantity, unit, min, max, decimals } = *self;
        let power = 10_f64.powi(decimals);
        // Adding zero makes -0 a plain 0.
        let rounded = (value * power).round() / power + 0.0;
        match Value::number(rounded) {
            Some(number) if (min..=max).contains(&rounded) => Ok(Sample::new(quantity, number)),
            _ => Err(Fault::new(
                FaultCode::Impossible,
                format!(
                    "a {quantity} of {rounded} {unit} is outside of what the chip can measure ({min} to {max} {unit})"
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCALE: Scale = Scale { quantity: "temperature", unit: "°C", min: -40.0, max: 125.0, decimals: 2 };

    #[test]
    fn values_are_rounded_and_no_zero_is_negative() {
        for (value, expected) in [(21.0625, "21.06"), (-0.001, "0"), (-40.004, "-40"), (125.0, "125")] {
            let Value::Number(number) = SCALE.sample(value).expect("in range").value else { panic!("not a number") };
            assert_eq!(number.to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_given_lies_in_the_range(value in any::<f64>()) {
            match SCALE.sample(value) {
                Ok(Sample { value: Value::Number(number), .. }) => prop_assert!((-40.0..=125.0).contains(&number.get())),
                Ok(other) => prop_assert!(false, "{other:?}"),
                Err(fault) => prop_assert_eq!(fault.code, FaultCode::Impossible),
            }
        }
    }
}
