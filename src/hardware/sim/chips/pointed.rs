//! What many simple chips have in common: a pointer, which the first byte of a write sets and which stays until the
//! next write, and registers of one or two bytes behind it.

use embedded_hal::i2c::Operation;

use super::{I2cChip, Message, Nak, each_message};

/// What is behind the pointer.
pub(super) trait Registers: Send {
    /// The bytes of the register that the pointer names, as a read finds them now.
    fn read(&mut self, pointer: u8) -> Vec<u8>;

    /// The bytes that follow the pointer in a write; never none.
    fn write(&mut self, pointer: u8, bytes: &[u8]);
}

/// A chip of that kind on a bus.
pub(super) struct Pointed<R> {
    address: u8,
    pointer: u8,
    pub(super) registers: R,
}

impl<R: Registers> Pointed<R> {
    /// The pointer is 0 after power-on.
    pub(super) fn new(address: u8, registers: R) -> Self {
        Self { address, pointer: 0, registers }
    }
}

impl<R: Registers> I2cChip for Pointed<R> {
    fn answers(&self, address: u8) -> bool {
        address == self.address
    }

    /// A read beyond the register's end gives ones, as of a line that nobody pulls: the data sheets do not say more.
    fn transaction(&mut self, operations: &mut [Operation<'_>]) -> Result<(), Nak> {
        each_message(operations, |message| {
            match message {
                Message::Write(bytes) => {
                    if let [pointer, rest @ ..] = bytes {
                        self.pointer = *pointer;
                        if !rest.is_empty() {
                            self.registers.write(*pointer, rest);
                        }
                    }
                }
                Message::Read(buffer) => {
                    let bytes = self.registers.read(self.pointer);
                    buffer
                        .iter_mut()
                        .zip(bytes.iter().chain(std::iter::repeat(&0xff)))
                        .for_each(|(to, byte)| *to = *byte);
                }
            }
            Ok(())
        })
    }
}

/// The whole steps in a value, rounded down as a converter does, held to the range of 16 bits.
#[expect(clippy::cast_possible_truncation, reason = "a cast from a float to an integer saturates")]
pub(super) fn steps(value: f64, step: f64) -> i16 {
    (value / step).floor() as i16
}

#[cfg(test)]
impl<R: Registers> Pointed<R> {
    /// Two bytes of a register, in one transaction.
    pub(super) fn word(&mut self, pointer: u8) -> u16 {
        let mut bytes = [0; 2];
        self.transaction(&mut [Operation::Write(&[pointer]), Operation::Read(&mut bytes)]).expect("acknowledged");
        u16::from_be_bytes(bytes)
    }

    /// Writes two bytes to a register.
    pub(super) fn set_word(&mut self, pointer: u8, word: u16) {
        let [high, low] = word.to_be_bytes();
        self.transaction(&mut [Operation::Write(&[pointer, high, low])]).expect("acknowledged");
    }
}
