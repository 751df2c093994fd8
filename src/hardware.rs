//! Buses, lines and serial ports: what drivers stand on.
//!
//! [`Hardware`] is implemented by the machine's own interfaces and by simulated ones, which speak at the same level
//! (registers, edges, bytes), so that the shipped drivers run unchanged above either. Only the files of this module
//! name HAL crates.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{BootTime, Clock};
use crate::reading::Fault;

pub mod adjtimex;
#[cfg(test)]
mod contract;
pub mod expander;
pub mod files;
pub mod header;
pub mod i2c;
mod i2c_parts;
pub mod inventory;
pub mod linux;
mod power;
#[cfg(feature = "rppal")]
pub mod rppal;
pub mod serial;
pub mod serial_bus;
pub mod sim;
pub mod spi;

pub use expander::{ExpanderChip, ExpanderSettings};
pub use files::KernelFiles;
pub use i2c::{I2cBus, I2cError, I2cPath, MuxChannel};
pub use inventory::{Inventory, LineInfo, NumberedBus, PortInfo, UsbPort};
pub use power::PowerSettings;
pub use serial::{PortName, SerialPort, SerialSettings};
pub use serial_bus::SerialBus;
pub use spi::{SpiDevice, SpiError, SpiPlace, SpiSettings};

/// Which hardware the drivers run on (`[hardware] backend`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// This machine's I2C, GPIO and serial devices.
    #[default]
    Linux,
    /// A Raspberry Pi's I2C, SPI and GPIO through the crate rppal, in builds that have it.
    #[cfg(feature = "rppal")]
    Rppal,
    /// Simulated chips, lines and an Arduino, at register level.
    Sim,
}

impl Backend {
    /// The hardware of that back end. `clock` is what simulated chips live by.
    #[must_use]
    pub fn start(self, clock: Arc<dyn Clock>) -> Arc<dyn Hardware> {
        match self {
            Self::Linux => Arc::new(linux::Linux::new()),
            #[cfg(feature = "rppal")]
            Self::Rppal => Arc::new(rppal::Rppal::new()),
            Self::Sim => Arc::new(sim::Sim::new(clock, sim::DEFAULT_SEED)),
        }
    }
}

/// `[hardware]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Which hardware.
    pub backend: Backend,
    /// What happens to simulated hardware.
    pub faults: Vec<sim::fault::ScriptedFault>,
    /// `[expander.NAME]`
    pub expanders: Vec<ExpanderSettings>,
}

impl Settings {
    /// The hardware so configured. `clock` is what simulated chips live by.
    #[must_use]
    pub fn start(&self, clock: &Arc<dyn Clock>) -> Arc<dyn Hardware> {
        let board = match self.backend {
            Backend::Sim => Arc::new(sim::Sim::with_faults(Arc::clone(clock), sim::DEFAULT_SEED, self.faults.clone())),
            backend => backend.start(Arc::clone(clock)),
        };
        if self.expanders.is_empty() {
            return board;
        }
        Arc::new(expander::Expanders::over(board, &self.expanders, clock))
    }
}

/// An interface of the machine, real or simulated.
///
/// Lines and ports register with the reactor: take and open them from within a tokio runtime.
pub trait Hardware: Send + Sync {
    /// The I2C bus `/dev/i2c-<bus>`.
    ///
    /// # Errors
    /// A fault that says which device node or right is missing, and how to get it.
    fn i2c(&self, bus: u8) -> Result<I2cBus, Fault>;

    /// The SPI device `/dev/spidev<bus>.<chip select>`.
    ///
    /// # Errors
    /// A fault that says which device node or right is missing, and how to get it.
    fn spi(&self, settings: &SpiSettings) -> Result<Box<SpiDevice>, Fault>;

    /// What there is, for `vigie scan`: of this machine, unless the back end is no machine. Opens no bus and takes no
    /// line.
    fn inventory(&self) -> Inventory {
        linux::inventory()
    }

    /// The files of the kernel's own drivers.
    fn files(&self) -> Arc<dyn KernelFiles>;

    /// Takes a GPIO line as an input whose edges are reported.
    ///
    /// # Errors
    /// A fault that says which chip, line or right is missing, or who holds the line.
    fn input_line(&self, settings: &LineSettings) -> Result<Box<dyn InputLine>, Fault>;

