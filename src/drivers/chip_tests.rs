//! What every driver of a chip on I2C is held to when the bus or the chip fails it: it gives a fault, never a value that
//! nobody measured, and works again when it is opened anew.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use embedded_hal::i2c::{ErrorKind, ErrorType, I2c, NoAcknowledgeSource, Operation};
use proptest::prelude::*;
use toml::de::{DeTable, DeValue};

use super::support::testing;
use super::*;
use crate::clock::{Clock, SystemClock, Trust};
use crate::hardware::serial_bus::SerialBus;
use crate::hardware::sim::Sim;
use crate::hardware::sim::bus::Wires;
use crate::hardware::sim::chips::{self, MODELS, Nak};
use crate::hardware::{
    I2cBus, I2cError, InputLine, KernelFiles, OutputLine, OutputSettings, PortName, SerialPort, SpiDevice, SpiSettings,
};
use crate::options::Problems;
use crate::reading::{FaultCode, Value};

/// A transaction that does what a test wants.
type Transaction = dyn FnMut(u8, &mut [Operation<'_>]) -> Result<(), Nak> + Send;

struct Bus(Box<Transaction>);

impl ErrorType for Bus {
    type Error = I2cError;
}

impl I2c for Bus {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), I2cError> {
        (self.0)(address, operations).map_err(|Nak| I2cError {
            kind: ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address),
            code: FaultCode::Bus,
            message: "nobody acknowledges".to_owned(),
        })
    }
}

/// A machine whose bus 1 is that one.
struct Bench {
    bus: I2cBus,
    rest: Sim,
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new(Trust::Kernel))
}

