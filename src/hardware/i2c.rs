//! I2C buses that several sensors share, with multiplexers on them.
//!
//! A bus is locked for a transaction, never across a chip's waiting time. The channel of a multiplexer is opened and
//! closed within the lock, so that a chip behind one never answers for another with the same address.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use embedded_hal::i2c::{ErrorKind, ErrorType, I2c, Operation};

use crate::reading::FaultCode;

/// Channels of a TCA9548A or PCA9548A; its smaller relatives have fewer.
pub const MUX_CHANNELS: u8 = 8;

/// The addresses that a TCA9548A or PCA9548A can have (SCPS207, 8.5.1: 1110 and the three address pins).
pub const MUX_ADDRESSES: std::ops::RangeInclusive<u8> = 0x70..=0x77;

/// A channel of a multiplexer whose control register has a bit for each channel (TCA9548A, SCPS207, 8.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MuxChannel {
    /// The multiplexer's own address, 7 bits.
    pub mux: u8,
    /// From 0 to 7.
    pub channel: u8,
}

/// A bus as seen by the chips on it: the adapter's wires, or those behind a multiplexer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct I2cPath {
    /// `/dev/i2c-<bus>`
    pub bus: u8,
    /// `None` for the adapter's own wires.
    pub channel: Option<MuxChannel>,
}

impl fmt::Display for I2cPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(MuxChannel { mux, channel }) = self.channel {
            write!(f, "channel {channel} of the multiplexer {mux:#04x} on ")?;
        }
        write!(f, "I2C bus {}", self.bus)
    }
}

/// What went wrong on an I2C bus.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct I2cError {
    /// The kind in embedded-hal's terms: no acknowledge, arbitration lost…
    pub kind: ErrorKind,
    /// The same as a sensor's fault.
    pub code: FaultCode,
    /// The system's words, with the bus.
    pub message: String,
}

impl I2cError {
    /// Did nobody answer at the address?
    #[must_use]
    pub fn is_no_acknowledge(&self) -> bool {
        matches!(self.kind, ErrorKind::NoAcknowledge(_))
    }
}

impl embedded_hal::i2c::Error for I2cError {
    fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// An I2C bus as the back ends give it: any implementation of embedded-hal's trait with our error.
pub type RawI2c = dyn I2c<Error = I2cError> + Send;

/// A handle to a bus that several drivers share.
#[derive(Clone)]
pub struct I2cBus {
    shared: Arc<Mutex<Shared>>,
    channel: Option<MuxChannel>,
}

struct Shared {
    bus: Box<RawI2c>,
    /// The channel that is open; at most one is, on all multiplexers of the bus together.
    open: Option<MuxChannel>,
}

impl I2cBus {
    /// Shares a bus.
    #[must_use]
    pub fn new(bus: Box<RawI2c>) -> Self {
        Self { shared: Arc::new(Mutex::new(Shared { bus, open: None })), channel: None }
    }

    /// The same bus, as the chips behind that channel are reached; `None` for the adapter's own wires.
    #[must_use]
    pub fn behind(&self, channel: Option<MuxChannel>) -> Self {
        Self { shared: Arc::clone(&self.shared), channel }
    }
}

impl fmt::Debug for I2cBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("I2cBus").field("channel", &self.channel).finish_non_exhaustive()
    }
}

impl ErrorType for I2cBus {
    type Error = I2cError;
}

impl I2c for I2cBus {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), I2cError> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.select(self.channel)?;
        let outcome = shared.bus.transaction(address, operations);
        if outcome.is_err() {
            // A multiplexer that lost its power has forgotten its channel: the next transaction opens it anew.
            shared.close();
        }
        outcome
    }
}

impl Shared {
    fn select(&mut self, wanted: Option<MuxChannel>) -> Result<(), I2cError> {
        if self.open == wanted {
            return Ok(());
        }
        // Opening another channel of the same multiplexer closes the first.
        if self.open.map(|open| open.mux) != wanted.map(|wanted| wanted.mux) {
            self.close();
        }
        let Some(MuxChannel { mux, channel }) = wanted else { return Ok(()) };
        // Until it is known to be open, it counts as open, so that it is closed before anything else.
        self.open = wanted;
        self.bus.write(mux, &[1 << channel]).map_err(|error| {
            self.close();
            I2cError {
                message: format!("the multiplexer {mux:#04x} cannot open its channel {channel}: {error}"),
                ..error
            }
        })
    }

