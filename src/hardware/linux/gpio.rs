//! GPIO lines through the character device (Documentation/userspace-api/gpio/chardev.rst).

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::FutureExt;
use gpiocdev::line::{EdgeDetection, EdgeKind, EventClock, Value};
use gpiocdev::tokio::AsyncRequest;
use gpiocdev::{Chip, Error, Request};
use rustix::time::{ClockId, clock_gettime};

use super::node::Node;
use super::node_fault;
use crate::clock::BootTime;
use crate::hardware::header;
use crate::hardware::{Bias, BoxFuture, Edge, Edges, InputLine, LineId, LineSettings, OutputLine, OutputSettings};
use crate::reading::{Fault, FaultCode};

/// Who holds our lines, as `gpioinfo` shows it.
const CONSUMER: &str = "vigie";

/// Edges that the kernel keeps for us until we read them; it holds at most 1024 for one line and drops the oldest
/// beyond that.
const KERNEL_EVENTS: u32 = 1024;

/// Edges taken over with one read.
const EVENTS_A_READ: usize = 64;

/// A chip's node goes while the kernel is still removing the chip, and a kernel before 6.9 does not keep that apart from
/// a line that is given back at the same time: so for this long the line is kept.
const LEAVING: Duration = Duration::from_secs(1);

/// Controllers whose line N is the Pi's BCM number N: of the Pi Zero to 3, the Pi 4, and the Pi 5. Some kernels give
/// header lines other names than GPIO<N>, such as SDA1, so that it is the number that leads to the line.
pub(super) const HEADER_CHIPS: [&str; 3] = ["pinctrl-bcm2835", "pinctrl-bcm2711", "pinctrl-rp1"];

pub(in crate::hardware) struct LinuxLine {
    request: AsyncRequest,
    /// How messages call it.
    name: String,
    chip: Node,
    buffer: Vec<u64>,
    asleep: Asleep,
}

impl LinuxLine {
    pub(in crate::hardware) fn request(settings: &LineSettings) -> Result<Self, Fault> {
        let (chip, offset) = locate(&settings.line, settings.reserved)?;
        let name = settings.line.to_string();
        let mut builder = Request::builder();
        builder
            .on_chip(chip.path())
            .with_consumer(CONSUMER)
            .with_kernel_event_buffer_size(KERNEL_EVENTS)
            .with_line(offset)
            .as_input()
            .with_bias(match settings.bias {
                Bias::AsIs => None,
                Bias::PullUp => Some(gpiocdev::line::Bias::PullUp),
                Bias::PullDown => Some(gpiocdev::line::Bias::PullDown),
                Bias::Disabled => Some(gpiocdev::line::Bias::Disabled),
            })
            .with_edge_detection(match settings.edges {
                // The kernel means the level after inversion, as we do.
                Edges::Both => EdgeDetection::BothEdges,
                Edges::Rising => EdgeDetection::RisingEdge,
                Edges::Falling => EdgeDetection::FallingEdge,
            })
            .with_event_clock(EventClock::Monotonic);
        if settings.active_low {
            builder.as_active_low();
        }
        if !settings.debounce.is_zero() {
            builder.with_debounce_period(settings.debounce);
        }
        let request = builder.request().map_err(|error| {
            if !too_old(&error) && is_readable(&chip, offset) {
                let detail = format!(
                    "GPIO line {name} ({}, line {offset}) can be read, but its edges are not reported: {error}; \
                     connect the interrupt line of the expander that it is on, or use a line of the board itself",
                    chip.name()
                );
                return Fault::new(FaultCode::Io, detail);
            }
            request_fault(&name, &chip, offset, "an input", &error)
        })?;
        let buffer = vec![0; request.edge_event_u64_size() * EVENTS_A_READ];
        let chip = Node::watch(chip.path());
        // Panics outside of a runtime, which the trait rules out. An AsyncFd of our own would take unsafe code.
        Ok(Self { request: AsyncRequest::new(request), name, chip, buffer, asleep: Asleep::default() })
    }

