//! Looks for what can be a sensor: chips on I2C, what the kernel has found on 1-Wire, in IIO and hwmon, serial ports,
//! SPI devices and GPIO lines.
//!
//! Opens no serial port and takes no GPIO line. What it does on I2C is told in `i2c`.

use std::fmt::Write;

use crate::drivers::support::kernel;
use crate::drivers::{hwmon, iio, w1};
use crate::hardware::header::{self, Function};
use crate::hardware::{ExpanderSettings, Hardware, Inventory, KernelFiles, LineId, LineInfo};

mod expanders;
mod i2c;
mod ports;

/// What to look at.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// I2C buses; empty for all.
    pub buses: Vec<u8>,
    /// Leave multiplexers alone, and what is behind them.
    pub no_mux: bool,
    /// The expanders of a configuration.
    pub expanders: Vec<ExpanderSettings>,
    /// Which lines a configuration uses, and what for: "sensor `door`".
    pub used: Vec<(LineId, String)>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// In the order of the interfaces.
    pub things: Vec<Thing>,
    /// What could not be looked at, and what to do.
    pub troubles: Vec<String>,
}

/// Something that was found.
#[derive(Debug)]
pub struct Thing {
    /// How it is connected: "I2C".
    pub interface: &'static str,
    /// Where.
    pub place: String,
    /// What it is, or who uses it.
    pub what: String,
    /// How to read it.
    pub sensor: Option<Sensor>,
}

/// A sensor for the configuration.
#[derive(Debug)]
pub struct Sensor {
    /// A name that no other one has.
    pub name: String,
    /// Its driver.
    pub driver: &'static str,
    /// The driver's keys, as lines of TOML.
    pub keys: String,
    /// Other drivers that may be meant; some if the chip cannot be told from its likes.
    pub alternatives: Vec<&'static str>,
    /// Why it may be another one; `None` where the chip says itself what it is.
    pub doubt: Option<Doubt>,
}

/// Why it cannot be said what something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Only the address speaks for the chip.
    Chip,
    /// Nothing is known of what is behind the port.
    Port,
}

impl Sensor {
    /// A `[[sensor]]` table; commented out where it is a guess.
    #[must_use]
    pub fn section(&self) -> String {
        let Self { name, driver, keys, alternatives, doubt } = self;
        // A room of its own tells its topics from those of its likes.
        let table = format!(
            "[[sensor]]\nname = {}\nroom = {}   # where it is\ndriver = {}\n{keys}",
            quoted(name),
            quoted(name),
            quoted(driver)
        );
        let mut text = match doubt {
            None => return table,
            Some(Doubt::Chip) => "# This chip does not say what it is. If it is this one, take away the #".to_owned(),
            Some(Doubt::Port) => {
                "# A port does not say what is behind it. If its driver is this one, take away the #".to_owned()
            }
        };
        if alternatives.is_empty() {
            text.push_str(".\n");
        } else {
            append(&mut text, format_args!("; its driver may also be {}.\n", alternatives.join(", ")));
        }
        for row in table.lines() {
            append(&mut text, format_args!("#{row}\n"));
        }
        text
    }
}

/// A text in TOML.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn append(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more).expect("a String takes whatever is written to it");
}

/// Looks at everything.
#[must_use]
pub fn scan(hardware: &dyn Hardware, options: &Options) -> Found {
    let files = hardware.files();
    let inventory = hardware.inventory();
    let mut found = Found { things: Vec::new(), troubles: inventory.troubles.clone() };
    i2c::scan(hardware, &inventory.i2c, options, &mut found);
    one_wire(&*files, &mut found);
    kernel_devices(&*files, &iio::CLASS, ("IIO", "iio", "device"), iio::quantities, &mut found);
    kernel_devices(&*files, &hwmon::CLASS, ("hwmon", "hwmon", "chip"), hwmon::quantities, &mut found);
    ports_and_lines(inventory, &mut found);
    expanders::tell(options, &mut found);
    found
}

fn one_wire(files: &dyn KernelFiles, found: &mut Found) {
    let chips = match w1::chips(files) {
        Ok(chips) => chips,
        Err(fault) => return found.troubles.push(fault.detail),
    };
    if chips.is_empty() {
        found.troubles.push(
            "nothing on the 1-Wire bus: check the wiring, and the resistor of 4.7 kΩ from the data line to 3V3"
                .to_owned(),
        );
    }
    for id in chips {
        let thermometer = w1::is_thermometer(&id);
        let sensor = thermometer.then(|| Sensor {
            name: format!("w1-{id}"),
            driver: "w1",
            keys: format!("id = {}\n", quoted(&id)),
            alternatives: Vec::new(),
            doubt: None,
        });
        let what = if thermometer { "thermometer" } else { "no thermometer: vigie has no driver for it" };
        found.things.push(Thing { interface: "1-Wire", place: id, what: what.to_owned(), sensor });
    }
}

