//! What a power cut would have sent again although it is acknowledged: messages whose records wait on disk, where their
//! acknowledgement is not yet.
//!
//! Together with what is in flight these are kept within the window, or [`AT_LEAST`] where that is less: sending waits
//! for the disk. A reading that is acknowledged before it would be written is never among them, so that an uplink without
//! a backlog never waits.

use std::collections::VecDeque;

use crate::outbox::Outbox;

/// So many messages may be sent again after a power cut even where the window is smaller: with a window of one, each
/// message of a backlog would otherwise cost a page on the card.
pub(super) const AT_LEAST: usize = 100;

/// The messages, and what the outbox had noted when each was acknowledged.
#[derive(Debug, Default)]
pub(super) struct Unsure {
    marks: VecDeque<(u64, usize)>,
    messages: usize,
}

/// The most messages that may be sent again after a power cut, at this window.
fn bound(window: usize) -> usize {
    window.max(AT_LEAST)
}

impl Unsure {
    /// What the last run left is not known: as much as there may be, until the disk knows of it.
    pub(super) fn of_last_run(outbox: &mut Outbox, window: usize) -> Self {
        let mut unsure = Self::default();
        unsure.acknowledged(outbox, bound(window), window);
        unsure
    }

    /// So many messages have just been acknowledged to the outbox.
    pub(super) fn acknowledged(&mut self, outbox: &mut Outbox, messages: usize, window: usize) {
        if messages == 0 || !outbox.acks_wait() {
            return;
        }
        let noted = outbox.acks_noted();
        match self.marks.back_mut() {
            Some((mark, more)) if *mark == noted => *more += messages,
            _ => self.marks.push_back((noted, messages)),
        }
        self.messages += messages;
        // Early enough that sending need not stop while the disk writes.
        if self.messages >= bound(window) / 2 {
            outbox.hurry_acks();
        }
    }

    /// The disk knows of everything that was noted so far.
    pub(super) fn known(&mut self, noted: u64) {
        while let Some((_, messages)) = self.marks.pop_front_if(|(mark, _)| *mark <= noted) {
            self.messages -= messages;
        }
    }

    /// How many messages more may be sent, with so many in flight.
    pub(super) fn room(&self, in_flight: usize, window: usize) -> usize {
        bound(window).saturating_sub(in_flight + self.messages)
    }
}
