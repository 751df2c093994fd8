//! Any chip that the kernel's hardware monitoring has a driver for (Documentation/hwmon/sysfs-interface.rst).
//!
//! Reads what is measured (`temp1_input` and the like), not limits, alarms or what can be set.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::support::channels::{self, Channel};
use super::support::kernel::{self, Class};
use super::{Connection, Driver, Open, OptionInfo, Parsed, Poller, Source};
use crate::hardware::{Hardware, KernelFiles};
use crate::options::Options;
use crate::reading::{Fault, FaultCode, Sample, Value};

pub(crate) static DRIVER: Driver = Driver {
    name: "hwmon",
    summary: "Any chip that the kernel has a hwmon driver for (LM75, INA219, EMC2301, SHT31, processors…)",
    notes: "\
The kernel measures, vigie reads what `sensors` (of lm-sensors) shows. Many chips need a line in
/boot/firmware/config.txt and a restart, such as `dtoverlay=i2c-sensor,lm75,addr=0x48` or `dtoverlay=i2c-fan,emc2301`;
processors, disks and power supplies are there by themselves. `vigie scan` shows what there is, `vigie once` what it gives.
No rights are needed.

Quantities are called by the chip's labels where it has them, else by what they are: `temperature` °C, `voltage` V,
`current` A, `power` W, `energy` J, `humidity` %, `fan` rpm, `frequency` Hz, with the kernel's number behind where the chip
has several (`temperature1`, `temperature2`). An input that the chip itself calls broken (`temp1_fault`) is a fault;
`channels` can leave it out.

Thermometers on 1-Wire appear here as `w1_slave_temp`, too: the driver `w1` reads them better.",
    sample: r#"[[sensor]]
name = "rack"
driver = "hwmon"
chip = "lm75"
every = "30s"
"#,
    connection: Connection::Own,
    options: &[
        OptionInfo {
            name: "chip",
            values: "name, label or folder of the chip, or where it is: `\"i2c/1-0048\"`",
            default: None,
            help: "Which chip, by its `name` or `label` in /sys/class/hwmon, or by its parent's bus and name.",
        },
        OptionInfo {
            name: channels::KEY,
            values: "list of names of quantities",
            default: Some("all"),
            help: "Which inputs to read.",
        },
    ],
    quantities: &[],
    parse,
};

/// Where hwmon chips are.
pub(crate) const CLASS: Class = Class {
    what: "hwmon chip",
    folder: "/sys/class/hwmon",
    prefix: "hwmon",
    below_parent: "hwmon",
    remedy: "`vigie drivers hwmon` has examples of lines for /boot/firmware/config.txt that give the kernel a chip",
};

/// What a type of input is for people.
#[derive(Debug)]
struct InputType {
    /// In the kernel's names.
    kernel: &'static str,
    /// In names of quantities.
    name: &'static str,
    unit: &'static str,
    /// One of our units in the kernel's.
    per_unit: f64,
}

const fn input_type(kernel: &'static str, name: &'static str, unit: &'static str, per_unit: f64) -> InputType {
    InputType { kernel, name, unit, per_unit }
}

/// The kernel's inputs, with its units.
const TYPES: &[InputType] = &[
    input_type("temp", "temperature", "°C", 1e3),
    input_type("in", "voltage", "V", 1e3),
    input_type("curr", "current", "A", 1e3),
    input_type("power", "power", "W", 1e6),
    input_type("energy", "energy", "J", 1e6),
    input_type("humidity", "humidity", "%", 1e3),
    input_type("fan", "fan", "rpm", 1.0),
    input_type("freq", "frequency", "Hz", 1.0),
];

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let chip = options.required::<String>("chip");
    let channels = channels::parse(options);
    let chip = chip?;
    if !kernel::is_device_name(&chip) {
        options.problem(
            "chip",
            format!("`chip` of {} cannot be the name of a chip", options.what()),
            Some("expected a name such as \"lm75\", or a place such as \"i2c/1-0048\"".to_owned()),
        );
        return None;
    }
    let settings = Settings { chip, channels: channels.ok()? };
    Some(Parsed { claims: vec![], source: Source::Poller(Arc::new(settings)) })
}

struct Settings {
    chip: String,
    channels: Option<Vec<String>>,
}

