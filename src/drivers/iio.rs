//! Any chip that the kernel's industrial I/O has a driver for (Documentation/ABI/testing/sysfs-bus-iio).
//!
//! Reads single values (`in_*_input`, or `in_*_raw` with its offset and scale); no buffers and no triggers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::support::channels::{self, Channel};
use super::support::kernel::{self, Class};
use super::{Connection, Driver, Open, OptionInfo, Parsed, Poller, Source};
use crate::hardware::{Hardware, KernelFiles};
use crate::options::Options;
use crate::reading::{Fault, FaultCode, Sample, Value};

pub(crate) static DRIVER: Driver = Driver {
    name: "iio",
    summary: "Any chip that the kernel has an IIO driver for (DHT11, DHT22, BME280, ADS1115, MAX31855…)",
    notes: "\
The kernel measures, vigie reads. A line in /boot/firmware/config.txt and a restart give the kernel the chip; `vigie scan`
then shows it with its name, and `vigie once` its quantities:

| chip | line | `device` |
|---|---|---|
| DHT11, DHT22 (AM2302) at GPIO4 | `dtoverlay=dht11,gpiopin=4` | `\"dht11@4\"` |
| BME280 | `dtoverlay=i2c-sensor,bme280,addr=0x76` | `\"bme280\"` |
| ADS1115 | `dtoverlay=ads1115,addr=0x48`, with `cha_enable` and so on for its inputs | `\"ads1015\"` |
| MAX31855 with a type K thermocouple on SPI 0 | `dtoverlay=maxtherm,spi0-0,max31855k` | `\"maxim_thermocouple\"` |

`dtoverlay -h NAME` shows what an overlay takes. No rights are needed. A chip that the kernel has is closed to vigie's own
driver for it: use one or the other.

Quantities are named after the kernel's channels, with these units: `temperature` °C, `humidity` %, `pressure` hPa,
`voltage` V, `current` A, `power` W, `energy` J, `illuminance` lx, `resistance` Ω, `concentration` ppm, `massconcentration`
µg/m³, `acceleration` m/s², `anglvel` rad/s, `magn` G, `capacitance` nF, `distance` m and others as the kernel has them;
with the channel's number and kind behind (`voltage0`, `temperature_ambient`, `acceleration_x`), or by the channel's label
where it has one. A raw value for which the kernel gives no scale is published without a unit.

A DHT11 or DHT22 often fails to answer. A failed transfer is tried once more after 2 s (the pause that these chips need),
and only then is it the fault `bus`; the next `every` tries again. Give such a chip an `every` of 10 s or more.",
    sample: r#"[[sensor]]
name = "cave"
driver = "iio"
device = "dht11@4"
every = "30s"
"#,
    connection: Connection::Own,
    options: &[
        OptionInfo {
            name: "device",
            values: "name, label or folder of the device, or where it is: `\"i2c/1-0076\"`",
            default: None,
            help: "Which device, by its `name` or `label` in /sys/bus/iio/devices, or by its parent's bus and name.",
        },
        OptionInfo {
            name: channels::KEY,
            values: "list of names of quantities",
            default: Some("all"),
            help: "Which channels to read.",
        },
    ],
    quantities: &[],
    parse,
};

/// Where IIO devices are.
pub(crate) const CLASS: Class = Class {
    what: "IIO device",
    folder: "/sys/bus/iio/devices",
    prefix: "iio:device",
    below_parent: "",
    remedy: "`vigie drivers iio` has the lines for /boot/firmware/config.txt that give the kernel a chip",
};

/// What a type of channel is for people.
struct ChannelType {
    /// In the kernel's names.
    kernel: &'static str,
    /// In names of quantities.
    name: &'static str,
    unit: Option<&'static str>,
    /// One of our units in the kernel's.
    per_unit: f64,
}

const fn channel_type(
    kernel: &'static str,
    name: &'static str,
    unit: Option<&'static str>,
    per_unit: f64,
) -> ChannelType {
    ChannelType { kernel, name, unit, per_unit }
}

