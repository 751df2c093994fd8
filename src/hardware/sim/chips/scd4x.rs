//! SCD41 (CO2, temperature, humidity) from Sensirion's data sheet "SCD4x".
//!
//! Times are the longest of the data sheet's versions. Where it leaves it open: a command that is not allowed, not known,
//! or has a wrong checksum is not acknowledged; CO2 is in proportion to the pressure that there is over the one that is
//! set; the chip warms itself by the 4 °C that are its temperature offset from the factory. Not modelled: the field
//! calibration. The chip had its power for long when the machine starts.

use std::sync::Arc;
use std::time::Duration;

use super::commanded::{Commanded, Commands};
use super::{Nak, sensirion};
use crate::clock::{BootTime, Clock};
use crate::hardware::sim::world;

/// Between periodic measurements, and between those of low power.
const PERIOD: Duration = Duration::from_secs(5);
const LOW_POWER_PERIOD: Duration = Duration::from_secs(30);

/// Execution times in milliseconds (table 9).
const READING: u64 = 1;
const STOPPING: u64 = 500;
const SINGLE_SHOT: u64 = 5_000;
const SINGLE_SHOT_WITHOUT_CO2: u64 = 50;
const PERSISTING: u64 = 800;
const SELF_TEST: u64 = 10_000;
const FACTORY_RESET: u64 = 1_200;
const STARTING: u64 = 30;

/// The variant's upper four bits say SCD41.
const VARIANT: u16 = 0x1440;

/// The example of get_serial_number: 273 325 796 834 238.
const SERIAL: [u16; 3] = [0xf896, 0x9f07, 0x3bbe];

/// The lower eleven bits of the data-ready status are not zero where there are data.
const READY: u16 = 0x8006;
const NOT_READY: u16 = 0x8000;

/// °C
const SELF_HEATING: f64 = 4.0;

/// What `persist_settings` keeps.
#[derive(Clone, Copy)]
struct Settings {
    /// In units of 175 / 65535 °C.
    temperature_offset: u16,
    /// m
    altitude: u16,
    self_calibration: u16,
}

const FACTORY: Settings = Settings { temperature_offset: 1_498, altitude: 0, self_calibration: 1 };

enum Mode {
    Idle,
    Asleep,
    Periodic {
        start: BootTime,
        period: Duration,
        /// Measurements up to this one were read.
        read: u32,
    },
    /// A single measurement, done at that time; with CO2?
    Single(BootTime, bool),
}

pub(super) struct Scd41 {
    seed: u64,
    deaf_until: BootTime,
    mode: Mode,
    settings: Settings,
    persisted: Settings,
    /// hPa, set by `set_ambient_pressure`; 0 where the altitude counts.
    pressure: u16,
    answer: Option<Vec<u8>>,
}

/// A chip that is idle.
pub(super) fn chip(address: u8, clock: Arc<dyn Clock>, seed: u64) -> Commanded<Scd41> {
    let chip = Scd41 {
        seed: seed ^ u64::from(address),
        deaf_until: clock.boot(),
        mode: Mode::Idle,
        settings: FACTORY,
        persisted: FACTORY,
        pressure: 0,
        answer: None,
    };
    Commanded::new(address, clock, chip)
}

impl Scd41 {
    /// The pressure that is compensated for, in Pa.
    fn assumed_pressure(&self) -> f64 {
        if self.pressure > 0 {
            return f64::from(self.pressure) * 100.0;
        }
        // The international standard atmosphere (ISO 2533).
        101_325.0 * (1.0 - 2.255_77e-5 * f64::from(self.settings.altitude)).powf(5.255_88)
    }

