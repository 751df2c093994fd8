//! The job of a flush: what touches the disk, away from the thread that has the outbox.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::PAGE;
use super::log::{Disposal, Source};
use super::segment::SEGMENT_SIZE;
use super::storage::{Storage, StoredFile};

/// A flush, to be run on any thread.
#[derive(Debug)]
pub struct FlushJob {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) folder: PathBuf,
    pub(super) log: Option<LogWrite>,
    pub(super) state: Option<(PathBuf, Vec<u8>)>,
    pub(super) disposals: Vec<Disposal>,
}

/// Frames for a segment.
#[derive(Debug)]
pub(super) struct LogWrite {
    pub(super) target: Target,
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
}

/// Which segment.
#[derive(Debug)]
pub(super) enum Target {
    /// The one that was written to before, at its place.
    Active(PathBuf, Arc<dyn StoredFile>),
    /// A further one.
    Next(PathBuf, Source),
}

/// What became of a flush; to be handed to [`Outbox::finish_flush`].
#[derive(Debug)]
#[must_use = "the outbox waits for it"]
pub struct FlushDone {
    pub(super) log: Option<io::Result<Arc<dyn StoredFile>>>,
    pub(super) state: Option<io::Result<()>>,
}

impl FlushDone {
    /// What went wrong, if anything did.
    pub(super) fn error(&self) -> Option<io::Error> {
        let log = self.log.as_ref().and_then(|log| log.as_ref().err());
        let state = self.state.as_ref().and_then(|state| state.as_ref().err());
        log.or(state).map(|error| io::Error::new(error.kind(), error.to_string()))
    }
}

impl FlushJob {
    /// Writes and syncs.
    pub fn run(self) -> FlushDone {
        let log = self.log.as_ref().map(|log| self.write_log(log));
        let state = self.state.as_ref().map(|(path, bytes)| {
            // The folder may have been removed while we ran.
            self.storage.create_folder(&self.folder)?;
            let file = self.storage.create(path)?;
            file.write_at(bytes, 0)?;
            file.sync()?;
            self.storage.sync_folder(&self.folder)
        });
        // Only once what replaces them is on disk. What fails here is found again when the outbox is next opened.
        if !self.disposals.is_empty() && !matches!(log, Some(Err(_))) {
            for disposal in &self.disposals {
                let _ = self.dispose(disposal);
            }
            let _ = self.storage.sync_folder(&self.folder);
        }
        FlushDone { log, state }
    }

    fn dispose(&self, disposal: &Disposal) -> io::Result<()> {
        match disposal {
            Disposal::Delete(path) => self.storage.remove(path),
            Disposal::Rename(from, to) => {
                if let Some(folder) = to.parent().filter(|folder| *folder != self.folder) {
                    self.storage.create_folder(folder)?;
                }
                self.storage.rename(from, to)
            }
        }
    }

    fn write_log(&self, log: &LogWrite) -> io::Result<Arc<dyn StoredFile>> {
        let (path, source) = match &log.target {
            Target::Active(path, file) => {
                file.write_at(&log.bytes, log.offset)?;
                file.sync()?;
                // What is written to a file that was removed works, and is lost.
                if !file.is_at(path) {
                    return Err(io::Error::new(io::ErrorKind::NotFound, format!("{} was removed", path.display())));
                }
                return Ok(Arc::clone(file));
            }
            Target::Next(path, source) => (path, source),
        };
        let result = self.write_next(path, source, &log.bytes);
        if result.is_err() {
            // It only takes room, which may be what is lacking.
            let _ = self.storage.remove(path);
        }
        result
    }

    fn write_next(&self, path: &Path, source: &Source, bytes: &[u8]) -> io::Result<Arc<dyn StoredFile>> {
        let recycled = match source {
            Source::Recycled(from) => self.storage.rename(from, path).is_ok(),
            Source::New => false,
            Source::Replaced(former) => {
                // Its records were dropped, or are acknowledged by all: if it stays it does no harm.
                let _ = self.storage.remove(former);
                false
            }
        };
        let file = if recycled {
            self.storage.create(path)?
        } else {
            // The folder may have been removed while we ran.
            self.storage.create_folder(&self.folder)?;
            let file = self.storage.create(path)?;
            let zeros = [0; 16 * PAGE];
            for offset in (0..SEGMENT_SIZE).step_by(zeros.len()) {
                file.write_at(&zeros, offset)?;
            }
            file.sync()?;
            file
        };
        file.write_at(bytes, 0)?;
        file.sync()?;
        self.storage.sync_folder(&self.folder)?;
        Ok(file)
    }
}
