//! Which client identifiers were seen before: a file of their fingerprints, which survives restarts.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};

/// Identifiers that are remembered; beyond it, the one that was away for the longest time is forgotten.
const MAX_KNOWN: usize = 4096;
/// Bytes of a fingerprint.
const BYTES: usize = 8;
/// Longest file: a line has the fingerprint in hexadecimal and its end.
const MAX_FILE_BYTES: usize = MAX_KNOWN * (2 * BYTES + 1);

type Fingerprint = [u8; BYTES];

fn fingerprint(client: &str) -> Fingerprint {
    let digest = digest(&SHA256, client.as_bytes());
    let mut bytes = [0; BYTES];
    bytes.copy_from_slice(&digest.as_ref()[..BYTES]);
    bytes
}

/// The clients that are known, the one that came last with the highest number.
#[derive(Debug, Default)]
pub(super) struct Known {
    seen: HashMap<Fingerprint, u64>,
    next: u64,
    changed: bool,
}

/// What was found on disk.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) known: Known,
    /// There was a file.
    pub(super) existed: bool,
    /// It was damaged, and is here now.
    pub(super) aside: Option<PathBuf>,
}

fn file(folder: &Path) -> PathBuf {
    folder.join("clients")
}

impl Known {
    /// Reads the file of a folder. One that is damaged is put aside, and what is good in it used; without one, or if it
    /// cannot be read, nobody is known.
    pub(super) fn open(folder: &Path) -> Found {
        let path = file(folder);
        let mut known = Self::default();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(%error, file = %path.display(), "broker: the known clients cannot be read");
                }
                return Found { known, existed: false, aside: None };
            }
        };
        let mut damaged = text.len() > MAX_FILE_BYTES;
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let read = HEXLOWER.decode(line).ok().and_then(|bytes| Fingerprint::try_from(bytes).ok());
            match read {
                Some(fingerprint) if known.seen.len() < MAX_KNOWN => {
                    known.see(fingerprint);
                }
                _ => damaged = true,
            }
        }
        known.changed = damaged;
        let aside = damaged.then(|| path.with_extension("damaged"));
        if let Some(aside) = &aside {
            // It is written anew in any case.
            let _ = std::fs::rename(&path, aside);
        }
        Found { known, existed: true, aside }
    }

    /// A client has come; `true`: it was known.
    pub(super) fn come(&mut self, client: &str) -> bool {
        self.see(fingerprint(client))
    }

    fn see(&mut self, fingerprint: Fingerprint) -> bool {
        self.next += 1;
        if let Some(last) = self.seen.get_mut(&fingerprint) {
            *last = self.next;
            return true;
        }
        if self.seen.len() >= MAX_KNOWN
            && let Some(oldest) = self.seen.iter().min_by_key(|(_, last)| **last).map(|(oldest, _)| *oldest)
        {
            self.seen.remove(&oldest);
        }
        self.seen.insert(fingerprint, self.next);
        self.changed = true;
        false
    }

    /// What is to be written, if somebody has come who was not known.
    pub(super) fn take_changed(&mut self) -> Option<String> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut all: Vec<_> = self.seen.iter().map(|(fingerprint, last)| (*last, fingerprint)).collect();
        all.sort_unstable();
        Some(all.into_iter().map(|(_, fingerprint)| HEXLOWER.encode(fingerprint) + "\n").collect())
    }

    /// The next attempt writes it again.
    pub(super) fn not_written(&mut self) {
        self.changed = true;
    }
}

/// Writes the file anew beside the old one, and puts it in its place.
pub(super) fn write(folder: &Path, text: &str) -> io::Result<()> {
    let path = file(folder);
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn who_was_there_is_known_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let Found { mut known, existed, .. } = Known::open(folder.path());
        assert!(!existed);
        assert!(!known.come("anna") && known.come("anna") && !known.come("bob"));
        write(folder.path(), &known.take_changed().unwrap()).unwrap();
        known.come("anna");
        assert_eq!(known.take_changed(), None, "nothing new: the card is spared");
        let Found { mut known, existed, aside } = Known::open(folder.path());
        assert!(existed && aside.is_none() && known.take_changed().is_none());
        assert!(known.come("anna") && known.come("bob") && !known.come("eve"));
    }

    #[test]
    fn the_list_is_bounded_and_forgets_who_was_away_for_longest() {
        let mut known = Known::default();
        known.come("always");
        for number in 0..2 * MAX_KNOWN {
            known.come(&number.to_string());
            known.come("always");
        }
        let text = known.take_changed().unwrap();
        assert_eq!(text.len(), MAX_FILE_BYTES);
        assert!(known.come("always") && !known.come("0"));
    }

    #[test]
    fn a_damaged_file_is_put_aside_and_what_is_good_in_it_used() {
        let folder = tempfile::tempdir().unwrap();
        let mut known = Known::default();
        known.come("anna");
        let text = known.take_changed().unwrap() + "no fingerprint\n";
        write(folder.path(), &text).unwrap();
        let Found { mut known, aside, .. } = Known::open(folder.path());
        assert_eq!(std::fs::read_to_string(aside.unwrap()).unwrap(), text);
        assert!(known.come("anna"));
        write(folder.path(), &known.take_changed().unwrap()).unwrap();
        assert!(Known::open(folder.path()).aside.is_none());
    }

    proptest! {
        #[test]
        fn whatever_is_in_the_file_is_no_reason_to_fail(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(file(folder.path()), bytes).unwrap();
            let mut found = Known::open(folder.path());
            prop_assert!(found.existed);
            found.known.come("anna");
        }
    }
}