    fn measure(&self, at: BootTime, with_co2: bool) -> Vec<u8> {
        let mut air = world::air(self.seed, at);
        let ppm = world::carbon_dioxide(self.seed, at) * air.pressure / self.assumed_pressure();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "held to the range before")]
        let ppm = if with_co2 { ppm.round().clamp(0.0, 65_535.0) as u16 } else { 0 };
        air.temperature += SELF_HEATING - f64::from(self.settings.temperature_offset) * 175.0 / 65_535.0;
        sensirion::words(&[ppm, sensirion::temperature(&air), sensirion::ratio(air.humidity / 100.0)])
    }

    /// The measurement that waits to be read: when it was made, and with CO2?
    fn waiting(&self, now: BootTime) -> Option<(BootTime, bool)> {
        match self.mode {
            Mode::Periodic { start, period, read } => {
                let done = sensirion::periods(start, period, now);
                (done > read).then(|| (start.after(period.saturating_mul(done)), true))
            }
            Mode::Single(at, with_co2) => Some((at, with_co2)),
            Mode::Idle | Mode::Asleep => None,
        }
    }

    fn busy(&mut self, millis: u64, now: BootTime) {
        self.deaf_until = now.after(Duration::from_millis(millis));
    }

    fn answer_with(&mut self, words: &[u16], millis: u64, now: BootTime) {
        self.answer = Some(sensirion::words(words));
        self.busy(millis, now);
    }

    /// The commands that are allowed during periodic measurements too (table 9). Is it one of them?
    fn anytime(&mut self, command: u16, argument: Option<u16>, now: BootTime) -> bool {
        match (command, argument) {
            // read_measurement; where there is none, its answer is not acknowledged.
            (0xec05, None) => {
                self.answer = self.waiting(now).map(|(at, with_co2)| self.measure(at, with_co2));
                match &mut self.mode {
                    Mode::Periodic { start, period, read } => *read = sensirion::periods(*start, *period, now),
                    Mode::Single(..) => self.mode = Mode::Idle,
                    Mode::Idle | Mode::Asleep => {}
                }
                self.busy(READING, now);
            }
            // get_data_ready_status
            (0xe4b8, None) => {
                let status = if self.waiting(now).is_some() { READY } else { NOT_READY };
                self.answer_with(&[status], READING, now);
            }
            // stop_periodic_measurement
            (0x3f86, None) => {
                self.mode = Mode::Idle;
                self.busy(STOPPING, now);
            }
            // set_ambient_pressure, get_ambient_pressure
            (0xe000, Some(pressure)) => {
                self.pressure = pressure;
                self.busy(READING, now);
            }
            (0xe000, None) => self.answer_with(&[self.pressure], READING, now),
            _ => return false,
        }
        true
    }

    /// The commands that are allowed when idle only. Is it one of them?
    fn when_idle(&mut self, command: u16, argument: Option<u16>, now: BootTime) -> bool {
        let periodic = |period| Mode::Periodic { start: now, period, read: 0 };
        let single = |millis, with_co2| Mode::Single(now.after(Duration::from_millis(millis)), with_co2);
        let mut millis = READING;
        match (command, argument) {
            (0x21b1, None) => (self.mode, millis) = (periodic(PERIOD), 0),
            (0x21ac, None) => (self.mode, millis) = (periodic(LOW_POWER_PERIOD), 0),
            (0x219d, None) => (self.mode, millis) = (single(SINGLE_SHOT, true), SINGLE_SHOT),
            (0x2196, None) => (self.mode, millis) = (single(SINGLE_SHOT_WITHOUT_CO2, false), SINGLE_SHOT_WITHOUT_CO2),
            (0x241d, Some(offset)) => self.settings.temperature_offset = offset,
            (0x2427, Some(altitude)) => self.settings.altitude = altitude,
            (0x2416, Some(enabled)) => self.settings.self_calibration = enabled,
            (0x2318, None) => self.answer = Some(sensirion::words(&[self.settings.temperature_offset])),
            (0x2322, None) => self.answer = Some(sensirion::words(&[self.settings.altitude])),
            (0x2313, None) => self.answer = Some(sensirion::words(&[self.settings.self_calibration])),
            (0x3682, None) => self.answer = Some(sensirion::words(&SERIAL)),
            (0x202f, None) => self.answer = Some(sensirion::words(&[VARIANT])),
            // perform_self_test: no malfunction
            (0x3639, None) => (self.answer, millis) = (Some(sensirion::words(&[0])), SELF_TEST),
            (0x3615, None) => (self.persisted, millis) = (self.settings, PERSISTING),
            // reinit, perform_factory_reset
            (0x3646, None) => (self.settings, self.pressure, millis) = (self.persisted, 0, STARTING),
            (0x3632, None) => {
                (self.settings, self.persisted, self.pressure, millis) = (FACTORY, FACTORY, 0, FACTORY_RESET);
            }
            (0x36e0, None) => self.mode = Mode::Asleep,
            _ => return false,
        }
        self.busy(millis, now);
        true
    }
}

impl Commands for Scd41 {
    fn deaf_until(&self) -> BootTime {
        self.deaf_until
    }