    fn fault(&self, what: &str, error: &dyn std::fmt::Display) -> Fault {
        let code = if self.chip.exists() { FaultCode::Io } else { FaultCode::Unplugged };
        Fault::new(code, format!("GPIO line {} {what}: {error}", self.name))
    }
}

impl InputLine for LinuxLine {
    fn level(&mut self) -> Result<bool, Fault> {
        let value = self.request.as_ref().lone_value().map_err(|error| self.fault("cannot be read", &error))?;
        Ok(value == Value::Active)
    }

    fn edges(&mut self) -> BoxFuture<'_, Result<Vec<Edge>, Fault>> {
        Box::pin(async move {
            // Waits first and then reads without a further wait: whoever cancels the wait loses no edge.
            let read = tokio::select! {
                biased;
                read = self.request.read_edge_events_into_slice(&mut self.buffer) => read,
                () = has_left(&self.chip) => return Err(self.fault("gives no edges", &"its chip is gone")),
            };
            read.and_then(|words| self.all_from(words)).map_err(|error| self.fault("gives no edges", &error))
        })
    }
}

impl LinuxLine {
    /// The edges in the first `words` of the buffer, and those that the kernel has besides.
    fn all_from(&mut self, mut words: usize) -> Result<Vec<Edge>, Error> {
        let size = self.request.as_ref().edge_event_u64_size();
        let mut edges = Vec::with_capacity(words / size);
        loop {
            self.asleep.look();
            for raw in self.buffer[..words].chunks_exact(size) {
                let event = self.request.as_ref().edge_event_from_slice(raw)?;
                edges.push(Edge {
                    at: self.asleep.boot_time(event.timestamp_ns),
                    active: event.kind == EdgeKind::Rising,
                    sequence: event.line_seqno,
                });
            }
            // Where edges come faster than they are read, others must have their turn too.
            if edges.len() >= KERNEL_EVENTS as usize || !self.request.as_ref().has_edge_event()? {
                return Ok(edges);
            }
            // Read by the same call as the first ones: it takes note when the last edge is read. Without that note it
            // would look for further ones for ever.
            let Some(read) = self.request.read_edge_events_into_slice(&mut self.buffer).now_or_never() else {
                return Ok(edges);
            };
            words = read?;
        }
    }
}

/// Resolves a little after a chip has gone.
async fn has_left(chip: &Node) {
    chip.gone().await;
    tokio::time::sleep(LEAVING).await;
}

pub(super) struct LinuxOutput {
    request: Request,
    offset: u32,
    /// How messages call it.
    name: String,
}

impl LinuxOutput {
    pub(super) fn request(settings: &OutputSettings) -> Result<Self, Fault> {
        let (chip, offset) = locate(&settings.line, false)?;
        let name = settings.line.to_string();
        let mut builder = Request::builder();
        builder.on_chip(chip.path()).with_consumer(CONSUMER).with_line(offset).as_output(level(settings.active));
        if settings.active_low {
            builder.as_active_low();
        }
        let request = builder.request().map_err(|error| request_fault(&name, &chip, offset, "an output", &error))?;
        Ok(Self { request, offset, name })
    }
}

impl OutputLine for LinuxOutput {
    fn set(&mut self, active: bool) -> Result<(), Fault> {
        self.request
            .set_value(self.offset, level(active))
            .map(drop)
            .map_err(|error| Fault::new(FaultCode::Io, format!("GPIO line {} cannot be driven: {error}", self.name)))
    }
}

fn level(active: bool) -> Value {
    if active { Value::Active } else { Value::Inactive }
}

/// How far the boot clock is ahead of CLOCK_MONOTONIC, on which the kernel stamps edges: what the machine has slept
/// since it was started.
#[derive(Debug, Default)]
struct Asleep {
    nanos: u64,
    /// What was slept before the last sleep, and the time on CLOCK_MONOTONIC at which that was still so.
    before: (u64, u64),
    looked: u64,
}

/// The two clocks cannot be read at the same moment: if they differ by less than this from what they did before, in
/// nanoseconds, then only for that reason. No machine sleeps and wakes in less.
const SHORTEST_SLEEP: u64 = 50_000_000;