/// The kernel's units and ours. Types that are not here keep their names and have no unit.
const TYPES: &[ChannelType] = &[
    channel_type("accel", "acceleration", Some("m/s²"), 1.0),
    channel_type("altvoltage", "altvoltage", Some("V"), 1000.0),
    channel_type("angl", "angl", Some("rad"), 1.0),
    channel_type("anglvel", "anglvel", Some("rad/s"), 1.0),
    channel_type("capacitance", "capacitance", Some("nF"), 1.0),
    // Per cent.
    channel_type("concentration", "concentration", Some("ppm"), 0.0001),
    channel_type("current", "current", Some("A"), 1000.0),
    channel_type("distance", "distance", Some("m"), 1.0),
    channel_type("electricalconductivity", "electricalconductivity", Some("S/m"), 1.0),
    channel_type("energy", "energy", Some("J"), 1.0),
    channel_type("gravity", "gravity", Some("m/s²"), 1.0),
    channel_type("humidityrelative", "humidity", Some("%"), 1000.0),
    channel_type("illuminance", "illuminance", Some("lx"), 1.0),
    channel_type("incli", "incli", Some("°"), 1.0),
    channel_type("magn", "magn", Some("G"), 1.0),
    channel_type("massconcentration", "massconcentration", Some("µg/m³"), 1.0),
    channel_type("power", "power", Some("W"), 1000.0),
    // Kilopascals.
    channel_type("pressure", "pressure", Some("hPa"), 0.1),
    channel_type("resistance", "resistance", Some("Ω"), 1.0),
    channel_type("temp", "temperature", Some("°C"), 1000.0),
    channel_type("velocity", "velocity", Some("m/s"), 1.0),
    channel_type("voltage", "voltage", Some("V"), 1000.0),
];

/// Between a transfer that failed and the second try: a DHT22 needs 2 s between two measurements (AM2302 data sheet).
const RETRY_PAUSE: Duration = Duration::from_secs(2);

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let device = options.required::<String>("device");
    let channels = channels::parse(options);
    let device = device?;
    if !kernel::is_device_name(&device) {
        options.problem(
            "device",
            format!("`device` of {} cannot be the name of a device", options.what()),
            Some("expected a name such as \"bme280\", or a place such as \"i2c/1-0076\"".to_owned()),
        );
        return None;
    }
    let settings = Settings { device, channels: channels.ok()? };
    Some(Parsed { claims: vec![], source: Source::Poller(Arc::new(settings)) })
}

struct Settings {
    device: String,
    channels: Option<Vec<String>>,
}

impl Open for Settings {
    fn open(&self, hardware: &dyn Hardware) -> Result<Box<dyn Poller>, Fault> {
        Ok(Box::new(Iio::open(hardware.files(), self, RETRY_PAUSE)?))
    }
}

/// How a channel is read.
#[derive(Clone, Debug)]
struct How {
    path: PathBuf,
    /// Added to what is read, before the scale.
    offset: f64,
    scale: f64,
    unit: Option<&'static str>,
    per_unit: f64,
}

struct Iio {
    files: Arc<dyn KernelFiles>,
    channels: Vec<Channel<How>>,
    retry_pause: Duration,
}

impl Iio {
    fn open(files: Arc<dyn KernelFiles>, settings: &Settings, retry_pause: Duration) -> Result<Self, Fault> {
        let device = CLASS.find(&*files, &settings.device)?;
        let all = find_channels(&*files, &device.folder)?;
        let chosen = channels::choose(all, settings.channels.as_deref(), &format!("the IIO device `{}`", device.name))?;
        Ok(Self { files, channels: chosen, retry_pause })
    }

    fn value(&self, channel: &Channel<How>) -> Result<Sample, Fault> {
        let How { path, offset, scale, unit, per_unit } = &channel.how;
        let mut read = kernel::number(&*self.files, path);
        if read.as_ref().is_err_and(|fault| fault.code == FaultCode::Bus) {
            thread::sleep(self.retry_pause);
            read = kernel::number(&*self.files, path);
        }
        let number = converted(read?, *offset, *scale, *per_unit);
        let value = Value::number(number)
            .ok_or_else(|| Fault::new(FaultCode::Impossible, format!("{} is beyond all numbers", path.display())))?;
        Ok(Sample::new(channel.quantity.clone(), value).with_unit(*unit))
    }
}

