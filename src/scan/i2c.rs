//! Chips on I2C.
//!
//! What is sent, in this order, so that nobody has to guess what a scan does to a chip:
//! - Addresses that a driver of the kernel has are left alone. Where it is the driver of a multiplexer, the buses of its
//!   channels come next, without the addresses that answered before it.
//! - Each other address, 0x08 to 0x77, is read one byte. Some chips do not acknowledge that unless they were asked
//!   something; where one of our drivers has a chip for the address, it is then called once more with a write that has no
//!   byte in it.
//! - What answers at 0x70 to 0x77 is taken for a multiplexer if its one register holds 1 and 2 after those were written
//!   to it. To other chips, a single byte is at most the number of a register. Its channels are opened one after the
//!   other, and its register is left as it was found.
//! - A chip at an address that one of our drivers knows is asked for its identity by that driver, which sends the number
//!   of a register, or a command, and reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;

use embedded_hal::i2c::I2c;

use super::{Doubt, Found, Options, Sensor, Thing};
use crate::drivers::support::i2c::{Identify, Identity, Place};
use crate::drivers::{Connection, DRIVERS, Driver};
use crate::hardware::i2c::{MUX_ADDRESSES, MUX_CHANNELS};
use crate::hardware::{ExpanderChip, Hardware, I2cBus, I2cError, I2cPath, KernelFiles, MuxChannel, NumberedBus};
use crate::reading::FaultCode;

/// Addresses of chips; the others are reserved (NXP UM10204, 3.1.12).
const ADDRESSES: RangeInclusive<u8> = 0x08..=0x77;

/// So many errors in a row, which are no missing acknowledges, and the bus is given up: each may take a second.
const ERRORS_IN_A_ROW: u32 = 3;

/// More chips than that on one bus are none: its data line is stuck at ground, which acknowledges everything.
const MAX_CHIPS: usize = 64;

pub(super) fn scan(hardware: &dyn Hardware, buses: &[NumberedBus], options: &Options, found: &mut Found) {
    let there = |wanted: &u8| buses.iter().any(|bus| bus.number == *wanted);
    let wanted: BTreeSet<u8> = match options.buses.as_slice() {
        [] => buses.iter().map(|bus| bus.number).collect(),
        // One that is not listed is tried all the same, for the words of what is missing.
        some => some.iter().copied().collect(),
    };
    let files = hardware.files();
    let kernels: BTreeMap<u8, Kernels> = wanted.iter().map(|bus| (*bus, kernels(&*files, *bus))).collect();
    let channels =
        |bus: &u8| -> Vec<u8> { kernels[bus].values().flat_map(|chip| chip.channels.values().copied()).collect() };
    let behind: BTreeSet<u8> = wanted.iter().flat_map(channels).collect();
    // A channel of a multiplexer comes after the bus before it, whose chips answer there as well.
    let mut next: Vec<(u8, BTreeSet<u8>)> =
        wanted.iter().rev().filter(|bus| !behind.contains(bus)).map(|bus| (*bus, BTreeSet::new())).collect();
    let mut left = wanted.clone();
    while let Some((number, mut known)) = next.pop() {
        if !left.remove(&number) {
            continue;
        }
        match hardware.i2c(number) {
            Ok(bus) => {
                known = Scan { hardware, bus, number, options, kernels: &kernels[&number], found }.run(known);
            }
            Err(fault) if there(&number) || !options.buses.is_empty() => found.troubles.push(fault.detail),
            Err(_) => {}
        }
        next.extend(channels(&number).into_iter().rev().map(|channel| (channel, known.clone())));
    }
}

struct Scan<'a> {
    hardware: &'a dyn Hardware,
    bus: I2cBus,
    number: u8,
    options: &'a Options,
    kernels: &'a Kernels,
    found: &'a mut Found,
}

