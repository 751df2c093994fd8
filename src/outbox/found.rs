//! What the last run left behind: the files of an outbox, as they are found when it is opened.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cursors::Cursors;
use super::flush::state_name;
use super::frame::{self, FILE_HEADER, FileHeader, FileId, Kind, MAX_FRAME, PAGE, SEALED_VERSION, Scanner, Step};
use super::log::Log;
use super::record::{StoredAcks, StoredCursors};
use super::seal::{self, Key};
use super::segment::{self, SEGMENT_SIZE, SET_ASIDE, Segment};
use super::storage::Storage;
use super::{OpenError, Recovery, Seq, record, tail};
use crate::state::{Change, Stored};

/// The numbers of all tails, in order.
pub(super) fn tails(storage: &dyn Storage, folder: &Path) -> Vec<u64> {
    // There is no folder before the first start, and none after a boot.
    let names = storage.list(folder).unwrap_or_default();
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| tail::number_in(name)).collect();
    numbers.sort_unstable();
    numbers
}

/// How a tail ends, and what is wrong in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Walked {
    /// It ends in the middle of a write.
    pub(super) torn: bool,
    /// Frames that are not as they were written, before good ones.
    pub(super) damage: u64,
}

/// Hands all frames of a tail to `visit`.
pub(super) fn walk_tail(
    storage: &dyn Storage,
    path: &Path,
    number: u64,
    key: Option<&Key>,
    mut visit: impl FnMut(Kind, &[u8]),
) -> Walked {
    let mut walked = Walked::default();
    let Ok(file) = storage.open(path) else { return walked };
    let mut scanner = Scanner::new(Arc::clone(&file), FileId::tail(number), key, u64::MAX / 2);
    loop {
        match scanner.step_in_chain() {
            Ok(Step::Frame(kind, payload)) => visit(kind, payload),
            Ok(Step::Damage { .. }) => walked.damage += 1,
            Ok(Step::End) | Err(_) => break,
        }
    }
    walked.torn = !matches!(file.read_at(&mut [0], scanner.offset()), Ok(0));
    walked
}

/// What a tail says about itself.
#[derive(Default)]
pub(super) struct FoundTail {
    /// Position after its last record.
    pub(super) end: Seq,
    /// Records below it are on disk.
    pub(super) flushed: Seq,
    /// It ends in the middle of a write.
    pub(super) torn: bool,
}

/// A segment's file and its header, if that is readable.
pub(super) struct FoundSegment {
    number: u64,
    header: Option<FileHeader>,
}

/// The files of an outbox while it is being opened.
pub(super) struct Files {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) dir: PathBuf,
    pub(super) key: Option<Key>,
    pub(super) identity: Option<u64>,
    pub(super) recovery: Recovery,
    pub(super) damage: u64,
}

impl Files {
    fn header(&mut self, path: &Path, magic: [u8; 8]) -> Result<Option<FileHeader>, OpenError> {
        let mut bytes = [0; FILE_HEADER];
        let read = self.storage.open(path).and_then(|file| file.read_at(&mut bytes, 0));
        let header = read.ok().and_then(|_| FileHeader::read(&bytes, magic));
        match header {
            Some(FileHeader { version, .. }) if version > SEALED_VERSION => {
                Err(OpenError::Newer { file: path.to_owned(), version, known: SEALED_VERSION })
            }
            _ => Ok(header),
        }
    }

    /// Does our key, or none, open that file? It is asked before anything is changed.
    fn check_key(&self, path: &Path, id: FileId, header: Option<&FileHeader>) -> Result<(), OpenError> {
        let sealed = header.map(|header| header.version == SEALED_VERSION);
        let file = || path.to_owned();
        match (&self.key, sealed) {
            (_, Some(false)) => return Ok(()),
            (None, Some(true)) => return Err(OpenError::KeyMissing { file: file() }),
            _ => {}
        }
        // The first seal that is whole tells: whoever has another key does not get as far as to write a further one.
        let Ok(stored) = self.storage.open(path) else { return Ok(()) };
        let mut scanner = Scanner::new(stored, id, None, SEGMENT_SIZE);
        loop {
            match (scanner.step(), &self.key) {
                (Ok(Step::Frame(Kind::Seal, notice)), Some(key)) => match seal::fits(key, notice) {
                    Some(true) => return Ok(()),
                    Some(false) => return Err(OpenError::WrongKey { file: file() }),
                    None => {}
                },
                (Ok(Step::Frame(Kind::Seal, _)), None) => return Err(OpenError::KeyMissing { file: file() }),
                (Ok(Step::Frame(..) | Step::Damage { .. }), _) => {}
                (Ok(Step::End) | Err(_), _) => return Ok(()),
            }
        }
    }

