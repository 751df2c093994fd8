//! Faults that happen to the simulated machine by a script (`[[hardware.fault]]`), so that what a gateway makes of a
//! broken sensor can be seen without breaking one.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use super::files::KernelDevice;
use crate::clock::{BootTime, Clock};
use crate::hardware::serial::Overruns;
use crate::hardware::{BoxFuture, Edge, InputLine, LineId, OutputLine, SerialPort, SpiPlace};
use crate::reading::{Fault, FaultCode};

/// Faults that a script may have.
pub const MAX_FAULTS: usize = 64;

/// How often who waits for the beginning or the end of a fault looks at the clock, which a test may move by hand.
const LOOK: Duration = Duration::from_millis(20);

/// `[[hardware.fault]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptedFault {
    /// What is broken.
    pub device: Device,
    /// How.
    pub kind: Kind,
    /// From when on, counted from the start.
    pub at: Duration,
    /// For how long; `None`: for ever.
    pub lasts: Option<Duration>,
    /// An output line that ends it when it is switched off: the supply of the device.
    pub cured_by: Option<LineId>,
}

/// A device of the simulated machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// A chip on an I2C bus, on whichever multiplexer's channel; without an address the wires of the bus.
    I2c {
        /// The bus.
        bus: u8,
        /// 7 bits.
        address: Option<u8>,
    },
    /// A chip on an SPI bus; without a chip select the whole bus.
    Spi {
        /// The bus.
        bus: u8,
        /// Its chip-select line.
        chip_select: Option<u8>,
    },
    /// One that the kernel's own driver reads, on 1-Wire, in IIO or hwmon.
    Kernel(&'static KernelDevice),
    /// An input line.
    Line(LineId),
    /// A serial port.
    Port(PathBuf),
}

/// How a device is broken. What comes of it at a device of the kernel's is said at [`KernelDevice`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Does not acknowledge.
    Nak,
    /// Holds a wire low: each transfer fails after the second that the kernel waits ([`TRANSFER_TIMEOUT`]).
    Timeout,
    /// The transfer does not return before the fault ends.
    Hang,
    /// Random bits are read.
    Garbage,
    /// Another chip is in its place: what is read is inverted, the identity with it.
    WrongChip,
    /// Not there. Afterwards it is as it is when it gets power.
    Unplug,
}

/// How long the kernel waits for a transfer, unless told otherwise.
pub const TRANSFER_TIMEOUT: Duration = Duration::from_secs(1);

impl Device {
    /// The ways in which it can be broken.
    #[must_use]
    pub const fn kinds(&self) -> &'static [Kind] {
        match self {
            Self::I2c { .. } => &[Kind::Nak, Kind::Timeout, Kind::Hang, Kind::Garbage, Kind::WrongChip, Kind::Unplug],
            // Nobody acknowledges there.
            Self::Spi { .. } => &[Kind::Timeout, Kind::Hang, Kind::Garbage, Kind::WrongChip, Kind::Unplug],
            // Which chip it is was told to the kernel, or is part of its name.
            Self::Kernel(_) => &[Kind::Nak, Kind::Timeout, Kind::Hang, Kind::Garbage, Kind::Unplug],
            Self::Line(_) | Self::Port(_) => &[Kind::Unplug],
        }
    }
}

/// The faults of a machine that was started at a time.
pub(super) struct Script {
    clock: Arc<dyn Clock>,
    start: BootTime,
    faults: Vec<ScriptedFault>,
    /// Faults, by their place, that a switched-off supply has ended.
    cured: Mutex<BTreeSet<usize>>,
}

impl Script {
    pub(super) fn new(clock: Arc<dyn Clock>, faults: Vec<ScriptedFault>) -> Self {
        Self { start: clock.boot(), clock, faults, cured: Mutex::default() }
    }

