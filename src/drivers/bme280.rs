//! Bosch BME280 (temperature, humidity, pressure) and BMP280 (temperature, pressure) on I2C.
//!
//! Data sheets: BST-BME280-DS002 and BST-BMP280-DS001; section numbers below are the BME280's. One forced measurement
//! a sample, each quantity once (oversampling × 1, filter off: "weather monitoring", 3.5.1). Does not do SPI, normal
//! mode or the filter.

use std::time::Duration;

use super::support::i2c::{self, Chip, Identity, Register};
use super::support::measured::Scale;
use super::{Connection, Driver, Parsed, Poller};
use crate::options::Options;
use crate::reading::{Fault, FaultCode, Sample};

// What the chips can measure (tables 1 to 3).
const TEMPERATURE: Scale = Scale { quantity: "temperature", unit: "°C", min: -40.0, max: 85.0, decimals: 2 };
const HUMIDITY: Scale = Scale { quantity: "humidity", unit: "%", min: 0.0, max: 100.0, decimals: 2 };
const PRESSURE: Scale = Scale { quantity: "pressure", unit: "hPa", min: 300.0, max: 1100.0, decimals: 2 };

pub(crate) static DRIVER: Driver = Driver {
    name: "bme280",
    summary: "Bosch BME280 or BMP280 on I2C: temperature, pressure, and (BME280) humidity",
    notes: "\
Wiring: VCC to 3V3 (never 5 V at the chip itself), GND, SDA to GPIO2, SCL to GPIO3. Address 0x76 with SDO at ground,
0x77 with SDO at 3V3. Switch I2C on with `sudo raspi-config nonint do_i2c 0`; the user that vigie runs as must belong to
the group `i2c`.

Which of the two chips answers is read from the chip; a BMP280, often sold as a BME280, gives no humidity. Each sample is
one forced measurement of about 10 ms; the chip sleeps in between and does not warm itself. Values are rounded to 0.01.
A value outside of the chip's range is the fault `impossible`; a measurement that was not made, `bad-data`.",
    sample: r#"[[sensor]]
name = "meteo"
driver = "bme280"
bus = 1
address = 0x76
every = "10s"
"#,
    connection: Connection::I2c(INFO),
    options: &[],
    quantities: &[
        TEMPERATURE.info("-40 to 85 °C, ± 1 °C; of the chip itself, a little above that of the air."),
        HUMIDITY.info("BME280 only. 0 to 100 % relative humidity, ± 3 %."),
        PRESSURE.info("300 to 1100 hPa, ± 1 hPa, at the sensor's height."),
    ],
    parse,
};

const INFO: i2c::Info = i2c::Info { addresses: &[0x76, 0x77], identify: Some(identify) };

fn parse(options: &Options<'_>) -> Option<Parsed> {
    Some(INFO.parse(options)?.sensor(Bme280::open))
}

// Registers (5.3).
const CALIBRATION: Register = Register("calib", 0x88);
const ID: Register = Register("id", 0xd0);
const RESET: Register = Register("reset", 0xe0);
const CALIBRATION_HUMIDITY: Register = Register("calib26", 0xe1);
const CTRL_HUM: Register = Register("ctrl_hum", 0xf2);
const STATUS: Register = Register("status", 0xf3);
const CTRL_MEAS: Register = Register("ctrl_meas", 0xf4);
const CONFIG: Register = Register("config", 0xf5);

/// Written to `Reset`, starts the chip anew (5.4.2).
const RESET_WORD: u8 = 0xb6;

/// `status`: a measurement is under way; the calibration is being copied (5.4.4).
const MEASURING: u8 = 1 << 3;
const IM_UPDATE: u8 = 1;

/// Start-up time after a reset (1.1, table 1).
const START_UP: Duration = Duration::from_millis(2);

/// The longest that a measurement of all three, each once, takes: 1.25 + 2.3 + (2.3 + 0.575) × 2 ms (9.1).
const MEASURING_TIME: Duration = Duration::from_micros(9_300);

/// `ctrl_hum`: humidity once. `ctrl_meas`: temperature once, pressure once, forced mode. `config`: filter off, I2C.
const HUMIDITY_ONCE: u8 = 0b001;
const FORCE_ONCE: u8 = 1 << 5 | 1 << 2 | 0b01;
const NO_FILTER: u8 = 0;

/// `ctrl_meas` after that measurement: asleep again, the rest as it was written (3.3.3).
const MEASURED_ONCE: u8 = FORCE_ONCE & !0b11;

/// What the data registers hold before the first measurement (5.4.6 to 5.4.8).
const POWER_ON_20_BITS: u32 = 0x80000;
const POWER_ON_16_BITS: u32 = 0x8000;

