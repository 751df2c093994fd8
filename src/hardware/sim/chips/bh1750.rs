//! BH1750FVI, an ambient light sensor, from ROHM's technical note 09046EBT01.
//!
//! Each measurement takes the longest time of the data sheet. A command is one byte; what follows it in the same message
//! is not taken. Not modelled: the noise of the dark.

use std::sync::Arc;
use std::time::Duration;

use super::Nak;
use super::commanded::{Commanded, Commands};
use crate::clock::{BootTime, Clock};
use crate::hardware::sim::world;

/// The measurement time register after power-on, and what it can hold.
const DEFAULT_MTREG: u8 = 69;
const MTREG: std::ops::RangeInclusive<u8> = 31..=254;

/// Counts a lux at the default measurement time.
const COUNTS_PER_LUX: f64 = 1.2;

#[derive(Clone, Copy, PartialEq)]
enum Resolution {
    High,
    High2,
    Low,
}

impl Resolution {
    fn longest(self) -> Duration {
        Duration::from_millis(if self == Self::Low { 24 } else { 180 })
    }
}

struct Measuring {
    start: BootTime,
    resolution: Resolution,
    once: bool,
    mtreg: u8,
}

pub(super) struct Bh1750 {
    seed: u64,
    on: bool,
    mtreg: u8,
    measuring: Option<Measuring>,
    data: u16,
}

/// A chip as it is after power-on: powered down.
pub(super) fn chip(address: u8, clock: Arc<dyn Clock>, seed: u64) -> Commanded<Bh1750> {
    let seed = seed ^ u64::from(address);
    Commanded::new(address, clock, Bh1750 { seed, on: false, mtreg: DEFAULT_MTREG, measuring: None, data: 0 })
}

impl Bh1750 {
    /// Ends the measurements whose time has come.
    fn live_on(&mut self, now: BootTime) {
        let Some(Measuring { start, resolution, once, mtreg }) = self.measuring else { return };
        let factor = f64::from(mtreg) / f64::from(DEFAULT_MTREG);
        let period = resolution.longest().mul_f64(factor);
        let done = now.since(start).as_nanos() / period.as_nanos();
        if done == 0 {
            return;
        }
        let done = if once { 1 } else { u32::try_from(done).unwrap_or(u32::MAX) };
        let lux = world::illuminance(self.seed, start.after(period.saturating_mul(done)));
        self.data = counts(lux, resolution, factor);
        if once {
            (self.on, self.measuring) = (false, None);
        }
    }

    fn take(&mut self, opcode: u8, now: BootTime) {
        let (resolution, once) = match opcode {
            0x00 => {
                (self.on, self.measuring) = (false, None);
                return;
            }
            0x01 => {
                self.on = true;
                return;
            }
            // Not taken while powered down.
            0x07 => {
                self.data = if self.on { 0 } else { self.data };
                return;
            }
            // The measurement time register, its upper three and its lower five bits; for the next measurement.
            0b0100_0000..=0b0100_0111 => {
                self.mtreg = opcode << 5 | self.mtreg & 0b1_1111;
                return;
            }
            0b0110_0000..=0b0111_1111 => {
                self.mtreg = self.mtreg & !0b1_1111 | opcode & 0b1_1111;
                return;
            }
            0x10 => (Resolution::High, false),
            0x11 => (Resolution::High2, false),
            0x13 => (Resolution::Low, false),
            0x20 => (Resolution::High, true),
            0x21 => (Resolution::High2, true),
            0x23 => (Resolution::Low, true),
            _ => return,
        };
        // The command "power on" can be left out.
        self.on = true;
        let mtreg = self.mtreg.clamp(*MTREG.start(), *MTREG.end());
        self.measuring = Some(Measuring { start: now, resolution, once, mtreg });
    }
}