    /// All segments by their names, in order.
    pub(super) fn segments(&mut self, names: &[String]) -> Result<Vec<FoundSegment>, OpenError> {
        let mut numbers: Vec<u64> =
            names.iter().filter_map(|name| segment::number_in(name, "segment-")).filter(|number| *number > 0).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut found = Vec::with_capacity(numbers.len());
        for number in numbers {
            let header = self.header(&self.dir.join(segment::name(number)), frame::SEGMENT)?;
            // A header of another number was never overwritten since the file was recycled.
            let header = header.filter(|header| header.number == number);
            if let Some(header) = header {
                self.identity = self.identity.or(Some(header.outbox));
            }
            found.push(FoundSegment { number, header });
        }
        Ok(found)
    }

    /// The newer slot of the state that is whole, and its generation.
    pub(super) fn slots(&mut self) -> Result<(Stored, Option<u64>), OpenError> {
        let mut newest: Option<(Stored, FileHeader)> = None;
        for slot in 0..2 {
            let path = self.dir.join(state_name(slot));
            let Some(header) = self.header(&path, frame::STATE)? else { continue };
            let id = FileId::state(header.number);
            self.check_key(&path, id, Some(&header))?;
            let Some(stored) = self.slot(&path, id) else {
                self.damage += 1;
                continue;
            };
            if newest.as_ref().is_none_or(|(_, other)| header.number > other.number) {
                newest = Some((stored, header));
            }
        }
        let Some((stored, header)) = newest else { return Ok((Stored::default(), None)) };
        self.recovery.sealed_from_now = self.key.is_some() && header.version != SEALED_VERSION;
        // The state counts more than a segment that somebody copied here.
        self.identity = Some(header.outbox);
        Ok((stored, Some(header.number)))
    }

    /// What a slot of the state holds.
    fn slot(&self, path: &Path, id: FileId) -> Option<Stored> {
        const LIMIT: u64 = (FILE_HEADER + 2 * PAGE + MAX_FRAME) as u64;
        let mut scanner = Scanner::new(self.storage.open(path).ok()?, id, self.key.as_ref(), LIMIT);
        loop {
            match scanner.step_in_chain().ok()? {
                Step::Frame(Kind::State, payload) => return postcard::from_bytes(payload).ok(),
                Step::Frame(..) | Step::Damage { .. } => {}
                Step::End => return None,
            }
        }
    }

    /// Does our key, or none, open all of these files? Those of another outbox are not asked.
    pub(super) fn check_keys(
        &self,
        segments: &[FoundSegment],
        tail_folder: &Path,
        tail: Option<(u64, Option<FileHeader>)>,
    ) -> Result<(), OpenError> {
        let ours = |header: Option<&FileHeader>| header.is_none_or(|header| Some(header.outbox) == self.identity);
        for FoundSegment { number, header } in segments.iter().filter(|segment| ours(segment.header.as_ref())) {
            self.check_key(&self.dir.join(segment::name(*number)), FileId::segment(*number), header.as_ref())?;
        }
        match tail {
            Some((number, header)) if ours(header.as_ref()) => {
                self.check_key(&tail_folder.join(tail::name(number)), FileId::tail(number), header.as_ref())
            }
            _ => Ok(()),
        }
    }

    /// The newest tail, and its header if that is readable.
    pub(super) fn newest_tail(
        &mut self,
        folder: &Path,
        numbers: &[u64],
    ) -> Result<Option<(u64, Option<FileHeader>)>, OpenError> {
        let mut newest = None;
        for number in numbers {
            let path = folder.join(tail::name(*number));
            let header = self.header(&path, frame::TAIL)?.filter(|header| header.number == *number);
            if let Some(header) = header {
                self.identity = self.identity.or(Some(header.outbox));
            }
            let mut frames = 0;
            walk_tail(&*self.storage, &path, *number, None, |_, _| frames += 1);
            if frames > 0 {
                self.damage += u64::from(header.is_none());
                newest = Some((*number, header));
            }
        }
        Ok(newest)
    }

