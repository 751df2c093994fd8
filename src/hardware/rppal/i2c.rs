//! `/dev/i2c-N` through rppal.

use std::io;
use std::path::PathBuf;

use ::rppal::i2c::{Error, I2c};
use embedded_hal::i2c::{ErrorType, Operation};

use crate::hardware::I2cError;
use crate::hardware::i2c_parts::{self, Part};
use crate::hardware::linux::i2c::{bus_error, node, open_fault};
use crate::reading::Fault;

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

    fn try_transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), Error> {
        let device = match &mut self.device {
            Some(device) => device,
            closed => closed.insert(I2c::with_bus(self.number)?),
        };
        device.set_slave_address(u16::from(address))?;
        let mut parts = i2c_parts::of(operations);
        let (wanted, done) = match &mut parts[..] {
            [] => return Ok(()),
            [Part::Write(bytes)] => (bytes.len(), device.write(bytes)?),
            [Part::Read(buffer)] => (buffer.len(), device.read(buffer)?),
            [Part::Write(bytes), Part::Read(buffer)] if !bytes.is_empty() && !buffer.is_empty() => {
                device.write_read(bytes, buffer)?;
                (0, 0)
            }
            _ => return Err(Error::FeatureNotSupported),
        };
        if done != wanted {
            return Err(Error::Io(io::Error::other(format!("{done} of {wanted} bytes were transferred"))));
        }
        i2c_parts::hand_out(&parts, operations);
        Ok(())
    }
}

impl ErrorType for RppalI2c {
    type Error = I2cError;
}

impl embedded_hal::i2c::I2c for RppalI2c {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), I2cError> {
        self.try_transaction(address, operations).map_err(|error| {
            let error = cause(error);
            if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT)) {
                self.device = None;
            }
            bus_error(&self.path, address, &error)
        })
    }
}

fn cause(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::FeatureNotSupported => io::Error::other(
            "rppal can write, read, or write and then read in one transaction; `backend = \"linux\"` can do more",
        ),
        other => io::Error::other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::FaultCode;

    #[test]
    fn a_bus_that_is_not_there_is_missing() {
        let fault = RppalI2c::open(250).err().expect("no such bus");
        assert_eq!(fault.code, FaultCode::Missing);
        assert!(fault.detail.contains("/dev/i2c-250") && fault.detail.contains("dtoverlay"), "{fault}");
    }
}
