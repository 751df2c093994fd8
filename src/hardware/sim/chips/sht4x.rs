//! SHT40, SHT41 and SHT45 from Sensirion's data sheet "SHT4x".
//!
//! Where the data sheet leaves it open: a command that the chip does not know is acknowledged and ignored. Not modelled:
//! the heater's warmth (it takes its time, and gives a measurement at its end). The chip had its power for long when the
//! machine starts.

use std::sync::Arc;
use std::time::Duration;

use embedded_hal::i2c::Operation;

use super::sensirion::{self, Commands};
use super::{I2cChip, Nak};
use crate::clock::{BootTime, Clock};
use crate::hardware::sim::world;

/// After a soft reset.
const RESETTING: Duration = Duration::from_millis(1);

/// As read with 0x89; any number will do.
const SERIAL: [u16; 2] = [0x0e5a, 0x93f1];

pub(super) struct Chip {
    address: u8,
    clock: Arc<dyn Clock>,
    seed: u64,
    /// Until then it acknowledges nothing.
    deaf_until: BootTime,
    /// A measurement, done at that time, that was not read yet.
    measured: Option<BootTime>,
    serial: bool,
}

impl Chip {
    pub(super) fn new(address: u8, clock: Arc<dyn Clock>, seed: u64) -> Self {
        let deaf_until = clock.boot();
        let seed = seed ^ u64::from(address);
        Self { address, clock, seed, deaf_until, measured: None, serial: false }
    }

    /// Humidity has its own scale, beyond what can be (conversion of signal output).
    fn measure(&self, at: BootTime) -> Vec<u8> {
        let air = world::air(self.seed, at);
        sensirion::words(&[sensirion::temperature(&air), sensirion::ratio((air.humidity + 6.0) / 125.0)])
    }
}

impl Commands for Chip {
    fn command(&mut self, bytes: &[u8], now: BootTime) -> Result<(), Nak> {
        if now < self.deaf_until {
            return Err(Nak);
        }
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

    fn answer(&mut self, now: BootTime) -> Result<Vec<u8>, Nak> {
        if now < self.deaf_until {
            return Err(Nak);
        }
        if std::mem::take(&mut self.serial) {
            return Ok(sensirion::words(&SERIAL));
        }
        self.measured.take().map(|at| self.measure(at)).ok_or(Nak)
    }
}

impl I2cChip for Chip {
    fn answers(&self, address: u8) -> bool {
        address == self.address
    }

    fn transaction(&mut self, operations: &mut [Operation<'_>]) -> Result<(), Nak> {
        let now = self.clock.boot();
        sensirion::transaction(self, operations, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn new() -> (Chip, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new());
        (Chip::new(0x44, Arc::clone(&clock) as Arc<dyn Clock>, 1), clock)
    }

    fn send(chip: &mut Chip, command: u8) -> Result<(), Nak> {
        chip.transaction(&mut [Operation::Write(&[command])])
    }

    fn receive<const N: usize>(chip: &mut Chip) -> Result<[u8; N], Nak> {
        let mut bytes = [0; N];
        chip.transaction(&mut [Operation::Read(&mut bytes)])?;
        Ok(bytes)
    }

    #[test]
    fn a_measurement_takes_its_time_and_is_read_once() {
        for (command, micros) in [(0xfd, 8_300), (0xf6, 4_500), (0xe0, 1_600), (0x32, 118_300)] {
            let (mut chip, clock) = new();
            send(&mut chip, command).expect("acknowledged");
            clock.advance(Duration::from_micros(micros - 1));
            assert_eq!((receive::<6>(&mut chip), send(&mut chip, 0x89)), (Err(Nak), Err(Nak)));
            clock.advance(Duration::from_micros(1));
            let bytes = receive::<6>(&mut chip).expect("an answer");
            assert_eq!(receive::<6>(&mut chip), Err(Nak));

            let air = world::air(chip.seed, clock.boot());
            let word = |at: usize| f64::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
            assert!((-45.0 + 175.0 * word(0) / 65_535.0 - air.temperature).abs() < 0.002);
            assert!((-6.0 + 125.0 * word(3) / 65_535.0 - air.humidity).abs() < 0.001);
            assert_eq!((bytes[2], bytes[5]), (sensirion::crc(&bytes[..2]), sensirion::crc(&bytes[3..5])));
        }
    }

    #[test]
    fn the_serial_number_comes_at_once_and_unknown_commands_do_nothing() {
        let (mut chip, clock) = new();
        send(&mut chip, 0x89).expect("acknowledged");
        assert_eq!(receive::<6>(&mut chip).map(Vec::from), Ok(sensirion::words(&SERIAL)));
        send(&mut chip, 0x12).expect("acknowledged");
        assert_eq!(receive::<6>(&mut chip), Err(Nak));
        send(&mut chip, 0x94).expect("acknowledged");
        assert_eq!(send(&mut chip, 0xfd), Err(Nak));
        clock.advance(RESETTING);
        send(&mut chip, 0xfd).expect("acknowledged");
    }
}
