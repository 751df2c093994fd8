//! Looking at an outbox that no agent uses: everything is read as at a start, and nothing is changed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::storage::{Disk, Lock, Storage, StoredFile};

/// The machine's own file system, of which nothing is changed.
#[derive(Debug)]
pub(super) struct ReadOnly;

#[derive(Debug)]
struct ReadOnlyFile(Arc<dyn StoredFile>);

/// Nothing is held: an agent may start while somebody looks.
#[derive(Debug)]
struct NoLock;

impl Lock for NoLock {}

fn refused<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl StoredFile for ReadOnlyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        refused()
    }

    fn sync(&self) -> io::Result<()> {
        refused()
    }

    fn is_at(&self, path: &Path) -> bool {
        self.0.is_at(path)
    }
}

impl Storage for ReadOnly {
    fn is_read_only(&self) -> bool {
        true
    }

    fn absolute(&self, folder: &Path) -> PathBuf {
        Disk.absolute(folder)
    }

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        folder.metadata().map(|_| ())
    }

    /// Only asks, and lets go at once.
    fn lock(&self, folder: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        Ok(Disk.lock(folder)?.map(|_| Box::new(NoLock) as Box<dyn Lock>))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        Disk.list(folder)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        Ok(Arc::new(ReadOnlyFile(Disk.open(path)?)))
    }

    fn create(&self, _: &Path) -> io::Result<Arc<dyn StoredFile>> {
        refused()
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        refused()
    }

    fn free(&self, folder: &Path) -> io::Result<u64> {
        Disk.free(folder)
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        refused()
    }
}
