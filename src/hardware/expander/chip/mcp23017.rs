//! MCP23017 (Microchip DS20001952).
//!
//! With an interrupt on change, INTF keeps which lines have changed and INTCAP their levels after that until they are read
//! (3.5.8, 3.5.9), so that a pulse between two looks is seen: the first one on each port.

use super::{Chip, Seen, Wanted, Wire};
use crate::hardware::I2cError;

/// Registers with IOCON.BANK = 0, as after power-on; those of port B follow those of port A (table 3-1).
const IODIR: u8 = 0x00;
const IOCON: u8 = 0x0a;
const INTF: u8 = 0x0e;
const OLAT: u8 = 0x14;

/// IOCON (register 3-6): both ports on either interrupt output, which is open drain.
const MIRROR_OPEN_DRAIN: u8 = 1 << 6 | 1 << 2;

pub(super) struct Mcp23017;

/// The registers from IODIR on up to GPPU, two ports each.
fn registers(wanted: Wanted) -> [u8; 14] {
    let [a, b] = (!wanted.outputs).to_le_bytes();
    let [watched_a, watched_b] = wanted.inputs.to_le_bytes();
    let [pull_a, pull_b] = wanted.pull_ups.to_le_bytes();
    let iocon = MIRROR_OPEN_DRAIN;
    // IODIR, IPOL (not inverted), GPINTEN, DEFVAL (unused), INTCON (compare with the level before), IOCON, GPPU
    [a, b, 0, 0, watched_a, watched_b, 0, 0, 0, 0, iocon, iocon, pull_a, pull_b]
}

impl Chip for Mcp23017 {
    fn configure(&mut self, wire: &mut Wire, wanted: Wanted) -> Result<(), I2cError> {
        wire.write(&[IOCON, MIRROR_OPEN_DRAIN])?;
        // The levels of outputs first, so that they do not move when they become such.
        let [a, b] = wanted.high.to_le_bytes();
        wire.write(&[OLAT, a, b])?;
        let mut message = [IODIR; 15];
        message[1..].copy_from_slice(&registers(wanted));
        wire.write(&message)
    }

    fn look(&mut self, wire: &mut Wire) -> Result<Seen, I2cError> {
        let mut bytes = [0; 6];
        wire.read_from(INTF, &mut bytes)?;
        let [flag_a, flag_b, captured_a, captured_b, level_a, level_b] = bytes;
        Ok(Seen {
            levels: u16::from_le_bytes([level_a, level_b]),
            changed: u16::from_le_bytes([flag_a, flag_b]),
            captured: u16::from_le_bytes([captured_a, captured_b]),
        })
    }

    fn is_configured(&mut self, wire: &mut Wire, wanted: Wanted) -> Result<bool, I2cError> {
        let mut found = [0; 14];
        wire.read_from(IODIR, &mut found)?;
        let mut latch = [0; 2];
        wire.read_from(OLAT, &mut latch)?;
        Ok(found == registers(wanted) && latch == wanted.high.to_le_bytes())
    }
}
