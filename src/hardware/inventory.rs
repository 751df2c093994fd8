//! What a machine has of buses, lines and ports, for `vigie scan`.

use std::path::PathBuf;

use super::serial::UsbId;
use super::{SpiPlace, header};

/// What there is. What cannot be seen is told in `troubles`, and the rest is there.
#[derive(Debug, Default)]
pub struct Inventory {
    /// I2C buses, by number.
    pub i2c: Vec<NumberedBus>,
    /// SPI device nodes.
    pub spi: Vec<SpiPlace>,
    /// GPIO lines of all chips.
    pub lines: Vec<LineInfo>,
    /// Serial ports.
    pub ports: Vec<PortInfo>,
    /// What could not be looked at, and what to do.
    pub troubles: Vec<String>,
}

/// An I2C bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberedBus {
    /// N of `/dev/i2c-N`.
    pub number: u8,
    /// The adapter's name.
    pub name: String,
}

/// A GPIO line.
#[derive(Clone, Debug)]
pub struct LineInfo {
    /// Its chip's name below /dev.
    pub chip: String,
    /// Its number there.
    pub offset: u32,
    /// The kernel's name for it; empty if it has none.
    pub name: String,
    /// Who uses it.
    pub holder: Option<String>,
    /// Where it is on a Pi's header.
    pub header: Option<&'static header::Line>,
}

/// A serial port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortInfo {
    /// The path that leads to this port and no other, however often things are plugged in: what to write as `port`.
    pub path: PathBuf,
    /// The device node to which it leads now.
    pub node: PathBuf,
    /// The kernel's driver, such as `ch341`, `cdc_acm`, `uart-pl011`.
    pub driver: Option<String>,
    /// The device, if it is on USB.
    pub usb: Option<UsbPort>,
    /// The kernel's console is on it.
    pub console: bool,
    /// Who has it open, of those whose files we may see.
    pub holder: Option<String>,
}

/// The device behind a serial port on USB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsbPort {
    /// What it is; a CH340 has no serial number.
    pub id: UsbId,
    /// What it calls itself.
    pub product: Option<String>,
    /// Another one that is plugged in has the same id, serial number included: names by id are not this one's alone.
    pub twin: bool,
}
