//! The drivers: one file each, one line each in [`DRIVERS`].
//!
//! A driver's `parse` reads its options and touches nothing; opening touches hardware and can be repeated. There are
//! two kinds. A *poller* is asked for samples and may block: it runs on a thread of its own. A *decoder* is given the
//! bytes or edges that the transport has read, and does no I/O itself.
//!
//! What they share lies in [`support`].
//!
//! To add a driver, write `drivers/<name>.rs` with a `pub(crate) static DRIVER: Driver`, and add it to [`DRIVERS`];
//! `docs/adding-a-driver.md` goes through one. The tests below then hold it to the rules, and `docs/drivers.md` is made
//! from it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use self::support::{gpio, i2c, serial, spi};
use crate::clock::BootTime;
use crate::command::{Answer, Command, Outgoing};
use crate::hardware::{Edge, Hardware, I2cPath, LineId, LineSettings, PortName, SerialSettings, SpiPlace};
pub use crate::options::OptionInfo;
use crate::options::Options;
use crate::reading::{Fault, Kind, Sample};

mod ads1115;
mod aht20;
mod bh1750;
mod bme280;
pub mod docs;
mod exec;
mod file;
mod frequency;
mod gpio_input;
mod host;
pub(crate) mod hwmon;
mod i2c_raw;
pub(crate) mod iio;
mod ina219;
mod lm75;
mod mcp3008;
mod mcp9808;
pub mod message;
pub mod modbus_rtu;
pub mod nmea;
mod pulse_counter;
mod pulse_width;
mod scd4x;
pub mod serial_frames;
pub mod serial_json;
pub mod serial_lines;
mod sht3x;
mod sht4x;
mod spi_raw;
pub mod support;
mod tmp102;
pub(crate) mod w1;

/// All drivers, sorted by name.
pub static DRIVERS: &[&Driver] = &[
    &ads1115::DRIVER,
    &aht20::DRIVER,
    &bh1750::DRIVER,
    &bme280::DRIVER,
    &exec::DRIVER,
    &file::DRIVER,
    &frequency::DRIVER,
    &gpio_input::DRIVER,
    &host::DRIVER,
    &hwmon::DRIVER,
    &i2c_raw::DRIVER,
    &iio::DRIVER,
    &ina219::DRIVER,
    &lm75::DRIVER,
    &mcp3008::DRIVER,
    &mcp9808::DRIVER,
    &modbus_rtu::DRIVER,
    &nmea::DRIVER,
    &pulse_counter::DRIVER,
    &pulse_width::DRIVER,
    &scd4x::DRIVER,
    &serial_frames::DRIVER,
    &serial_json::DRIVER,
    &serial_lines::DRIVER,
    &sht3x::DRIVER,
    &sht4x::DRIVER,
    &spi_raw::DRIVER,
    &tmp102::DRIVER,
    &w1::DRIVER,
];

/// The keys of `[[sensor]]` that every sensor has; no driver may have one of the same name.
pub const COMMON_KEYS: [&str; 16] = [
    "align",
    "change",
    "deadline",
    "driver",
    "every",
    "filters",
    "frozen_after",
    "heartbeat",
    "label",
    "location",
    "name",
    "power",
    "quantity",
    "room",
    "tags",
    "topic",
];

/// The driver of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Driver> {
    DRIVERS.iter().copied().find(|driver| driver.name == name)
}

