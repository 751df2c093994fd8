//! Sensors whose numbers no longer move: a chip that hangs inside goes on to answer with its last measurement.

use std::collections::HashMap;
use std::time::Duration;

use super::MAX_QUANTITIES;
use crate::clock::BootTime;
use crate::reading::{Fault, FaultCode, Finite, GARBLED, OVERRUNS, Sample, Value};

/// How long a sensor's numbers have stood still, all of them and exactly: as measured, before calibration and rounding.
#[derive(Debug, Default)]
pub(super) struct Stillness {
    /// The last number of each quantity.
    numbers: HashMap<Box<str>, Finite>,
    /// When one of them last moved.
    since: Option<BootTime>,
}

impl Stillness {
    /// Takes the samples of one observation; gives how long the numbers have stood still.
    pub(super) fn observe(&mut self, samples: &[Sample], at: BootTime) -> Duration {
        let mut moved = false;
        for sample in samples.iter().filter(|sample| counts(sample)) {
            let Value::Number(now) = sample.value else { continue };
            if let Some(last) = self.numbers.get_mut(&*sample.quantity) {
                moved |= std::mem::replace(last, now) != now;
            } else if self.numbers.len() < MAX_QUANTITIES {
                // A device may name quantities as it likes: beyond the bound they are not used anyway.
                self.numbers.insert(sample.quantity.as_ref().into(), now);
                moved = true;
            }
        }
        match self.since {
            Some(since) if !moved => at.since(since),
            // Without a number there is nothing yet that could stand still.
            None if !moved => Duration::ZERO,
            _ => {
                self.since = Some(at);
                Duration::ZERO
            }
        }
    }
}

/// Does a sample say whether the sensor is alive? Only numbers do; a switch may well stand for days, an event is not a
/// state, and what is counted on a link says nothing of the device behind it.
pub(super) fn counts(sample: &Sample) -> bool {
    !sample.event && matches!(sample.value, Value::Number(_)) && ![OVERRUNS, GARBLED].contains(&&*sample.quantity)
}

/// The fault of a sensor whose numbers have stood still for that long.
pub(super) fn fault(still: Duration) -> Fault {
    let whole = Duration::from_secs(still.as_secs());
    let detail = format!(
        "all of its numbers have stood exactly still for {}, longer than `frozen_after` allows",
        humantime::format_duration(if whole.is_zero() { still } else { whole })
    );
    Fault::new(FaultCode::Frozen, detail)
}