/// What the kernel's own thermometers on 1-Wire are called in hwmon; the driver `w1` reads them better.
const W1_IN_HWMON: &str = "w1_slave_temp";

fn kernel_devices(
    files: &dyn KernelFiles,
    class: &kernel::Class,
    (interface, driver, key): (&'static str, &'static str, &str),
    quantities: fn(&dyn KernelFiles, &std::path::Path) -> Vec<String>,
    found: &mut Found,
) {
    let devices = class.devices(files);
    for device in devices.iter().filter(|device| device.name != W1_IN_HWMON) {
        let parent = class.parent(files, device);
        let alone = devices.iter().filter(|other| other.name == device.name).count() == 1;
        let by = match &parent {
            _ if alone && kernel::is_device_name(&device.name) => &device.name,
            Some(parent) => parent,
            None => &device.node,
        };
        let quantities = quantities(files, &device.folder);
        let sensor = (!quantities.is_empty()).then(|| Sensor {
            name: format!("{driver}-{}", by.replace(['/', ':', '+', '#', '{', '}', '$'], "-")),
            driver,
            keys: format!("{key} = {}\n", quoted(by)),
            alternatives: Vec::new(),
            doubt: None,
        });
        let what = if quantities.is_empty() { "gives no values".to_owned() } else { quantities.join(", ") };
        let place = format!("{} ({})", device.name, parent.as_ref().unwrap_or(&device.node));
        found.things.push(Thing { interface, place, what, sensor });
    }
}

fn ports_and_lines(inventory: Inventory, found: &mut Found) {
    let in_use = functions_in_use(&inventory);
    for place in inventory.spi {
        let place = format!("/dev/spidev{}.{}", place.bus, place.chip_select);
        let what = "cannot be told: chips on SPI do not say whether they are there".to_owned();
        found.things.push(Thing { interface: "SPI", place, what, sensor: None });
    }
    found.things.extend(inventory.ports.iter().map(ports::thing));
    let (header, others): (Vec<LineInfo>, Vec<LineInfo>) =
        inventory.lines.into_iter().partition(|line| line.header.is_some());
    found.things.extend(header.iter().map(|line| gpio(line, line.name.as_str(), &in_use)));
    // Lines without a name that nobody uses are a number only.
    let mut nameless: Vec<(&str, usize)> = Vec::new();
    for line in &others {
        if !line.name.is_empty() || line.holder.is_some() {
            let name = if line.name.is_empty() { "(no name)" } else { &line.name };
            found.things.push(gpio(line, name, &in_use));
            continue;
        }
        match nameless.last_mut() {
            Some((chip, count)) if *chip == line.chip => *count += 1,
            _ => nameless.push((&line.chip, 1)),
        }
    }
    found.things.extend(nameless.into_iter().map(|(chip, count)| Thing {
        interface: "GPIO",
        place: chip.to_owned(),
        what: format!("{count} free lines without a name"),
        sensor: None,
    }));
}

/// What lines of the header serve for because a bus is switched on. The kernel shows such a line as free, because it is
/// no GPIO line any more.
fn functions_in_use(inventory: &Inventory) -> Vec<Function> {
    let i2c = inventory.i2c.iter().map(|bus| Function::I2c(bus.number));
    let spi = inventory.spi.iter();
    let spi = spi.flat_map(|place| [Function::Spi(place.bus), Function::SpiSelect(place.bus, place.chip_select)]);
    let uart = inventory.ports.iter().filter(|port| port.path.ends_with("serial0")).map(|_| Function::Uart);
    i2c.chain(spi).chain(uart).collect()
}

fn gpio(line: &LineInfo, name: &str, in_use: &[Function]) -> Thing {
    let place = match line.header {
        Some(header) => format!("{name} (pin {} of the header, {}:{})", header.position, line.chip, line.offset),
        None => format!("{name} ({}:{})", line.chip, line.offset),
    };
    let what = match (&line.holder, line.header) {
        (Some(holder), _) => format!("used by {holder}"),
        (None, None) => "free".to_owned(),
        (None, Some(header)) => header_line(header, in_use),
    };
    Thing { interface: "GPIO", place, what, sensor: None }
}

/// What a line of the header is that nobody holds as a GPIO line.
fn header_line(line: &header::Line, in_use: &[Function]) -> String {
    if line.is_reserved() {
        return "kept for the ID EEPROM of a HAT".to_owned();
    }
    if let Some(name) = in_use.iter().find_map(|function| line.in_function(*function)) {
        return format!("used as {name}, because that is switched on");
    }
    let names: Vec<&str> = line.functions.iter().map(|(_, name)| *name).collect();
    if names.is_empty() { "free".to_owned() } else { format!("free ({} if switched on)", names.join(", ")) }
}

#[cfg(test)]
mod tests;
