//! ADS1115, an analog-to-digital converter of 16 bits with four inputs, from Texas Instruments' data sheet SBAS444.
//!
//! Not modelled: the comparator and its ALERT/RDY output (its registers only keep what is written), the high-speed mode
//! and the general-call reset. A write to Config starts the conversion under way anew. The oscillator is the slowest
//! that the data sheet allows, so that a driver which waits too briefly is found out.

use std::sync::Arc;
use std::time::Duration;

use super::pointed::{Pointed, Registers, steps};
use crate::clock::{BootTime, Clock};
use crate::hardware::sim::world;

// Pointers.
const CONVERSION: u8 = 0;
const CONFIG: u8 = 1;
const LO_THRESH: u8 = 2;
const HI_THRESH: u8 = 3;

/// Config: start a conversion, or (read) none is under way; power-down or single-shot mode.
const OS: u16 = 1 << 15;
const MODE: u16 = 1 << 8;

/// Config after power-on: AIN0 against AIN1, ± 2.048 V, single shot, 128 samples a second, no comparator.
const POWER_ON: u16 = 0x8583;

/// Full scale by PGA, in volts; the last three are the same.
const FULL_SCALE: [f64; 8] = [6.144, 4.096, 2.048, 1.024, 0.512, 0.256, 0.256, 0.256];

/// Conversions a second by DR.
const RATE: [f64; 8] = [8.0, 16.0, 32.0, 64.0, 128.0, 250.0, 475.0, 860.0];

/// The data rate may be off by 10 %; a single shot begins with the wake-up.
const SLOWEST: f64 = 0.9;
const WAKE_UP: Duration = Duration::from_micros(25);

pub(super) struct Ads1115 {
    clock: Arc<dyn Clock>,
    seed: u64,
    /// Without OS.
    config: u16,
    thresholds: [u16; 2],
    conversion: i16,
    /// The start of the single shot, or of the conversions one after another, that are under way.
    started: Option<BootTime>,
}

/// A chip as it is after power-on.
pub(super) fn chip(address: u8, clock: Arc<dyn Clock>, seed: u64) -> Pointed<Ads1115> {
    let registers = Ads1115 {
        clock,
        seed: seed ^ u64::from(address),
        config: POWER_ON & !OS,
        thresholds: [0x8000, 0x7fff],
        conversion: 0,
        started: None,
    };
    Pointed::new(address, registers)
}

impl Ads1115 {
    fn field(&self, shift: u32) -> usize {
        usize::from(self.config >> shift & 0b111)
    }

    fn period(&self) -> Duration {
        Duration::from_secs_f64(1.0 / (RATE[self.field(5)] * SLOWEST))
    }

    fn convert(&mut self, at: BootTime) {
        let input = |number: u8| world::voltage(self.seed, at, number);
        let volts = match self.field(12) {
            0 => input(0) - input(1),
            1 => input(0) - input(3),
            2 => input(1) - input(3),
            3 => input(2) - input(3),
            4 => input(0),
            5 => input(1),
            6 => input(2),
            _ => input(3),
        };
        self.conversion = code(volts, FULL_SCALE[self.field(9)]);
    }

    fn live_on(&mut self) {
        let now = self.clock.boot();
        let Some(started) = self.started else { return };
        let period = self.period();
        if self.config & MODE != 0 {
            let done = started.after(WAKE_UP + period);
            if done <= now {
                self.convert(done);
                self.started = None;
            }
        } else {
            let whole = now.since(started).as_nanos() / period.as_nanos();
            if whole > 0 {
                let last = started.0 + u64::try_from(whole * period.as_nanos()).unwrap_or(u64::MAX - started.0);
                self.convert(BootTime(last));
            }
        }
    }
}

/// The conversion register: full scale is 0x7fff, and what is beyond is held there (SBAS444, "Data Format").
fn code(volts: f64, full_scale: f64) -> i16 {
    steps(volts, full_scale / 32_768.0)
}

impl Registers for Ads1115 {
    /// The pointer has two bits.
    fn read(&mut self, pointer: u8) -> Vec<u8> {
        self.live_on();
        let single_shot_under_way = self.config & MODE != 0 && self.started.is_some();
        let word = match pointer & 0b11 {
            CONVERSION => self.conversion.cast_unsigned(),
            CONFIG => self.config | if single_shot_under_way || self.config & MODE == 0 { 0 } else { OS },
            LO_THRESH => self.thresholds[0],
            _ => self.thresholds[1],
        };
        word.to_be_bytes().to_vec()
    }

    fn write(&mut self, pointer: u8, bytes: &[u8]) {
        self.live_on();
        let [high, low, ..] = bytes else { return };
        let word = u16::from_be_bytes([*high, *low]);
        match pointer & 0b11 {
            CONFIG => {
                let was_under_way = self.started.is_some();
                self.config = word & !OS;
                // Without OS, a single shot that was under way is still made.
                let starts = word & OS != 0 || word & MODE == 0 || was_under_way;
                self.started = starts.then(|| self.clock.boot());
            }
            LO_THRESH => self.thresholds[0] = word,
            HI_THRESH => self.thresholds[1] = word,
            // The conversion register cannot be written.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::sim::chips::powered_on;

    #[test]
    fn codes_are_those_of_the_data_sheets_table() {
        // "Data Format": input voltage against ideal output code.
        let full_scale = 2.048;
        assert_eq!(code(full_scale, full_scale), 0x7fff);
        assert_eq!(code(full_scale * 32_767.0 / 32_768.0, full_scale), 0x7fff);
        assert_eq!(code(full_scale / 32_768.0, full_scale), 1);
        assert_eq!(code(0.0, full_scale), 0);
        assert_eq!(code(-full_scale / 32_768.0, full_scale), -1);
        assert_eq!(code(-full_scale, full_scale), i16::MIN);
    }

    #[test]
    fn power_on_values_are_those_of_the_data_sheet() {
        let (_, mut chip) = powered_on(0x48, chip);
        let words: Vec<u16> = (0..4).map(|pointer| chip.word(pointer)).collect();
        assert_eq!(words, [0, 0x8583, 0x8000, 0x7fff]);
    }

    #[test]
    fn a_single_shot_takes_its_time_and_then_sleeps() {
        let (clock, mut chip) = powered_on(0x48, chip);
        // AIN0 against ground, ± 4.096 V, 128 samples a second.
        chip.set_word(CONFIG, 0xc383);
        assert_eq!(chip.word(CONFIG), 0x4383, "converting");
        clock.advance(Duration::from_micros(8_705));
        assert_eq!((chip.word(CONFIG), chip.word(CONVERSION)), (0x4383, 0), "10 % longer than 1/128 s");
        clock.advance(Duration::from_micros(1));
        assert_eq!(chip.word(CONFIG), 0xc383, "done");
        let first = chip.word(CONVERSION);
        assert_ne!(first, 0);
        clock.advance(Duration::from_secs(60));
        assert_eq!(chip.word(CONVERSION), first, "no other one was asked for");
    }

    #[test]
    fn continuous_conversions_follow_each_other() {
        let (clock, mut chip) = powered_on(0x48, chip);
        chip.set_word(CONFIG, 0x4283);
        clock.advance(Duration::from_secs(1));
        let first = chip.word(CONVERSION);
        clock.advance(Duration::from_secs(30));
        assert_ne!(chip.word(CONVERSION), first);
        assert_eq!(chip.word(CONFIG) & OS, 0, "always converting");
    }
}
