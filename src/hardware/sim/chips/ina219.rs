//! INA219, a current and power monitor, from Texas Instruments' data sheet SBOS448.
//!
//! Measures over a shunt of 0.1 Ω, as on the common modules. Conversions take the longest time that the data sheet
//! allows. Not modelled: the SMBus alert response and the high-speed mode.

use std::sync::Arc;
use std::time::Duration;

use super::pointed::{Pointed, Registers, steps};
use crate::clock::{BootTime, Clock};
use crate::hardware::sim::world;

// Pointers (table 2).
const CONFIGURATION: u8 = 0;
const SHUNT_VOLTAGE: u8 = 1;
const BUS_VOLTAGE: u8 = 2;
const POWER: u8 = 3;
const CURRENT: u8 = 4;
const CALIBRATION: u8 = 5;

const RST: u16 = 1 << 15;
const BRNG: u16 = 1 << 13;
/// Configuration after power-on: 32 V, ± 320 mV, 12 bits, shunt and bus continuously.
const POWER_ON: u16 = 0x399f;

/// Bus voltage: a conversion is ready; power or current are out of range.
const CNVR: u16 = 1 << 1;
const OVF: u16 = 1;

/// The modules' resistor, in ohms.
const SHUNT: f64 = 0.1;

pub(super) struct Ina219 {
    clock: Arc<dyn Clock>,
    seed: u64,
    configuration: u16,
    calibration: u16,
    /// In 10 µV.
    shunt: i16,
    /// In 4 mV.
    bus: u16,
    ready: bool,
    started: Option<BootTime>,
}

/// A chip as it is after power-on, which measures at once.
pub(super) fn chip(address: u8, clock: Arc<dyn Clock>, seed: u64) -> Pointed<Ina219> {
    let started = Some(clock.boot());
    let seed = seed ^ u64::from(address);
    let registers =
        Ina219 { clock, seed, configuration: POWER_ON, calibration: 0, shunt: 0, bus: 0, ready: false, started };
    Pointed::new(address, registers)
}

/// How long one of the two takes by its bits SADC or BADC (table 5; the longest of the electrical characteristics for
/// single conversions, and that many times the longest for averages).
fn conversion_time(bits: u16) -> Duration {
    let micros = match bits {
        0 | 4 => 93,
        1 | 5 => 163,
        2 | 6 => 304,
        3 | 7 | 8 => 586,
        _ => 586 << (bits - 8),
    };
    Duration::from_micros(micros)
}

impl Ina219 {
    /// Which of the two the mode measures, and whether again and again (table 6).
    fn mode(&self) -> (bool, bool, bool) {
        let mode = self.configuration & 0b111;
        (mode & 0b001 != 0, mode & 0b010 != 0, mode & 0b100 != 0)
    }

    fn period(&self) -> Duration {
        let (shunt, bus, _) = self.mode();
        let time =
            |on: bool, shift: u32| if on { conversion_time(self.configuration >> shift & 0xf) } else { Duration::ZERO };
        time(shunt, 3) + time(bus, 7)
    }

    fn measure(&mut self, at: BootTime) {
        let (volts, amperes) = world::supply(self.seed, at);
        let (with_shunt, with_bus, _) = self.mode();
        if with_shunt {
            // ± 40, 80, 160 or 320 mV (PG in 8.6.2.1).
            let range = 4_000_i16 << (self.configuration >> 11 & 0b11);
            self.shunt = steps(amperes * SHUNT, 10e-6).clamp(-range, range);
        }
        if with_bus {
            let range = if self.configuration & BRNG != 0 { 8_000 } else { 4_000 };
            self.bus = steps(volts, 4e-3).clamp(0, range).cast_unsigned();
        }
        self.ready = true;
    }

    fn live_on(&mut self) {
        let now = self.clock.boot();
        let (.., continuous) = self.mode();
        let period = self.period();
        let Some(started) = self.started else { return };
        if period.is_zero() {
            // Power-down, or the converter switched off.
            self.started = None;
        } else if now.since(started) >= period {
            let whole = now.since(started).as_nanos() / period.as_nanos();
            let last = started.0 + u64::try_from(whole * period.as_nanos()).unwrap_or(u64::MAX - started.0);
            if continuous {
                self.measure(BootTime(last));
                self.started = Some(BootTime(last));
            } else {
                self.measure(started.after(period));
                self.started = None;
            }
        }
    }

    /// Current and power registers, and whether they overflow (8.5.1, equations 4 and 5).
    fn results(&self) -> (i16, u16, bool) {
        results(self.shunt, self.bus, self.calibration)
    }
}

fn results(shunt: i16, bus: u16, calibration: u16) -> (i16, u16, bool) {
    let current = i64::from(shunt) * i64::from(calibration) / 4096;
    let power = current.abs() * i64::from(bus) / 5000;
    let overflow = i16::try_from(current).is_err() || u16::try_from(power).is_err();
    let low_half = |number: i64| u16::try_from(number & 0xffff).expect("masked");
    (low_half(current).cast_signed(), low_half(power), overflow)
}

