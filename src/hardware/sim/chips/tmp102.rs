//! TMP102, a temperature sensor, from Texas Instruments' data sheet SBOS397 (tables below are revision C's).
//!
//! Converts at the rate of CR1 and CR0 and sleeps in between; in shutdown, a write with OS makes one conversion.
//! Conversions take the longest time that the data sheet allows. Not modelled: the fault queue and the interrupt mode
//! of the alert (AL is that of the comparator mode without a queue), and the general-call reset.

use std::sync::Arc;
use std::time::Duration;

use super::pointed::{Pointed, Registers, steps};
use crate::clock::{BootTime, Clock};
use crate::hardware::sim::world;

// Pointers: two bits (table 1).
const TEMPERATURE: u8 = 0;
const CONFIGURATION: u8 = 1;
const T_LOW: u8 = 2;

// Configuration (table 7).
const OS: u16 = 1 << 15;
const POL: u16 = 1 << 10;
const SD: u16 = 1 << 8;
const AL: u16 = 1 << 5;
const EM: u16 = 1 << 4;
/// R1 and R0 are always 11, OS and AL are computed, the last four bits are 0.
const RESOLUTION: u16 = 0b11 << 13;
const KEPT: u16 = 0b0001_1111_1101_0000;
/// After power-on 0x60a0: four conversions a second; of that, what is kept.
const POWER_ON: u16 = 0x0080;

/// A conversion takes 26 ms, and at most 35 ms.
const CONVERSION: Duration = Duration::from_millis(35);

/// By CR1 and CR0: 0.25, 1, 4, 8 Hz.
const PERIOD_MILLIS: [u64; 4] = [4_000, 1_000, 250, 125];

pub(super) struct Tmp102 {
    clock: Arc<dyn Clock>,
    seed: u64,
    configuration: u16,
    low: u16,
    high: u16,
    /// °C, of the last conversion.
    celsius: f64,
    /// Above T_HIGH, and since then not below T_LOW.
    alert: bool,
    /// The start of the next conversion, or of the one under way.
    starts: Option<BootTime>,
}

/// A chip as it is after power-on: converting, 0 °C until the first conversion is done.
pub(super) fn chip(address: u8, clock: Arc<dyn Clock>, seed: u64) -> Pointed<Tmp102> {
    let starts = Some(clock.boot());
    let registers = Tmp102 {
        clock,
        seed: seed ^ u64::from(address),
        configuration: POWER_ON,
        low: 0x4b00,
        high: 0x5000,
        celsius: 0.0,
        alert: false,
        starts,
    };
    Pointed::new(address, registers)
}

/// 12 bits from the left, or with EM 13 and a 1 as the last bit (tables 3 to 6).
fn code(celsius: f64, extended: bool) -> u16 {
    let number = steps(celsius, 0.0625);
    if extended {
        number.clamp(-0x1000, 0x0fff).cast_unsigned() << 3 | 1
    } else {
        number.clamp(-0x800, 0x7ff).cast_unsigned() << 4
    }
}

impl Tmp102 {
    fn extended(&self) -> bool {
        self.configuration & EM != 0
    }

    fn live_on(&mut self) {
        let now = self.clock.boot();
        let Some(starts) = self.starts else { return };
        if now < starts.after(CONVERSION) {
            return;
        }
        let mut last = starts;
        if self.configuration & SD == 0 {
            let period = Duration::from_millis(PERIOD_MILLIS[usize::from(self.configuration >> 6 & 0b11)]);
            let whole = now.since(starts.after(CONVERSION)).as_nanos() / period.as_nanos();
            last.0 += u64::try_from(whole * period.as_nanos()).unwrap_or(0);
            self.starts = Some(last.after(period));
        } else {
            self.starts = None;
        }
        self.celsius = world::air(self.seed, last.after(CONVERSION)).temperature;
        // Both limits have the format of the temperature.
        let compared = code(self.celsius, self.extended()).cast_signed();
        if compared >= self.high.cast_signed() {
            self.alert = true;
        } else if compared < self.low.cast_signed() {
            self.alert = false;
        }
    }

    fn configuration(&self) -> u16 {
        let shut_down = self.configuration & SD != 0;
        // With POL = 0, AL is 1 while all is well.
        let quiet = self.alert == (self.configuration & POL != 0);
        let bit = |on: bool, bit: u16| if on { bit } else { 0 };
        self.configuration | RESOLUTION | bit(shut_down && self.starts.is_none(), OS) | bit(quiet, AL)
    }
}