/// `factor`: the measurement time as a part of the default one.
fn counts(lux: f64, resolution: Resolution, factor: f64) -> u16 {
    let counts = match resolution {
        Resolution::High => lux * COUNTS_PER_LUX * factor,
        Resolution::High2 => lux * COUNTS_PER_LUX * factor * 2.0,
        // To 4 lx.
        Resolution::Low => (lux / 4.0).floor() * 4.0 * COUNTS_PER_LUX * factor,
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "held to the range before")]
    let counts = counts.clamp(0.0, 65_535.0) as u16;
    counts
}

impl Commands for Bh1750 {
    /// Never.
    fn deaf_until(&self) -> BootTime {
        BootTime(0)
    }

    fn command(&mut self, bytes: &[u8], now: BootTime) -> Result<(), Nak> {
        self.live_on(now);
        if let [opcode, ..] = bytes {
            self.take(*opcode, now);
        }
        Ok(())
    }

    fn answer(&mut self, now: BootTime) -> Result<Vec<u8>, Nak> {
        self.live_on(now);
        Ok(self.data.to_be_bytes().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::sim::chips::powered_on;

    fn send(chip: &mut Commanded<Bh1750>, opcode: u8) {
        chip.send(&[opcode]).expect("acknowledged");
    }

    fn read(chip: &mut Commanded<Bh1750>) -> u16 {
        let [high, low, idle] = chip.receive().expect("acknowledged");
        assert_eq!(idle, 0xff, "the idle bus");
        u16::from_be_bytes([high, low])
    }

    #[test]
    fn counts_are_those_of_the_data_sheet() {
        // The example of the read format: 28067 lx are 1000_0011 1001_0000.
        assert_eq!(counts(28_067.0, Resolution::High, 1.0), 0b1000_0011_1001_0000);
        // Twice as many for half a lux, more with a longer time, and no more than fit.
        assert_eq!(counts(100.0, Resolution::High2, 1.0), 240);
        assert_eq!(counts(100.0, Resolution::High, 138.0 / 69.0), 240);
        assert_eq!(counts(103.9, Resolution::Low, 1.0), 120);
        assert_eq!(counts(100_000.0, Resolution::High, 1.0), u16::MAX);
    }

    #[test]
    fn a_single_measurement_takes_its_time_and_ends_powered_down() {
        let (clock, mut chip) = powered_on(0x23, chip);
        assert_eq!(read(&mut chip), 0);
        send(&mut chip, 0x20);
        clock.advance(Duration::from_millis(179));
        assert_eq!(read(&mut chip), 0, "too early: what was there before");
        clock.advance(Duration::from_millis(1));
        let value = read(&mut chip);
        assert_eq!(value, counts(world::illuminance(chip.chip.seed, clock.boot()), Resolution::High, 1.0));
        clock.advance(Duration::from_secs(100));
        assert_eq!(read(&mut chip), value, "no further ones");
        send(&mut chip, 0x07);
        assert_eq!(read(&mut chip), value, "a reset is not taken while powered down");
        send(&mut chip, 0x01);
        send(&mut chip, 0x07);
        assert_eq!(read(&mut chip), 0);
    }

    #[test]
    fn it_measures_on_until_it_is_powered_down() {
        let (clock, mut chip) = powered_on(0x23, chip);
        send(&mut chip, 0x10);
        let mut values = Vec::new();
        for _ in 0..3 {
            clock.advance(Duration::from_secs(300));
            values.push(read(&mut chip));
        }
        values.dedup();
        assert_eq!(values.len(), 3, "{values:?}");
        send(&mut chip, 0x00);
        clock.advance(Duration::from_secs(300));
        assert_eq!(read(&mut chip), values[2]);
    }

    #[test]
    fn the_measurement_time_register_lengthens_the_measurement() {
        let (clock, mut chip) = powered_on(0x23, chip);
        // 138 = 100_01010: twice the default.
        send(&mut chip, 0b0100_0100);
        send(&mut chip, 0b0110_1010);
        send(&mut chip, 0x21);
        clock.advance(Duration::from_millis(359));
        assert_eq!(read(&mut chip), 0);
        clock.advance(Duration::from_millis(1));
        assert_eq!(read(&mut chip), counts(world::illuminance(chip.chip.seed, clock.boot()), Resolution::High2, 2.0));
    }
}
