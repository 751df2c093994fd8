//! This machine's own devices: `/dev/i2c-N`, the GPIO character device, serial ports.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::files::MachineFiles;
use super::i2c::RawI2c;
use super::{
    Hardware, I2cBus, InputLine, KernelFiles, LineSettings, OutputLine, OutputSettings, PortName, SerialPort,
    SerialSettings, SpiDevice, SpiSettings,
};
use crate::hardware::serial_bus::{SerialBus, SerialBuses};
use crate::reading::{Fault, FaultCode};

pub(super) mod gpio;
pub(super) mod i2c;
mod inventory;
mod node;
mod ports;
mod serial;
pub(super) mod spi;
mod tty;

pub(super) use inventory::inventory;
pub(super) use serial::Ports;

/// The devices of a Linux machine.
#[derive(Debug, Default)]
pub struct Linux {
    buses: Buses,
    ports: Ports,
    serial_buses: SerialBuses,
}

impl Linux {
    /// Touches nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Hardware for Linux {
    fn i2c(&self, bus: u8) -> Result<I2cBus, Fault> {
        self.buses.shared(bus, || Ok(Box::new(i2c::LinuxI2c::open(bus)?)))
    }

    fn input_line(&self, settings: &LineSettings) -> Result<Box<dyn InputLine>, Fault> {
        Ok(Box::new(gpio::LinuxLine::request(settings)?))
    }

    fn output_line(&self, settings: &OutputSettings) -> Result<Box<dyn OutputLine>, Fault> {
        Ok(Box::new(gpio::LinuxOutput::request(settings)?))
    }

    fn spi(&self, settings: &SpiSettings) -> Result<Box<SpiDevice>, Fault> {
        Ok(Box::new(spi::LinuxSpi::open(settings)?))
    }

    fn files(&self) -> Arc<dyn KernelFiles> {
        Arc::new(MachineFiles)
    }

    fn serial(&self, settings: &SerialSettings) -> Result<Box<dyn SerialPort>, Fault> {
        self.ports.open(settings)
    }

    fn serial_bus(&self, settings: &SerialSettings) -> Result<Arc<SerialBus>, Fault> {
        self.serial_buses.get(settings, |settings| self.serial(settings))
    }

    fn has_port(&self, name: &PortName) -> bool {
        self.ports.has(name)
    }
}

/// One handle a bus, so that transactions of several sensors exclude one another.
#[derive(Debug, Default)]
pub(super) struct Buses(Mutex<BTreeMap<u8, I2cBus>>);

impl Buses {
    /// The handle of a bus, which is opened if nobody has it yet.
    pub(super) fn shared(&self, bus: u8, open: impl FnOnce() -> Result<Box<RawI2c>, Fault>) -> Result<I2cBus, Fault> {
        let mut buses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = buses.get(&bus) {
            return Ok(handle.clone());
        }
        let handle = I2cBus::new(open()?);
        buses.insert(bus, handle.clone());
        Ok(handle)
    }
}

/// Why a device node cannot be opened, and what to do. `missing` says how such a node comes to be.
pub(super) fn node_fault(path: &Path, error: &io::Error, missing: &str) -> Fault {
    let node = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => Fault::new(FaultCode::Missing, format!("{node} is not there: {missing}")),
        io::ErrorKind::PermissionDenied if error.raw_os_error() == Some(libc::EPERM) => Fault::new(
            FaultCode::Permission,
            format!("{node} is closed to this service: its unit needs `DeviceAllow={node} rw`"),
        ),
        io::ErrorKind::PermissionDenied => Fault::new(FaultCode::Permission, permission_remedy(path)),
        _ => Fault::new(FaultCode::Io, format!("{node} cannot be opened: {error}")),
    }
}

fn permission_remedy(path: &Path) -> String {
    let node = path.display();
    match owning_group(path) {
        Some(group) if group != "root" => format!(
            "{node} may only be opened by the group `{group}`: add the user that vigie runs as \
             (`sudo usermod -aG {group} USER`, then log in again), or put `SupplementaryGroups={group}` into the unit"
        ),
        _ => format!(
            "{node} may only be opened by root: give it to a group with a udev rule, and add the user that vigie \
             runs as to that group"
        ),
    }
}

/// The name of the group that owns a node, from /etc/group (its lines are `name:password:gid:members`, group(5)).
fn owning_group(path: &Path) -> Option<String> {
    let gid = fs::metadata(path).ok()?.gid().to_string();
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == gid).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_node_and_missing_rights_say_what_to_do() {
        let error = io::Error::from_raw_os_error(libc::ENOENT);
        let fault = node_fault(Path::new("/dev/i2c-9"), &error, "enable it");
        assert_eq!((fault.code, fault.detail.as_str()), (FaultCode::Missing, "/dev/i2c-9 is not there: enable it"));

        let error = io::Error::from_raw_os_error(libc::EACCES);
        let fault = node_fault(Path::new("/dev/null"), &error, "");
        assert_eq!(fault.code, FaultCode::Permission);
        assert!(fault.detail.contains("udev rule"), "{fault}");

        let error = io::Error::from_raw_os_error(libc::EPERM);
        let fault = node_fault(Path::new("/dev/null"), &error, "");
        assert!(fault.detail.contains("DeviceAllow=/dev/null rw"), "{fault}");
    }
}
