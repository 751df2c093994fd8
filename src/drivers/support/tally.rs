//! What a driver counts beside its values, such as lines that it could not read.

use crate::reading::{Sample, Value};

/// A total that only grows. It goes with the next samples after it has grown: a sensor of which nothing can be read
/// shall not look alive because that is counted.
#[derive(Debug)]
pub(crate) struct Tally {
    quantity: &'static str,
    total: u64,
    told: u64,
}

impl Tally {
    /// Nothing counted yet, to be told as that quantity.
    pub(crate) const fn new(quantity: &'static str) -> Self {
        Self { quantity, total: 0, told: 0 }
    }

    /// Counts so many more.
    pub(crate) fn add(&mut self, more: u64) {
        self.total = self.total.saturating_add(more);
    }

    /// All so far.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Adds the total to the samples if it has grown since it was last told; not beside a quantity of the device's own
    /// that is called like it.
    pub(crate) fn tell(&mut self, samples: &mut Vec<Sample>) {
        if self.total == self.told || samples.iter().any(|sample| sample.quantity == self.quantity) {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a count that long takes longer than any device lives")]
        samples.extend(Value::number(self.total as f64).map(|total| Sample::new(self.quantity, total)));
        self.told = self.total;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_is_told_once_after_it_has_grown_and_not_over_a_value_of_that_name() {
        let mut tally = Tally::new("bad");
        let mut told = |more, own: &'static str| {
            let mut samples = vec![Sample::new(own, Value::Switch(true))];
            tally.add(more);
            tally.tell(&mut samples);
            samples.pop().and_then(|sample| match sample.value {
                Value::Number(total) => Some(total.get()),
                _ => None,
            })
        };
        assert_eq!(told(0, "a"), None);
        assert_eq!(told(2, "a"), Some(2.0));
        assert_eq!(told(0, "a"), None);
        assert_eq!(told(1, "bad"), None);
        assert_eq!(told(0, "a"), Some(3.0), "it has waited");
    }
}