    /// The first fault of a device that is there now, with its place in the script.
    fn now(&self, concerns: impl Fn(&Device) -> bool) -> Option<(usize, Kind)> {
        let time = self.clock.boot().since(self.start);
        self.faults
            .iter()
            .enumerate()
            .find(|(index, fault)| concerns(&fault.device) && fault.has_begun(time) && !self.is_over(*index, time))
            .map(|(index, fault)| (index, fault.kind))
    }

    fn is_over(&self, index: usize, time: Duration) -> bool {
        let fault = &self.faults[index];
        fault.lasts.is_some_and(|lasts| time >= fault.at.saturating_add(lasts))
            || self.cured.lock().unwrap_or_else(PoisonError::into_inner).contains(&index)
    }

    /// What is wrong now with a transfer on a bus.
    pub(super) fn transfer(&self, on: u8, to: u8) -> Option<(usize, Kind)> {
        self.now(|device| match device {
            Device::I2c { bus, address } => *bus == on && address.is_none_or(|address| address == to),
            _ => false,
        })
    }

    /// What is wrong now with a transfer on SPI.
    pub(super) fn spi_transfer(&self, to: SpiPlace) -> Option<(usize, Kind)> {
        self.now(|device| match device {
            Device::Spi { bus, chip_select } => {
                *bus == to.bus && chip_select.is_none_or(|chip_select| chip_select == to.chip_select)
            }
            _ => false,
        })
    }

    /// What is wrong now with that device of the kernel's.
    pub(super) fn kernel_device(&self, device: &'static KernelDevice) -> Option<(usize, Kind)> {
        self.now(|other| *other == Device::Kernel(device))
    }

    /// Blocks until that fault is over.
    pub(super) fn wait_out(&self, index: usize) {
        while !self.is_over(index, self.clock.boot().since(self.start)) {
            std::thread::sleep(LOOK);
        }
    }

    /// What has had no power on that bus: the faults that are over by now, with the address, or `None` for all.
    pub(super) fn repowered(&self, on: u8) -> impl Iterator<Item = (usize, Option<u8>)> {
        let time = self.clock.boot().since(self.start);
        self.faults.iter().enumerate().filter_map(move |(index, fault)| match fault.device {
            Device::I2c { bus, address } if bus == on => {
                let lost_power = fault.kind == Kind::Unplug || fault.cured_by.is_some();
                (lost_power && fault.has_begun(time) && self.is_over(index, time)).then_some((index, address))
            }
            _ => None,
        })
    }

    /// Spoils what was read: with inverted bits for another chip, otherwise with random ones.
    pub(super) fn garble(&self, seed: u64, kind: Kind, bytes: &mut [u8]) {
        if kind == Kind::WrongChip {
            bytes.iter_mut().for_each(|byte| *byte = !*byte);
        } else {
            self.garbage(seed, bytes);
        }
    }

    /// Pseudo-random bytes.
    pub(super) fn garbage(&self, seed: u64, bytes: &mut [u8]) {
        let mut state = seed ^ self.clock.boot().0 | 1;
        for byte in bytes {
            // Marsaglia's xorshift64.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state.to_le_bytes()[3];
        }
    }

    /// An output line was driven.
    fn driven(&self, line: &LineId, active: bool) {
        if active {
            return;
        }
        let time = self.clock.boot().since(self.start);
        for (index, fault) in self.faults.iter().enumerate() {
            if fault.cured_by.as_ref() == Some(line) && fault.has_begun(time) {
                self.cured.lock().unwrap_or_else(PoisonError::into_inner).insert(index);
            }
        }
    }

    fn is_unplugged(&self, device: &Device) -> bool {
        self.now(|other| other == device).is_some()
    }