impl Bench {
    fn new(transaction: impl FnMut(u8, &mut [Operation<'_>]) -> Result<(), Nak> + Send + 'static) -> Self {
        Self { bus: I2cBus::new(Box::new(Bus(Box::new(transaction)))), rest: Sim::new(clock(), 1) }
    }

    /// The simulated chips, of which the transaction with this number (from 0) is not acknowledged; and how many there
    /// were.
    fn failing(number: Option<usize>) -> (Self, Arc<AtomicUsize>) {
        let mut wires = chips::i2c_bus_1(&clock(), 1);
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let bench = Self::new(move |address, operations| {
            let fails = Some(counted.fetch_add(1, Ordering::Relaxed)) == number;
            if fails { Err(Nak) } else { wires.transaction(address, operations) }
        });
        (bench, count)
    }

    /// Opens and asks for samples.
    fn samples(&self, device: &dyn Open) -> Result<Vec<Sample>, Fault> {
        device.open(self)?.sample()
    }
}

impl Hardware for Bench {
    fn i2c(&self, _: u8) -> Result<I2cBus, Fault> {
        Ok(self.bus.clone())
    }

    fn spi(&self, settings: &SpiSettings) -> Result<Box<SpiDevice>, Fault> {
        self.rest.spi(settings)
    }

    fn files(&self) -> Arc<dyn KernelFiles> {
        self.rest.files()
    }

    fn input_line(&self, settings: &LineSettings) -> Result<Box<dyn InputLine>, Fault> {
        self.rest.input_line(settings)
    }

    fn output_line(&self, settings: &OutputSettings) -> Result<Box<dyn OutputLine>, Fault> {
        self.rest.output_line(settings)
    }

    fn serial(&self, settings: &SerialSettings) -> Result<Box<dyn SerialPort>, Fault> {
        self.rest.serial(settings)
    }

    fn serial_bus(&self, settings: &SerialSettings) -> Result<Arc<SerialBus>, Fault> {
        self.rest.serial_bus(settings)
    }

    fn has_port(&self, name: &PortName) -> bool {
        self.rest.has_port(name)
    }
}

/// A driver of a chip on I2C, with the sensor of its documentation at a given address.
struct Tried {
    driver: &'static Driver,
    addresses: &'static [u8],
}

impl Tried {
    fn all() -> Vec<Self> {
        let info = |driver: &&'static Driver| match driver.connection {
            Connection::I2c(info) => Some(Self { driver, addresses: info.addresses }),
            _ => None,
        };
        DRIVERS.iter().filter_map(info).collect()
    }

    fn sample(&self) -> Arc<dyn Open> {
        self.parse(self.driver.sample)
    }

    fn at(&self, address: u8) -> Arc<dyn Open> {
        let lines = self.driver.sample.lines();
        let elsewhere = |line: &str| match line.split_once(" = ") {
            Some(("address", _)) => format!("address = {address}\n"),
            _ => format!("{line}\n"),
        };
        self.parse(&lines.map(elsewhere).collect::<String>())
    }

    fn parse(&self, text: &str) -> Arc<dyn Open> {
        let file = DeTable::parse(text).expect("TOML");
        let sensors = file.get_ref().get("sensor").map(toml::Spanned::get_ref);
        let Some(DeValue::Array(sensors)) = sensors else { panic!("{}: no [[sensor]]", self.driver.name) };
        let problems = Problems::new();
        let table = sensors[0].get_ref().as_table().expect("a table");
        let options = Options::new(table, 0..0, "the sensor", &problems);
        let parsed = (self.driver.parse)(&options).unwrap_or_else(|| panic!("{}: {text}", self.driver.name));
        match parsed.source {
            Source::Poller(device) => device,
            _ => panic!("{} is no poller", self.driver.name),
        }
    }
}

/// Does something for each driver, at the same time: chips take their time to measure.
fn for_each_driver(check: impl Fn(&Tried) + Sync) {
    let all = Tried::all();
    assert!(all.len() >= 6, "the drivers were found");
    thread::scope(|scope| {
        for tried in &all {
            scope.spawn(|| check(tried));
        }
    });
}

/// The simulated machine's own quantities: a room, a battery and its load, voltages up to its 3.3 V.
#[test]
fn the_simulated_chips_values_come_out() {
    let hardware = Sim::new(clock(), 1);
    for (name, quantity, range) in [
        ("ads1115", "a0", 0.0..=3.3),
        ("ads1115", "a2-a3", -3.3..=3.3),
        ("aht20", "temperature", 15.0..=26.0),
        ("aht20", "humidity", 35.0..=60.0),
        ("ina219", "voltage", 3.0..=26.0),
        ("ina219", "current", -2.0..=2.0),
        ("lm75", "temperature", 15.0..=26.0),
        ("mcp3008", "ch0", 0.0..=3.3),
        ("mcp9808", "temperature", 15.0..=26.0),
        ("sht3x", "temperature", 15.0..=26.0),
        ("sht3x", "humidity", 35.0..=60.0),
        ("sht4x", "temperature", 15.0..=26.0),
        ("sht4x", "humidity", 35.0..=60.0),
        ("tmp102", "temperature", 15.0..=26.0),
    ] {
        let driver = find(name).expect("a driver");
        let samples = Tried { driver, addresses: &[] }.sample().open(&hardware).and_then(|mut chip| chip.sample());
        let samples = samples.unwrap_or_else(|fault| panic!("{name}: {fault}"));
        let sample = samples.iter().find(|sample| sample.quantity == quantity).expect("the quantity");
        assert!(matches!(sample.value, Value::Number(number) if range.contains(&number.get())), "{name}: {sample:?}");
    }
}

#[test]
fn wrong_options_are_told() {
    for (name, text, part) in [
        ("ads1115", "inputs = []", "`inputs` of the sensor is empty"),
        ("ads1115", "inputs = [\"a4\"]", "no input \"a4\""),
        ("ads1115", "inputs = [\"a1\", \"a0\", \"a1\"]", "names \"a1\" twice"),
        ("ads1115", "inputs = \"a0\"", "`inputs`"),
        ("ads1115", "range = 5", "`range` of the sensor cannot be 5"),
        ("ads1115", "rate = 100", "`rate` of the sensor cannot be 100"),
        ("ads1115", "address = 0x4c", "0x4c"),
        ("ina219", "shunt = 0", "`shunt`"),
        ("ina219", "max_current = 0", "`max_current` of the sensor cannot be 0 A"),
        ("ina219", "max_current = 3.3", "`max_current` of the sensor cannot be 3.3 A with a shunt of 0.1 Ω"),
        ("ina219", "shunt = 1.0\nmax_current = -0.1", "`max_current`"),
        ("lm75", "bits = 8", "`bits`"),
        ("lm75", "address = 0x50", "0x50"),
        ("mcp3008", "inputs = [\"ch0-ch2\"]", "no input \"ch0-ch2\""),
        ("mcp3008", "vref = 0.1", "`vref`"),
        ("mcp3008", "speed = 5000000", "`speed`"),
        ("mcp9808", "address = 0x20", "0x20"),
        ("tmp102", "address = 0x4c", "0x4c"),
    ] {
        let driver = find(name).expect("a driver");
        let (_, problems) = testing::parse(driver, text);
        assert!(problems.len() == 1 && problems[0].contains(part), "{name} given {text:?}: {problems:?}");
    }
}

/// 0.32 V is the chip's limit, whatever the product of shunt and current is in binary.
#[test]
fn the_largest_current_is_that_of_the_shunt() {
    let tried = Tried { driver: find("ina219").expect("a driver"), addresses: &[] };
    for (shunt, current) in [("0.1", "3.2"), ("0.01", "32"), ("0.002", "160"), ("0.05", "6.4")] {
        tried.parse(&format!("[[sensor]]\nshunt = {shunt}\nmax_current = {current}"));
    }
}

/// A chip that is asleep does not acknowledge what wakes it, nor one that measures most of what it is told: their drivers
/// do without some acknowledgements, and wait.
const SILENT: [&str; 1] = ["scd4x"];

#[test]
fn a_transaction_that_is_not_acknowledged_is_a_fault_and_the_next_opening_works() {
    for_each_driver(|tried| {
        let (name, device) = (tried.driver.name, tried.sample());
        let (bench, count) = Bench::failing(None);
        bench.samples(&*device).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        let transactions = count.load(Ordering::Relaxed);
        assert!(transactions >= 2, "{name}");
        thread::scope(|scope| {
            // The SCD4x is woken first, which it never acknowledges.
            for number in usize::from(name == "scd4x")..transactions {
                let device = &device;
                scope.spawn(move || {
                    let (bench, count) = Bench::failing(Some(number));
                    match bench.samples(&**device) {
                        Ok(samples) => {
                            assert!(SILENT.contains(&name), "{name}: the transaction {number} was not missed");
                            assert!(!samples.is_empty());
                        }
                        Err(fault) if SILENT.contains(&name) => drop(fault),
                        Err(fault) => assert_eq!(fault.code, FaultCode::Missing, "{name}, {number}: {fault}"),
                    }
                    // A chip that was asked less often than the first one has not come to it yet.
                    count.store(number + 1, Ordering::Relaxed);
                    let again = bench.samples(&**device);
                    assert!(again.is_ok_and(|samples| !samples.is_empty()), "{name}, after transaction {number}");
                });
            }
        });
    });
}

/// The BH1750 has neither checksum nor identity nor a register that could be read back: zeros are darkness.
#[test]
fn a_data_line_that_is_stuck_is_a_fault() {
    let believed = Mutex::new(BTreeSet::new());
    for_each_driver(|tried| {
        let device = tried.sample();
        for byte in [0x00, 0xff] {
            let bench = Bench::new(move |_, operations| {
                fill(operations, || byte);
                Ok(())
            });
            if bench.samples(&*device).is_ok() {
                believed.lock().expect("no panic").insert((tried.driver.name, byte));
            }
        }
    });
    assert_eq!(believed.into_inner().expect("no panic"), BTreeSet::from([("bh1750", 0x00)]));
}

/// Drivers of chips that send checksums with what they measure.
const CHECKED: [&str; 4] = ["aht20", "scd4x", "sht3x", "sht4x"];

#[test]
fn wires_that_damage_everything_make_no_other_chip_of_one_with_checksums() {
    for_each_driver(|tried| {
        if !CHECKED.contains(&tried.driver.name) {
            return;
        }
        let mut wires = chips::i2c_bus_1(&clock(), 1);
        let bench = Bench::new(move |address, operations| {
            wires.transaction(address, operations)?;
            for operation in operations {
                if let Operation::Read(buffer) = operation
                    && let Some(last) = buffer.last_mut()
                {
                    *last ^= 1;
                }
            }
            Ok(())
        });
        let fault = bench.samples(&*tried.sample()).expect_err("damaged");
        assert_eq!(fault.code, FaultCode::Crc, "{}: {fault}", tried.driver.name);
    });
}

#[test]
fn noise_makes_no_other_chip_of_one_with_an_identity() {
    for name in ["bme280", "mcp9808"] {
        let tried = Tried { driver: find(name).expect("a driver"), addresses: &[] };
        for (step, expected) in [(0, FaultCode::WrongChip), (1, FaultCode::BadData)] {
            let mut byte = 0x10;
            let bench = Bench::new(move |_, operations| {
                fill(operations, || byte);
                byte += step;
                Ok(())
            });
            let fault = bench.samples(&*tried.sample()).expect_err("noise");
            assert_eq!(fault.code, expected, "{name}: {fault}");
        }
    }
}

fn fill(operations: &mut [Operation<'_>], mut byte: impl FnMut() -> u8) {
    for operation in operations {
        if let Operation::Read(buffer) = operation {
            buffer.fill_with(&mut byte);
        }
    }
}

/// Whatever comes of it, what is given are numbers of declared quantities.
fn check_outcome(tried: &Tried, outcome: Result<Vec<Sample>, Fault>) {
    for sample in outcome.unwrap_or_default() {
        let declared = tried.driver.quantities;
        let known = declared.is_empty() || declared.iter().any(|quantity| quantity.name == sample.quantity);
        assert!(known, "{sample:?}");
        assert!(matches!(sample.value, Value::Number(_)), "{sample:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn no_driver_panics_when_every_byte_is_random(bytes in prop::collection::vec(any::<u8>(), 1..64)) {
        for_each_driver(|tried| {
            let mut bytes = bytes.clone().into_iter().cycle();
            let bench = Bench::new(move |_, operations| {
                fill(operations, || bytes.next().expect("it goes round"));
                Ok(())
            });
            check_outcome(tried, bench.samples(&*tried.sample()));
        });
    }

    /// So that the random bytes come behind the checks of identity and settings, too.
    #[test]
    fn no_driver_panics_when_a_chip_begins_to_babble(
        after in 0..12_usize,
        bytes in prop::collection::vec(any::<u8>(), 1..64),
    ) {
        for_each_driver(|tried| {
            let mut wires = chips::i2c_bus_1(&clock(), 1);
            let (mut number, mut bytes) = (0, bytes.clone().into_iter().cycle());
            let bench = Bench::new(move |address, operations| {
                wires.transaction(address, operations)?;
                number += 1;
                if number > after {
                    fill(operations, || bytes.next().expect("it goes round"));
                }
                Ok(())
            });
            check_outcome(tried, bench.samples(&*tried.sample()));
        });
    }
}

/// The expanders answer to everything that the BH1750 is asked, which has nothing to be told by.
#[test]
fn another_chip_at_the_address_is_a_fault() {
    let believed = Mutex::new(BTreeSet::new());
    for_each_driver(|tried| {
        for model in MODELS.iter().filter(|model| model.name != tried.driver.name) {
            for address in tried.addresses.iter().copied().filter(|address| model.addresses.contains(address)) {
                let mut wires = Wires::new(vec![(model.make)(address, clock(), 1)]);
                let bench = Bench::new(move |address, operations| wires.transaction(address, operations));
                match bench.samples(&*tried.at(address)) {
                    Ok(_) => {
                        believed.lock().expect("no panic").insert((tried.driver.name, model.name));
                    }
                    Err(fault) => assert!(fault.detail.contains(&format!("{address:#04x}")), "{fault}"),
                }
            }
        }
    });
    let expected = BTreeSet::from([("bh1750", "mcp23017"), ("bh1750", "pcf8574")]);
    assert_eq!(believed.into_inner().expect("no panic"), expected);
}
