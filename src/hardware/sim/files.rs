//! Simulated files of the kernel's own drivers: two DS18B20 on 1-Wire, a DHT22 in IIO, an LM75 and the processor's
//! temperature in hwmon.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::fault::{Kind, Script, TRANSFER_TIMEOUT};
use super::world;
use crate::clock::Clock;
use crate::hardware::KernelFiles;

/// The files of the simulated machine; their contents follow from seed and time.
pub(super) struct SimFiles {
    clock: Arc<dyn Clock>,
    seed: u64,
    script: Arc<Script>,
}

/// A device that a driver of the kernel's reads. What the kernel says of a broken one:
///
/// | | 1-Wire (w1_therm, Linux 6.1) | IIO (dht11) | hwmon (lm75) |
/// |---|---|---|---|
/// | no acknowledge | nothing in `w1_slave`, ENODEV in hwmon | ETIMEDOUT after a second | EREMOTEIO |
/// | a wire that is held low | zeros, whose checksum is right | ETIMEDOUT after a second | ETIMEDOUT after a second |
/// | a hang | the read does not return | the same | the same |
/// | garbage | nothing in `w1_slave`, EIO in hwmon: the checksum was wrong in each try | EIO: its checksum is wrong | a random temperature: it has no checksum |
/// | unplugged | its folders are gone | the same | the same |
#[derive(Debug, PartialEq, Eq)]
pub struct KernelDevice {
    class: Class,
    /// As the driver is told it: by `id`, `device` or `chip`.
    name: &'static str,
    /// Where its files are.
    folders: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    W1,
    Iio,
    Hwmon,
}

/// All that there are.
static DEVICES: [KernelDevice; 5] = [
    KernelDevice {
        class: Class::W1,
        name: "28-000005e2fdc3",
        folders: &["/sys/bus/w1/devices/28-000005e2fdc3", "/sys/class/hwmon/hwmon2"],
    },
    KernelDevice {
        class: Class::W1,
        name: "28-0114503d4aff",
        folders: &["/sys/bus/w1/devices/28-0114503d4aff", "/sys/class/hwmon/hwmon3"],
    },
    KernelDevice {
        class: Class::Iio,
        name: "dht11@4",
        folders: &["/sys/bus/iio/devices/iio:device0", "/sys/bus/platform/devices/dht11@4"],
    },
    KernelDevice { class: Class::Hwmon, name: "cpu_thermal", folders: &["/sys/class/hwmon/hwmon0"] },
    KernelDevice {
        class: Class::Hwmon,
        name: "lm75",
        folders: &["/sys/class/hwmon/hwmon1", "/sys/bus/i2c/devices/1-004f"],
    },
];

impl KernelDevice {
    /// The device of a class (`w1`, `iio`, `hwmon`) and name.
    #[must_use]
    pub fn find(class: &str, name: &str) -> Option<&'static Self> {
        DEVICES.iter().find(|device| device.class.word() == class && device.name == name)
    }

    /// The device whose file that is.
    fn of(path: &Path) -> Option<&'static Self> {
        DEVICES.iter().find(|device| device.folders.iter().any(|folder| path.starts_with(folder)))
    }
}

impl Class {
    const fn word(self) -> &'static str {
        match self {
            Self::W1 => "w1",
            Self::Iio => "iio",
            Self::Hwmon => "hwmon",
        }
    }
}

impl fmt::Display for KernelDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in the kernel's {}", self.name, self.class.word())
    }
}

