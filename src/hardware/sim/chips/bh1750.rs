//! BH1750FVI, an ambient light sensor, from ROHM's technical note 09046EBT01.
//!
//! Each measurement takes the longest time of the data sheet. A command is one byte; what follows it in the same message
//! is not taken. Not modelled: the noise of the dark.

use std::sync::Arc;
use std::time::Duration;

use embedded_hal::i2c::Operation;

use super::{I2cChip, Message, Nak, each_message};
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

pub(super) struct Chip {
    address: u8,
    clock: Arc<dyn Clock>,
    seed: u64,
    on: bool,
    mtreg: u8,
    measuring: Option<Measuring>,
    data: u16,
}

impl Chip {
    pub(super) fn new(address: u8, clock: Arc<dyn Clock>, seed: u64) -> Self {
        let seed = seed ^ u64::from(address);
        Self { address, clock, seed, on: false, mtreg: DEFAULT_MTREG, measuring: None, data: 0 }
    }

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

    fn command(&mut self, opcode: u8, now: BootTime) {
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

impl I2cChip for Chip {
    fn answers(&self, address: u8) -> bool {
        address == self.address
    }

    fn transaction(&mut self, operations: &mut [Operation<'_>]) -> Result<(), Nak> {
        let now = self.clock.boot();
        self.live_on(now);
        let mut at = 0;
        each_message(operations, |message| {
            match message {
                Message::Write(bytes) => {
                    self.command(bytes[0], now);
                    at = 0;
                }
                Message::Read(buffer) => {
                    for byte in buffer {
                        *byte = self.data.to_be_bytes().get(at).copied().unwrap_or(0xff);
                        at += 1;
                    }
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn new() -> (Chip, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new());
        (Chip::new(0x23, Arc::clone(&clock) as Arc<dyn Clock>, 1), clock)
    }

    fn send(chip: &mut Chip, opcode: u8) {
        chip.transaction(&mut [Operation::Write(&[opcode])]).expect("acknowledged");
    }

    fn read(chip: &mut Chip) -> u16 {
        let mut bytes = [0; 3];
        chip.transaction(&mut [Operation::Read(&mut bytes)]).expect("acknowledged");
        assert_eq!(bytes[2], 0xff, "the idle bus");
        u16::from_be_bytes([bytes[0], bytes[1]])
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
        let (mut chip, clock) = new();
        assert_eq!(read(&mut chip), 0);
        send(&mut chip, 0x20);
        clock.advance(Duration::from_millis(179));
        assert_eq!(read(&mut chip), 0, "too early: what was there before");
        clock.advance(Duration::from_millis(1));
        let value = read(&mut chip);
        assert_eq!(value, counts(world::illuminance(chip.seed, clock.boot()), Resolution::High, 1.0));
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
        let (mut chip, clock) = new();
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
        let (mut chip, clock) = new();
        // 138 = 100_01010: twice the default.
        send(&mut chip, 0b0100_0100);
        send(&mut chip, 0b0110_1010);
        send(&mut chip, 0x21);
        clock.advance(Duration::from_millis(359));
        assert_eq!(read(&mut chip), 0);
        clock.advance(Duration::from_millis(1));
        assert_eq!(read(&mut chip), counts(world::illuminance(chip.seed, clock.boot()), Resolution::High2, 2.0));
    }
}
