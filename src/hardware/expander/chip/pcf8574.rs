//! PCF8574 and PCF8574A (NXP, Texas Instruments SCPS068): one byte out, one byte in. An input is an output that is high,
//! which pulls up no stronger than 0.1 mA.
//!
//! The interrupt ends by itself when the line goes back, and nothing is kept: a pulse between two looks is not seen.

use super::{Chip, Seen, Wanted, Wire};
use crate::hardware::I2cError;

pub(super) struct Pcf8574;

fn latch(wanted: Wanted) -> u8 {
    let [latch, _] = (!wanted.outputs | wanted.high).to_le_bytes();
    latch
}

impl Chip for Pcf8574 {
    fn configure(&mut self, wire: &mut Wire, wanted: Wanted) -> Result<(), I2cError> {
        wire.write(&[latch(wanted)])
    }

    fn look(&mut self, wire: &mut Wire) -> Result<Seen, I2cError> {
        let mut byte = [0];
        wire.read(&mut byte)?;
        Ok(Seen { levels: byte[0].into(), changed: 0, captured: 0 })
    }

    /// The latch cannot be read. After power-on all lines are inputs, so that only a lost output could be noticed, by a
    /// level that is high where low is put out.
    fn is_configured(&mut self, wire: &mut Wire, wanted: Wanted) -> Result<bool, I2cError> {
        let mut byte = [0];
        wire.read(&mut byte)?;
        Ok(byte[0] & !latch(wanted) == 0)
    }
}
