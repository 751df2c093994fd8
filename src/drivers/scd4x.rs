//! Sensirion SCD40, SCD41 and SCD43 on I2C: CO2, temperature and humidity.
//!
//! Data sheet: "SCD4x" (section numbers are version 1.3's). Periodic measurements, those of low power, or single shots.
//! Does not do the forced recalibration, and writes nothing to the chip's EEPROM.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::support::i2c::{self, Chip};
use super::support::measured::Scale;
use super::support::sensirion;
use super::{Connection, Driver, Open, OptionInfo, Parsed, Poller, Source};
use crate::hardware::Hardware;
use crate::options::Options;
use crate::reading::{Fault, FaultCode, Sample};

const CO2: Scale = Scale { quantity: "co2", unit: "ppm", min: 1.0, max: 40_000.0, decimals: 0 };
const TEMPERATURE: Scale = Scale { quantity: "temperature", unit: "°C", min: -10.0, max: 60.0, decimals: 2 };
const HUMIDITY: Scale = Scale { quantity: "humidity", unit: "%", min: 0.0, max: 100.0, decimals: 2 };

pub(crate) static DRIVER: Driver = Driver {
    name: "scd4x",
    summary: "Sensirion SCD40, SCD41 or SCD43 on I2C: CO2, temperature and humidity",
    notes: "\
Wiring: VDD to 3V3, GND, SDA to GPIO2, SCL to GPIO3. The chip draws up to 205 mA for moments: a weak supply shows as faults
`missing` or `crc`. The address is always 0x62. The user that vigie runs as must belong to the group `i2c`.

The chip measures by itself each 5 s (or 30 s), and a sample waits for the next measurement; the first one comes 6 s after
the start (31 s with `low-power`), and the bus is free meanwhile. An `every` below that gives each measurement once.
Every word has a checksum, and a wrong one is the fault `crc`.

CO2 depends on the pressure of the air: give `altitude`, or `pressure` where the place's mean is known. The chip warms
itself: by 4 °C, which it takes off unless `temperature_offset` says how much it is in your case. Its self-calibration
takes the lowest value of a week for fresh air: switch it off in a greenhouse, or where somebody always is. All of these
are set at each start and kept in the chip's memory only; what is not given is as the chip's EEPROM has it.

The chip has no identity. `vigie scan` does not ask it for its serial number: its commands have two bytes, which another
chip at the address would take for a register to be written.",
    sample: r#"[[sensor]]
name = "classe"
driver = "scd4x"
bus = 1
altitude = 85
every = "1m"
"#,
    connection: Connection::I2c(INFO),
    options: &[
        OptionInfo {
            name: "measuring",
            values: "`periodic`, `low-power` or `single-shot`",
            default: Some("\"periodic\""),
            help: "Each 5 s, each 30 s, or (SCD41 and SCD43) when a sample is taken, which then takes 5 s.",
        },
        OptionInfo {
            name: "altitude",
            values: "0 to 3000 m",
            default: Some("the chip's, 0 as delivered"),
            help: "Height above the sea.",
        },
        OptionInfo {
            name: "pressure",
            values: "700 to 1200 hPa",
            default: Some("that of the altitude"),
            help: "Pressure of the air at the chip; cannot be given together with `altitude`.",
        },
        OptionInfo {
            name: "temperature_offset",
            values: "0 to 20 °C",
            default: Some("the chip's, 4 as delivered"),
            help: "How much the chip is warmer than the air; taken off the temperature, and the humidity is put right.",
        },
        OptionInfo {
            name: "self_calibration",
            values: "true or false",
            default: Some("the chip's, true as delivered"),
            help: "Takes the lowest CO2 of a week for fresh air.",
        },
    ],
    quantities: &[
        CO2.info("Up to 40000 ppm; ± (50 ppm + 5 %) from 400 to 2000 ppm (SCD41: to 5000 ppm)."),
        TEMPERATURE.info("-10 to 60 °C, ± 0.8 °C, and as good as `temperature_offset`."),
        HUMIDITY.info("0 to 100 % relative humidity, ± 6 %."),
    ],
    parse,
};

const INFO: i2c::Info = i2c::Info { addresses: &[0x62], identify: None };

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let problems_before = options.problems().len();
    let place = INFO.parse(options);
    let words =
        [("periodic", Measuring::Periodic), ("low-power", Measuring::LowPower), ("single-shot", Measuring::SingleShot)];
    let measuring = options.optional_word("measuring", &words).unwrap_or(Measuring::Periodic);
    let altitude = options.optional_in::<u16>("altitude", 0..=3_000);
    let pressure = options.optional_in::<u16>("pressure", 700..=1_200);
    if options.raw("altitude").is_some() && options.raw("pressure").is_some() {
        let message = "`altitude` and `pressure` say the same: only one of them can stand";
        options.problem("pressure", message, Some("expected `pressure` without `altitude`".to_owned()));
    }
    let temperature_offset = options.optional_in("temperature_offset", 0.0..=20.0);
    let self_calibration = options.optional("self_calibration");
    if options.problems().len() > problems_before {
        return None;
    }
    let settings = Settings { place: place?, measuring, altitude, pressure, temperature_offset, self_calibration };
    Some(Parsed { claims: settings.place.claims(), source: Source::Poller(Arc::new(settings)) })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measuring {
    Periodic,
    LowPower,
    SingleShot,
}