impl Open for Settings {
    fn open(&self, hardware: &dyn Hardware) -> Result<Box<dyn Poller>, Fault> {
        Ok(Box::new(Hwmon::open(hardware.files(), self)?))
    }
}

/// How an input is read.
#[derive(Clone, Debug)]
struct How {
    path: PathBuf,
    /// The file in which the chip says that the input is broken, if it can.
    fault: Option<PathBuf>,
    of: &'static InputType,
}

struct Hwmon {
    files: Arc<dyn KernelFiles>,
    channels: Vec<Channel<How>>,
}

impl Hwmon {
    fn open(files: Arc<dyn KernelFiles>, settings: &Settings) -> Result<Self, Fault> {
        let device = CLASS.find(&*files, &settings.chip)?;
        let all = find_inputs(&*files, &device.folder);
        let chosen = channels::choose(all, settings.channels.as_deref(), &format!("the hwmon chip `{}`", device.name))?;
        Ok(Self { files, channels: chosen })
    }

    fn value(&self, channel: &Channel<How>) -> Result<Sample, Fault> {
        let How { path, fault, of } = &channel.how;
        if let Some(fault) = fault
            && kernel::number(&*self.files, fault)? != 0.0
        {
            return Err(Fault::new(FaultCode::Impossible, "the chip says that this input is broken or not connected"));
        }
        let number = kernel::number(&*self.files, path)? / of.per_unit;
        let value = Value::number(number).expect("a finite number divided by 1 or more");
        Ok(Sample::new(channel.quantity.clone(), value).with_unit(Some(of.unit)))
    }
}

impl Poller for Hwmon {
    fn sample(&mut self) -> Result<Vec<Sample>, Fault> {
        let several = self.channels.len() > 1;
        let read = |channel: &Channel<How>| {
            self.value(channel).map_err(|fault| channels::fault_of(&channel.kernel_name, several, &fault))
        };
        self.channels.iter().map(read).collect()
    }
}

/// The quantities that a chip has.
pub(crate) fn quantities(files: &dyn KernelFiles, folder: &Path) -> Vec<String> {
    find_inputs(files, folder).into_iter().map(|channel| channel.quantity).collect()
}

/// The inputs of a chip, sorted by type and number.
fn find_inputs(files: &dyn KernelFiles, folder: &Path) -> Vec<Channel<How>> {
    let names = files.list(folder).unwrap_or_default();
    let has = |file: &str| names.iter().any(|name| name == file);
    let mut found: Vec<(usize, u32, &str)> = names.iter().filter_map(|name| input_file(name)).collect();
    // Where a power sensor gives both, its present value is preferred to its mean.
    found.retain(|(_, _, file)| file.strip_suffix("_average").is_none_or(|stem| !has(&format!("{stem}_input"))));
    found.sort_unstable();
    found.truncate(channels::MAX_CHANNELS);
    let mut labels = Vec::new();
    let mut inputs: Vec<Channel<How>> = found
        .iter()
        .map(|(index, number, file)| {
            let of = &TYPES[*index];
            let stem = format!("{}{number}", of.kernel);
            let only = found.iter().filter(|(other, _, _)| other == index).count() == 1;
            let fault = format!("{stem}_fault");
            labels.push(channels::text(files, &folder.join(format!("{stem}_label"))));
            Channel {
                quantity: if only { of.name.to_owned() } else { format!("{}{number}", of.name) },
                how: How { path: folder.join(file), fault: has(&fault).then(|| folder.join(fault)), of },
                kernel_name: stem,
            }
        })
        .collect();
    channels::name_by_labels(&mut inputs, &labels);
    inputs
}

