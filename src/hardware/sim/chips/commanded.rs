//! What chips have in common that take commands and give answers, instead of having registers.

use std::collections::VecDeque;
use std::sync::Arc;

use embedded_hal::i2c::Operation;

use super::{I2cChip, Message, Nak, each_message};
use crate::clock::{BootTime, Clock};

/// What is behind the commands.
pub(super) trait Commands: Send {
    /// Until then the chip acknowledges nothing.
    fn deaf_until(&self) -> BootTime;

    /// Takes a command with its arguments, all bytes of a write.
    fn command(&mut self, bytes: &[u8], now: BootTime) -> Result<(), Nak>;

    /// What is to be read now.
    fn answer(&mut self, now: BootTime) -> Result<Vec<u8>, Nak>;
}

/// A chip of that kind on a bus.
pub(super) struct Commanded<C> {
    address: u8,
    clock: Arc<dyn Clock>,
    pub(super) chip: C,
}

impl<C: Commands> Commanded<C> {
    pub(super) fn new(address: u8, clock: Arc<dyn Clock>, chip: C) -> Self {
        Self { address, clock, chip }
    }

    fn listens(&self, now: BootTime) -> Result<(), Nak> {
        if now < self.chip.deaf_until() { Err(Nak) } else { Ok(()) }
    }
}

impl<C: Commands> I2cChip for Commanded<C> {
    fn answers(&self, address: u8) -> bool {
        address == self.address
    }

    /// A read goes on where an adjacent one ended; what is read past the end is the idle bus.
    fn transaction(&mut self, operations: &mut [Operation<'_>]) -> Result<(), Nak> {
        let now = self.clock.boot();
        self.listens(now)?;
        let mut sending: Option<VecDeque<u8>> = None;
        each_message(operations, |message| {
            // A command before a repeated start may have made it deaf.
            self.listens(now)?;
            match message {
                Message::Write(bytes) => {
                    sending = None;
                    self.chip.command(bytes, now)
                }
                Message::Read(buffer) => {
                    let bytes = match &mut sending {
                        Some(bytes) => bytes,
                        none => none.insert(self.chip.answer(now)?.into()),
                    };
                    buffer.fill_with(|| bytes.pop_front().unwrap_or(0xff));
                    Ok(())
                }
            }
        })
    }
}

#[cfg(test)]
impl<C: Commands> Commanded<C> {
    /// A write of these bytes.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), Nak> {
        self.transaction(&mut [Operation::Write(bytes)])
    }

    /// A read of so many bytes.
    pub(super) fn receive<const N: usize>(&mut self) -> Result<[u8; N], Nak> {
        let mut bytes = [0; N];
        self.transaction(&mut [Operation::Read(&mut bytes)])?;
        Ok(bytes)
    }
}
