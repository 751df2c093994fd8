//! `/dev/spidevB.C` through rppal.

use std::io;
use std::path::PathBuf;

use ::rppal::spi::{Bus, Error, Mode, Segment, SlaveSelect, Spi};
use embedded_hal::spi::{ErrorType, Operation, Phase, Polarity, SpiDevice};

use crate::hardware::linux::spi::{node, open_fault};
use crate::hardware::{SpiError, SpiPlace, SpiSettings};
use crate::reading::{Fault, FaultCode};

/// The controllers that a Raspberry Pi has, by their number.
const BUSES: [Bus; 7] = [Bus::Spi0, Bus::Spi1, Bus::Spi2, Bus::Spi3, Bus::Spi4, Bus::Spi5, Bus::Spi6];

/// Chip selects, by their number; overlays give a controller at most three.
const SELECTS: [SlaveSelect; 4] = [SlaveSelect::Ss0, SlaveSelect::Ss1, SlaveSelect::Ss2, SlaveSelect::Ss3];

pub(super) struct RppalSpi {
    path: PathBuf,
    device: Spi,
}

impl RppalSpi {
    pub(super) fn open(settings: &SpiSettings) -> Result<Self, Fault> {
        let SpiPlace { bus, chip_select } = settings.place;
        let path = node(settings.place);
        let (Some(bus), Some(select)) = (BUSES.get(usize::from(bus)), SELECTS.get(usize::from(chip_select))) else {
            let detail = format!("rppal does not know {}; `backend = \"linux\"` takes any", path.display());
            return Err(Fault::new(FaultCode::Missing, detail));
        };
        let device = Spi::new(*bus, *select, settings.max_hz, mode(settings.mode)).map_err(|error| match error {
            Error::Io(error) => open_fault(settings.place, &error),
            _ => Fault::new(FaultCode::Io, format!("{} cannot be set up: {error}", path.display())),
        })?;
        Ok(Self { path, device })
    }
}

fn mode(mode: embedded_hal::spi::Mode) -> Mode {
    match (mode.polarity, mode.phase) {
        (Polarity::IdleLow, Phase::CaptureOnFirstTransition) => Mode::Mode0,
        (Polarity::IdleLow, Phase::CaptureOnSecondTransition) => Mode::Mode1,
        (Polarity::IdleHigh, Phase::CaptureOnFirstTransition) => Mode::Mode2,
        (Polarity::IdleHigh, Phase::CaptureOnSecondTransition) => Mode::Mode3,
    }
}

impl ErrorType for RppalSpi {
    type Error = SpiError;
}

impl SpiDevice for RppalSpi {
    fn transaction(&mut self, operations: &mut [Operation<'_, u8>]) -> Result<(), SpiError> {
        // What a transfer in place sends, while its buffer takes what comes back.
        let sent: Vec<Vec<u8>> = operations
            .iter()
            .map(|operation| match operation {
                Operation::TransferInPlace(buffer) => buffer.to_vec(),
                _ => Vec::new(),
            })
            .collect();
        let mut segments = Vec::new();
        for (operation, sent) in operations.iter_mut().zip(&sent) {
            match operation {
                Operation::Read(buffer) => segments.push(Segment::with_read(buffer)),
                Operation::Write(bytes) => segments.push(Segment::with_write(bytes)),
                Operation::TransferInPlace(buffer) => segments.push(Segment::new(buffer, sent)),
                Operation::Transfer(buffer, bytes) => {
                    // The longer of the two goes on alone.
                    let both = buffer.len().min(bytes.len());
                    let (first, more_in) = buffer.split_at_mut(both);
                    segments.push(Segment::new(first, &bytes[..both]));
                    segments.push(Segment::with_read(more_in));
                    segments.push(Segment::with_write(&bytes[both..]));
                }
                Operation::DelayNs(nanos) => {
                    let mut micros = nanos.div_ceil(1_000);
                    while micros > 0 {
                        let pause = u16::try_from(micros).unwrap_or(u16::MAX);
                        segments.push(Segment::with_settings(None, Some(&[]), 0, pause, 0, false));
                        micros -= u32::from(pause);
                    }
                }
            }
        }
        segments.retain(|segment| !segment.is_empty() || segment.delay() > 0);
        self.device.transfer_segments(&segments).map_err(|error| SpiError {
            code: FaultCode::Bus,
            message: format!("the transfer on {} failed: {}", self.path.display(), cause(error)),
        })
    }
}

fn cause(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_says_how_to_get_it() {
        let open = |bus, chip_select| {
            let place = SpiPlace { bus, chip_select };
            let settings = SpiSettings { place, mode: embedded_hal::spi::MODE_0, max_hz: 1_000_000 };
            RppalSpi::open(&settings).err().expect("no such device")
        };
        let fault = open(6, 3);
        assert_eq!(fault.code, FaultCode::Missing);
        assert!(fault.detail.contains("/dev/spidev6.3") && fault.detail.contains("spi6-4cs"), "{fault}");
        let fault = open(250, 0);
        assert!(fault.detail.contains("/dev/spidev250.0") && fault.detail.contains("linux"), "{fault}");
    }
}
