//! Thermometers on 1-Wire through the kernel: DS18B20 and its family.
//!
//! Reads `w1_slave` (Documentation/w1/slaves/w1_therm.rst) rather than `temperature`: it has the chip's nine bytes and
//! whether their checksum is right, and only the bytes tell a measured 85 °C from the one that a chip holds after
//! power-on. Data sheets: DS18B20 (19-7487), DS18S20 (19-5474), MAX31850 (19-6143). Does not set resolutions or alarms.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::support::kernel;
use super::{Claim, Connection, Driver, Open, OptionInfo, Parsed, Poller, QuantityInfo, Source};
use crate::hardware::{Hardware, KernelFiles};
use crate::options::Options;
use crate::reading::{Fault, FaultCode, Kind, Sample, Value};

const TEMPERATURE: &str = "temperature";

pub(crate) static DRIVER: Driver = Driver {
    name: "w1",
    summary: "DS18B20 and its family on 1-Wire: temperature",
    notes: "\
Wiring: VDD to 3V3, GND, DQ to GPIO4, and one resistor of 4.7 kΩ from DQ to 3V3 for the whole bus. Switch 1-Wire on with
`sudo raspi-config nonint do_onewire 0`, or put `dtoverlay=w1-gpio` (another pin: `dtoverlay=w1-gpio,gpiopin=17`) into
/boot/firmware/config.txt, and restart. `vigie scan` lists the chips with their ids. No rights are needed.

Also reads DS18S20 (ids with `10-`), DS1822 (`22-`), DS1825 and MAX31850 (`3b-`) and DS28EA00 (`42-`). Each chip is a
sensor of its own: the kernel lets those with a supply measure at the same time, 0.75 s each; those that live on the data
line alone (parasite power) take turns, so that many of them want a longer `deadline` than 5 s. The kernel notices new
chips by itself, and those that are gone within some minutes.

A wrong checksum is the fault `crc`; with several chips on a bus, one that was unplugged has that, too, until the kernel
notices and it is `missing`. The 85 °C that a chip holds after power-on is the fault `bad-data`; a measured 85 °C
is a value. (A DS18S20, and copies of the chips, hold the same bytes in both cases: there, exactly 85.00 °C is a fault.)",
    sample: r#"[[sensor]]
name = "boiler"
driver = "w1"
id = "28-000005e2fdc3"
every = "30s"
"#,
    connection: Connection::Own,
    options: &[OptionInfo {
        name: "id",
        values: "family and number of the chip, such as `\"28-000005e2fdc3\"`",
        default: Some("the only chip there is"),
        help: "Which chip, by the name of its folder in /sys/bus/w1/devices.",
    }],
    quantities: &[QuantityInfo {
        name: TEMPERATURE,
        unit: Some("°C"),
        kind: Kind::Number,
        help: "-55 to 125 °C, ± 0.5 °C from -10 to 85 °C; MAX31850: -270 to 1768 °C.",
    }],
    parse,
};

/// Where the kernel has a folder for each chip.
const FOLDER: &str = "/sys/bus/w1/devices";

/// What the folders of the buses themselves begin with.
const MASTER: &str = "w1_bus_master";

/// What to do where the kernel has no 1-Wire bus.
const NO_BUS: &str = "enable 1-Wire on GPIO4 with `sudo raspi-config nonint do_onewire 0`, or with \
                                 `dtoverlay=w1-gpio` in /boot/firmware/config.txt, and restart";

/// The chips that the kernel's w1_therm reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Ds18s20,
    /// DS18B20, and those that have the same bytes: DS1822, DS28EA00.
    Ds18b20,
    /// DS1825 and MAX31850, which one bit tells apart.
    Ds1825,
}

