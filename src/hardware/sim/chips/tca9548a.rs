//! TCA9548A, an I2C switch with eight channels, from Texas Instruments' data sheet SCPS207.
//!
//! One control register without an address: each bit opens a channel, several may be open at once (8.5.2). After
//! power-on all are closed.

use embedded_hal::i2c::Operation;

use super::{I2cChip, Nak};
use crate::hardware::sim::bus::Wires;

pub(super) struct Chip {
    address: u8,
    control: u8,
    channels: [Wires; 8],
}

impl Chip {
    /// A switch with these chips on its channels.
    pub(super) fn new(address: u8, channels: [Vec<Box<dyn I2cChip>>; 8]) -> Self {
        Self { address, control: 0, channels: channels.map(Wires::new) }
    }
}

impl I2cChip for Chip {
    fn answers(&self, address: u8) -> bool {
        address == self.address
    }

    fn transaction(&mut self, operations: &mut [Operation<'_>]) -> Result<(), Nak> {
        for operation in operations {
            match operation {
                // Of several bytes the last one counts (8.5.2).
                Operation::Write(bytes) => self.control = bytes.last().copied().unwrap_or(self.control),
                Operation::Read(buffer) => buffer.fill(self.control),
            }
        }
        Ok(())
    }

    fn behind(&mut self) -> Vec<&mut Wires> {
        let open = self.control;
        (0_u8..).zip(&mut self.channels).filter_map(|(bit, wires)| (open >> bit & 1 == 1).then_some(wires)).collect()
    }
}