    fn command(&mut self, bytes: &[u8], now: BootTime) -> Result<(), Nak> {
        self.answer = None;
        let (command, argument) = match *bytes {
            [high, low] => (u16::from_be_bytes([high, low]), None),
            [high, low, a, b, crc] if sensirion::crc(&[a, b]) == crc => {
                (u16::from_be_bytes([high, low]), Some(u16::from_be_bytes([a, b])))
            }
            _ => return Err(Nak),
        };
        if matches!(self.mode, Mode::Asleep) {
            // wake_up, which is never acknowledged
            if command == 0x36f6 {
                self.mode = Mode::Idle;
                self.busy(STARTING, now);
            }
            return Err(Nak);
        }
        let idle = !matches!(self.mode, Mode::Periodic { .. });
        let taken = self.anytime(command, argument, now) || idle && self.when_idle(command, argument, now);
        taken.then_some(()).ok_or(Nak)
    }

    fn answer(&mut self, _: BootTime) -> Result<Vec<u8>, Nak> {
        self.answer.take().ok_or(Nak)
    }
}

#[cfg(test)]
mod tests {
    use embedded_hal::i2c::Operation;

    use super::*;
    use crate::clock::ManualClock;
    use crate::hardware::sim::chips::{I2cChip, powered_on};

    fn send(chip: &mut Commanded<Scd41>, command: u16) -> Result<(), Nak> {
        chip.send(&command.to_be_bytes())
    }

    /// The words of the answer to a command, after its execution time.
    fn ask<const N: usize>(chip: &mut Commanded<Scd41>, clock: &ManualClock, command: u16) -> Result<Vec<u16>, Nak> {
        send(chip, command)?;
        clock.advance(Duration::from_millis(READING));
        let bytes = chip.receive::<N>()?;
        let word = |bytes: &[u8]| {
            assert_eq!(sensirion::crc(&bytes[..2]), bytes[2]);
            u16::from_be_bytes([bytes[0], bytes[1]])
        };
        Ok(bytes.chunks(3).map(word).collect())
    }

    fn set(chip: &mut Commanded<Scd41>, clock: &ManualClock, command: u16, argument: u16) {
        let message = [&command.to_be_bytes()[..], &sensirion::words(&[argument])].concat();
        chip.send(&message).expect("acknowledged");
        clock.advance(Duration::from_millis(READING));
    }

    #[test]
    fn periodic_measurements_come_each_five_seconds_and_are_read_once() {
        let (clock, mut chip) = powered_on(0x62, chip);
        send(&mut chip, 0x21b1).expect("acknowledged");
        assert_eq!(ask::<3>(&mut chip, &clock, 0xe4b8), Ok(vec![NOT_READY]));
        assert_eq!(ask::<9>(&mut chip, &clock, 0xec05), Err(Nak), "none yet");
        clock.advance(PERIOD);
        assert_eq!(ask::<3>(&mut chip, &clock, 0xe4b8), Ok(vec![READY]));
        let words = ask::<9>(&mut chip, &clock, 0xec05).expect("a measurement");
        let air = world::air(chip.chip.seed, BootTime(0).after(PERIOD));
        let temperature = -45.0 + 175.0 * f64::from(words[1]) / 65_535.0;
        assert!((temperature - air.temperature).abs() < 0.01, "the factory's offset is that of its own warmth");
        assert!((f64::from(words[2]) * 100.0 / 65_535.0 - air.humidity).abs() < 0.01);
        assert!((400..1_300).contains(&words[0]), "{words:?}");
        assert_eq!(ask::<9>(&mut chip, &clock, 0xec05), Err(Nak), "it was read");
        assert_eq!(ask::<3>(&mut chip, &clock, 0xe4b8), Ok(vec![NOT_READY]));

        assert_eq!(ask::<9>(&mut chip, &clock, 0x3682), Err(Nak), "not while it measures");
        send(&mut chip, 0x3f86).expect("acknowledged");
        clock.advance(Duration::from_millis(STOPPING - 1));
        assert_eq!(send(&mut chip, 0x3682), Err(Nak), "stopping");
        clock.advance(Duration::from_millis(1));
        assert_eq!(ask::<9>(&mut chip, &clock, 0x3682), Ok(SERIAL.to_vec()));
    }

