use std::collections::BTreeSet;
use std::sync::Arc;

use embedded_hal::i2c::{ErrorKind, ErrorType, I2c, NoAcknowledgeSource, Operation};

use super::*;
use crate::clock::{SystemClock, Trust};
use crate::hardware::serial_bus::SerialBus;
use crate::hardware::sim::Sim;
use crate::hardware::{
    ExpanderChip, I2cBus, I2cError, I2cPath, InputLine, LineSettings, NumberedBus, OutputLine, OutputSettings,
    PortName, SerialPort, SerialSettings, SpiDevice, SpiSettings,
};
use crate::reading::{Fault, FaultCode};

fn sim() -> Found {
    scan(&Sim::new(Arc::new(SystemClock::new(Trust::Kernel)), 1), &Options::default())
}

fn thing<'f>(found: &'f Found, place: &str) -> &'f Thing {
    let thing = found.things.iter().find(|thing| thing.place == place);
    thing.unwrap_or_else(|| panic!("nothing at {place} in {:#?}", found.things))
}

#[test]
fn the_simulated_machine_is_found_whole() {
    let found = sim();
    assert_eq!(found.troubles, [""; 0]);
    assert_eq!(thing(&found, "bus 1, 0x76").what, "BME280");
    assert_eq!(thing(&found, "bus 1, 0x77").what, "BMP280");
    assert!(thing(&found, "bus 1, 0x70").what.contains("8 channels"));
    assert!(thing(&found, "bus 1, 0x4f").what.contains("the kernel's driver for lm75"));
    assert_eq!(thing(&found, "28-000005e2fdc3").sensor.as_ref().map(|sensor| sensor.driver), Some("w1"));
    assert_eq!(thing(&found, "dht11@4 (platform/dht11@4)").what, "humidity, temperature");
    assert_eq!(thing(&found, "lm75 (i2c/1-004f)").what, "temperature");
    assert_eq!(thing(&found, "GPIO17 (pin 11 of the header, gpiochip0:17)").what, "free (SPI1 CE1 if switched on)");
    assert!(thing(&found, "GPIO2 (pin 3 of the header, gpiochip0:2)").what.contains("used as SDA1"));
    assert!(thing(&found, "GPIO0 (pin 27 of the header, gpiochip0:0)").what.contains("EEPROM"));
    assert!(found.things.iter().any(|thing| thing.interface == "serial"));
    let names: Vec<&str> = found.things.iter().filter_map(|thing| Some(thing.sensor.as_ref()?.name.as_str())).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
}

/// What happens on a bus: whether an address acknowledges, or the error for it.
type Behaviour = fn(u8, &mut [Operation<'_>]) -> Result<(), ErrorKind>;

/// A machine with I2C buses that all behave alike, and nothing else.
struct Buses {
    behaviour: Behaviour,
    buses: &'static [u8],
    folders: Folders,
}

fn one_bus(behaviour: Behaviour) -> Buses {
    Buses { behaviour, buses: &[1], folders: Folders(&[]) }
}

struct Bus(Behaviour);

impl ErrorType for Bus {
    type Error = I2cError;
}

impl I2c for Bus {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), I2cError> {
        self.0(address, operations).map_err(|kind| I2cError {
            kind,
            code: FaultCode::Bus,
            message: format!("the bus hangs ({address:#04x})"),
        })
    }
}

/// Folders below /sys/bus/i2c/devices with their entries, of which none can be read.
struct Folders(&'static [(&'static str, &'static [&'static str])]);

impl KernelFiles for Folders {
    fn read(&self, _path: &std::path::Path) -> std::io::Result<String> {
        Err(std::io::ErrorKind::NotFound.into())
    }

    fn list(&self, folder: &std::path::Path) -> std::io::Result<Vec<String>> {
        let found = self.0.iter().find(|(name, _)| folder == std::path::Path::new("/sys/bus/i2c/devices").join(name));
        let (_, entries) = found.ok_or(std::io::ErrorKind::NotFound)?;
        Ok(entries.iter().map(|entry| (*entry).to_owned()).collect())
    }
}

