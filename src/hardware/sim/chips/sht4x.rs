//! SHT40, SHT41 and SHT45 from Sensirion's data sheet "SHT4x".
//!
//! Where the data sheet leaves it open: a command that the chip does not know is acknowledged and ignored. Not modelled:
//! the heater's warmth (it takes its time, and gives a measurement at its end). The chip had its power for long when the
//! machine starts.

use std::sync::Arc;
use std::time::Duration;

use super::commanded::{Commanded, Commands};
use super::{Nak, sensirion};
use crate::clock::{BootTime, Clock};
use crate::hardware::sim::world;

/// After a soft reset.
const RESETTING: Duration = Duration::from_millis(1);

/// As read with 0x89; any number will do.
const SERIAL: [u16; 2] = [0x0e5a, 0x93f1];

pub(super) struct Sht4x {
    seed: u64,
    deaf_until: BootTime,
    /// A measurement, done at that time, that was not read yet.
    measured: Option<BootTime>,
    serial: bool,
}

/// A chip that is idle.
pub(super) fn chip(address: u8, clock: Arc<dyn Clock>, seed: u64) -> Commanded<Sht4x> {
    let (seed, deaf_until) = (seed ^ u64::from(address), clock.boot());
    Commanded::new(address, clock, Sht4x { seed, deaf_until, measured: None, serial: false })
}

impl Sht4x {
    /// Humidity has its own scale, beyond what can be (conversion of signal output).
    fn measure(&self, at: BootTime) -> Vec<u8> {
        let air = world::air(self.seed, at);
        sensirion::words(&[sensirion::temperature(&air), sensirion::ratio((air.humidity + 6.0) / 125.0)])
    }
}

impl Commands for Sht4x {
    fn deaf_until(&self) -> BootTime {
        self.deaf_until
    }

    fn command(&mut self, bytes: &[u8], now: BootTime) -> Result<(), Nak> {
        (self.measured, self.serial) = (None, false);
        // The longest that each takes.
        let micros = match bytes {
            // High, medium and low precision.
            [0xfd] => 8_300,
            [0xf6] => 4_500,
            [0xe0] => 1_600,
            // The heater at 200, 110 and 20 mW, for a second and for a tenth of it, with a measurement of high precision.
            [0x39 | 0x2f | 0x1e] => 1_100_000 + 8_300,
            [0x32 | 0x24 | 0x15] => 110_000 + 8_300,
            [0x89] => {
                self.serial = true;
                return Ok(());
            }
            [0x94] => {
                self.deaf_until = now.after(RESETTING);
                return Ok(());
            }
            _ => return Ok(()),
        };
        let done_at = now.after(Duration::from_micros(micros));
        (self.deaf_until, self.measured) = (done_at, Some(done_at));
        Ok(())
    }

    fn answer(&mut self, _: BootTime) -> Result<Vec<u8>, Nak> {
        if std::mem::take(&mut self.serial) {
            return Ok(sensirion::words(&SERIAL));
        }
        self.measured.take().map(|at| self.measure(at)).ok_or(Nak)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::sim::chips::powered_on;

    #[test]
    fn a_measurement_takes_its_time_and_is_read_once() {
        for (command, micros) in [(0xfd, 8_300), (0xf6, 4_500), (0xe0, 1_600), (0x32, 118_300)] {
            let (clock, mut chip) = powered_on(0x44, chip);
            chip.send(&[command]).expect("acknowledged");
            clock.advance(Duration::from_micros(micros - 1));
            assert_eq!((chip.receive::<6>(), chip.send(&[0x89])), (Err(Nak), Err(Nak)));
            clock.advance(Duration::from_micros(1));
            let bytes = chip.receive::<6>().expect("an answer");
            assert_eq!(chip.receive::<6>(), Err(Nak));

            let air = world::air(chip.chip.seed, clock.boot());
            let word = |at: usize| f64::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
            assert!((-45.0 + 175.0 * word(0) / 65_535.0 - air.temperature).abs() < 0.002);
            assert!((-6.0 + 125.0 * word(3) / 65_535.0 - air.humidity).abs() < 0.001);
            assert_eq!((bytes[2], bytes[5]), (sensirion::crc(&bytes[..2]), sensirion::crc(&bytes[3..5])));
        }
    }

    #[test]
    fn the_serial_number_comes_at_once_and_unknown_commands_do_nothing() {
        let (clock, mut chip) = powered_on(0x44, chip);
        chip.send(&[0x89]).expect("acknowledged");
        assert_eq!(chip.receive::<6>().map(Vec::from), Ok(sensirion::words(&SERIAL)));
        chip.send(&[0x12]).expect("acknowledged");
        assert_eq!(chip.receive::<6>(), Err(Nak));
        chip.send(&[0x94]).expect("acknowledged");
        assert_eq!(chip.send(&[0xfd]), Err(Nak));
        clock.advance(RESETTING);
        chip.send(&[0xfd]).expect("acknowledged");
    }
}
