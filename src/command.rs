//! What is sent down to a device, and what it answers.

use std::time::Duration;

use crate::clock::BootTime;

/// The longest payload of a command, in bytes.
pub const MAX_BYTES: usize = 1024;

/// The longest text that a sender may give a command to know its result by, in bytes.
pub const MAX_REFERENCE: usize = 128;

/// What was published on a sensor's `…/set`, on its way from an uplink to the sensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The uplink that it came over.
    pub uplink: String,
    /// The sensor's name.
    pub sensor: String,
    /// As it was published; empty if that is longer than [`MAX_BYTES`].
    pub payload: Box<[u8]>,
    /// What the sender knows it by, as far as its packet says that (MQTT 5: correlation data that is a text of at most
    /// [`MAX_REFERENCE`] bytes).
    pub reference: Option<String>,
    /// When it was sent, as far as its packet says that (MQTT 5: the user property `time`, RFC 3339).
    pub time: Option<String>,
    /// When it was read.
    pub at: BootTime,
    /// How old it may be when it reaches its device.
    pub max_age: Duration,
    /// Why the uplink does not accept it; the sender is told.
    pub refused: Option<String>,
}

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