/// A driver as plain data.
pub struct Driver {
    /// Its name in `driver = "…"`.
    pub name: &'static str,
    /// One line for lists.
    pub summary: &'static str,
    /// What a user needs to know beyond the options: wiring, what must be switched on, limits. Markdown.
    pub notes: &'static str,
    /// A working `[[sensor]]` table.
    pub sample: &'static str,
    /// How it is connected, which brings keys of its own.
    pub connection: Connection,
    /// Its own keys, in the order in which to show them.
    pub options: &'static [OptionInfo],
    /// The quantities it emits; empty where the configuration or the device names them.
    pub quantities: &'static [QuantityInfo],
    /// Reads the driver's own keys. Problems are noted in `Options`; `None` if there is no going on.
    pub parse: fn(&Options<'_>) -> Option<Parsed>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How a driver's device is connected.
#[derive(Clone, Copy)]
pub enum Connection {
    /// As its own options say.
    Own,
    /// A chip on I2C.
    I2c(i2c::Info),
    /// A chip on SPI.
    Spi(spi::Info),
    /// A GPIO line.
    Line,
    /// A serial port of its own.
    Serial(serial::Info),
}

impl Connection {
    /// The keys that it brings.
    #[must_use]
    pub fn options(&self) -> Vec<OptionRow> {
        match self {
            Self::Own => Vec::new(),
            Self::I2c(info) => info.options(),
            Self::Spi(info) => info.options(),
            Self::Line => gpio::options(),
            Self::Serial(info) => info.options(),
        }
    }
}

impl Driver {
    /// All of its keys, those of its connection first.
    pub fn all_options(&self) -> impl Iterator<Item = OptionRow> {
        let own = self.options.iter().map(|option| OptionRow {
            name: option.name,
            values: option.values.to_owned(),
            default: option.default.map(str::to_owned),
            help: option.help,
        });
        self.connection.options().into_iter().chain(own)
    }
}

/// A key of a driver, its own or its connection's.
#[derive(Debug)]
pub struct OptionRow {
    /// As of [`OptionInfo`].
    pub name: &'static str,
    /// As of [`OptionInfo`].
    pub values: String,
    /// As of [`OptionInfo`].
    pub default: Option<String>,
    /// As of [`OptionInfo`].
    pub help: &'static str,
}

/// A quantity that a driver emits.
#[derive(Debug)]
pub struct QuantityInfo {
    /// Its name.
    pub name: &'static str,
    /// Its unit, if it has one.
    pub unit: Option<&'static str>,
    /// How it is treated.
    pub kind: Kind,
    /// One sentence: meaning, range, accuracy.
    pub help: &'static str,
}

/// What a sensor's options came to.
pub struct Parsed {
    /// How to get samples.
    pub source: Source,
    /// What it uses of the machine: no two sensors may claim the same.
    pub claims: Vec<Claim>,
}

/// Something of the machine that only one sensor can use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Claim {
    /// A GPIO line.
    Line(LineId),
    /// An address on an I2C bus.
    I2c {
        /// The bus, and the multiplexer's channel where the chip is behind one.
        path: I2cPath,
        /// 7 bits.
        address: u8,
    },
    /// A chip select on an SPI bus.
    Spi(SpiPlace),
    /// A serial port.
    Port(PortName),
    /// A serial port that others may ask on, too, with the same settings.
    SharedPort(SerialSettings),
    /// A chip on 1-Wire, by its id.
    OneWire(String),
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "GPIO line {line}"),
            Self::I2c { path, address } => write!(f, "address {address:#04x} on {path}"),
            Self::Spi(place) => place.fmt(f),
            Self::Port(port) | Self::SharedPort(SerialSettings { port, .. }) => write!(f, "serial port {port}"),
            Self::OneWire(id) => write!(f, "1-Wire chip {id}"),
        }
    }
}

/// How a sensor's samples come to be.
pub enum Source {
    /// Asked each `every`.
    Poller(Arc<dyn Open>),
    /// Bytes from a serial port.
    Serial {
        /// The port.
        settings: SerialSettings,
        /// Makes a decoder for each time that the port is opened.
        decoder: Box<dyn Fn() -> Box<dyn ByteDecoder> + Send>,
    },
    /// Edges of a GPIO line, and its level each `every`.
    Line(LineSource),
    /// What a program prints.
    Process(ProcessSource),
}

impl Source {
    /// Can its device be sent commands?
    #[must_use]
    pub fn takes_commands(&self) -> bool {
        match self {
            Self::Serial { decoder, .. } => decoder().takes_commands(),
            Self::Process(source) => source.settings.once.is_none(),
            Self::Poller(device) => device.takes_commands(),
            Self::Line(_) => false,
        }
    }

    /// Units of quantities that follow from the sensor's options, by the driver's name of the quantity.
    #[must_use]
    pub fn units(&self) -> Vec<(String, String)> {
        match self {
            Self::Poller(device) => device.units(),
            Self::Serial { .. } | Self::Process(_) => Vec::new(),
            Self::Line(line) => line.units.iter().map(|(name, unit)| ((*name).to_owned(), unit.clone())).collect(),
        }
    }
}

/// A sensor on a GPIO line.
pub struct LineSource {
    /// The line.
    pub settings: LineSettings,
    /// Units of quantities that follow from the sensor's options, by the driver's name of the quantity.
    pub units: Vec<(&'static str, String)>,
    /// Makes a decoder for each time that the line is taken.
    pub decoder: Box<MakeLineDecoder>,
}

/// A sensor that is a program.
pub struct ProcessSource {
    /// The program.
    pub settings: ProcessSettings,
    /// Makes a decoder of what it prints for each time that it is started.
    pub decoder: Box<dyn Fn() -> Box<dyn ByteDecoder> + Send>,
}

/// A program to run, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSettings {
    /// The program and its arguments; no shell reads them. Not empty.
    pub command: Vec<String>,
    /// In which folder.
    pub directory: PathBuf,
    /// What its environment holds besides, or instead of, what all programs get.
    pub env: Vec<(String, String)>,
    /// `Some`: it is started for each sample, and prints so many bytes at most before it ends. `None`: it is to run
    /// for ever.
    pub once: Option<usize>,
}

