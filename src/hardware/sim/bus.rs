//! Simulated buses: give each transaction to the chips that answer to it.

use embedded_hal::i2c::{ErrorKind, ErrorType, I2c, NoAcknowledgeSource, Operation};
use embedded_hal::spi::{self, SpiDevice};

use super::chips::{I2cChip, Nak, Pins, SpiChip};
use crate::hardware::{I2cError, SpiError, SpiPlace};
use crate::reading::FaultCode;

/// Two wires, with chips on them.
pub struct Wires(Vec<Box<dyn I2cChip>>);

impl Wires {
    /// Wires with these chips.
    #[must_use]
    pub fn new(chips: Vec<Box<dyn I2cChip>>) -> Self {
        Self(chips)
    }

    /// The pins of the GPIO expander at that address, multiplexers' channels aside.
    #[must_use]
    pub fn pins(&self, address: u8) -> Option<Pins> {
        self.0.iter().filter(|chip| chip.answers(address)).find_map(|chip| chip.pins())
    }

    /// A transaction, for each chip that acknowledges the address, those behind open channels included.
    ///
    /// # Errors
    /// Nobody acknowledges.
    pub fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), Nak> {
        let mut acknowledged = Err(Nak);
        for chip in &mut self.0 {
            if chip.answers(address) {
                chip.transaction(operations)?;
                acknowledged = Ok(());
            }
            for wires in chip.behind() {
                acknowledged = acknowledged.or(wires.transaction(address, operations));
            }
        }
        acknowledged
    }
}

/// The adapter of a simulated bus.
pub(super) struct SimI2c {
    pub(super) number: u8,
    pub(super) wires: Wires,
}

impl ErrorType for SimI2c {
    type Error = I2cError;
}

impl I2c for SimI2c {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), I2cError> {
        self.wires.transaction(address, operations).map_err(|Nak| I2cError {
            kind: ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address),
            code: FaultCode::Bus,
            message: format!("nobody acknowledges (address {address:#04x} on the simulated bus {})", self.number),
        })
    }
}

/// A simulated SPI device.
pub(super) struct SimSpi {
    pub(super) place: SpiPlace,
    pub(super) chip: Box<dyn SpiChip>,
}

impl spi::ErrorType for SimSpi {
    type Error = SpiError;
}

impl SpiDevice for SimSpi {
    fn transaction(&mut self, operations: &mut [spi::Operation<'_, u8>]) -> Result<(), SpiError> {
        // One transfer for the chip, whichever way it is cut here.
        let mut out = Vec::new();
        for operation in operations.iter() {
            match operation {
                spi::Operation::Read(buffer) => out.resize(out.len() + buffer.len(), 0),
                spi::Operation::Write(bytes) => out.extend_from_slice(bytes),
                spi::Operation::Transfer(read, write) => {
                    out.extend_from_slice(write);
                    out.resize(out.len() + read.len().saturating_sub(write.len()), 0);
                }
                spi::Operation::TransferInPlace(buffer) => out.extend_from_slice(buffer),
                spi::Operation::DelayNs(_) => {}
            }
        }
        let mut back = self.chip.transfer(&out).into_iter();
        if back.len() != out.len() {
            let message = format!("the chip at {} gave {} bytes for {}", self.place, back.len(), out.len());
            return Err(SpiError { code: FaultCode::Bus, message });
        }
        for operation in operations {
            match operation {
                spi::Operation::Read(buffer) | spi::Operation::TransferInPlace(buffer) => {
                    buffer.iter_mut().zip(&mut back).for_each(|(byte, read)| *byte = read);
                }
                spi::Operation::Write(bytes) => drop(back.by_ref().take(bytes.len()).count()),
                spi::Operation::Transfer(read, write) => {
                    let skip = write.len().saturating_sub(read.len());
                    read.iter_mut().zip(&mut back).for_each(|(byte, read)| *byte = read);
                    let _ = back.by_ref().take(skip).count();
                }
                spi::Operation::DelayNs(_) => {}
            }
        }
        Ok(())
    }
}
