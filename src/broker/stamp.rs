//! Has a file changed since it was read?

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

/// How a file looked: one that is written or replaced looks otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    changed: Option<SystemTime>,
    inode: u64,
}

impl Stamp {
    /// As it looks now.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let meta = std::fs::metadata(path)?;
        Ok(Self { changed: meta.modified().ok(), inode: meta.ino() })
    }

    /// Does it look otherwise now? Then that is what counts from here on. One that is gone is no new one.
    pub(super) fn renew(&mut self, path: &Path) -> bool {
        let now = Self::of(path);
        let has_changed = now.as_ref().is_ok_and(|now| now != self);
        *self = now.unwrap_or(*self);
        has_changed
    }
}