/// Makes a decoder from what the last one of the sensor gave to keep.
pub type MakeLineDecoder = dyn Fn(Option<&[u8]>) -> Box<dyn LineDecoder> + Send;

/// A polled device that is not open yet. Runs on the sensor's own thread.
pub trait Open: Send + Sync {
    /// Opens the device and checks its identity where it has one. May be called again after a fault.
    ///
    /// # Errors
    /// Why it cannot be used, and what to do.
    fn open(&self, hardware: &dyn Hardware) -> Result<Box<dyn Poller>, Fault>;

    /// The longest that opening and one sample take together where nothing is wrong: a sensor's deadline, unless it is
    /// given, leaves room for that.
    fn longest(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// The serial port that it is behind, if it is behind one: when that comes back after it was gone, the device is asked
    /// at once.
    fn port(&self) -> Option<&PortName> {
        None
    }

    /// Units of quantities that follow from the sensor's options, by the driver's name of the quantity.
    fn units(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Can the device be sent commands?
    fn takes_commands(&self) -> bool {
        false
    }
}

/// A polled device. One `sample` is one transaction and gives all of its quantities.
pub trait Poller {
    /// Measures. May block.
    ///
    /// # Errors
    /// An error code of the chip, a failed checksum, an impossible value: a fault, never a value. After a fault the
    /// device is opened anew, unless it [stays open](Self::stays_open).
    fn sample(&mut self) -> Result<Vec<Sample>, Fault>;

    /// Can it be asked again after a fault as it is? Opening it anew would do harm, or forget what matters.
    fn stays_open(&self) -> bool {
        false
    }

    /// Carries out a command. May block.
    fn command(&mut self, command: &Command) -> Carried {
        let _ = command;
        Carried { samples: Vec::new(), outcome: Err("this driver takes no commands".to_owned()) }
    }
}

/// What came of a command to a polled device.
#[derive(Clone, Debug, PartialEq)]
pub struct Carried {
    /// What was read back.
    pub samples: Vec<Sample>,
    /// Done, or why not, for whoever sent it.
    pub outcome: Result<(), String>,
}

/// What a decoder made of its input: samples with the time of their capture, or a fault that does not end the link.
pub type Decoded = (BootTime, Result<Vec<Sample>, Fault>);

/// The most that a sensor can keep across restarts, in bytes.
pub const MAX_KEPT: usize = 128;

/// Makes samples of a stream of bytes that is cut anywhere.
pub trait ByteDecoder: Send {
    /// Takes the next bytes, read at `at`; appends what is complete.
    fn feed(&mut self, bytes: &[u8], at: BootTime, out: &mut Vec<Decoded>);

    /// The stream has ended as it should, at `at`; appends what that completes.
    fn end(&mut self, at: BootTime, out: &mut Vec<Decoded>) {
        let _ = (at, out);
    }

    /// Bytes that have come since the last end of a line or frame, whether they are kept or not; 0 where there are no such
    /// ends. A link on which they only grow has the wrong baud rate or the wrong driver.
    fn unfinished(&self) -> usize {
        0
    }

    /// What the decoder has to ask the device by itself, such as what its quantities are called: the bytes to write
    /// to the link. Looked for after each `feed`.
    fn asks(&mut self) -> Option<Vec<u8>> {
        None
    }

    /// Can the device be sent commands?
    fn takes_commands(&self) -> bool {
        false
    }

    /// The form in which a command goes to the device.
    ///
    /// # Errors
    /// Why the device cannot be sent this, for whoever sent it.
    fn command(&mut self, command: &Command) -> Result<Outgoing, String> {
        let _ = command;
        Err("this driver takes no commands".to_owned())
    }

    /// What [`command`](Self::command) gave last was written only in part: the device holds a fragment.
    fn cut(&mut self) {}

    /// The answers to commands that the bytes fed since the last call held.
    fn answers(&mut self) -> Vec<Answer> {
        Vec::new()
    }
}

/// Makes samples of a line's edges and level.
pub trait LineDecoder: Send {
    /// An edge.
    fn edge(&mut self, edge: Edge, out: &mut Vec<Decoded>);
    /// The level, read at `at`: when the line is taken and each `every`.
    fn level(&mut self, active: bool, at: BootTime, out: &mut Vec<Decoded>);

    /// What the next decoder of this sensor is to be given, if it has changed since the last call; at most
    /// [`MAX_KEPT`] bytes. It is kept as surely as the samples that were given before: across a restart and SIGKILL
    /// as it was, across a power cut within minutes.
    fn keep(&mut self) -> Option<Box<[u8]>> {
        None
    }
}

#[cfg(test)]
mod chip_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod tests;
