//! Faults of the broker, which tests bring about.

use std::future::pending;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The next start has the ports and goes no further.
    StartHangs,
    /// The listeners accept nothing any more, until the broker is started anew.
    ListenersHang,
    /// A listener ends.
    ListenerEnds,
    /// The broker's thread panics.
    Panics,
    /// The broker's thread waits for ever, and with it everything that runs there.
    Blocks,
}

/// The faults that are to happen, each once.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<Vec<Fault>>, tokio::sync::Notify);

impl Faults {
    /// Lets it happen.
    pub(crate) fn inject(&self, fault: Fault) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
        self.1.notify_one();
    }

    fn take(&self, fault: Fault) -> bool {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = faults.iter().position(|one| *one == fault);
        found.map(|index| faults.swap_remove(index)).is_some()
    }

    /// A start that is to hang is not waited for as long as others.
    pub(super) fn start_deadline(&self, usual: Duration) -> Duration {
        let faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if faults.contains(&Fault::StartHangs) { Duration::from_millis(500) } else { usual }
    }

    pub(super) async fn at_start(&self) {
        if self.take(Fault::StartHangs) {
            pending::<()>().await;
        }
    }

    /// Before each connection that is accepted; `true`: the listener is to end.
    pub(super) async fn at_accept(&self) -> bool {
        if self.take(Fault::ListenersHang) {
            pending::<()>().await;
        }
        self.take(Fault::ListenerEnds)
    }

    /// For ever, or until the broker is to panic.
    pub(super) async fn at_work(&self) {
        loop {
            assert!(!self.take(Fault::Panics), "as a test wants it");
            if self.take(Fault::Blocks) {
                loop {
                    std::thread::park();
                }
            }
            self.1.notified().await;
        }
    }
}
