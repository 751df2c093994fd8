//! The BME280 and BMP280 at register level, from Bosch's data sheets BST-BME280-DS002 and BST-BMP280-DS001.
//!
//! Raw values come from the compensation formulas in integers (BME280 4.2.3), solved numerically for the air that
//! there is, so that they owe nothing to the driver. Not modelled: the IIR filter, the standby time in normal mode
//! (there, each read gives a new measurement), and SPI.

use std::sync::Arc;
use std::time::Duration;

use embedded_hal::i2c::Operation;

use super::{I2cChip, Nak};
use crate::clock::{BootTime, Clock};
use crate::hardware::sim::world::{self, Air};

// Registers (BME280 5.3; BMP280 4.2).
const ID: u8 = 0xd0;
const RESET: u8 = 0xe0;
const CTRL_HUM: u8 = 0xf2;
const STATUS: u8 = 0xf3;
const CTRL_MEAS: u8 = 0xf4;
const CONFIG: u8 = 0xf5;
const DATA: u8 = 0xf7;
const CALIBRATION: u8 = 0x88;
const CALIBRATION_HUMIDITY: u8 = 0xe1;

/// What must be written to [`RESET`].
const RESET_WORD: u8 = 0xb6;

/// Bits of [`STATUS`].
const MEASURING: u8 = 1 << 3;
const IM_UPDATE: u8 = 1;

/// Start-up after a reset, during which the calibration is copied (BME280 table 1).
const START_UP: Duration = Duration::from_millis(2);

/// Data registers of a measurement that was skipped or not made yet (BME280 5.4.6 to 5.4.8).
const SKIPPED_20_BITS: u32 = 0x80000;
const SKIPPED_16_BITS: u32 = 0x8000;

/// Calibration values of one chip (BME280 table 16).
struct Calibration {
    t1: u16,
    t2: i16,
    t3: i16,
    p1: u16,
    /// dig_P2 to dig_P9.
    p: [i16; 8],
    humidity: Option<HumidityCalibration>,
}

struct HumidityCalibration {
    h1: u8,
    h2: i16,
    h3: u8,
    h4: i16,
    h5: i16,
    h6: i8,
}

/// One chip on the bus.
pub(crate) struct Chip {
    address: u8,
    id: u8,
    calibration: Calibration,
    clock: Arc<dyn Clock>,
    seed: u64,
    /// Where the next read begins.
    pointer: u8,
    reset_at: BootTime,
    ctrl_hum: u8,
    /// `ctrl_hum` as of the last write to `ctrl_meas`: only then it takes effect (BME280 5.4.3).
    ctrl_hum_effective: u8,
    ctrl_meas: u8,
    config: u8,
    /// The end of a forced measurement that is under way.
    done_at: Option<BootTime>,
    data: [u8; 8],
}

impl Chip {
    /// A BME280 as it is after power-on.
    pub(crate) fn bme280(address: u8, clock: Arc<dyn Clock>, seed: u64) -> Self {
        let calibration = Calibration {
            t1: 28485,
            t2: 26735,
            t3: 50,
            p1: 36738,
            p: [-10635, 3024, 6980, -4, -7, 9900, -10230, 4285],
            humidity: Some(HumidityCalibration { h1: 75, h2: 370, h3: 0, h4: 313, h5: 50, h6: 30 }),
        };
        Self::new(address, 0x60, calibration, clock, seed)
    }

    /// A BMP280, with the calibration values of its data sheet's worked example (3.12).
    pub(crate) fn bmp280(address: u8, clock: Arc<dyn Clock>, seed: u64) -> Self {
        let calibration = Calibration {
            t1: 27504,
            t2: 26435,
            t3: -1000,
            p1: 36477,
            p: [-10685, 3024, 2855, 140, -7, 15500, -14600, 6000],
            humidity: None,
        };
        Self::new(address, 0x58, calibration, clock, seed)
    }