    /// Waits until a device is unplugged.
    async fn unplugged(self: Arc<Self>, device: Device) {
        while !self.is_unplugged(&device) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A line that can be unplugged.
    ///
    /// # Errors
    /// It is unplugged, or what taking it gives.
    pub(super) fn line(
        self: &Arc<Self>,
        line: &LineId,
        take: impl FnOnce() -> Result<Box<dyn InputLine>, Fault>,
    ) -> Result<Box<dyn InputLine>, Fault> {
        let device = Device::Line(line.clone());
        if self.is_unplugged(&device) {
            return Err(Fault::new(FaultCode::Missing, format!("{device} is unplugged by the script of faults")));
        }
        let line = take()?;
        if !self.concerns(&device) {
            return Ok(line);
        }
        Ok(Box::new(Breakable { line, device, script: Arc::clone(self) }))
    }

    /// An output line whose switching off is noticed.
    pub(super) fn output(self: &Arc<Self>, line: LineId, output: Box<dyn OutputLine>) -> Box<dyn OutputLine> {
        Box::new(Watched { line, output, script: Arc::clone(self) })
    }

    /// A port that can be unplugged.
    ///
    /// # Errors
    /// It is unplugged, or what opening it gives.
    pub(super) fn port(
        self: &Arc<Self>,
        path: PathBuf,
        open: impl FnOnce() -> Result<Box<dyn SerialPort>, Fault>,
    ) -> Result<Box<dyn SerialPort>, Fault> {
        let device = Device::Port(path);
        if self.is_unplugged(&device) {
            return Err(Fault::new(FaultCode::Missing, format!("{device} is unplugged by the script of faults")));
        }
        let port = open()?;
        if !self.concerns(&device) {
            return Ok(port);
        }
        let unplugged = Box::pin(Arc::clone(self).unplugged(device));
        Ok(Box::new(Unpluggable { port, unplugged, is_gone: false }))
    }

    /// Is the port there, as far as the script knows?
    pub(super) fn has_port(&self, path: PathBuf) -> bool {
        !self.is_unplugged(&Device::Port(path))
    }

    fn concerns(&self, device: &Device) -> bool {
        self.faults.iter().any(|fault| fault.device == *device)
    }
}

impl ScriptedFault {
    fn has_begun(&self, time: Duration) -> bool {
        time >= self.at
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::I2c { bus, address: Some(address) } => write!(f, "address {address:#04x} on I2C bus {bus}"),
            Self::I2c { bus, address: None } => write!(f, "I2C bus {bus}"),
            Self::Spi { bus, chip_select: Some(chip_select) } => {
                SpiPlace { bus: *bus, chip_select: *chip_select }.fmt(f)
            }
            Self::Spi { bus, chip_select: None } => write!(f, "SPI bus {bus}"),
            Self::Kernel(device) => write!(f, "{device}"),
            Self::Line(line) => write!(f, "GPIO line {line}"),
            Self::Port(path) => write!(f, "serial port {}", path.display()),
        }
    }
}

struct Breakable {
    line: Box<dyn InputLine>,
    device: Device,
    script: Arc<Script>,
}

impl Breakable {
    fn fault(&self) -> Fault {
        Fault::new(FaultCode::Unplugged, format!("{} was unplugged by the script of faults", self.device))
    }
}

impl InputLine for Breakable {
    fn level(&mut self) -> Result<bool, Fault> {
        if self.script.is_unplugged(&self.device) {
            return Err(self.fault());
        }
        self.line.level()
    }

    fn edges(&mut self) -> BoxFuture<'_, Result<Vec<Edge>, Fault>> {
        Box::pin(async move {
            let unplugged = Arc::clone(&self.script).unplugged(self.device.clone());
            tokio::select! {
                edges = self.line.edges() => return edges,
                () = unplugged => {}
            }
            Err(self.fault())
        })
    }
}

struct Watched {
    line: LineId,
    output: Box<dyn OutputLine>,
    script: Arc<Script>,
}

impl OutputLine for Watched {
    fn set(&mut self, active: bool) -> Result<(), Fault> {
        self.output.set(active)?;
        self.script.driven(&self.line, active);
        Ok(())
    }
}

struct Unpluggable {
    port: Box<dyn SerialPort>,
    unplugged: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_gone: bool,
}

impl SerialPort for Unpluggable {
    fn node(&self) -> &Path {
        self.port.node()
    }

    fn overruns(&self) -> Option<Overruns> {
        self.port.overruns()
    }
}

