//! Frames, of which segments, tail and state files consist, and the header before them.
//!
//! `docs/outbox-format.md` describes both byte by byte.

use std::ops::Range;
use std::sync::Arc;

use super::seal::{COUNTER, Key, NOTICE, Seal, TAG, Unsealer};
use super::storage::StoredFile;

/// Version of the formats of segments, tail and state that are not sealed.
pub(super) const VERSION: u32 = 2;

/// Version of those that are sealed; the newest. A newer one is refused untouched.
pub(super) const SEALED_VERSION: u32 = 3;

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
    /// What opens the sealed frames behind it, beside the key.
    Seal = 12,
}

/// Set in the kind of a frame whose payload is sealed.
const SEALED: u8 = 0x80;

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
            Self::Seal,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// A file, as its frames know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    magic: [u8; 8],
    number: u64,
}

impl FileId {
    /// The segment of that number.
    pub(super) fn segment(number: u64) -> Self {
        Self { magic: SEGMENT, number }
    }

    /// The tail of that number.
    pub(super) fn tail(number: u64) -> Self {
        Self { magic: TAIL, number }
    }

    /// The state of that generation.
    pub(super) fn state(generation: u64) -> Self {
        Self { magic: STATE, number: generation }
    }

    /// What tells the frames of one file from those that lay in the same blocks before.
    ///
    /// It is combined with each frame's checksum by exclusive or. The multiplication by an odd number is one-to-one,
    /// so a frame of another file never passes unless the numbers agree in their lower 32 bits.
    #[expect(clippy::cast_possible_truncation, reason = "the lower half tells files apart for 4 billion files")]
    fn salt(self) -> u32 {
        (self.number as u32).wrapping_mul(0x9E37_79B1)
    }

    /// What a sealed frame is bound to: its file, its length and its kind.
    fn bound(self, length: u32, kind: u8) -> [u8; 21] {
        let mut bound = [0; 21];
        bound[..8].copy_from_slice(&self.magic);
        bound[8..16].copy_from_slice(&self.number.to_le_bytes());
        bound[16..20].copy_from_slice(&length.to_le_bytes());
        bound[20] = kind;
        bound
    }
}

/// What frames are written with: the file that they are for, and the seal if they are to be sealed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ink<'a> {
    file: FileId,
    seal: Option<&'a Seal>,
}

impl<'a> Ink<'a> {
    /// Of frames in memory, which are neither salted nor sealed.
    pub(super) const MEMORY: Self = Self { file: FileId { magic: [0; 8], number: 0 }, seal: None };

    /// For a file.
    pub(super) fn new(file: FileId, seal: Option<&'a Seal>) -> Self {
        Self { file, seal }
    }

    /// Bytes that a frame takes beyond those of [`FRAME_HEADER`] and its payload.
    pub(super) fn overhead(self) -> usize {
        self.seal.map_or(0, |_| COUNTER + TAG)
    }
}

/// Appends a frame whose payload `fill` writes.
pub(super) fn put(buffer: &mut Vec<u8>, ink: Ink<'_>, kind: Kind, fill: impl FnOnce(&mut Vec<u8>)) {
    put_byte(buffer, ink, kind as u8, fill);
}

fn put_byte(buffer: &mut Vec<u8>, ink: Ink<'_>, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = buffer.len();
    let body = start + 8;
    buffer.extend_from_slice(&[0; 8]);
    match ink.seal {
        None => {
            buffer.push(kind);
            fill(buffer);
        }
        Some(seal) => {
            let kind = kind | SEALED;
            buffer.push(kind);
            let count = seal.count();
            buffer.extend_from_slice(&count.to_le_bytes());
            fill(buffer);
            let length = length_of(buffer.len() - body + TAG);
            seal.seal(count, &ink.file.bound(length, kind), buffer, body + 1 + COUNTER);
        }
    }
    let length = length_of(buffer.len() - body);
    let checksum = crc32fast::hash(&buffer[body..]) ^ ink.file.salt();
    buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
    buffer[start + 4..body].copy_from_slice(&checksum.to_le_bytes());
}

fn length_of(body: usize) -> u32 {
    u32::try_from(body).expect("callers keep frames below MAX_FRAME")
}

/// Appends a frame that was made for memory, for a file.
pub(super) fn copy(buffer: &mut Vec<u8>, ink: Ink<'_>, frame: &[u8]) {
    if ink.seal.is_some() {
        let payload = &frame[FRAME_HEADER..];
        return put_byte(buffer, ink, frame[FRAME_HEADER - 1], |buffer| buffer.extend_from_slice(payload));
    }
    let start = buffer.len();
    buffer.extend_from_slice(frame);
    for (byte, salt) in buffer[start + 4..start + 8].iter_mut().zip(ink.file.salt().to_le_bytes()) {
        *byte ^= salt;
    }
}

/// Appends a frame that is never sealed, because there is nothing in it to hide.
fn put_clear(buffer: &mut Vec<u8>, ink: Ink<'_>, kind: Kind, fill: impl FnOnce(&mut Vec<u8>)) {
    put(buffer, Ink { seal: None, ..ink }, kind, fill);
}

/// Appends what opens sealed frames behind it, if they are to be sealed: twice, because without it they are lost.
pub(super) fn put_seals(buffer: &mut Vec<u8>, ink: Ink<'_>) {
    if let Some(seal) = ink.seal {
        for _ in 0..2 {
            put_clear(buffer, ink, Kind::Seal, |buffer| buffer.extend_from_slice(seal.notice()));
        }
    }
}

