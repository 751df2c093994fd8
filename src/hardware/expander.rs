//! GPIO expanders on I2C, whose lines are used as those of the machine itself.
//!
//! [`Expanders`] stands over any hardware and adds the lines `NAME:OFFSET`. Each expander has a thread of its own, because
//! a transfer blocks; it looks at the chip when the interrupt line says that something has changed, or else at intervals.
//! What changes between two looks and back again goes unseen, unless the chip itself keeps it. A line's level is the one
//! at the last look.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{
    Bias, BoxFuture, Edge, Edges, Hardware, I2cBus, I2cPath, InputLine, Inventory, KernelFiles, LineId, LineSettings,
    OutputLine, OutputSettings, PortName, SerialPort, SerialSettings, SpiDevice, SpiSettings,
};
use crate::clock::{BootTime, Clock};
use crate::hardware::serial_bus::SerialBus;
use crate::reading::{Fault, FaultCode};

mod chip;
mod debounce;
mod worker;

use debounce::Debounce;
use worker::{Request, Shared, Subscriber};

/// How long taking or driving a line waits for the expander. A transfer takes a few milliseconds; when a bus hangs, this
/// is for how long others wait, once.
const PATIENCE: Duration = Duration::from_millis(500);

/// Edges that wait for a reader, as many as the kernel keeps of a line; further ones are lost and leave a gap in the
/// count.
const KEPT_EDGES: usize = 1024;

/// Requests that may wait for an expander's thread.
const REQUESTS: usize = 64;

/// Which chip it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpanderChip {
    /// Two ports of eight lines, with pull-ups, and with memory for the first change of each line.
    Mcp23017,
    /// Eight lines that are pulled up weakly unless they are driven low. PCF8574A is the same at other addresses.
    Pcf8574,
}

impl ExpanderChip {
    /// How many lines it has.
    #[must_use]
    pub fn lines(self) -> u32 {
        match self {
            Self::Mcp23017 => 16,
            Self::Pcf8574 => 8,
        }
    }

    /// Is the line of that offset for outputs only, by the maker's word? GPA7 and GPB7 of an MCP23017 are, since revision D
    /// of its data sheet (DS20001952, June 2022), which changed nothing in the chip: a level there that changes while it
    /// is read can spoil SDA.
    #[must_use]
    pub fn is_output_only(self, offset: u32) -> bool {
        match self {
            Self::Mcp23017 => matches!(offset, 7 | 15),
            Self::Pcf8574 => false,
        }
    }

    /// The addresses that it can have. MCP23017: 0100 and the three address pins (DS20001952, 3.3.1). PCF8574: the same,
    /// and 0111 and these for the PCF8574A (SCPS068).
    #[must_use]
    pub const fn addresses(self) -> &'static [u8] {
        match self {
            Self::Mcp23017 => &[0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27],
            Self::Pcf8574 => {
                &[0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f]
            }
        }
    }
}

/// `[expander.NAME]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpanderSettings {
    /// Its name in `line = "NAME:3"`.
    pub name: String,
    /// Which chip it is.
    pub chip: ExpanderChip,
    /// The bus.
    pub path: I2cPath,
    /// 7 bits.
    pub address: u8,
    /// The line to which its interrupt output is wired.
    pub interrupt: Option<LineId>,
    /// Between two looks where there is no interrupt line.
    pub every: Duration,
}

impl fmt::Display for ExpanderSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expander `{}` (address {:#04x} on {})", self.name, self.address, self.path)
    }
}

/// Hardware with expanders.
pub struct Expanders {
    inner: Arc<dyn Hardware>,
    by_name: BTreeMap<String, Expander>,
}

impl Expanders {
    /// Adds expanders to some hardware; touches nothing yet. `clock` dates what is found by looking.
    #[must_use]
    pub fn over(inner: Arc<dyn Hardware>, expanders: &[ExpanderSettings], clock: &Arc<dyn Clock>) -> Self {
        let by_name = expanders
            .iter()
            .map(|settings| {
                let expander = Expander {
                    settings: settings.clone(),
                    hardware: Arc::clone(&inner),
                    clock: Arc::clone(clock),
                    shared: Arc::default(),
                    running: Mutex::default(),
                };
                (settings.name.clone(), expander)
            })
            .collect();
        Self { inner, by_name }
    }

    fn of(&self, line: &LineId) -> Option<(&Expander, u32)> {
        match line {
            LineId::Offset { chip, offset } => Some((self.by_name.get(chip)?, *offset)),
            LineId::Name(_) => None,
        }
    }
}

impl Hardware for Expanders {
    fn i2c(&self, bus: u8) -> Result<I2cBus, Fault> {
        self.inner.i2c(bus)
    }

    fn spi(&self, settings: &SpiSettings) -> Result<Box<SpiDevice>, Fault> {
        self.inner.spi(settings)
    }

    fn inventory(&self) -> Inventory {
        self.inner.inventory()
    }

    fn files(&self) -> Arc<dyn KernelFiles> {
        self.inner.files()
    }

