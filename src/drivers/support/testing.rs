//! What the tests of drivers share: chips that play a script, drivers opened on the simulated machine, and samples as
//! numbers.

use std::collections::VecDeque;
use std::sync::Arc;

use embedded_hal::i2c::{ErrorType, I2c, Operation};
use toml::de::DeTable;

use super::i2c::{Chip, Place};
use super::measured::Scale;
use crate::clock::{SystemClock, Trust};
use crate::drivers::{Driver, Parsed, Poller, Source};
use crate::hardware::sim::Sim;
use crate::hardware::{I2cBus, I2cError, I2cPath};
use crate::options::{Options, Problems};
use crate::reading::{Fault, FaultCode, Sample, Value};

/// What is to be written in one transaction, and what is read in it then.
pub(crate) type Exchange = (&'static [u8], &'static [u8]);

/// A chip at that address of bus 1 with which exactly these exchanges take place, in this order.
pub(crate) fn chip(address: u8, exchanges: &[Exchange]) -> Chip {
    let script = Script { address, exchanges: exchanges.iter().copied().collect() };
    let place = Place { path: I2cPath { bus: 1, channel: None }, address };
    Chip::on(I2cBus::new(Box::new(script)), place)
}

struct Script {
    address: u8,
    exchanges: VecDeque<Exchange>,
}

impl ErrorType for Script {
    type Error = I2cError;
}

impl I2c for Script {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), I2cError> {
        assert_eq!(address, self.address);
        let (expected, answer) = self.exchanges.pop_front().expect("no more exchanges were to take place");
        let mut written = Vec::new();
        let mut answer = answer.iter();
        for operation in operations {
            match operation {
                Operation::Write(bytes) => written.extend_from_slice(bytes),
                Operation::Read(buffer) => {
                    buffer.fill_with(|| *answer.next().expect("more is read than the script has"));
                }
            }
        }
        assert_eq!(written, expected);
        assert_eq!(answer.next(), None, "less is read than the script has");
        Ok(())
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.exchanges, [], "these exchanges did not take place");
        }
    }
}

/// The simulated machine, by the time of day.
pub(crate) fn sim() -> Sim {
    Sim::new(Arc::new(SystemClock::new(Trust::Kernel)), 5)
}

/// What the driver makes of the keys of a sensor: `address = 0x45`.
pub(crate) fn parse(driver: &Driver, keys: &str) -> (Option<Parsed>, Vec<String>) {
    let table = DeTable::parse(keys).expect("TOML");
    let problems = Problems::new();
    let options = Options::new(table.get_ref(), 0..0, "the sensor", &problems);
    let parsed = (driver.parse)(&options);
    drop(options);
    (parsed, problems.into_sorted().into_iter().map(|problem| problem.message).collect())
}

/// Opens a polled driver with these keys on that machine.
pub(crate) fn open(driver: &Driver, keys: &str, machine: &Sim) -> Result<Box<dyn Poller>, Fault> {
    let (parsed, problems) = parse(driver, keys);
    assert!(problems.is_empty(), "{problems:?}");
    match parsed.expect("no problems, so it goes on").source {
        Source::Poller(device) => device.open(machine),
        _ => panic!("{} is not polled", driver.name),
    }
}

/// The number in a sample.
pub(crate) fn number(sample: &Sample) -> f64 {
    match &sample.value {
        Value::Number(number) => number.get(),
        other => panic!("{other:?} is no number"),
    }
}

/// The number that a conversion gave, or the code of its fault.
pub(crate) fn outcome(converted: Result<Sample, Fault>) -> Result<f64, FaultCode> {
    converted.map(|sample| number(&sample)).map_err(|fault| fault.code)
}

/// Quantities and numbers of samples.
pub(crate) fn numbers(samples: &[Sample]) -> Vec<(&str, f64)> {
    samples.iter().map(|sample| (&*sample.quantity, number(sample))).collect()
}

/// Sees that a conversion gave the values that it should, each in what its scale can be, or a fault of the data.
pub(crate) fn check_range(outcome: Result<Vec<Sample>, Fault>, scales: &[Scale]) {
    match outcome {
        Ok(samples) => {
            assert_eq!(samples.len(), scales.len(), "{samples:?}");
            for (sample, scale) in samples.iter().zip(scales) {
                assert_eq!(sample.quantity, scale.quantity);
                assert!((scale.min..=scale.max).contains(&number(sample)), "{sample:?}");
            }
        }
        Err(fault) => assert!(matches!(fault.code, FaultCode::Impossible | FaultCode::BadData), "{fault}"),
    }
}
