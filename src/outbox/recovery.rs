//! Opening: what the last run left behind, whole or not, becomes an outbox again.

use std::hash::BuildHasher;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cursors::Cursors;
use super::dictionary::{Dictionary, FileDictionary};
use super::flush::{Flushing, state_name};
use super::frame::{self, FILE_HEADER, FileHeader, Found, Kind, MAX_FRAME, PAGE, Salt, Scanner, Step, VERSION};
use super::log::Log;
use super::memory::Memory;
use super::record::{StoredAcks, StoredCursors};
use super::segment::{self, SEGMENT_SIZE, SET_ASIDE, Segment};
use super::storage::{Storage, read_up_to};
use super::tail::{self, Tail};
use super::{OpenError, Outbox, Recovery, Seq, Settings, Stats, Warning, record, stats};
use crate::clock::{BootId, BootTime};
use crate::state::{Change, State, Stored};

/// Runs from here on are random, because they could not be counted.
const RANDOM_RUNS: u32 = 1 << 31;

/// Opens the outbox.
pub(super) fn open(
    storage: Arc<dyn Storage>,
    settings: Settings,
    boot: BootId,
    now: BootTime,
) -> Result<(Outbox, Recovery), OpenError> {
    let cannot = |action, path: &Path| {
        let path = path.to_owned();
        move |error| OpenError::Io { action, path, error }
    };
    let dir = settings.dir.clone();
    storage.create_folder(&dir).map_err(cannot("create the folder", &dir))?;
    let lock = storage.lock(&dir).map_err(cannot("lock the folder", &dir))?;
    let lock = lock.ok_or_else(|| OpenError::Locked { folder: dir.clone() })?;
    let names = storage.list(&dir).map_err(cannot("list the folder", &dir))?;
    let tail_folder = tail::folder(&settings.tail_dir, &storage.absolute(&dir));
    let tails = tails(&*storage, &tail_folder);

    // Nothing is changed before every file is known to be of a version that we understand.
    let mut files = Files { storage, dir, identity: None, recovery: Recovery::default(), damage: 0 };
    let segments = files.segments(&names)?;
    let slots = files.slots()?;
    let tail_header = files.tail_header(&tail_folder, &tails)?;
    let old = !segments.is_empty() || tail_header.is_some();

    let (mut stored, slot) = slots;
    files.recovery.state_lost = old && slot.is_none();
    let identity = files.identity.unwrap_or_else(random);
    let mut log = files.log(&names, segments, identity);
    let mut cursors = Cursors::default();
    files.cursors(&mut log, &mut cursors);
    let tail_path = match tail_header {
        Some((number, header)) if header.outbox == identity => Some((tail_folder.join(tail::name(number)), number)),
        Some((number, _)) => {
            files.set_tail_aside(&tail_folder, number);
            None
        }
        None => None,
    };
    let found = tail_path.as_ref().map(|(path, number)| files.tail(path, *number, &mut cursors, &mut stored));
    let log_end = log.segments.back().map_or(0, |last| last.end);
    let known_end = found.as_ref().map_or(0, |found| found.end).max(log_end);
    let next = known_end.max(cursors.end()).max(stored.next);
    // Positions that were given and of which there is no record: acknowledged, or lost with a power cut.
    cursors.give_up(known_end..next);
    let on_disk = match &found {
        None => next,
        // A tail that ends before the log was no longer written at the end: then the log alone counts.
        Some(found) if found.end < log_end => log_end,
        // Else what the tail does not call flushed is taken from it, even if it seems to be in the log: that write
        // may have failed.
        Some(found) => {
            if found.flushed < log_end {
                files.cut(&mut log, found.flushed);
            }
            found.flushed.min(log_end)
        }
    };
    let tail_holds_more = known_end > on_disk;

    let run = files.next_run(&mut stored, slot.is_some() || found.is_some(), old);
    let newest_tail = tails.last().copied().unwrap_or(0);
    let tail = Tail::new(Arc::clone(&files.storage), tail_folder, identity, newest_tail);
    let Files { storage, mut recovery, damage, .. } = files;
    recovery.segments = log.segments.len();
    let mut outbox = Outbox {
        settings,
        storage,
        identity,
        run,
        boot,
        cursors,
        memory: Memory::default(),
        dictionary: Dictionary::default(),
        next,
        committed: next,
        on_disk,
        tail_flushed: true,
        marks: [(on_disk, now)].into(),
        log,
        tail,
        state: State::new(stored, slot.unwrap_or(0)),
        flushing: Flushing::default(),
        scratch: Vec::new(),
        // The first attempt to write the tail is yet to come: until it fails it counts as working.
        stats: Stats { damage, tail_works: true, ..Stats::default() },
        drops: stats::Drops::default(),
        warnings: Vec::new(),
        _lock: lock,
    };
    recovery.tail_found = found.as_ref().is_some_and(|found| found.end >= log_end);
    recovery.tail_torn = found.is_some_and(|found| found.torn);
    if let Some((path, number)) = tail_path.filter(|_| tail_holds_more) {
        recovery.from_tail = outbox.take_back(&path, number);
    }
    recovery.waiting = outbox.cursors.waiting(outbox.committed);
    recovery.run_counted = outbox.make_run_durable();
    outbox.dictionary.add_run(outbox.run, boot);
    // What the tail knew of the cursors may be news to the disk.
    outbox.flushing.acks += u64::from(tail_header.is_some());
    outbox.write_tail_anew(now);
    outbox.warnings.retain(|warning| !matches!(warning, Warning::TailWorks));
    outbox.note_waiting(now);
    Ok((outbox, recovery))
}

