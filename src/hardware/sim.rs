//! A simulated Raspberry Pi: what the machine has below its drivers, so that the shipped drivers run above it.
//!
//! - I2C bus 1 and SPI bus 0 carry chips at register level (`chips`); other addresses do not acknowledge.
//! - GPIO lines 0 to 27 of the header: on GPIO17 a motion sensor goes high now and then; on GPIO23 is a PWM output of
//!   1 kHz, on GPIO24 a flow meter of 2 to 20 Hz; the others follow their pull resistor.
//! - The serial ports `sim:arduino`, `sim:dht22`, `sim:frames`, `sim:gps` and `sim:meter` are ptys with built-in peers: each
//!   second they send a line of JSON, a line for people, a binary frame, sentences of NMEA 0183; and an energy meter
//!   answers to Modbus RTU at address 1. The Arduino is also `usb:2341:0043`, and the only one on USB (`auto`). Any other
//!   port is opened as on Linux, so that tests can bring ptys of their own.
//!
//! Faults happen to it by a script (`fault`). Everything follows from a seed and the boot clock: the same seed and times
//! give the same levels and registers.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::{
    Hardware, I2cBus, InputLine, Inventory, KernelFiles, LineInfo, LineSettings, NumberedBus, OutputLine,
    OutputSettings, PortInfo, PortName, SerialPort, SerialSettings, SpiDevice, SpiPlace, SpiSettings, header, linux,
};
use crate::clock::Clock;
use crate::hardware::serial_bus::{SerialBus, SerialBuses};
use crate::reading::{Fault, FaultCode};

mod arduino;
#[doc(hidden)]
pub mod bus;
#[doc(hidden)]
pub mod chips;
pub mod fault;
mod files;
mod frames;
mod gps;
mod interrupt;
mod line;
mod modbus;
mod world;

/// The I2C bus that there is, as on a Pi's header.
const I2C_BUS: u8 = 1;
/// The SPI bus that there is, as on a Pi's header.
const SPI_BUS: u8 = 0;

/// The name of the port on which the built-in Arduino prints.
pub const ARDUINO_PORT: &str = "sim:arduino";

/// The name of the port on which a sketch prints for people.
pub const DHT22_PORT: &str = "sim:dht22";

/// The name of the port on which a built-in device sends frames with a checksum.
pub const FRAMES_PORT: &str = "sim:frames";

/// The name of the port of the built-in receiver and its weather instruments.
pub const GPS_PORT: &str = "sim:gps";

/// The name of the port of the built-in energy meter.
pub const METER_PORT: &str = "sim:meter";

/// What ports that only the simulated machine has begin with.
pub const PORT_PREFIX: &str = "sim:";

/// Vendor and product of the built-in Arduino, an Uno's; it is the only device on USB.
const ARDUINO_USB: (u16, u16) = (0x2341, 0x0043);

/// The seed that `[hardware] backend = "sim"` takes.
pub const DEFAULT_SEED: u64 = 1;

/// The simulated machine.
pub struct Sim {
    clock: Arc<dyn Clock>,
    seed: u64,
    bus: I2cBus,
    wires: Arc<Mutex<bus::Wires>>,
    script: Arc<fault::Script>,
    /// Offsets of the lines that are taken: a line has one holder, as on Linux.
    taken: Arc<Mutex<BTreeSet<u32>>>,
    ports: linux::Ports,
    serial_buses: SerialBuses,
}

impl Sim {
    /// A machine whose chips live by that clock.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, seed: u64) -> Self {
        Self::with_faults(clock, seed, Vec::new())
    }

    /// A machine to which these faults happen, counted from now on.
    #[must_use]
    pub fn with_faults(clock: Arc<dyn Clock>, seed: u64, faults: Vec<fault::ScriptedFault>) -> Self {
        let script = Arc::new(fault::Script::new(Arc::clone(&clock), faults));
        let power_on = {
            let clock = Arc::clone(&clock);
            move || chips::i2c_bus_1(&clock, seed)
        };
        let adapter = bus::SimI2c::new(I2C_BUS, seed, Box::new(power_on), Arc::clone(&script));
        let wires = adapter.wires();
        Self {
            clock,
            seed,
            bus: I2cBus::new(Box::new(adapter)),
            wires,
            script,
            taken: Arc::default(),
            ports: linux::Ports::default(),
            serial_buses: SerialBuses::default(),
        }
    }
}

#[cfg(test)]
impl Sim {
    /// The pins of the expander at that address, to drive them.
    pub(crate) fn pins(&self, address: u8) -> chips::Pins {
        self.wires.lock().expect("not poisoned").pins(address).expect("an expander")
    }
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sim").field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl Hardware for Sim {
    fn i2c(&self, bus: u8) -> Result<I2cBus, Fault> {
        if bus == I2C_BUS {
            return Ok(self.bus.clone());
        }
        let detail = format!("/dev/i2c-{bus} is not there: the simulated machine has only bus {I2C_BUS}");
        Err(Fault::new(FaultCode::Missing, detail))
    }

