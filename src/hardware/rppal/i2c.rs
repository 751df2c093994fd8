//! `/dev/i2c-N` through rppal.

use std::io;
use std::path::PathBuf;

use ::rppal::i2c::{Error, I2c};
use embedded_hal::i2c::{ErrorKind, ErrorType, Operation};

use crate::hardware::I2cError;
use crate::hardware::linux::i2c::{bus_error, node, open_fault};
use crate::reading::{Fault, FaultCode};

pub(super) struct RppalI2c {
    number: u8,
    path: PathBuf,
    /// Closed after an error that says that the adapter is gone, and opened anew by the next transaction.
    device: Option<I2c>,
}

impl RppalI2c {
    pub(super) fn open(number: u8) -> Result<Self, Fault> {
        let device = I2c::with_bus(number).map_err(|error| open_fault(number, &cause(error)))?;
        Ok(Self { number, path: node(number), device: Some(device) })
    }

    fn transfer(&mut self, address: u8, transfer: &mut Transfer) -> Result<(), Error> {
        let device = match &mut self.device {
            Some(device) => device,
            closed => closed.insert(I2c::with_bus(self.number)?),
        };
        device.set_slave_address(u16::from(address))?;
        let Transfer { written, read } = transfer;
        let (wanted, done) = match (written.is_empty(), read.is_empty()) {
            (_, true) => (written.len(), device.write(written)?),
            (true, false) => (read.len(), device.read(read)?),
            (false, false) => {
                device.write_read(written, read)?;
                return Ok(());
            }
        };
        if done == wanted {
            Ok(())
        } else {
            Err(Error::Io(io::Error::other(format!("{done} of {wanted} bytes were transferred"))))
        }
    }
}

/// What rppal can do in one transaction: bytes out, then, after a repeated start, bytes in; either may be none.
struct Transfer {
    written: Vec<u8>,
    read: Vec<u8>,
}

impl Transfer {
    /// Adjacent operations of one kind are one to the chip (embedded-hal's contract of `transaction`). `None` where
    /// something is to be written after a read.
    fn of(operations: &[Operation<'_>]) -> Option<Self> {
        let mut transfer = Self { written: Vec::new(), read: Vec::new() };
        let mut reads = false;
        for operation in operations {
            match operation {
                Operation::Write(bytes) => {
                    if reads {
                        return None;
                    }
                    transfer.written.extend_from_slice(bytes);
                }
                Operation::Read(buffer) => {
                    reads = true;
                    transfer.read.resize(transfer.read.len() + buffer.len(), 0);
                }
            }
        }
        Some(transfer)
    }

    /// Hands out what was read.
    fn hand_out(&self, operations: &mut [Operation<'_>]) {
        let mut rest = self.read.as_slice();
        for operation in operations {
            if let Operation::Read(buffer) = operation {
                let (bytes, others) = rest.split_at(buffer.len());
                buffer.copy_from_slice(bytes);
                rest = others;
            }
        }
    }
}

impl ErrorType for RppalI2c {
    type Error = I2cError;
}

impl embedded_hal::i2c::I2c for RppalI2c {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), I2cError> {
        let Some(mut transfer) = Transfer::of(operations) else {
            let message = format!(
                "rppal cannot write after a read within one transaction (address {address:#04x} on {}); \
                 `backend = \"linux\"` can",
                self.path.display()
            );
            return Err(I2cError { kind: ErrorKind::Other, code: FaultCode::Io, message });
        };
        self.transfer(address, &mut transfer).map_err(|error| {
            let error = cause(error);
            if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT)) {
                self.device = None;
            }
            bus_error(&self.path, address, &error)
        })?;
        transfer.hand_out(operations);
        Ok(())
    }
}

fn cause(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_operations_of_one_kind_are_one_transfer() {
        let (mut first, mut second) = ([0; 2], [0; 1]);
        let mut operations = [
            Operation::Write(&[0x10]),
            Operation::Write(&[0x20, 0x30]),
            Operation::Read(&mut first),
            Operation::Read(&mut second),
        ];
        let mut transfer = Transfer::of(&operations).expect("a write, then a read");
        assert_eq!((transfer.written.as_slice(), transfer.read.len()), ([0x10, 0x20, 0x30].as_slice(), 3));
        transfer.read.copy_from_slice(&[1, 2, 3]);
        transfer.hand_out(&mut operations);
        assert_eq!((first, second), ([1, 2], [3]));

        let mut byte = [0];
        assert!(Transfer::of(&[Operation::Read(&mut byte), Operation::Write(&[1])]).is_none());
    }

    #[test]
    fn a_bus_that_is_not_there_is_missing() {
        let fault = RppalI2c::open(250).err().expect("no such bus");
        assert_eq!(fault.code, FaultCode::Missing);
        assert!(fault.detail.contains("/dev/i2c-250") && fault.detail.contains("dtoverlay"), "{fault}");
    }
}
