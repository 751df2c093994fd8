//! A configuration as texts, for those who carry it elsewhere, or show it: which files it consists of, which others it
//! names, and what is in it without its secrets.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::read::Surroundings;
use super::redact::{mask, redact_strictly};
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
    build(Files::of_texts(texts, &machine.hostname), Vec::new(), &Surroundings { machine: &machine, folder }, DRIVERS)
}

/// The files that a configuration names anywhere in it, in any key, and that are there: certificates, keys, users,
/// programs. Sorted, without links and dots.
#[must_use]
pub fn named_files(path: &Path) -> Vec<PathBuf> {
    let mut problems = Vec::new();
    let files = Files::read(path, None, &mut problems);
    let mut texts = Vec::new();
    // Each by itself: fragments of other hosts contradict each other.
    for file in files.iter() {
        collect(DeTable::parse_recoverable(&file.text).0.get_ref(), &mut texts);
    }
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

/// The texts of a configuration as they can be shown to others, each with its path, whatever is wrong with them: without
/// passwords and keys, wherever somebody has written them, and without what programs of the driver `exec` are given, which
/// may be anything.
#[must_use]
pub fn redacted(path: &Path) -> Vec<(String, String)> {
    let files = Files::read(path, None, &mut Vec::new());
    let mut given = Vec::new();
    programs(&files.parse(&mut Vec::new(), &mut Vec::new()), &mut given);
    let masked = files.iter().map(|file| {
        let mut text = file.text.as_bytes().to_vec();
        for span in &given {
            if let Some((of, place)) = files.locate(span)
                && of.base == file.base
            {
                mask(&mut text[place]);
            }
        }
        // Whole values were replaced by as many stars as they have bytes.
        (file.path.clone(), redact_strictly(&String::from_utf8_lossy(&text)))
    });
    masked.collect()
}

/// Where the words after the program in `command` stand, and the values in `env`.
fn programs(table: &DeTable<'_>, given: &mut Vec<Range<usize>>) {
    let sensors = table.get("sensor").and_then(|sensors| sensors.get_ref().as_array());
    for sensor in
        sensors.into_iter().flat_map(|sensors| sensors.iter()).filter_map(|sensor| sensor.get_ref().as_table())
    {
        if let Some(DeValue::Array(words)) = sensor.get("command").map(Spanned::get_ref) {
            given.extend(words.iter().skip(1).map(Spanned::span));
        }
        if let Some(DeValue::Table(variables)) = sensor.get("env").map(Spanned::get_ref) {
            given.extend(variables.values().map(Spanned::span));
        }
    }
}

/// The same text without what looks like a password in the form of a configuration, or like one in a URL.
#[must_use]
pub fn without_secrets(text: &str) -> String {
    redact_strictly(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SECTIONS;

    const SECRET: &str = "hunter2-Zx9";

    fn shown(text: &str) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("vigie.toml");
        std::fs::write(&path, text).expect("a file");
        redacted(&path).into_iter().map(|(_, text)| text).collect()
    }

    /// Each key whose value is said to be read from elsewhere is one that somebody may write a secret to.
    #[test]
    fn whatever_key_takes_a_secret_it_is_not_shown() {
        let mut tried = 0;
        for section in SECTIONS {
            let secrets = ["[password](#password)", "[outbox.key](#outboxkey)"];
            for key in section.keys.iter().filter(|key| secrets.iter().any(|secret| key.values.contains(secret))) {
                for text in [
                    format!("{} = \"{SECRET}\"\n", key.name),
                    format!("{} = '{SECRET}'\n", key.name),
                    format!("{} = {{ value = \"{SECRET}\" }}\n", key.name),
                    format!("x = {{ a = 1, {} = \"{SECRET}\" }}\n", key.name),
                    format!("[uplink.a]\n{} = \"{SECRET}\n", key.name),
                    format!("{} = {SECRET}\n", key.name),
                ] {
                    let shown = shown(&text);
                    assert!(!shown.contains(SECRET) && shown.contains(key.name), "{shown}");
                    tried += 1;
                }
            }
        }
        assert!(tried >= 6 * 6, "the keys are described otherwise: only {tried} texts were tried");
    }

    #[test]
    fn what_programs_are_given_is_not_shown_and_paths_of_keys_are() {
        let text = format!(
            "[[sensor]]\ncommand = [\"/usr/bin/curl\", \"-u\", \"{SECRET}\"]\nenv = {{ A = \"{SECRET}\" }}\n\
             [[sensor]]\n[sensor.env]\nB = \"{SECRET}\"\n[uplink.a.tls]\nkey = \"/etc/vigie/tls/a.key\"\n"
        );
        let shown = shown(&text);
        assert!(!shown.contains(SECRET), "{shown}");
        assert!(shown.contains("/usr/bin/curl") && shown.contains("/etc/vigie/tls/a.key"), "{shown}");
    }
}
