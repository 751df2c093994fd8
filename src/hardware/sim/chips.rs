//! The simulated chips, at register level: one file each, written from the data sheet and not from the driver.
//!
//! A chip lives by the clock that it is given: a measurement takes its time, and what is sensed follows from the seed
//! and the time (`world`).

use std::sync::Arc;

use embedded_hal::i2c::Operation;

use super::bus::Wires;
use crate::clock::Clock;

pub(super) mod bme280;
mod tca9548a;

/// A chip on an I2C bus.
pub trait I2cChip: Send {
    /// Does the chip acknowledge this address? Most have one.
    fn answers(&self, address: u8) -> bool;

    /// One transaction that was sent to it. Adjacent writes are one (embedded-hal, `I2c::transaction`).
    ///
    /// # Errors
    /// The chip does not acknowledge: it is busy, or takes no such command.
    fn transaction(&mut self, operations: &mut [Operation<'_>]) -> Result<(), Nak>;

    /// The wires that this chip switches through to: those behind a multiplexer's open channels.
    fn behind(&mut self) -> Vec<&mut Wires> {
        Vec::new()
    }
}

/// No acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nak;

/// A chip on an SPI bus, behind its own chip select.
pub trait SpiChip: Send {
    /// One transfer, from chip select to its end: a byte comes in for each byte that goes out.
    fn transfer(&mut self, out: &[u8]) -> Vec<u8>;
}

/// The chips of the header's bus 1. Two chips with one address have each a multiplexer's channel.
#[must_use]
pub fn i2c_bus_1(clock: &Arc<dyn Clock>, seed: u64) -> Wires {
    let clock = || Arc::clone(clock);
    Wires::new(vec![
        Box::new(bme280::Chip::bme280(0x76, clock(), seed)),
        Box::new(bme280::Chip::bmp280(0x77, clock(), seed)),
        Box::new(tca9548a::Chip::new(0x70, [const { Vec::new() }; 8])),
    ])
}

/// The chip at a chip select of the header's SPI bus 0.
#[must_use]
pub fn spi_bus_0(_chip_select: u8, _clock: &Arc<dyn Clock>, _seed: u64) -> Option<Box<dyn SpiChip>> {
    None
}
