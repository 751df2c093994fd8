//! Segments: the files of the log.

use std::io;
use std::path::{Path, PathBuf};

use super::dictionary::FileDictionary;
use super::frame::{FileId, Kind, Scanner, Step};
use super::seal::Key;
use super::storage::Storage;
use super::{Entry, Seq, record};

/// Bytes of a segment. All of them are zeroed when it is created, so that later writes change no metadata.
pub(super) const SEGMENT_SIZE: u64 = 1024 * 1024;

/// Folder for segments that are damaged or belong to another outbox, inside of the outbox's.
pub(super) const SET_ASIDE: &str = "damaged";

/// Files that are kept there; beyond that a damaged one is recycled or deleted.
pub(super) const MAX_SET_ASIDE: usize = 8;

/// Name of a segment.
pub(super) fn name(number: u64) -> String {
    format!("segment-{number:012}")
}

/// Name of a segment that awaits its next use.
pub(super) fn spare_name(number: u64) -> String {
    format!("spare-{number:012}")
}

/// The number in a file's name.
pub(super) fn number_in(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?;
    (digits.len() >= 12 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

/// What is known of a segment.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// Its number.
    pub(super) number: u64,
    /// No record in it is below this position.
    pub(super) first: Seq,
    /// Records in it from this position on do not count: the next segment has them, or nobody was told of them.
    pub(super) end: Seq,
    /// Bytes of it that may hold frames.
    pub(super) used: u64,
    /// Is it of the format that is written now?
    pub(super) current: bool,
    /// Was damage found in it?
    pub(super) damaged: bool,
    /// Reads of it that failed.
    pub(super) failed_reads: u32,
}

impl Segment {
    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(name(self.number))
    }
}

/// Reads a segment's records in order.
#[derive(Debug)]
pub(super) struct Reader {
    /// Which segment.
    pub(super) number: u64,
    /// All records that end at or before it were passed.
    pub(super) position: Seq,
    scanner: Scanner,
    dictionary: FileDictionary,
}

/// What a [`Reader`] gives.
pub(super) enum Next {
    /// A record.
    Entry(Entry),
    /// Something that was a record once, or several.
    Damage,
    /// No further record.
    End,
}

impl Reader {
    /// Opens a segment.
    pub(super) fn open(storage: &dyn Storage, folder: &Path, key: Option<&Key>, segment: &Segment) -> io::Result<Self> {
        let file = storage.open(&segment.path(folder))?;
        let scanner = Scanner::new(file, FileId::segment(segment.number), key, segment.used);
        Ok(Self { number: segment.number, position: 0, scanner, dictionary: FileDictionary::default() })
    }

    /// The next record that ends after `from`.
    pub(super) fn next(&mut self, segment: &Segment, from: Seq) -> io::Result<Next> {
        self.scanner.extend(segment.used);
        loop {
            let (kind, payload) = match self.scanner.step()? {
                Step::Frame(kind, payload) => (kind, payload),
                Step::Damage { part } => {
                    // What a part begins with is missed: numbers may mean something else in it.
                    if part {
                        self.dictionary.clear();
                    }
                    return Ok(Next::Damage);
                }
                Step::End => return Ok(Next::End),
            };
            if !matches!(kind, Kind::Reading | Kind::Raw) {
                if self.dictionary.take_up(kind, payload) {
                    continue;
                }
                return Ok(Next::Damage);
            }
            let Some((head, seqs, rest)) = record::head(payload) else { return Ok(Next::Damage) };
            if seqs.end > segment.end {
                return Ok(Next::End);
            }
            // A record that is not newer than the one before was written twice because of a failed flush.
            if seqs.start < self.position {
                continue;
            }
            if seqs.end <= from {
                self.position = seqs.end;
                continue;
            }
            let entry = match kind {
                Kind::Reading => record::reading(&head, rest, &self.dictionary),
                _ => record::raw(&head, rest, &self.dictionary),
            };
            // One that cannot be made out is not passed: whoever asks for it again is to come by here.
            let Some(entry) = entry else { return Ok(Next::Damage) };
            self.position = seqs.end;
            return Ok(Next::Entry(entry));
        }
    }
}
