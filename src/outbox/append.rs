//! Appending: a record becomes a frame in memory and in the tail's buffer; where memory is full the oldest ones go.

use std::ops::Range;

use super::dictionary::{Place, Refused};
use super::frame::{self, FileId, Ink, Kind};
use super::record::{self, MAX_RECORD};
use super::{Body, DropReason, Full, Moment, Outbox, Seq};
use crate::clock::{BootTime, WallTime};
use crate::reading::Fix;

impl Outbox {
    /// As [`append_at`](Self::append_at), where no receiver says where it was.
    pub fn append(&mut self, at: BootTime, time: Option<WallTime>, body: Body) -> Range<Seq> {
        self.append_at(at, time, None, body)
    }

    /// The position of the record that is appended next. Those before it may wait for `commit`: [`end`](Self::end) does not
    /// count them.
    #[must_use]
    pub fn next_seq(&self) -> Seq {
        self.next
    }

    /// Buffers a record and gives its positions; nothing counts as taken before `commit`. A record that is refused
    /// has no positions and is counted as dropped.
    #[expect(clippy::needless_pass_by_value, reason = "whoever hands a record over has no more use for it")]
    pub fn append_at(&mut self, at: BootTime, time: Option<WallTime>, place: Option<Fix>, body: Body) -> Range<Seq> {
        let when = Moment { boot: self.boot, at, time };
        let Ok(count) = u32::try_from(body.len()) else { return self.refuse(DropReason::TooLarge, &body, when) };
        if count == 0 {
            return self.next..self.next;
        }
        let seqs = self.next..self.next + u64::from(count);
        let head = record::Head { seq: seqs.start, count, run: self.run, at, time };
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let encoded = self.encode(&mut scratch, &head, &seqs, place.as_ref(), &body);
        let result = match encoded {
            Ok(descriptor) => match self.make_room(scratch.len()) {
                Ok(()) => {
                    self.take(&scratch, &seqs, descriptor);
                    seqs
                }
                Err(reason) => self.refuse(reason, &body, when),
            },
            Err(reason) => self.refuse(reason, &body, when),
        };
        // One large record should not keep its memory for ever.
        scratch.shrink_to(MAX_RECORD / 16);
        self.scratch = scratch;
        result
    }

    /// Writes a record's frame; gives the number of its descriptor.
    pub(super) fn encode(
        &mut self,
        buffer: &mut Vec<u8>,
        head: &record::Head,
        seqs: &Range<Seq>,
        place: Option<&Fix>,
        body: &Body,
    ) -> Result<Option<u32>, DropReason> {
        let descriptor = match body {
            Body::Reading { descriptor, values } => {
                let kept_from = self.memory.first().unwrap_or(self.next);
                let number =
                    self.dictionary.number(descriptor, seqs.end, kept_from).map_err(|refused| match refused {
                        Refused::TooLarge => DropReason::TooLarge,
                        Refused::TooMany => DropReason::TooManyDescriptors,
                    })?;
                frame::put(buffer, Ink::MEMORY, Kind::Reading, |buffer| {
                    record::write_reading(buffer, head, number, values, place);
                });
                Some(number)
            }
            Body::Raw(raw) => {
                frame::put(buffer, Ink::MEMORY, Kind::Raw, |buffer| record::write_raw(buffer, head, raw));
                None
            }
        };
        if buffer.len() > MAX_RECORD { Err(DropReason::TooLarge) } else { Ok(descriptor) }
    }

    fn take(&mut self, frame: &[u8], seqs: &Range<Seq>, descriptor: Option<u32>) {
        self.memory.push(frame, seqs);
        self.dictionary.use_run(self.run, seqs.end);
        self.next = seqs.end;
        if self.tail.works() {
            let number = self.tail.number();
            let ink = Ink::new(FileId::tail(number), self.seal.as_ref());
            self.dictionary.write_missing(&mut self.tail.buffer, (Place::Tail, number), ink, self.run, descriptor);
            frame::copy(&mut self.tail.buffer, ink, frame);
        }
    }

    /// Sees to it that a record of that length fits into memory, if need be by dropping the oldest ones, unless the
    /// newest are to go.
    fn make_room(&mut self, length: usize) -> Result<(), DropReason> {
        while self.memory.bytes() + self.memory.growth(length) > self.settings.memory_bytes {
            self.settle();
            if self.evict() {
                continue;
            }
            if self.settings.full == Full::DropNewest {
                return Err(if self.flushing.full { DropReason::DiskFull } else { DropReason::MemoryFull });
            }
            let chunk = self
                .memory
                .chunks()
                .find(|chunk| chunk.end <= self.committed && !self.cursors.in_flight(chunk.first..chunk.end));
            let Some((first, end)) = chunk.map(|chunk| (chunk.first, chunk.end)) else {
                return Err(DropReason::AllInFlight);
            };
            self.count_chunk(DropReason::MemoryFull, first, end);
            self.memory.remove_at(first);
            self.give_up(first..end);
        }
        Ok(())
    }
}