    fn new(address: u8, id: u8, calibration: Calibration, clock: Arc<dyn Clock>, seed: u64) -> Self {
        let reset_at = clock.boot();
        let mut chip = Self {
            address,
            id,
            calibration,
            clock,
            // Two chips in a house do not measure the same.
            seed: seed ^ u64::from(address),
            pointer: 0,
            reset_at,
            ctrl_hum: 0,
            ctrl_hum_effective: 0,
            ctrl_meas: 0,
            config: 0,
            done_at: None,
            data: [0; 8],
        };
        chip.reset(reset_at);
        chip
    }

    fn write(&mut self, bytes: &[u8], now: BootTime) {
        for pair in bytes.chunks(2) {
            self.pointer = pair[0];
            if let Some(value) = pair.get(1) {
                self.set_register(pair[0], *value, now);
            }
        }
    }

    fn set_register(&mut self, register: u8, value: u8, now: BootTime) {
        match register {
            RESET if value == RESET_WORD => self.reset(now),
            CTRL_HUM if self.calibration.humidity.is_some() => self.ctrl_hum = value & 0b111,
            CTRL_MEAS => {
                self.ctrl_meas = value;
                self.ctrl_hum_effective = self.ctrl_hum;
                self.done_at = matches!(value & 0b11, 0b01 | 0b10).then(|| now.after(self.measuring_time()));
            }
            CONFIG => self.config = value,
            // The others are read-only or not there: a write is acknowledged and does nothing.
            _ => {}
        }
    }

    fn register(&self, register: u8, now: BootTime) -> u8 {
        match register {
            ID => self.id,
            CTRL_HUM => self.ctrl_hum,
            STATUS => {
                let measuring = if self.done_at.is_some() { MEASURING } else { 0 };
                let copying = if now < self.reset_at.after(START_UP) { IM_UPDATE } else { 0 };
                measuring | copying
            }
            CTRL_MEAS => self.ctrl_meas,
            CONFIG => self.config,
            DATA..=0xfe => self.data[usize::from(register - DATA)],
            CALIBRATION..=0xa1 => self.calibration.low_block()[usize::from(register - CALIBRATION)],
            CALIBRATION_HUMIDITY..=0xe7 => self.calibration.high_block()[usize::from(register - CALIBRATION_HUMIDITY)],
            _ => 0,
        }
    }

    fn reset(&mut self, now: BootTime) {
        self.reset_at = now;
        (self.ctrl_hum, self.ctrl_hum_effective, self.ctrl_meas, self.config) = (0, 0, 0, 0);
        self.done_at = None;
        self.data = data_registers(SKIPPED_20_BITS, SKIPPED_20_BITS, SKIPPED_16_BITS);
        if self.calibration.humidity.is_none() {
            self.data[6..].fill(0);
        }
    }

    /// Ends a forced measurement whose time has come, and measures in normal mode.
    fn live_on(&mut self, now: BootTime) {
        if let Some(done_at) = self.done_at
            && done_at <= now
        {
            self.measure(done_at);
            self.done_at = None;
            self.ctrl_meas &= !0b11;
        } else if self.ctrl_meas & 0b11 == 0b11 {
            self.measure(now);
        }
    }

    /// Oversampling as factors, 0 for skipped: temperature, pressure, humidity (BME280 5.4.3, 5.4.5).
    fn oversampling(&self) -> (u32, u32, u32) {
        let factor = |bits: u8| if bits == 0 { 0 } else { 1 << (u32::from(bits).min(5) - 1) };
        (factor(self.ctrl_meas >> 5), factor(self.ctrl_meas >> 2 & 0b111), factor(self.ctrl_hum_effective))
    }

    /// The longest that a measurement takes (BME280 appendix B, 9.1).
    fn measuring_time(&self) -> Duration {
        let (temperature, pressure, humidity) = self.oversampling();
        let mut micros = 1250 + 2300 * temperature;
        micros += if pressure > 0 { 2300 * pressure + 575 } else { 0 };
        micros += if humidity > 0 { 2300 * humidity + 575 } else { 0 };
        Duration::from_micros(micros.into())
    }

