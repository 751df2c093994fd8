//! The segments of the log: which there are, which can be used anew, which takes the next flush.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::Seq;
use super::frame::{self, Ink};
use super::seal::Key;
use super::segment::{self, MAX_SET_ASIDE, Reader, SEGMENT_SIZE, SET_ASIDE, Segment};
use super::storage::{Storage, StoredFile};

/// Empty segments that are kept for their next use; further ones are deleted.
const MAX_SPARE: usize = 2;

/// The fewest segments that a limit may leave: one to write, one to read.
const MIN_SEGMENTS: u64 = 2;

/// Segments that are being read at once: a backlog and a replay of each of a few uplinks.
const READERS: usize = 4;

/// Reads of a segment that may fail before its records count as lost. Until then they are tried again.
const MAX_FAILED_READS: u32 = 3;

/// A segment is written in parts of about this many bytes. Each has all descriptors and runs that its records refer to,
/// so that damage to one of them costs no more than the rest of its part.
pub(super) const PART: u64 = 64 * 1024;

/// The log.
#[derive(Debug)]
pub(super) struct Log {
    storage: Arc<dyn Storage>,
    folder: PathBuf,
    /// With it: what is not sealed is not used again, because old records would stay behind new ones.
    key: Option<Key>,
    /// From the oldest to the newest.
    pub(super) segments: VecDeque<Segment>,
    /// Segments that do not count any more, as soon as what they hold up to their `end` is elsewhere on disk.
    pub(super) superseded: Vec<Segment>,
    /// The newest segment, if further flushes may go into it.
    pub(super) active: Option<Arc<dyn StoredFile>>,
    pub(super) next_number: u64,
    pub(super) spare: Vec<u64>,
    /// Files in the folder for damaged ones.
    pub(super) set_aside: usize,
    readers: Vec<Reader>,
    /// Numbers the parts that this process wrote.
    part: u64,
    /// Where the present one begins in the active segment; `None`: none was begun there.
    part_from: Option<u64>,
}

/// How to come to a new segment.
#[derive(Debug)]
pub(super) enum Source {
    /// By creating it.
    New,
    /// From a file that is no longer needed.
    Recycled(PathBuf),
    /// By creating it in place of a file that is no longer needed.
    Replaced(PathBuf),
}

/// What to do with a file that is no longer needed.
#[derive(Debug)]
pub(super) enum Disposal {
    /// It is deleted.
    Delete(PathBuf),
    /// It is kept under another name.
    Rename(PathBuf, PathBuf),
}

/// What reading a segment came to.
#[derive(Debug)]
pub(super) enum ReadFailure {
    /// It may work the next time.
    Again(io::Error),
    /// Its records are lost.
    Lost,
}

impl Log {
    pub(super) fn new(storage: Arc<dyn Storage>, folder: PathBuf, key: Option<Key>) -> Self {
        Self {
            storage,
            folder,
            key,
            segments: VecDeque::new(),
            superseded: Vec::new(),
            active: None,
            next_number: 1,
            spare: Vec::new(),
            set_aside: 0,
            readers: Vec::new(),
            part: 0,
            part_from: None,
        }
    }

    /// The number of the present part.
    pub(super) fn part(&self) -> u64 {
        self.part
    }

    /// Should what is written at `offset` of the active segment begin a part?
    pub(super) fn part_is_full(&self, offset: u64) -> bool {
        self.part_from.is_none_or(|from| offset >= from + PART)
    }

    /// Begins a part at `offset`, the beginning of a page.
    pub(super) fn begin_part(&mut self, buffer: &mut Vec<u8>, ink: Ink<'_>, offset: u64) {
        self.part += 1;
        self.part_from = Some(offset);
        frame::put_part(buffer, ink);
    }

    /// What was begun is not written.
    pub(super) fn abandon_part(&mut self) {
        self.part_from = None;
    }

    /// Bytes of all segments.
    pub(super) fn disk_bytes(&self) -> u64 {
        (self.segments.len() + self.superseded.len() + self.spare.len()) as u64 * SEGMENT_SIZE
    }

    /// The segment that has the records from `seq` on, if that is on disk at all.
    pub(super) fn segment_of(&self, seq: Seq) -> Option<usize> {
        let index = self.segments.partition_point(|segment| segment.end <= seq);
        self.segments.get(index).is_some_and(|segment| segment.first <= seq).then_some(index)
    }

    /// A reader of a segment that has not passed `from`.
    pub(super) fn reader(&mut self, index: usize, from: Seq) -> Result<&mut Reader, ReadFailure> {
        let segment = &mut self.segments[index];
        let fits = |reader: &Reader| reader.number == segment.number && reader.position <= from;
        let at = match self.readers.iter().position(fits) {
            Some(at) => at,
            None => {
                let reader = match Reader::open(&*self.storage, &self.folder, self.key.as_ref(), segment) {
                    Ok(reader) => reader,
                    Err(error) => return Err(failure(segment, error)),
                };
                self.readers.insert(0, reader);
                self.readers.truncate(READERS);
                0
            }
        };
        // The least recently used one is the last.
        self.readers[..=at].rotate_right(1);
        Ok(&mut self.readers[0])
    }