    #[test]
    fn an_answer_needs_its_execution_time() {
        let (clock, mut chip) = powered_on(0x62, chip);
        let mut bytes = [0; 9];
        let at_once = chip.transaction(&mut [Operation::Write(&[0x36, 0x82]), Operation::Read(&mut bytes)]);
        assert_eq!(at_once, Err(Nak), "a repeated start is too early");
        clock.advance(Duration::from_millis(READING));
        assert_eq!(chip.receive::<9>(), Ok([0xf8, 0x96, 0x31, 0x9f, 0x07, 0xc2, 0x3b, 0xbe, 0x89]));
    }

    #[test]
    fn a_single_shot_takes_five_seconds() {
        let (clock, mut chip) = powered_on(0x62, chip);
        send(&mut chip, 0x219d).expect("acknowledged");
        clock.advance(Duration::from_millis(SINGLE_SHOT - 1));
        assert_eq!(send(&mut chip, 0xe4b8), Err(Nak));
        clock.advance(Duration::from_millis(1));
        assert_eq!(ask::<3>(&mut chip, &clock, 0xe4b8), Ok(vec![READY]));
        assert_ne!(ask::<9>(&mut chip, &clock, 0xec05).expect("a measurement")[0], 0);
        send(&mut chip, 0x2196).expect("acknowledged");
        clock.advance(Duration::from_millis(SINGLE_SHOT_WITHOUT_CO2));
        assert_eq!(ask::<9>(&mut chip, &clock, 0xec05).expect("a measurement")[0], 0, "without CO2");
    }

    #[test]
    fn settings_last_until_they_are_reloaded_unless_they_were_persisted() {
        let (clock, mut chip) = powered_on(0x62, chip);
        assert_eq!(ask::<3>(&mut chip, &clock, 0x2318), Ok(vec![1_498]), "4 °C");
        set(&mut chip, &clock, 0x2427, 1_950);
        let mut wrong = [&[0x24, 0x27][..], &sensirion::words(&[77])].concat();
        wrong[4] ^= 1;
        assert_eq!(chip.send(&wrong), Err(Nak));
        assert_eq!(ask::<3>(&mut chip, &clock, 0x2322), Ok(vec![1_950]));
        send(&mut chip, 0x3646).expect("acknowledged");
        clock.advance(Duration::from_millis(STARTING));
        assert_eq!(ask::<3>(&mut chip, &clock, 0x2322), Ok(vec![0]));
        set(&mut chip, &clock, 0x2427, 1_950);
        send(&mut chip, 0x3615).expect("acknowledged");
        clock.advance(Duration::from_millis(PERSISTING));
        send(&mut chip, 0x3646).expect("acknowledged");
        clock.advance(Duration::from_millis(STARTING));
        assert_eq!(ask::<3>(&mut chip, &clock, 0x2322), Ok(vec![1_950]));
    }

    #[test]
    fn carbon_dioxide_depends_on_the_pressure_that_is_assumed() {
        let (clock, mut chip) = powered_on(0x62, chip);
        assert!((chip.chip.assumed_pressure() - 101_325.0).abs() < 1.0);
        let word = |chip: &Commanded<Scd41>| {
            f64::from(u16::from_be_bytes([
                chip.chip.measure(BootTime(0), true)[0],
                chip.chip.measure(BootTime(0), true)[1],
            ]))
        };
        set(&mut chip, &clock, 0xe000, 1_000);
        let at_1000_hpa = word(&chip);
        set(&mut chip, &clock, 0xe000, 500);
        assert!((word(&chip) / at_1000_hpa - 2.0).abs() < 0.01);
        set(&mut chip, &clock, 0xe000, 0);
        set(&mut chip, &clock, 0x2427, 2_000);
        assert!((chip.chip.assumed_pressure() - 79_495.0).abs() < 20.0, "ISO 2533 has 79,501 Pa at 2,000 m");
    }

    #[test]
    fn it_sleeps_until_it_is_woken_which_it_does_not_acknowledge() {
        let (clock, mut chip) = powered_on(0x62, chip);
        send(&mut chip, 0x36e0).expect("acknowledged");
        clock.advance(Duration::from_secs(1));
        assert_eq!(send(&mut chip, 0x3682), Err(Nak));
        assert_eq!(send(&mut chip, 0x36f6), Err(Nak));
        clock.advance(Duration::from_millis(STARTING));
        assert_eq!(ask::<9>(&mut chip, &clock, 0x3682), Ok(SERIAL.to_vec()));
    }
}