impl AsyncRead for Unpluggable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.is_gone || self.unplugged.as_mut().poll(cx).is_ready() {
            self.is_gone = true;
            // The end of the stream, as a tty gives it that was hung up.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.port).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Unpluggable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.port).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.port).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.port).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use embedded_hal::i2c::I2c;

    use super::*;
    use crate::clock::ManualClock;
    use crate::hardware::sim::Sim;
    use crate::hardware::{Hardware, OutputSettings};

    const CHIP: u8 = 0x76;
    /// Of a BME280: its register `id` and what that holds.
    const ID: (u8, u8) = (0xd0, 0x60);
    const CONFIG: u8 = 0xf5;

    fn fault(kind: Kind, lasts: Option<u64>, cured_by: Option<&str>) -> ScriptedFault {
        ScriptedFault {
            device: Device::I2c { bus: 1, address: Some(CHIP) },
            kind,
            at: Duration::from_secs(10),
            lasts: lasts.map(Duration::from_secs),
            cured_by: cured_by.map(|line| LineId::Name(line.to_owned())),
        }
    }

    fn board(fault: ScriptedFault) -> (Sim, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new());
        (Sim::with_faults(Arc::clone(&clock) as Arc<dyn Clock>, 1, vec![fault]), clock)
    }

    fn read(sim: &Sim, register: u8) -> Option<u8> {
        let mut byte = [0];
        let mut bus = sim.i2c(1).expect("a bus");
        bus.write_read(CHIP, &[register], &mut byte).ok().map(|()| byte[0])
    }

    #[test]
    fn a_fault_begins_and_ends_by_the_clock_and_harms_nobody_else() {
        for (kind, during) in [(Kind::Nak, None), (Kind::Unplug, None), (Kind::WrongChip, Some(!ID.1))] {
            let (sim, clock) = board(fault(kind, Some(5), None));
            assert_eq!(read(&sim, ID.0), Some(ID.1));
            clock.advance(Duration::from_secs(10));
            assert_eq!(read(&sim, ID.0), during, "{kind:?}");
            let mut other = [0];
            sim.i2c(1).expect("a bus").write_read(0x77, &[ID.0], &mut other).expect("the other one answers");
            clock.advance(Duration::from_secs(5));
            assert_eq!(read(&sim, ID.0), Some(ID.1), "{kind:?}");
        }
    }

    #[test]
    fn garbage_differs_from_time_to_time() {
        let (sim, clock) = board(fault(Kind::Garbage, None, None));
        clock.advance(Duration::from_secs(10));
        let seen: BTreeSet<Option<u8>> = (0..32)
            .map(|_| {
                clock.advance(Duration::from_millis(1));
                read(&sim, ID.0)
            })
            .collect();
        assert!(seen.len() > 8 && !seen.contains(&None), "{seen:?}");
    }

    #[test]
    fn a_chip_that_had_no_power_has_forgotten_its_registers() {
        for (kind, forgets) in [(Kind::Nak, false), (Kind::Unplug, true)] {
            let (sim, clock) = board(fault(kind, Some(5), None));
            sim.i2c(1).expect("a bus").write(CHIP, &[CONFIG, 0x20]).expect("an acknowledge");
            clock.advance(Duration::from_secs(15));
            assert_eq!(read(&sim, CONFIG), Some(if forgets { 0 } else { 0x20 }), "{kind:?}");
        }
    }

    #[test]
    fn switching_a_supply_off_ends_the_fault_that_it_cures() {
        let (sim, clock) = board(fault(Kind::Nak, None, Some("GPIO22")));
        let line = LineId::Name("GPIO22".to_owned());
        let mut supply =
            sim.output_line(&OutputSettings { line, active_low: false, active: true }).expect("a free line");
        supply.set(false).expect("driven");
        supply.set(true).expect("driven");
        clock.advance(Duration::from_secs(60));
        assert_eq!(read(&sim, ID.0), None, "it was switched off before the fault began");
        supply.set(false).expect("driven");
        assert_eq!(read(&sim, ID.0), Some(ID.1));
    }
}