impl Poller for Iio {
    fn sample(&mut self) -> Result<Vec<Sample>, Fault> {
        let several = self.channels.len() > 1;
        let read = |channel: &Channel<How>| {
            self.value(channel).map_err(|fault| channels::fault_of(&channel.kernel_name, several, &fault))
        };
        self.channels.iter().map(read).collect()
    }
}

/// A value in our unit, rounded to a millionth: what the kernel's texts are exact to.
fn converted(read: f64, offset: f64, scale: f64, per_unit: f64) -> f64 {
    let number = (read + offset) * scale / per_unit;
    let rounded = (number * 1e6).round() / 1e6;
    // Beyond that there are no such digits.
    if rounded.is_finite() { rounded } else { number }
}

/// The quantities that a device has.
pub(crate) fn quantities(files: &dyn KernelFiles, folder: &Path) -> Vec<String> {
    find_channels(files, folder).unwrap_or_default().into_iter().map(|channel| channel.quantity).collect()
}

/// The channels of a device, sorted by the kernel's names.
fn find_channels(files: &dyn KernelFiles, folder: &Path) -> Result<Vec<Channel<How>>, Fault> {
    let names = files.list(folder).unwrap_or_default();
    let mut found: BTreeMap<&str, bool> = BTreeMap::new();
    for (base, processed) in names.iter().filter_map(|name| value_file(name)) {
        // What the kernel has computed itself is preferred to a raw value.
        *found.entry(base).or_default() |= processed;
    }
    let has = |file: &str| names.iter().any(|name| name == file);
    let mut channels = Vec::new();
    let mut labels = Vec::new();
    for (base, processed) in found.into_iter().take(channels::MAX_CHANNELS) {
        let parts = Parts::of(base);
        let parameter = |what: &str| {
            let file = parts.parameter_files(base, what).into_iter().find(|file| has(file))?;
            Some(kernel::number(files, &folder.join(file)))
        };
        let (offset, scale) = if processed {
            (0.0, Some(1.0))
        } else {
            (parameter("offset").transpose()?.unwrap_or(0.0), parameter("scale").transpose()?)
        };
        let known = TYPES.iter().find(|known| known.kernel == parts.word);
        // Without a scale, what is read are the chip's own counts.
        let with_unit = known.filter(|_| scale.is_some());
        labels.push(channels::text(files, &folder.join(format!("in_{base}_label"))));
        channels.push(Channel {
            kernel_name: format!("in_{base}"),
            quantity: format!("{}{}", known.map_or(parts.word, |known| known.name), parts.rest),
            how: How {
                path: folder.join(format!("in_{base}_{}", if processed { "input" } else { "raw" })),
                offset,
                scale: scale.unwrap_or(1.0),
                unit: with_unit.and_then(|known| known.unit),
                per_unit: with_unit.map_or(1.0, |known| known.per_unit),
            },
        });
    }
    channels::name_by_labels(&mut channels, &labels);
    Ok(channels)
}

/// The channel that a file has the value of, and whether the kernel has computed it: `in_temp_input`, `in_voltage0_raw`.
fn value_file(name: &str) -> Option<(&str, bool)> {
    let name = name.strip_prefix("in_")?;
    let (base, processed) = match (name.strip_suffix("_input"), name.strip_suffix("_raw")) {
        (Some(base), _) => (base, true),
        (None, Some(base)) => (base, false),
        (None, None) => return None,
    };
    // Extremes since some time in the past are no measurements, and a quaternion is four numbers.
    let other = base.ends_with("_peak") || base.ends_with("_trough") || base.ends_with("quaternion");
    let letters = base.starts_with(|first: char| first.is_ascii_lowercase());
    let safe = base.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    (!other && letters && safe).then_some((base, processed))
}

