//! Listeners whose address this machine does not have at the moment: its network comes later, or went. Their ports are
//! taken all the same, so that clients are served as soon as the address is there.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Those that were without their address when they were looked at last.
#[derive(Debug, Default)]
pub(super) struct Away(Mutex<BTreeSet<SocketAddr>>);

impl Away {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<SocketAddr>> {
        // A set is whole after every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A listener was looked at: is its address there? Each change is said once. Gives whether this is one.
    pub(super) fn note(&self, address: SocketAddr, is_here: bool) -> bool {
        let changed = if is_here { self.lock().remove(&address) } else { self.lock().insert(address) };
        match (changed, is_here) {
            (true, false) => tracing::warn!(
                "no interface of this machine has the address of the embedded broker's listener {address} now: clients \
                 reach it there as soon as one has it (`ip address` shows them); listen = \"{}:{}\" in [broker] would \
                 be all addresses, whichever come",
                if address.is_ipv4() { "0.0.0.0" } else { "[::]" },
                address.port()
            ),
            (true, true) => tracing::info!("the embedded broker's listener {address} has its address now"),
            (false, _) => {}
        }
        changed
    }

    /// Which they are.
    pub(super) fn all(&self) -> Vec<SocketAddr> {
        self.lock().iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_coming_and_going_is_one_change() {
        let (away, listener) = (Away::default(), "192.0.2.7:1883".parse().unwrap());
        assert!(!away.note(listener, true), "as it should be");
        assert!(away.note(listener, false) && !away.note(listener, false));
        assert_eq!(away.all(), [listener]);
        assert!(away.note(listener, true) && !away.note(listener, true));
        assert_eq!(away.all(), []);
    }
}