    fn measure(&mut self, at: BootTime) {
        let air = world::air(self.seed, at);
        let (temperature, pressure, humidity) = self.oversampling();
        // Without the filter, each doubling of samples adds a bit to the 16 (BME280 3.4.2, 3.4.3).
        let resolved = |raw: u32, factor: u32| {
            let unused = 4_u32.saturating_sub(factor.max(1).ilog2());
            if factor == 0 { SKIPPED_20_BITS } else { raw >> unused << unused }
        };
        let raw = self.calibration.raw(&air);
        let humidity = if humidity == 0 { SKIPPED_16_BITS } else { raw.humidity };
        self.data = data_registers(resolved(raw.pressure, pressure), resolved(raw.temperature, temperature), humidity);
        if self.calibration.humidity.is_none() {
            self.data[6..].fill(0);
        }
    }
}

impl I2cChip for Chip {
    fn answers(&self, address: u8) -> bool {
        address == self.address
    }

    /// A write sets the pointer with its first byte and then writes pairs of value and register address; a read goes on
    /// from the pointer (BME280 6.2.1, 6.2.2).
    fn transaction(&mut self, operations: &mut [Operation<'_>]) -> Result<(), Nak> {
        let now = self.clock.boot();
        self.live_on(now);
        // embedded-hal joins adjacent writes without a repeated start.
        let mut written: Vec<u8> = Vec::new();
        for operation in operations {
            match operation {
                Operation::Write(bytes) => written.extend_from_slice(bytes),
                Operation::Read(buffer) => {
                    self.write(&std::mem::take(&mut written), now);
                    for byte in buffer.iter_mut() {
                        *byte = self.register(self.pointer, now);
                        self.pointer = self.pointer.wrapping_add(1);
                    }
                }
            }
        }
        self.write(&written, now);
        Ok(())
    }
}

/// press_msb … hum_lsb: two values of 20 bits, left-aligned in three bytes, and one of 16 bits.
fn data_registers(pressure: u32, temperature: u32, humidity: u32) -> [u8; 8] {
    let [_, p1, p2, p3] = (pressure << 4).to_be_bytes();
    let [_, t1, t2, t3] = (temperature << 4).to_be_bytes();
    let [_, _, h1, h2] = humidity.to_be_bytes();
    [p1, p2, p3, t1, t2, t3, h1, h2]
}

struct Raw {
    temperature: u32,
    pressure: u32,
    humidity: u32,
}

impl Calibration {
    /// Registers 0x88 to 0xa1.
    fn low_block(&self) -> [u8; 26] {
        let mut block = [0; 26];
        block[..2].copy_from_slice(&self.t1.to_le_bytes());
        block[2..4].copy_from_slice(&self.t2.to_le_bytes());
        block[4..6].copy_from_slice(&self.t3.to_le_bytes());
        block[6..8].copy_from_slice(&self.p1.to_le_bytes());
        for (bytes, value) in block[8..24].chunks_mut(2).zip(self.p) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
        block[25] = self.humidity.as_ref().map_or(0, |humidity| humidity.h1);
        block
    }

    /// Registers 0xe1 to 0xe7: dig_H4 and dig_H5 have 12 bits each and share the byte 0xe5.
    fn high_block(&self) -> [u8; 7] {
        let Some(humidity) = &self.humidity else { return [0; 7] };
        let [h2_low, h2_high] = humidity.h2.to_le_bytes();
        let [h4_high, _] = (humidity.h4 >> 4).to_le_bytes();
        let [h5_high, _] = (humidity.h5 >> 4).to_le_bytes();
        let [h4_low, _] = (humidity.h4 & 0xf).to_le_bytes();
        let [h5_low, _] = (humidity.h5 & 0xf).to_le_bytes();
        let [h6] = humidity.h6.to_le_bytes();
        [h2_low, h2_high, humidity.h3, h4_high, h5_low << 4 | h4_low, h5_high, h6]
    }

