//! The store as one piece, for a backup: taken beside a broker that writes to it, or without one.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::{HEAD, NAME, head, identity};
use super::{record, tail};

/// How often it is tried to read file and tail between two flushes, of which there is at most one a second.
const ATTEMPTS: u32 = 50;

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// The store of a folder, with what is in its tail, which is in one of `tails`; `None`: there is none. It has the form of
/// the file on disk.
///
/// # Errors
/// It cannot be read, or it is written to without a break.
pub fn take(folder: &Path, tails: &[PathBuf]) -> io::Result<Option<Vec<u8>>> {
    let path = folder.join(NAME);
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(PAUSE);
        }
        let Some(before) = state(&path)? else { return Ok(None) };
        let mut bytes = fs::read(&path)?;
        let Some(id) = identity(&bytes) else { return Err(io::Error::other("the broker's store is damaged")) };
        bytes.truncate(HEAD + record::read(&bytes[HEAD..], drop));
        for folder in tails {
            match fs::read(folder.join(tail::name(id))) {
                Ok(tail) => bytes.extend_from_slice(&tail[..record::read(&tail, drop)]),
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(error),
            }
        }
        // What a flush takes out of the tail it has put into the file before: where the file has not changed, nothing of
        // the tail had gone when the tail was read.
        if state(&path)? == Some(before) {
            return Ok(Some(bytes));
        }
    }
    Err(io::Error::other("the broker's store is written to without a break: try again later"))
}

/// The same store under another identity, so that no tail that was left somewhere is taken for its own.
///
/// # Errors
/// It is no store, or of another version, or not whole.
pub fn renewed(mut bytes: Vec<u8>, id: u64) -> Result<Vec<u8>, &'static str> {
    if identity(&bytes).is_none() {
        return Err("what the broker kept is of another version of vigie, or damaged");
    }
    if HEAD + record::read(&bytes[HEAD..], drop) != bytes.len() {
        return Err("what the broker kept is damaged");
    }
    bytes[..HEAD].copy_from_slice(&head(id));
    Ok(bytes)
}

fn state(path: &Path) -> io::Result<Option<(u64, u64, i64, i64)>> {
    let about = |meta: Metadata| (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec());
    match path.metadata() {
        Ok(meta) => Ok(Some(about(meta))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