/// The family of a chip by its id: two hexadecimal digits, a dash, and twelve.
fn family(id: &str) -> Option<Family> {
    let (family, number) = id.split_once('-')?;
    let hexadecimal = number.len() == 12 && number.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match family {
        _ if !hexadecimal => None,
        "10" => Some(Family::Ds18s20),
        "22" | "28" | "42" => Some(Family::Ds18b20),
        "3b" => Some(Family::Ds1825),
        _ => None,
    }
}

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let id = options.optional::<String>("id").map(|id| id.to_lowercase());
    if let Some(id) = &id
        && family(id).is_none()
    {
        options.problem(
            "id",
            format!("`id` of {} is not that of a thermometer", options.what()),
            Some(
                "expected one that begins with 10-, 22-, 28-, 3b- or 42-, such as \"28-000005e2fdc3\"; `vigie scan` \
                 lists them"
                    .to_owned(),
            ),
        );
        return None;
    }
    let claims = id.iter().cloned().map(Claim::OneWire).collect();
    Some(Parsed { claims, source: Source::Poller(Arc::new(Settings { id })) })
}

struct Settings {
    id: Option<String>,
}

impl Open for Settings {
    fn open(&self, hardware: &dyn Hardware) -> Result<Box<dyn Poller>, Fault> {
        Ok(Box::new(Thermometer::open(hardware.files(), self.id.as_deref())?))
    }
}

struct Thermometer {
    files: Arc<dyn KernelFiles>,
    folder: PathBuf,
    id: String,
    family: Family,
}

/// The ids of all chips that the kernel has found on 1-Wire.
///
/// # Errors
/// There is no 1-Wire bus.
pub(crate) fn chips(files: &dyn KernelFiles) -> Result<Vec<String>, Fault> {
    let names = files.list(Path::new(FOLDER)).unwrap_or_default();
    if !names.iter().any(|name| name.starts_with(MASTER)) {
        return Err(Fault::new(FaultCode::Missing, format!("the kernel has no 1-Wire bus: {NO_BUS}")));
    }
    Ok(names.into_iter().filter(|name| !name.starts_with(MASTER)).take(kernel::MAX_DEVICES).collect())
}

/// Is that the id of a chip that this driver reads?
pub(crate) fn is_thermometer(id: &str) -> bool {
    family(id).is_some()
}

impl Thermometer {
    fn open(files: Arc<dyn KernelFiles>, wanted: Option<&str>) -> Result<Self, Fault> {
        let mut there = chips(&*files)?;
        there.retain(|id| is_thermometer(id));
        let list = || if there.is_empty() { "none".to_owned() } else { there.join(", ") };
        let missing = |detail: String| Err(Fault::new(FaultCode::Missing, detail));
        let id = match (wanted, there.as_slice()) {
            (Some(id), _) if there.iter().any(|other| other == id) => id,
            (None, [only]) => only,
            (Some(id), _) => {
                return missing(format!(
                    "no thermometer {id} on 1-Wire (there: {}): check its wiring and the bus's resistor of 4.7 kΩ",
                    list()
                ));
            }
            (None, []) => {
                return missing(
                    "no thermometer on 1-Wire: check its wiring and the bus's resistor of 4.7 kΩ".to_owned(),
                );
            }
            (None, _) => return missing(format!("several thermometers on 1-Wire, and no `id` says which: {}", list())),
        };
        let family = family(id).expect("only thermometers are listed, and `id` was checked");
        Ok(Self { folder: Path::new(FOLDER).join(id), id: id.to_owned(), family, files })
    }
}

impl Poller for Thermometer {
    fn sample(&mut self) -> Result<Vec<Sample>, Fault> {
        let text = kernel::read(&*self.files, &self.folder.join("w1_slave"))?;
        let bytes = if text.is_empty() { Err(self.silence()) } else { scratchpad(&text) };
        let number = bytes.and_then(|bytes| temperature(self.family, &bytes));
        let number =
            number.map_err(|fault| Fault::new(fault.code, format!("the chip {}: {}", self.id, fault.detail)))?;
        Ok(vec![Sample::new(TEMPERATURE, Value::number(number).expect("made of a few bytes, so finite"))])
    }
}

