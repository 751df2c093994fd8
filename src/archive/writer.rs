//! Writing: batches to the end of the newest file, and old files away.

use std::collections::VecDeque;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};

use super::batch::Builder;
use super::file::{self, BATCH_HEADER, FILE_HEADER};
use super::{FILE_BYTES, Failure, SPARE_BYTES, Settings, day};
use crate::clock::WallTime;

/// A file that is there.
#[derive(Clone, Copy, Debug)]
struct Kept {
    number: u64,
    /// When it was begun, if the clock was set then.
    created: Option<WallTime>,
    bytes: u64,
}

/// The archive, to be written.
#[derive(Debug)]
pub struct Archive {
    settings: Settings,
    /// From the oldest to the newest.
    files: VecDeque<Kept>,
    /// The newest file, if more may be written to it.
    active: Option<File>,
    next: u64,
}

impl Archive {
    /// Opens it, or makes its folder; cuts the torn end of the newest file off.
    ///
    /// # Errors
    /// The folder cannot be made or read, or a newer version wrote into it.
    pub fn open(settings: Settings) -> Result<Self, Failure> {
        let dir = settings.dir.clone();
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(Failure::io("create the folder", &dir))?;
        let numbers = file::numbers(&dir).map_err(Failure::io("list the folder", &dir))?;
        let mut files = VecDeque::new();
        let mut active = None;
        for number in &numbers {
            let path = file::path(&dir, *number);
            let open = OpenOptions::new().read(true).write(true).open(&path).map_err(Failure::io("open", &path))?;
            let bytes = open.metadata().map_err(Failure::io("look at", &path))?.len();
            let Some(created) = file::read_header(&open, &path)? else {
                // Nobody can read it. It counts, and goes when its turn comes.
                files.push_back(Kept { number: *number, created: None, bytes });
                active = None;
                continue;
            };
            files.push_back(Kept { number: *number, created, bytes });
            active = Some(open);
        }
        if let (Some(file), Some(kept)) = (&active, files.back_mut()) {
            let path = file::path(&dir, kept.number);
            let end = good_end(file, kept.bytes).map_err(Failure::io("read", &path))?;
            if end < kept.bytes {
                file.set_len(end).and_then(|()| file.sync_data()).map_err(Failure::io("write", &path))?;
                kept.bytes = end;
            }
        }
        Ok(Self { settings, files, active, next: numbers.last().map_or(1, |last| last + 1) })
    }

    /// Writes a batch, and deletes what is too old or too much; `now`: the wall clock, if that is set. When it returns,
    /// the batch is on disk.
    ///
    /// # Errors
    /// The batch is not, or may not be, on disk; it may be handed over again.
    pub fn write(&mut self, batch: &Builder, now: Option<WallTime>) -> Result<u64, Failure> {
        self.prune(now);
        let dir = self.settings.dir.clone();
        let newest = self.files.back().map(|kept| file::path(&dir, kept.number));
        if newest.is_some_and(|path| !path.exists()) {
            // Somebody removed it, or the whole folder: what is written to it now would be gone with it.
            self.active = None;
            self.files.retain(|kept| file::path(&dir, kept.number).exists());
        }
        let bytes = file::batch(&batch.finish());
        if self.wants_new_file(bytes.len() as u64, now) {
            self.begin(now)?;
        }
        let free = rustix::fs::statvfs(&dir).map_err(|error| Failure::io("look at", &dir)(error.into()))?;
        let free = free.f_bavail.saturating_mul(free.f_frsize);
        if free < SPARE_BYTES {
            return Err(Failure::DiskFull { path: dir, free });
        }
        let (Some(file), Some(kept)) = (&self.active, self.files.back_mut()) else {
            unreachable!("a file is begun where there is none")
        };
        let path = file::path(&dir, kept.number);
        let written = file.write_all_at(&bytes, kept.bytes).and_then(|()| file.sync_data());
        if let Err(error) = written {
            // The kernel may have dropped what it could not write and take the next sync for a success: this file is
            // not written again. What was half written only takes room.
            let _ = file.set_len(kept.bytes);
            self.active = None;
            return Err(Failure::io("write", &path)(error));
        }
        kept.bytes += bytes.len() as u64;
        self.prune(now);
        Ok(bytes.len() as u64)
    }

    fn wants_new_file(&self, more: u64, now: Option<WallTime>) -> bool {
        let Some(kept) = self.files.back().filter(|_| self.active.is_some()) else { return true };
        let largest = FILE_BYTES.min(self.settings.max_bytes / 16);
        let other_day = match (kept.created, now) {
            (Some(created), Some(now)) => day(created) != day(now),
            // Begun before the clock was set: the time from which it is to be kept is not known.
            (None, Some(_)) => true,
            _ => false,
        };
        other_day || (kept.bytes + more > largest && kept.bytes > FILE_HEADER as u64)
    }

    fn begin(&mut self, now: Option<WallTime>) -> Result<(), Failure> {
        self.active = None;
        let dir = &self.settings.dir;
        // The folder may have been removed while we ran.
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Failure::io("create the folder", dir))?;
        let number = self.next;
        let path = file::path(dir, number);
        let begin = || {
            let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all_at(&file::header(number, now), 0)?;
            file.sync_all()?;
            File::open(dir)?.sync_all()?;
            Ok(file)
        };
        // Whatever becomes of it, its number is taken.
        self.next += 1;
        let file = begin().map_err(|error| {
            let _ = std::fs::remove_file(&path);
            Failure::io("write", &path)(error)
        })?;
        self.files.push_back(Kept { number, created: now, bytes: FILE_HEADER as u64 });
        self.active = Some(file);
        Ok(())
    }

    /// Deletes what is too old or too much. The newest file stays.
    fn prune(&mut self, now: Option<WallTime>) {
        let keep = i64::try_from(self.settings.keep.as_nanos()).unwrap_or(i64::MAX);
        let oldest = now.map(|now| WallTime(now.0.saturating_sub(keep)));
        while self.files.len() > 1 {
            let too_much = self.bytes() > self.settings.max_bytes;
            // Everything in a file was archived before the next one was begun.
            let too_old = self.files[1].created.zip(oldest).is_some_and(|(next, oldest)| next < oldest);
            if !too_much && !too_old {
                return;
            }
            // What cannot be deleted now is found again at the next start.
            let Some(kept) = self.files.pop_front() else { return };
            let _ = std::fs::remove_file(file::path(&self.settings.dir, kept.number));
        }
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|kept| kept.bytes).sum()
    }
}

/// Where the last whole batch ends.
fn good_end(file: &File, length: u64) -> std::io::Result<u64> {
    let mut end = FILE_HEADER as u64;
    while let Some(header) = file::read_batch_header(file, end)? {
        let next = end + (BATCH_HEADER + header.length) as u64;
        if next > length {
            break;
        }
        if next == length {
            // A power cut may have left the last batch as long as it was to be, with other bytes in it.
            let mut payload = vec![0; header.length];
            file.read_exact_at(&mut payload, end + BATCH_HEADER as u64)?;
            if !header.fits(&payload) {
                break;
            }
        }
        end = next;
    }
    Ok(end)
}
