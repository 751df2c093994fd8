//! LM75B, a temperature sensor, from NXP's data sheet "LM75B", with 11 bits; the plain LM75 has the first nine of them.
//!
//! Converts each 100 ms. Not modelled: the output OS, whose settings only keep what is written.

use std::sync::Arc;
use std::time::Duration;

use super::pointed::{Pointed, Registers, steps};
use crate::clock::{BootTime, Clock};
use crate::hardware::sim::world;

// Pointers (table 5).
const TEMP: u8 = 0;
const CONF: u8 = 1;
const THYST: u8 = 2;
const TOS: u8 = 3;

/// Conf (table 8): bits 7 to 5 are reserved and read 0.
const CONF_BITS: u8 = 0b0001_1111;
const SHUTDOWN: u8 = 1;

/// Thyst and Tos: nine bits (tables 11 and 12).
const LIMIT: u16 = 0xff80;

const PERIOD: Duration = Duration::from_millis(100);
const CONVERSION: Duration = Duration::from_millis(10);

pub(super) struct Lm75 {
    clock: Arc<dyn Clock>,
    seed: u64,
    conf: u8,
    thyst: u16,
    tos: u16,
    temp: u16,
    /// The start of the next conversion, or of the one under way.
    starts: BootTime,
}

/// A chip as it is after power-on: converting, 0 °C until the first conversion is done.
pub(super) fn chip(address: u8, clock: Arc<dyn Clock>, seed: u64) -> Pointed<Lm75> {
    let starts = clock.boot();
    let seed = seed ^ u64::from(address);
    Pointed::new(address, Lm75 { clock, seed, conf: 0, thyst: 0x4b00, tos: 0x5000, temp: 0, starts })
}

/// 11 bits from the left, in steps of 0.125 °C (tables 9 and 10).
fn code(celsius: f64) -> u16 {
    steps(celsius, 0.125).cast_unsigned() << 5
}

impl Lm75 {
    fn live_on(&mut self) {
        let now = self.clock.boot();
        let first_done = self.starts.after(CONVERSION);
        if self.conf & SHUTDOWN != 0 || now < first_done {
            return;
        }
        let whole = now.since(first_done).as_nanos() / PERIOD.as_nanos();
        let last = BootTime(self.starts.0 + u64::try_from(whole * PERIOD.as_nanos()).unwrap_or(0));
        self.temp = code(world::air(self.seed, last.after(CONVERSION)).temperature);
        self.starts = last.after(PERIOD);
    }
}

impl Registers for Lm75 {
    /// Three bits of the pointer count; behind 4 to 7 there is nothing.
    fn read(&mut self, pointer: u8) -> Vec<u8> {
        self.live_on();
        let word = match pointer & 0b111 {
            TEMP => self.temp,
            CONF => return vec![self.conf],
            THYST => self.thyst,
            TOS => self.tos,
            _ => return Vec::new(),
        };
        word.to_be_bytes().to_vec()
    }

    fn write(&mut self, pointer: u8, bytes: &[u8]) {
        self.live_on();
        match (pointer & 0b111, bytes) {
            (CONF, [conf, ..]) => {
                if self.conf & SHUTDOWN != 0 && conf & SHUTDOWN == 0 {
                    self.starts = self.clock.boot();
                }
                self.conf = conf & CONF_BITS;
            }
            (THYST, [high, low, ..]) => self.thyst = u16::from_be_bytes([*high, *low]) & LIMIT,
            (TOS, [high, low, ..]) => self.tos = u16::from_be_bytes([*high, *low]) & LIMIT,
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
    fn codes_are_those_of_the_data_sheets_table() {
        // Table 10.
        for (celsius, hex) in [
            (127.0, 0x3f8),
            (126.875, 0x3f7),
            (126.125, 0x3f1),
            (125.0, 0x3e8),
            (25.0, 0x0c8),
            (0.125, 0x001),
            (0.0, 0x000),
            (-0.125, 0x7ff),
            (-25.0, 0x738),
            (-54.875, 0x649),
            (-55.0, 0x648),
        ] {
            assert_eq!(code(celsius) >> 5, hex, "{celsius}");
        }
    }

    #[test]
    fn power_on_values_are_those_of_the_data_sheet() {
        let (_, mut chip) = powered_on(0x4a, chip);
        assert_eq!([chip.word(TEMP), chip.word(THYST), chip.word(TOS)], [0, 0x4b00, 0x5000]);
        assert_eq!(chip.word(CONF), 0x00ff, "one byte, then nothing");
        assert_eq!(chip.word(7), 0xffff);
    }

    #[test]
    fn it_converts_by_itself_until_it_is_shut_down() {
        let (clock, mut chip) = powered_on(0x4a, chip);
        clock.advance(Duration::from_millis(9));
        assert_eq!(chip.word(TEMP), 0);
        clock.advance(Duration::from_millis(1));
        let first = chip.word(TEMP);
        assert!((15.0..26.0).contains(&(f64::from(first) / 256.0)) && first & 0x1f == 0, "{first:#06x}");
        chip.transaction(&mut [Operation::Write(&[CONF, 0xe1])]).expect("acknowledged");
        assert_eq!(chip.word(CONF) >> 8, 1);
        clock.advance(Duration::from_secs(600));
        assert_eq!(chip.word(TEMP), first);
        chip.transaction(&mut [Operation::Write(&[CONF, 0])]).expect("acknowledged");
        clock.advance(CONVERSION);
        assert_ne!(chip.word(TEMP), first);
    }

    #[test]
    fn a_single_byte_may_be_read_again_without_the_pointer() {
        let (clock, mut chip) = powered_on(0x4a, chip);
        clock.advance(PERIOD);
        let word = chip.word(TEMP);
        let mut byte = [0];
        chip.transaction(&mut [Operation::Read(&mut byte)]).expect("acknowledged");
        assert_eq!(u16::from(byte[0]), word >> 8);
    }
}