    /// Takes a GPIO line as an output, with its first level.
    ///
    /// # Errors
    /// As of [`input_line`](Self::input_line).
    fn output_line(&self, settings: &OutputSettings) -> Result<Box<dyn OutputLine>, Fault>;

    /// Opens a serial port, exclusively. Blocks: a USB driver may take seconds for a device that does not answer.
    ///
    /// # Errors
    /// A fault that says which device node or right is missing, or that somebody else holds the port.
    fn serial(&self, settings: &SerialSettings) -> Result<Box<dyn SerialPort>, Fault>;

    /// A serial port on which several ask in turn: the one that is open with these settings, or a new one. For threads
    /// that may block, not from within a runtime.
    ///
    /// # Errors
    /// As of [`serial`](Self::serial).
    fn serial_bus(&self, settings: &SerialSettings) -> Result<Arc<SerialBus>, Fault>;

    /// Is the port there, and may it be opened? Cheap enough to be asked twice a second.
    fn has_port(&self, name: &PortName) -> bool;
}

/// A GPIO line by name (`GPIO17`) or by chip and offset (`gpiochip0:17`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LineId {
    /// The name that the kernel gives the line, found on whichever chip has it.
    Name(String),
    /// A chip's name below /dev and the line's offset on it.
    Offset {
        /// For example `gpiochip0`.
        chip: String,
        /// Counted from 0.
        offset: u32,
    },
}

impl LineId {
    /// The line of a Pi's header that this is. Told by offset it is, if the chip is the header's, as `gpiochip0` is on
    /// every Pi (but a Pi 5 with a kernel before 6.6.45).
    #[must_use]
    pub fn on_header(&self) -> Option<&'static header::Line> {
        match self {
            Self::Name(name) => header::Line::of_name(name),
            Self::Offset { chip, offset } => header::Line::of_bcm(*offset).filter(|_| chip == "gpiochip0"),
        }
    }
}

impl fmt::Display for LineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => match header::Line::of_name(name) {
                Some(line) => line.fmt(f),
                None => f.write_str(name),
            },
            Self::Offset { chip, offset } => write!(f, "{chip}:{offset}"),
        }
    }
}

/// The resistor that a line is given inside of the chip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bias {
    /// As it was.
    #[default]
    AsIs,
    /// Towards the supply.
    PullUp,
    /// Towards ground.
    PullDown,
    /// None.
    Disabled,
}

/// Which changes of a line's level are reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Edges {
    /// To active and to inactive.
    #[default]
    Both,
    /// To active only.
    Rising,
    /// To inactive only.
    Falling,
}

/// How to take an input line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineSettings {
    /// Which line.
    pub line: LineId,
    /// Take it even if it is one that the board itself needs: ID EEPROM, SD card, Wi-Fi.
    pub reserved: bool,
    /// Its resistor.
    pub bias: Bias,
    /// Low counts as active.
    pub active_low: bool,
    /// A level must hold this long to count as an edge; zero for none. Done by the kernel.
    pub debounce: Duration,
    /// The edges that are reported, and counted by [`Edge::sequence`].
    pub edges: Edges,
}

/// How to take an output line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputSettings {
    /// Which line.
    pub line: LineId,
    /// Active drives the line low.
    pub active_low: bool,
    /// Its first level: active or not.
    pub active: bool,
}

/// An output line that was taken. Dropping it gives the line back; its level is then undefined.
pub trait OutputLine: Send {
    /// Drives the line: active or not.
    ///
    /// # Errors
    /// Why the line cannot be driven.
    fn set(&mut self, active: bool) -> Result<(), Fault>;
}

/// A change of a line's level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// When it happened by the kernel's time stamp, on the boot clock.
    pub at: BootTime,
    /// The level after it: active or not (active-low is already taken into account).
    pub active: bool,
    /// The kernel's count of the reported edges of this line, from 1; a gap is the number of edges that were lost.
    /// Always 0 where a back end does not count.
    pub sequence: u32,
}

/// A future that may be awaited through a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An input line that was taken. Dropping it gives the line back.
pub trait InputLine: Send {
    /// The level now: active or not.
    ///
    /// # Errors
    /// Why the level cannot be read.
    fn level(&mut self) -> Result<bool, Fault>;

    /// Waits for edges; gives all that have come, at least one. Cancelling the wait loses none.
    fn edges(&mut self) -> BoxFuture<'_, Result<Vec<Edge>, Fault>>;
}