/// A channel's name in parts: `voltage`, `0-voltage1`, `_supply`.
struct Parts<'a> {
    word: &'a str,
    /// All behind the word.
    rest: &'a str,
    index: &'a str,
    modifier: &'a str,
}

impl<'a> Parts<'a> {
    fn of(base: &'a str) -> Self {
        let end = base.find(|character: char| !character.is_ascii_lowercase()).unwrap_or(base.len());
        let (word, rest) = base.split_at(end);
        let (index, modifier) = rest.split_at(rest.find('_').unwrap_or(rest.len()));
        Self { word, rest, index, modifier }
    }

    /// Files that can have a channel's `scale` or `offset`, the channel's own first: several may share one.
    fn parameter_files(&self, base: &str, what: &str) -> Vec<String> {
        let Self { word, index, modifier, .. } = self;
        let without_digits: String = index.chars().filter(|character| !character.is_ascii_digit()).collect();
        vec![
            format!("in_{base}_{what}"),
            format!("in_{word}{index}_{what}"),
            format!("in_{word}{without_digits}{modifier}_{what}"),
            format!("in_{word}{without_digits}_{what}"),
            format!("in_{word}_{what}"),
            format!("in_{what}"),
            what.to_owned(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::borrow::Cow;

    use super::*;
    use crate::drivers::support::kernel::scripted::Files;

    const FOLDER: &str = "/sys/bus/iio/devices/iio:device0";

    fn device(name: &str, attributes: &[(&str, &str)]) -> Arc<Files> {
        let files = Files::new(&[(&format!("{FOLDER}/name"), name)]);
        for (attribute, text) in attributes {
            files.set(&format!("{FOLDER}/{attribute}"), [Ok(format!("{text}\n"))]);
        }
        Arc::new(files)
    }

    fn open(files: &Arc<Files>, channels: Option<&[&str]>) -> Result<Iio, Fault> {
        let channels = channels.map(|list| list.iter().map(ToString::to_string).collect());
        let settings = Settings { device: "iio:device0".to_owned(), channels };
        Iio::open(Arc::clone(files) as Arc<dyn KernelFiles>, &settings, Duration::ZERO)
    }

    fn samples(files: &Arc<Files>) -> Vec<(String, f64, Option<String>)> {
        let samples = open(files, None).expect("opens").sample().expect("samples");
        samples
            .into_iter()
            .map(|sample| {
                let Value::Number(number) = sample.value else { panic!("a number") };
                (sample.quantity.into_owned(), number.get(), sample.unit.map(Cow::into_owned))
            })
            .collect()
    }

    fn expected(list: &[(&str, f64, Option<&str>)]) -> Vec<(String, f64, Option<String>)> {
        list.iter().map(|(name, number, unit)| ((*name).to_owned(), *number, unit.map(str::to_owned))).collect()
    }

    #[test]
    fn what_the_kernel_has_computed_is_brought_to_our_units() {
        let bme280 = device(
            "bme280",
            &[
                ("in_temp_input", "21530"),
                ("in_humidityrelative_input", "40123"),
                ("in_pressure_input", "101.325000"),
                ("in_pressure_oversampling_ratio", "16"),
                ("in_temp_raw", "519888"),
                ("in_concentration_co2_input", "0.045"),
            ],
        );
        let found = expected(&[
            ("concentration_co2", 450.0, Some("ppm")),
            ("humidity", 40.123, Some("%")),
            ("pressure", 1013.25, Some("hPa")),
            ("temperature", 21.53, Some("°C")),
        ]);
        assert_eq!(samples(&bme280), found);
    }

    #[test]
    fn raw_values_take_the_nearest_offset_and_scale() {
        let chip = device(
            "chip",
            &[
                ("in_voltage0_raw", "1000"),
                ("in_voltage0_scale", "0.125"),
                ("in_voltage1_raw", "1000"),
                ("in_voltage_scale", "2"),
                ("in_voltage_offset", "-500"),
                ("in_voltage0-voltage1_raw", "-8"),
                ("in_voltage-voltage_scale", "0.5"),
                ("in_temp_ambient_raw", "400"),
                ("in_temp_ambient_scale", "62.500000"),
                ("in_temp_raw", "100"),
                ("in_temp_scale", "250"),
                ("in_accel_x_raw", "1024"),
                ("in_accel_scale", "0.009582"),
                ("in_intensity_both_raw", "77"),
                ("in_voltage7_raw", "0"),
                ("in_voltage7_label", "battery"),
            ],
        );
        let found = expected(&[
            ("acceleration_x", 9.811968, Some("m/s²")),
            ("intensity_both", 77.0, None),
            ("temperature", 25.0, Some("°C")),
            ("temperature_ambient", 25.0, Some("°C")),
            ("voltage0", 0.0625, Some("V")),
            ("voltage0-voltage1", -0.254, Some("V")),
            ("voltage1", 1.0, Some("V")),
            ("battery", -1.0, Some("V")),
        ]);
        assert_eq!(samples(&chip), found);
    }

    #[test]
    fn a_raw_value_without_a_scale_has_no_unit() {
        assert_eq!(samples(&device("adc", &[("in_voltage3_raw", "4095")])), expected(&[("voltage3", 4095.0, None)]));
    }

    #[test]
    fn a_failed_transfer_is_tried_once_more_and_told_the_second_time() {
        let files = device("dht11@4", &[("in_temp_input", "20000"), ("in_humidityrelative_input", "50000")]);
        let temperature = format!("{FOLDER}/in_temp_input");
        files.set(&temperature, [Err(libc::ETIMEDOUT), Ok("20000\n".to_owned())]);
        let mut sensor = open(&files, None).expect("opens");
        assert_eq!(sensor.sample().expect("the second try").len(), 2);
        files.set(&temperature, [Err(libc::EIO)]);
        let fault = sensor.sample().expect_err("twice in a row");
        assert_eq!(fault.code, FaultCode::Bus);
        assert!(fault.detail.contains("in_temp") && fault.detail.contains("`channels`"), "{fault}");
        assert_eq!(open(&files, Some(&["humidity"])).expect("opens").sample().expect("the other one").len(), 1);
        // An open thermocouple is no failed transfer.
        files.set(&temperature, [Err(libc::EINVAL), Ok("20000\n".to_owned())]);
        assert_eq!(sensor.sample().expect_err("no value").code, FaultCode::Impossible);
    }

    #[test]
    fn a_device_that_gives_nothing_and_a_channel_that_is_not_there_are_told() {
        let fault = open(&device("x", &[("in_voltage0_scale", "1")]), None).err().expect("nothing to read");
        assert!(fault.detail.contains("`x`"), "{fault}");
        let fault = open(&device("x", &[("in_temp_input", "1")]), Some(&["pressure"])).err().expect("not there");
        assert!(fault.detail.contains("`pressure`") && fault.detail.contains("it has: temperature"), "{fault}");
        let files = device("x", &[("in_temp_input", "NaN")]);
        let fault = open(&files, None).expect("opens").sample().expect_err("no number");
        assert_eq!(fault.code, FaultCode::BadData);
    }

    proptest! {
        #[test]
        fn any_file_names_and_texts_give_names_for_topics_and_finite_values(
            files in prop::collection::vec(("(in_)?[a-z]{0,8}[-_a-z0-9]{0,12}(_raw|_input|_scale|_label)?", "\\PC{0,12}"), 0..12),
        ) {
            let named: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
            if let Ok(mut sensor) = open(&device("x", &named), None) {
                for sample in sensor.sample().unwrap_or_default() {
                    prop_assert_eq!(crate::topic::check_name(&sample.quantity), Ok(()));
                }
            }
        }

        #[test]
        fn a_conversion_is_what_the_kernels_text_says(read in -1_000_000..1_000_000_i32, offset in -1000..1000_i32) {
            let number = converted(f64::from(read), f64::from(offset), 0.5, 1000.0);
            prop_assert!((number - f64::from(read + offset) / 2000.0).abs() < 1e-6);
        }
    }
}
