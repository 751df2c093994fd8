//! Several readings in one message (`batch`).
//!
//! Consecutive elements of a stream that go to one topic, and that the form can hold, become one message: up to so many, or
//! what fits into the broker's largest packet. Live ones wait for others, but none longer than `wait`; the backlog fills its
//! messages at once. What lies between the first and the last position of a message is in it, or was acknowledged before it
//! was sent: so these two positions are all that the session keeps, and a message that is sent again is made of the same.

use std::ops::Range;

use crate::clock::BootTime;
use crate::config::{Batch, Payload, PayloadShape};
use crate::outbox::{Entry, Outbox, Seq};
use crate::topic::Template;

use super::super::Hub;
use super::super::encode::{Cut, Part};
use super::streams::{Judged, Stream};
use super::{Feed, Fill, Output};

/// Live readings that wait for others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    /// Position of the first.
    from: Seq,
    /// Before the outbox has come so far there cannot be enough of them.
    enough: Seq,
    /// Until then.
    due: BootTime,
}

/// What decides which readings are in a message, so that one in flight means something else when it changes. Empty where
/// each has its own.
pub(super) fn grouping(payload: &Payload, gateway: &Template) -> String {
    if payload.batch.is_none() {
        return String::new();
    }
    let topic = payload.topic.as_ref().unwrap_or(gateway);
    format!("{} {topic}", payload.format.info().name)
}

/// The parts of a record that are neither acknowledged nor elsewhere in flight.
enum Open {
    Part(Range<Seq>),
    /// In flight in another message, which no message can lie around.
    Flying,
}

impl Feed {
    /// Do live readings still wait for others, and until when?
    pub(super) fn still_waiting(&mut self, stream: Stream, outbox: &Outbox, fill: Fill) -> Option<BootTime> {
        let waiting = self.waiting.filter(|_| stream == Stream::Live && !fill.at_once)?;
        let next = *self.next.of(stream);
        (waiting.from == next && outbox.end() < waiting.enough && fill.now < waiting.due).then_some(waiting.due)
    }

    /// Sends what makes whole messages of these records, which lie before `end`. Gives the time when to go on, if that is
    /// not now.
    #[expect(clippy::too_many_arguments, reason = "what a connection consists of, and a chunk of records")]
    pub(super) fn send_batches(
        &mut self,
        stream: Stream,
        hub: &Hub,
        outbox: &mut Outbox,
        output: &mut Output,
        fill: Fill,
        entries: &[Entry],
        (batch, end): (Batch, Seq),
    ) -> Option<BootTime> {
        let max = usize::from(batch.max);
        let (mut parts, mut shape, mut again) = (Vec::new(), None, None);
        // Something follows that cannot be in the same message.
        let mut whole = false;
        'records: for entry in entries {
            if entry.seq >= end {
                whole = true;
                break;
            }
            let date = match self.judge(hub, outbox, entry, fill) {
                Judged::Send(date) => date,
                Judged::PassedOver => {
                    if parts.is_empty() {
                        *self.next.of(stream) = entry.seqs().end;
                    }
                    continue;
                }
                Judged::Held => {
                    again = Some(fill.hold_until);
                    break;
                }
            };
            let own = self.encoder.shape(entry);
            if *shape.get_or_insert(own) != own {
                whole = true;
                break;
            }
            for open in self.open_parts(stream, outbox, entry, own) {
                match open {
                    Open::Part(seqs) => parts.push(Part { entry, seqs, date }),
                    Open::Flying if parts.is_empty() => {}
                    Open::Flying => {
                        whole = true;
                        break 'records;
                    }
                }
                if parts.len() >= max {
                    whole = true;
                    break 'records;
                }
            }
            if parts.is_empty() {
                *self.next.of(stream) = entry.seqs().end;
                shape = None;
            }
        }
        let (Some(first), Some(shape)) = (parts.first(), shape) else { return again };
        let cut = Cut { shape, backlog: stream == Stream::Backlog, now: (hub.boot, fill.now) };
        let count = self.encoder.group(&parts, cut);
        if stream == Stream::Live && !whole && count == parts.len() && !fill.at_once {
            let due = if first.entry.boot == hub.boot { first.entry.at.after(batch.wait) } else { fill.now };
            if fill.now < due {
                let enough = outbox.end() + (max - count) as u64;
                self.waiting = Some(Waiting { from: *self.next.of(stream), enough, due });
                return again.into_iter().chain([due]).min();
            }
        }
        let sent = self.send_parts(stream, outbox, output, &parts[..count], cut);
        // What is held was reached only if nothing is left before it.
        again.filter(|_| sent == parts.len())
    }

    /// What of a record is still to be sent.
    fn open_parts(&mut self, stream: Stream, outbox: &Outbox, entry: &Entry, shape: PayloadShape) -> Vec<Open> {
        let mut open: Vec<Open> = Vec::new();
        let seqs = entry.seqs();
        for seq in seqs.start.max(*self.next.of(stream))..seqs.end {
            if self.is_flying(seq) {
                open.push(Open::Flying);
            } else if !outbox.is_acked(self.cursor, seq) {
                match open.last_mut() {
                    Some(Open::Part(part)) if shape == PayloadShape::Sensor && part.end == seq => part.end += 1,
                    _ => open.push(Open::Part(seq..seq + 1)),
                }
            }
        }
        open
    }
}