fn absent<T>() -> Result<T, Fault> {
    Err(Fault::new(FaultCode::Missing, "not there"))
}

impl Hardware for Buses {
    fn i2c(&self, bus: u8) -> Result<I2cBus, Fault> {
        if self.buses.contains(&bus) { Ok(I2cBus::new(Box::new(Bus(self.behaviour)))) } else { absent() }
    }
    fn spi(&self, _settings: &SpiSettings) -> Result<Box<SpiDevice>, Fault> {
        absent()
    }
    fn inventory(&self) -> Inventory {
        let bus = |number: &u8| NumberedBus { number: *number, name: String::new() };
        Inventory { i2c: self.buses.iter().map(bus).collect(), ..Inventory::default() }
    }
    fn files(&self) -> Arc<dyn KernelFiles> {
        Arc::new(Folders(self.folders.0))
    }
    fn input_line(&self, _settings: &LineSettings) -> Result<Box<dyn InputLine>, Fault> {
        absent()
    }
    fn output_line(&self, _settings: &OutputSettings) -> Result<Box<dyn OutputLine>, Fault> {
        absent()
    }
    fn serial(&self, _settings: &SerialSettings) -> Result<Box<dyn SerialPort>, Fault> {
        absent()
    }

    fn serial_bus(&self, _settings: &SerialSettings) -> Result<Arc<SerialBus>, Fault> {
        absent()
    }

    fn has_port(&self, _name: &PortName) -> bool {
        false
    }
}

const NAK: ErrorKind = ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address);

#[test]
fn a_stuck_data_line_is_no_bus_full_of_chips() {
    let found = scan(&one_bus(|_, _| Ok(())), &Options::default());
    assert!(found.things.is_empty(), "{:?}", found.things);
    assert!(found.troubles.iter().any(|trouble| trouble.contains("shorted to ground")), "{:?}", found.troubles);
}

#[test]
fn a_bus_that_hangs_is_given_up_and_told_and_the_rest_is_looked_at() {
    let found = scan(&one_bus(|_, _| Err(ErrorKind::Bus)), &Options::default());
    let given_up = found.troubles.iter().find(|trouble| trouble.contains("given up")).expect("it is told");
    assert!(given_up.contains("0x0a") && given_up.contains("the bus hangs"), "{given_up}");
    assert!(found.troubles.iter().any(|trouble| trouble.contains("1-Wire")), "{:?}", found.troubles);
}

#[test]
fn chips_that_nobody_knows_are_only_read() {
    let answer: Behaviour = |address, operations| {
        let writes = operations.iter().any(|operation| matches!(operation, Operation::Write(_)));
        match address {
            // No driver has a chip here, so that a write is a fault of the scan's.
            0x09 if writes => panic!("an unknown chip was written to"),
            0x09 => Ok(()),
            // Holds nothing that is written, so that it is no multiplexer.
            0x73 => {
                for operation in operations {
                    if let Operation::Read(buffer) = operation {
                        buffer.fill(0xff);
                    }
                }
                Ok(())
            }
            _ => Err(NAK),
        }
    };
    let found = scan(&one_bus(answer), &Options::default());
    let places: Vec<&str> = found.things.iter().map(|thing| thing.place.as_str()).collect();
    assert_eq!(places, ["bus 1, 0x09", "bus 1, 0x73"]);
    assert!(found.things.iter().all(|thing| thing.what.contains("no driver")), "{:?}", found.things);
}

