//! The files of a configuration: reading them, parsing them, merging them into one table.
//!
//! Every file gets a range of positions of its own, one after the other, so that one span says both file and place,
//! and whoever reads the merged table need not know that there are several files.

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::hosts::{self, FilesRead};
use crate::options::Problem;

/// Largest file that is read, in bytes. A configuration of a thousand sensors is a fifth of it.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// A file of the configuration.
#[derive(Clone)]
pub(super) struct File {
    /// Path as the user gave it.
    pub(super) path: String,
    /// Text; empty if the file could not be read.
    pub(super) text: String,
    /// Position of the file's first byte; its positions end with `base + text.len()`.
    pub(super) base: usize,
    /// Is it for this host alone? Then it may say again what files for all have said.
    is_hosts: bool,
}

impl fmt::Debug for File {
    /// Without the text: it may hold a password that somebody wrote into the file by mistake.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("path", &self.path).field("bytes", &self.text.len()).finish()
    }
}

/// The files of a configuration, in the order in which they count.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    files: Vec<File>,
    /// Paths of fragments for other hosts.
    of_others: Vec<String>,
}

impl Files {
    /// A text that does not come from a file, under a name for messages.
    pub(super) fn of_text(name: &str, text: &str) -> Self {
        let mut files = Self::default();
        files.add(name.to_owned(), text.to_owned());
        files
    }

    /// Texts with their names for messages, the main one first, then fragments, sorted by name; those of other hosts
    /// than this are left out.
    pub(super) fn of_texts(texts: Vec<(String, String)>, hostname: &str) -> Self {
        let mut files = Self::default();
        let (main, fragments): (Vec<_>, Vec<_>) = texts.into_iter().enumerate().partition(|(index, _)| *index == 0);
        let fragments = fragments.into_iter().map(|(_, text)| text).collect();
        for (_, (name, text)) in main {
            files.add(name, text);
        }
        for (name, text) in files.of_host(fragments, hostname, |(name, _)| Path::new(name)) {
            files.add(name, text);
        }
        files
    }

    /// Reads `path` and the fragments in its `.d` folder, sorted by name; of those for single hosts only that of
    /// `hostname`, as the last, or all where there is none.
    pub(super) fn read(path: &Path, hostname: Option<&str>, problems: &mut Vec<Problem>) -> Self {
        let mut files = Self::default();
        files.read_one(path, problems);
        let folder = path.with_extension("d");
        match fragments(&folder) {
            Ok(paths) => {
                let paths = match hostname {
                    Some(hostname) => files.of_host(paths, hostname, |path| path),
                    None => paths,
                };
                for path in &paths {
                    files.read_one(path, problems);
                }
            }
            Err(error) => {
                let at = files.add(folder.display().to_string(), String::new());
                problems.push(Problem::new(at, format!("cannot list the folder of fragments: {error}")));
            }
        }
        files
    }

    /// Of these fragments the ones for all, and then this host's own.
    fn of_host<T>(&mut self, fragments: Vec<T>, hostname: &str, path: impl Fn(&T) -> &Path) -> Vec<T> {
        let (mut for_all, mut own) = (Vec::new(), Vec::new());
        for fragment in fragments {
            match hosts::host_of(path(&fragment)) {
                None => for_all.push(fragment),
                Some(host) if hosts::is_this(host, hostname) => own.push(fragment),
                Some(_) => self.of_others.push(path(&fragment).display().to_string()),
            }
        }
        for_all.append(&mut own);
        for_all
    }

    fn add(&mut self, path: String, text: String) -> Range<usize> {
        // One position more than bytes, so that the end of a file is not the beginning of the next.
        let base = self.files.last().map_or(0, |last| last.base + last.text.len() + 1);
        let is_hosts = !self.files.is_empty() && hosts::host_of(Path::new(&path)).is_some();
        self.files.push(File { path, text, base, is_hosts });
        base..base
    }

    fn read_one(&mut self, path: &Path, problems: &mut Vec<Problem>) {
        match read_text(path) {
            Ok(bytes) => {
                let invalid = std::str::from_utf8(&bytes).err().map(|error| error.valid_up_to());
                let text = match String::from_utf8_lossy(&bytes) {
                    Cow::Borrowed(text) => text.to_owned(),
                    Cow::Owned(text) => text,
                };
                let at = self.add(path.display().to_string(), text);
                if let Some(offset) = invalid {
                    let place = at.start + offset;
                    problems.push(
                        Problem::new(place..place + '\u{fffd}'.len_utf8(), "the file is not UTF-8 text")
                            .expected("this is the first byte that is not")
                            .help("save the file with the encoding UTF-8"),
                    );
                }
            }
            Err(error) => {
                let at = self.add(path.display().to_string(), String::new());
                problems.push(Problem::new(at, format!("cannot read the configuration: {error}")));
            }
        }
    }

    /// All files.
    pub(super) fn iter(&self) -> impl Iterator<Item = &File> {
        self.files.iter()
    }

    /// The file that a position is in, with the span's place in its text.
    pub(super) fn locate(&self, span: &Range<usize>) -> Option<(&File, Range<usize>)> {
        let file = self.files.iter().rev().find(|file| file.base <= span.start)?;
        let length = file.text.len();
        let start = (span.start - file.base).min(length);
        let end = span.end.saturating_sub(file.base).clamp(start, length);
        Some((file, start..end))
    }

