//! Writing a backup, one file after the other, without holding any of them in memory.

use std::fmt::Write as _;
use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use ring::digest;
use tar::{Builder, EntryType, Header};

use super::owner::Owner;
use super::{HEAD, Head, Item, MAX_ENTRIES, SUMS};

/// A backup while it is written.
pub struct Writer<W: Write> {
    tar: Builder<GzEncoder<W>>,
    sums: String,
    entries: usize,
    /// Seconds since 1970.
    made: u64,
}

impl<W: Write> Writer<W> {
    /// Begins; `made`: seconds since 1970.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(to: W, head: &Head, made: u64) -> io::Result<Self> {
        // A Pi Zero has better things to do: the best compression takes several times as long, for a few per cent.
        let tar = Builder::new(GzEncoder::new(to, Compression::fast()));
        let mut writer = Self { tar, sums: String::new(), entries: 0, made };
        let mut text = serde_json::to_vec_pretty(head)?;
        text.push(b'\n');
        writer.put(HEAD, &Owner::default(), 0o600, text.len() as u64, text.as_slice())?;
        Ok(writer)
    }

    /// Adds a file: `length` bytes of `from`.
    ///
    /// # Errors
    /// It cannot be written, or not read, or `from` has fewer bytes.
    pub fn add(&mut self, item: &Item, owner: &Owner, mode: u32, length: u64, from: impl Read) -> io::Result<()> {
        if length > item.limit() {
            return Err(io::Error::other(format!("{item} is larger than such a file can be: {length} bytes")));
        }
        if self.entries == MAX_ENTRIES {
            return Err(io::Error::other(format!("a backup has room for {MAX_ENTRIES} files")));
        }
        self.entries += 1;
        self.put(&item.to_string(), owner, mode, length, from)
    }

    fn put(&mut self, name: &str, owner: &Owner, mode: u32, length: u64, from: impl Read) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_path(name)?;
        header.set_mode(mode & 0o777);
        header.set_size(length);
        header.set_mtime(self.made);
        owner.put(&mut header)?;
        header.set_cksum();
        let mut exact = Exact { from, left: length, sum: digest::Context::new(&digest::SHA256) };
        self.tar.append(&header, &mut exact)?;
        let sum = exact.sum.finish();
        writeln!(self.sums, "{}  {name}", data_encoding::HEXLOWER.encode(sum.as_ref())).map_err(io::Error::other)
    }

    /// Ends it with the checksums. Gives back what it was written to.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        let sums = std::mem::take(&mut self.sums);
        self.put(SUMS, &Owner::default(), 0o600, sums.len() as u64, sums.as_bytes())?;
        self.tar.into_inner()?.finish()
    }
}

/// So many bytes, neither more (a file that grows) nor less (one that was cut off), and their checksum.
struct Exact<R> {
    from: R,
    left: u64,
    sum: digest::Context,
}

impl<R: Read> Read for Exact<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.from.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was read"));
        }
        self.left -= count as u64;
        self.sum.update(&buffer[..count]);
        Ok(count)
    }
}