const BME280: &str = "BME280";

/// Which chip answers (5.4.1; BMP280 4.3.1, where 0x56 and 0x57 are samples).
fn identify(chip: &mut Chip) -> Result<Identity, Fault> {
    let [id] = chip.read(ID)?;
    let found = match id {
        0x60 => return Ok(Identity::Known(BME280)),
        0x56..=0x58 => return Ok(Identity::Known("BMP280")),
        0x61 => "is a BME680's or BME688's",
        0x55 => "is a BMP180's",
        0x50 => "is a BMP388's",
        0x00 | 0xff => "is no chip's (is the data line stuck?)",
        _ => "is not known",
    };
    Ok(Identity::Other(format!("its identity {id:#04x} {found}")))
}

/// Waits, with the bus free, until a bit of `status` is clear; `what` is what is over then.
fn wait_until_clear(chip: &mut Chip, bit: u8, what: &str, usual: Duration) -> Result<(), Fault> {
    chip.wait_for(what, usual, |chip| {
        let [status] = chip.read(STATUS)?;
        Ok((status & bit == 0).then_some(()))
    })
}

fn read_calibration(chip: &mut Chip, with_humidity: bool) -> Result<Calibration, Fault> {
    let low = chip.read::<26>(CALIBRATION)?;
    let high = if with_humidity { Some(chip.read::<7>(CALIBRATION_HUMIDITY)?) } else { None };
    let calibration = Calibration::from_registers(&low, high.as_ref());
    // No chip has these: they are what a bus gives whose data line hangs.
    if [0.0, 65_535.0].contains(&calibration.t1) || [0.0, 65_535.0].contains(&calibration.p1) {
        return Err(chip.says(FaultCode::BadData, "gives an empty calibration"));
    }
    Ok(calibration)
}

struct Bme280 {
    chip: Chip,
    calibration: Calibration,
}

impl Bme280 {
    fn open(mut chip: Chip) -> Result<Self, Fault> {
        let with_humidity = chip.check_identity("BME280 (0x60) or BMP280 (0x58)", identify)? == BME280;
        chip.write(RESET, &[RESET_WORD])?;
        wait_until_clear(&mut chip, IM_UPDATE, "its start", START_UP)?;
        let calibration = read_calibration(&mut chip, with_humidity)?;
        Ok(Self { chip, calibration })
    }
}

impl Poller for Bme280 {
    fn sample(&mut self) -> Result<Vec<Sample>, Fault> {
        let with_humidity = self.calibration.humidity.is_some();
        // All settings each time: a chip that lost its power in between is right again.
        self.chip.write(CONFIG, &[NO_FILTER])?;
        if with_humidity {
            self.chip.write(CTRL_HUM, &[HUMIDITY_ONCE])?;
        }
        self.chip.write(CTRL_MEAS, &[FORCE_ONCE])?;
        wait_until_clear(&mut self.chip, MEASURING, "its measurement", MEASURING_TIME)?;
        // One read gives values of one measurement (4: data register shadowing), with the settings that they were
        // made with.
        let mut block = [0; 12];
        let length = if with_humidity { 12 } else { 10 };
        self.chip.read_into(STATUS, &mut block[..length])?;
        let [_, ctrl_meas, _, _, data @ ..] = block;
        if ctrl_meas != MEASURED_ONCE {
            let detail = format_args!(
                "it did not measure, or was reset in between (does its supply drop?): its register ctrl_meas is \
                 {ctrl_meas:#04x}, not {MEASURED_ONCE:#04x}"
            );
            return Err(self.chip.says(FaultCode::BadData, detail));
        }
        convert(&self.calibration, &data)
    }
}

/// Samples from the registers `press_msb` to `hum_lsb`.
fn convert(calibration: &Calibration, data: &[u8; 8]) -> Result<Vec<Sample>, Fault> {
    let [p1, p2, p3, t1, t2, t3, h1, h2] = *data;
    let raw_pressure = u32::from_be_bytes([0, p1, p2, p3]) >> 4;
    let raw_temperature = u32::from_be_bytes([0, t1, t2, t3]) >> 4;
    let raw_humidity = u32::from(u16::from_be_bytes([h1, h2]));

    // A single value may be the same as its power-on value: with some calibrations that is 21.8 °C. All of them never
    // are.
    let humidity_is_power_on = calibration.humidity.is_none() || raw_humidity == POWER_ON_16_BITS;
    if raw_temperature == POWER_ON_20_BITS && raw_pressure == POWER_ON_20_BITS && humidity_is_power_on {
        return Err(Fault::new(FaultCode::BadData, "the chip holds its power-on values: it did not measure"));
    }

    let fine = calibration.fine_temperature(raw_temperature.into());
    let pressure = calibration.pressure(raw_pressure.into(), fine);
    let mut samples = vec![TEMPERATURE.sample(fine / 5120.0)?, PRESSURE.sample(pressure / 100.0)?];
    if let Some(humidity) = &calibration.humidity {
        samples.push(HUMIDITY.sample(humidity.relative(raw_humidity.into(), fine))?);
    }
    Ok(samples)
}

