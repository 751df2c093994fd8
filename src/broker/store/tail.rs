//! The tail: a file in memory (tmpfs) that has every change since the last flush. It survives the process, not the
//! machine.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::file::private;
use super::record::{self, Record};

/// The tail's file.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    /// `None`: it cannot be written; a flush tries anew.
    file: Option<File>,
    length: usize,
    buffer: Vec<u8>,
}

/// Name of the tail of the store with that identity.
pub(super) fn name(id: u64) -> String {
    format!("broker-{id:016x}")
}

impl Tail {
    /// Opens the tail of a store, and reads what is in it. Bytes that cannot be read are given to `spoilt`, all of them.
    pub(super) fn open(
        folder: &Path,
        id: u64,
        take: impl FnMut(Record),
        spoilt: impl FnOnce(&[u8]) -> io::Result<()>,
    ) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let path = folder.join(name(id));
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let length = record::read(&bytes, take);
        if length < bytes.len() {
            // Damage, or half of the last write of a process that was killed: nothing tells the two apart.
            spoilt(&bytes)?;
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        file.set_len(u64::try_from(length).expect("a length in memory"))?;
        Ok(Self { path, file: Some(file), length, buffer: Vec::new() })
    }

    /// Bytes in it.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Appends a change: once this returns it survives the process.
    pub(super) fn append(&mut self, record: &Record) -> io::Result<()> {
        self.buffer.clear();
        record::write(record, &mut self.buffer);
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let written = file.write_all(&self.buffer);
        match &written {
            Ok(()) => self.length += self.buffer.len(),
            // Half a record would hide every one behind it.
            Err(_) => self.file = None,
        }
        written
    }

    /// Removes the file, until it is written anew.
    pub(super) fn remove(&mut self) -> io::Result<()> {
        self.file = None;
        self.length = 0;
        fs::remove_file(&self.path)
    }

    /// Writes it anew with these alone: the others are on disk.
    pub(super) fn replace(&mut self, records: impl Iterator<Item = Record>) -> io::Result<()> {
        self.buffer.clear();
        for record in records {
            record::write(&record, &mut self.buffer);
        }
        let new = self.path.with_extension("new");
        let mut file = private(&new, true)?;
        file.write_all(&self.buffer)?;
        fs::rename(&new, &self.path)?;
        self.file = Some(OpenOptions::new().append(true).open(&self.path)?);
        self.length = self.buffer.len();
        // The capacity of a large one is not kept for the single records to come.
        self.buffer = Vec::new();
        Ok(())
    }
}
