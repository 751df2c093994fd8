//! Commands on their way to a device on a link: written one after the other, beside the readings, and then waiting for
//! their answers.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;

use super::remote::Order;
use crate::clock::BootTime;
use crate::command::{Answer, Command};
use crate::drivers::ByteDecoder;

/// How long the port has to take a command's bytes. One that is full of what was written before takes none.
pub(super) const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// Commands that may wait for an answer. No further one is written before.
pub(super) const MAX_UNANSWERED: usize = 8;

type Done = oneshot::Sender<Result<(), String>>;

/// The commands under way on a sensor's link.
#[derive(Debug, Default)]
pub(super) struct Orders {
    writing: Option<Writing>,
    /// In the order in which they were written.
    unanswered: VecDeque<Unanswered>,
}

#[derive(Debug)]
struct Writing {
    id: u32,
    bytes: Vec<u8>,
    written: usize,
    until: BootTime,
    answer_within: Option<Duration>,
    done: Done,
}

#[derive(Debug)]
struct Unanswered {
    id: u32,
    within: Duration,
    until: BootTime,
    done: Done,
}

/// Whoever has sent a command may have gone; then nobody needs to be told.
fn tell(done: Done, result: Result<(), String>) {
    let _ = done.send(result);
}

impl Orders {
    /// May the next command begin?
    pub(super) fn has_room(&self) -> bool {
        self.writing.is_none() && self.unanswered.len() < MAX_UNANSWERED
    }

    /// Begins a command with this number, for which there must be [room](Self::has_room).
    pub(super) fn begin(&mut self, order: Order, id: u32, decoder: &mut dyn ByteDecoder, now: BootTime) {
        let Order { payload, until, done } = order;
        if now > until {
            return tell(done, Err("it waited too long behind others, and is not carried out".to_owned()));
        }
        match decoder.command(&Command { id, payload }) {
            Ok(outgoing) => {
                let until = now.after(WRITE_WITHIN);
                let (bytes, answer_within) = (outgoing.bytes, outgoing.answer_within);
                self.writing = Some(Writing { id, bytes, written: 0, until, answer_within, done });
                // A command of no bytes is written at once.
                self.wrote(0, now);
            }
            Err(why) => tell(done, Err(why)),
        }
    }

    /// Writes what the decoder asks by itself, unless a command is being written. Nobody waits for the end of it.
    pub(super) fn ask(&mut self, decoder: &mut dyn ByteDecoder, now: BootTime) {
        if self.writing.is_none()
            && let Some(bytes) = decoder.asks()
        {
            let (done, _) = oneshot::channel();
            let until = now.after(WRITE_WITHIN);
            self.writing = Some(Writing { id: 0, bytes, written: 0, until, answer_within: None, done });
        }
    }

    /// What is to be written; empty: nothing.
    pub(super) fn bytes(&self) -> &[u8] {
        self.writing.as_ref().map_or(&[], |writing| &writing.bytes[writing.written..])
    }

    /// So many of these bytes were written.
    pub(super) fn wrote(&mut self, count: usize, now: BootTime) {
        let Some(mut writing) = self.writing.take() else { return };
        writing.written = (writing.written + count).min(writing.bytes.len());
        if writing.written < writing.bytes.len() {
            self.writing = Some(writing);
            return;
        }
        let Writing { id, answer_within, done, .. } = writing;
        match answer_within {
            Some(within) => self.unanswered.push_back(Unanswered { id, within, until: now.after(within), done }),
            None => tell(done, Ok(())),
        }
    }

    /// The device has answered.
    pub(super) fn answered(&mut self, answers: Vec<Answer>) {
        for Answer { id, outcome } in answers {
            let place = match id {
                Some(id) => self.unanswered.iter().position(|waiting| waiting.id == id),
                None => Some(0),
            };
            // One that nobody waits for any more came too late: that was told.
            if let Some(waiting) = place.and_then(|place| self.unanswered.remove(place)) {
                tell(waiting.done, outcome.map_err(|why| format!("the device says: {why}")));
            }
        }
    }

    /// When the patience with a command ends.
    pub(super) fn due(&self) -> Option<BootTime> {
        let answers = self.unanswered.iter().map(|waiting| waiting.until);
        self.writing.iter().map(|writing| writing.until).chain(answers).min()
    }

    /// Gives up what is [due](Self::due).
    pub(super) fn expire(&mut self, decoder: &mut dyn ByteDecoder, now: BootTime) {
        if let Some(writing) = self.writing.take_if(|writing| writing.until <= now) {
            let (written, all, within) = (writing.written, writing.bytes.len(), WRITE_WITHIN.as_secs());
            if written > 0 {
                decoder.cut();
            }
            let why = format!("the port took {written} of its {all} bytes within {within} s: does the device read?");
            tell(writing.done, Err(why));
        }
        let mut still = VecDeque::with_capacity(self.unanswered.len());
        for waiting in self.unanswered.drain(..) {
            if waiting.until > now {
                still.push_back(waiting);
                continue;
            }
            let within = humantime::format_duration(waiting.within);
            let why =
                format!("the device has not acknowledged it within {within}; whether it was carried out is not known");
            tell(waiting.done, Err(why));
        }
        self.unanswered = still;
    }

    /// The port is gone, and with it everything under way.
    pub(super) fn lost(&mut self, why: &str) {
        if let Some(writing) = self.writing.take() {
            tell(writing.done, Err(format!("the port was lost while it was written: {why}")));
        }
        for waiting in self.unanswered.drain(..) {
            let why = format!(
                "the port was lost before the device acknowledged it; whether it was carried out is not known: {why}"
            );
            tell(waiting.done, Err(why));
        }
    }
}

#[cfg(test)]
mod tests;