/// dig_T1 to dig_P9 and dig_H1 to dig_H6 (table 16), and the formulas in doubles (8.1).
struct Calibration {
    t1: f64,
    t2: f64,
    t3: f64,
    p1: f64,
    /// dig_P2 to dig_P9.
    p: [f64; 8],
    /// The BME280's.
    humidity: Option<HumidityCalibration>,
}

struct HumidityCalibration {
    h1: f64,
    h2: f64,
    h3: f64,
    h4: f64,
    h5: f64,
    h6: f64,
}

impl Calibration {
    /// From the registers 0x88 to 0xa1 and, of a BME280, 0xe1 to 0xe7.
    fn from_registers(low: &[u8; 26], high: Option<&[u8; 7]>) -> Self {
        let unsigned = |at: usize| f64::from(u16::from_le_bytes([low[at], low[at + 1]]));
        let signed = |at: usize| f64::from(i16::from_le_bytes([low[at], low[at + 1]]));
        Self {
            t1: unsigned(0),
            t2: signed(2),
            t3: signed(4),
            p1: unsigned(6),
            p: [8, 10, 12, 14, 16, 18, 20, 22].map(signed),
            humidity: high.map(|high| HumidityCalibration::from_registers(low[25], high)),
        }
    }

    /// `t_fine`: the temperature in units of 1/5120 °C.
    fn fine_temperature(&self, raw: f64) -> f64 {
        let linear = (raw / 16_384.0 - self.t1 / 1_024.0) * self.t2;
        let distance = raw / 131_072.0 - self.t1 / 8_192.0;
        linear + distance * distance * self.t3
    }

    /// Pa; not finite for a calibration that cannot be.
    fn pressure(&self, raw: f64, fine: f64) -> f64 {
        let [p2, p3, p4, p5, p6, p7, p8, p9] = self.p;
        let x = fine / 2.0 - 64_000.0;
        let offset = (x * x * p6 / 32_768.0 + x * p5 * 2.0) / 4.0 + p4 * 65_536.0;
        let slope = (p3 * x * x / 524_288.0 + p2 * x) / 524_288.0;
        let scale = (1.0 + slope / 32_768.0) * self.p1;
        let p = (1_048_576.0 - raw - offset / 4_096.0) * 6_250.0 / scale;
        p + (p9 * p * p / 2_147_483_648.0 + p * p8 / 32_768.0 + p7) / 16.0
    }
}

impl HumidityCalibration {
    /// dig_H4 and dig_H5 are signed numbers of 12 bits that share the register 0xe5.
    fn from_registers(h1: u8, high: &[u8; 7]) -> Self {
        let twelve_bits = |upper: u8, lower: u8| i16::from_be_bytes([upper, lower << 4]) >> 4;
        Self {
            h1: h1.into(),
            h2: i16::from_le_bytes([high[0], high[1]]).into(),
            h3: high[2].into(),
            h4: twelve_bits(high[3], high[4] & 0x0f).into(),
            h5: twelve_bits(high[5], high[4] >> 4).into(),
            h6: i8::from_le_bytes([high[6]]).into(),
        }
    }

