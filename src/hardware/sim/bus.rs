//! Simulated buses: give each transaction to the chips that answer to it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use embedded_hal::i2c::{ErrorKind, ErrorType, I2c, NoAcknowledgeSource, Operation};
use embedded_hal::spi::{self, SpiDevice};

use super::chips::{I2cChip, Nak, Pins, SpiChip};
use super::fault::{Kind, Script, TRANSFER_TIMEOUT};
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

    /// Puts the chips of `fresh`, which has the same ones as they are at power-on, in the place of those that answer to
    /// the address (`None`: of all). Chips behind a multiplexer are renewed with it only.
    fn renew(&mut self, address: Option<u8>, fresh: Self) {
        for (chip, fresh) in self.0.iter_mut().zip(fresh.0) {
            if address.is_none_or(|address| chip.answers(address)) {
                *chip = fresh;
            }
        }
    }
}

/// Makes the wires of a bus with all chips as they are at power-on.
type PowerOn = Box<dyn Fn() -> Wires + Send>;

/// The adapter of a simulated bus.
pub(super) struct SimI2c {
    number: u8,
    seed: u64,
    wires: Arc<Mutex<Wires>>,
    power_on: PowerOn,
    script: Arc<Script>,
    /// Faults of the script, by their place, after which the chips were renewed.
    renewed: BTreeSet<usize>,
}

impl SimI2c {
    pub(super) fn new(number: u8, seed: u64, power_on: PowerOn, script: Arc<Script>) -> Self {
        Self { number, seed, wires: Arc::new(Mutex::new(power_on())), power_on, script, renewed: BTreeSet::new() }
    }

    /// The wires, for what is on their other end.
    pub(super) fn wires(&self) -> Arc<Mutex<Wires>> {
        Arc::clone(&self.wires)
    }

    fn error(&self, kind: ErrorKind, what: &str, address: u8) -> I2cError {
        let message = format!("{what} (address {address:#04x} on the simulated bus {})", self.number);
        I2cError { kind, code: FaultCode::Bus, message }
    }

    fn no_acknowledge(&self, address: u8) -> I2cError {
        self.error(ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address), "nobody acknowledges", address)
    }

    /// A transfer to chips that are all well.
    fn transfer(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), I2cError> {
        let mut wires = self.wires.lock().unwrap_or_else(PoisonError::into_inner);
        for (fault, renewed) in self.script.repowered(self.number) {
            if self.renewed.insert(fault) {
                wires.renew(renewed, (self.power_on)());
            }
        }
        wires.transaction(address, operations).map_err(|Nak| self.no_acknowledge(address))
    }
}

impl ErrorType for SimI2c {
    type Error = I2cError;
}

impl I2c for SimI2c {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), I2cError> {
        match self.script.transfer(self.number, address) {
            None => self.transfer(address, operations),
            Some((_, Kind::Nak | Kind::Unplug)) => Err(self.no_acknowledge(address)),
            Some((_, Kind::Timeout)) => {
                std::thread::sleep(TRANSFER_TIMEOUT);
                Err(self.error(ErrorKind::Bus, "the bus hangs: a chip holds a wire low", address))
            }
            Some((fault, Kind::Hang)) => {
                self.script.wait_out(fault);
                self.transfer(address, operations)
            }
            Some((_, kind @ (Kind::Garbage | Kind::WrongChip))) => {
                self.transfer(address, operations)?;
                for operation in operations {
                    if let Operation::Read(buffer) = operation {
                        self.script.garble(self.seed, kind, buffer);
                    }
                }
                Ok(())
            }
        }
    }
}

/// A simulated SPI device.
pub(super) struct SimSpi {
    pub(super) place: SpiPlace,
    pub(super) chip: Box<dyn SpiChip>,
    pub(super) seed: u64,
    pub(super) script: Arc<Script>,
}

impl SimSpi {
    /// What comes in for the bytes that go out, in one transfer.
    fn transfer(&mut self, out: &[u8]) -> Result<Vec<u8>, SpiError> {
        let error = |message| SpiError { code: FaultCode::Bus, message };
        let fault = self.script.spi_transfer(self.place);
        match fault {
            // A line that nobody drives.
            Some((_, Kind::Unplug | Kind::Nak)) => return Ok(vec![0xff; out.len()]),
            Some((_, Kind::Timeout)) => {
                std::thread::sleep(TRANSFER_TIMEOUT);
                return Err(error(format!("the transfer timed out (simulated, {})", self.place)));
            }
            Some((fault, Kind::Hang)) => self.script.wait_out(fault),
            Some((_, Kind::Garbage | Kind::WrongChip)) | None => {}
        }
        let mut back = self.chip.transfer(out);
        if back.len() != out.len() {
            return Err(error(format!("the chip at {} gave {} bytes for {}", self.place, back.len(), out.len())));
        }
        if let Some((_, kind @ (Kind::Garbage | Kind::WrongChip))) = fault {
            self.script.garble(self.seed, kind, &mut back);
        }
        Ok(back)
    }
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
        let mut back = self.transfer(&out)?.into_iter();
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
