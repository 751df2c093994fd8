//! MCP9808, a temperature sensor, from Microchip's data sheet DS25095A.
//!
//! After power-on all limits are 0 °C, so a chip in a room says with the upper bits of TA that it is above them.
//! Conversions take the typical time of the resolution. Not modelled: the hysteresis and the alert output.

use std::sync::Arc;
use std::time::Duration;

use super::pointed::{Pointed, Registers, steps};
use crate::clock::{BootTime, Clock};
use crate::hardware::sim::world;

// Pointers (register 5-1).
const CONFIG: u8 = 1;
const T_UPPER: u8 = 2;
const T_CRIT: u8 = 4;
const T_A: u8 = 5;
const MANUFACTURER_ID: u8 = 6;
const DEVICE_ID: u8 = 7;
const RESOLUTION: u8 = 8;

/// CONFIG: shutdown; the locks of T_CRIT and of T_UPPER and T_LOWER; what is only read (register 5-2).
const SHDN: u16 = 1 << 8;
const CRIT_LOCK: u16 = 1 << 7;
const WIN_LOCK: u16 = 1 << 6;
const NOT_KEPT: u16 = 0b1111_1000_0011_0000;

/// Of a limit register: sign and ten bits, in steps of 0.25 °C (register 5-3).
const LIMIT: u16 = 0x1ffc;

/// By resolution: 0.5, 0.25, 0.125, 0.0625 °C.
const CONVERSION_MILLIS: [u64; 4] = [30, 65, 130, 250];

pub(super) struct Mcp9808 {
    clock: Arc<dyn Clock>,
    seed: u64,
    config: u16,
    /// T_UPPER, T_LOWER, T_CRIT.
    limits: [u16; 3],
    resolution: u8,
    /// In steps of 0.0625 °C.
    temperature: i16,
    started: BootTime,
}

/// A chip as it is after power-on: measuring, 0 °C until the first conversion is done.
pub(super) fn chip(address: u8, clock: Arc<dyn Clock>, seed: u64) -> Pointed<Mcp9808> {
    let started = clock.boot();
    let seed = seed ^ u64::from(address);
    let registers = Mcp9808 { clock, seed, config: 0, limits: [0; 3], resolution: 0b11, temperature: 0, started };
    Pointed::new(address, registers)
}

impl Mcp9808 {
    fn live_on(&mut self) {
        let now = self.clock.boot();
        let period = Duration::from_millis(CONVERSION_MILLIS[usize::from(self.resolution)]);
        let whole = now.since(self.started).as_nanos() / period.as_nanos();
        if self.config & SHDN != 0 || whole == 0 {
            return;
        }
        self.started.0 += u64::try_from(whole * period.as_nanos()).unwrap_or(0);
        self.temperature = code(world::air(self.seed, self.started).temperature, self.resolution);
    }

    fn ambient(&self) -> u16 {
        let degrees = |limit: u16| (limit << 3).cast_signed() >> 3;
        let [upper, lower, critical] = self.limits.map(degrees);
        ambient(self.temperature, upper, lower, critical)
    }
}

/// In steps of 0.0625 °C, where lower resolutions leave the last bits 0.
fn code(celsius: f64, resolution: u8) -> i16 {
    let unused = u32::from(3 - resolution);
    steps(celsius, 0.0625) >> unused << unused
}

/// T_A: 13 bits in two's complement below three flags (register 5-4).
fn ambient(temperature: i16, upper: i16, lower: i16, critical: i16) -> u16 {
    let flag = |on: bool, bit: u32| u16::from(on) << bit;
    temperature.cast_unsigned() & 0x1fff
        | flag(temperature >= critical, 15)
        | flag(temperature > upper, 14)
        | flag(temperature < lower, 13)
}

impl Registers for Mcp9808 {
    /// The pointer has four bits; what lies beyond the resolution is for the maker's tests.
    fn read(&mut self, pointer: u8) -> Vec<u8> {
        self.live_on();
        let word = match pointer & 0xf {
            CONFIG => self.config,
            limit @ T_UPPER..=T_CRIT => self.limits[usize::from(limit - T_UPPER)],
            T_A => self.ambient(),
            MANUFACTURER_ID => 0x0054,
            DEVICE_ID => 0x0400,
            RESOLUTION => return vec![self.resolution],
            _ => 0,
        };
        word.to_be_bytes().to_vec()
    }