    /// Closes the channel that is open. One that cannot be closed is on a multiplexer that does not answer, which is
    /// told when it is next needed.
    fn close(&mut self) {
        if let Some(MuxChannel { mux, .. }) = self.open.take() {
            let _ = self.bus.write(mux, &[0]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use embedded_hal::i2c::NoAcknowledgeSource;

    use super::*;

    const MUX_A: u8 = 0x70;
    const MUX_B: u8 = 0x71;
    const CHIP: u8 = 0x48;

    /// Two multiplexers with a chip of the same address behind each channel. A read gives the channels that are open.
    #[derive(Default)]
    struct Bus {
        open: [u8; 2],
    }

    impl ErrorType for Bus {
        type Error = I2cError;
    }

    impl I2c for Bus {
        fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), I2cError> {
            for operation in operations {
                match (address, operation) {
                    (MUX_A | MUX_B, Operation::Write(bytes)) => self.open[usize::from(address - MUX_A)] = bytes[0],
                    (CHIP, Operation::Read(buffer)) => buffer.copy_from_slice(&self.open),
                    (CHIP, Operation::Write(bytes)) if *bytes == [0xff] => {
                        // Both lost their power.
                        self.open = [0, 0];
                        return Err(no_acknowledge());
                    }
                    _ => return Err(no_acknowledge()),
                }
            }
            Ok(())
        }
    }

    fn no_acknowledge() -> I2cError {
        let kind = ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address);
        I2cError { kind, code: FaultCode::Bus, message: "nobody acknowledges".to_owned() }
    }

    fn seen(bus: &mut I2cBus) -> [u8; 2] {
        let mut open = [0; 2];
        bus.read(CHIP, &mut open).expect("an acknowledge");
        open
    }

    #[test]
    fn exactly_the_channel_of_a_chip_is_open_while_it_is_spoken_to() {
        let bus = I2cBus::new(Box::<Bus>::default());
        let channel = |mux, channel| bus.behind(Some(MuxChannel { mux, channel }));
        let (mut plain, mut a3, mut a4, mut b3) =
            (bus.clone(), channel(MUX_A, 3), channel(MUX_A, 4), channel(MUX_B, 3));
        let mut wrong = BTreeSet::new();
        // Every order of two.
        for _ in 0..2 {
            for first in 0..4 {
                for second in 0..4 {
                    for place in [first, second] {
                        let (handle, expected) = match place {
                            0 => (&mut plain, [0, 0]),
                            1 => (&mut a3, [1 << 3, 0]),
                            2 => (&mut a4, [1 << 4, 0]),
                            _ => (&mut b3, [0, 1 << 3]),
                        };
                        if seen(handle) != expected {
                            wrong.insert((first, second));
                        }
                    }
                }
            }
        }
        assert_eq!(wrong, BTreeSet::new());
    }

    #[test]
    fn a_multiplexer_that_lost_its_power_is_switched_anew_after_the_error() {
        let bus = I2cBus::new(Box::<Bus>::default());
        let mut behind = bus.behind(Some(MuxChannel { mux: MUX_A, channel: 3 }));
        assert_eq!(seen(&mut behind), [1 << 3, 0]);
        behind.write(CHIP, &[0xff]).expect_err("everything is off");
        assert_eq!(seen(&mut behind), [1 << 3, 0]);
    }

    #[test]
    fn a_multiplexer_that_is_not_there_is_named() {
        let bus = I2cBus::new(Box::<Bus>::default());
        let error = bus.behind(Some(MuxChannel { mux: 0x77, channel: 1 })).read(CHIP, &mut [0]).expect_err("no such");
        assert!(error.is_no_acknowledge() && error.message.contains("multiplexer 0x77"), "{error}");
        assert_eq!(seen(&mut bus.clone()), [0, 0], "others are not harmed");
    }
}
