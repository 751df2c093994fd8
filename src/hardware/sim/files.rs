//! Simulated files of the kernel's own drivers: two DS18B20 on 1-Wire, a DHT22 in IIO, an LM75 and the processor's
//! temperature in hwmon.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::world;
use crate::clock::Clock;
use crate::hardware::KernelFiles;

/// The files of the simulated machine; their contents follow from seed and time.
pub(super) struct SimFiles {
    clock: Arc<dyn Clock>,
    seed: u64,
}

/// A file, and what it holds.
type SimFile = (&'static str, fn(&SimFiles) -> String);

/// All files that there are, as Documentation/w1, Documentation/ABI/testing/sysfs-bus-iio and
/// Documentation/hwmon/sysfs-interface.rst have them.
const FILES: &[SimFile] = &[
    ("/sys/bus/w1/devices/w1_bus_master1/w1_master_slave_count", |_| "2\n".to_owned()),
    ("/sys/bus/w1/devices/28-000005e2fdc3/w1_slave", |files| ds18b20(files.degrees() + 30.0)),
    ("/sys/bus/w1/devices/28-0114503d4aff/w1_slave", |files| ds18b20(files.degrees() - 2.0)),
    ("/sys/bus/iio/devices/iio:device0/name", |_| "dht11@4\n".to_owned()),
    ("/sys/bus/iio/devices/iio:device0/in_temp_input", |files| tenths(files.degrees())),
    ("/sys/bus/iio/devices/iio:device0/in_humidityrelative_input", |files| tenths(files.air().humidity)),
    ("/sys/bus/platform/devices/dht11@4/iio:device0/name", |_| "dht11@4\n".to_owned()),
    ("/sys/class/hwmon/hwmon0/name", |_| "cpu_thermal\n".to_owned()),
    ("/sys/class/hwmon/hwmon0/temp1_input", |files| format!("{:.0}\n", files.degrees() * 1000.0 + 25_000.0)),
    ("/sys/class/hwmon/hwmon1/name", |_| "lm75\n".to_owned()),
    // Steps of half a degree.
    ("/sys/class/hwmon/hwmon1/temp1_input", |files| format!("{:.0}\n", (files.degrees() * 2.0).round() * 500.0)),
    ("/sys/class/hwmon/hwmon1/temp1_max", |_| "80000\n".to_owned()),
    ("/sys/bus/i2c/devices/1-004f/name", |_| "lm75\n".to_owned()),
    ("/sys/bus/i2c/devices/1-004f/driver/bind", |_| String::new()),
    ("/sys/bus/i2c/devices/1-004f/hwmon/hwmon1/name", |_| "lm75\n".to_owned()),
];

impl SimFiles {
    pub(super) fn new(clock: Arc<dyn Clock>, seed: u64) -> Self {
        Self { clock, seed }
    }

    fn air(&self) -> world::Air {
        world::air(self.seed, self.clock.boot())
    }

    fn degrees(&self) -> f64 {
        self.air().temperature
    }
}

/// Thousandths, in steps of 100, as a DHT22 measures.
fn tenths(value: f64) -> String {
    format!("{:.0}\n", (value * 10.0).round() * 100.0)
}

/// What `w1_slave` shows of a DS18B20 that has measured this, with 12 bits.
fn ds18b20(degrees: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "held to what the chip can measure")]
    let register = (degrees.clamp(-55.0, 125.0) * 16.0).round() as i16;
    let [low, high] = register.to_le_bytes();
    // Alarms at 75 and 70 °C, and COUNT_REMAIN and COUNT_PER_C as these chips have them after a measurement.
    let bytes = [low, high, 0x4b, 0x46, 0x7f, 0xff, 0x10 - (low & 0x0f), 0x10];
    let crc = crc8(&bytes);
    let hexadecimal: String = bytes.iter().chain([&crc]).map(|byte| format!("{byte:02x} ")).collect();
    format!("{hexadecimal}: crc={crc:02x} YES\n{hexadecimal}t={}\n", i32::from(register) * 1000 / 16)
}

/// The checksum of 1-Wire: x⁸ + x⁵ + x⁴ + 1, lowest bit first (DS18B20 data sheet, "CRC generation").
fn crc8(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc: u8, _| if crc & 1 == 1 { crc >> 1 ^ 0x8c } else { crc >> 1 })
    })
}

impl KernelFiles for SimFiles {
    fn read(&self, path: &Path) -> io::Result<String> {
        let file = FILES.iter().find(|(name, _)| Path::new(name) == path);
        file.map(|(_, content)| content(self)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let inside = FILES.iter().filter_map(|(name, _)| Path::new(name).strip_prefix(folder).ok());
        let names: BTreeSet<String> =
            inside.filter_map(|rest| Some(rest.iter().next()?.to_str()?.to_owned())).collect();
        if names.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(names.into_iter().collect()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thermometers_file_is_as_the_kernel_writes_it() {
        // The bytes after power-on have this checksum in every log of these chips.
        assert_eq!(crc8(&[0x50, 0x05, 0x4b, 0x46, 0x7f, 0xff, 0x0c, 0x10]), 0x1c);
        let text = ds18b20(-0.5);
        assert!(text.starts_with("f8 ff 4b 46 7f ff 08 10 ") && text.ends_with("t=-500\n"), "{text}");
    }
}
