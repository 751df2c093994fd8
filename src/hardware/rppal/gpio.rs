//! The header's lines through rppal: levels through the controller's registers, edges from the kernel.

use std::io;
use std::path::Path;

use ::rppal::gpio::{Error, Event, Gpio, InputPin, Level, OutputPin, Pin, Trigger};
use tokio::sync::mpsc;

use crate::hardware::linux::gpio::{Asleep, check_free};
use crate::hardware::linux::node_fault;
use crate::hardware::{Bias, BoxFuture, Edge, Edges, InputLine, LineId, LineSettings, OutputLine, OutputSettings};
use crate::reading::{Fault, FaultCode};

/// Edges that wait for us: as many as the kernel keeps for one line. What does not fit is missing from the sequence.
const EDGES: usize = 1024;

/// Edges taken over at once.
const EDGES_A_READ: usize = 64;

pub(super) struct RppalInput {
    pin: InputPin,
    events: mpsc::Receiver<Event>,
    asleep: Asleep,
    active_low: bool,
    /// How messages call it.
    name: String,
}

impl RppalInput {
    pub(super) fn take(settings: &LineSettings) -> Result<Self, Fault> {
        let name = settings.line.to_string();
        let pin = take(&settings.line, settings.reserved)?;
        let mut pin = match settings.bias {
            // rppal has no way to leave the resistor as it is.
            Bias::AsIs | Bias::Disabled => pin.into_input(),
            Bias::PullUp => pin.into_input_pullup(),
            Bias::PullDown => pin.into_input_pulldown(),
        };
        let trigger = match (settings.edges, settings.active_low) {
            (Edges::Both, _) => Trigger::Both,
            (Edges::Rising, false) | (Edges::Falling, true) => Trigger::RisingEdge,
            (Edges::Falling, false) | (Edges::Rising, true) => Trigger::FallingEdge,
        };
        let debounce = (!settings.debounce.is_zero()).then_some(settings.debounce);
        // The thread that hands edges on asks the kernel for the line itself, and tells nobody when it does not get it.
        pin.set_interrupt(trigger, debounce).map_err(|error| line_fault(&name, "an input", error))?;
        let (out, events) = mpsc::channel(EDGES);
        pin.set_async_interrupt(trigger, debounce, move |event| {
            let _ = out.try_send(event);
        })
        .map_err(|error| line_fault(&name, "an input", error))?;
        Ok(Self { pin, events, asleep: Asleep::default(), active_low: settings.active_low, name })
    }

    fn edge(&self, event: &Event) -> Edge {
        Edge {
            at: self.asleep.boot_time(u64::try_from(event.timestamp.as_nanos()).unwrap_or(u64::MAX)),
            active: (event.trigger == Trigger::RisingEdge) != self.active_low,
            sequence: event.seqno,
        }
    }
}

impl InputLine for RppalInput {
    fn level(&mut self) -> Result<bool, Fault> {
        Ok(self.pin.is_high() != self.active_low)
    }

    fn edges(&mut self) -> BoxFuture<'_, Result<Vec<Edge>, Fault>> {
        Box::pin(async move {
            let mut events = Vec::new();
            // Cancelled, it has taken none.
            if self.events.recv_many(&mut events, EDGES_A_READ).await == 0 {
                // The thread has let go of its end.
                let detail = format!("GPIO line {} gives no more edges: the kernel took them from rppal", self.name);
                return Err(Fault::new(FaultCode::Io, detail));
            }
            self.asleep.look();
            Ok(events.iter().map(|event| self.edge(event)).collect())
        })
    }
}

pub(super) struct RppalOutput {
    pin: OutputPin,
    active_low: bool,
}

impl RppalOutput {
    pub(super) fn take(settings: &OutputSettings) -> Result<Self, Fault> {
        let pin = take(&settings.line, false)?;
        let pin = if settings.active == settings.active_low { pin.into_output_low() } else { pin.into_output_high() };
        Ok(Self { pin, active_low: settings.active_low })
    }
}

