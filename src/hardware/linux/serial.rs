//! Opens serial ports: ttyAMA, ttyS, ttyUSB, ttyACM, and ptys.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use rustix::termios::{
    ControlModes, InputModes, OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcsetattr,
};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tracing::warn;

use super::node_fault;
use super::ports::{self, Roots};
use super::tty::Tty;
use crate::hardware::serial::{Format, Overruns, Parity, PortName, Reset, SerialPort, SerialSettings};
use crate::reading::{Fault, FaultCode};

const MISSING: &str = "is the cable plugged in? `ls /dev/serial/by-id` lists the USB ports; the header's port is \
                       switched on with `sudo raspi-config nonint do_serial_hw 0`";

/// How long DTR is down for `reset = "pulse"`; a board's capacitor of 100 nF has long been charged by then.
const PULSE: Duration = Duration::from_millis(250);

/// Rates further apart than this, in percent, do not understand each other: half a bit at the end of ten, less the
/// device's own error.
const BAUD_TOLERANCE: u32 = 3;

/// The serial ports of this machine, and which of them are open.
#[derive(Debug, Default)]
pub(in crate::hardware) struct Ports {
    roots: Roots,
    /// The spelling by which each node was opened.
    open: Arc<Mutex<BTreeMap<PathBuf, PortName>>>,
}

impl Ports {
    /// Is the port there, and may it be opened? Cheap enough to be asked twice a second.
    pub(in crate::hardware) fn has(&self, name: &PortName) -> bool {
        self.roots.resolve(name).is_ok_and(|node| ports::is_ours_to_open(&node))
    }

    /// Opens a port raw, without flow control, for nobody but us. Blocks as long as the driver and `reset` take.
    pub(in crate::hardware) fn open(&self, settings: &SerialSettings) -> Result<Box<dyn SerialPort>, Fault> {
        let node = self.roots.resolve(&settings.port)?;
        let claim = self.claim(&node, &settings.port)?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let tty = open(&node, flags, Mode::empty()).map_err(|error| open_fault(&node, settings, error))?;
        let failed = |error| setup_fault(&node, settings, error);
        let found = tcgetattr(&tty).map_err(failed)?;
        match flock(&tty, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Err(ports::busy(&node)),
            other => other.map_err(failed)?,
        }
        // Whoever opened it without a lock would take half of the bytes.
        if let Some(holder) = ports::holder(&node) {
            return Err(ports::busy_by(&node, &holder));
        }
        let tty = Tty::exclusive(tty).map_err(failed)?;
        configure(&tty, found, settings).map_err(failed)?;
        check(&node, &tcgetattr(&tty).map_err(failed)?, settings)?;
        if settings.reset == Reset::Pulse {
            pulse(&tty, &node);
        }
        let tty = tty
            .register()
            .map_err(|error| Fault::new(FaultCode::Io, format!("{} cannot be waited for: {error}", node.display())))?;
        Ok(Box::new(LinuxPort { tty: Arc::new(tty), node, _claim: claim }))
    }

    /// Notes that a node is being opened.
    fn claim(&self, node: &Path, name: &PortName) -> Result<OpenNode, Fault> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = open.get(node) {
            let detail = format!(
                "{} is already open for another sensor of this gateway, whose `port` is \"{other}\": give each sensor \
                 a port of its own",
                node.display()
            );
            return Err(Fault::new(FaultCode::Busy, detail));
        }
        open.insert(node.to_owned(), name.clone());
        Ok(OpenNode { node: node.to_owned(), open: Arc::clone(&self.open) })
    }
}

/// A node that is open until this is dropped.
struct OpenNode {
    node: PathBuf,
    open: Arc<Mutex<BTreeMap<PathBuf, PortName>>>,
}

impl Drop for OpenNode {
    fn drop(&mut self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.node);
    }
}

fn configure(tty: &Tty, mut termios: Termios, settings: &SerialSettings) -> Result<(), Errno> {
    termios.make_raw();
    let control = &mut termios.control_modes;
    control.remove(FORMAT_MODES | ControlModes::CRTSCTS);
    control.insert(ControlModes::CREAD | ControlModes::CLOCAL | modes_of(settings.format));
    if settings.reset == Reset::Avoid {
        control.remove(ControlModes::HUPCL);
    }
    // A byte with a wrong parity is read as NUL, which no framing takes for its own.
    termios.input_modes.set(InputModes::INPCK, settings.format.parity != Parity::None);
    termios.set_speed(settings.baud)?;
    tcsetattr(tty, OptionalActions::Now, &termios)
}

