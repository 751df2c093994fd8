//! Gathering what belongs to a gateway, beside its agent or without one.
//!
//! The agent is not asked to stand still, because the outbox's files are made for being cut off at any moment. They are
//! read in the order *state, tail, segments*: so the log is never older than the tail, and what the tail has that the
//! log has not is in it whole (`docs/outbox-format.md`, "Recovery").

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::owner::Owner;
use super::{FORMAT, Head, Item, Part, Writer};
use crate::config::{self, Config};
use crate::outbox::Outbox;

/// Folders beside the configuration that belong to it, although it names what is in them by credentials, or not at all.
const BESIDE: [&str; 2] = ["credentials", "tls"];

/// How deep such a folder is looked through.
const MAX_DEPTH: usize = 4;

/// How often it is tried to open a tail that is written anew at the moment.
const ATTEMPTS: u32 = 50;

/// What a backup is taken of.
#[derive(Debug)]
pub struct Sources<'a> {
    /// The configuration's main file.
    pub config_path: &'a Path,
    /// What it says.
    pub config: &'a Config,
    /// Where the outbox's tail may be.
    pub tails: &'a [PathBuf],
    /// What the embedded broker keeps, if it keeps anything.
    pub store: Option<Vec<u8>>,
    /// What is wanted.
    pub parts: &'a [Part],
    /// Also files that not everybody may read.
    pub secrets: bool,
    /// The board's serial number.
    pub board: Option<String>,
    /// Seconds since 1970, and the same for people.
    pub made: (u64, String),
}

/// What was taken.
#[derive(Debug)]
pub struct Taken {
    /// What the backup says of itself.
    pub head: Head,
    /// How many files of each part, and their bytes.
    pub parts: Vec<(Part, usize, u64)>,
}

/// A file that could not be read, or the backup that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}", path = .path.display())]
pub struct Failure {
    /// Which.
    pub path: PathBuf,
    /// What the system said.
    pub error: io::Error,
}

/// Writes a backup to `to`.
///
/// # Errors
/// Something cannot be read or written. What was written is of no use then.
pub fn take<W: Write>(sources: &Sources<'_>, to: W) -> Result<(Taken, W), Failure> {
    let unwritable = |error| Failure { path: PathBuf::from("the backup"), error };
    let wanted = |part| sources.parts.contains(&part);
    let (beside, left_out) = if wanted(Part::Configuration) { beside(sources)? } else { (Vec::new(), Vec::new()) };
    let parts: Vec<Part> = Part::ALL.into_iter().filter(|part| wanted(*part)).collect();
    let head = Head {
        format: FORMAT,
        vigie: env!("CARGO_PKG_VERSION").to_owned(),
        made: sources.made.1.clone(),
        gateway: sources.config.gateway.name.clone(),
        board: sources.board.clone(),
        parts,
        secrets: sources.secrets,
        left_out,
    };
    let writer = Writer::new(to, &head, sources.made.0).map_err(unwritable)?;
    let mut taker = Taker { writer, parts: Part::ALL.map(|part| (part, 0, 0)) };
    if wanted(Part::Configuration) {
        taker.configuration(sources.config_path, &beside)?;
    }
    if wanted(Part::Outbox) {
        taker.outbox(&sources.config.outbox.path, sources.tails)?;
    }
    if let Some(archive) = sources.config.archive.as_ref().filter(|_| wanted(Part::Archive)) {
        for name in sorted(&archive.path)? {
            let item = Item::parse(&format!("archive/{name}"));
            taker.file_if_there(item, &archive.path.join(name))?;
        }
    }
    if let Some(store) = sources.store.as_deref().filter(|_| wanted(Part::Broker)) {
        taker.add(&Item::Store, &Owner::default(), 0o600, store.len() as u64, store).map_err(unwritable)?;
    }
    let parts = taker.parts.into_iter().filter(|(_, files, _)| *files > 0).collect();
    let to = taker.writer.finish().map_err(unwritable)?;
    Ok((Taken { head, parts }, to))
}

struct Taker<W: Write> {
    writer: Writer<W>,
    parts: [(Part, usize, u64); 4],
}

impl<W: Write> Taker<W> {
    fn add(&mut self, item: &Item, owner: &Owner, mode: u32, length: u64, from: impl Read) -> io::Result<()> {
        for (part, files, bytes) in &mut self.parts {
            if *part == item.part() {
                *files += 1;
                *bytes += length;
            }
        }
        self.writer.add(item, owner, mode, length, from)
    }

    /// Adds a file as long as it is now: one that grows meanwhile is cut off there.
    fn opened(&mut self, item: &Item, path: &Path, file: &File, meta: &Metadata) -> Result<(), Failure> {
        let result = self.add(item, &Owner::of(meta), meta.permissions().mode(), meta.len(), file);
        result.map_err(|error| Failure { path: path.to_owned(), error })
    }

    fn file(&mut self, item: &Item, path: &Path) -> Result<(), Failure> {
        let (file, meta) = open(path)?;
        self.opened(item, path, &file, &meta)
    }