/// A file, and what it holds.
type SimFile = (&'static str, fn(&SimFiles) -> String);

/// All files that there are, as Documentation/w1, Documentation/ABI/testing/sysfs-bus-iio and
/// Documentation/hwmon/sysfs-interface.rst have them.
const FILES: &[SimFile] = &[
    ("/sys/bus/w1/devices/w1_bus_master1/w1_master_slave_count", |_| "2\n".to_owned()),
    ("/sys/bus/w1/devices/28-000005e2fdc3/w1_slave", |files| ds18b20(files.boiler())),
    ("/sys/bus/w1/devices/28-000005e2fdc3/hwmon/hwmon2/temp1_input", |files| thousandths(files.boiler())),
    ("/sys/bus/w1/devices/28-0114503d4aff/w1_slave", |files| ds18b20(files.cellar())),
    ("/sys/bus/w1/devices/28-0114503d4aff/hwmon/hwmon3/temp1_input", |files| thousandths(files.cellar())),
    ("/sys/bus/iio/devices/iio:device0/name", |_| "dht11@4\n".to_owned()),
    ("/sys/bus/iio/devices/iio:device0/in_temp_input", |files| tenths(files.degrees())),
    ("/sys/bus/iio/devices/iio:device0/in_humidityrelative_input", |files| tenths(files.air().humidity)),
    ("/sys/bus/platform/devices/dht11@4/iio:device0/name", |_| "dht11@4\n".to_owned()),
    ("/sys/class/hwmon/hwmon0/name", |_| "cpu_thermal\n".to_owned()),
    ("/sys/class/hwmon/hwmon0/temp1_input", |files| thousandths(files.degrees() + 25.0)),
    ("/sys/class/hwmon/hwmon1/name", |_| "lm75\n".to_owned()),
    // Steps of half a degree.
    ("/sys/class/hwmon/hwmon1/temp1_input", |files| thousandths((files.degrees() * 2.0).round() / 2.0)),
    ("/sys/class/hwmon/hwmon1/temp1_max", |_| "80000\n".to_owned()),
    ("/sys/class/hwmon/hwmon2/name", |_| "w1_slave_temp\n".to_owned()),
    ("/sys/class/hwmon/hwmon2/temp1_input", |files| thousandths(files.boiler())),
    ("/sys/class/hwmon/hwmon3/name", |_| "w1_slave_temp\n".to_owned()),
    ("/sys/class/hwmon/hwmon3/temp1_input", |files| thousandths(files.cellar())),
    ("/sys/bus/i2c/devices/1-004f/name", |_| "lm75\n".to_owned()),
    ("/sys/bus/i2c/devices/1-004f/driver/bind", |_| String::new()),
    ("/sys/bus/i2c/devices/1-004f/hwmon/hwmon1/name", |_| "lm75\n".to_owned()),
];

impl SimFiles {
    pub(super) fn new(clock: Arc<dyn Clock>, seed: u64, script: Arc<Script>) -> Self {
        Self { clock, seed, script }
    }

    fn air(&self) -> world::Air {
        world::air(self.seed, self.clock.boot())
    }

    fn degrees(&self) -> f64 {
        self.air().temperature
    }

    fn boiler(&self) -> f64 {
        self.degrees() + 30.0
    }

    fn cellar(&self) -> f64 {
        self.degrees() - 2.0
    }

    /// What is wrong now with the device that has that file or folder.
    fn fault(&self, path: &Path) -> Option<(&'static KernelDevice, usize, Kind)> {
        let device = KernelDevice::of(path)?;
        self.script.kernel_device(device).map(|(index, kind)| (device, index, kind))
    }

    fn is_unplugged(&self, path: &Path) -> bool {
        matches!(self.fault(path), Some((_, _, Kind::Unplug)))
    }

    /// What the kernel gives as a measurement of a device that is broken in that way.
    fn broken(&self, class: Class, path: &Path, kind: Kind) -> io::Result<String> {
        let error = |number| Err(io::Error::from_raw_os_error(number));
        match (class, kind) {
            (Class::W1, Kind::Timeout) if is_w1_slave(path) => Ok(w1_slave([0; 9], 0)),
            (Class::W1, Kind::Timeout) => Ok(thousandths(0.0)),
            (Class::W1, _) if is_w1_slave(path) => Ok(String::new()),
            (Class::W1, Kind::Nak) => error(libc::ENODEV),
            (Class::Iio, Kind::Nak) | (Class::Iio | Class::Hwmon, Kind::Timeout) => {
                std::thread::sleep(TRANSFER_TIMEOUT);
                error(libc::ETIMEDOUT)
            }
            (Class::Hwmon, Kind::Nak) => error(libc::EREMOTEIO),
            (Class::Hwmon, Kind::Garbage) => {
                let mut register = [0; 2];
                self.script.garble(self.seed, kind, &mut register);
                // Nine bits, in half degrees.
                Ok(thousandths(f64::from(i16::from_be_bytes(register) >> 7) / 2.0))
            }
            _ => error(libc::EIO),
        }
    }
}

/// Is what that file gives measured when it is read?
fn is_measured(path: &Path) -> bool {
    is_w1_slave(path) || path.to_str().is_some_and(|path| path.ends_with("_input"))
}

fn is_w1_slave(path: &Path) -> bool {
    path.ends_with("w1_slave")
}

fn thousandths(value: f64) -> String {
    format!("{:.0}\n", value * 1000.0)
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
    let [a, b, c, d, e, f, g, h] = bytes;
    w1_slave([a, b, c, d, e, f, g, h, crc8(&bytes)], i32::from(register) * 1000 / 16)
}

/// The kernel's text of nine bytes whose checksum is right, with what it makes of them.
fn w1_slave(bytes: [u8; 9], thousandths: i32) -> String {
    let hexadecimal: String = bytes.iter().map(|byte| format!("{byte:02x} ")).collect();
    format!("{hexadecimal}: crc={:02x} YES\n{hexadecimal}t={thousandths}\n", bytes[8])
}

/// The checksum of 1-Wire: x⁸ + x⁵ + x⁴ + 1, lowest bit first (DS18B20 data sheet, "CRC generation").
fn crc8(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc: u8, _| if crc & 1 == 1 { crc >> 1 ^ 0x8c } else { crc >> 1 })
    })
}

impl KernelFiles for SimFiles {
    fn read(&self, path: &Path) -> io::Result<String> {
        let missing = || io::ErrorKind::NotFound.into();
        let (_, content) = FILES.iter().find(|(name, _)| Path::new(name) == path).ok_or_else(missing)?;
        match self.fault(path) {
            Some((_, _, Kind::Unplug)) => Err(missing()),
            Some((_, index, Kind::Hang)) if is_measured(path) => {
                self.script.wait_out(index);
                Ok(content(self))
            }
            Some((device, _, kind)) if is_measured(path) => self.broken(device.class, path, kind),
            _ => Ok(content(self)),
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let there = FILES.iter().map(|(name, _)| Path::new(name)).filter(|path| !self.is_unplugged(path));
        let inside = there.filter_map(|path| path.strip_prefix(folder).ok());
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
