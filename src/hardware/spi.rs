//! SPI devices: a bus and a chip select, which Linux gives as one device node.

use std::fmt;

use embedded_hal::spi::ErrorKind;

use crate::reading::FaultCode;

/// How a chip is reached on SPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpiSettings {
    /// Which device.
    pub place: SpiPlace,
    /// The clock's polarity and phase, as the chip's data sheet has it.
    pub mode: embedded_hal::spi::Mode,
    /// The fastest clock, in hertz.
    pub max_hz: u32,
}

/// `/dev/spidev<bus>.<chip_select>`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiPlace {
    /// The controller.
    pub bus: u8,
    /// Its chip-select line.
    pub chip_select: u8,
}

impl fmt::Display for SpiPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chip select {} on SPI bus {}", self.chip_select, self.bus)
    }
}

/// What went wrong on an SPI bus. A chip that is not there goes unnoticed by SPI itself: it reads as all zeros or ones.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct SpiError {
    /// The same as a sensor's fault.
    pub code: FaultCode,
    /// The system's words, with the device.
    pub message: String,
}

impl embedded_hal::spi::Error for SpiError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

/// An SPI device as the back ends give it: any implementation of embedded-hal's trait with our error.
pub type SpiDevice = dyn embedded_hal::spi::SpiDevice<Error = SpiError> + Send;
