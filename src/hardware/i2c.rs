//! I2C buses that several sensors share, with multiplexers on them.
//!
//! A bus is taken for a transaction, never across a chip's waiting time. The channel of a multiplexer is opened and
//! closed while it is taken, so that a chip behind one never answers for another with the same address.
//!
//! A transfer that hangs in the kernel cannot be cancelled. Who waits for the bus behind it gives up after
//! [`BUS_PATIENCE`], with an error that names the transfer, and the bus works on once the transfer has returned.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use embedded_hal::i2c::{ErrorKind, ErrorType, I2c, Operation};

use crate::reading::FaultCode;

/// Channels of a TCA9548A or PCA9548A; its smaller relatives have fewer.
pub const MUX_CHANNELS: u8 = 8;

/// The addresses that a TCA9548A or PCA9548A can have (SCPS207, 8.5.1: 1110 and the three address pins).
pub const MUX_ADDRESSES: std::ops::RangeInclusive<u8> = 0x70..=0x77;

/// How long a transaction waits for the bus. The kernel gives a transfer up after a second with most adapters; a
/// sensor's deadline (5 s unless configured) shall not pass before it knows why it has no reading.
pub const BUS_PATIENCE: Duration = Duration::from_secs(3);

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
    shared: Arc<Shared>,
    channel: Option<MuxChannel>,
}

struct Shared {
    state: Mutex<State>,
    /// Told when a transfer has come back.
    returned: Condvar,
    patience: Duration,
}

struct State {
    /// `None` while a transfer runs, which has it.
    adapter: Option<Adapter>,
    running: Option<Running>,
}

/// A transfer on its way.
#[derive(Clone, Copy)]
struct Running {
    address: u8,
    since: Instant,
}

struct Adapter {
    bus: Box<RawI2c>,
    /// The channel that is open; at most one is, on all multiplexers of the bus together.
    open: Option<MuxChannel>,
}

impl I2cBus {
    /// Shares a bus.
    #[must_use]
    pub fn new(bus: Box<RawI2c>) -> Self {
        Self::with_patience(bus, BUS_PATIENCE)
    }

    fn with_patience(bus: Box<RawI2c>, patience: Duration) -> Self {
        let state = State { adapter: Some(Adapter { bus, open: None }), running: None };
        Self {
            shared: Arc::new(Shared { state: Mutex::new(state), returned: Condvar::new(), patience }),
            channel: None,
        }
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
        self.shared.take(address)?.transaction(self.channel, address, operations)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the bus and takes it.
    fn take(&self, address: u8) -> Result<Taken<'_>, I2cError> {
        let start = Instant::now();
        let mut state = self.lock();
        loop {
            if let Some(adapter) = state.adapter.take() {
                state.running = Some(Running { address, since: Instant::now() });
                return Ok(Taken { shared: self, adapter: Some(adapter) });
            }
            // Behind a transfer that has already run that long nobody waits again.
            let busy_since = state.running.map_or(start, |running| running.since);
            let waited = start.elapsed().max(busy_since.elapsed());
            let Some(left) = self.patience.checked_sub(waited) else { return Err(hangs(state.running)) };
            state = self.returned.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The error of a transaction that did not get the bus.
fn hangs(running: Option<Running>) -> I2cError {
    let holder = running.map_or_else(String::new, |Running { address, since }| {
        format!(": a transfer to address {address:#04x} has been running for {:.1} s", since.elapsed().as_secs_f32())
    });
    I2cError { kind: ErrorKind::Bus, code: FaultCode::BusHang, message: format!("the bus hangs{holder}") }
}

/// The adapter, until it is given back.
struct Taken<'a> {
    shared: &'a Shared,
    /// Always there until the drop.
    adapter: Option<Adapter>,
}

impl Taken<'_> {
    fn transaction(
        &mut self,
        channel: Option<MuxChannel>,
        address: u8,
        operations: &mut [Operation<'_>],
    ) -> Result<(), I2cError> {
        let adapter = self.adapter.as_mut().expect("given back by the drop alone");
        adapter.select(channel)?;
        let outcome = adapter.bus.transaction(address, operations);
        if outcome.is_err() {
            // A multiplexer that lost its power has forgotten its channel: the next transaction opens it anew.
            adapter.close();
        }
        outcome
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.adapter = self.adapter.take();
        state.running = None;
        drop(state);
        self.shared.returned.notify_one();
    }
}

impl Adapter {
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

    /// A bus on which each transfer hangs until the sender is gone.
    struct Hanging(std::sync::mpsc::Receiver<()>);

    impl ErrorType for Hanging {
        type Error = I2cError;
    }

    impl I2c for Hanging {
        fn transaction(&mut self, _address: u8, _operations: &mut [Operation<'_>]) -> Result<(), I2cError> {
            let _ = self.0.recv();
            Ok(())
        }
    }

    #[test]
    fn behind_a_transfer_that_hangs_others_learn_which_one_it_is_and_all_recover() {
        let (release, held) = std::sync::mpsc::channel();
        let bus = I2cBus::with_patience(Box::new(Hanging(held)), Duration::from_millis(20));
        std::thread::scope(|scope| {
            let hanging = scope.spawn(|| bus.clone().write(0x76, &[0]));
            while bus.shared.lock().running.is_none() {
                std::thread::yield_now();
            }
            for _ in 0..3 {
                let error = bus.clone().write(0x23, &[0]).expect_err("the bus is held");
                assert_eq!(error.code, FaultCode::BusHang);
                assert!(error.message.contains("a transfer to address 0x76 has been running for"), "{error}");
            }
            drop(release);
            hanging.join().expect("no panic").expect("the transfer came back");
        });
        bus.clone().write(0x23, &[0]).expect("the bus is free");
    }

    #[test]
    fn a_panic_in_a_transfer_gives_the_bus_back() {
        struct Panics(bool);
        impl ErrorType for Panics {
            type Error = I2cError;
        }
        impl I2c for Panics {
            fn transaction(&mut self, _: u8, _: &mut [Operation<'_>]) -> Result<(), I2cError> {
                assert!(std::mem::replace(&mut self.0, true), "the first time");
                Ok(())
            }
        }
        let bus = I2cBus::new(Box::new(Panics(false)));
        let panicked = std::thread::spawn({
            let mut bus = bus.clone();
            move || bus.write(0x23, &[0])
        });
        panicked.join().expect_err("the panic goes on");
        bus.clone().write(0x23, &[0]).expect("the bus is free");
    }
}
