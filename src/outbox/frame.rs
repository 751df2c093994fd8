//! Frames, of which segments, tail and state files consist, and the header before them.
//!
//! `docs/outbox-format.md` describes both byte by byte.

use std::ops::Range;
use std::sync::Arc;

use super::storage::StoredFile;

/// Version of the formats of segments, tail and state. A newer one is refused untouched.
pub(super) const VERSION: u32 = 2;

/// Flushes begin and end on multiples of this: the block size of ext4 and the page of every SD card in use.
pub(super) const PAGE: usize = 4096;

/// The largest frame, header included; larger lengths are damage.
pub(super) const MAX_FRAME: usize = 512 * 1024;

/// Length, checksum and kind before a frame's payload.
pub(super) const FRAME_HEADER: usize = 9;

/// Bytes of a file's header.
pub(super) const FILE_HEADER: usize = 40;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Zeros up to the next page.
    Padding = 0,
    /// Values of a sensor.
    Reading = 1,
    /// A message taken over from a LAN client.
    Raw = 2,
    /// A descriptor and the number by which the readings after it refer to it.
    Descriptor = 3,
    /// A run's number and the boot in which it ran.
    Run = 4,
    /// All cursors.
    Cursors = 5,
    /// Positions that a cursor has acknowledged besides.
    Acks = 6,
    /// All small durable values.
    State = 7,
    /// One small durable value.
    Change = 8,
    /// Up to which position records are on disk.
    Flushed = 9,
    /// All cursors for whose sake nothing is written.
    SoftCursors = 10,
    /// What follows refers to nothing before it.
    Part = 11,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::Padding,
            Self::Reading,
            Self::Raw,
            Self::Descriptor,
            Self::Run,
            Self::Cursors,
            Self::Acks,
            Self::State,
            Self::Change,
            Self::Flushed,
            Self::SoftCursors,
            Self::Part,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// What tells the frames of one file from those that lay in the same blocks before.
///
/// It is combined with each frame's checksum by exclusive or. The multiplication by an odd number is one-to-one, so
/// a frame of another file never passes unless the numbers agree in their lower 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Salt(u32);

impl Salt {
    /// Of frames in memory.
    pub(super) const NONE: Self = Self(0);

    /// Of the file with that number.
    #[expect(clippy::cast_possible_truncation, reason = "the lower half tells files apart for 4 billion files")]
    pub(super) fn of(number: u64) -> Self {
        Self((number as u32).wrapping_mul(0x9E37_79B1))
    }
}

/// Appends a frame whose payload `fill` writes.
pub(super) fn put(buffer: &mut Vec<u8>, salt: Salt, kind: Kind, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 8]);
    buffer.push(kind as u8);
    fill(buffer);
    let body = start + 8;
    let length = u32::try_from(buffer.len() - body).expect("callers keep frames below MAX_FRAME");
    let checksum = crc32fast::hash(&buffer[body..]) ^ salt.0;
    buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
    buffer[start + 4..body].copy_from_slice(&checksum.to_le_bytes());
}

/// Appends a frame that was made for memory, for a file.
pub(super) fn copy(buffer: &mut Vec<u8>, salt: Salt, frame: &[u8]) {
    let start = buffer.len();
    buffer.extend_from_slice(frame);
    for (byte, salt) in buffer[start + 4..start + 8].iter_mut().zip(salt.0.to_le_bytes()) {
        *byte ^= salt;
    }
}

/// Appends a frame of zeros that ends on a page, unless that is so already.
pub(super) fn pad(buffer: &mut Vec<u8>, salt: Salt) {
    let beyond = buffer.len() % PAGE;
    if beyond == 0 {
        return;
    }
    let mut gap = PAGE - beyond;
    if gap < FRAME_HEADER {
        gap += PAGE;
    }
    put(buffer, salt, Kind::Padding, |buffer| buffer.resize(buffer.len() + gap - FRAME_HEADER, 0));
}

/// The most that [`pad`] adds.
pub(super) const MAX_PADDING: usize = PAGE + FRAME_HEADER - 1;

