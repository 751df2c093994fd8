//! SHT30, SHT31 and SHT35 from Sensirion's data sheet "SHT3x-DIS" (tables below are those of version 5).
//!
//! Where the data sheet leaves it open: while a single measurement runs, commands are not acknowledged, and its result
//! can be read once. Not modelled: the alert limits, the heater's warmth, and the time that a stretched clock takes (a
//! read gives the result at once). The chip had its power for long when the machine starts.

use std::sync::Arc;
use std::time::Duration;

use super::commanded::{Commanded, Commands};
use super::{Nak, sensirion};
use crate::clock::{BootTime, Clock};
use crate::hardware::sim::world;

/// What a measurement takes at most, with high, medium and low repeatability (table 4).
const MEASURING: [Duration; 3] =
    [Duration::from_micros(15_500), Duration::from_micros(6_500), Duration::from_micros(4_500)];
/// After a soft reset (table 4).
const RESETTING: Duration = Duration::from_micros(1_500);
/// After a break (4.8).
const BREAKING: Duration = Duration::from_millis(1);

/// Bits of the status (table 18); the checksum of written data is not needed without alert limits.
const ALERT: u16 = 1 << 15;
const HEATER: u16 = 1 << 13;
const RESET_DETECTED: u16 = 1 << 4;
const NOT_PROCESSED: u16 = 1 << 1;
const POWER_ON: u16 = ALERT | RESET_DETECTED;

/// As read with 0x3780 or 0x3682; any number will do.
const SERIAL: [u16; 2] = [0x0f3a, 0x51c7];

enum Mode {
    Idle,
    Single {
        done_at: BootTime,
        stretch: bool,
    },
    Periodic {
        start: BootTime,
        period: Duration,
        /// Measurements up to this one were fetched.
        fetched: u32,
        fetch: bool,
    },
}

pub(super) struct Sht3x {
    seed: u64,
    deaf_until: BootTime,
    mode: Mode,
    status: u16,
    /// The answer to a command that has one at once.
    answer: Option<Vec<u8>>,
}

/// A chip that is idle.
pub(super) fn chip(address: u8, clock: Arc<dyn Clock>, seed: u64) -> Commanded<Sht3x> {
    let (seed, deaf_until) = (seed ^ u64::from(address), clock.boot());
    Commanded::new(address, clock, Sht3x { seed, deaf_until, mode: Mode::Idle, status: POWER_ON, answer: None })
}

impl Sht3x {
    fn measure(&self, at: BootTime) -> Vec<u8> {
        let air = world::air(self.seed, at);
        sensirion::words(&[sensirion::temperature(&air), sensirion::ratio(air.humidity / 100.0)])
    }

    fn single(&mut self, repeatability: usize, stretch: bool, now: BootTime) {
        self.mode = Mode::Single { done_at: now.after(MEASURING[repeatability]), stretch };
    }

    /// Repeatability does not show in periodic mode, as the model has no noise of its own.
    fn periodic(&mut self, millis: u64, now: BootTime) {
        self.mode = Mode::Periodic { start: now, period: Duration::from_millis(millis), fetched: 0, fetch: false };
    }
}

impl Commands for Sht3x {
    fn deaf_until(&self) -> BootTime {
        self.deaf_until
    }

    fn command(&mut self, bytes: &[u8], now: BootTime) -> Result<(), Nak> {
        if matches!(self.mode, Mode::Single { done_at, .. } if now < done_at) {
            return Err(Nak);
        }
        self.answer = None;
        let periodic = matches!(self.mode, Mode::Periodic { .. });
        if !periodic {
            self.mode = Mode::Idle;
        }
        let mut processed = true;
        // Tables 9 to 19, and the electronic identification code of its own application note.
        match (bytes, &mut self.mode) {
            ([0xe0, 0x00], Mode::Periodic { fetch, .. }) => *fetch = true,
            ([0x30, 0x93], _) => {
                self.mode = Mode::Idle;
                self.deaf_until = now.after(BREAKING);
            }
            ([0x30, 0xa2], _) => {
                (self.mode, self.status) = (Mode::Idle, POWER_ON);
                self.deaf_until = now.after(RESETTING);
            }
            ([0x30, 0x41], _) => self.status &= HEATER,
            ([0x30, 0x6d], _) => self.status |= HEATER,
            ([0x30, 0x66], _) => self.status &= !HEATER,
            ([0xf3, 0x2d], _) => self.answer = Some(sensirion::words(&[self.status])),
            // To be ended by a break before anything else (4.8).
            (_, Mode::Periodic { .. }) => processed = false,
            ([0x2c, 0x06], _) => self.single(0, true, now),
            ([0x2c, 0x0d], _) => self.single(1, true, now),
            ([0x2c, 0x10], _) => self.single(2, true, now),
            ([0x24, 0x00], _) => self.single(0, false, now),
            ([0x24, 0x0b], _) => self.single(1, false, now),
            ([0x24, 0x16], _) => self.single(2, false, now),
            ([0x20, 0x32 | 0x24 | 0x2f], _) => self.periodic(2_000, now),
            ([0x21, 0x30 | 0x26 | 0x2d], _) => self.periodic(1_000, now),
            ([0x22, 0x36 | 0x20 | 0x2b], _) => self.periodic(500, now),
            ([0x23, 0x34 | 0x22 | 0x29] | [0x2b, 0x32], _) => self.periodic(250, now),
            ([0x27, 0x37 | 0x21 | 0x2a], _) => self.periodic(100, now),
            ([0x37, 0x80] | [0x36, 0x82], _) => self.answer = Some(sensirion::words(&SERIAL)),
            _ => processed = false,
        }
        self.status = if processed { self.status & !NOT_PROCESSED } else { self.status | NOT_PROCESSED };
        Ok(())
    }

