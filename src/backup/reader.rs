//! Reading a backup: once to see whether it is whole, and once more to take it out.

use std::collections::BTreeSet;
use std::io::{self, Read};

use flate2::read::GzDecoder;
use ring::digest;
use tar::{Archive, Entry, EntryType};

use super::owner::Owner;
use super::{FORMAT, HEAD, Head, Item, MAX_ENTRIES, MAX_HEAD, MAX_SUMS, Part, SUMS, Unusable};

/// What follows the last entry: blocks of zeros, up to the block size of `tar`.
const MAX_REST: u64 = 64 * 1024;

/// What a whole backup holds.
#[derive(Clone, Debug)]
pub struct Contents {
    /// What it is of.
    pub head: Head,
    /// Its files and their lengths in bytes, in order.
    pub items: Vec<(Item, u64)>,
    /// The texts of the configuration, the main file first; its fragments are sorted by name.
    pub configuration: Vec<(Item, String)>,
}

impl Contents {
    /// Does it hold anything of that part?
    #[must_use]
    pub fn has(&self, part: Part) -> bool {
        self.items.iter().any(|(item, _)| item.part() == part)
    }

    /// Bytes of that part.
    #[must_use]
    pub fn bytes(&self, part: Part) -> u64 {
        self.items.iter().filter(|(item, _)| item.part() == part).map(|(_, length)| length).sum()
    }
}

/// Reads all of it, and writes nothing.
///
/// # Errors
/// It is not whole, or something that does not belong into a backup is in it.
pub fn check(from: impl Read) -> Result<Contents, Unusable> {
    let mut items = Vec::new();
    let mut configuration = Vec::new();
    let mut names = BTreeSet::new();
    let head = walk(from, |item, entry, _| {
        if !names.insert(item.clone()) {
            return Err(Unusable::Foreign(format!("{item} is in it twice")));
        }
        items.push((item.clone(), entry.length));
        if matches!(item, Item::Main | Item::Fragment(_)) {
            let mut text = String::new();
            entry.read_to_string(&mut text).map_err(|error| damaged(&format!("{item}: {error}")))?;
            configuration.push((item.clone(), text));
        }
        Ok(())
    })?;
    configuration.sort();
    Ok(Contents { head, items, configuration })
}

/// Hands over each file of a backup that was [checked](check) before. What is not read of it is passed over.
///
/// # Errors
/// It is not whole (any more), or what `take` says.
pub fn extract(
    from: impl Read,
    mut take: impl FnMut(&Item, &mut dyn Read, u32, &Owner) -> io::Result<()>,
) -> Result<(), Unusable> {
    walk(from, |item, entry, meta| Ok(take(item, entry, meta.mode, &meta.owner)?)).map(drop)
}

/// What an entry's header says.
struct Meta {
    mode: u32,
    owner: Owner,
}