    fn write(&mut self, pointer: u8, bytes: &[u8]) {
        self.live_on();
        let pointer = pointer & 0xf;
        if let (RESOLUTION, [bits, ..]) = (pointer, bytes) {
            self.resolution = bits & 0b11;
            self.started = self.clock.boot();
        }
        let [high, low, ..] = bytes else { return };
        let word = u16::from_be_bytes([*high, *low]);
        match pointer {
            CONFIG => {
                let locks = self.config & (CRIT_LOCK | WIN_LOCK);
                let mut kept = word & !NOT_KEPT | locks;
                if locks != 0 {
                    // A locked chip cannot be shut down, but can be woken.
                    kept &= self.config | !SHDN;
                }
                if self.config & SHDN != 0 && kept & SHDN == 0 {
                    self.started = self.clock.boot();
                }
                self.config = kept;
            }
            T_CRIT if self.config & CRIT_LOCK == 0 => self.limits[2] = word & LIMIT,
            T_UPPER..T_CRIT if self.config & WIN_LOCK == 0 => {
                self.limits[usize::from(pointer - T_UPPER)] = word & LIMIT;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use embedded_hal::i2c::Operation;

    use super::*;
    use crate::hardware::sim::chips::{I2cChip, powered_on};

    #[test]
    fn the_data_sheets_worked_example_comes_out() {
        // The timing diagram of T_A reads 0xc194 at +25.25 °C (limits at 0 °C).
        assert_eq!(ambient(code(25.25, 3), 0, 0, 0), 0xc194);
        assert_eq!(ambient(code(-0.25, 3), 0, 0, 0), 0x3ffc);
        assert_eq!(code(21.9375, 0), code(21.5, 3));
    }

    #[test]
    fn power_on_values_are_those_of_the_data_sheet() {
        let (_, mut chip) = powered_on(0x18, chip);
        let words: Vec<u16> = (1..8).map(|pointer| chip.word(pointer)).collect();
        assert_eq!(words, [0, 0, 0, 0, 0x8000, 0x0054, 0x0400]);
        assert_eq!(chip.word(RESOLUTION), 0x03ff, "one byte, then nothing");
    }

    #[test]
    fn a_conversion_takes_its_time_and_a_chip_that_is_shut_down_keeps_the_last() {
        let (clock, mut chip) = powered_on(0x18, chip);
        clock.advance(Duration::from_millis(249));
        assert_eq!(chip.word(T_A) & 0x1fff, 0);
        clock.advance(Duration::from_millis(1));
        let first = chip.word(T_A);
        let celsius = f64::from(first & 0x0fff) / 16.0;
        assert!((15.0..26.0).contains(&celsius) && first & 0xc000 == 0xc000, "{first:#06x}");
        chip.set_word(CONFIG, SHDN);
        clock.advance(Duration::from_secs(1_000));
        assert_eq!(chip.word(T_A), first);
        chip.set_word(CONFIG, 0);
        assert_eq!(chip.word(T_A), first, "awake, and converting");
        clock.advance(Duration::from_millis(250));
        assert_ne!(chip.word(T_A), first);
        // A coarser resolution is quicker.
        chip.transaction(&mut [Operation::Write(&[RESOLUTION, 0])]).expect("acknowledged");
        clock.advance(Duration::from_millis(30));
        assert_eq!(chip.word(T_A) & 0b111, 0);
    }

    #[test]
    fn locked_limits_stay() {
        let (_, mut chip) = powered_on(0x18, chip);
        chip.set_word(T_UPPER, 0xffff);
        assert_eq!(chip.word(T_UPPER), LIMIT);
        chip.set_word(CONFIG, WIN_LOCK);
        chip.set_word(T_UPPER, 0);
        assert_eq!(chip.word(T_UPPER), LIMIT);
        chip.set_word(CONFIG, SHDN);
        assert_eq!(chip.word(CONFIG), WIN_LOCK, "only a power-on opens the lock");
    }
}
