//! `/dev/i2c-N` (Documentation/i2c/dev-interface.rst).

use std::io;
use std::path::{Path, PathBuf};

use embedded_hal::i2c::{ErrorKind, ErrorType, I2c, NoAcknowledgeSource, Operation, SevenBitAddress};
use linux_embedded_hal::I2cdev;
use linux_embedded_hal::i2cdev::linux::LinuxI2CError;

use super::node_fault;
use crate::hardware::I2cError;
use crate::hardware::i2c_parts::{self, Part};
use crate::reading::{Fault, FaultCode};

pub(super) struct LinuxI2c {
    path: PathBuf,
    /// Closed after an error that says that the adapter is gone (a USB adapter was pulled), and opened anew by the
    /// next transaction.
    device: Option<I2cdev>,
}

impl LinuxI2c {
    pub(super) fn open(bus: u8) -> Result<Self, Fault> {
        let path = node(bus);
        match I2cdev::new(&path) {
            Ok(device) => Ok(Self { path, device: Some(device) }),
            Err(error) => Err(open_fault(bus, &error.into())),
        }
    }

    fn try_transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), io::Error> {
        let device = match &mut self.device {
            Some(device) => device,
            closed => closed.insert(I2cdev::new(&self.path)?),
        };
        let mut parts = i2c_parts::of(operations);
        let mut whole: Vec<_> = parts.iter_mut().map(Part::operation).collect();
        I2c::<SevenBitAddress>::transaction(device, address, &mut whole).map_err(|error| match error.inner() {
            LinuxI2CError::Errno(errno) => io::Error::from_raw_os_error(*errno),
            LinuxI2CError::Io(error) => {
                error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
            }
        })?;
        i2c_parts::hand_out(&parts, operations);
        Ok(())
    }
}

/// A bus's device node.
pub(in crate::hardware) fn node(bus: u8) -> PathBuf {
    PathBuf::from(format!("/dev/i2c-{bus}"))
}

/// Why a bus cannot be opened, and what to do.
pub(in crate::hardware) fn open_fault(bus: u8, error: &io::Error) -> Fault {
    node_fault(&node(bus), error, &how_to_enable(bus))
}

fn how_to_enable(bus: u8) -> String {
    match bus {
        1 => "enable I2C on the header (`sudo raspi-config nonint do_i2c 0`, or `dtparam=i2c_arm=on` in \
              /boot/firmware/config.txt and a restart)"
            .to_owned(),
        _ => format!(
            "see `ls /dev/i2c-*` for the buses there are; the header's is bus 1, others need a device-tree overlay \
             (such as `dtoverlay=i2c{bus}` in /boot/firmware/config.txt)"
        ),
    }
}

impl ErrorType for LinuxI2c {
    type Error = I2cError;
}

impl I2c for LinuxI2c {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), I2cError> {
        self.try_transaction(address, operations).map_err(|error| {
            let errno = error.raw_os_error();
            if matches!(errno, Some(libc::ENODEV | libc::ENOENT)) {
                self.device = None;
            }
            bus_error(&self.path, address, &error)
        })
    }
}

/// i2c-bcm2835 (Pi 1 to 4) times out and has no recovery; i2c-designware (Pi 5) clocks a chip free only where the device
/// tree names the wires as GPIO (`scl-gpios`), which that of the RP1 does not.
const HELD_LOW: &str = "the bus hangs: a chip holds a wire low, and a Pi cannot clock it free. Taking its supply away for a \
                        moment does (the key `power` of a sensor); where the chip only stretches the clock, a Pi before \
                        the 5 needs a slower bus or `dtoverlay=i2c-gpio`";

/// What a failed transfer is told as.
pub(in crate::hardware) fn bus_error(path: &Path, address: u8, error: &io::Error) -> I2cError {
    let (kind, code, meaning) = meaning(error.raw_os_error());
    let message = format!("{meaning} (address {address:#04x} on {}: {error})", path.display());
    I2cError { kind, code, message }
}

/// What the kernel's error numbers mean on a bus (Documentation/i2c/fault-codes.rst); the Pi's i2c-bcm2835 gives
/// EREMOTEIO where others give ENXIO.
fn meaning(errno: Option<i32>) -> (ErrorKind, FaultCode, &'static str) {
    let unanswered = ErrorKind::NoAcknowledge(NoAcknowledgeSource::Unknown);
    match errno {
        Some(libc::ENXIO | libc::EREMOTEIO) => (unanswered, FaultCode::Bus, "nobody acknowledges"),
        Some(libc::EBUSY) => (ErrorKind::Other, FaultCode::Busy, "a driver of the kernel uses this address"),
        Some(libc::EAGAIN) => (ErrorKind::ArbitrationLoss, FaultCode::Bus, "arbitration lost"),
        Some(libc::ETIMEDOUT) => (ErrorKind::Bus, FaultCode::Bus, HELD_LOW),
        Some(libc::ENODEV | libc::ENOENT) => (ErrorKind::Bus, FaultCode::Missing, "the bus is gone"),
        Some(libc::EIO | libc::EPROTO) => (ErrorKind::Bus, FaultCode::Bus, "the transfer failed"),
        _ => (ErrorKind::Other, FaultCode::Io, "the transfer was refused"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bus_that_is_not_there_is_missing() {
        let fault = LinuxI2c::open(250).err().expect("no such bus");
        assert_eq!(fault.code, FaultCode::Missing);
        assert!(fault.detail.contains("/dev/i2c-250") && fault.detail.contains("dtoverlay"), "{fault}");
    }

    #[test]
    fn a_wire_that_is_held_low_says_what_helps() {
        let (_, code, meaning) = meaning(Some(libc::ETIMEDOUT));
        assert!(code == FaultCode::Bus && meaning.contains("`power`") && meaning.contains("dtoverlay=i2c-gpio"));
    }

    #[test]
    fn a_missing_acknowledge_is_told_whichever_way_the_adapter_says_it() {
        for errno in [libc::ENXIO, libc::EREMOTEIO] {
            assert!(matches!(meaning(Some(errno)).0, ErrorKind::NoAcknowledge(_)));
        }
    }
}
