//! The file operations that the outbox stands on: a seam, so that tests can let any of them fail.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, StatVfsMountFlags};

/// An open file, written and read at given offsets.
pub(super) trait StoredFile: fmt::Debug + Send + Sync {
    /// Reads into `buffer` from `offset` until it is full or the file ends; gives the number of bytes.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// fdatasync(2). After an error nothing is known about what was written since the last success.
    fn sync(&self) -> io::Result<()>;
    /// Is it still the file of that name?
    fn is_at(&self, path: &Path) -> bool;
}

/// Holds a folder's lock while it lives.
pub(super) trait Lock: fmt::Debug {}

/// What the outbox asks of a file system.
pub(super) trait Storage: fmt::Debug + Send + Sync {
    /// Does it refuse every change?
    fn is_read_only(&self) -> bool {
        false
    }
    /// The path of a folder without links and dots, by which everybody knows it.
    fn absolute(&self, folder: &Path) -> PathBuf;
    /// Creates a folder and those above it, readable by its owner alone; no error if it is there.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;
    /// Locks a folder against other processes; `None`: somebody else has it.
    fn lock(&self, folder: &Path) -> io::Result<Option<Box<dyn Lock>>>;
    /// The names of the files in a folder.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// Opens a file that is there, for reading.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>>;
    /// Opens a file for reading and writing; creates it, empty, if it is not there.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>>;
    /// Renames a file, over another one if need be.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Deletes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes names in a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
    /// Bytes that are free on the folder's file system for those who are not root.
    fn free(&self, folder: &Path) -> io::Result<u64>;
}

/// The machine's own file system.
#[derive(Debug)]
pub(super) struct Disk;

impl StoredFile for fs::File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match FileExt::read_at(self, &mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()?;
        // Under a file that is open, an emergency remount leaves ext4 answering a sync with success and writing nothing.
        if rustix::fs::fstatvfs(self)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(rustix::io::Errno::ROFS.into());
        }
        // What has no name any more can be written and synced, and is gone with the process.
        if rustix::fs::fstat(self)?.st_nlink == 0 {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the file was removed"));
        }
        Ok(())
    }

    fn is_at(&self, path: &Path) -> bool {
        let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let (ours, named) = (self.metadata().map(identity), fs::metadata(path).map(identity));
        matches!((ours, named), (Ok(ours), Ok(named)) if ours == named)
    }
}

impl Lock for OwnedFd {}

impl Storage for Disk {
    fn absolute(&self, folder: &Path) -> PathBuf {
        folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
    }

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
    }

    /// The folder itself is locked (flock(2)), so that no file has to be written for it: a medium that was mounted
    /// read-only can be locked too.
    fn lock(&self, folder: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let folder = OwnedFd::from(fs::File::open(folder)?);
        match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Box::new(folder))),
            Err(error) if error == rustix::io::Errno::WOULDBLOCK => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            // Every name that the outbox gives is plain ASCII: what is not UTF-8 is somebody else's.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        Ok(Arc::new(fs::File::open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        fs::File::open(folder)?.sync_all()
    }

    fn free(&self, folder: &Path) -> io::Result<u64> {
        let file_system = rustix::fs::statvfs(folder)?;
        Ok(file_system.f_bavail.saturating_mul(file_system.f_frsize))
    }
}