    /// The same for a file that may be deleted at any moment, if it is one of ours at all.
    fn file_if_there(&mut self, item: Option<Item>, path: &Path) -> Result<(), Failure> {
        let Some(item) = item else { return Ok(()) };
        match self.file(&item, path) {
            Err(failure) if failure.error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn configuration(&mut self, main: &Path, beside: &[(Item, PathBuf)]) -> Result<(), Failure> {
        self.file(&Item::Main, main)?;
        let folder = main.with_extension("d");
        for path in config::files(main).map_err(|error| Failure { path: folder, error })?.iter().skip(1) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let item = Item::parse(&format!("configuration/vigie.d/{name}"));
            let item = item.ok_or_else(|| Failure { path: path.clone(), error: unnamable() })?;
            self.file(&item, path)?;
        }
        beside.iter().try_for_each(|(item, path)| self.file(item, path))
    }

    fn outbox(&mut self, folder: &Path, tails: &[PathBuf]) -> Result<(), Failure> {
        for name in ["board", "state-0", "state-1"] {
            self.file_if_there(Item::outbox(name), &folder.join(name))?;
        }
        self.tail(folder, tails)?;
        // Listed once: a segment that is begun later would leave a hole between its records and those that are read.
        for name in sorted(folder)?.iter().filter(|name| name.starts_with("segment-")) {
            self.file_if_there(Item::outbox(name), &folder.join(name))?;
        }
        let refused = folder.join("refused");
        for name in sorted(&refused)? {
            self.file_if_there(Item::parse(&format!("outbox/refused/{name}")), &refused.join(name))?;
        }
        Ok(())
    }

    /// The newest tail, which is replaced by the next one now and then.
    fn tail(&mut self, outbox: &Path, tails: &[PathBuf]) -> Result<(), Failure> {
        let folders: Vec<PathBuf> = tails.iter().map(|dir| Outbox::tail_folder(dir, outbox)).collect();
        for attempt in 0.. {
            let mut newest: Option<(Item, PathBuf)> = None;
            for folder in &folders {
                for name in sorted(folder)? {
                    let Some(item) = Item::parse(&format!("outbox/tail/{name}")) else { continue };
                    if newest.as_ref().is_none_or(|(known, _)| *known < item) {
                        newest = Some((item, folder.join(name)));
                    }
                }
            }
            let Some((item, path)) = newest else { return Ok(()) };
            match open(&path) {
                Err(failure) if failure.error.kind() == io::ErrorKind::NotFound && attempt < ATTEMPTS => {}
                opened => {
                    let (file, meta) = opened?;
                    return self.opened(&item, &path, &file, &meta);
                }
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<(File, Metadata), Failure> {
    let opened = File::open(path).and_then(|file| {
        let meta = file.metadata()?;
        if meta.is_file() { Ok((file, meta)) } else { Err(io::Error::other("this is no file")) }
    });
    opened.map_err(|error| Failure { path: path.to_owned(), error })
}

/// The names in a folder, sorted; none where there is no folder. What is no text is not one of ours.
fn sorted(folder: &Path) -> Result<Vec<String>, Failure> {
    let cannot = |error| Failure { path: folder.to_owned(), error };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(cannot(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(cannot)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn unnamable() -> io::Error {
    io::Error::other("a file of such a name has no place in a backup")
}

/// The files beside the configuration that go with it, and those that do not.
type Beside = (Vec<(Item, PathBuf)>, Vec<PathBuf>);

fn beside(sources: &Sources<'_>) -> Result<Beside, Failure> {
    let main = sources.config_path;
    let cannot = |error| Failure { path: main.to_owned(), error };
    let folder = main.canonicalize().map_err(cannot)?;
    let folder = folder.parent().unwrap_or(Path::new("/"));
    let own: BTreeSet<PathBuf> =
        config::files(main).map_err(cannot)?.iter().filter_map(|path| path.canonicalize().ok()).collect();
    let mut named: BTreeSet<PathBuf> = config::named_files(main).into_iter().collect();
    for name in BESIDE {
        files_below(&folder.join(name), MAX_DEPTH, &mut named);
    }
    let (mut items, mut left_out) = (Vec::new(), Vec::new());
    for path in named.into_iter().filter(|path| !own.contains(path)) {
        let inner = path.strip_prefix(folder).ok();
        let open = inner.is_some_and(|inner| everybody_reads(folder, inner));
        match inner.and_then(Item::beside).filter(|_| open || sources.secrets) {
            Some(item) => items.push((item, path)),
            None if is_systems(&path) => {}
            None => left_out.push(path),
        }
    }
    Ok((items, left_out))
}

/// Does it come with a package of the system, as `/bin/sh` and the authorities' certificates do?
fn is_systems(path: &Path) -> bool {
    let starts = |folders: &[&str]| folders.iter().any(|folder| path.starts_with(folder));
    starts(&["/usr", "/bin", "/sbin", "/lib", "/proc", "/sys", "/run"]) && !starts(&["/usr/local"])
}

fn files_below(folder: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) {
    // A folder that is not there, or not for us: whoever may not read it gets no secrets either.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_file() => drop(found.insert(entry.path())),
            Ok(kind) if kind.is_dir() && depth > 0 => files_below(&entry.path(), depth - 1, found),
            _ => {}
        }
    }
}

/// May every user of the machine read that file, with all the folders on the way to it?
fn everybody_reads(folder: &Path, inner: &Path) -> bool {
    let mode = |path: &Path| fs::metadata(folder.join(path)).map_or(0, |meta| meta.permissions().mode());
    let folders = inner.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty());
    mode(inner) & 0o004 != 0 && folders.map(mode).all(|mode| mode & 0o001 != 0)
}