impl Scan<'_> {
    /// With the addresses that answer before this bus; gives them with those that were found.
    fn run(mut self, before: BTreeSet<u8>) -> BTreeSet<u8> {
        let mut known = before;
        known.extend(self.kernels.keys());
        let probed = self.probe(None, &known);
        let mut here: BTreeSet<u8> = self.kernels.keys().copied().collect();
        here.extend(&probed);
        known.extend(probed);
        for address in here {
            if let Some(chip) = self.kernels.get(&address) {
                self.push(None, address, chip.to_string(), None);
                continue;
            }
            let may_be_mux = MUX_ADDRESSES.contains(&address) && !self.options.no_mux;
            match may_be_mux.then(|| channels(&mut self.bus, address)).flatten() {
                Some(Mux { channels, control }) => self.behind(address, channels, control, &known),
                None => self.identify(None, address),
            }
        }
        known
    }

    /// The chips behind a multiplexer that do not also answer before it.
    fn behind(&mut self, mux: u8, channels: u8, control: u8, known: &BTreeSet<u8>) {
        self.push(None, mux, format!("multiplexer with {channels} channels (TCA9548A or alike)"), None);
        for channel in 0..channels {
            let channel = Some(MuxChannel { mux, channel });
            for address in self.probe(channel, known) {
                self.identify(channel, address);
            }
        }
        // A read before the multiplexer closes the last channel; then it is as it was found.
        let mut byte = [0];
        let left = self.bus.read(mux, &mut byte).and_then(|()| self.bus.write(mux, &[control]));
        if let Err(error) = left {
            self.found.troubles.push(format!("the multiplexer {mux:#04x} could not be left as it was: {error}"));
        }
    }

    /// Addresses at which something answers, without those that are known.
    fn probe(&mut self, channel: Option<MuxChannel>, known: &BTreeSet<u8>) -> Vec<u8> {
        let path = I2cPath { bus: self.number, channel };
        let mut bus = self.bus.behind(channel);
        let mut chips = Vec::new();
        let mut errors = 0;
        for address in ADDRESSES.filter(|address| !known.contains(address)) {
            match answers(&mut bus, address) {
                Ok(true) => chips.push(address),
                Ok(false) => {}
                Err(error) => {
                    errors += 1;
                    if errors < ERRORS_IN_A_ROW {
                        continue;
                    }
                    let trouble = format!("{path} was given up at address {address:#04x}: {error}");
                    self.found.troubles.push(trouble);
                    return chips;
                }
            }
            errors = 0;
        }
        if chips.len() > MAX_CHIPS {
            let trouble = format!(
                "on {path}, {} addresses answer, which no bus has: its data line (SDA) is shorted to ground, or has no \
                 resistor to 3V3",
                chips.len()
            );
            self.found.troubles.push(trouble);
            return Vec::new();
        }
        chips
    }

    /// Asks a chip what it is.
    fn identify(&mut self, channel: Option<MuxChannel>, address: u8) {
        let path = I2cPath { bus: self.number, channel };
        let mut others = Vec::new();
        let mut candidates = Vec::new();
        for (driver, identify) in drivers_for(address) {
            let Some(identify) = identify else {
                candidates.push(driver.name);
                continue;
            };
            let identity = Place { path, address }.chip(self.hardware).and_then(|mut chip| identify(&mut chip));
            match identity {
                Ok(Identity::Known(name)) => {
                    let sensor = sensor(path, address, driver.name, Vec::new(), true);
                    return self.push(channel, address, name.to_owned(), Some(sensor));
                }
                Ok(Identity::Other(found)) => others.push(found),
                // Whatever is there does not speak as this driver's chip.
                Err(_) => {}
            }
        }
        let what = match (candidates.as_slice(), others.first()) {
            ([], None) if ExpanderChip::Pcf8574.addresses().contains(&address) => {
                "answers; may be an expander, MCP23017 or PCF8574".to_owned()
            }
            ([], None) => "answers; vigie has no driver for a chip at this address".to_owned(),
            ([], Some(other)) => format!("answers; {other}"),
            (some, _) => format!("answers; may be {}", some.join(", ")),
        };
        let guess = candidates.split_first().map(|(first, rest)| sensor(path, address, first, rest.to_vec(), false));
        self.push(channel, address, what, guess);
    }

    fn push(&mut self, channel: Option<MuxChannel>, address: u8, what: String, sensor: Option<Sensor>) {
        let place = place(I2cPath { bus: self.number, channel }, address);
        self.found.things.push(Thing { interface: "I2C", place, what, sensor });
    }
}

/// Where a chip is, as it is shown.
pub(super) fn place(I2cPath { bus, channel }: I2cPath, address: u8) -> String {
    match channel {
        None => format!("bus {bus}, {address:#04x}"),
        Some(MuxChannel { mux, channel }) => format!("bus {bus}, mux {mux:#04x} channel {channel}, {address:#04x}"),
    }
}