const FORMAT_MODES: ControlModes =
    ControlModes::CSIZE.union(ControlModes::PARENB).union(ControlModes::PARODD).union(ControlModes::CSTOPB);

fn modes_of(format: Format) -> ControlModes {
    let bits = if format.seven_bits { ControlModes::CS7 } else { ControlModes::CS8 };
    let parity = match format.parity {
        Parity::None => ControlModes::empty(),
        Parity::Even => ControlModes::PARENB,
        Parity::Odd => ControlModes::PARENB | ControlModes::PARODD,
    };
    let stop = if format.two_stop_bits { ControlModes::CSTOPB } else { ControlModes::empty() };
    bits | parity | stop
}

/// A driver that cannot do what it was asked for takes the nearest that it can, without an error.
fn check(node: &Path, taken: &Termios, settings: &SerialSettings) -> Result<(), Fault> {
    let (baud, format) = (settings.baud, settings.format);
    // A pty has neither characters nor a rate.
    if node.starts_with("/dev/pts") {
        return Ok(());
    }
    if taken.output_speed().abs_diff(baud) > baud / 100 * BAUD_TOLERANCE {
        let detail = format!(
            "{} cannot do {baud} baud, and takes {} instead: set `baud` to what both ends can do",
            node.display(),
            taken.output_speed()
        );
        return Err(Fault::new(FaultCode::Io, detail));
    }
    if taken.control_modes & FORMAT_MODES != modes_of(format) {
        let detail = format!("{} cannot do {format}: set `format` to what both ends can do", node.display());
        return Err(Fault::new(FaultCode::Io, detail));
    }
    Ok(())
}

/// Resets the board: its reset input is behind a capacitor on DTR, which is low while DTR is up.
fn pulse(tty: &Tty, node: &Path) {
    let done = tty.set_dtr(false).and_then(|()| {
        thread::sleep(PULSE);
        tty.set_dtr(true)
    });
    match done {
        // What it said before the reset.
        Ok(()) => drop(tcflush(tty, QueueSelector::IFlush)),
        Err(error) => warn!(port = %node.display(), "no reset: this port has no line DTR that can be driven ({error})"),
    }
}

fn open_fault(node: &Path, settings: &SerialSettings, error: Errno) -> Fault {
    match error {
        Errno::BUSY => ports::busy(node),
        Errno::IO | Errno::NXIO | Errno::NODEV => setup_fault(node, settings, error),
        _ => node_fault(node, &error.into(), MISSING),
    }
}

fn setup_fault(node: &Path, settings: &SerialSettings, error: Errno) -> Fault {
    let node = node.display();
    match error {
        Errno::NOTTY => Fault::new(FaultCode::Io, format!("{node} is no serial port ({error})")),
        Errno::IO | Errno::NXIO | Errno::NODEV => {
            Fault::new(FaultCode::Missing, format!("{node} has no device behind it ({error}): {MISSING}"))
        }
        _ => {
            let (baud, format) = (settings.baud, settings.format);
            let detail = format!("{node} cannot be used as a serial port at {baud} baud, {format}: {error}");
            Fault::new(FaultCode::Io, detail)
        }
    }
}

struct LinuxPort {
    tty: Arc<AsyncFd<Tty>>,
    node: PathBuf,
    /// Goes last: the next one may open the node when it is closed.
    _claim: OpenNode,
}

impl SerialPort for LinuxPort {
    fn node(&self) -> &Path {
        &self.node
    }

    fn overruns(&self) -> Option<Overruns> {
        self.tty.get_ref().overruns().ok()?;
        // It does not keep the port open.
        let tty = Arc::downgrade(&self.tty);
        Some(Box::new(move || tty.upgrade()?.get_ref().overruns().ok()))
    }
}

impl AsyncRead for LinuxPort {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.tty.poll_read_ready(cx))?;
            let read = ready.try_io(|tty| Ok(rustix::io::read(tty.get_ref(), buffer.initialize_unfilled())?));
            match read {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(read) => return Poll::Ready(read.map(|count| buffer.advance(count))),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for LinuxPort {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.tty.poll_write_ready(cx))?;
            match ready.try_io(|tty| Ok(rustix::io::write(tty.get_ref(), bytes)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(written) => return Poll::Ready(written),
                Err(_would_block) => {}
            }
        }
    }

    /// What was written is the kernel's; to wait for the wire would block.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