/// A frame found in bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A frame that is as it was written, and how many bytes it takes.
    Frame(Kind, &'a [u8], usize),
    /// As far as can be seen it may be one, but this many bytes are needed to tell.
    Needs(usize),
    /// None.
    Nothing,
}

/// The frame at the start of `bytes`.
pub(super) fn find(bytes: &[u8], salt: Salt) -> Found<'_> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Found::Needs(FRAME_HEADER) };
    let length = u32::from_le_bytes(*length) as usize;
    if length == 0 || length > MAX_FRAME - 8 {
        return Found::Nothing;
    }
    let Some((checksum, rest)) = rest.split_first_chunk::<4>() else { return Found::Needs(8 + length) };
    let Some(body) = rest.get(..length) else { return Found::Needs(8 + length) };
    if crc32fast::hash(body) ^ salt.0 != u32::from_le_bytes(*checksum) {
        return Found::Nothing;
    }
    match Kind::from_byte(body[0]) {
        Some(kind) => Found::Frame(kind, &body[1..], 8 + length),
        None => Found::Nothing,
    }
}

/// Length of the frame at the start of bytes that this process made itself.
pub(super) fn length_in_memory(bytes: &[u8]) -> usize {
    let length = bytes.first_chunk::<4>().expect("memory holds whole frames only");
    8 + u32::from_le_bytes(*length) as usize
}

/// What kind of file a header begins.
pub(super) const SEGMENT: [u8; 8] = *b"vigieseg";
/// As [`SEGMENT`], for the tail.
pub(super) const TAIL: [u8; 8] = *b"vigietai";
/// As [`SEGMENT`], for a slot of the state.
pub(super) const STATE: [u8; 8] = *b"vigiesta";

/// The start of every file. Its layout is the same in all versions, so that each can tell which one it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    /// Version of what follows.
    pub(super) version: u32,
    /// Number of the segment or tail, generation of the state.
    pub(super) number: u64,
    /// Identity of the outbox that the file belongs to.
    pub(super) outbox: u64,
}

impl FileHeader {
    /// Appends the header of a file of this version.
    pub(super) fn put(buffer: &mut Vec<u8>, magic: [u8; 8], number: u64, outbox: u64) {
        let start = buffer.len();
        buffer.extend_from_slice(&magic);
        buffer.extend_from_slice(&VERSION.to_le_bytes());
        // Reserved, zero in this version.
        buffer.extend_from_slice(&[0; 4]);
        buffer.extend_from_slice(&number.to_le_bytes());
        buffer.extend_from_slice(&outbox.to_le_bytes());
        let checksum = crc32fast::hash(&buffer[start..]);
        buffer.extend_from_slice(&checksum.to_le_bytes());
        buffer.extend_from_slice(&[0; 4]);
    }

    /// Reads it; `None`: these bytes are no header of such a file.
    pub(super) fn read(bytes: &[u8], magic: [u8; 8]) -> Option<Self> {
        let header = bytes.first_chunk::<FILE_HEADER>()?;
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let genuine = header[..8] == magic && crc32fast::hash(&header[..32]) == word(32);
        genuine.then(|| Self { version: word(8), number: long(16), outbox: long(24) })
    }
}

/// Bytes that a [`Scanner`] reads at once.
const WINDOW: usize = 32 * 1024;

/// What a [`Scanner`] comes upon.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// A frame.
    Frame(Kind, &'a [u8]),
    /// Bytes that are no frame, before further frames; `part`: one may be among them that begins a part.
    Damage { part: bool },
    /// Nothing follows.
    End,
}

/// Walks through the frames of a file. Where one is damaged it goes on with the next, if that is where its length says;
/// else at the next page that begins with a frame of the same file; where there is none it ends.
#[derive(Debug)]
pub(super) struct Scanner {
    file: Arc<dyn StoredFile>,
    salt: Salt,
    /// Where the next frame is expected.
    offset: u64,
    /// Nothing is read from here on.
    limit: u64,
    window: Vec<u8>,
    /// Offset of the window's first byte.
    window_at: u64,
}