impl Thermometer {
    /// Why `w1_slave` is empty. So w1_therm (Linux 6.1) shows any failure of its own, a wrong checksum that came five
    /// times among them; its file for hwmon, which measures anew, gives the error number.
    fn silence(&self) -> Fault {
        let hwmon = self.folder.join("hwmon");
        let nodes = self.files.list(&hwmon).unwrap_or_default();
        let error = nodes.first().and_then(|node| self.files.read(&hwmon.join(node).join("temp1_input")).err());
        let (code, detail) = match error.and_then(|error| error.raw_os_error()) {
            Some(libc::EIO) => (
                FaultCode::Crc,
                "what is read never has the right checksum: noise, a long cable; or it was unplugged, and others on its \
                 bus were not",
            ),
            Some(libc::ENODEV) => (
                FaultCode::Missing,
                "nobody on its bus answers: unplugged, or without a supply (is there a resistor of 4.7 kΩ?)",
            ),
            _ => (FaultCode::Bus, "gives nothing: unplugged, or badly wired (is there a resistor of 4.7 kΩ?)"),
        };
        Fault::new(code, detail)
    }
}

/// The nine bytes that the chip sent, from the text of `w1_slave`: two lines, of which the first has what was read
/// now (`50 05 4b 46 7f ff 0c 10 1c : crc=1c YES`), and the second what was last read without an error.
fn scratchpad(text: &str) -> Result<[u8; 9], Fault> {
    let line = text.lines().next().unwrap_or_default();
    let strange = || {
        let shown: String = line.chars().take(60).collect();
        Fault::new(FaultCode::BadData, format!("its file is not as the kernel writes it: {shown:?}"))
    };
    let (hexadecimal, verdict) = line.split_once(':').ok_or_else(strange)?;
    let mut bytes = [0; 9];
    let mut words = hexadecimal.split_whitespace();
    for byte in &mut bytes {
        let word = words.next().filter(|word| word.len() == 2).ok_or_else(strange)?;
        *byte = u8::from_str_radix(word, 16).map_err(|_| strange())?;
    }
    let right = match verdict.split_whitespace().last() {
        Some("YES") => true,
        Some("NO") => false,
        _ => return Err(strange()),
    };
    if words.next().is_some() {
        return Err(strange());
    }
    if bytes == [0xff; 9] {
        let detail = "does not answer: unplugged, or without a supply";
        return Err(Fault::new(FaultCode::Missing, detail));
    }
    // Nine zeros have a right checksum.
    if bytes == [0; 9] {
        return Err(Fault::new(FaultCode::Bus, "sends only zeros: the data line is shorted to ground"));
    }
    if !right {
        let detail = format!("what was read does not have the right checksum ({hexadecimal}: noise, or a long cable)");
        return Err(Fault::new(FaultCode::Crc, detail));
    }
    Ok(bytes)
}

/// °C from the nine bytes.
fn temperature(family: Family, bytes: &[u8; 9]) -> Result<f64, Fault> {
    let [low, high, internal_low, _, configuration, _, remain, per_degree, _] = *bytes;
    let register = i16::from_le_bytes([low, high]);
    let thermocouple = family == Family::Ds1825 && configuration & MAX31850 != 0;
    if thermocouple {
        return thermocouple_temperature(register, internal_low);
    }
    // Byte 6 holds 0x0c from power-on until the first measurement, which leaves 0x10 minus the low digit there: for a
    // measured 85.0 °C 0x10 (w1_therm's W1_THERM_CHECK_RESULT). A DS18S20 counts there, which may come out the same.
    let unmeasured = remain == POWER_ON_REMAIN;
    match (family, register) {
        (Family::Ds18s20, POWER_ON_DS18S20) | (Family::Ds18b20 | Family::Ds1825, POWER_ON) if unmeasured => {
            return Err(Fault::new(
                FaultCode::BadData,
                "it holds the 85 °C of its power-on: it was reset before it had measured (is its supply weak?)",
            ));
        }
        (Family::Ds18b20 | Family::Ds1825, NO_POWER) if unmeasured => {
            return Err(Fault::new(
                FaultCode::BadData,
                "it could not measure: its supply on the data line is too weak",
            ));
        }
        _ => {}
    }
    let degrees = match family {
        Family::Ds18b20 | Family::Ds1825 => f64::from(register) / 16.0,
        // TEMP_READ without its half degree, - 0.25 + (COUNT_PER_C - COUNT_REMAIN) / COUNT_PER_C (DS18S20, p. 6).
        Family::Ds18s20 if per_degree != 0 => {
            let per_degree = f64::from(per_degree);
            f64::from(register >> 1) - 0.25 + (per_degree - f64::from(remain)) / per_degree
        }
        Family::Ds18s20 => return Err(Fault::new(FaultCode::BadData, "its COUNT_PER_C is 0")),
    };
    in_range(degrees, -55.0, 125.0)
}