    /// Makes a log of the segments.
    pub(super) fn log(&mut self, names: &[String], found: Vec<FoundSegment>, identity: u64) -> Log {
        let mut log = Log::new(Arc::clone(&self.storage), self.dir.clone(), self.key.clone());
        log.set_aside = self.storage.list(&self.dir.join(SET_ASIDE)).map_or(0, |names| names.len());
        log.spare = names.iter().filter_map(|name| segment::number_in(name, "spare-")).collect();
        let newest_spare = log.spare.iter().max().copied().unwrap_or(0);
        log.spare.retain(|number| self.reuses(&self.dir.join(segment::spare_name(*number))));
        let newest = found.last().map_or(0, |last| last.number).max(newest_spare);
        log.next_number = newest.saturating_add(1);
        for FoundSegment { number, header } in found {
            if header.is_some_and(|header| header.outbox != identity) {
                self.set_segment_aside(&mut log, number);
                continue;
            }
            match self.inspect(number) {
                Ok(Some(mut segment)) => {
                    // The later one has all records of an earlier one that begins behind it.
                    while let Some(last) = log.segments.pop_back_if(|last| last.first > segment.first) {
                        log.superseded.push(Segment { end: segment.first, ..last });
                    }
                    segment.current = header.is_some_and(|header| header.version == frame::version(self.key.is_some()));
                    if header.is_none() {
                        segment.damaged = true;
                        self.damage += 1;
                    }
                    log.segments.push_back(segment);
                }
                Ok(None) => self.retire(&mut log, number),
                Err(_) => self.set_segment_aside(&mut log, number),
            }
        }
        // Within the log a segment ends where the next one begins; only the end of the last one must be looked for.
        let firsts: Vec<Seq> = log.segments.iter().map(|segment| segment.first).collect();
        for (segment, next) in log.segments.iter_mut().zip(firsts.iter().skip(1)) {
            segment.end = *next;
        }
        log
    }

    /// Finds out where a segment begins; `None`: it has no frame, because it was never written since it was made.
    fn inspect(&mut self, number: u64) -> io::Result<Option<Segment>> {
        let file = self.storage.open(&self.dir.join(segment::name(number)))?;
        let mut segment =
            Segment { number, first: 0, end: 0, used: SEGMENT_SIZE, current: false, damaged: false, failed_reads: 0 };
        let mut scanner = Scanner::new(file, FileId::segment(number), self.key.as_ref(), SEGMENT_SIZE);
        loop {
            match scanner.step()? {
                Step::Frame(Kind::Cursors, payload) => {
                    if let Ok(stored) = postcard::from_bytes::<StoredCursors>(payload) {
                        segment.first = stored.first;
                        return Ok(Some(segment));
                    }
                }
                Step::Frame(Kind::Reading | Kind::Raw, payload) => {
                    if let Some((head, ..)) = record::head(payload) {
                        segment.first = head.seq;
                        return Ok(Some(segment));
                    }
                }
                Step::Frame(..) => {}
                Step::Damage { .. } => segment.damaged = true,
                Step::End => return Ok(None),
            }
        }
    }

    /// May that file be used for the next segment? With a key one that is not sealed is deleted: old records would
    /// stay in it behind new ones.
    fn reuses(&self, path: &Path) -> bool {
        if self.key.is_none() {
            return true;
        }
        let mut bytes = [0; FILE_HEADER];
        let read = self.storage.open(path).and_then(|file| file.read_at(&mut bytes, 0));
        let header = read.ok().and_then(|_| FileHeader::read(&bytes, frame::SEGMENT));
        let sealed = header.is_some_and(|header| header.version == SEALED_VERSION);
        if !sealed {
            // One that stays is only in the way.
            let _ = self.storage.remove(path);
        }
        sealed
    }

    /// A file without frames is used for the next segment.
    fn retire(&mut self, log: &mut Log, number: u64) {
        let from = self.dir.join(segment::name(number));
        if !self.reuses(&from) {
            return;
        }
        let to = self.dir.join(segment::spare_name(number));
        if self.storage.rename(&from, &to).is_ok() {
            log.spare.push(number);
        }
    }