/// The type and number of an input that a file has the value of: `temp1_input`, `power1_average`.
fn input_file(name: &str) -> Option<(usize, u32, &str)> {
    let (stem, mean) = match (name.strip_suffix("_input"), name.strip_suffix("_average")) {
        (Some(stem), _) => (stem, false),
        (None, Some(stem)) => (stem, true),
        (None, None) => return None,
    };
    let (word, number) = stem.split_at(stem.find(|character: char| character.is_ascii_digit())?);
    let index = TYPES.iter().position(|known| known.kernel == word && (!mean || word == "power"))?;
    let number = number.bytes().all(|byte| byte.is_ascii_digit()).then_some(number)?.parse().ok()?;
    Some((index, number, name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::drivers::support::kernel::scripted::Files;

    const FOLDER: &str = "/sys/class/hwmon/hwmon0";

    fn chip(attributes: &[(&str, &str)]) -> Arc<Files> {
        let files = Files::new(&[(&format!("{FOLDER}/name"), "chip\n")]);
        for (attribute, text) in attributes {
            files.set(&format!("{FOLDER}/{attribute}"), [Ok(format!("{text}\n"))]);
        }
        Arc::new(files)
    }

    fn open(files: &Arc<Files>, channels: Option<&[&str]>) -> Result<Hwmon, Fault> {
        let channels = channels.map(|list| list.iter().map(ToString::to_string).collect());
        let settings = Settings { chip: "chip".to_owned(), channels };
        Hwmon::open(Arc::clone(files) as Arc<dyn KernelFiles>, &settings)
    }

    #[test]
    fn every_type_comes_in_its_unit() {
        let files = chip(&[
            ("temp1_input", "48312"),
            ("temp1_max", "80000"),
            ("in0_input", "3312"),
            ("in10_input", "5000"),
            ("in2_input", "12000"),
            ("curr1_input", "-250"),
            ("power1_input", "1250000"),
            ("power1_average", "1000000"),
            ("power2_average", "2000000"),
            ("energy1_input", "3600000000"),
            ("humidity1_input", "45210"),
            ("fan1_input", "1480"),
            ("fan1_label", "Case/Fan"),
            ("pwm1", "255"),
        ]);
        let samples = open(&files, None).expect("opens").sample().expect("samples");
        let expected = [
            ("temperature", 48.312, "°C"),
            ("voltage0", 3.312, "V"),
            ("voltage2", 12.0, "V"),
            ("voltage10", 5.0, "V"),
            ("current", -0.25, "A"),
            ("power1", 1.25, "W"),
            ("power2", 2.0, "W"),
            ("energy", 3600.0, "J"),
            ("humidity", 45.21, "%"),
            ("Case_Fan", 1480.0, "rpm"),
        ];
        let expected: Vec<Sample> = expected
            .iter()
            .map(|(name, number, unit)| {
                Sample::new(*name, Value::number(*number).expect("finite")).with_unit(Some(unit))
            })
            .collect();
        assert_eq!(samples, expected);
    }

    #[test]
    fn a_broken_input_is_a_fault_and_can_be_left_out() {
        let files =
            chip(&[("temp1_input", "30000"), ("temp2_input", "-128000"), ("temp1_fault", "0"), ("temp2_fault", "1")]);
        let fault = open(&files, None).expect("opens").sample().expect_err("broken");
        assert_eq!(fault.code, FaultCode::Impossible);
        assert!(fault.detail.contains("temp2") && fault.detail.contains("`channels`"), "{fault}");
        let samples = open(&files, Some(&["temperature1"])).expect("opens").sample().expect("samples");
        assert_eq!(samples.len(), 1);
    }

    #[test]
    fn a_chip_that_is_taken_away_is_missing_and_one_without_inputs_is_told() {
        let files = chip(&[("temp1_input", "30000")]);
        let mut sensor = open(&files, None).expect("opens");
        files.remove(FOLDER);
        assert_eq!(sensor.sample().expect_err("gone").code, FaultCode::Missing);
        let fault = open(&files, None).err().expect("gone");
        assert!(fault.detail.contains("`chip`") && fault.detail.contains("vigie drivers hwmon"), "{fault}");
        let fault = open(&chip(&[("in0_lcrit_alarm", "0")]), None).err().expect("nothing to read");
        assert!(fault.detail.contains("alarms"), "{fault}");
    }

    proptest! {
        #[test]
        fn any_file_names_and_texts_give_names_for_topics_and_finite_values(
            files in prop::collection::vec(
                ("(temp|in|curr|power|fan|[a-z]{1,6})[0-9]{0,12}(_input|_average|_label|_fault)?", "\\PC{0,12}"),
                0..12,
            ),
        ) {
            let named: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
            if let Ok(mut sensor) = open(&chip(&named), None) {
                for sample in sensor.sample().unwrap_or_default() {
                    prop_assert_eq!(crate::topic::check_name(&sample.quantity), Ok(()));
                }
            }
        }
    }
}