    fn spi(&self, settings: &SpiSettings) -> Result<Box<SpiDevice>, Fault> {
        let place @ SpiPlace { bus, chip_select } = settings.place;
        let chip = if bus == SPI_BUS { chips::spi_bus_0(chip_select, &self.clock, self.seed) } else { None };
        let chip = chip.ok_or_else(|| {
            let detail = format!("/dev/spidev{bus}.{chip_select} is not there on the simulated machine");
            Fault::new(FaultCode::Missing, detail)
        })?;
        Ok(Box::new(bus::SimSpi { place, chip, seed: self.seed, script: Arc::clone(&self.script) }))
    }

    fn inventory(&self) -> Inventory {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let line = |line: &'static header::Line| LineInfo {
            chip: "gpiochip0".to_owned(),
            offset: line.bcm.into(),
            name: format!("GPIO{}", line.bcm),
            holder: taken.contains(&line.bcm.into()).then(|| "vigie".to_owned()),
            header: Some(line),
        };
        let spi = (0..=1).map(|chip_select| SpiPlace { bus: SPI_BUS, chip_select });
        Inventory {
            i2c: vec![NumberedBus { number: I2C_BUS, name: "simulated".to_owned() }],
            spi: spi.filter(|place| chips::spi_bus_0(place.chip_select, &self.clock, self.seed).is_some()).collect(),
            lines: header::LINES.iter().map(line).collect(),
            ports: vec![PortInfo { path: ARDUINO_PORT.into(), node: ARDUINO_PORT.into(), ..PortInfo::default() }],
            troubles: Vec::new(),
        }
    }

    fn files(&self) -> Arc<dyn KernelFiles> {
        Arc::new(files::SimFiles::new(Arc::clone(&self.clock), self.seed, Arc::clone(&self.script)))
    }

    fn input_line(&self, settings: &LineSettings) -> Result<Box<dyn InputLine>, Fault> {
        self.script.line(&settings.line, || {
            let taken = line::take(&settings.line, settings.reserved, Arc::clone(&self.taken))?;
            if let Some(address) = interrupt::wired_to(taken.offset) {
                let wires = Arc::clone(&self.wires);
                return Ok(Box::new(interrupt::InterruptLine::new(settings, wires, address, taken)));
            }
            Ok(Box::new(line::SimLine::new(settings, Arc::clone(&self.clock), self.seed, taken)))
        })
    }

    fn output_line(&self, settings: &OutputSettings) -> Result<Box<dyn OutputLine>, Fault> {
        let output = line::SimOutput::take(settings, Arc::clone(&self.taken))?;
        Ok(self.script.output(settings.line.clone(), Box::new(output)))
    }

    fn serial(&self, settings: &SerialSettings) -> Result<Box<dyn SerialPort>, Fault> {
        let name = path_of(&settings.port);
        self.script.port(name.clone(), || {
            let (ports, baud, clock) = (&self.ports, settings.baud, Arc::clone(&self.clock));
            match name.to_str() {
                Some(ARDUINO_PORT) => arduino::open(ports, baud, clock, self.seed),
                Some(DHT22_PORT) => arduino::open_dht22(ports, baud, clock, self.seed),
                Some(FRAMES_PORT) => frames::open(ports, baud, clock, self.seed),
                Some(GPS_PORT) => gps::open(ports, baud, clock, self.seed),
                Some(METER_PORT) => modbus::open(ports, baud, clock, self.seed),
                _ => self.ports.open(settings),
            }
        })
    }

    fn serial_bus(&self, settings: &SerialSettings) -> Result<Arc<SerialBus>, Fault> {
        self.serial_buses.get(settings, |settings| self.serial(settings))
    }

    fn has_port(&self, name: &PortName) -> bool {
        let path = path_of(name);
        let built_in =
            [ARDUINO_PORT, DHT22_PORT, FRAMES_PORT, GPS_PORT, METER_PORT].iter().any(|port| path.as_os_str() == *port);
        self.script.has_port(path) && (built_in || self.ports.has(name))
    }
}

/// The name under which faults happen to a port, and by which the built-in peers are found.
fn path_of(name: &PortName) -> PathBuf {
    match name {
        PortName::Usb(id) if (id.vendor, id.product) == ARDUINO_USB && id.serial.is_none() => ARDUINO_PORT.into(),
        PortName::Auto => ARDUINO_PORT.into(),
        PortName::Path(_) | PortName::Usb(_) => PathBuf::from(name.to_string()),
    }
}

/// Marks a line as taken until it is dropped.
struct Taken {
    offset: u32,
    lines: Arc<Mutex<BTreeSet<u32>>>,
}

impl Taken {
    fn take(offset: u32, lines: Arc<Mutex<BTreeSet<u32>>>) -> Option<Self> {
        let free = lines.lock().unwrap_or_else(PoisonError::into_inner).insert(offset);
        // Not `then_some`: one that is made in vain would give the line back when it is dropped.
        free.then(|| Self { offset, lines })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.offset);
    }
}