impl Measuring {
    /// Between two measurements, or what a single shot takes (3.5.1, 3.8.1, 3.10.1).
    fn interval(self) -> Duration {
        match self {
            Self::Periodic | Self::SingleShot => Duration::from_secs(5),
            Self::LowPower => Duration::from_secs(30),
        }
    }
}

struct Settings {
    place: i2c::Place,
    measuring: Measuring,
    /// m
    altitude: Option<u16>,
    /// hPa
    pressure: Option<u16>,
    /// °C
    temperature_offset: Option<f64>,
    self_calibration: Option<bool>,
}

/// A command with its execution time (table 9), the longest of the data sheet's versions: `reinit` and `wake_up` take
/// 20 ms in version 1.3, 30 ms in later ones.
struct Command(&'static str, u16, Duration);

const SHORT: Duration = Duration::from_millis(1);
const START: Command = Command("start_periodic_measurement", 0x21b1, Duration::ZERO);
const START_LOW_POWER: Command = Command("start_low_power_periodic_measurement", 0x21ac, Duration::ZERO);
const MEASURE_ONCE: Command = Command("measure_single_shot", 0x219d, Duration::from_secs(5));
const READ: Command = Command("read_measurement", 0xec05, SHORT);
const DATA_READY: Command = Command("get_data_ready_status", 0xe4b8, SHORT);
const STOP: Command = Command("stop_periodic_measurement", 0x3f86, Duration::from_millis(500));
const SET_TEMPERATURE_OFFSET: Command = Command("set_temperature_offset", 0x241d, SHORT);
const SET_ALTITUDE: Command = Command("set_sensor_altitude", 0x2427, SHORT);
const SET_PRESSURE: Command = Command("set_ambient_pressure", 0xe000, SHORT);
const SET_SELF_CALIBRATION: Command = Command("set_automatic_self_calibration_enabled", 0x2416, SHORT);
const SERIAL_NUMBER: Command = Command("get_serial_number", 0x3682, SHORT);
const REINIT: Command = Command("reinit", 0x3646, Duration::from_millis(30));
const WAKE_UP: Command = Command("wake_up", 0x36f6, Duration::from_millis(30));

/// How often a chip that measures is asked whether it has done.
const PAUSE: Duration = Duration::from_millis(100);

/// The bits of the data-ready status that are all 0 where there is no measurement (3.8.2).
const READY_BITS: u16 = 0x07ff;

/// What is set at the start: commands with their arguments.
fn arguments(settings: &Settings) -> Vec<(Command, u16)> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 20 °C fit")]
    let offset = |celsius: f64| (celsius * 65_535.0 / 175.0).round() as u16;
    [
        settings.temperature_offset.map(|celsius| (SET_TEMPERATURE_OFFSET, offset(celsius))),
        settings.altitude.map(|metres| (SET_ALTITUDE, metres)),
        settings.pressure.map(|hectopascal| (SET_PRESSURE, hectopascal)),
        settings.self_calibration.map(|on| (SET_SELF_CALIBRATION, u16::from(on))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn command(chip: &mut Chip, Command(name, code, time): &Command) -> Result<(), Fault> {
    chip.command(&format!("the command {name}"), &code.to_be_bytes(), *time)
}

impl Open for Settings {
    fn open(&self, hardware: &dyn Hardware) -> Result<Box<dyn Poller>, Fault> {
        let mut chip = self.place.chip(hardware)?;
        // A chip that sleeps wakes up without an acknowledge, and one that is awake gives none either (3.10.4).
        let _ = command(&mut chip, &WAKE_UP);
        command(&mut chip, &STOP)?;
        command(&mut chip, &REINIT)?;
        command(&mut chip, &SERIAL_NUMBER)?;
        sensirion::receive_known::<3>(&mut chip, "its serial number", "SCD4x")?;
        for (Command(name, code, time), argument) in arguments(self) {
            let message = [&code.to_be_bytes()[..], &sensirion::packed(argument)].concat();
            chip.command(&format!("the command {name}"), &message, time)?;
        }
        match self.measuring {
            Measuring::Periodic => command(&mut chip, &START)?,
            Measuring::LowPower => command(&mut chip, &START_LOW_POWER)?,
            Measuring::SingleShot => {}
        }
        Ok(Box::new(Scd4x { chip, measuring: self.measuring }))
    }

    fn longest(&self) -> Duration {
        STOP.2 + WAKE_UP.2 + REINIT.2 + self.measuring.interval() + Duration::from_secs(1)
    }
}

struct Scd4x {
    chip: Chip,
    measuring: Measuring,
}

impl Poller for Scd4x {
    fn sample(&mut self) -> Result<Vec<Sample>, Fault> {
        if self.measuring == Measuring::SingleShot {
            command(&mut self.chip, &MEASURE_ONCE)?;
        }
        self.wait_until_ready()?;
        command(&mut self.chip, &READ)?;
        convert(sensirion::receive(&mut self.chip, "its measurement")?)
    }
}

impl Scd4x {
    /// Waits for a measurement with the bus free, for a fifth longer than one should take.
    fn wait_until_ready(&mut self) -> Result<(), Fault> {
        let interval = self.measuring.interval() * 6 / 5;
        for _ in 0..interval.as_millis().div_ceil(PAUSE.as_millis()) {
            command(&mut self.chip, &DATA_READY)?;
            let [status] = sensirion::receive(&mut self.chip, "its data-ready status")?;
            if status & READY_BITS != 0 {
                return Ok(());
            }
            thread::sleep(PAUSE);
        }
        let why = match self.measuring {
            Measuring::SingleShot => "an SCD40 has no single shots",
            Measuring::Periodic | Measuring::LowPower => "was it reset in between: does its supply drop?",
        };
        Err(self.chip.says(FaultCode::BadData, format_args!("gives no measurement within {interval:?} ({why})")))
    }
}

/// Samples of the raw values (3.5.2).
fn convert([co2, temperature, humidity]: [u16; 3]) -> Result<Vec<Sample>, Fault> {
    Ok(vec![
        CO2.sample(f64::from(co2))?,
        TEMPERATURE.sample(sensirion::celsius(temperature))?,
        HUMIDITY.sample(sensirion::humidity(humidity))?,
    ])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::drivers::support::testing::{self, numbers};
    use crate::hardware::I2cPath;

    fn settings() -> Settings {
        Settings {
            place: i2c::Place { path: I2cPath { bus: 1, channel: None }, address: 0x62 },
            measuring: Measuring::Periodic,
            altitude: None,
            pressure: None,
            temperature_offset: None,
            self_calibration: None,
        }
    }

    /// The example of read_measurement (3.5.2): 500 ppm, 25 °C, 37 %.
    #[test]
    fn the_data_sheets_worked_example_comes_out() {
        let samples = convert([0x01f4, 0x6667, 0x5eb9]).expect("samples");
        assert_eq!(numbers(&samples), [("co2", 500.0), ("temperature", 25.0), ("humidity", 37.0)]);
        assert_eq!(convert([0, 0x6667, 0x5eb9]).expect_err("no air has none").code, FaultCode::Impossible);
        assert_eq!(convert([0xffff; 3]).expect_err("a stuck line").code, FaultCode::Impossible);
    }

    /// The examples of set_temperature_offset (5.4 °C) and set_sensor_altitude (1,950 m), 3.6.1 and 3.6.3.
    #[test]
    fn settings_are_sent_as_in_the_data_sheets_examples() {
        let settings = Settings { temperature_offset: Some(5.4), altitude: Some(1_950), ..settings() };
        let sent: Vec<u16> = arguments(&settings).iter().map(|(_, argument)| *argument).collect();
        assert_eq!(sent, [0x07e6, 0x079e]);
        assert_eq!([sensirion::packed(0x07e6)[2], sensirion::packed(0x079e)[2]], [0x48, 0x09]);
    }

    #[test]
    fn a_measurement_is_waited_for_and_read_once() {
        let exchanges: [testing::Exchange; 6] = [
            (&[0xe4, 0xb8], &[]),
            (&[], &[0x80, 0x00, 0xa2]),
            (&[0xe4, 0xb8], &[]),
            (&[], &[0x80, 0x06, 0x04]),
            (&[0xec, 0x05], &[]),
            (&[], &[0x01, 0xf4, 0x33, 0x66, 0x67, 0xa2, 0x5e, 0xb9, 0x3c]),
        ];
        let mut chip = Scd4x { chip: testing::chip(0x62, &exchanges), measuring: Measuring::Periodic };
        assert_eq!(numbers(&chip.sample().expect("samples"))[0], ("co2", 500.0));
    }

    /// Left measuring by a program before, the chip takes no settings until it is stopped.
    #[test]
    fn the_simulated_chip_is_read_with_every_setting() {
        let machine = testing::sim();
        let mut before = settings().place.chip(&machine).expect("a bus");
        command(&mut before, &START_LOW_POWER).expect("acknowledged");
        let keys = "pressure = 1011\ntemperature_offset = 4\nself_calibration = false\nmeasuring = \"single-shot\"";
        let samples = testing::open(&DRIVER, keys, &machine).expect("a chip").sample().expect("samples");
        let [(_, co2), (_, temperature), (_, humidity)] = numbers(&samples)[..] else { panic!("{samples:?}") };
        assert!((400.0..1_300.0).contains(&co2), "{co2}");
        assert!((15.0..26.0).contains(&temperature) && (35.0..60.0).contains(&humidity), "{samples:?}");
    }

    proptest! {
        #[test]
        fn every_answer_is_values_in_range_or_a_fault(words: [u16; 3]) {
            testing::check_range(convert(words), &[CO2, TEMPERATURE, HUMIDITY]);
        }
    }
}