    fn input_line(&self, settings: &LineSettings) -> Result<Box<dyn InputLine>, Fault> {
        match self.of(&settings.line) {
            Some((expander, offset)) => expander.input(settings, offset),
            None => self.inner.input_line(settings),
        }
    }

    fn output_line(&self, settings: &OutputSettings) -> Result<Box<dyn OutputLine>, Fault> {
        match self.of(&settings.line) {
            Some((expander, offset)) => expander.output(settings, offset),
            None => self.inner.output_line(settings),
        }
    }

    fn serial(&self, settings: &SerialSettings) -> Result<Box<dyn SerialPort>, Fault> {
        self.inner.serial(settings)
    }

    fn serial_bus(&self, settings: &SerialSettings) -> Result<Arc<SerialBus>, Fault> {
        self.inner.serial_bus(settings)
    }

    fn has_port(&self, name: &PortName) -> bool {
        self.inner.has_port(name)
    }
}

struct Expander {
    settings: ExpanderSettings,
    hardware: Arc<dyn Hardware>,
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
    running: Mutex<Running>,
}

/// What runs for an expander, from when its first line is taken.
#[derive(Default)]
struct Running {
    /// The thread; it ends when nobody can ask it any more.
    requests: Option<SyncSender<Request>>,
    /// Follows the interrupt line.
    interrupts: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(interrupts) = &self.interrupts {
            interrupts.abort();
        }
    }
}

impl Expander {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self, code: FaultCode, what: impl fmt::Display) -> Fault {
        Fault::new(code, format!("{} {what}", self.settings))
    }

    /// Starts what is not running yet.
    fn start(&self) -> Result<SyncSender<Request>, Fault> {
        let mut running = self.running();
        let requests = match &running.requests {
            Some(requests) => requests.clone(),
            None => {
                let (requests, asked) = sync_channel(REQUESTS);
                let worker = worker::Worker::new(
                    &self.settings,
                    Arc::clone(&self.hardware),
                    Arc::clone(&self.clock),
                    Arc::clone(&self.shared),
                );
                worker
                    .start(asked)
                    .map_err(|error| self.fault(FaultCode::Io, format_args!("has no thread: {error}")))?;
                running.requests.insert(requests).clone()
            }
        };
        let Some(line) = &self.settings.interrupt else { return Ok(requests) };
        if running.interrupts.as_ref().is_none_or(JoinHandle::is_finished) {
            let settings = LineSettings {
                line: line.clone(),
                reserved: false,
                // The output is open drain, and low when something has changed.
                bias: Bias::PullUp,
                active_low: true,
                debounce: Duration::ZERO,
                edges: Edges::Rising,
            };
            let line = self
                .hardware
                .input_line(&settings)
                .map_err(|fault| self.fault(fault.code, format_args!("has no interrupt line: {fault}")))?;
            running.interrupts = Some(tokio::spawn(follow(line, requests.clone(), Arc::clone(&self.shared))));
        }
        Ok(requests)
    }

    /// Asks the thread for a look with what is wanted now, and waits a little for it.
    fn ask(&self, requests: &SyncSender<Request>) -> Result<(), Fault> {
        self.shared.check_busy(PATIENCE).map_err(|why| self.fault(FaultCode::Stuck, why))?;
        let (reply, answer) = sync_channel(1);
        let sent = requests.try_send(Request::Apply(reply));
        let answer = sent.ok().and_then(|()| answer.recv_timeout(PATIENCE).ok());
        answer.unwrap_or_else(|| Err(self.fault(FaultCode::Stuck, "does not answer")))
    }

    fn check_offset(&self, offset: u32) -> Result<u8, Fault> {
        u8::try_from(offset).ok().filter(|_| offset < self.settings.chip.lines()).ok_or_else(|| {
            let last = self.settings.chip.lines() - 1;
            self.fault(FaultCode::Missing, format_args!("has the lines 0 to {last}, but no {offset}"))
        })
    }

    /// Takes a line for us alone.
    fn claim(&self, line: u8) -> Result<Claimed, Fault> {
        let free = self.shared.lock().take(line);
        let busy = || self.fault(FaultCode::Busy, format_args!("has its line {line} in use by `vigie`"));
        free.then(|| Claimed { line, shared: Arc::clone(&self.shared) }).ok_or_else(busy)
    }

    fn input(&self, settings: &LineSettings, offset: u32) -> Result<Box<dyn InputLine>, Fault> {
        let line = self.check_offset(offset)?;
        if settings.bias == Bias::PullDown {
            return Err(self.fault(FaultCode::Io, "has no pull-down resistors"));
        }
        let requests = self.start()?;
        let claimed = self.claim(line)?;
        self.shared.lock().wanted.input(line, settings.bias == Bias::PullUp);
        self.ask(&requests)?;
        let (out, edges) = mpsc::channel(KEPT_EDGES);
        let subscriber = Subscriber { line, active_low: settings.active_low, out };
        let active = self.shared.lock().subscribe(subscriber)?;
        Ok(Box::new(ExpanderLine {
            name: self.settings.to_string(),
            active_low: settings.active_low,
            edges,
            reported: settings.edges,
            debounce: Debounce::new(settings.debounce, active),
            sequence: 0,
            claimed,
        }))
    }

    fn output(&self, settings: &OutputSettings, offset: u32) -> Result<Box<dyn OutputLine>, Fault> {
        let line = self.check_offset(offset)?;
        let requests = self.start()?;
        let claimed = self.claim(line)?;
        let name = self.settings.to_string();
        let mut output = ExpanderOutput { name, active_low: settings.active_low, requests, claimed };
        output.set(settings.active)?;
        Ok(Box::new(output))
    }
}

