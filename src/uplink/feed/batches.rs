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
use super::super::dating::Date;
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

/// So many times the records that a message holds are looked at for it, where those in between are not sent.
const READ_AHEAD: usize = 4;

/// What comes next in a stream.
#[derive(Default)]
struct Found {
    /// The index of its record, its positions, and when it was measured.
    pieces: Vec<(usize, Range<Seq>, Date)>,
    /// How all of them are cut.
    shape: Option<PayloadShape>,
    /// Nothing that comes later can be in the same message.
    is_whole: bool,
    /// What follows waits for its date, until then.
    held: Option<BootTime>,
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

    /// Sends a message of what comes next, before `end`. Gives the time when to go on, if that is not now.
    #[expect(clippy::too_many_arguments, reason = "what a connection consists of, and room for records")]
    pub(super) fn send_batch(
        &mut self,
        stream: Stream,
        hub: &Hub,
        outbox: &mut Outbox,
        output: &mut Output,
        fill: Fill,
        entries: &mut Vec<Entry>,
        (batch, end): (Batch, Seq),
    ) -> Option<BootTime> {
        if let Some(due) = self.still_waiting(stream, outbox, fill) {
            return Some(due);
        }
        let max = usize::from(batch.max);
        let mut found = Found::default();
        while !found.is_whole && found.held.is_none() && found.pieces.len() < max {
            let (first, next) = (entries.len(), *self.next.of(stream));
            let from = entries.last().map_or(next, |last| last.seqs().end);
            outbox.read(self.cursor, from, max - found.pieces.len(), entries);
            if entries.len() == first {
                break;
            }
            self.look_at(stream, hub, outbox, fill, entries, first, end, &mut found);
            // Where nothing is to be sent so far, none of it need be kept.
            if found.pieces.is_empty() && !found.is_whole {
                entries.clear();
            }
            found.is_whole |= entries.len() >= max * READ_AHEAD;
        }
        found.pieces.truncate(max);
        found.is_whole |= found.pieces.len() == max;
        let Found { pieces, shape, is_whole, held } = found;
        let parts: Vec<Part<'_>> =
            pieces.into_iter().map(|(index, seqs, date)| Part { entry: &entries[index], seqs, date }).collect();
        let (Some(first), Some(shape)) = (parts.first(), shape) else {
            return match held {
                None if !is_whole => self.nothing_read(stream, outbox, end, fill.now),
                held => held,
            };
        };
        let cut = Cut { shape, backlog: stream == Stream::Backlog, now: (hub.boot, fill.now) };
        let group = self.encoder.group(&parts, cut);
        let count = group.count;
        if stream == Stream::Live && !is_whole && !group.is_whole && !fill.at_once {
            let due = if first.entry.boot == hub.boot { first.entry.at.after(batch.wait) } else { fill.now };
            if fill.now < due {
                let enough = outbox.end() + (max - count) as u64;
                self.waiting = Some(Waiting { from: *self.next.of(stream), enough, due });
                return held.into_iter().chain([due]).min();
            }
        }
        self.send_parts(stream, hub, outbox, output, &parts[..count], cut);
        None
    }

    /// Takes up what of the records from `first` on may be in the message.
    #[expect(clippy::too_many_arguments, reason = "what a connection consists of, records, and what was found in them")]
    fn look_at(
        &mut self,
        stream: Stream,
        hub: &Hub,
        outbox: &mut Outbox,
        fill: Fill,
        entries: &[Entry],
        first: usize,
        end: Seq,
        found: &mut Found,
    ) {
        for (index, entry) in entries.iter().enumerate().skip(first) {
            if entry.seq >= end {
                if found.pieces.is_empty() {
                    *self.next.of(stream) = end;
                }
                found.is_whole = true;
                return;
            }
            let date = match self.judge(hub, outbox, entry, fill) {
                Judged::Send(date) => date,
                Judged::PassedOver => {
                    if found.pieces.is_empty() {
                        *self.next.of(stream) = entry.seqs().end;
                    }
                    continue;
                }
                Judged::Held => {
                    found.held = Some(fill.hold_until);
                    return;
                }
            };
            let shape = self.encoder.shape(entry);
            for open in self.open_parts(stream, outbox, entry, shape) {
                match open {
                    Open::Part(_) if found.shape.is_some_and(|other| other != shape) => {
                        found.is_whole = true;
                        return;
                    }
                    Open::Part(seqs) => {
                        found.shape = Some(shape);
                        found.pieces.push((index, seqs, date));
                    }
                    Open::Flying if found.pieces.is_empty() => {}
                    Open::Flying => {
                        found.is_whole = true;
                        return;
                    }
                }
            }
            if found.pieces.is_empty() {
                *self.next.of(stream) = entry.seqs().end;
            }
        }
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

#[cfg(test)]
mod tests;
