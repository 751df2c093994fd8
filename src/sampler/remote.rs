//! What others may ask of a running sensor: to carry out a command, or to let go of its device for a while.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{pending, poll_fn};

use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::BootTime;

/// Commands that may wait for a sensor. A further one is refused.
pub const MAX_WAITING: usize = 8;

/// A command on its way to a sensor's device.
#[derive(Debug)]
pub struct Order {
    /// As it was sent to `…/set`; at most [`MAX_BYTES`](crate::command::MAX_BYTES).
    pub payload: Box<[u8]>,
    /// It is not carried out after this time.
    pub until: BootTime,
    /// Told once: done, or why not.
    pub done: oneshot::Sender<Result<(), String>>,
}

/// The end that others hold.
#[derive(Clone, Debug)]
pub struct Remote {
    /// To the device; full when [`MAX_WAITING`] wait.
    pub orders: mpsc::Sender<Order>,
    /// Until when the sensor lets go of its device; a time that has passed is as good as none.
    pub paused: watch::Sender<Option<BootTime>>,
    /// Has it let go?
    pub resting: watch::Receiver<bool>,
}

/// The ends of all sensors that run, by their names.
#[derive(Debug, Default)]
pub struct Remotes(RefCell<BTreeMap<String, Remote>>);

impl Remotes {
    /// A sensor begins to run.
    pub fn insert(&self, sensor: &str, remote: Remote) {
        self.0.borrow_mut().insert(sensor.to_owned(), remote);
    }

    /// A sensor runs no longer.
    pub fn remove(&self, sensor: &str) {
        self.0.borrow_mut().remove(sensor);
    }

    /// That sensor's end.
    #[must_use]
    pub fn get(&self, sensor: &str) -> Option<Remote> {
        self.0.borrow().get(sensor).cloned()
    }

    /// All names, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.borrow().keys().cloned().collect()
    }
}

impl<const N: usize> From<[(String, Remote); N]> for Remotes {
    fn from(ends: [(String, Remote); N]) -> Self {
        Self(RefCell::new(ends.into()))
    }
}

/// The sensor's end.
#[derive(Debug)]
pub struct Reins {
    orders: RefCell<mpsc::Receiver<Order>>,
    /// Until when to let go of the device.
    pub paused: watch::Receiver<Option<BootTime>>,
    /// The device is free.
    pub resting: watch::Sender<bool>,
    /// How many commands there have been.
    commands: Cell<u32>,
}

impl Reins {
    /// The number of the next command, from 1. None comes again after a pause or a fault: a late answer to the command
    /// before must not be taken for one to the next.
    pub fn next_number(&self) -> u32 {
        let number = self.commands.get().checked_add(1).unwrap_or(1);
        self.commands.set(number);
        number
    }

    /// The next command, in order. Never resolves once the other end is gone. Cancelling the wait loses none.
    pub async fn order(&self) -> Order {
        match poll_fn(|context| self.orders.borrow_mut().poll_recv(context)).await {
            Some(order) => order,
            None => pending().await,
        }
    }
}

/// Both ends.
#[must_use]
pub fn remote() -> (Remote, Reins) {
    let (orders, waiting) = mpsc::channel(MAX_WAITING);
    let (paused, pause) = watch::channel(None);
    let (rests, resting) = watch::channel(false);
    let reins = Reins { orders: RefCell::new(waiting), paused: pause, resting: rests, commands: Cell::new(0) };
    (Remote { orders, paused, resting }, reins)
}
