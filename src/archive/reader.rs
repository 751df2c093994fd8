//! Reading, a batch at a time, beside an agent that writes or without one.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::file::{self, BATCH_HEADER, FILE_HEADER};
use super::{Failure, batch};
use crate::clock::WallTime;
use crate::outbox::Entry;

/// Goes through an archive from the oldest record to the newest.
#[derive(Debug)]
pub struct Reader {
    folder: PathBuf,
    numbers: VecDeque<u64>,
    current: Option<(File, PathBuf, u64)>,
    from: Option<WallTime>,
    to: Option<WallTime>,
}

/// What a reader comes upon.
#[derive(Debug)]
pub enum Piece {
    /// Records; those of a batch that has some in the wanted time. Others may be among them.
    Records(Vec<Entry>),
    /// A batch of this file, or the rest of it, cannot be read.
    Damage(PathBuf),
}

impl Reader {
    /// Opens an archive; batches that were measured wholly before `from` or not before `to` are passed over.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn open(folder: &Path, from: Option<WallTime>, to: Option<WallTime>) -> Result<Self, Failure> {
        let numbers = file::numbers(folder).map_err(Failure::io("list the folder", folder))?;
        Ok(Self { folder: folder.to_owned(), numbers: numbers.into(), current: None, from, to })
    }

    /// The next piece; `None`: that was all.
    ///
    /// # Errors
    /// A file cannot be read, or is of a newer version.
    pub fn step(&mut self) -> Result<Option<Piece>, Failure> {
        loop {
            let Some((file, path, offset)) = &mut self.current else {
                match self.open_next()? {
                    Some(piece) => return Ok(Some(piece)),
                    None if self.current.is_none() => return Ok(None),
                    None => continue,
                }
            };
            let cannot = |error| Failure::io("read", path)(error);
            let Some(header) = file::read_batch_header(file, *offset).map_err(cannot)? else {
                let length = file.metadata().map_err(cannot)?.len();
                let rest = length > *offset;
                let path = path.clone();
                self.current = None;
                // An agent may be writing the newest file's end at this moment.
                if rest && !self.numbers.is_empty() {
                    return Ok(Some(Piece::Damage(path)));
                }
                continue;
            };
            let begin = *offset + BATCH_HEADER as u64;
            *offset = begin + header.length as u64;
            let out_of_time = match header.span {
                Some((first, last)) => {
                    self.from.is_some_and(|from| last < from) || self.to.is_some_and(|to| first >= to)
                }
                None => self.from.is_some() || self.to.is_some(),
            };
            if out_of_time {
                continue;
            }
            let mut payload = vec![0; header.length];
            match file.read_exact_at(&mut payload, begin) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    let path = path.clone();
                    self.current = None;
                    if !self.numbers.is_empty() {
                        return Ok(Some(Piece::Damage(path)));
                    }
                    continue;
                }
                Err(error) => return Err(cannot(error)),
            }
            let records = header.fits(&payload).then(|| batch::read(&payload, header.raw_bytes)).flatten();
            return Ok(Some(match records {
                Some(records) => Piece::Records(records),
                None => Piece::Damage(path.clone()),
            }));
        }
    }

    /// Opens the next file; gives what is wrong with it.
    fn open_next(&mut self) -> Result<Option<Piece>, Failure> {
        while let Some(number) = self.numbers.pop_front() {
            let path = file::path(&self.folder, number);
            let file = match File::open(&path) {
                Ok(file) => file,
                // The agent has deleted it since: it was too old.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Failure::io("open", &path)(error)),
            };
            if file::read_header(&file, &path)?.is_none() {
                if self.numbers.is_empty() {
                    return Ok(None);
                }
                return Ok(Some(Piece::Damage(path)));
            }
            self.current = Some((file, path, FILE_HEADER as u64));
            return Ok(None);
        }
        Ok(None)
    }
}
