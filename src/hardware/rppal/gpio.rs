//! The header's lines through rppal: levels and resistors through the controller's registers.
//!
//! Edges are the kernel's, taken as on Linux: rppal would ask for them in a thread for each line, which ends without a word
//! when its wait is interrupted, as it is when the process is stopped and continued. Edges that come until the line is taken
//! anew would be missed then, and no count would tell.

use std::io;
use std::path::Path;

use ::rppal::gpio::{Error, Gpio, InputPin, Level, OutputPin, Pin};

use crate::hardware::linux::gpio::{LinuxLine, check_free};
use crate::hardware::linux::node_fault;
use crate::hardware::{Bias, BoxFuture, Edge, InputLine, LineId, LineSettings, OutputLine, OutputSettings};
use crate::reading::{Fault, FaultCode};

pub(super) struct RppalInput {
    pin: InputPin,
    active_low: bool,
    kernels: LinuxLine,
}

impl RppalInput {
    pub(super) fn take(settings: &LineSettings) -> Result<Self, Fault> {
        let pin = take(&settings.line, settings.reserved)?;
        // Before edges are asked for: a resistor that is switched makes one.
        let pin = match settings.bias {
            // rppal has no way to leave the resistor as it is.
            Bias::AsIs | Bias::Disabled => pin.into_input(),
            Bias::PullUp => pin.into_input_pullup(),
            Bias::PullDown => pin.into_input_pulldown(),
        };
        let kernels = LinuxLine::request(&LineSettings { bias: Bias::AsIs, ..settings.clone() })?;
        Ok(Self { pin, active_low: settings.active_low, kernels })
    }
}

impl InputLine for RppalInput {
    fn level(&mut self) -> Result<bool, Fault> {
        Ok(self.pin.is_high() != self.active_low)
    }

    fn edges(&mut self) -> BoxFuture<'_, Result<Vec<Edge>, Fault>> {
        self.kernels.edges()
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
    let pin = Gpio::new().and_then(|gpio| gpio.get(number)).map_err(|error| line_fault(&name, error))?;
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

fn line_fault(name: &str, error: Error) -> Fault {
    match error {
        Error::PinUsed(_) => {
            Fault::new(FaultCode::Busy, format!("GPIO line {name} is in use by another sensor of this vigie"))
        }
        Error::PinNotAvailable(_) => Fault::new(
            FaultCode::Missing,
            format!("this board has no GPIO line {name}; `pinout` shows those of the header"),
        ),
        Error::PermissionDenied(path) => node_fault(Path::new(&path), &io::Error::from_raw_os_error(libc::EACCES), ""),
        Error::Io(error) if error.kind() == io::ErrorKind::NotFound => Fault::new(
            FaultCode::Missing,
            format!(
                "GPIO line {name} cannot be taken: rppal found no /dev/gpiomem (/dev/gpiomem0 on a \
                 Raspberry Pi 5) or no /dev/gpiochip of the header; a kernel of Raspberry Pi OS has them"
            ),
        ),
        error => Fault::new(FaultCode::Io, format!("GPIO line {name} cannot be taken: {error}")),
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
            (io(libc::ENOENT), FaultCode::Missing, "/dev/gpiomem"),
            (io(libc::EIO), FaultCode::Io, "GPIO17 cannot be taken"),
        ] {
            let fault = line_fault("GPIO17", error);
            assert!(fault.code == code && fault.detail.contains(part), "{fault}");
        }
    }
}