    /// % relative humidity, held to 0 to 100 as the data sheet does.
    fn relative(&self, raw: f64, fine: f64) -> f64 {
        let x = fine - 76_800.0;
        let by_temperature = 1.0 + self.h6 / 67_108_864.0 * x * (1.0 + self.h3 / 67_108_864.0 * x);
        let linear = (raw - (self.h4 * 64.0 + self.h5 / 16_384.0 * x)) * (self.h2 / 65_536.0 * by_temperature);
        (linear * (1.0 - self.h1 * linear / 524_288.0)).clamp(0.0, 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::support::testing::{self, number, numbers};

    /// The calibration and raw values of the BMP280 data sheet's worked example (BST-BMP280-DS001, 3.12).
    fn example() -> Calibration {
        Calibration {
            t1: 27504.0,
            t2: 26435.0,
            t3: -1000.0,
            p1: 36477.0,
            p: [-10685.0, 3024.0, 2855.0, 140.0, -7.0, 15500.0, -14600.0, 6000.0],
            humidity: None,
        }
    }

    fn data(pressure: u32, temperature: u32, humidity: u32) -> [u8; 8] {
        let [_, p1, p2, p3] = (pressure << 4).to_be_bytes();
        let [_, t1, t2, t3] = (temperature << 4).to_be_bytes();
        let [_, _, h1, h2] = humidity.to_be_bytes();
        [p1, p2, p3, t1, t2, t3, h1, h2]
    }

    #[test]
    fn the_data_sheets_worked_example_comes_out() {
        let calibration = example();
        let fine = calibration.fine_temperature(519_888.0);
        assert!((fine - 128_422.0).abs() < 1.0, "{fine}");
        assert!((fine / 5120.0 - 25.08).abs() < 0.005);
        let pressure = calibration.pressure(415_148.0, fine);
        assert!((pressure - 100_653.27).abs() < 0.5, "{pressure}");

        let samples = convert(&calibration, &data(415_148, 519_888, 0)).expect("samples");
        assert_eq!(numbers(&samples), [("temperature", 25.08), ("pressure", 1006.53)]);
    }

    #[test]
    fn packed_calibration_values_keep_their_signs() {
        // dig_H4 = 0x5a3 = 1443, dig_H5 = -2 (0xffe), dig_H6 = -1.
        let humidity = HumidityCalibration::from_registers(75, &[0x72, 0x01, 0, 0x5a, 0xe3, 0xff, 0xff]);
        assert_eq!((humidity.h1, humidity.h2, humidity.h3), (75.0, 370.0, 0.0));
        assert_eq!((humidity.h4, humidity.h5, humidity.h6), (1443.0, -2.0, -1.0));
    }

    #[test]
    fn power_on_values_and_impossible_values_are_faults() {
        let calibration = example();
        let code = |raw: [u8; 8]| convert(&calibration, &raw).expect_err("a fault").code;
        assert_eq!(code(data(POWER_ON_20_BITS, POWER_ON_20_BITS, POWER_ON_16_BITS)), FaultCode::BadData);
        assert_eq!(code(data(415_148, 0xf_ffff, 0)), FaultCode::Impossible, "far too hot");
        assert_eq!(code(data(415_148, 0, 0)), FaultCode::Impossible, "far too cold");
        assert_eq!(code(data(0xf_ffff, 519_888, 0)), FaultCode::Impossible, "a vacuum");

        let broken = Calibration { p1: 0.0, ..example() };
        let fault = convert(&broken, &data(415_148, 519_888, 0)).expect_err("a division by zero");
        assert_eq!(fault.code, FaultCode::Impossible);
    }

    /// A driver that took every 0x80000 for a skipped measurement had no value for one temperature of each chip: here
    /// 26.46 °C.
    #[test]
    fn a_value_that_equals_its_power_on_value_is_a_value() {
        let samples = convert(&example(), &data(415_148, POWER_ON_20_BITS, 0)).expect("samples");
        assert_eq!(numbers(&samples)[0], ("temperature", 26.46));
    }

    /// A chip that loses its power after the measurement was started holds its power-on settings.
    #[test]
    fn a_reset_in_between_is_noticed() {
        let chip = testing::chip(
            0x76,
            &[
                (&[0xf5, 0], &[]),
                (&[0xf4, 0x25], &[]),
                (&[0xf3], &[0]),
                (&[0xf3], &[0, 0, 0, 0, 0x80, 0, 0, 0x80, 0, 0]),
            ],
        );
        let fault = Bme280 { chip, calibration: example() }.sample().expect_err("a fault");
        assert_eq!(fault.code, FaultCode::BadData);
        assert!(fault.detail.contains("was reset in between"), "{fault}");
    }

    /// The simulated chip makes its raw values with the data sheet's integer formulas; ours are those in doubles.
    #[test]
    fn both_simulated_chips_are_read() {
        let machine = testing::sim();
        for (keys, expected) in [
            ("address = 0x76", &["temperature", "pressure", "humidity"][..]),
            ("address = 0x77", &["temperature", "pressure"]),
        ] {
            let mut chip = testing::open(&DRIVER, keys, &machine).expect("a chip");
            for _ in 0..3 {
                let samples = chip.sample().expect("samples");
                assert_eq!(samples.iter().map(|sample| &*sample.quantity).collect::<Vec<_>>(), expected);
                for (sample, room) in samples.iter().zip([15.0..26.0, 990.0..1030.0, 35.0..60.0]) {
                    assert!(room.contains(&number(sample)), "{sample:?}");
                }
            }
        }
    }
}