/// Bit 7 of a DS1825's configuration is 1 on a MAX31850.
const MAX31850: u8 = 1 << 7;

/// The temperature's register and COUNT_REMAIN after power-on: 85 °C.
const POWER_ON: i16 = 0x0550;
const POWER_ON_DS18S20: i16 = 0x00aa;
const POWER_ON_REMAIN: u8 = 0x0c;

/// What the register holds where a chip without a supply of its own could not measure: 127.94 °C.
const NO_POWER: i16 = 0x07ff;

/// °C of a MAX31850's thermocouple, from its register (bit 0: a fault, bit 1: reserved) and the low byte of its own
/// temperature, which says which fault.
fn thermocouple_temperature(register: i16, internal_low: u8) -> Result<f64, Fault> {
    if register & 1 != 0 {
        let what = match internal_low & 0b111 {
            0b001 => "its thermocouple is open",
            0b010 => "its thermocouple is shorted to ground",
            0b100 => "its thermocouple is shorted to the supply",
            _ => "its thermocouple has a fault",
        };
        return Err(Fault::new(FaultCode::Impossible, what));
    }
    in_range(f64::from(register & !0b11) / 16.0, -270.0, 1768.0)
}

fn in_range(degrees: f64, min: f64, max: f64) -> Result<f64, Fault> {
    if (min..=max).contains(&degrees) {
        return Ok(degrees);
    }
    let detail = format!("{degrees} °C is outside of what it can measure ({min} to {max} °C)");
    Err(Fault::new(FaultCode::Impossible, detail))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::drivers::support::kernel::scripted::Files;

    fn measured(family: Family, hexadecimal: &str) -> Result<f64, FaultCode> {
        let text = format!("{hexadecimal} : crc=00 YES\n{hexadecimal} t=0\n");
        scratchpad(&text).and_then(|bytes| temperature(family, &bytes)).map_err(|fault| fault.code)
    }

    #[test]
    fn the_data_sheets_table_comes_out() {
        // DS18B20, table 1: temperature and data.
        for (register, degrees) in [
            ("d0 07", 125.0),
            ("50 05", 85.0),
            ("91 01", 25.0625),
            ("a2 00", 10.125),
            ("08 00", 0.5),
            ("00 00", 0.0),
            ("f8 ff", -0.5),
            ("5e ff", -10.125),
            ("6f fe", -25.0625),
            ("90 fc", -55.0),
        ] {
            let bytes = format!("{register} 4b 46 7f ff 10 10 00");
            assert_eq!(measured(Family::Ds18b20, &bytes), Ok(degrees), "{register}");
        }
        // DS18S20, table 2, in half degrees, and the finer result from its two counters.
        assert_eq!(measured(Family::Ds18s20, "32 00 4b 46 ff ff 04 10 00"), Ok(25.5));
        assert_eq!(measured(Family::Ds18s20, "ce ff 4b 46 ff ff 0c 10 00"), Ok(-25.0));
        assert_eq!(measured(Family::Ds18s20, "32 00 4b 46 ff ff 04 00 00"), Err(FaultCode::BadData));
    }

    #[test]
    fn a_measured_85_degrees_is_told_from_that_of_the_power_on() {
        assert_eq!(measured(Family::Ds18b20, "50 05 4b 46 7f ff 0c 10 1c"), Err(FaultCode::BadData));
        assert_eq!(measured(Family::Ds18b20, "50 05 4b 46 7f ff 10 10 00"), Ok(85.0));
        // 85.25 °C leaves 0x0c in byte 6.
        assert_eq!(measured(Family::Ds18b20, "54 05 4b 46 7f ff 0c 10 00"), Ok(85.25));
        assert_eq!(measured(Family::Ds18b20, "ff 07 4b 46 7f ff 0c 10 00"), Err(FaultCode::BadData));
        assert_eq!(measured(Family::Ds18s20, "aa 00 4b 46 ff ff 0c 10 87"), Err(FaultCode::BadData));
        assert_eq!(measured(Family::Ds18s20, "aa 00 4b 46 ff ff 0b 10 87"), Ok(85.0625));
    }

    #[test]
    fn a_thermocouple_has_other_ranges_and_tells_its_faults() {
        assert_eq!(measured(Family::Ds1825, "00 64 00 19 f0 ff ff ff 00"), Ok(1600.0));
        assert_eq!(measured(Family::Ds1825, "01 00 01 19 f0 ff ff ff 00"), Err(FaultCode::Impossible));
        assert_eq!(measured(Family::Ds1825, "91 01 4b 46 70 ff 10 10 00"), Ok(25.0625));
        let fault = thermocouple_temperature(1, 0b100).expect_err("a fault");
        assert!(fault.detail.contains("shorted to the supply"), "{fault}");
    }

    #[test]
    fn what_a_broken_bus_gives_is_no_value() {
        let code = |text: &str| scratchpad(text).expect_err("a fault").code;
        assert_eq!(code("91 01 4b 46 7f ff 0c 10 25 : crc=26 NO\n91 01 4b 46 7f ff 0c 10 25 t=25062"), FaultCode::Crc);
        assert_eq!(code("00 00 00 00 00 00 00 00 00 : crc=00 YES"), FaultCode::Bus);
        assert_eq!(code("ff ff ff ff ff ff ff ff ff : crc=c9 NO"), FaultCode::Missing);
        for strange in ["25062", "91 01 : crc=25 YES", "91 01 4b 46 7f ff 0c 10 25 aa : crc=25 YES", ":", "+1 01", ""] {
            assert_eq!(code(strange), FaultCode::BadData, "{strange}");
        }
        assert_eq!(measured(Family::Ds18b20, "00 7f 4b 46 7f ff 10 10 00"), Err(FaultCode::Impossible));
    }

    fn bus(ids: &[&str]) -> Arc<Files> {
        let files = Files::new(&[("/sys/bus/w1/devices/w1_bus_master1/w1_master_slave_count", "1")]);
        for id in ids {
            let text = "91 01 4b 46 7f ff 0f 10 25 : crc=25 YES\n91 01 4b 46 7f ff 0f 10 25 t=25062\n".to_owned();
            files.set(&format!("{FOLDER}/{id}/w1_slave"), [Ok(text)]);
        }
        Arc::new(files)
    }

    #[test]
    fn the_only_chip_needs_no_id_and_several_are_listed() {
        let open = |ids: &[&str], wanted| Thermometer::open(bus(ids), wanted).map(|chip| chip.id);
        assert_eq!(open(&["28-000005e2fdc3", "29-000000000001"], None).as_deref(), Ok("28-000005e2fdc3"));
        let fault = open(&["28-000005e2fdc3", "10-000802b4ba0e"], None).expect_err("which?");
        assert!(fault.detail.contains("10-000802b4ba0e, 28-000005e2fdc3"), "{fault}");
        let fault = open(&["28-000005e2fdc3"], Some("28-000000000000")).expect_err("not there");
        assert!(fault.code == FaultCode::Missing && fault.detail.contains("28-000005e2fdc3"), "{fault}");
        let fault = open(&[], None).expect_err("none");
        assert!(fault.detail.contains("4.7 kΩ"), "{fault}");
        let fault = Thermometer::open(Arc::new(Files::default()), None).err().expect("no bus");
        assert!(fault.detail.contains("dtoverlay=w1-gpio") && fault.detail.contains("raspi-config"), "{fault}");
    }

    #[test]
    fn a_chip_that_is_pulled_is_missing_and_comes_back_by_itself() {
        let files = bus(&["28-000005e2fdc3"]);
        let settings = || Thermometer::open(Arc::clone(&files) as Arc<dyn KernelFiles>, Some("28-000005e2fdc3"));
        let mut chip = settings().expect("there");
        assert_eq!(chip.sample().expect("a value")[0].value, Value::number(25.0625).expect("finite"));
        files.remove(&format!("{FOLDER}/28-000005e2fdc3"));
        assert_eq!(chip.sample().expect_err("pulled").code, FaultCode::Missing);
        assert_eq!(settings().err().expect("pulled").code, FaultCode::Missing);
        let text = "50 05 4b 46 7f ff 0c 10 1c : crc=1c YES\n";
        let good = "92 01 4b 46 7f ff 0e 10 25 : crc=25 YES\n";
        files.set(&format!("{FOLDER}/28-000005e2fdc3/w1_slave"), [Ok(text.to_owned()), Ok(good.to_owned())]);
        let mut chip = settings().expect("back");
        let fault = chip.sample().expect_err("its power-on value");
        assert!(fault.detail.contains("28-000005e2fdc3") && fault.detail.contains("85 °C"), "{fault}");
        assert_eq!(chip.sample().expect("a value")[0].value, Value::number(25.125).expect("finite"));
    }

    #[test]
    fn the_kernels_error_number_tells_why_its_file_is_empty() {
        let id = "28-000005e2fdc3";
        let files = bus(&[id]);
        files.set(&format!("{FOLDER}/{id}/w1_slave"), [Ok(String::new())]);
        let code = || {
            let mut chip = Thermometer::open(Arc::clone(&files) as Arc<dyn KernelFiles>, Some(id)).expect("there");
            let fault = chip.sample().expect_err("nothing");
            assert!(fault.detail.contains(id), "{fault}");
            fault.code
        };
        assert_eq!(code(), FaultCode::Bus, "a kernel without hwmon");
        for (content, expected) in [
            (Err(libc::EIO), FaultCode::Crc),
            (Err(libc::ENODEV), FaultCode::Missing),
            (Err(libc::EINTR), FaultCode::Bus),
            // It has worked in between, which says nothing of the first time.
            (Ok("25062\n".to_owned()), FaultCode::Bus),
        ] {
            files.set(&format!("{FOLDER}/{id}/hwmon/hwmon3/temp1_input"), [content]);
            assert_eq!(code(), expected);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_value_in_range_or_a_fault(text in any::<String>()) {
            let _ = scratchpad(&text);
        }

        #[test]
        fn any_bytes_are_a_value_in_range_or_a_fault(bytes in any::<[u8; 9]>(), right in any::<bool>()) {
            let hexadecimal: String = bytes.iter().map(|byte| format!("{byte:02x} ")).collect();
            let text = format!("{hexadecimal}: crc={:02x} {}\n", bytes[8], if right { "YES" } else { "NO" });
            match scratchpad(&text) {
                Ok(read) => {
                    prop_assert!(right);
                    prop_assert_eq!(read, bytes);
                    for family in [Family::Ds18s20, Family::Ds18b20, Family::Ds1825] {
                        if let Ok(degrees) = temperature(family, &read) {
                            prop_assert!((-270.0..=1768.0).contains(&degrees));
                        }
                    }
                }
                Err(fault) => prop_assert!(!right || bytes == [0; 9] || bytes == [0xff; 9], "{}", fault),
            }
        }
    }
}
