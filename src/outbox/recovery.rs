//! Opening: what the last run left behind, whole or not, becomes an outbox again.

use std::hash::BuildHasher;
use std::path::Path;
use std::sync::Arc;

use super::by_hand::Rules;
use super::cursors::Cursors;
use super::dictionary::{Dictionary, FileDictionary};
use super::flush::{Flushing, state_name};
use super::found::{Files, tails, walk_tail};
use super::frame::Kind;
use super::memory::Memory;
use super::seal::Seal;
use super::storage::Storage;
use super::tail::{self, Tail};
use super::{OpenError, Outbox, Recovery, Settings, Stats, Warning, drops, record};
use crate::clock::{BootId, BootTime};
use crate::state::{State, Stored};

/// Runs from here on are random, because they could not be counted.
const RANDOM_RUNS: u32 = 1 << 31;

/// Opens the outbox.
pub(super) fn open(
    storage: Arc<dyn Storage>,
    settings: Settings,
    boot: BootId,
    now: BootTime,
) -> Result<(Outbox, Recovery), OpenError> {
    open_as(storage, settings, boot, now, false)
}

/// Opens the outbox; `restored`: the runs after the one that it knows of are not known to be free.
pub(super) fn open_as(
    storage: Arc<dyn Storage>,
    settings: Settings,
    boot: BootId,
    now: BootTime,
    restored: bool,
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
    let outdated = tail::is_outdated(&*storage, &tail_folder);

    // Nothing is changed before every file is known to be of a version that we understand, and to open with our key.
    let key = settings.key.clone();
    let mut files = Files { storage, dir, key, identity: None, recovery: Recovery::default(), damage: 0 };
    let segments = files.segments(&names)?;
    let slots = files.slots()?;
    let newest = files.newest_tail(&tail_folder, &tails)?;
    files.check_keys(&segments, &tail_folder, newest)?;
    let seal = settings.key.as_ref().map(Seal::new).transpose().map_err(cannot("draw a salt for", &settings.dir))?;
    let old = !segments.is_empty() || newest.is_some() || names.iter().any(|name| name.starts_with("spare-"));

    let (mut stored, slot) = slots;
    files.recovery.state_lost = old && slot.is_none();
    let identity = files.identity.unwrap_or_else(random);
    let mut log = files.log(&names, segments, identity);
    let mut cursors = Cursors::default();
    files.cursors(&mut log, &mut cursors);
    let mut tail_path = newest.map(|(number, _)| (tail_folder.join(tail::name(number)), number));
    if let Some((number, Some(header))) = newest
        && header.outbox != identity
    {
        files.set_tail_aside(&tail_folder, number);
        tail_path = None;
    }
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
                log.cut(found.flushed);
            }
            found.flushed.min(log_end)
        }
    };
    let tail_holds_more = known_end > on_disk;

    let look_only = files.storage.is_read_only();
    let known = (slot.is_some() || found.is_some()) && !restored;
    let run = if look_only { stored.run } else { next_run(&mut stored, known, old || restored) };
    let newest_tail = tails.last().copied().unwrap_or(0);
    let tail = Tail::new(Arc::clone(&files.storage), tail_folder, identity, newest_tail);
    let Files { storage, mut recovery, damage, .. } = files;
    recovery.segments = log.segments.len();
    let mut outbox = Outbox {
        settings,
        storage,
        identity,
        seal,
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
        by_hand: Rules::default(),
        scratch: Vec::new(),
        // The first attempt to write the tail is yet to come: until it fails it counts as working.
        stats: Stats { damage, tail_works: true, ..Stats::default() },
        drops: drops::Drops::default(),
        warnings: Vec::new(),
        _lock: lock,
    };
    recovery.tail_found = !outdated && found.as_ref().is_some_and(|found| found.end >= log_end);
    recovery.tail_torn = found.is_some_and(|found| found.torn);
    if let Some((path, number)) = tail_path.filter(|_| tail_holds_more) {
        recovery.from_tail = outbox.take_back(&path, number);
    }
    // The cursors are written before what they have acknowledged is freed, so what they still need and is neither in
    // the log nor in the tail was deleted by somebody else.
    let oldest = outbox.log.segments.front().map(|first| first.first).into_iter().chain(outbox.memory.first()).min();
    outbox.lose(0..oldest.unwrap_or(outbox.committed));
    recovery.waiting = outbox.cursors.waiting(outbox.committed);
    outbox.restore_rules();
    if look_only {
        return Ok((outbox, recovery));
    }
    recovery.run_counted = outbox.make_run_durable();
    outbox.dictionary.add_run(outbox.run, boot);
    // What the tail knew of the cursors may be news to the disk.
    outbox.flushing.acks += u64::from(newest.is_some());
    outbox.write_tail_anew(now);
    outbox.warnings.retain(|warning| !matches!(warning, Warning::TailWorks));
    outbox.note_waiting(now);
    Ok((outbox, recovery))
}

impl Outbox {
    /// Puts the tail's records into memory again; gives their number.
    fn take_back(&mut self, path: &Path, number: u64) -> u64 {
        let (storage, key) = (Arc::clone(&self.storage), self.settings.key.clone());
        let mut dictionary = FileDictionary::default();
        let (mut count, mut last) = (0, 0);
        walk_tail(&*storage, path, number, key.as_ref(), |kind, payload| {
            if !matches!(kind, Kind::Reading | Kind::Raw) {
                if !dictionary.take_up(kind, payload) {
                    self.stats.damage += 1;
                }
                return;
            }
            let Some((head, seqs, rest)) = record::head(payload) else { return };
            if seqs.end <= self.on_disk || seqs.start < last || self.cursors.nobody_wants(&seqs) {
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
            if self.encode(&mut frame, &head, &seqs, entry.place.as_ref(), &entry.body).is_ok() {
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

/// Counts the run. `known`: the last count is; `old`: there was an outbox before.
fn next_run(stored: &mut Stored, known: bool, old: bool) -> u32 {
    stored.run = match stored.run.checked_add(1) {
        Some(run) if known => run,
        // The first run ever.
        _ if !old => 1,
        _ => random_run(),
    };
    stored.generation += 1;
    stored.run
}
