//! What a machine has of buses, lines and ports, for `vigie scan`.

use std::path::PathBuf;

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
    /// Serial ports, by the path that stays the same.
    pub ports: Vec<PathBuf>,
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
