//! `rate`: one message in each interval, always of the same size, whether there is something to tell or not.
//!
//! Who sees the packets, but not what is in them, then learns nothing of what is measured: neither from when they come, nor
//! from how many or how large they are. Messages wait for their slot, a slot without any is filled with an empty one, and
//! what must be sent again has its slot, too.

use std::time::Duration;

use crate::clock::BootTime;
use crate::config::{FixedRate, Qos};

use super::super::Hub;
use super::super::packet::Head;
use super::{Feed, Fill, Output};

/// The slots of one connection.
#[derive(Debug)]
pub(super) struct Slots {
    every: Duration,
    /// Bytes of a payload.
    pub(super) size: usize,
    /// When the next begins.
    next: BootTime,
    /// The present one has not been used.
    free: bool,
}

impl Slots {
    pub(super) fn new(rate: FixedRate) -> Self {
        Self { every: rate.every, size: rate.size, next: BootTime(0), free: false }
    }

    /// A connection begins: its first slot comes after an interval, however much waits.
    pub(super) fn connected(&mut self, now: BootTime) {
        (self.next, self.free) = (now.after(self.every), false);
    }

    /// Opens the slot that is due; else gives the time of the next.
    fn open(&mut self, now: BootTime) -> Result<(), BootTime> {
        if now < self.next {
            return Err(self.next);
        }
        // What was slept through is not made up for.
        let following = self.next.after(self.every);
        self.next = if following > now { following } else { now.after(self.every) };
        self.free = true;
        Ok(())
    }
}

impl Feed {
    /// May another message go out now? Without a fixed rate always.
    pub(super) fn has_slot(&self) -> bool {
        self.slots.as_ref().is_none_or(|slots| slots.free)
    }

    /// A message went out.
    pub(super) fn use_slot(&mut self) {
        if let Some(slots) = &mut self.slots {
            slots.free = false;
        }
    }

    /// Sends what the slot that is due has room for, or fills it. Gives the time of the next.
    pub(super) fn fill_slot(&mut self, hub: &Hub, output: &mut Output, fill: Fill) -> Option<BootTime> {
        if !fill.readings {
            return None;
        }
        let slots = self.slots.as_mut()?;
        if let Err(next) = slots.open(fill.now) {
            return Some(next);
        }
        let next = slots.next;
        // Nothing waits for others: whatever is there has waited for the slot.
        let _ = self.fill_messages(hub, output, Fill { at_once: true, ..fill });
        if self.has_slot() {
            self.send_filler(hub, output, fill.now);
            self.use_slot();
        }
        Some(next)
    }

    /// An empty message, as large as any other.
    fn send_filler(&mut self, hub: &Hub, output: &mut Output, now: BootTime) {
        let qos = self.terms.qos();
        if qos != Qos::AtMostOnce && self.session.free_status() == 0 {
            // Nothing has been acknowledged for a long time: the link is as good as gone.
            return;
        }
        let Some(message) = self.encoder.filler(&hub.gateway) else { return };
        let (topic, id) = (message.topic, self.session.next_id());
        let integrity = message.integrity.as_ref().map(|(name, sum)| (*name, sum.as_str()));
        let (reading, expiry, content_type) = (None, None, None);
        let head = Head { topic, qos, retain: false, dup: false, id, reading, expiry, content_type, integrity };
        match self.terms.put_publish(&mut output.buffer, head, |out| out.extend_from_slice(message.payload)) {
            Ok(()) if qos == Qos::AtMostOnce => {}
            Ok(()) => self.session.sent_status(now),
            Err(error) => tracing::warn!(topic, "a slot of the fixed rate cannot be filled: {error}"),
        }
    }
}

#[cfg(test)]
mod tests;
