//! How the supply of a device is switched off and on again.

use std::time::Duration;

use super::LineId;

/// `power = { … }`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PowerSettings {
    /// The output that switches the supply.
    pub line: LineId,
    /// Low switches the supply on.
    pub active_low: bool,
    /// Faults in a row after which it is switched off and on.
    pub after: u32,
    /// How long it stays off.
    pub off: Duration,
    /// How long the device needs from then on, before it is opened.
    pub settle: Duration,
}