/// A bus with a chip at 0x09, and a multiplexer at 0x70 that the kernel drives, with another one at 0x71 behind it.
#[test]
fn a_chip_before_a_multiplexer_of_the_kernel_s_is_shown_once_and_each_bus_after_the_one_before_it() {
    let folders: &[(&str, &[&str])] = &[
        ("", &["1-0070", "3-0071", "i2c-0", "i2c-1", "i2c-3", "i2c-7"]),
        ("1-0070", &["channel-0", "channel-5", "driver"]),
        ("1-0070/channel-0/i2c-dev", &["i2c-0"]),
        ("1-0070/channel-5/i2c-dev", &["i2c-3"]),
        ("3-0071", &["channel-0", "driver"]),
        ("3-0071/channel-0/i2c-dev", &["i2c-7"]),
    ];
    let behaviour: Behaviour = |address, _| match address {
        0x70 => panic!("the kernel's multiplexer was spoken to"),
        0x09 => Ok(()),
        _ => Err(NAK),
    };
    let machine = Buses { behaviour, buses: &[0, 1, 3, 7], folders: Folders(folders) };
    let found = scan(&machine, &Options::default());
    let places: Vec<&str> = found.things.iter().map(|thing| thing.place.as_str()).collect();
    assert_eq!(places, ["bus 1, 0x09", "bus 1, 0x70", "bus 3, 0x71"]);
    assert!(found.things[1].what.ends_with("; channel 0 is bus 0, 5 is bus 3"), "{:?}", found.things);
}

#[test]
fn buses_can_be_chosen_and_an_absent_one_is_told() {
    let options = Options { buses: vec![7], no_mux: false, ..Options::default() };
    let found = scan(&Sim::new(Arc::new(SystemClock::new(Trust::Kernel)), 1), &options);
    assert!(found.things.iter().all(|thing| thing.interface != "I2C"), "{:?}", found.things);
    assert!(found.troubles[0].contains("i2c-7"), "{:?}", found.troubles);
    let options = Options { buses: vec![1], no_mux: true, ..Options::default() };
    let found = scan(&Sim::new(Arc::new(SystemClock::new(Trust::Kernel)), 1), &options);
    assert!(!thing(&found, "bus 1, 0x70").what.contains("multiplexer"));
}

#[test]
fn expanders_of_a_configuration_are_told_with_who_uses_their_lines() {
    let expander = |name: &str, address| ExpanderSettings {
        name: name.to_owned(),
        chip: ExpanderChip::Mcp23017,
        path: I2cPath { bus: 1, channel: None },
        address,
        interrupt: None,
        every: std::time::Duration::from_millis(100),
    };
    let line = |chip: &str, offset| LineId::Offset { chip: chip.to_owned(), offset };
    let options = Options {
        expanders: vec![expander("cabinet", 0x20), expander("roof", 0x27)],
        used: vec![(line("cabinet", 10), "sensor `gate`".to_owned()), (line("cabinet", 5), "sensor `door`".to_owned())],
        ..Options::default()
    };
    let found = scan(&Sim::new(Arc::new(SystemClock::new(Trust::Kernel)), 1), &options);
    assert_eq!(thing(&found, "bus 1, 0x20").what, "expander `cabinet` (MCP23017) of the configuration");
    let lines = &thing(&found, "cabinet:0 to cabinet:15").what;
    assert_eq!(lines, "5 is for sensor `door`, 10 is for sensor `gate`, the others are free");
    assert_eq!(thing(&found, "roof:0 to roof:15").what, "all are free in the configuration");
    assert!(matches!(&found.troubles[..], [trouble] if trouble.contains("`roof`") && trouble.contains("0x27")));
}

#[test]
fn a_guess_is_commented_out() {
    let sensor = Sensor {
        name: "bh1750-1-23".to_owned(),
        driver: "bh1750",
        keys: "bus = 1\naddress = 0x23\n".to_owned(),
        alternatives: vec!["other"],
        doubt: Some(Doubt::Chip),
    };
    let text = sensor.section();
    assert!(text.lines().all(|line| line.starts_with('#')) && text.contains("may also be other"), "{text}");
    assert!(text.contains("\n#[[sensor]]\n#name = \"bh1750-1-23\"\n"), "{text}");
}