    /// The raw values that stand for this air.
    fn raw(&self, air: &Air) -> Raw {
        let temperature = smallest(0xf_ffff, |raw| self.temperature(raw) >= air.temperature);
        let fine = self.fine_temperature(temperature);
        // A higher raw value stands for a lower pressure.
        let pressure = smallest(0xf_ffff, |raw| self.pressure(raw, fine) <= air.pressure);
        let humidity = self
            .humidity
            .as_ref()
            .map_or(0, |humidity| smallest(0xffff, |raw| humidity.relative(raw, fine) >= air.humidity));
        Raw { temperature, pressure, humidity }
    }

    /// `t_fine` of the data sheet.
    fn fine_temperature(&self, raw: u32) -> i64 {
        let (raw, t1) = (i64::from(raw), i64::from(self.t1));
        let linear = (((raw >> 3) - (t1 << 1)) * i64::from(self.t2)) >> 11;
        let distance = (raw >> 4) - t1;
        linear + ((((distance * distance) >> 12) * i64::from(self.t3)) >> 14)
    }

    /// °C
    fn temperature(&self, raw: u32) -> f64 {
        to_f64((self.fine_temperature(raw) * 5 + 128) >> 8) / 100.0
    }

    /// Pa
    fn pressure(&self, raw: u32, fine: i64) -> f64 {
        let [p2, p3, p4, p5, p6, p7, p8, p9] = self.p.map(i64::from);
        let x = fine - 128_000;
        let offset = x * x * p6 + ((x * p5) << 17) + (p4 << 35);
        let scale = ((x * x * p3) >> 8) + ((x * p2) << 12);
        let scale = (((1 << 47) + scale) * i64::from(self.p1)) >> 33;
        let p = ((((1_048_576 - i64::from(raw)) << 31) - offset) * 3125) / scale;
        let second = (p9 * (p >> 13) * (p >> 13)) >> 25;
        let first = (p8 * p) >> 19;
        to_f64(((p + second + first) >> 8) + (p7 << 4)) / 256.0
    }
}

impl HumidityCalibration {
    /// % relative humidity
    fn relative(&self, raw: u32, fine: i64) -> f64 {
        let v = fine - 76_800;
        let (h1, h2, h3) = (i64::from(self.h1), i64::from(self.h2), i64::from(self.h3));
        let (h4, h5, h6) = (i64::from(self.h4), i64::from(self.h5), i64::from(self.h6));
        let difference = ((i64::from(raw) << 14) - (h4 << 20) - h5 * v + 16_384) >> 15;
        let by_temperature = (((v * h6) >> 10) * (((v * h3) >> 11) + 32_768)) >> 10;
        let scaled = difference * (((by_temperature + 2_097_152) * h2 + 8_192) >> 14);
        let bent = scaled - (((((scaled >> 15) * (scaled >> 15)) >> 7) * h1) >> 4);
        to_f64(bent.clamp(0, 419_430_400) >> 12) / 1024.0
    }
}

#[expect(clippy::cast_precision_loss, reason = "all values here are below 2^53")]
fn to_f64(number: i64) -> f64 {
    number as f64
}

/// The smallest number up to `max` for which `holds`, which must hold from some number on; `max` if it never does.
fn smallest(max: u32, holds: impl Fn(u32) -> bool) -> u32 {
    let (mut low, mut high) = (0, max);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn read(chip: &mut Chip, register: u8, buffer: &mut [u8]) {
        chip.transaction(&mut [Operation::Write(&[register]), Operation::Read(buffer)]).expect("acknowledged");
    }

    fn byte(chip: &mut Chip, register: u8) -> u8 {
        let mut byte = [0];
        read(chip, register, &mut byte);
        byte[0]
    }

    #[test]
    fn the_data_sheets_worked_example_comes_out() {
        // BST-BMP280-DS001, 3.12.
        let chip = Chip::bmp280(0x77, Arc::new(ManualClock::new()), 0);
        let fine = chip.calibration.fine_temperature(519_888);
        assert_eq!(fine, 128_422);
        assert!((chip.calibration.temperature(519_888) - 25.08).abs() < 1e-9);
        assert!((chip.calibration.pressure(415_148, fine) - 100_653.27).abs() < 0.5);
    }

    #[test]
    fn a_forced_measurement_takes_its_time_and_ends_in_sleep() {
        let clock = Arc::new(ManualClock::new());
        let mut chip = Chip::bme280(0x76, Arc::clone(&clock) as Arc<dyn Clock>, 1);
        assert_eq!(byte(&mut chip, ID), 0x60);
        assert_eq!(byte(&mut chip, STATUS), IM_UPDATE, "starting");
        clock.advance(START_UP);
        assert_eq!(byte(&mut chip, STATUS), 0);

        let mut power_on = [0; 8];
        read(&mut chip, DATA, &mut power_on);
        assert_eq!(power_on, [0x80, 0, 0, 0x80, 0, 0, 0x80, 0]);

        // Pairs of address and value in one write; humidity takes effect with ctrl_meas.
        chip.transaction(&mut [Operation::Write(&[CTRL_HUM, 1, CTRL_MEAS, 0b0010_0101])]).expect("acknowledged");
        clock.advance(Duration::from_micros(9_299));
        assert_eq!(byte(&mut chip, STATUS), MEASURING);
        clock.advance(Duration::from_micros(1));
        assert_eq!(byte(&mut chip, STATUS), 0);
        assert_eq!(byte(&mut chip, CTRL_MEAS), 0b0010_0100, "asleep again");
        let mut data = [0; 8];
        read(&mut chip, DATA, &mut data);
        assert!(data[..2] != power_on[..2] && data[3..5] != power_on[3..5] && data[6..] != power_on[6..], "{data:?}");
        assert_eq!((data[2], data[5]), (0, 0), "16 bits at an oversampling of 1");

        chip.transaction(&mut [Operation::Write(&[RESET, RESET_WORD])]).expect("acknowledged");
        read(&mut chip, DATA, &mut data);
        assert_eq!(data, power_on);
    }

    #[test]
    fn what_is_not_measured_keeps_its_power_on_value() {
        let clock = Arc::new(ManualClock::new());
        let mut chip = Chip::bme280(0x76, Arc::clone(&clock) as Arc<dyn Clock>, 1);
        chip.transaction(&mut [Operation::Write(&[CTRL_MEAS, 0b0010_0001])]).expect("acknowledged");
        clock.advance(Duration::from_millis(50));
        let mut data = [0; 8];
        read(&mut chip, DATA, &mut data);
        assert_eq!((&data[..3], &data[6..]), (&[0x80, 0, 0][..], &[0x80, 0][..]));
        assert_ne!(data[3..6], [0x80, 0, 0]);
    }

    #[test]
    fn raw_values_stand_for_the_air_that_there_is() {
        for chip in
            [Chip::bme280(0x76, Arc::new(ManualClock::new()), 1), Chip::bmp280(0x77, Arc::new(ManualClock::new()), 1)]
        {
            for (temperature, humidity, pressure) in
                [(-20.0, 30.0, 95_000.0), (21.3, 47.0, 101_325.0), (60.0, 90.0, 80_000.0)]
            {
                let raw = chip.calibration.raw(&Air { temperature, humidity, pressure });
                let fine = chip.calibration.fine_temperature(raw.temperature);
                assert!((chip.calibration.temperature(raw.temperature) - temperature).abs() <= 0.01);
                assert!((chip.calibration.pressure(raw.pressure, fine) - pressure).abs() <= 1.0);
                if let Some(calibration) = &chip.calibration.humidity {
                    assert!((calibration.relative(raw.humidity, fine) - humidity).abs() <= 0.05);
                }
            }
        }
    }
}
