//! What others may ask of a running sensor: to carry out a command, or to let go of its device for a while.

use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::BootTime;
use crate::command::Command;

/// Commands that may wait for a sensor. A further one is refused.
pub const MAX_WAITING: usize = 8;

/// A command on its way to a sensor's device.
#[derive(Debug)]
pub struct Order {
    /// The command.
    pub command: Command,
    /// Told once: done, or why not.
    pub done: oneshot::Sender<Result<(), String>>,
}

/// The end that others hold.
#[derive(Clone, Debug)]
pub struct Remote {
    /// To the device; full when [`MAX_WAITING`] wait.
    pub orders: mpsc::Sender<Order>,
    /// Until when the sensor lets go of its device.
    pub paused: watch::Sender<Option<BootTime>>,
}

/// The sensor's end.
#[derive(Debug)]
pub struct Reins {
    /// Commands to carry out, in order.
    pub orders: mpsc::Receiver<Order>,
    /// Until when to let go of the device.
    pub paused: watch::Receiver<Option<BootTime>>,
}

/// Both ends.
#[must_use]
pub fn remote() -> (Remote, Reins) {
    let (orders, waiting) = mpsc::channel(MAX_WAITING);
    let (paused, pause) = watch::channel(None);
    (Remote { orders, paused }, Reins { orders: waiting, paused: pause })
}
