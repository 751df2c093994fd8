//! The simulated chips, at register level: one file each, written from the data sheet and not from the driver.
//!
//! A chip lives by the clock that it is given: a measurement takes its time, and what is sensed follows from the seed
//! and the time (`world`).

use std::sync::Arc;

use embedded_hal::i2c::Operation;

use super::bus::Wires;
use crate::clock::Clock;
#[cfg(test)]
use crate::clock::ManualClock;

mod ads1115;
mod aht20;
mod bh1750;
pub(super) mod bme280;
mod commanded;
mod expander;
mod ina219;
mod lm75;
mod mcp23017;
mod mcp3008;
mod mcp9808;
mod pcf8574;
mod pointed;
mod scd4x;
mod sensirion;
mod sht3x;
mod sht4x;
mod tca9548a;
mod tmp102;

pub use expander::Pins;

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

    /// The pins and the interrupt output of a GPIO expander.
    fn pins(&self) -> Option<Pins> {
        None
    }
}

/// No acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nak;

/// What a chip sees of a transaction.
enum Message<'a> {
    /// The bytes of adjacent writes, which come without a repeated start in between.
    Write(&'a [u8]),
    /// To be filled. Adjacent reads are one message in two buffers.
    Read(&'a mut [u8]),
}

/// Goes through a transaction, message by message, up to the first that is not acknowledged.
fn each_message(
    operations: &mut [Operation<'_>],
    mut take: impl FnMut(Message<'_>) -> Result<(), Nak>,
) -> Result<(), Nak> {
    let mut written: Vec<u8> = Vec::new();
    for operation in operations {
        match operation {
            Operation::Write(bytes) => written.extend_from_slice(bytes),
            Operation::Read(buffer) => {
                if !written.is_empty() {
                    take(Message::Write(&std::mem::take(&mut written)))?;
                }
                take(Message::Read(buffer))?;
            }
        }
    }
    if written.is_empty() { Ok(()) } else { take(Message::Write(&written)) }
}

/// A chip on an SPI bus, behind its own chip select.
pub trait SpiChip: Send {
    /// One transfer, from chip select to its end: a byte comes in for each byte that goes out.
    fn transfer(&mut self, out: &[u8]) -> Vec<u8>;
}

/// The chips of the header's bus 1. Two chips with one address have each a multiplexer's channel.
#[must_use]
pub fn i2c_bus_1(clock: &Arc<dyn Clock>, seed: u64) -> Wires {
    let clock = || Arc::clone(clock);
    let there = |model: &'static Model| model.there.iter().map(move |address| (model, *address));
    let mut chips: Vec<Box<dyn I2cChip>> =
        MODELS.iter().flat_map(there).map(|(model, address)| (model.make)(address, clock(), seed)).collect();
    chips.push(Box::new(bme280::Chip::bmp280(0x77, clock(), seed)));
    let mut channels = [const { Vec::<Box<dyn I2cChip>>::new() }; 8];
    for (channel, other_air) in [(3, 3), (4, 4)] {
        channels[channel].push(Box::new(lm75::chip(0x4b, clock(), seed ^ other_air)));
    }
    chips.push(Box::new(tca9548a::Chip::new(0x70, channels)));
    Wires::new(chips)
}

/// A kind of chip.
pub struct Model {
    /// Its name, which is its driver's where it has one.
    pub name: &'static str,
    /// The addresses that it can have.
    pub addresses: std::ops::RangeInclusive<u8>,
    /// Those at which bus 1 has one.
    pub there: &'static [u8],
    /// Makes one as it is after power-on, from its address, the clock that it lives by, and a seed.
    pub make: fn(u8, Arc<dyn Clock>, u64) -> Box<dyn I2cChip>,
}

/// A chip as it is after power-on, and the clock that it lives by.
#[cfg(test)]
fn powered_on<C>(address: u8, make: impl FnOnce(u8, Arc<dyn Clock>, u64) -> C) -> (Arc<ManualClock>, C) {
    let clock = Arc::new(ManualClock::new());
    let chip = make(address, Arc::clone(&clock) as Arc<dyn Clock>, 1);
    (clock, chip)
}

/// All kinds of chips that there are models of, for the bus and for tests that put one where another is expected.
pub static MODELS: &[Model] = &[
    Model {
        name: "ads1115",
        addresses: 0x48..=0x4b,
        there: &[0x48],
        make: |at, clock, seed| Box::new(ads1115::chip(at, clock, seed)),
    },
    Model {
        name: "aht20",
        addresses: 0x38..=0x38,
        there: &[0x38],
        make: |at, clock, seed| Box::new(aht20::chip(at, clock, seed)),
    },
    Model {
        name: "bh1750",
        addresses: 0x23..=0x23,
        there: &[0x23],
        make: |at, clock, seed| Box::new(bh1750::chip(at, clock, seed)),
    },
    Model {
        name: "bme280",
        addresses: 0x76..=0x77,
        there: &[0x76],
        make: |at, clock, seed| Box::new(bme280::Chip::bme280(at, clock, seed)),
    },
    Model {
        name: "ina219",
        addresses: 0x40..=0x4f,
        there: &[0x40],
        make: |at, clock, seed| Box::new(ina219::chip(at, clock, seed)),
    },
    Model {
        name: "lm75",
        addresses: 0x48..=0x4f,
        there: &[0x4a],
        make: |at, clock, seed| Box::new(lm75::chip(at, clock, seed)),
    },
    Model {
        name: "mcp23017",
        addresses: 0x20..=0x27,
        there: &[0x20],
        make: |at, clock, seed| Box::new(mcp23017::chip(at, clock, seed)),
    },
    Model {
        name: "mcp9808",
        addresses: 0x18..=0x1f,
        there: &[0x18],
        make: |at, clock, seed| Box::new(mcp9808::chip(at, clock, seed)),
    },
    Model {
        name: "pcf8574",
        addresses: 0x20..=0x27,
        there: &[0x21],
        make: |at, clock, seed| Box::new(pcf8574::chip(at, clock, seed)),
    },
    Model {
        name: "pcf8574a",
        addresses: 0x38..=0x3f,
        there: &[],
        make: |at, clock, seed| Box::new(pcf8574::chip(at, clock, seed)),
    },
    Model {
        name: "scd4x",
        addresses: 0x62..=0x62,
        there: &[0x62],
        make: |at, clock, seed| Box::new(scd4x::chip(at, clock, seed)),
    },
    Model {
        name: "sht3x",
        addresses: 0x44..=0x45,
        there: &[0x45],
        make: |at, clock, seed| Box::new(sht3x::chip(at, clock, seed)),
    },
    Model {
        name: "sht4x",
        addresses: 0x44..=0x46,
        there: &[0x44],
        make: |at, clock, seed| Box::new(sht4x::chip(at, clock, seed)),
    },
    Model {
        name: "tca9548a",
        addresses: 0x70..=0x77,
        there: &[],
        make: |at, _, _| Box::new(tca9548a::Chip::new(at, [const { Vec::new() }; 8])),
    },
    Model {
        name: "tmp102",
        addresses: 0x48..=0x4b,
        there: &[0x49],
        make: |at, clock, seed| Box::new(tmp102::chip(at, clock, seed)),
    },
];

/// The chip at a chip select of the header's SPI bus 0.
#[must_use]
pub fn spi_bus_0(chip_select: u8, clock: &Arc<dyn Clock>, seed: u64) -> Option<Box<dyn SpiChip>> {
    match chip_select {
        0 => Some(Box::new(mcp3008::Chip::new(Arc::clone(clock), seed))),
        _ => None,
    }
}
