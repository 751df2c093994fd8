//! A simulated Raspberry Pi: what the machine has below its drivers, so that the shipped drivers run above it.
//!
//! - I2C bus 1 carries a BME280 at 0x76 and a BMP280 at 0x77, at register level; other addresses do not acknowledge.
//! - GPIO lines 0 to 27 of the header: on GPIO17 a motion sensor goes high now and then; the others follow their
//!   pull resistor.
//! - The serial port `sim:arduino` is a pty on which a built-in peer prints a line of JSON each second. Any other port
//!   is opened as on Linux, so that tests can bring ptys of their own.
//!
//! Everything follows from a seed and the boot clock: the same seed and times give the same levels and registers.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use embedded_hal::i2c::{ErrorKind, ErrorType, I2c, NoAcknowledgeSource, Operation};

use super::{Hardware, I2cBus, I2cError, InputLine, LineSettings, SerialPort, SerialSettings, linux};
use crate::clock::Clock;
use crate::reading::{Fault, FaultCode};

mod arduino;
mod bme280;
mod line;
mod world;

/// The one bus that there is, as on a Pi's header.
const BUS: u8 = 1;

/// The name of the port on which the built-in Arduino prints.
pub const ARDUINO_PORT: &str = "sim:arduino";

/// The seed that `[hardware] backend = "sim"` takes.
pub const DEFAULT_SEED: u64 = 1;

/// The simulated machine.
pub struct Sim {
    clock: Arc<dyn Clock>,
    seed: u64,
    bus: I2cBus,
    /// Offsets of the lines that are taken: a line has one holder, as on Linux.
    taken: Arc<Mutex<BTreeSet<u32>>>,
}

impl Sim {
    /// A machine whose chips live by that clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, seed: u64) -> Self {
        let chips = vec![
            bme280::Chip::bme280(0x76, Arc::clone(&clock), seed),
            bme280::Chip::bmp280(0x77, Arc::clone(&clock), seed),
        ];
        Self { clock, seed, bus: I2cBus::new(Box::new(SimBus(chips))), taken: Arc::default() }
    }
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sim").field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl Hardware for Sim {
    fn i2c(&self, bus: u8) -> Result<I2cBus, Fault> {
        if bus == BUS {
            return Ok(self.bus.clone());
        }
        let detail = format!("/dev/i2c-{bus} is not there: the simulated machine has only bus {BUS}");
        Err(Fault::new(FaultCode::Missing, detail))
    }

    fn input_line(&self, settings: &LineSettings) -> Result<Box<dyn InputLine>, Fault> {
        let line = line::SimLine::take(settings, Arc::clone(&self.clock), self.seed, Arc::clone(&self.taken))?;
        Ok(Box::new(line))
    }

    fn serial(&self, settings: &SerialSettings) -> Result<Box<dyn SerialPort>, Fault> {
        if settings.port.as_os_str() != ARDUINO_PORT {
            return linux::open_serial(settings);
        }
        arduino::open(settings.baud, Arc::clone(&self.clock), self.seed)
    }
}

/// Gives each transaction to the chip that has the address.
struct SimBus(Vec<bme280::Chip>);

impl ErrorType for SimBus {
    type Error = I2cError;
}

impl I2c for SimBus {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), I2cError> {
        let chip = self.0.iter_mut().find(|chip| chip.address() == address).ok_or_else(|| I2cError {
            kind: ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address),
            code: FaultCode::Bus,
            message: format!("nobody acknowledges (address {address:#04x} on the simulated bus {BUS})"),
        })?;
        chip.transaction(operations);
        Ok(())
    }
}

/// Marks a line as taken until it is dropped.
struct Taken {
    offset: u32,
    lines: Arc<Mutex<BTreeSet<u32>>>,
}

impl Taken {
    fn take(offset: u32, lines: Arc<Mutex<BTreeSet<u32>>>) -> Option<Self> {
        let free = lines.lock().unwrap_or_else(PoisonError::into_inner).insert(offset);
        free.then_some(Self { offset, lines })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.offset);
    }
}