/// A chip that a driver of the kernel has.
struct KernelChip {
    /// What the driver calls it.
    name: String,
    /// If it is a multiplexer: the buses that its channels are, by the channel's number.
    channels: BTreeMap<u8, u8>,
}

impl fmt::Display for KernelChip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "used by the kernel's driver for {}", self.name)?;
        let mut between = "; channel ";
        for (channel, bus) in &self.channels {
            write!(f, "{between}{channel} is bus {bus}")?;
            between = ", ";
        }
        Ok(())
    }
}

/// By address, those of one bus.
type Kernels = BTreeMap<u8, KernelChip>;

/// The chips of a bus that a driver of the kernel has.
fn kernels(files: &dyn KernelFiles, bus: u8) -> Kernels {
    let folder = Path::new("/sys/bus/i2c/devices");
    let names = files.list(folder).unwrap_or_default();
    let device = |name: &String| {
        let address = name.strip_prefix(&format!("{bus}-"))?;
        let address = u8::from_str_radix(address, 16).ok()?;
        let device = folder.join(name);
        let entries = files.list(&device).ok()?;
        entries.iter().any(|entry| entry == "driver").then_some(())?;
        // The kernel's `i2c_mux_add_adapter` links each channel's bus here.
        let channel = |entry: &String| {
            let channel = entry.strip_prefix("channel-")?.parse().ok()?;
            let nodes = files.list(&device.join(entry).join("i2c-dev")).ok()?;
            Some((channel, nodes.first()?.strip_prefix("i2c-")?.parse().ok()?))
        };
        let channels = entries.iter().filter_map(channel).collect();
        let name = files.read(&device.join("name")).unwrap_or_default().trim().to_owned();
        Some((address, KernelChip { name, channels }))
    };
    names.iter().filter_map(device).collect()
}

/// Does something answer at that address?
fn answers(bus: &mut I2cBus, address: u8) -> Result<bool, I2cError> {
    let mut byte = [0];
    let answered = |outcome: Result<(), I2cError>| match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.is_no_acknowledge() => Ok(false),
        // The kernel's driver came after the list was read; it is shown with the next scan.
        Err(error) if error.code == FaultCode::Busy => Ok(false),
        Err(error) => Err(error),
    };
    if answered(bus.read(address, &mut byte))? {
        return Ok(true);
    }
    if drivers_for(address).next().is_none() {
        return Ok(false);
    }
    answered(bus.write(address, &[]))
}

/// The drivers of chips that can have that address.
fn drivers_for(address: u8) -> impl Iterator<Item = (&'static Driver, Option<Identify>)> {
    DRIVERS.iter().filter_map(move |driver| match driver.connection {
        Connection::I2c(info) if info.addresses.contains(&address) => Some((*driver, info.identify)),
        _ => None,
    })
}

/// A multiplexer.
struct Mux {
    channels: u8,
    /// What its register held.
    control: u8,
}

/// Is the chip a multiplexer with a bit for each channel? `None` if not.
fn channels(bus: &mut I2cBus, address: u8) -> Option<Mux> {
    let mut control = [0];
    bus.read(address, &mut control).ok()?;
    let mut holds = |byte: u8| {
        let mut back = [0];
        bus.write(address, &[byte]).and_then(|()| bus.read(address, &mut back)).is_ok() && back == [byte]
    };
    let channels = match () {
        () if !(holds(1) && holds(2)) => return None,
        () if holds(1 << (MUX_CHANNELS - 1)) => MUX_CHANNELS,
        // TCA9546A, PCA9546A.
        () if holds(1 << 3) => 4,
        () => 2,
    };
    // All closed, whatever it was: a channel left open would answer for the next one.
    holds(0).then_some(Mux { channels, control: control[0] })
}

fn sensor(path: I2cPath, address: u8, driver: &'static str, alternatives: Vec<&'static str>, sure: bool) -> Sensor {
    let I2cPath { bus, channel } = path;
    let mut name = format!("{driver}-{bus}");
    let mut keys = format!("bus = {bus}\n");
    if let Some(MuxChannel { mux, channel }) = channel {
        super::append(&mut name, format_args!("-{mux:02x}-{channel}"));
        super::append(&mut keys, format_args!("mux = {mux:#04x}\nchannel = {channel}\n"));
    }
    super::append(&mut name, format_args!("-{address:02x}"));
    super::append(&mut keys, format_args!("address = {address:#04x}\n"));
    Sensor { name, driver, keys, alternatives, doubt: (!sure).then_some(Doubt::Chip) }
}