    fn answer(&mut self, now: BootTime) -> Result<Vec<u8>, Nak> {
        if let Some(answer) = self.answer.take() {
            return Ok(answer);
        }
        match &mut self.mode {
            Mode::Single { done_at, stretch } if *stretch || *done_at <= now => {
                let done_at = *done_at;
                self.mode = Mode::Idle;
                Ok(self.measure(done_at))
            }
            Mode::Periodic { start, period, fetched, fetch } if *fetch => {
                let done = sensirion::periods(*start, *period, now);
                *fetch = false;
                if done == *fetched {
                    return Err(Nak);
                }
                *fetched = done;
                let at = start.after(period.saturating_mul(done));
                Ok(self.measure(at))
            }
            _ => Err(Nak),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::sim::chips::powered_on;

    fn send(chip: &mut Commanded<Sht3x>, command: u16) -> Result<(), Nak> {
        chip.send(&command.to_be_bytes())
    }

    fn status(chip: &mut Commanded<Sht3x>) -> u16 {
        send(chip, 0xf32d).expect("acknowledged");
        let bytes = chip.receive::<3>().expect("an answer");
        assert_eq!(sensirion::crc(&bytes[..2]), bytes[2]);
        u16::from_be_bytes([bytes[0], bytes[1]])
    }

    #[test]
    fn a_measurement_takes_its_time_and_is_read_once() {
        for (command, micros) in [(0x2400, 15_500), (0x240b, 6_500), (0x2416, 4_500)] {
            let (clock, mut chip) = powered_on(0x45, chip);
            send(&mut chip, command).expect("acknowledged");
            clock.advance(Duration::from_micros(micros - 1));
            assert_eq!(chip.receive::<6>(), Err(Nak));
            assert_eq!(send(&mut chip, 0xf32d), Err(Nak));
            clock.advance(Duration::from_micros(1));
            let expected = chip.chip.measure(clock.boot());
            clock.advance(Duration::from_secs(60));
            assert_eq!(chip.receive::<6>(), Ok(expected.try_into().expect("6 bytes")), "as it was when measured");
            assert_eq!(chip.receive::<6>(), Err(Nak));
        }
    }

    #[test]
    fn results_stand_for_the_air_that_there_is() {
        let (clock, mut chip) = powered_on(0x45, chip);
        send(&mut chip, 0x2c06).expect("acknowledged");
        let bytes = chip.receive::<7>().expect("the clock is stretched until it is done");
        let air = world::air(chip.chip.seed, clock.boot().after(MEASURING[0]));
        let word = |at: usize| f64::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        // 4.13
        assert!((-45.0 + 175.0 * word(0) / 65_535.0 - air.temperature).abs() < 0.002);
        assert!((100.0 * word(3) / 65_535.0 - air.humidity).abs() < 0.001);
        assert_eq!((bytes[2], bytes[5]), (sensirion::crc(&bytes[..2]), sensirion::crc(&bytes[3..5])));
        assert_eq!(bytes[6], 0xff, "the idle bus");
    }

    #[test]
    fn periodic_measurements_are_fetched_once_each_and_ended_by_a_break() {
        let (clock, mut chip) = powered_on(0x45, chip);
        send(&mut chip, 0x2236).expect("acknowledged");
        clock.advance(Duration::from_millis(499));
        send(&mut chip, 0xe000).expect("acknowledged");
        assert_eq!(chip.receive::<6>(), Err(Nak), "none yet");
        clock.advance(Duration::from_millis(1));
        assert_eq!(chip.receive::<6>(), Err(Nak), "to be fetched first");
        send(&mut chip, 0xe000).expect("acknowledged");
        chip.receive::<6>().expect("a measurement");
        send(&mut chip, 0xe000).expect("acknowledged");
        assert_eq!(chip.receive::<6>(), Err(Nak), "the data memory is cleared");
        send(&mut chip, 0x2400).expect("acknowledged");
        assert_eq!(status(&mut chip) & NOT_PROCESSED, NOT_PROCESSED);
        send(&mut chip, 0x3093).expect("acknowledged");
        assert_eq!(send(&mut chip, 0x2400), Err(Nak), "for a millisecond");
        clock.advance(BREAKING);
        send(&mut chip, 0x2400).expect("acknowledged");
    }

    #[test]
    fn the_status_tells_of_resets_the_heater_and_unknown_commands() {
        let (clock, mut chip) = powered_on(0x45, chip);
        assert_eq!(status(&mut chip), 0x8010);
        send(&mut chip, 0x306d).expect("acknowledged");
        send(&mut chip, 0x3041).expect("acknowledged");
        assert_eq!(status(&mut chip), HEATER);
        send(&mut chip, 0x1234).expect("acknowledged");
        assert_eq!(chip.receive::<6>(), Err(Nak));
        assert_eq!(status(&mut chip), HEATER | NOT_PROCESSED);
        assert_eq!(status(&mut chip), HEATER, "of the last command");
        send(&mut chip, 0x30a2).expect("acknowledged");
        assert_eq!(send(&mut chip, 0xf32d), Err(Nak), "starting anew");
        clock.advance(RESETTING);
        assert_eq!(status(&mut chip), 0x8010);
    }
}