impl Registers for Ina219 {
    fn read(&mut self, pointer: u8) -> Vec<u8> {
        self.live_on();
        let (current, power, overflow) = self.results();
        let word = match pointer {
            CONFIGURATION => self.configuration,
            SHUNT_VOLTAGE => self.shunt.cast_unsigned(),
            BUS_VOLTAGE => self.bus << 3 | if self.ready { CNVR } else { 0 } | if overflow { OVF } else { 0 },
            POWER => {
                self.ready = false;
                power
            }
            CURRENT => current.cast_unsigned(),
            CALIBRATION => self.calibration,
            // There are no others.
            _ => 0,
        };
        word.to_be_bytes().to_vec()
    }

    fn write(&mut self, pointer: u8, bytes: &[u8]) {
        self.live_on();
        let [high, low, ..] = bytes else { return };
        let word = u16::from_be_bytes([*high, *low]);
        match pointer {
            CONFIGURATION if word & RST != 0 => {
                (self.configuration, self.calibration, self.shunt, self.bus) = (POWER_ON, 0, 0, 0);
                self.ready = false;
                self.started = Some(self.clock.boot());
            }
            CONFIGURATION => {
                self.configuration = word & !(1 << 14);
                let mode = word & 0b111;
                if mode != 0 && mode != 0b100 {
                    self.ready = false;
                }
                self.started = Some(self.clock.boot());
            }
            // Bit 0 is always 0.
            CALIBRATION => self.calibration = word & !1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::sim::chips::powered_on;

    #[test]
    fn the_data_sheets_worked_example_comes_out() {
        // SBOS448G, 9.2.2.1: 10 A through 2 mΩ at 11.98 V, calibration 0x5000.
        let bus = 0x5d98 >> 3;
        assert_eq!(results(0x07d0, bus, 0x5000), (0x2710, 0x1766, false));
        assert!(results(0x7d00, 8000, 0xfffe).2, "neither fits 16 bits");
    }

    #[test]
    fn power_on_values_are_those_of_the_data_sheet() {
        let (_, mut chip) = powered_on(0x40, chip);
        let words: Vec<u16> = (0..6).map(|pointer| chip.word(pointer)).collect();
        assert_eq!(words, [0x399f, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn values_follow_the_supply_and_cnvr_is_cleared_by_reading_the_power() {
        let (clock, mut chip) = powered_on(0x40, chip);
        clock.advance(Duration::from_micros(1_171));
        assert_eq!(chip.word(BUS_VOLTAGE), 0, "two conversions of 12 bits take 1172 µs at the longest");
        clock.advance(Duration::from_micros(1));
        let bus = chip.word(BUS_VOLTAGE);
        assert_eq!(bus & (CNVR | OVF), CNVR);
        let volts = f64::from(bus >> 3) * 4e-3;
        assert!((4.5..5.5).contains(&volts), "{volts}");
        let amperes = f64::from(chip.word(SHUNT_VOLTAGE).cast_signed()) * 10e-6 / SHUNT;
        assert!((0.05..1.5).contains(&amperes), "{amperes}");

        // 4096 is 0.1 mA a step at 0.1 Ω.
        chip.set_word(CALIBRATION, 4097);
        assert_eq!(chip.word(CALIBRATION), 4096);
        let current = f64::from(chip.word(CURRENT)) * 1e-4;
        assert!((current - amperes).abs() < 2e-4, "{current} {amperes}");
        let power = f64::from(chip.word(POWER)) * 2e-3;
        assert!((power - volts * amperes).abs() < 5e-3, "{power}");
        assert_eq!(chip.word(BUS_VOLTAGE) & CNVR, 0);
    }

    #[test]
    fn a_triggered_measurement_is_made_once_and_a_reset_forgets_everything() {
        let (clock, mut chip) = powered_on(0x40, chip);
        chip.set_word(CALIBRATION, 4096);
        chip.set_word(CONFIGURATION, 0x399b);
        clock.advance(Duration::from_millis(2));
        let bus = chip.word(BUS_VOLTAGE);
        assert_eq!(bus & CNVR, CNVR);
        let shunt = chip.word(SHUNT_VOLTAGE);
        clock.advance(Duration::from_secs(100));
        assert_eq!((chip.word(BUS_VOLTAGE), chip.word(SHUNT_VOLTAGE)), (bus, shunt));
        chip.set_word(CONFIGURATION, RST);
        assert_eq!((chip.word(CONFIGURATION), chip.word(CALIBRATION)), (0x399f, 0));
    }

    #[test]
    fn what_is_beyond_the_range_is_held_at_its_end() {
        let (clock, mut chip) = powered_on(0x40, chip);
        // 16 V and ± 40 mV, 12 bits with 128 averages: 586 µs × 128 × 2.
        chip.set_word(CONFIGURATION, 0x07ff);
        clock.advance(Duration::from_millis(150));
        assert_eq!(chip.word(SHUNT_VOLTAGE), 0, "not yet");
        clock.advance(Duration::from_millis(1));
        assert!(chip.word(SHUNT_VOLTAGE) <= 4_000);
    }
}
