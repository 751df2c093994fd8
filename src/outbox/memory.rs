//! The records in memory: frames one after the other in chunks, so that a record costs no allocation of its own.

use std::collections::VecDeque;
use std::ops::Range;

use super::frame::{self, FRAME_HEADER, Kind};
use super::{Seq, record};

/// Bytes of a chunk; a larger record has one for itself.
const CHUNK: usize = 32 * 1024;

/// Empty chunks that are kept for use.
const SPARE: usize = 2;

/// Frames in a row.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Position of its first record.
    pub(super) first: Seq,
    /// Position after its last one.
    pub(super) end: Seq,
    /// The frames, not salted.
    bytes: Vec<u8>,
}

/// A record's frame in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    /// All of it.
    pub(super) bytes: &'a [u8],
    /// Reading or raw message.
    pub(super) kind: Kind,
    /// Its head.
    pub(super) head: record::Head,
    /// What follows the head.
    pub(super) rest: &'a [u8],
}

impl Frame<'_> {
    /// Its positions.
    pub(super) fn seqs(&self) -> Range<Seq> {
        self.head.seq..self.head.seq + u64::from(self.head.count)
    }

    /// The number of its descriptor, if it is a reading.
    pub(super) fn descriptor(&self) -> Option<u32> {
        (self.kind == Kind::Reading).then(|| record::descriptor_number(self.rest)).flatten().map(|(number, _)| number)
    }
}

/// Where a reader stopped, so that it need not walk through a chunk again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hint {
    chunk: Seq,
    offset: usize,
    seq: Seq,
}

impl Chunk {
    /// Walks through the frames from `offset` on.
    fn frames_at(&self, mut offset: usize) -> impl Iterator<Item = (usize, Frame<'_>)> {
        std::iter::from_fn(move || {
            let rest = self.bytes.get(offset..).filter(|rest| !rest.is_empty())?;
            let bytes = &rest[..frame::length_in_memory(rest)];
            offset += bytes.len();
            let kind = if bytes[FRAME_HEADER - 1] == Kind::Raw as u8 { Kind::Raw } else { Kind::Reading };
            let (head, _, rest) = record::head(&bytes[FRAME_HEADER..]).expect("memory holds what append wrote");
            Some((offset, Frame { bytes, kind, head, rest }))
        })
    }

    /// Its records.
    pub(super) fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        self.frames_at(0).map(|(_, frame)| frame)
    }
}

/// The records in memory.
#[derive(Debug, Default)]
pub(super) struct Memory {
    chunks: VecDeque<Chunk>,
    spare: Vec<Vec<u8>>,
    bytes: usize,
}

impl Memory {
    /// Bytes taken, by capacity.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that a record of that length would take besides.
    pub(super) fn growth(&self, length: usize) -> usize {
        if self.fits_last(length) { 0 } else { length.max(CHUNK) }
    }

    fn fits_last(&self, length: usize) -> bool {
        self.chunks.back().is_some_and(|chunk| chunk.bytes.len() + length <= chunk.bytes.capacity())
    }

    /// Takes a record's frame; `seqs` follow all positions in memory.
    pub(super) fn push(&mut self, frame: &[u8], seqs: &Range<Seq>) {
        if !self.fits_last(frame.len()) {
            let bytes = match self.spare.pop() {
                Some(bytes) if frame.len() <= CHUNK => bytes,
                _ => Vec::with_capacity(frame.len().max(CHUNK)),
            };
            self.bytes += bytes.capacity();
            self.chunks.push_back(Chunk { first: seqs.start, end: seqs.start, bytes });
        }
        let chunk = self.chunks.back_mut().expect("one was just made");
        chunk.bytes.extend_from_slice(frame);
        chunk.end = seqs.end;
    }

    /// Position of the oldest record in memory.
    pub(super) fn first(&self) -> Option<Seq> {
        self.chunks.front().map(|chunk| chunk.first)
    }

    /// First and end position of the oldest chunk.
    pub(super) fn front(&self) -> Option<(Seq, Seq)> {
        self.chunks.front().map(|chunk| (chunk.first, chunk.end))
    }

    /// All chunks, the oldest first.
    pub(super) fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.chunks.iter()
    }

    /// The records that end after `from`.
    pub(super) fn frames_from(&self, from: Seq) -> impl Iterator<Item = Frame<'_>> {
        let start = self.chunks.partition_point(|chunk| chunk.end <= from);
        self.chunks.range(start..).flat_map(Chunk::frames).filter(move |frame| frame.seqs().end > from)
    }

    /// Hands the records that end after `from` to `visit` until that says stop; starts where `hint` says, if it can,
    /// and leaves there where to go on.
    pub(super) fn visit_from(&self, from: Seq, hint: &mut Hint, mut visit: impl FnMut(Frame<'_>) -> bool) {
        let start = self.chunks.partition_point(|chunk| chunk.end <= from);
        for chunk in self.chunks.range(start..) {
            let hinted = hint.chunk == chunk.first && hint.seq <= from;
            let mut before = if hinted { hint.offset } else { 0 };
            for (after, frame) in chunk.frames_at(before) {
                if frame.seqs().end > from {
                    let seq = frame.head.seq;
                    if !visit(frame) {
                        *hint = Hint { chunk: chunk.first, offset: before, seq };
                        return;
                    }
                }
                before = after;
            }
            *hint = Hint { chunk: chunk.first, offset: before, seq: chunk.end };
        }
    }

    /// Gives up the oldest chunk if it ends at or before `end`.
    pub(super) fn pop_front_until(&mut self, end: Seq) -> bool {
        if self.chunks.front().is_none_or(|chunk| chunk.end > end) {
            return false;
        }
        self.remove(0);
        true
    }

    /// Gives up the chunk that begins at `first`.
    pub(super) fn remove_at(&mut self, first: Seq) {
        if let Ok(index) = self.chunks.binary_search_by_key(&first, |chunk| chunk.first) {
            self.remove(index);
        }
    }

    fn remove(&mut self, index: usize) {
        let Some(chunk) = self.chunks.remove(index) else { return };
        self.bytes -= chunk.bytes.capacity();
        if chunk.bytes.capacity() <= 2 * CHUNK && self.spare.len() < SPARE {
            let mut bytes = chunk.bytes;
            bytes.clear();
            self.spare.push(bytes);
        }
    }
}
