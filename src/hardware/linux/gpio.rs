//! GPIO lines through the character device (Documentation/userspace-api/gpio/chardev.rst).

use std::path::{Path, PathBuf};

use gpiocdev::line::{EdgeDetection, EdgeKind, EventClock, Value};
use gpiocdev::tokio::AsyncRequest;
use gpiocdev::{Chip, Error, Request};
use rustix::time::{ClockId, clock_gettime};

use super::node_fault;
use crate::clock::BootTime;
use crate::hardware::{Bias, BoxFuture, Edge, InputLine, LineId, LineSettings, OutputLine, OutputSettings};
use crate::reading::{Fault, FaultCode};

/// Who holds our lines, as `gpioinfo` shows it.
const CONSUMER: &str = "vigie";

/// Edges that the kernel keeps for us until we read them; it holds at most 1024 for one line and drops the oldest
/// beyond that.
const KERNEL_EVENTS: u32 = 1024;

/// Edges taken over with one read.
const EVENTS_A_READ: usize = 64;

/// Controllers whose line N is the Pi's BCM number N. Some kernels give header lines other names than GPIO<N>, such as
/// SDA1; then the number leads to the line.
const HEADER_CHIPS: [&str; 3] = ["pinctrl-bcm2835", "pinctrl-bcm2711", "pinctrl-rp1"];

pub(super) struct LinuxLine {
    request: AsyncRequest,
    /// How messages call it.
    name: String,
    chip: PathBuf,
    buffer: Vec<u64>,
}

impl LinuxLine {
    pub(super) fn request(settings: &LineSettings) -> Result<Self, Fault> {
        let (chip, offset) = locate(&settings.line)?;
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
            .with_edge_detection(EdgeDetection::BothEdges)
            .with_event_clock(EventClock::Monotonic);
        if settings.active_low {
            builder.as_active_low();
        }
        if !settings.debounce.is_zero() {
            builder.with_debounce_period(settings.debounce);
        }
        let request = builder.request().map_err(|error| request_fault(&name, &chip, offset, "an input", &error))?;
        let buffer = vec![0; request.edge_event_u64_size() * EVENTS_A_READ];
        // Panics outside of a runtime, which the trait rules out. An AsyncFd of our own would take unsafe code.
        Ok(Self { request: AsyncRequest::new(request), name, chip: chip.path().to_owned(), buffer })
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
            match self.request.read_edge_events_into_slice(&mut self.buffer).await {
                Ok(words) => edges_of(self.request.as_ref(), &self.buffer[..words]),
                Err(error) => Err(error),
            }
            .map_err(|error| self.fault("gives no edges", &error))
        })
    }
}

pub(super) struct LinuxOutput {
    request: Request,
    offset: u32,
    /// How messages call it.
    name: String,
}

impl LinuxOutput {
    pub(super) fn request(settings: &OutputSettings) -> Result<Self, Fault> {
        let (chip, offset) = locate(&settings.line)?;
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

fn edges_of(request: &Request, raw: &[u64]) -> Result<Vec<Edge>, Error> {
    let asleep = time_asleep();
    raw.chunks_exact(request.edge_event_u64_size())
        .map(|raw| {
            let event = request.edge_event_from_slice(raw)?;
            Ok(Edge {
                at: BootTime(event.timestamp_ns.saturating_add(asleep)),
                active: event.kind == EdgeKind::Rising,
                sequence: event.line_seqno,
            })
        })
        .collect()
}

/// Nanoseconds by which the boot clock is ahead of CLOCK_MONOTONIC, on which the kernel stamps edges: what the machine
/// has slept since it was started.
pub(in crate::hardware) fn time_asleep() -> u64 {
    let nanos = |clock| {
        let time = clock_gettime(clock);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or_default())
    };
    let monotonic = nanos(ClockId::Monotonic);
    let boot = nanos(ClockId::Boottime);
    // The two are read one after the other; a machine that never slept must not seem to have slept for nanoseconds.
    let ahead = boot.saturating_sub(monotonic);
    if ahead < NEVER_SLEPT { 0 } else { ahead }
}

/// Below this, the two clocks differ only because they were not read at the same moment, in nanoseconds.
const NEVER_SLEPT: u64 = 1_000_000;

/// The chip and offset of a line.
fn locate(line: &LineId) -> Result<(Chip, u32), Fault> {
    match line {
        LineId::Offset { chip, offset } => {
            let path = PathBuf::from(format!("/dev/{chip}"));
            let chip = open_chip(&path)?;
            let lines = chip.info().map_err(|error| chip_fault(&path, &error))?.num_lines;
            if *offset < lines {
                return Ok((chip, *offset));
            }
            let detail = format!("{} has the lines 0 to {}, so {line} is not there", path.display(), lines - 1);
            Err(Fault::new(FaultCode::Missing, detail))
        }
        LineId::Name(name) => locate_name(name),
    }
}

fn locate_name(name: &str) -> Result<(Chip, u32), Fault> {
    let header_number = name.strip_prefix("GPIO").and_then(|number| number.parse::<u32>().ok());
    let mut closed = None;
    let mut by_number = None;
    let mut searched = Vec::new();
    for path in gpiocdev::chip::chips().unwrap_or_default() {
        let chip = match open_chip(&path) {
            Ok(chip) => chip,
            Err(fault) => {
                closed = Some(fault);
                continue;
            }
        };
        if let Some(info) = chip.find_line_info(name) {
            return Ok((chip, info.offset));
        }
        searched.push(chip.name());
        if let (Some(number), Ok(info)) = (header_number, chip.info())
            && HEADER_CHIPS.contains(&info.label.as_str())
            && number < info.num_lines
        {
            by_number = Some((chip, number));
        }
    }
    if let Some(found) = by_number {
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

fn open_chip(path: &Path) -> Result<Chip, Fault> {
    Chip::from_path(path).map_err(|error| chip_fault(path, &error))
}

fn chip_fault(path: &Path, error: &Error) -> Fault {
    match error {
        Error::Os(errno) => {
            let missing = "`ls /dev/gpiochip*` shows the chips there are";
            node_fault(path, &std::io::Error::from_raw_os_error(errno.0), missing)
        }
        _ => Fault::new(FaultCode::Io, format!("{} cannot be used: {error}", path.display())),
    }
}

/// Why the kernel refused a line: most often because somebody holds it.
fn request_fault(name: &str, chip: &Chip, offset: u32, purpose: &str, error: &Error) -> Fault {
    in_use(name, chip, offset)
        .unwrap_or_else(|| Fault::new(FaultCode::Io, format!("GPIO line {name} cannot be taken as {purpose}: {error}")))
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

/// A fault if the line is not there, or somebody holds it, as the kernel knows.
#[cfg(feature = "rppal")]
pub(in crate::hardware) fn check_free(line: &LineId) -> Result<(), Fault> {
    let (chip, offset) = locate(line)?;
    in_use(&line.to_string(), &chip, offset).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chip_that_is_not_there_is_missing() {
        let line = LineId::Offset { chip: "gpiochip250".to_owned(), offset: 3 };
        let fault = locate(&line).expect_err("no such chip");
        assert_eq!(fault.code, FaultCode::Missing);
        assert!(fault.detail.contains("/dev/gpiochip250"), "{fault}");
    }

    #[test]
    fn a_machine_that_never_slept_has_its_edges_on_the_boot_clock_as_they_are() {
        let asleep = time_asleep();
        assert!(asleep == 0 || asleep >= NEVER_SLEPT);
    }
}
