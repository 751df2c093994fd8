//! The frame of an archive's file: its header, and the header of each batch.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::batch::Batch;
use super::{Failure, MAX_BATCH_BYTES, VERSION};
use crate::clock::WallTime;

/// Bytes of a file's header.
pub(super) const FILE_HEADER: usize = 40;
/// Bytes of a batch's header.
pub(super) const BATCH_HEADER: usize = 40;

/// What a file begins with.
const FILE_MAGIC: [u8; 8] = *b"vigiearc";
/// What a batch begins with.
const BATCH_MAGIC: [u8; 4] = *b"vbat";
/// Stands for a time that is not known.
const NO_TIME: i64 = i64::MIN;

/// The numbers of the files in a folder, in order.
pub(super) fn numbers(folder: &Path) -> std::io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        // Every name of ours is plain ASCII: what is not UTF-8 is somebody else's.
        if let Ok(name) = entry?.file_name().into_string()
            && let Some(digits) = name.strip_prefix("archive-")
            && digits.len() >= 12
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && let Ok(number) = digits.parse()
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The path of a file.
pub(super) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("archive-{number:012}"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn time_at(bytes: &[u8], at: usize) -> Option<WallTime> {
    Some(u64_at(bytes, at).cast_signed()).filter(|time| *time != NO_TIME).map(WallTime)
}

fn put_time(bytes: &mut Vec<u8>, time: Option<WallTime>) {
    bytes.extend_from_slice(&time.map_or(NO_TIME, |time| time.0).to_le_bytes());
}

/// The header of a new file.
pub(super) fn header(number: u64, created: Option<WallTime>) -> Vec<u8> {
    let mut bytes = FILE_MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&number.to_le_bytes());
    put_time(&mut bytes, created);
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes
}

/// When the file was begun; the outer `None`: it has no header of ours.
pub(super) fn read_header(file: &File, path: &Path) -> Result<Option<Option<WallTime>>, Failure> {
    let mut bytes = [0; FILE_HEADER];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(Failure::io("read", path)(error)),
    }
    if bytes[..8] != FILE_MAGIC || crc32fast::hash(&bytes[..32]) != u32_at(&bytes, 32) {
        return Ok(None);
    }
    match u32_at(&bytes, 8) {
        version if version > VERSION => Err(Failure::Newer { path: path.to_owned(), version }),
        _ => Ok(Some(time_at(&bytes, 24))),
    }
}

/// What a batch says before its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHeader {
    /// Bytes of the compressed records after it.
    pub(super) length: usize,
    /// Bytes of them uncompressed.
    pub(super) raw_bytes: usize,
    /// The first and the last time in it, if any record has one.
    pub(super) span: Option<(WallTime, WallTime)>,
    checksum: u32,
}

impl BatchHeader {
    /// Is this what was written?
    pub(super) fn fits(&self, payload: &[u8]) -> bool {
        crc32fast::hash(payload) == self.checksum
    }
}

/// A batch with its header.
pub(super) fn batch(batch: &Batch) -> Vec<u8> {
    let size = |bytes: usize| u32::try_from(bytes).expect("a batch is far below 4 GiB").to_le_bytes();
    let mut bytes = BATCH_MAGIC.to_vec();
    bytes.extend_from_slice(&size(batch.payload.len()));
    bytes.extend_from_slice(&size(batch.raw_bytes));
    bytes.extend_from_slice(&u32::try_from(batch.values).unwrap_or(u32::MAX).to_le_bytes());
    put_time(&mut bytes, batch.span.map(|(first, _)| first));
    put_time(&mut bytes, batch.span.map(|(_, last)| last));
    bytes.extend_from_slice(&crc32fast::hash(&batch.payload).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes.extend_from_slice(&batch.payload);
    bytes
}

/// The header of the batch at `offset`; `None`: there is none.
pub(super) fn read_batch_header(file: &File, offset: u64) -> std::io::Result<Option<BatchHeader>> {
    let mut bytes = [0; BATCH_HEADER];
    match file.read_exact_at(&mut bytes, offset) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    if bytes[..4] != BATCH_MAGIC || crc32fast::hash(&bytes[..36]) != u32_at(&bytes, 36) {
        return Ok(None);
    }
    let (length, raw_bytes) = (u32_at(&bytes, 4) as usize, u32_at(&bytes, 8) as usize);
    // Bytes that do not compress grow a little.
    if raw_bytes > MAX_BATCH_BYTES || length > 2 * MAX_BATCH_BYTES {
        return Ok(None);
    }
    let span = time_at(&bytes, 16).zip(time_at(&bytes, 24));
    Ok(Some(BatchHeader { length, raw_bytes, span, checksum: u32_at(&bytes, 32) }))
}