impl OutputLine for RppalOutput {
    fn set(&mut self, active: bool) -> Result<(), Fault> {
        self.pin.write(Level::from(active != self.active_low));
        Ok(())
    }
}

/// A line that nobody else holds, as it is.
fn take(line: &LineId, reserved: bool) -> Result<Pin, Fault> {
    let number = number(line)?;
    let name = line.to_string();
    let pin = Gpio::new().and_then(|gpio| gpio.get(number)).map_err(|error| line_fault(&name, "a line", error))?;
    // rppal would set a line up through the registers whoever holds it.
    check_free(line, reserved)?;
    Ok(pin)
}

/// The BCM number of a line.
fn number(line: &LineId) -> Result<u8, Fault> {
    let number = match line {
        LineId::Name(name) => name.strip_prefix("GPIO").and_then(|number| number.parse().ok()),
        LineId::Offset { .. } => None,
    };
    number.ok_or_else(|| {
        let detail = format!(
            "rppal knows the header's lines by their BCM numbers only, such as GPIO17, and so not {line}; \
             `backend = \"linux\"` takes any line of any chip"
        );
        Fault::new(FaultCode::Missing, detail)
    })
}

fn line_fault(name: &str, purpose: &str, error: Error) -> Fault {
    match error {
        Error::PinUsed(_) => {
            Fault::new(FaultCode::Busy, format!("GPIO line {name} is in use by another sensor of this vigie"))
        }
        Error::PinNotAvailable(_) => Fault::new(
            FaultCode::Missing,
            format!("this board has no GPIO line {name}; `pinout` shows those of the header"),
        ),
        Error::PermissionDenied(path) => node_fault(Path::new(&path), &io::Error::from_raw_os_error(libc::EACCES), ""),
        Error::Io(error) if error.raw_os_error() == Some(libc::EBUSY) => Fault::new(
            FaultCode::Busy,
            format!("GPIO line {name} was taken by somebody else meanwhile; `gpioinfo` shows by whom"),
        ),
        Error::Io(error) if error.kind() == io::ErrorKind::NotFound => Fault::new(
            FaultCode::Missing,
            format!(
                "GPIO line {name} cannot be taken as {purpose}: rppal found no /dev/gpiomem (/dev/gpiomem0 on a \
                 Raspberry Pi 5) or no /dev/gpiochip of the header; a kernel of Raspberry Pi OS has them"
            ),
        ),
        error => Fault::new(FaultCode::Io, format!("GPIO line {name} cannot be taken as {purpose}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_known_by_their_bcm_number() {
        assert_eq!(number(&LineId::Name("GPIO17".to_owned())), Ok(17));
        for line in [
            LineId::Name("SDA1".to_owned()),
            LineId::Name("GPIO".to_owned()),
            LineId::Name("GPIO300".to_owned()),
            LineId::Offset { chip: "gpiochip0".to_owned(), offset: 17 },
        ] {
            let fault = number(&line).expect_err("no number");
            assert!(fault.code == FaultCode::Missing && fault.detail.contains(&line.to_string()), "{fault}");
        }
    }

    #[test]
    fn a_line_that_is_not_to_be_had_says_why() {
        let io = |errno| Error::Io(io::Error::from_raw_os_error(errno));
        for (error, code, part) in [
            (Error::PinUsed(17), FaultCode::Busy, "another sensor of this vigie"),
            (Error::PinNotAvailable(99), FaultCode::Missing, "no GPIO line GPIO17"),
            (Error::PermissionDenied("/dev/gpiomem".to_owned()), FaultCode::Permission, "/dev/gpiomem"),
            (io(libc::EBUSY), FaultCode::Busy, "somebody else"),
            (io(libc::ENOENT), FaultCode::Missing, "/dev/gpiomem"),
            (io(libc::EIO), FaultCode::Io, "GPIO17 cannot be taken as an input"),
        ] {
            let fault = line_fault("GPIO17", "an input", error);
            assert!(fault.code == code && fault.detail.contains(part), "{fault}");
        }
    }
}