impl Outbox {
    /// Puts the tail's records into memory again; gives their number.
    fn take_back(&mut self, path: &Path, number: u64) -> u64 {
        let storage = Arc::clone(&self.storage);
        let mut dictionary = FileDictionary::default();
        let (mut count, mut last) = (0, 0);
        walk_tail(&*storage, path, number, |kind, payload| {
            if !matches!(kind, Kind::Reading | Kind::Raw) {
                if !dictionary.take_up(kind, payload) {
                    self.stats.damage += 1;
                }
                return;
            }
            let Some((head, seqs, rest)) = record::head(payload) else { return };
            if seqs.end <= self.on_disk || seqs.start < last || self.cursors.all_acked(&seqs) {
                return;
            }
            let entry = match kind {
                Kind::Raw => record::raw(&head, rest, &dictionary),
                _ => record::reading(&head, rest, &dictionary),
            };
            let Some(entry) = entry else {
                self.stats.damage += 1;
                return;
            };
            let mut frame = std::mem::take(&mut self.scratch);
            frame.clear();
            // It was taken once, so it fits.
            if self.encode(&mut frame, &head, &seqs, &entry.body).is_ok() {
                self.dictionary.add_run(entry.run, entry.boot);
                self.dictionary.use_run(entry.run, seqs.end);
                self.memory.push(&frame, &seqs);
                count += 1;
                last = seqs.end;
            }
            self.scratch = frame;
        });
        count
    }

    /// Writes the run counter to disk; if that fails, the run gets a random number instead.
    fn make_run_durable(&mut self) -> bool {
        let generation = self.state.generation();
        let bytes = self.compose_state();
        let path = self.settings.dir.join(state_name(generation));
        let write = || {
            let file = self.storage.create(&path)?;
            file.write_at(&bytes, 0)?;
            file.sync()?;
            self.storage.sync_folder(&self.settings.dir)
        };
        match write() {
            Ok(()) => {
                self.state.written(generation);
                self.run < RANDOM_RUNS
            }
            Err(error) => {
                self.stats.write_errors += 1;
                self.run = random_run();
                self.warn(Warning::StateFailed { path: self.settings.dir.clone(), error });
                false
            }
        }
    }
}

/// 64 random bits: the standard library seeds its hashers from the system's random numbers.
fn random() -> u64 {
    std::hash::RandomState::new().hash_one(0)
}

#[expect(clippy::cast_possible_truncation, reason = "32 of 64 random bits are as random")]
fn random_run() -> u32 {
    random() as u32 | RANDOM_RUNS
}

/// The numbers of all tails, in order.
fn tails(storage: &dyn Storage, folder: &Path) -> Vec<u64> {
    // There is no folder before the first start, and none after a boot.
    let names = storage.list(folder).unwrap_or_default();
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| tail::number_in(name)).collect();
    numbers.sort_unstable();
    numbers
}

/// Hands all frames of a tail to `visit`; `true`: something that is no frame follows.
fn walk_tail(storage: &dyn Storage, path: &Path, number: u64, mut visit: impl FnMut(Kind, &[u8])) -> bool {
    let Ok(file) = storage.open(path) else { return true };
    let mut scanner = Scanner::new(Arc::clone(&file), Salt::of(number), FILE_HEADER as u64, u64::MAX / 2);
    // In a tail nothing is good behind what is not.
    while let Ok(Step::Frame(kind, payload)) = scanner.step_unbroken() {
        visit(kind, payload);
    }
    !matches!(file.read_at(&mut [0], scanner.offset()), Ok(0))
}