impl Registers for Tmp102 {
    fn read(&mut self, pointer: u8) -> Vec<u8> {
        self.live_on();
        let word = match pointer & 0b11 {
            TEMPERATURE => code(self.celsius, self.extended()),
            CONFIGURATION => self.configuration(),
            T_LOW => self.low,
            _ => self.high,
        };
        word.to_be_bytes().to_vec()
    }

    /// Registers are updated byte by byte.
    fn write(&mut self, pointer: u8, bytes: &[u8]) {
        self.live_on();
        let now = self.clock.boot();
        let word = |old: u16| {
            let [_, old_low] = old.to_be_bytes();
            u16::from_be_bytes([bytes[0], bytes.get(1).copied().unwrap_or(old_low)])
        };
        match pointer & 0b11 {
            TEMPERATURE => {}
            CONFIGURATION => {
                let was_shut_down = self.configuration & SD != 0;
                let word = word(self.configuration);
                self.configuration = word & KEPT;
                let shut_down = word & SD != 0;
                if shut_down && was_shut_down {
                    if word & OS != 0 && self.starts.is_none() {
                        self.starts = Some(now);
                    }
                } else if shut_down {
                    // The conversion under way is ended first; one that is not, does not begin.
                    self.starts = self.starts.filter(|starts| *starts <= now);
                } else if was_shut_down {
                    self.starts = Some(now);
                }
            }
            T_LOW => self.low = word(self.low) & 0xfff8,
            _ => self.high = word(self.high) & 0xfff8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::sim::chips::powered_on;

    const T_HIGH: u8 = 3;

    #[test]
    fn codes_are_those_of_the_data_sheets_tables() {
        // Tables 5 and 6.
        for (celsius, twelve, thirteen) in [
            (128.0, 0x7ff, 0x0800),
            (127.9375, 0x7ff, 0x07ff),
            (100.0, 0x640, 0x0640),
            (80.0, 0x500, 0x0500),
            (25.0, 0x190, 0x0190),
            (0.25, 0x004, 0x0004),
            (-0.25, 0xffc, 0x1ffc),
            (-25.0, 0xe70, 0x1e70),
            (-55.0, 0xc90, 0x1c90),
        ] {
            assert_eq!((code(celsius, false) >> 4, code(celsius, true) >> 3), (twelve, thirteen), "{celsius}");
        }
        assert_eq!((code(150.0, true) >> 3, code(150.0, true) & 1), (0x0960, 1));
    }

    #[test]
    fn power_on_values_are_those_of_the_data_sheet() {
        let (_, mut chip) = powered_on(0x49, chip);
        let words: Vec<u16> = (0..4).map(|pointer| chip.word(pointer)).collect();
        assert_eq!(words, [0, 0x60a0, 0x4b00, 0x5000]);
    }

    #[test]
    fn it_converts_by_itself_and_in_shutdown_once() {
        let (clock, mut chip) = powered_on(0x49, chip);
        clock.advance(Duration::from_millis(34));
        assert_eq!(chip.word(TEMPERATURE), 0);
        clock.advance(Duration::from_millis(1));
        let first = chip.word(TEMPERATURE);
        assert!((15.0..26.0).contains(&(f64::from(first >> 4) * 0.0625)), "{first:#06x}");

        chip.set_word(CONFIGURATION, 0x61a0);
        assert_eq!(chip.word(CONFIGURATION), 0xe1a0, "OS: no conversion under way");
        clock.advance(Duration::from_secs(600));
        assert_eq!(chip.word(TEMPERATURE), first);
        chip.set_word(CONFIGURATION, 0xe1a0);
        assert_eq!(chip.word(CONFIGURATION), 0x61a0, "converting");
        clock.advance(CONVERSION);
        assert_eq!(chip.word(CONFIGURATION), 0xe1a0);
        let second = chip.word(TEMPERATURE);
        assert_ne!(second, first);
        chip.set_word(CONFIGURATION, 0x61b0);
        assert_eq!(chip.word(TEMPERATURE) & 1, 1, "the extended format says so");
        assert_eq!(chip.word(TEMPERATURE) >> 3, second >> 4);
    }

    #[test]
    fn al_follows_the_limits() {
        let (clock, mut chip) = powered_on(0x49, chip);
        chip.set_word(T_HIGH, 0x0100);
        chip.set_word(T_LOW, 0x0000);
        clock.advance(Duration::from_secs(1));
        assert_eq!(chip.word(CONFIGURATION), 0x6080);
        chip.set_word(T_HIGH, 0x5000);
        chip.set_word(T_LOW, 0x4b00);
        clock.advance(Duration::from_secs(1));
        assert_eq!(chip.word(CONFIGURATION), 0x60a0);
    }
}
