//! What the simulated GPIO expanders have in common: pins to which something is connected, and an interrupt output.
//!
//! Time goes on in steps: each change of an input is given to the chip at its own time, so that a pulse that begins and
//! ends between two transactions is seen by the chip as it would be by a real one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use embedded_hal::i2c::Operation;

use super::{I2cChip, Message, Nak, each_message};
use crate::clock::{BootTime, Clock};
use crate::hardware::sim::world;

/// The pin to which a contact is connected that closes to ground now and then; nothing is at the others.
pub(crate) const CONTACT_PIN: u8 = 3;

/// Changes of the interrupt output that are kept for whoever follows it; older ones are forgotten.
const KEPT_CHANGES: usize = 1024;

/// What is connected to the pins from outside, a bit a pin.
#[derive(Clone, Copy, Default)]
pub(super) struct Outside {
    /// Pins that something drives; the others are open.
    pub(super) driven: u16,
    /// The levels that they are driven to.
    pub(super) high: u16,
}

impl Outside {
    fn set(&mut self, pin: u8, level: Option<bool>) {
        let bit = 1_u16.checked_shl(pin.into()).unwrap_or(0);
        self.driven = if level.is_some() { self.driven | bit } else { self.driven & !bit };
        self.high = if level == Some(true) { self.high | bit } else { self.high & !bit };
    }

    /// The levels of pins that are inputs, with these pull-ups. An open pin without one counts as low.
    pub(super) fn levels(self, pulled_up: u16) -> u16 {
        self.high & self.driven | pulled_up & !self.driven
    }
}

/// A kind of expander, without time.
pub(super) trait Logic: Send {
    /// What is connected changes.
    fn settle(&mut self, outside: Outside);
    /// One message from the bus.
    fn write(&mut self, bytes: &[u8]);
    /// The next byte that the bus reads.
    fn read(&mut self) -> u8;
    /// The levels at the pins.
    fn levels(&self) -> u16;
    /// The level of the interrupt output that is wired to the Pi.
    fn interrupt(&self) -> bool;
}

struct Circuit {
    logic: Box<dyn Logic>,
    outside: Outside,
    seed: u64,
    /// The contact's changes up to here have happened.
    seen: BootTime,
    changes: VecDeque<(BootTime, bool)>,
}

impl Circuit {
    /// Lets happen what happened since the last look.
    fn live_on(&mut self, now: BootTime) {
        loop {
            let (at, closed) = world::next_motion(self.seed, self.seen);
            if at > now {
                break;
            }
            self.seen = at;
            self.contact(closed, at);
        }
    }

    fn contact(&mut self, closed: bool, at: BootTime) {
        self.change(at, |circuit| {
            circuit.outside.set(CONTACT_PIN, closed.then_some(false));
            circuit.logic.settle(circuit.outside);
        });
    }

    /// Does something to the chip at that time, and notes what its interrupt output makes of it.
    fn change<T>(&mut self, at: BootTime, what: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.logic.interrupt();
        let done = what(self);
        let after = self.logic.interrupt();
        if after != before {
            if self.changes.len() == KEPT_CHANGES {
                self.changes.pop_front();
            }
            self.changes.push_back((at, after));
        }
        done
    }
}

/// An expander on the bus.
pub(super) struct Chip {
    address: u8,
    pins: Pins,
}

impl Chip {
    pub(super) fn new(address: u8, logic: Box<dyn Logic>, clock: Arc<dyn Clock>, seed: u64) -> Self {
        let now = clock.boot();
        // Two contacts in a house are not closed by the same hand.
        let seed = seed ^ u64::from(address);
        let mut circuit = Circuit { logic, outside: Outside::default(), seed, seen: now, changes: VecDeque::new() };
        circuit.contact(world::motion(seed, now), now);
        Self { address, pins: Pins { circuit: Arc::new(Mutex::new(circuit)), clock } }
    }
}

impl I2cChip for Chip {
    fn answers(&self, address: u8) -> bool {
        address == self.address
    }

    fn transaction(&mut self, operations: &mut [Operation<'_>]) -> Result<(), Nak> {
        let (mut circuit, now) = self.pins.now();
        each_message(operations, |message| {
            circuit.change(now, |circuit| match message {
                Message::Write(bytes) => circuit.logic.write(bytes),
                Message::Read(buffer) => buffer.fill_with(|| circuit.logic.read()),
            });
            Ok(())
        })
    }

    fn pins(&self) -> Option<Pins> {
        Some(self.pins.clone())
    }
}

/// The other side of an expander: what its pins and its interrupt output are wired to.
#[derive(Clone)]
pub struct Pins {
    circuit: Arc<Mutex<Circuit>>,
    clock: Arc<dyn Clock>,
}

impl Pins {
    fn now(&self) -> (MutexGuard<'_, Circuit>, BootTime) {
        let now = self.clock.boot();
        let mut circuit = self.circuit.lock().unwrap_or_else(PoisonError::into_inner);
        circuit.live_on(now);
        (circuit, now)
    }

    /// Drives a pin from outside to a level from now on; `None` lets it go.
    pub fn drive(&self, pin: u8, level: Option<bool>) {
        let (mut circuit, now) = self.now();
        circuit.change(now, |circuit| {
            circuit.outside.set(pin, level);
            circuit.logic.settle(circuit.outside);
        });
    }

    /// The level at a pin: what the chip puts out, or what is there for it to read.
    #[must_use]
    pub fn level(&self, pin: u8) -> bool {
        self.now().0.logic.levels().checked_shr(pin.into()).unwrap_or(0) & 1 == 1
    }

    /// The level of the interrupt output.
    #[must_use]
    pub fn interrupt(&self) -> bool {
        self.now().0.logic.interrupt()
    }

    /// The changes of the interrupt output since the last call, with the level after each, at most the newest 1,024. An
    /// expander whose interrupt output nobody clears makes no further ones, as a real one.
    #[must_use]
    pub fn interrupt_changes(&self) -> Vec<(BootTime, bool)> {
        self.now().0.changes.drain(..).collect()
    }
}

impl std::fmt::Debug for Pins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pins").finish_non_exhaustive()
    }
}