/// What a tail says about itself.
#[derive(Default)]
struct FoundTail {
    /// Position after its last record.
    end: Seq,
    /// Records below it are on disk.
    flushed: Seq,
    /// It ends in the middle of a write.
    torn: bool,
}

/// A segment's file and its header, if that is readable.
struct FoundSegment {
    number: u64,
    header: Option<FileHeader>,
}

/// The files of an outbox while it is being opened.
struct Files {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    identity: Option<u64>,
    recovery: Recovery,
    damage: u64,
}

impl Files {
    fn header(&mut self, path: &Path, magic: [u8; 8]) -> Result<Option<FileHeader>, OpenError> {
        let mut bytes = [0; FILE_HEADER];
        let read = self.storage.open(path).and_then(|file| file.read_at(&mut bytes, 0));
        let header = read.ok().and_then(|_| FileHeader::read(&bytes, magic));
        match header {
            Some(FileHeader { version, .. }) if version > VERSION => {
                Err(OpenError::Newer { file: path.to_owned(), version, known: VERSION })
            }
            _ => Ok(header),
        }
    }

    /// All segments by their names, in order.
    fn segments(&mut self, names: &[String]) -> Result<Vec<FoundSegment>, OpenError> {
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
    fn slots(&mut self) -> Result<(Stored, Option<u64>), OpenError> {
        let mut newest: Option<(Stored, FileHeader)> = None;
        for slot in 0..2 {
            let path = self.dir.join(state_name(slot));
            let Some(header) = self.header(&path, frame::STATE)? else { continue };
            let bytes = read_up_to(&*self.storage, &path, FILE_HEADER + MAX_FRAME).unwrap_or_default();
            let frame = bytes.get(FILE_HEADER..).unwrap_or_default();
            let stored = match frame::find(frame, Salt::of(header.number)) {
                Found::Frame(Kind::State, payload, _) => postcard::from_bytes::<Stored>(payload).ok(),
                _ => None,
            };
            let Some(stored) = stored else {
                self.damage += 1;
                continue;
            };
            if newest.as_ref().is_none_or(|(_, other)| header.number > other.number) {
                newest = Some((stored, header));
            }
        }
        let Some((stored, header)) = newest else { return Ok((Stored::default(), None)) };
        // The state counts more than a segment that somebody copied here.
        self.identity = Some(header.outbox);
        Ok((stored, Some(header.number)))
    }

    /// The newest tail that has a readable header.
    fn tail_header(&mut self, folder: &Path, numbers: &[u64]) -> Result<Option<(u64, FileHeader)>, OpenError> {
        let mut newest = None;
        for number in numbers {
            let header = self.header(&folder.join(tail::name(*number)), frame::TAIL)?;
            if let Some(header) = header.filter(|header| header.number == *number) {
                self.identity = self.identity.or(Some(header.outbox));
                newest = Some((*number, header));
            }
        }
        Ok(newest)
    }

    /// Makes a log of the segments.
    fn log(&mut self, names: &[String], found: Vec<FoundSegment>, identity: u64) -> Log {
        let mut log = Log::new(Arc::clone(&self.storage), self.dir.clone());
        log.set_aside = self.storage.list(&self.dir.join(SET_ASIDE)).map_or(0, |names| names.len());
        log.spare = names.iter().filter_map(|name| segment::number_in(name, "spare-")).collect();
        let newest_spare = log.spare.iter().max().copied().unwrap_or(0);
        let newest = found.last().map_or(0, |last| last.number).max(newest_spare);
        log.next_number = newest.saturating_add(1);
        let mut first = 0;
        for FoundSegment { number, header } in found {
            if header.is_some_and(|header| header.outbox != identity) {
                self.set_segment_aside(&mut log, number);
                continue;
            }
            match self.inspect(number) {
                Ok(Some(mut segment)) if segment.first >= first => {
                    first = segment.first;
                    if header.is_none() {
                        segment.damaged = true;
                        self.damage += 1;
                    }
                    log.segments.push_back(segment);
                }
                // Positions only grow: this is not our segment, whatever its header says.
                Ok(Some(_)) | Err(_) => self.set_segment_aside(&mut log, number),
                Ok(None) => self.retire(&mut log, number),
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
        let mut segment = Segment { number, first: 0, end: 0, used: SEGMENT_SIZE, damaged: false, failed_reads: 0 };
        let mut scanner = Scanner::new(file, Salt::of(number), FILE_HEADER as u64, SEGMENT_SIZE);
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
                Step::Damage => segment.damaged = true,
                Step::End => return Ok(None),
            }
        }
    }

    /// A file without frames is used for the next segment.
    fn retire(&mut self, log: &mut Log, number: u64) {
        let from = self.dir.join(segment::name(number));
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

    fn set_tail_aside(&mut self, folder: &Path, number: u64) {
        let to = folder.join(format!("foreign-{number:012}"));
        if self.storage.rename(&folder.join(tail::name(number)), &to).is_ok() {
            self.recovery.set_aside.push(to);
        }
    }

    /// Reads the cursors, from the newest segment that has them, and the end of the log.
    fn cursors(&mut self, log: &mut Log, cursors: &mut Cursors) {
        let mut active = None;
        for index in (0..log.segments.len()).rev() {
            let last = index + 1 == log.segments.len();
            let segment = &mut log.segments[index];
            if last {
                segment.end = segment.first;
            }
            let Ok(file) = self.storage.open(&segment.path(&self.dir)) else { continue };
            let mut scanner = Scanner::new(file, Salt::of(segment.number), FILE_HEADER as u64, SEGMENT_SIZE);
            let mut end = segment.first;
            let mut found = false;
            loop {
                match scanner.step() {
                    Ok(Step::Frame(Kind::Cursors, payload)) => {
                        if let Ok(stored) = postcard::from_bytes::<StoredCursors>(payload) {
                            cursors.merge(&stored);
                            end = end.max(stored.first);
                            found = true;
                        }
                    }
                    Ok(Step::Frame(Kind::Reading | Kind::Raw, payload)) => {
                        if let Some((_, seqs, _)) = record::head(payload) {
                            end = end.max(seqs.end);
                        }
                    }
                    Ok(Step::Frame(..)) => {}
                    Ok(Step::Damage) => {
                        self.damage += 1;
                        segment.damaged = true;
                    }
                    Ok(Step::End) | Err(_) => break,
                }
            }
            if last {
                segment.end = end;
                segment.used = scanner.offset();
                // The last flush may be torn in the middle of a page: to write there again could tear what is good.
                if segment.used % PAGE as u64 == 0 && !segment.damaged && segment.used < SEGMENT_SIZE {
                    active = self.storage.create(&segment.path(&self.dir)).ok();
                }
            }
            if found {
                break;
            }
        }
        log.active = active;
        // What was freed is not needed by anybody, even if a cursor was not written since.
        if let Some(first) = log.segments.front() {
            cursors.forgo(first.first);
        }
    }

    /// Reads the tail but for its records.
    fn tail(&mut self, path: &Path, number: u64, cursors: &mut Cursors, stored: &mut Stored) -> FoundTail {
        let mut found = FoundTail::default();
        found.torn = walk_tail(&*self.storage, path, number, |kind, payload| {
            let good = match kind {
                Kind::Reading | Kind::Raw => {
                    record::head(payload).map(|(_, seqs, _)| found.end = found.end.max(seqs.end))
                }
                Kind::Cursors => postcard::from_bytes::<StoredCursors>(payload).ok().map(|it| cursors.merge(&it)),
                Kind::Acks => postcard::from_bytes::<StoredAcks>(payload).ok().map(|it| cursors.merge_acks(&it)),
                Kind::State => postcard::from_bytes::<Stored>(payload).ok().map(|it| {
                    found.end = found.end.max(it.next);
                    stored.apply_all(it);
                }),
                Kind::Change => postcard::from_bytes::<Change>(payload).ok().map(|it| stored.apply(it)),
                Kind::Flushed => postcard::from_bytes(payload).ok().map(|it| found.flushed = it),
                Kind::Padding | Kind::Descriptor | Kind::Run => Some(()),
            };
            self.damage += u64::from(good.is_none());
        });
        found
    }

    /// Ends the log at `end`: what lies behind it may not be on disk in truth.
    fn cut(&mut self, log: &mut Log, end: Seq) {
        log.active = None;
        while let Some(last) = log.segments.back_mut() {
            if last.first < end || last.end <= end {
                last.end = last.end.min(end);
                break;
            }
            let number = last.number;
            log.segments.pop_back();
            self.retire(log, number);
        }
    }

    /// Counts the run.
    fn next_run(&mut self, stored: &mut Stored, known: bool, old: bool) -> u32 {
        stored.run = match stored.run.checked_add(1) {
            Some(run) if known => run,
            // The first run ever.
            _ if !old => 1,
            _ => random_run(),
        };
        stored.generation += 1;
        stored.run
    }
}
