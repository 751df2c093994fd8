//! The secrets themselves, as far as whoever runs this may read them, so that they can be looked for in all that is said.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::zeroize::Zeroizing;

use crate::config;

/// A shorter line would be found in words that mean nothing.
const SHORTEST: usize = 5;

/// A longer file has no password in it.
const LONGEST_FILE: u64 = 1 << 20;

/// What is shown in place of a secret.
const MASK: &str = "*****";

/// Secrets.
pub(super) struct Scrub(Vec<Zeroizing<String>>);

impl Scrub {
    /// Lines of the files that a configuration names and that not everybody may read, and those of credentials.
    pub(super) fn of(config: &Path) -> Self {
        let mut files = config::named_files(config);
        let credentials = config.parent().unwrap_or(Path::new("")).join("credentials");
        files.extend(fs::read_dir(&credentials).into_iter().flatten().flatten().map(|entry| entry.path()));
        let mut lines: Vec<Zeroizing<String>> = Vec::new();
        for path in files.iter().filter(|path| is_secret(path, &credentials)) {
            // What cannot be read or is no text cannot be shown by mistake either.
            let Ok(text) = fs::read_to_string(path).map(Zeroizing::new) else { continue };
            let worth = text.lines().map(str::trim).filter(|line| line.len() >= SHORTEST && !line.starts_with("-----"));
            lines.extend(worth.map(|line| Zeroizing::new(line.to_owned())));
        }
        // A secret that is a part of another one would leave the rest of that to be seen.
        lines.sort_by_key(|line| std::cmp::Reverse(line.len()));
        Self(lines)
    }

    /// The text without them.
    pub(super) fn clean(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            if text.contains(&**secret) {
                text = text.replace(&**secret, MASK);
            }
        }
        text
    }
}

fn is_secret(path: &PathBuf, credentials: &Path) -> bool {
    let Ok(meta) = fs::metadata(path) else { return false };
    let private = meta.permissions().mode() & 0o004 == 0 || path.starts_with(credentials);
    meta.is_file() && meta.len() <= LONGEST_FILE && private
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_wherever_they_stand() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str, mode: u32| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(&path, text).expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        };
        write("vigie.toml", "[broker]\nusers = \"users\"\nca = \"ca.pem\"\nfile = \"short\"\n", 0o644);
        write("users", "anna:hunter2hunter2\nhunter2\n", 0o640);
        write("ca.pem", "everybody may read this\n", 0o644);
        write("short", "abc\n", 0o600);
        write("credentials/mqtt", "swordfish\r\n", 0o644);
        let scrub = Scrub::of(&folder.path().join("vigie.toml"));
        assert_eq!(
            scrub.clean("abc says: anna:hunter2hunter2, hunter2 and swordfish; everybody may read this"),
            "abc says: *****, ***** and *****; everybody may read this"
        );
    }
}
