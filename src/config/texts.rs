//! A configuration as texts, for those who carry it elsewhere, or show it: which files it consists of, which others it
//! names, and what is in it without its secrets.

use std::io;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::read::Surroundings;
use super::redact::redact;
use super::source::{Files, fragments};
use super::{Config, Machine, Report, build};
use crate::drivers::DRIVERS;

/// The files that a configuration consists of: the main one, then its fragments, sorted by name. They need not be
/// readable, and the main one need not be there.
///
/// # Errors
/// The folder of the fragments cannot be listed.
pub fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = vec![path.to_owned()];
    files.extend(fragments(&path.with_extension("d"))?);
    Ok(files)
}

/// As [`load_to_look`](super::load_to_look), of texts that are not in their place yet: each with its name for messages,
/// in the order in which they count. Relative paths are seen from `folder`.
///
/// # Errors
/// Everything that is wrong, with its place.
pub fn check_texts(texts: Vec<(String, String)>, folder: &Path) -> Result<Config, Report> {
    let machine = Machine { secrets: false, ..Machine::this() };
    build(Files::of_texts(texts), Vec::new(), &Surroundings { machine: &machine, folder }, DRIVERS)
}

/// The files that a configuration names anywhere in it, in any key, and that are there: certificates, keys, users,
/// programs. Sorted, without links and dots.
#[must_use]
pub fn named_files(path: &Path) -> Vec<PathBuf> {
    let mut problems = Vec::new();
    let files = Files::read(path, &mut problems);
    let mut texts = Vec::new();
    collect(&files.parse(&mut problems), &mut texts);
    let folder = path.parent().unwrap_or(Path::new(""));
    let there = texts.iter().map(|text| folder.join(text)).filter(|path| path.is_file());
    let mut named: Vec<PathBuf> = there.filter_map(|path| path.canonicalize().ok()).collect();
    named.sort();
    named.dedup();
    named
}

fn collect(table: &DeTable<'_>, texts: &mut Vec<String>) {
    for value in table.values() {
        collect_value(value.get_ref(), texts);
    }
}

fn collect_value(value: &DeValue<'_>, texts: &mut Vec<String>) {
    match value {
        // An empty one would name the folder, one with a NUL nothing.
        DeValue::String(text) if !text.is_empty() && !text.contains('\0') => texts.push(text.to_string()),
        DeValue::Array(array) => array.iter().for_each(|item| collect_value(item.get_ref(), texts)),
        DeValue::Table(table) => collect(table, texts),
        _ => {}
    }
}

/// The texts of a configuration without passwords, each with its path; whatever is wrong with them.
#[must_use]
pub fn redacted(path: &Path) -> Vec<(String, String)> {
    let files = Files::read(path, &mut Vec::new());
    files.map_texts(redact).iter().map(|file| (file.path.clone(), file.text.clone())).collect()
}

/// The same text without what looks like a password in the form of a configuration, or like one in a URL.
#[must_use]
pub fn without_secrets(text: &str) -> String {
    redact(text)
}
