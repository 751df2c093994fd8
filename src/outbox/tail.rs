//! The tail: everything since the last flush, in a file on tmpfs, which survives the process but costs no wear.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::frame::{self, FileHeader, FileId, Ink};
use super::seal::Seal;
use super::storage::{Storage, StoredFile};
use crate::clock::BootTime;

/// The tail is written anew, without what is no longer needed, when it has grown by this many bytes beyond twice what
/// was needed the last time. So it takes at most this and twice the memory of records.
const SLACK: u64 = 1024 * 1024;

/// Between two attempts to write a tail that could not be written.
const RETRY: Duration = Duration::from_secs(10);

/// Between two looks whether the file is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Bytes that are written at once when the tail is written anew.
const PIECE: usize = 64 * 1024;

/// An empty file of this name in the tail's folder: writes to the tail have failed since its last frame.
const OUTDATED: &str = "outdated";

/// Did writes to the tail in this folder fail at its end, so that its state is not the latest?
pub(super) fn is_outdated(storage: &dyn Storage, folder: &Path) -> bool {
    storage.list(folder).unwrap_or_default().iter().any(|name| name == OUTDATED)
}

/// Name of a tail.
pub(super) fn name(number: u64) -> String {
    format!("tail-{number:012}")
}

/// The number of a tail with that name.
pub(super) fn number_in(name: &str) -> Option<u64> {
    super::segment::number_in(name, "tail-")
}

/// The folder of the tail of the outbox in `folder` (an absolute path without links).
pub(super) fn folder(tail_dir: &Path, folder: &Path) -> PathBuf {
    // FNV-1a, 64 bits (draft-eastlake-fnv): the same on every machine and in every version.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in folder.as_os_str().as_encoded_bytes() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    tail_dir.join(format!("outbox-{hash:016x}"))
}

/// The tail.
#[derive(Debug)]
pub(super) struct Tail {
    storage: Arc<dyn Storage>,
    folder: PathBuf,
    outbox: u64,
    number: u64,
    /// `None`: it cannot be written.
    file: Option<Arc<dyn StoredFile>>,
    /// When it was last looked whether it is still there.
    looked: BootTime,
    length: u64,
    /// How long it was when it was written anew.
    length_anew: u64,
    retry_at: BootTime,
    /// What the next commit writes.
    pub(super) buffer: Vec<u8>,
}

impl Tail {
    /// A tail that is not yet written; `number` is larger than that of any tail found.
    pub(super) fn new(storage: Arc<dyn Storage>, folder: PathBuf, outbox: u64, number: u64) -> Self {
        let buffer = Vec::new();
        Self {
            storage,
            folder,
            outbox,
            number,
            file: None,
            looked: BootTime(0),
            length: 0,
            length_anew: 0,
            retry_at: BootTime(0),
            buffer,
        }
    }

    /// Does it take writes?
    pub(super) fn works(&self) -> bool {
        self.file.is_some()
    }

    /// Its folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its length in bytes.
    pub(super) fn length(&self) -> u64 {
        if self.works() { self.length } else { 0 }
    }

    /// Its number.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Was it removed? It is looked now and then: writes to it work all the same, and are lost with the process.
    pub(super) fn vanished(&mut self, now: BootTime) -> bool {
        let Some(file) = &self.file else { return false };
        if now.since(self.looked) < LOOK_EVERY {
            return false;
        }
        self.looked = now;
        !file.is_at(&self.folder.join(name(self.number)))
    }

    /// Should it be written anew now, because it has grown or because that failed a while ago?
    pub(super) fn wants_writing_anew(&self, now: BootTime) -> bool {
        if self.works() { self.length > 2 * self.length_anew + SLACK } else { now >= self.retry_at }
    }

    /// Writes the buffer with one write.
    pub(super) fn commit(&mut self, now: BootTime) -> io::Result<()> {
        let Some(file) = &self.file else {
            self.buffer.clear();
            return Ok(());
        };
        let result = file.write_at(&self.buffer, self.length);
        self.length += self.buffer.len() as u64;
        self.buffer.clear();
        // One large record should not keep its memory for ever.
        self.buffer.shrink_to(PIECE);
        if result.is_err() {
            self.fail(now);
        }
        result
    }

    fn fail(&mut self, now: BootTime) {
        self.file = None;
        self.retry_at = now.after(RETRY);
        // What the tail says of packet ids is not the latest from now on. Whoever finds it after a crash must not go on
        // with them: a broker would take a new message for one that it knows. Its records are still good, so it is
        // deleted only where it cannot be marked.
        if self.storage.create(&self.folder.join(OUTDATED)).is_err() {
            self.remove_others();
        }
    }

    /// Begins a new file, in which `fill` puts everything that is needed, and takes it in use.
    pub(super) fn write_anew(
        &mut self,
        now: BootTime,
        seal: Option<&Seal>,
        fill: impl FnOnce(&mut Fresh, Ink<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.number += 1;
        self.buffer.clear();
        let result = self.try_write_anew(Ink::new(FileId::tail(self.number), seal), fill);
        if result.is_err() {
            self.fail(now);
        }
        result
    }

    fn try_write_anew(
        &mut self,
        ink: Ink<'_>,
        fill: impl FnOnce(&mut Fresh, Ink<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.storage.create_folder(&self.folder)?;
        let path = self.folder.join(name(self.number));
        let unfinished = path.with_extension("new");
        let file = self.storage.create(&unfinished)?;
        let mut fresh = Fresh { file, number: self.number, length: 0, buffer: Vec::with_capacity(PIECE) };
        FileHeader::put(&mut fresh.buffer, ink, self.outbox);
        frame::put_seals(&mut fresh.buffer, ink);
        fill(&mut fresh, ink)
            .and_then(|()| fresh.write())
            .and_then(|()| self.storage.rename(&unfinished, &path))
            .inspect_err(|_| {
                // It only takes room, which may be what is lacking.
                let _ = self.storage.remove(&unfinished);
            })?;
        (self.length, self.length_anew) = (fresh.length, fresh.length);
        self.file = Some(fresh.file);
        self.remove_others();
        Ok(())
    }

    /// Deletes every file in the folder but the one in use: former tails, unfinished ones.
    fn remove_others(&self) {
        let used = self.file.is_some().then(|| name(self.number));
        for other in self.storage.list(&self.folder).unwrap_or_default() {
            if (other.starts_with("tail-") || other == OUTDATED) && Some(&other) != used.as_ref() {
                // A former tail that stays does no harm: the one with the largest number counts.
                let _ = self.storage.remove(&self.folder.join(other));
            }
        }
    }

    /// Deletes it: everything is on disk.
    pub(super) fn remove(mut self) {
        self.file = None;
        self.remove_others();
    }
}

/// A new tail while it is being filled.
#[derive(Debug)]
pub(super) struct Fresh {
    file: Arc<dyn StoredFile>,
    number: u64,
    length: u64,
    /// What is to be written next.
    pub(super) buffer: Vec<u8>,
}

impl Fresh {
    /// The new tail's number.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Writes the buffer if it has grown large.
    pub(super) fn write_if_large(&mut self) -> io::Result<()> {
        if self.buffer.len() >= PIECE { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write_at(&self.buffer, self.length)?;
        self.length += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}
