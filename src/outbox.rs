//! The outbox: what was measured and is not yet acknowledged.

use std::ops::Range;
use std::sync::Arc;

use crate::clock::{BootId, BootTime, WallTime};
use crate::reading::{Descriptor, Value};

/// A position in the outbox. Every quantity of a reading has its own; they only grow, across restarts too.
pub type Seq = u64;

/// What was measured, with its stamp, as the outbox keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Position of the record's first message; the record occupies `seq..seq + body.len()`.
    pub seq: Seq,
    /// The run that took it.
    pub run: u32,
    /// The boot in which it was measured.
    pub boot: BootId,
    /// When it was measured, on the boot clock of that boot.
    pub at: BootTime,
    /// When it was measured, if the wall clock was set at that moment.
    pub time: Option<WallTime>,
    /// What it says.
    pub body: Body,
}

impl Entry {
    /// All positions of the record.
    #[must_use]
    pub fn seqs(&self) -> Range<Seq> {
        self.seq..self.seq + self.body.len()
    }
}

/// The two kinds of record.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Values of a sensor from one observation, at least one; each has a position of its own.
    Reading {
        /// The sensor as it was then.
        descriptor: Arc<Descriptor>,
        /// Index into the descriptor's quantities, and the value.
        values: Vec<(u16, Value)>,
    },
    /// A message taken over from a LAN client, as it came.
    Raw(Raw),
}

impl Body {
    /// How many positions the record occupies.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a record is never empty")]
    pub fn len(&self) -> u64 {
        match self {
            Self::Reading { values, .. } => values.len() as u64,
            Self::Raw(_) => 1,
        }
    }
}

/// A message taken over from a LAN client.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Raw {
    /// Topic.
    pub topic: Box<str>,
    /// Payload.
    pub payload: Box<[u8]>,
    /// Did the client ask for it to be retained?
    pub retain: bool,
}