/// Appends the beginning of a part.
pub(super) fn put_part(buffer: &mut Vec<u8>, ink: Ink<'_>) {
    put_clear(buffer, ink, Kind::Part, |_| ());
    put_seals(buffer, ink);
}

/// The most that [`put_part`] adds.
pub(super) const MAX_PART: usize = FRAME_HEADER + 2 * (FRAME_HEADER + NOTICE);

/// Appends a frame of zeros that ends on a page, unless that is so already.
pub(super) fn pad(buffer: &mut Vec<u8>, ink: Ink<'_>) {
    let beyond = buffer.len() % PAGE;
    if beyond == 0 {
        return;
    }
    let mut gap = PAGE - beyond;
    if gap < FRAME_HEADER {
        gap += PAGE;
    }
    put_clear(buffer, ink, Kind::Padding, |buffer| buffer.resize(buffer.len() + gap - FRAME_HEADER, 0));
}

/// The most that [`pad`] adds.
pub(super) const MAX_PADDING: usize = PAGE + FRAME_HEADER - 1;

/// A frame found in bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A frame that is as it was written: its kind, is it sealed, its payload, and how many bytes it takes.
    Frame(Kind, bool, &'a [u8], usize),
    /// As far as can be seen it may be one, but this many bytes are needed to tell.
    Needs(usize),
    /// None.
    Nothing,
}

/// The frame at the start of `bytes`.
pub(super) fn find(bytes: &[u8], file: FileId) -> Found<'_> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return Found::Needs(FRAME_HEADER) };
    let length = u32::from_le_bytes(*length) as usize;
    if length == 0 || length > MAX_FRAME - 8 {
        return Found::Nothing;
    }
    let Some((checksum, rest)) = rest.split_first_chunk::<4>() else { return Found::Needs(8 + length) };
    let Some(body) = rest.get(..length) else { return Found::Needs(8 + length) };
    if crc32fast::hash(body) ^ file.salt() != u32::from_le_bytes(*checksum) {
        return Found::Nothing;
    }
    match Kind::from_byte(body[0] & !SEALED) {
        Some(kind) => Found::Frame(kind, body[0] & SEALED != 0, &body[1..], 8 + length),
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

/// The version of the files that are written.
pub(super) fn version(sealed: bool) -> u32 {
    if sealed { SEALED_VERSION } else { VERSION }
}

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
    /// Appends the header of a file.
    pub(super) fn put(buffer: &mut Vec<u8>, ink: Ink<'_>, outbox: u64) {
        let start = buffer.len();
        let FileId { magic, number } = ink.file;
        buffer.extend_from_slice(&magic);
        buffer.extend_from_slice(&version(ink.seal.is_some()).to_le_bytes());
        // Reserved, zero in these versions.
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

/// A frame in a [`Scanner`]'s window: its kind, is it sealed, and where its payload is.
type Place = (Kind, bool, Range<usize>);

/// Walks through the frames of a file. Where one is damaged it goes on with the next, if that is where its length says;
/// else at the next page that begins with a frame of the same file; where there is none it ends.
#[derive(Debug)]
pub(super) struct Scanner {
    file: Arc<dyn StoredFile>,
    id: FileId,
    unsealer: Unsealer,
    /// Where the next frame is expected.
    offset: u64,
    /// Nothing is read from here on.
    limit: u64,
    window: Vec<u8>,
    /// Offset of the window's first byte.
    window_at: u64,
}

impl Scanner {
    /// Starts behind the file's header.
    pub(super) fn new(file: Arc<dyn StoredFile>, id: FileId, key: Option<&Key>, limit: u64) -> Self {
        let (offset, unsealer) = (FILE_HEADER as u64, Unsealer::new(key));
        Self { file, id, unsealer, offset, limit, window: Vec::new(), window_at: offset }
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
        if let Some(frame) = self.frame_at(here)? {
            return Ok(self.pass(frame));
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
        if let Some(frame) = self.frame_at(self.offset)? {
            return Ok(self.pass(frame));
        }
        let Some(next) = self.behind(self.offset)? else { return Ok(Step::End) };
        self.offset = next;
        Ok(Step::Damage { part: false })
    }

    /// Goes past a frame, and opens it if it is sealed. One that cannot be opened is damage.
    fn pass(&mut self, (kind, sealed, payload): Place) -> Step<'_> {
        self.offset = self.window_at + payload.end as u64;
        let payload = &self.window[payload];
        if sealed {
            let bound = self.id.bound(length_of(payload.len() + 1), kind as u8 | SEALED);
            return match self.unsealer.open(&bound, payload) {
                Some(payload) => Step::Frame(kind, payload),
                None => Step::Damage { part: false },
            };
        }
        match kind {
            Kind::Padding | Kind::Part => Step::Frame(kind, payload),
            Kind::Seal => {
                self.unsealer.take_up(payload);
                Step::Frame(kind, payload)
            }
            // Nobody but a forger writes a frame in clear behind a seal.
            _ if self.unsealer.has_met_seal() => Step::Damage { part: false },
            _ => Step::Frame(kind, payload),
        }
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

    /// The frame at `offset`, if there is one.
    fn frame_at(&mut self, offset: u64) -> std::io::Result<Option<Place>> {
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
            match find(&self.window[start..], self.id) {
                Found::Frame(kind, sealed, _, size) => {
                    return Ok(Some((kind, sealed, start + FRAME_HEADER..start + size)));
                }
                Found::Needs(more) => needed = more,
                Found::Nothing => return Ok(None),
            }
        }
    }
}