impl Asleep {
    /// Looks at the clocks.
    fn look(&mut self) {
        let monotonic = nanos(ClockId::Monotonic);
        self.update(monotonic, nanos(ClockId::Boottime));
    }

    fn update(&mut self, monotonic: u64, boot: u64) {
        let ahead = boot.saturating_sub(monotonic);
        if ahead.abs_diff(self.nanos) >= SHORTEST_SLEEP {
            self.before = (self.nanos, self.looked);
            self.nanos = ahead;
        }
        self.looked = monotonic;
    }

    /// A time of the kernel's on the boot clock. An edge between the last look before a sleep and that sleep cannot be
    /// told from one after it, and counts as such.
    fn boot_time(&self, monotonic: u64) -> BootTime {
        let (before, until) = self.before;
        BootTime(monotonic.saturating_add(if monotonic <= until { before } else { self.nanos }))
    }
}

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or_default())
}

/// The chip and offset of a line, if it is one to take.
fn locate(line: &LineId, reserved: bool) -> Result<(Chip, u32), Fault> {
    let (chip, label, offset) = match line {
        LineId::Offset { chip, offset } => {
            let path = PathBuf::from(format!("/dev/{chip}"));
            let chip = open_chip(&path)?;
            let info = chip.info().map_err(|error| chip_fault(&path, &error))?;
            if *offset >= info.num_lines {
                let (path, last) = (path.display(), info.num_lines.saturating_sub(1));
                let detail = format!("{path} has the lines 0 to {last}, so {line} is not there");
                return Err(Fault::new(FaultCode::Missing, detail));
            }
            (chip, info.label, *offset)
        }
        LineId::Name(name) => locate_name(name)?,
    };
    if reserved || !HEADER_CHIPS.contains(&label.as_str()) {
        return Ok((chip, offset));
    }
    let needed_for = match header::Line::of_bcm(offset) {
        Some(line) if line.is_reserved() => "the ID EEPROM of a HAT",
        Some(_) => return Ok((chip, offset)),
        None => "something inside of the board (SD card, Wi-Fi, LEDs)",
    };
    let detail = format!(
        "GPIO line {line} ({}, line {offset}) is not taken, because it is for {needed_for}: choose another one; if you \
         are sure (a Compute Module, no HAT), say `allow_reserved = true`",
        chip.name()
    );
    Err(Fault::new(FaultCode::Busy, detail))
}

/// The chip with its label, and the offset, of the line of that name.
fn locate_name(name: &str) -> Result<(Chip, String, u32), Fault> {
    let on_header = header::Line::of_name(name).map(|line| u32::from(line.bcm));
    let mut closed = None;
    let mut by_name = None;
    let mut searched = Vec::new();
    for path in gpiocdev::chip::chips().unwrap_or_default() {
        let looked = open_chip(&path).and_then(|chip| {
            let info = chip.info().map_err(|error| chip_fault(&path, &error))?;
            Ok((chip, info))
        });
        let (chip, info) = match looked {
            Ok(looked) => looked,
            Err(fault) => {
                closed = Some(fault);
                continue;
            }
        };
        if let Some(offset) = on_header.filter(|_| HEADER_CHIPS.contains(&info.label.as_str())) {
            return Ok((chip, info.label, offset));
        }
        searched.push(info.name);
        if by_name.is_none()
            && let Some(line) = chip.find_line_info(name)
        {
            by_name = Some((chip, info.label, line.offset));
        }
    }
    if let Some(found) = by_name {
        return Ok(found);
    }
    Err(match closed {
        Some(fault) => fault,
        None if searched.is_empty() => Fault::new(
            FaultCode::Missing,
            format!("there is no GPIO chip (/dev/gpiochip*), so the line {name} cannot be taken"),
        ),
        None => Fault::new(
            FaultCode::Missing,
            format!("no line is called {name} on {}; `gpioinfo` lists their names", searched.join(", ")),
        ),
    })
}

pub(super) fn open_chip(path: &Path) -> Result<Chip, Fault> {
    Chip::from_path(path).map_err(|error| chip_fault(path, &error))
}

