//! The broker's looks at its own listeners: connections of ours, which the listener tells apart from a client's by the
//! address that they come from. They take no client's place and are counted nowhere.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The looks that have not been accepted yet; as many as there are listeners at most.
#[derive(Debug, Default)]
pub(super) struct Looks(Mutex<HashMap<SocketAddr, oneshot::Sender<()>>>);

/// A look that was announced. It is forgotten when this is dropped.
#[derive(Debug)]
pub(super) struct Look<'a> {
    looks: &'a Looks,
    from: SocketAddr,
    accepted: oneshot::Receiver<()>,
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        self.looks.lock().remove(&self.from);
    }
}

impl Look<'_> {
    /// Waits until the listener has accepted it.
    pub(super) async fn accepted(mut self) -> Result<(), oneshot::error::RecvError> {
        (&mut self.accepted).await
    }
}

impl Looks {
    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, oneshot::Sender<()>>> {
        // What it holds is whole after every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection from that address will be ours.
    pub(super) fn announce(&self, from: SocketAddr) -> Look<'_> {
        let (sender, accepted) = oneshot::channel();
        self.lock().insert(from, sender);
        Look { looks: self, from, accepted }
    }

    /// A listener has accepted a connection from that address; `true`: it is ours, and no client's.
    pub(super) fn is_ours(&self, from: SocketAddr) -> bool {
        let Some(sender) = self.lock().remove(&from) else { return false };
        // Nobody may wait for it any more.
        let _ = sender.send(());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_look_is_ours_once_and_only_while_somebody_waits() {
        let looks = Looks::default();
        let from: SocketAddr = "127.0.0.1:4000".parse().unwrap();
        assert!(!looks.is_ours(from));
        let look = looks.announce(from);
        assert!(looks.is_ours(from) && !looks.is_ours(from));
        look.accepted().await.unwrap();
        drop(looks.announce(from));
        assert!(!looks.is_ours(from), "nobody waits for it any more: it is a client's");
    }
}
