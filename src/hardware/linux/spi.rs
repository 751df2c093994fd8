//! `/dev/spidevB.C` (Documentation/spi/spidev.rst).

use std::io;
use std::path::PathBuf;

use embedded_hal::spi::{ErrorType, Operation, Phase, Polarity, SpiDevice};
use linux_embedded_hal::SpidevDevice;
use linux_embedded_hal::spidev::{SpiModeFlags, SpidevOptions};

use super::node_fault;
use crate::hardware::{SpiError, SpiPlace, SpiSettings};
use crate::reading::{Fault, FaultCode};

pub(super) struct LinuxSpi {
    path: PathBuf,
    device: SpidevDevice,
}

impl LinuxSpi {
    pub(super) fn open(settings: &SpiSettings) -> Result<Self, Fault> {
        let path = node(settings.place);
        let mut device = SpidevDevice::open(&path).map_err(|error| open_fault(settings.place, error.inner()))?;
        let mut mode = SpiModeFlags::SPI_MODE_0;
        mode.set(SpiModeFlags::SPI_CPOL, settings.mode.polarity == Polarity::IdleHigh);
        mode.set(SpiModeFlags::SPI_CPHA, settings.mode.phase == Phase::CaptureOnSecondTransition);
        let options = SpidevOptions::new().bits_per_word(8).max_speed_hz(settings.max_hz).mode(mode).build();
        device.configure(&options).map_err(|error| {
            let detail = format!(
                "{} does not take mode {} at up to {} Hz: {error}",
                path.display(),
                mode.bits(),
                settings.max_hz
            );
            Fault::new(FaultCode::Io, detail)
        })?;
        Ok(Self { path, device })
    }
}

/// A device's node.
pub(in crate::hardware) fn node(SpiPlace { bus, chip_select }: SpiPlace) -> PathBuf {
    PathBuf::from(format!("/dev/spidev{bus}.{chip_select}"))
}

/// Why a device cannot be opened, and what to do.
pub(in crate::hardware) fn open_fault(place: SpiPlace, error: &io::Error) -> Fault {
    node_fault(&node(place), error, &how_to_enable(place))
}

fn how_to_enable(SpiPlace { bus, chip_select }: SpiPlace) -> String {
    match (bus, chip_select) {
        (0, 0 | 1) => "enable SPI on the header (`sudo raspi-config nonint do_spi 0`, or `dtparam=spi=on` in \
                       /boot/firmware/config.txt and a restart)"
            .to_owned(),
        _ => format!(
            "see `ls /dev/spidev*` for the devices there are; the header's are 0.0 and 0.1, others need a device-tree \
             overlay (such as `dtoverlay=spi{bus}-{}cs` in /boot/firmware/config.txt)",
            chip_select.saturating_add(1)
        ),
    }
}

impl ErrorType for LinuxSpi {
    type Error = SpiError;
}

impl SpiDevice for LinuxSpi {
    fn transaction(&mut self, operations: &mut [Operation<'_, u8>]) -> Result<(), SpiError> {
        self.device.transaction(operations).map_err(|error| SpiError {
            code: FaultCode::Bus,
            message: format!("the transfer on {} failed: {error}", self.path.display()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_there_says_how_to_get_it() {
        let settings = |bus, chip_select| SpiSettings {
            place: SpiPlace { bus, chip_select },
            mode: embedded_hal::spi::MODE_0,
            max_hz: 1_000_000,
        };
        let fault = LinuxSpi::open(&settings(250, 1)).err().expect("no such bus");
        assert_eq!(fault.code, FaultCode::Missing);
        assert!(fault.detail.contains("/dev/spidev250.1") && fault.detail.contains("spi250-2cs"), "{fault}");
    }
}