    /// Notes that reading a segment failed.
    pub(super) fn read_failed(&mut self, index: usize, error: io::Error) -> ReadFailure {
        let segment = &mut self.segments[index];
        self.readers.retain(|reader| reader.number != segment.number);
        failure(segment, error)
    }

    /// Notes damage; the path, if it is the first that is seen in this segment.
    pub(super) fn note_damage(&mut self, index: usize) -> Option<PathBuf> {
        let segment = &mut self.segments[index];
        let first = !std::mem::replace(&mut segment.damaged, true);
        first.then(|| segment.path(&self.folder))
    }

    /// The folder for damaged segments.
    pub(super) fn damaged_folder(&self) -> PathBuf {
        self.folder.join(SET_ASIDE)
    }

    /// A file that can be used again for the next segment; `done`: every position below it is acknowledged.
    pub(super) fn reusable(&mut self, done: Seq) -> Option<Source> {
        if let Some(front) = self.segments.front()
            && front.end <= done
            && !front.damaged
        {
            return self.recycle(0);
        }
        let number = self.spare.pop()?;
        Some(Source::Recycled(self.folder.join(segment::spare_name(number))))
    }

    /// May there be another segment, if all of them may take that many bytes?
    pub(super) fn may_grow(&self, max_bytes: u64) -> bool {
        (self.segments.len() as u64) < (max_bytes / SEGMENT_SIZE).max(MIN_SEGMENTS)
    }

    /// Gives up a segment for the next one.
    pub(super) fn recycle(&mut self, index: usize) -> Option<Source> {
        let segment = self.take(index)?;
        let path = segment.path(&self.folder);
        Some(if self.reuses(&segment) { Source::Recycled(path) } else { Source::Replaced(path) })
    }

    /// May the segment's file be written to again?
    fn reuses(&self, segment: &Segment) -> bool {
        self.key.is_none() || segment.current
    }

    fn take(&mut self, index: usize) -> Option<Segment> {
        if index + 1 == self.segments.len() {
            self.active = None;
        }
        let segment = self.segments.remove(index)?;
        self.readers.retain(|reader| reader.number != segment.number);
        Some(segment)
    }

    /// Ends the log at `end`, because what lies behind it may not be on disk in truth. It stays in place until it is
    /// written again, because in truth it may be.
    pub(super) fn cut(&mut self, end: Seq) {
        self.active = None;
        while let Some(last) = self.segments.pop_back_if(|last| last.first >= end && last.end > end) {
            self.superseded.push(last);
        }
        if let Some(last) = self.segments.back_mut() {
            last.end = last.end.min(end);
        }
    }

    /// Are there segments whose records are all acknowledged (below `done`), or on disk once more (below `on_disk`)?
    /// The active one never counts: to go on with it costs less than another one.
    pub(super) fn has_done(&self, done: Seq, on_disk: Seq) -> bool {
        self.front_is_done(done) || self.superseded.iter().any(|segment| segment.end <= on_disk)
    }

    fn front_is_done(&self, done: Seq) -> bool {
        self.segments.front().is_some_and(|front| front.end <= done)
            && (self.segments.len() > 1 || self.active.is_none())
    }

    /// Gives up the segments that [`has_done`](Self::has_done) speaks of.
    pub(super) fn take_done(&mut self, done: Seq, on_disk: Seq) -> Vec<Disposal> {
        let mut disposals = Vec::new();
        while self.front_is_done(done) {
            let Some(segment) = self.take(0) else { break };
            disposals.push(self.disposal(&segment));
        }
        while let Some(at) = self.superseded.iter().position(|segment| segment.end <= on_disk) {
            let segment = self.superseded.swap_remove(at);
            disposals.push(self.disposal(&segment));
        }
        disposals
    }

    /// What becomes of a segment that is done with.
    fn disposal(&mut self, segment: &Segment) -> Disposal {
        let path = segment.path(&self.folder);
        if segment.damaged && self.set_aside < MAX_SET_ASIDE {
            self.set_aside += 1;
            let to = self.damaged_folder().join(segment::name(segment.number));
            return Disposal::Rename(path, to);
        }
        if self.spare.len() < MAX_SPARE && self.reuses(segment) {
            self.spare.push(segment.number);
            return Disposal::Rename(path, self.folder.join(segment::spare_name(segment.number)));
        }
        Disposal::Delete(path)
    }
}

fn failure(segment: &mut Segment, error: io::Error) -> ReadFailure {
    segment.failed_reads += 1;
    if error.kind() == io::ErrorKind::NotFound || segment.failed_reads >= MAX_FAILED_READS {
        ReadFailure::Lost
    } else {
        ReadFailure::Again(error)
    }
}