fn walk(
    from: impl Read,
    mut take: impl FnMut(&Item, &mut Summed<'_>, &Meta) -> Result<(), Unusable>,
) -> Result<Head, Unusable> {
    let mut archive = Archive::new(GzDecoder::new(from));
    // As they stand there: extensions (long names, sparse files) are entries of kinds that are refused below.
    let mut entries = archive.entries()?.raw(true);
    let mut next = || entries.next().transpose().map_err(broken);

    let first = next()?.ok_or_else(|| Unusable::Foreign("it is empty".to_owned()))?;
    let (name, length) = about(&first)?;
    if name != HEAD || length > MAX_HEAD {
        return Err(Unusable::Foreign(format!("it does not begin with {HEAD}")));
    }
    let mut first = Summed::new(first, length);
    let mut text = Vec::new();
    first.read_to_end(&mut text).map_err(broken)?;
    let head = head(&text)?;
    let mut sums = vec![(name, first.finish()?)];
    loop {
        let entry = next()?.ok_or_else(|| damaged("it ends before its checksums"))?;
        let (name, length) = about(&entry)?;
        if name == SUMS {
            compare(entry, length, &sums)?;
            break;
        }
        let item = Item::parse(&name)
            .ok_or_else(|| Unusable::Foreign(format!("`{}` does not belong into one", name.escape_debug())))?;
        if length > item.limit() || sums.len() > MAX_ENTRIES {
            return Err(Unusable::Foreign(format!("{item} is larger than such a file can be")));
        }
        let meta = Meta { mode: entry.header().mode().unwrap_or(0o600) & 0o777, owner: Owner::read(entry.header()) };
        let mut summed = Summed::new(entry, length);
        take(&item, &mut summed, &meta)?;
        sums.push((name, summed.finish()?));
    }
    if next()?.is_some() {
        return Err(Unusable::Foreign("something follows its checksums".to_owned()));
    }
    // The end has the checksum of the compression.
    let rest = io::copy(&mut archive.into_inner().take(MAX_REST), &mut io::sink()).map_err(broken)?;
    if rest == MAX_REST {
        return Err(Unusable::Foreign("something follows its end".to_owned()));
    }
    Ok(head)
}

fn head(text: &[u8]) -> Result<Head, Unusable> {
    #[derive(serde::Deserialize)]
    struct Version {
        format: u32,
    }
    let unclear = |error| Unusable::Foreign(format!("{HEAD}: {error}"));
    // The version alone first: what else a newer one says may be anything.
    let Version { format } = serde_json::from_slice(text).map_err(unclear)?;
    if format > FORMAT {
        return Err(Unusable::Newer(format));
    }
    serde_json::from_slice(text).map_err(unclear)
}

/// Name and length of an entry, which must be a plain file.
fn about<R: Read>(entry: &Entry<'_, R>) -> Result<(String, u64), Unusable> {
    let name = String::from_utf8(entry.path_bytes().into_owned())
        .map_err(|_| Unusable::Foreign("a file in it has a name that is no text".to_owned()))?;
    if entry.header().entry_type() != EntryType::Regular {
        return Err(Unusable::Foreign(format!("`{}` is not a plain file", name.escape_debug())));
    }
    Ok((name, entry.size()))
}

fn compare<R: Read>(entry: Entry<'_, R>, length: u64, sums: &[(String, String)]) -> Result<(), Unusable> {
    if length > MAX_SUMS {
        return Err(Unusable::Foreign("its checksums are too long".to_owned()));
    }
    let mut text = String::new();
    entry.take(MAX_SUMS).read_to_string(&mut text).map_err(broken)?;
    let mut lines = text.lines();
    for (name, sum) in sums {
        match lines.next().and_then(|line| line.split_once("  ")) {
            Some((noted, of)) if of == name && noted == sum => {}
            Some((_, of)) if of == name => return Err(damaged(&format!("{name} is not what was written"))),
            _ => return Err(damaged(&format!("{name} has no checksum"))),
        }
    }
    if lines.next().is_some() {
        return Err(damaged("files are missing that its checksums name"));
    }
    Ok(())
}

fn damaged(why: &str) -> Unusable {
    Unusable::Damaged(why.to_owned())
}

/// What the decompression or the archive's reader says of bytes that are not as they were written.
fn broken(error: io::Error) -> Unusable {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it ends too early"),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::Other => damaged(&error.to_string()),
        _ => Unusable::Io(error),
    }
}

/// An entry while it is read, with its checksum.
struct Summed<'a> {
    entry: Box<dyn Read + 'a>,
    length: u64,
    left: u64,
    sum: digest::Context,
}

impl<'a> Summed<'a> {
    fn new<R: Read>(entry: Entry<'a, R>, length: u64) -> Self {
        Self { entry: Box::new(entry), length, left: length, sum: digest::Context::new(&digest::SHA256) }
    }

    /// Passes over what was not read; gives the checksum of all.
    fn finish(mut self) -> Result<String, Unusable> {
        io::copy(&mut self, &mut io::sink()).map_err(broken)?;
        if self.left > 0 {
            return Err(damaged("it ends too early"));
        }
        Ok(data_encoding::HEXLOWER.encode(self.sum.finish().as_ref()))
    }
}

impl Read for Summed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.entry.read(buffer)?;
        self.left = self.left.saturating_sub(count as u64);
        self.sum.update(&buffer[..count]);
        Ok(count)
    }
}
