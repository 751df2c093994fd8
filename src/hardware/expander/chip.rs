//! The two kinds of expander behind one interface.

use embedded_hal::i2c::I2c;

use super::{ExpanderChip, ExpanderSettings};
use crate::hardware::{Hardware, I2cBus, I2cError};
use crate::reading::{Fault, FaultCode};

mod mcp23017;
mod pcf8574;

/// What the lines are to be, a bit a line. What is neither input nor output is an input without a pull-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    inputs: u16,
    pull_ups: u16,
    outputs: u16,
    high: u16,
}

impl Wanted {
    pub(super) fn input(&mut self, line: u8, pull_up: bool) {
        self.clear(line);
        self.inputs |= bit(line);
        self.pull_ups |= if pull_up { bit(line) } else { 0 };
    }

    pub(super) fn output(&mut self, line: u8, high: bool) {
        self.clear(line);
        self.outputs |= bit(line);
        self.high |= if high { bit(line) } else { 0 };
    }

    pub(super) fn clear(&mut self, line: u8) {
        let others = !bit(line);
        self.inputs &= others;
        self.pull_ups &= others;
        self.outputs &= others;
        self.high &= others;
    }
}

pub(super) fn bit(line: u8) -> u16 {
    1_u16.checked_shl(line.into()).unwrap_or(0)
}

/// What a look at the chip shows, a bit a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The levels now.
    pub(super) levels: u16,
    /// Lines that have changed since the last look, whatever they are now...
    pub(super) changed: u16,
    /// ...and the levels that they had after that.
    pub(super) captured: u16,
}

/// An expander's registers.
pub(super) trait Chip: Send {
    /// Makes the lines what they are to be.
    fn configure(&mut self, wire: &mut Wire, wanted: Wanted) -> Result<(), I2cError>;
    /// Looks at all lines, and ends the interrupt.
    fn look(&mut self, wire: &mut Wire) -> Result<Seen, I2cError>;
    /// Are the lines still what they are to be? A chip that had no power has forgotten it.
    fn is_configured(&mut self, wire: &mut Wire, wanted: Wanted) -> Result<bool, I2cError>;
}

pub(super) fn chip(chip: ExpanderChip) -> Box<dyn Chip> {
    match chip {
        ExpanderChip::Mcp23017 => Box::new(mcp23017::Mcp23017),
        ExpanderChip::Pcf8574 => Box::new(pcf8574::Pcf8574),
    }
}

/// The way to the chip.
pub(super) struct Wire {
    bus: I2cBus,
    address: u8,
}

impl Wire {
    pub(super) fn open(settings: &ExpanderSettings, hardware: &dyn Hardware) -> Result<Self, Fault> {
        let bus = hardware.i2c(settings.path.bus)?.behind(settings.path.channel);
        Ok(Self { bus, address: settings.address })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), I2cError> {
        self.bus.write(self.address, bytes)
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), I2cError> {
        self.bus.read(self.address, bytes)
    }

    fn read_from(&mut self, register: u8, bytes: &mut [u8]) -> Result<(), I2cError> {
        self.bus.write_read(self.address, &[register], bytes)
    }
}

/// A fault from the bus's error.
pub(super) fn fault(settings: &ExpanderSettings, error: &I2cError) -> Fault {
    if error.is_no_acknowledge() {
        let detail = format!(
            "{settings} does not answer: check its supply and wiring, and with `vigie scan` or `i2cdetect -y {}` at which \
             address it is",
            settings.path.bus
        );
        return Fault::new(FaultCode::Missing, detail);
    }
    Fault::new(error.code, format!("{settings}: {error}"))
}
