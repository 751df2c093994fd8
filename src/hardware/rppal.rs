//! A Raspberry Pi's I2C, SPI and GPIO through the crate rppal.
//!
//! rppal drives the lines through the controller's registers (`/dev/gpiomem`, else `/dev/mem`), and takes edges and
//! buses from the kernel. It knows the models up to the Raspberry Pi 5, and its author retired it in July 2025. What it
//! does not do, serial ports and the files of the kernel's drivers, is as on Linux.

use std::fs;
use std::sync::Arc;

use ::rppal::system::DeviceInfo;

use super::files::MachineFiles;
use super::linux::{Buses, Ports};
use super::{
    Hardware, I2cBus, InputLine, KernelFiles, LineSettings, OutputLine, OutputSettings, PortName, SerialPort,
    SerialSettings, SpiDevice, SpiSettings,
};
use crate::hardware::serial_bus::{SerialBus, SerialBuses};
use crate::reading::{Fault, FaultCode};

mod gpio;
mod i2c;
mod spi;

/// The devices of a Raspberry Pi.
#[derive(Debug, Default)]
pub struct Rppal {
    buses: Buses,
    ports: Ports,
    serial_buses: SerialBuses,
}

impl Rppal {
    /// Touches nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Hardware for Rppal {
    fn i2c(&self, bus: u8) -> Result<I2cBus, Fault> {
        check_board()?;
        self.buses.shared(bus, || Ok(Box::new(i2c::RppalI2c::open(bus)?)))
    }

    fn spi(&self, settings: &SpiSettings) -> Result<Box<SpiDevice>, Fault> {
        check_board()?;
        Ok(Box::new(spi::RppalSpi::open(settings)?))
    }

    fn files(&self) -> Arc<dyn KernelFiles> {
        Arc::new(MachineFiles)
    }

    fn input_line(&self, settings: &LineSettings) -> Result<Box<dyn InputLine>, Fault> {
        check_board()?;
        Ok(Box::new(gpio::RppalInput::take(settings)?))
    }

    fn output_line(&self, settings: &OutputSettings) -> Result<Box<dyn OutputLine>, Fault> {
        check_board()?;
        Ok(Box::new(gpio::RppalOutput::take(settings)?))
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

/// A fault on any machine that rppal does not know.
fn check_board() -> Result<(), Fault> {
    match DeviceInfo::new() {
        Ok(_) => Ok(()),
        Err(_) => Err(unknown_board(fs::read_to_string("/proc/device-tree/model").ok().as_deref())),
    }
}

/// What is said on a machine that calls itself `model` in its device tree; PCs have none.
fn unknown_board(model: Option<&str>) -> Fault {
    let model = model.map(|model| model.trim_end_matches('\0').trim());
    let what = match model {
        Some(model) if model.starts_with("Raspberry Pi") => {
            format!("rppal does not know this board (`{model}`): it may be newer than the crate")
        }
        Some(model) => format!("this machine is a `{model}`, and rppal runs on a Raspberry Pi only"),
        None => "this machine is no Raspberry Pi, and rppal runs on one only".to_owned(),
    };
    Fault::new(FaultCode::Missing, format!("{what}; take `backend = \"linux\"` below [hardware], or leave it out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_board_that_is_not_known_is_named_and_the_way_out_is_told() {
        for (model, expected) in [
            (Some("Raspberry Pi 7 Model B Rev 1.0\0"), "`Raspberry Pi 7 Model B Rev 1.0`): it may be newer"),
            (Some("TI AM335x BeagleBone Black\0"), "this machine is a `TI AM335x BeagleBone Black`"),
            (None, "this machine is no Raspberry Pi"),
        ] {
            let fault = unknown_board(model);
            assert_eq!(fault.code, FaultCode::Missing);
            assert!(fault.detail.contains(expected) && fault.detail.contains("backend = \"linux\""), "{fault}");
        }
    }
}