impl Scanner {
    /// Starts at `offset`.
    pub(super) fn new(file: Arc<dyn StoredFile>, salt: Salt, offset: u64, limit: u64) -> Self {
        Self { file, salt, offset, limit, window: Vec::new(), window_at: offset }
    }

    /// Where the next frame is expected; after [`Step::End`], the end of what is good.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Allows for what was written since.
    pub(super) fn extend(&mut self, limit: u64) {
        if limit > self.limit {
            self.limit = limit;
            // What was read beyond the former limit may have been overwritten since.
            self.window.clear();
        }
    }

    /// The next step.
    pub(super) fn step(&mut self) -> std::io::Result<Step<'_>> {
        let here = self.offset;
        let page = PAGE as u64;
        if let Some((kind, payload)) = self.frame_at(here)? {
            self.offset = self.window_at + payload.end as u64;
            return Ok(Step::Frame(kind, &self.window[payload]));
        }
        if let Some(next) = self.behind(here)? {
            self.offset = next;
            return Ok(Step::Damage { part: here.is_multiple_of(page) });
        }
        let mut candidate = (here / page + 1) * page;
        while candidate < self.limit {
            if self.frame_at(candidate)?.is_some() {
                self.offset = candidate;
                return Ok(Step::Damage { part: true });
            }
            candidate += page;
        }
        Ok(Step::End)
    }

    /// As [`step`](Self::step), but does not look for pages: in a file that does not begin its writes on them.
    pub(super) fn step_in_chain(&mut self) -> std::io::Result<Step<'_>> {
        if let Some((kind, payload)) = self.frame_at(self.offset)? {
            self.offset = self.window_at + payload.end as u64;
            return Ok(Step::Frame(kind, &self.window[payload]));
        }
        let Some(next) = self.behind(self.offset)? else { return Ok(Step::End) };
        self.offset = next;
        Ok(Step::Damage { part: false })
    }

    /// Where the next frame begins, if the damaged one at `offset` has its length still, and a good one behind it.
    fn behind(&mut self, offset: u64) -> std::io::Result<Option<u64>> {
        let mut length = [0; 4];
        if offset + FRAME_HEADER as u64 > self.limit || self.file.read_at(&mut length, offset)? < length.len() {
            return Ok(None);
        }
        let length = u64::from(u32::from_le_bytes(length));
        if !(1..=(MAX_FRAME - 8) as u64).contains(&length) {
            return Ok(None);
        }
        let next = offset + 8 + length;
        Ok(self.frame_at(next)?.map(|_| next))
    }

    /// The kind of the frame at `offset`, if there is one, and the place of its payload in the window.
    fn frame_at(&mut self, offset: u64) -> std::io::Result<Option<(Kind, Range<usize>)>> {
        let mut needed = FRAME_HEADER;
        loop {
            if offset + needed as u64 > self.limit {
                return Ok(None);
            }
            let seen = self.window_at..self.window_at + self.window.len() as u64;
            if offset < seen.start || offset + needed as u64 > seen.end {
                // The first look at a file may be the only one: opening an outbox looks at every segment.
                let usual = if self.window.is_empty() { PAGE } else { WINDOW };
                let wanted = (needed.max(usual) as u64).min(self.limit - offset);
                self.window.resize(usize::try_from(wanted).expect("at most MAX_FRAME"), 0);
                self.window_at = offset;
                let count = self.file.read_at(&mut self.window, offset)?;
                self.window.truncate(count);
                if count < needed {
                    return Ok(None);
                }
            }
            let start = usize::try_from(offset - self.window_at).expect("inside of the window");
            match find(&self.window[start..], self.salt) {
                Found::Frame(kind, _, size) => return Ok(Some((kind, start + FRAME_HEADER..start + size))),
                Found::Needs(more) => needed = more,
                Found::Nothing => return Ok(None),
            }
        }
    }
}
