//! What drivers of chips on SPI have in common: their keys, and how such a chip is opened.

use std::sync::Arc;

use embedded_hal::spi::Mode;

use crate::drivers::{Claim, Open, OptionRow, Parsed, Poller, Source};
use crate::hardware::{Hardware, SpiDevice, SpiPlace, SpiSettings};
use crate::options::Options;
use crate::reading::{Fault, FaultCode};

/// A kind of chip on SPI.
#[derive(Clone, Copy)]
pub struct Info {
    /// The clock's polarity and phase.
    pub mode: Mode,
    /// The fastest clock that it takes, in hertz.
    pub max_hz: u32,
}

/// What a wire of some length on a breadboard takes, in hertz.
const DEFAULT_HZ: u32 = 1_000_000;

impl Info {
    /// The keys `bus`, `chip_select` and `speed`, for people.
    pub(crate) fn options(&self) -> Vec<OptionRow> {
        vec![
            OptionRow {
                name: "bus",
                values: "0 to 255".to_owned(),
                default: Some("0".to_owned()),
                help: "B of `/dev/spidevB.C`.",
            },
            OptionRow {
                name: "chip_select",
                values: "0 to 255".to_owned(),
                default: Some("0".to_owned()),
                help: "C of `/dev/spidevB.C`: on the header CE0 (GPIO8) or CE1 (GPIO7).",
            },
            OptionRow {
                name: "speed",
                values: format!("1 to {} Hz", self.max_hz),
                default: Some(DEFAULT_HZ.min(self.max_hz).to_string()),
                help: "The clock; slower for long wires.",
            },
        ]
    }

    /// Reads the keys; problems are noted there.
    pub(crate) fn parse(&self, options: &Options<'_>) -> SpiSettings {
        let bus = options.optional("bus").unwrap_or(0);
        let chip_select = options.optional("chip_select").unwrap_or(0);
        let max_hz = options.optional_in("speed", 1..=self.max_hz).unwrap_or(DEFAULT_HZ.min(self.max_hz));
        SpiSettings { place: SpiPlace { bus, chip_select }, mode: self.mode, max_hz }
    }
}

/// What the sensor has for itself.
pub(crate) fn claims(settings: &SpiSettings) -> Vec<Claim> {
    vec![Claim::Spi(settings.place)]
}

/// A sensor that is this chip alone. `open` makes the chip ready to be asked; it is called again after each fault.
pub(crate) fn sensor<P: Poller + 'static>(
    settings: SpiSettings,
    open: impl Fn(Chip) -> Result<P, Fault> + Send + Sync + 'static,
) -> Parsed {
    Parsed { claims: claims(&settings), source: Source::Poller(Arc::new(Sensor { settings, open })) }
}

struct Sensor<F> {
    settings: SpiSettings,
    open: F,
}

impl<P: Poller + 'static, F: Fn(Chip) -> Result<P, Fault> + Send + Sync> Open for Sensor<F> {
    fn open(&self, hardware: &dyn Hardware) -> Result<Box<dyn Poller>, Fault> {
        Ok(Box::new((self.open)(Chip::open(&self.settings, hardware)?)?))
    }
}

/// A chip on an SPI bus.
pub(crate) struct Chip {
    device: Box<SpiDevice>,
    place: SpiPlace,
}

impl Chip {
    /// Opens it; sends nothing yet.
    pub(crate) fn open(settings: &SpiSettings, hardware: &dyn Hardware) -> Result<Self, Fault> {
        Ok(Self { device: hardware.spi(settings)?, place: settings.place })
    }

    /// Where it is.
    pub(crate) fn place(&self) -> SpiPlace {
        self.place
    }

    /// Sends as many bytes as it reads, in place.
    pub(crate) fn transfer(&mut self, bytes: &mut [u8]) -> Result<(), Fault> {
        let done = self.device.transfer_in_place(bytes);
        done.map_err(|error| self.says(error.code, error))
    }

    /// A fault of that code, at this chip.
    pub(crate) fn says(&self, code: FaultCode, what: impl std::fmt::Display) -> Fault {
        Fault::new(code, format!("the chip at {}: {what}", self.place))
    }
}