    /// Line of a position within its file, counted from 0 over all files' lines: equal for two places on one line.
    fn line_of(&self, position: usize) -> Option<(usize, usize)> {
        let (file, place) = self.locate(&(position..position))?;
        let lines = file.text.as_bytes().get(..place.start)?.iter().filter(|byte| **byte == b'\n').count();
        Some((file.base, lines))
    }

    /// Are both positions on the same line of the same file?
    pub(super) fn same_line(&self, a: usize, b: usize) -> bool {
        self.line_of(a) == self.line_of(b)
    }

    /// CRC-32 of all bytes, in hexadecimal.
    pub(super) fn hash(&self) -> String {
        let mut hasher = crc32fast::Hasher::new();
        for file in &self.files {
            hasher.update(file.text.as_bytes());
        }
        format!("{:08x}", hasher.finalize())
    }

    /// The same files with other texts of the same length.
    pub(super) fn map_texts(self, change: impl Fn(&str) -> String) -> Self {
        let files = self.files.into_iter().map(|file| File { text: change(&file.text), ..file }).collect();
        Self { files, ..self }
    }

    /// Which files these are, without what was replaced in them.
    pub(super) fn read_on(&self, hostname: &str) -> FilesRead {
        FilesRead {
            host: hostname.to_owned(),
            fragments: self.files.iter().skip(1).map(|file| file.path.clone()).collect(),
            of_others: self.of_others.clone(),
            replaced: Vec::new(),
        }
    }

    /// Parses all files and merges them. Syntax errors and contradictions between files are noted, and in `replaced` the
    /// keys that this host's own files give another value.
    pub(super) fn parse(&self, problems: &mut Vec<Problem>, replaced: &mut Vec<String>) -> DeTable<'_> {
        let mut merged = DeTable::new();
        for file in &self.files {
            let (table, errors) = DeTable::parse_recoverable(&file.text);
            for error in errors {
                let span = error.span().unwrap_or(0..0);
                let problem = Problem::new(
                    span.start + file.base..span.end + file.base,
                    format!("not valid TOML: {}", error.message()),
                );
                problems.push(if error.message().contains("escaped value") {
                    problem.help("for a backslash write \\\\, or put the text into single quotes")
                } else {
                    problem
                });
            }
            let replaces = file.is_hosts.then_some(&mut *replaced);
            merge(&mut merged, shift_table(table.into_inner(), file.base), "", problems, replaces);
        }
        merged
    }
}

pub(super) fn fragments(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Reads a file of at most [`MAX_FILE_BYTES`].
pub(super) fn read_text(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;

    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("the file is larger than {MAX_FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

/// Moves all spans of a table behind those of the files before it.
fn shift_table(table: DeTable<'_>, by: usize) -> DeTable<'_> {
    let mut shifted = DeTable::new();
    for (key, value) in table {
        let span = key.span();
        shifted.insert(Spanned::new(span.start + by..span.end + by, key.into_inner()), shift(value, by));
    }
    shifted
}

fn shift(value: Spanned<DeValue<'_>>, by: usize) -> Spanned<DeValue<'_>> {
    let span = value.span();
    let inner = match value.into_inner() {
        DeValue::Table(table) => DeValue::Table(shift_table(table, by)),
        DeValue::Array(array) => {
            let mut shifted = DeArray::new();
            for item in array {
                shifted.push(shift(item, by));
            }
            DeValue::Array(shifted)
        }
        scalar => scalar,
    };
    Spanned::new(span.start + by..span.end + by, inner)
}

/// Adds `from` to `into`: tables merge, lists of tables add up, and anything else must not be there yet; or else takes the
/// place of what is there, and is noted in `replaced`. `within` is the tables' own path, with a dot at its end.
fn merge<'a>(
    into: &mut DeTable<'a>,
    from: DeTable<'a>,
    within: &str,
    problems: &mut Vec<Problem>,
    mut replaced: Option<&mut Vec<String>>,
) {
    for (key, value) in from {
        let Some((first_key, first)) = into.get_key_value(key.get_ref().as_ref()) else {
            into.insert(key, value);
            continue;
        };
        let first_place = first_key.span();
        let addable = match (first.get_ref(), value.get_ref()) {
            (DeValue::Table(_), DeValue::Table(_)) => true,
            (DeValue::Array(first), DeValue::Array(second)) => is_list_of_tables(first) && is_list_of_tables(second),
            _ => false,
        };
        if !addable && let Some(replaced) = &mut replaced {
            replaced.push(format!("{within}{}", key.get_ref()));
            // The key as well: it says where the value stands.
            into.remove(key.get_ref().as_ref());
            into.insert(key, value);
            continue;
        }
        if !addable {
            problems.push(
                Problem::new(key.span(), format!("`{}` is given in two files", key.get_ref()))
                    .expected("given again here")
                    .related(first_place, "first given here")
                    .help("keep one of them"),
            );
            continue;
        }
        match (into.get_mut(key.get_ref().as_ref()).map(Spanned::get_mut), value.into_inner()) {
            (Some(DeValue::Table(first)), DeValue::Table(second)) => {
                let within = format!("{within}{}.", key.get_ref());
                merge(first, second, &within, problems, replaced.as_deref_mut());
            }
            (Some(DeValue::Array(first)), DeValue::Array(second)) => {
                for item in second {
                    first.push(item);
                }
            }
            _ => {}
        }
    }
}

fn is_list_of_tables(array: &DeArray<'_>) -> bool {
    !array.is_empty() && array.iter().all(|item| item.get_ref().is_table())
}
