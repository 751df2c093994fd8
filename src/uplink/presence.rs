//! Whether an uplink is connected, since when, and why not.

use std::cell::RefCell;

use crate::clock::BootTime;

/// How it stands with a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Is there one?
    pub connected: bool,
    /// Since when it has been so.
    pub since: BootTime,
    /// The last failure, while there is none.
    pub why: Option<String>,
}

/// The newest of it.
#[derive(Debug, Default)]
pub struct Presence(RefCell<Link>);

impl Presence {
    /// As it is.
    #[must_use]
    pub fn get(&self) -> Link {
        self.0.borrow().clone()
    }

    /// The uplink begins to try.
    pub(super) fn began(&self, now: BootTime) {
        *self.0.borrow_mut() = Link { connected: false, since: now, why: None };
    }

    /// The broker accepted the connection.
    pub(super) fn came(&self, now: BootTime) {
        *self.0.borrow_mut() = Link { connected: true, since: now, why: None };
    }

    /// The connection is lost, or could not be made.
    pub(super) fn went(&self, now: BootTime, why: &str) {
        let link = &mut *self.0.borrow_mut();
        if std::mem::take(&mut link.connected) {
            link.since = now;
        }
        link.why = Some(why.to_owned());
    }
}
