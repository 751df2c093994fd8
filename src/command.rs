//! What is sent down to a device, and what it answers.

use std::time::Duration;

/// The longest payload of a command, in bytes.
pub const MAX_BYTES: usize = 1024;

/// A command to a device, as it came from a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Ours, counted from 1 for each sensor: what the device repeats when it acknowledges.
    pub id: u32,
    /// As it was sent to `…/set`; at most [`MAX_BYTES`].
    pub payload: Box<[u8]>,
}

/// How a decoder sends a command to its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// What is to be written to the link.
    pub bytes: Vec<u8>,
    /// How long the device has to acknowledge it; `None`: it does not, and the command is done when it was written.
    pub answer_within: Option<Duration>,
}

/// A device's answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Which command; `None` where the device does not say: then the oldest that waits.
    pub id: Option<u32>,
    /// Done, or why not, in the device's words.
    pub outcome: Result<(), String>,
}