/// Tells the thread of each interrupt, with the kernel's time of it.
async fn follow(mut line: Box<dyn InputLine>, requests: SyncSender<Request>, shared: Arc<Shared>) {
    loop {
        match line.edges().await {
            Ok(edges) => {
                // Where the thread has more to do than it can, it looks anyway.
                let first = edges.first().map(|edge| edge.at);
                let _ = first.map(|at| requests.try_send(Request::Interrupt(at)));
            }
            Err(fault) => {
                let detail = format!("the interrupt line of the expander: {fault}");
                shared.lock().fail(&Fault::new(fault.code, detail));
                return;
            }
        }
    }
}

/// A line that was taken; given back when dropped, as an input without a pull-up.
struct Claimed {
    line: u8,
    shared: Arc<Shared>,
}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.shared.lock().give_back(self.line);
    }
}

struct ExpanderLine {
    name: String,
    active_low: bool,
    /// Changes as they were seen.
    edges: mpsc::Receiver<Result<(BootTime, bool), Fault>>,
    reported: Edges,
    debounce: Debounce,
    sequence: u32,
    claimed: Claimed,
}

impl ExpanderLine {
    fn edge(&mut self, at: BootTime, active: bool) -> Option<Edge> {
        if !matches!((self.reported, active), (Edges::Both, _) | (Edges::Rising, true) | (Edges::Falling, false)) {
            return None;
        }
        self.sequence = self.sequence.wrapping_add(1);
        Some(Edge { at, active, sequence: self.sequence })
    }
}

impl InputLine for ExpanderLine {
    fn level(&mut self) -> Result<bool, Fault> {
        let shared = &self.claimed.shared;
        shared.check_busy(worker::STALE).map_err(|why| Fault::new(FaultCode::Stuck, format!("{} {why}", self.name)))?;
        let active = shared.lock().level(self.claimed.line)? != self.active_low;
        Ok(if self.debounce.is_off() { active } else { self.debounce.level() })
    }

    fn edges(&mut self) -> BoxFuture<'_, Result<Vec<Edge>, Fault>> {
        Box::pin(async move {
            loop {
                let settled = self.debounce.settles_at();
                let change = tokio::select! {
                    change = self.edges.recv() => Some(change),
                    () = sleep_until(settled) => None,
                };
                let now = Instant::now();
                let change = match change {
                    None => self.debounce.settle(now),
                    Some(Some(change)) => {
                        let (at, active) = change?;
                        self.debounce.change(at, active, now)
                    }
                    Some(None) => return Err(Fault::new(FaultCode::Io, format!("{} has ended", self.name))),
                };
                if let Some(edge) = change.and_then(|(at, active)| self.edge(at, active)) {
                    return Ok(vec![edge]);
                }
            }
        })
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

struct ExpanderOutput {
    name: String,
    active_low: bool,
    requests: SyncSender<Request>,
    claimed: Claimed,
}

impl OutputLine for ExpanderOutput {
    fn set(&mut self, active: bool) -> Result<(), Fault> {
        let shared = &self.claimed.shared;
        let stuck = |why: String| Fault::new(FaultCode::Stuck, format!("{} {why}", self.name));
        shared.lock().wanted.output(self.claimed.line, active != self.active_low);
        shared.check_busy(PATIENCE).map_err(stuck)?;
        let (reply, answer) = sync_channel(1);
        let sent = self.requests.try_send(Request::Apply(reply));
        let answer = sent.ok().and_then(|()| answer.recv_timeout(PATIENCE).ok());
        answer.unwrap_or_else(|| Err(stuck("does not answer".to_owned())))
    }
}

/// A line of an expander in people's words: `GPA3`, `P3` or `3`, as an offset.
#[must_use]
pub fn offset(word: &str) -> Option<u32> {
    let port = |prefix: &str, first: u32| {
        let digits = word.strip_prefix(prefix)?;
        digits.parse().ok().filter(|pin: &u32| *pin < 8 && digits.len() == 1).map(|pin| first + pin)
    };
    port("GPA", 0).or_else(|| port("GPB", 8)).or_else(|| port("P", 0)).or_else(|| {
        let digits = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| word.parse().ok()).flatten()
    })
}

/// Is it the name of a GPIO chip of the kernel? An expander may not have such a one.
#[must_use]
pub fn is_kernels(chip: &str) -> bool {
    chip.starts_with("gpiochip")
}

#[cfg(test)]
mod tests;