    fn set_segment_aside(&mut self, log: &mut Log, number: u64) {
        self.damage += 1;
        log.set_aside += 1;
        let folder = self.dir.join(SET_ASIDE);
        let to = folder.join(segment::name(number));
        let renamed = self
            .storage
            .create_folder(&folder)
            .and_then(|()| self.storage.rename(&self.dir.join(segment::name(number)), &to));
        if renamed.is_ok() {
            self.recovery.set_aside.push(to);
        }
    }

    pub(super) fn set_tail_aside(&mut self, folder: &Path, number: u64) {
        let to = folder.join(format!("foreign-{number:012}"));
        if self.storage.rename(&folder.join(tail::name(number)), &to).is_ok() {
            self.recovery.set_aside.push(to);
        }
    }

    /// Reads the cursors, from the newest segment that has them, and the end of the log.
    pub(super) fn cursors(&mut self, log: &mut Log, cursors: &mut Cursors) {
        let mut active = None;
        for index in (0..log.segments.len()).rev() {
            let last = index + 1 == log.segments.len();
            let segment = &mut log.segments[index];
            if last {
                segment.end = segment.first;
            }
            let Ok(file) = self.storage.open(&segment.path(&self.dir)) else { continue };
            let mut scanner =
                Scanner::new(Arc::clone(&file), FileId::segment(segment.number), self.key.as_ref(), SEGMENT_SIZE);
            let mut end = segment.first;
            let mut found = false;
            loop {
                match scanner.step() {
                    Ok(Step::Frame(Kind::Cursors, payload)) => {
                        if let Ok(stored) = postcard::from_bytes::<StoredCursors>(payload) {
                            cursors.merge(&stored, false);
                            end = end.max(stored.first);
                            found = true;
                        }
                    }
                    Ok(Step::Frame(Kind::SoftCursors, payload)) => {
                        if let Ok(stored) = postcard::from_bytes::<StoredCursors>(payload) {
                            cursors.merge(&stored, true);
                        }
                    }
                    Ok(Step::Frame(Kind::Reading | Kind::Raw, payload)) => {
                        if let Some((_, seqs, _)) = record::head(payload) {
                            end = end.max(seqs.end);
                        }
                    }
                    Ok(Step::Frame(..)) => {}
                    Ok(Step::Damage { .. }) => {
                        self.damage += 1;
                        segment.damaged = true;
                    }
                    Ok(Step::End) | Err(_) => break,
                }
            }
            if last {
                // A flush may have been written and not yet synced when the last run ended.
                let synced = file.sync().is_ok();
                segment.end = end;
                segment.used = scanner.offset();
                // The last flush may be torn in the middle of a page: to write there again could tear what is good.
                if synced
                    && segment.used.is_multiple_of(PAGE as u64)
                    && segment.current
                    && !segment.damaged
                    && segment.used < SEGMENT_SIZE
                {
                    active = self.storage.create(&segment.path(&self.dir)).ok();
                }
            }
            if found {
                break;
            }
        }
        log.active = active;
    }

    /// Reads the tail but for its records.
    pub(super) fn tail(&mut self, path: &Path, number: u64, cursors: &mut Cursors, stored: &mut Stored) -> FoundTail {
        let mut found = FoundTail::default();
        let key = self.key.clone();
        let walked = walk_tail(&*self.storage, path, number, key.as_ref(), |kind, payload| {
            let good = match kind {
                Kind::Reading | Kind::Raw => {
                    record::head(payload).map(|(_, seqs, _)| found.end = found.end.max(seqs.end))
                }
                Kind::Cursors | Kind::SoftCursors => {
                    let stored = postcard::from_bytes::<StoredCursors>(payload).ok();
                    stored.map(|it| cursors.merge(&it, kind == Kind::SoftCursors))
                }
                Kind::Acks => postcard::from_bytes::<StoredAcks>(payload).ok().map(|it| cursors.merge_acks(&it)),
                Kind::State => postcard::from_bytes::<Stored>(payload).ok().map(|it| {
                    found.end = found.end.max(it.next);
                    stored.apply_all(it);
                }),
                Kind::Change => postcard::from_bytes::<Change>(payload).ok().map(|it| stored.apply(it)),
                Kind::Flushed => postcard::from_bytes(payload).ok().map(|it| found.flushed = it),
                Kind::Padding | Kind::Descriptor | Kind::Run | Kind::Part | Kind::Seal => Some(()),
            };
            self.damage += u64::from(good.is_none());
        });
        found.torn = walked.torn;
        self.damage += walked.damage;
        found
    }
}