pub(super) fn chip_fault(path: &Path, error: &Error) -> Fault {
    match error {
        Error::Os(errno) => {
            let missing = "`ls /dev/gpiochip*` shows the chips there are";
            node_fault(path, &std::io::Error::from_raw_os_error(errno.0), missing)
        }
        _ => Fault::new(FaultCode::Io, format!("{} cannot be used: {error}", path.display())),
    }
}

/// Does the kernel lack what it has had since Linux 5.10?
fn too_old(error: &Error) -> bool {
    matches!(error, Error::AbiLimitation(..) | Error::UnsupportedAbi(..) | Error::NoAbiSupport())
}

/// Can the line be taken as long as no edges are asked for? Then its chip has no interrupts.
fn is_readable(chip: &Chip, offset: u32) -> bool {
    Request::builder().on_chip(chip.path()).with_consumer(CONSUMER).with_line(offset).as_input().request().is_ok()
}

/// Why the kernel refused a line: most often because somebody holds it.
fn request_fault(name: &str, chip: &Chip, offset: u32, purpose: &str, error: &Error) -> Fault {
    in_use(name, chip, offset).unwrap_or_else(|| {
        let why = if too_old(error) {
            "the kernel is too old, or built without the character device; times of edges, debounce and the count of \
             edges need Linux 5.10 or newer"
                .to_owned()
        } else {
            error.to_string()
        };
        Fault::new(FaultCode::Io, format!("GPIO line {name} cannot be taken as {purpose}: {why}"))
    })
}

/// The fault of a line that somebody holds.
fn in_use(name: &str, chip: &Chip, offset: u32) -> Option<Fault> {
    let info = chip.line_info(offset).ok().filter(|info| info.used)?;
    let holder = if info.consumer.is_empty() { "the kernel" } else { &info.consumer };
    let detail = format!(
        "GPIO line {name} ({}, line {offset}) is in use by `{holder}`: stop that program, or remove the overlay that \
         claims the line",
        chip.name()
    );
    Some(Fault::new(FaultCode::Busy, detail))
}

/// A fault if the line is not there, is not one to take, or somebody holds it, as the kernel knows.
#[cfg(feature = "rppal")]
pub(in crate::hardware) fn check_free(line: &LineId, reserved: bool) -> Result<(), Fault> {
    let (chip, offset) = locate(line, reserved)?;
    in_use(&line.to_string(), &chip, offset).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chip_that_is_not_there_is_missing() {
        let line = LineId::Offset { chip: "gpiochip250".to_owned(), offset: 3 };
        let fault = locate(&line, false).expect_err("no such chip");
        assert_eq!(fault.code, FaultCode::Missing);
        assert!(fault.detail.contains("/dev/gpiochip250"), "{fault}");
    }

    #[test]
    fn edges_keep_even_times_on_the_boot_clock_and_are_moved_by_a_sleep_only() {
        const SECOND: u64 = 1_000_000_000;
        let mut asleep = Asleep::default();
        asleep.update(10 * SECOND, 10 * SECOND + 1_000);
        assert_eq!(asleep.boot_time(9 * SECOND), BootTime(9 * SECOND), "reading a clock takes a microsecond");
        asleep.update(11 * SECOND, 71 * SECOND);
        assert_eq!(asleep.boot_time(11 * SECOND), BootTime(71 * SECOND));
        assert_eq!(asleep.boot_time(9 * SECOND), BootTime(9 * SECOND), "surely before the sleep");
        asleep.update(12 * SECOND, 72 * SECOND + 9_000);
        assert_eq!(asleep.boot_time(12 * SECOND), BootTime(72 * SECOND), "not moved by how long a look takes");
    }

    #[test]
    fn this_machines_clocks_agree() {
        let mut asleep = Asleep::default();
        asleep.look();
        let first = asleep.boot_time(asleep.looked);
        asleep.look();
        let second = asleep.boot_time(asleep.looked);
        assert!(first <= second && second <= BootTime(nanos(ClockId::Boottime)));
    }
}
