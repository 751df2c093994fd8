//! Users and their passwords: a file with a line `NAME:HASH` a user, as `vigie broker passwd` writes it. The hash is
//! Argon2id in the PHC string format (RFC 9106).

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use super::stamp::Stamp;
use crate::logging::AUDIT;

/// Memory of one hash, in KiB: the OWASP's second-smallest setting, since a Pi may have 512 MB in all. One hash is
/// computed at a time. It takes about 50 ms on a Pi 4, half a second on a Pi Zero.
const MEMORY_KIB: u32 = 9 * 1024;
/// Rounds over it.
const ROUNDS: u32 = 4;
/// A line of the file that would take more memory, in KiB, is refused.
const MAX_MEMORY_KIB: u32 = 64 * 1024;
/// ...or more rounds.
const MAX_ROUNDS: u32 = 64;
/// Users in a file.
pub const MAX_USERS: usize = 1000;
/// Length of a user's name, in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// Length of a password, in bytes.
pub const MAX_PASSWORD_BYTES: usize = 1024;
/// Length of the file, in bytes.
const MAX_FILE_BYTES: u64 = 512 * 1024;
/// What an unknown user's password is checked against, so that it takes as long as a known one's.
const NOBODY: &str = "$argon2id$v=19$m=9216,t=4,p=1$bm9ib2R5bm9ib2R5$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Why there are no users.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// The file cannot be read or written.
    #[error("the users' file {path} cannot be used: {why}{}", hint(why))]
    File {
        /// Which.
        path: PathBuf,
        /// The system's words.
        why: io::Error,
    },
    /// Others may read it.
    #[error("the users' file {path} can be read by everybody (mode {mode:03o}): chmod 640 it", path = .0.display(), mode = .1)]
    Open(PathBuf, u32),
    /// A line that is none of ours.
    #[error("{path}:{line}: {why}; `vigie broker passwd` writes this file", path = path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong, without the hash.
        why: String,
    },
    /// The name cannot be a user's.
    #[error(
        "`{0}` cannot be a user's name: it needs 1 to {MAX_NAME_BYTES} bytes without `:`, `/`, `+`, `#`, blanks and control characters, and no `#` or `$` at its beginning"
    )]
    Name(String),
    /// The password cannot be one.
    #[error("a password has 1 to {MAX_PASSWORD_BYTES} bytes")]
    Password,
    /// There are as many as there may be.
    #[error("the file has {MAX_USERS} users, which is the limit")]
    TooMany,
    /// The system gives no random bytes, or the hash fails.
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
}

fn hint(why: &io::Error) -> &'static str {
    match why.kind() {
        io::ErrorKind::NotFound => " (`vigie broker passwd USER` makes it)",
        io::ErrorKind::PermissionDenied => " (its group must be that of the agent, with mode 640)",
        _ => "",
    }
}

type Hashes = BTreeMap<String, String>;

/// Reads and checks a users' file.
fn read(path: &Path) -> Result<Hashes, UsersError> {
    let failed = |why| UsersError::File { path: path.to_owned(), why };
    let meta = std::fs::metadata(path).map_err(failed)?;
    if meta.mode() & 0o007 != 0 {
        return Err(UsersError::Open(path.to_owned(), meta.mode() & 0o777));
    }
    if meta.len() > MAX_FILE_BYTES {
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "it is too long")));
    }
    parse(path, &std::fs::read_to_string(path).map_err(failed)?)
}

fn parse(path: &Path, text: &str) -> Result<Hashes, UsersError> {
    let mut hashes = Hashes::new();
    for (index, line) in text.lines().enumerate() {
        let wrong = |why: &str| UsersError::Line { path: path.to_owned(), line: index + 1, why: why.to_owned() };
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, hash) = line.split_once(':').ok_or_else(|| wrong("there is no `:` between name and hash"))?;
        check_name(name).map_err(|_| wrong("this name cannot be a user's"))?;
        check_hash(hash).map_err(wrong)?;
        if hashes.insert(name.to_owned(), hash.to_owned()).is_some() {
            return Err(wrong("this user has a line already"));
        }
        if hashes.len() > MAX_USERS {
            return Err(UsersError::TooMany);
        }
    }
    Ok(hashes)
}

fn check_hash(text: &str) -> Result<(), &'static str> {
    let hash = PasswordHash::new(text).map_err(|_| "behind the name there is no hash in the PHC format")?;
    if hash.algorithm != Algorithm::Argon2id.ident() || hash.hash.is_none() || hash.salt.is_none() {
        return Err("the hash is not a whole one of Argon2id");
    }
    let params = Params::try_from(&hash).map_err(|_| "the hash has parameters that Argon2id does not have")?;
    if params.m_cost() > MAX_MEMORY_KIB || params.t_cost() > MAX_ROUNDS || params.p_cost() > 4 {
        return Err("the hash would take more memory or time than a gateway has");
    }
    Ok(())
}

/// Can it be a user's name?
///
/// # Errors
/// What a name may be.
pub fn check_name(name: &str) -> Result<(), UsersError> {
    let bad = |c: char| c.is_control() || c.is_whitespace() || [':', '/', '+', '#'].contains(&c);
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.starts_with('$') || name.contains(bad) {
        return Err(UsersError::Name(name.to_owned()));
    }
    Ok(())
}

/// Gives a user a password, or a new one; makes the file, for its owner alone, where there is none.
///
/// # Errors
/// What is wrong with the name, the password or the file, which is then as it was.
pub fn set_password(path: &Path, name: &str, password: &[u8]) -> Result<(), UsersError> {
    check_name(name)?;
    if password.is_empty() || password.len() > MAX_PASSWORD_BYTES {
        return Err(UsersError::Password);
    }
    let mut hashes = existing(path)?;
    hashes.insert(name.to_owned(), hash(password)?);
    if hashes.len() > MAX_USERS {
        return Err(UsersError::TooMany);
    }
    replace(path, &hashes)
}

/// Takes a user away; `false`: there was none of that name.
///
/// # Errors
/// What is wrong with the file, which is then as it was.
pub fn remove(path: &Path, name: &str) -> Result<bool, UsersError> {
    let mut hashes = existing(path)?;
    let was_there = hashes.remove(name).is_some();
    if was_there {
        replace(path, &hashes)?;
    }
    Ok(was_there)
}

fn existing(path: &Path) -> Result<Hashes, UsersError> {
    match read(path) {
        Err(UsersError::File { why, .. }) if why.kind() == io::ErrorKind::NotFound => Ok(Hashes::new()),
        read => read,
    }
}

fn hash(password: &[u8]) -> Result<String, UsersError> {
    let failed = |why: String| UsersError::Hash(why);
    let mut salt = [0; 16];
    SystemRandom::new().fill(&mut salt).map_err(|_| failed("no random bytes".to_owned()))?;
    let salt = SaltString::encode_b64(&salt).map_err(|error| failed(error.to_string()))?;
    let params = Params::new(MEMORY_KIB, ROUNDS, 1, None).map_err(|error| failed(error.to_string()))?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password(password, &salt).map(|hash| hash.to_string()).map_err(|error| failed(error.to_string()))
}

/// Writes the file anew beside the old one, with its owner, group and mode, and puts it in its place.
fn replace(path: &Path, hashes: &Hashes) -> Result<(), UsersError> {
    let failed = |why| UsersError::File { path: path.to_owned(), why };
    let old = std::fs::metadata(path).ok();
    let new = path.with_extension("new");
    // Left over from a crash: its mode might be another one.
    let _ = std::fs::remove_file(&new);
    let write = || {
        let mode = old.as_ref().map_or(0o600, |old| old.mode() & 0o770);
        let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(mode).open(&new)?;
        if let Some(old) = &old {
            std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        for (name, hash) in hashes {
            writeln!(file, "{name}:{hash}")?;
        }
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    write().map_err(|why| {
        let _ = std::fs::remove_file(&new);
        failed(why)
    })
}

/// The users that may log in. The file is read again when it has changed.
#[derive(Debug)]
pub(super) struct Users {
    path: PathBuf,
    stamp: Stamp,
    hashes: Hashes,
    /// Passwords that were right before, so that they need not be hashed at each connection.
    known: BTreeMap<String, hmac::Tag>,
    key: hmac::Key,
}

/// What there is to check a password against.
pub(super) struct Check {
    name: String,
    hash: Option<String>,
}

impl Check {
    /// Computes the hash, which takes its time.
    pub(super) fn passes(&self, password: &[u8]) -> bool {
        let hash = self.hash.as_deref().unwrap_or(NOBODY);
        let same =
            PasswordHash::new(hash).is_ok_and(|parsed| Argon2::default().verify_password(password, &parsed).is_ok());
        same && self.hash.is_some()
    }
}

impl Users {
    /// Reads the file.
    pub(super) fn open(path: &Path) -> Result<Self, UsersError> {
        let failed = |why| UsersError::File { path: path.to_owned(), why };
        let stamp = Stamp::of(path).map_err(failed)?;
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| UsersError::Hash("no random bytes".to_owned()))?;
        Ok(Self { path: path.to_owned(), stamp, hashes: read(path)?, known: BTreeMap::new(), key })
    }

    /// Reads the file again if it has changed; one that cannot be read leaves everything as it was.
    fn refresh(&mut self) {
        if !self.stamp.renew(&self.path) {
            return;
        }
        match read(&self.path) {
            Ok(hashes) => {
                self.hashes = hashes;
                self.known.clear();
                let users = self.hashes.len();
                tracing::info!(target: AUDIT, audit = "credentials", users, "the broker's users have changed");
            }
            Err(why) => {
                tracing::warn!(target: AUDIT, audit = "credentials", "the broker's users stay as they were: {why}");
            }
        }
    }

    /// Was this password right before? Otherwise, what to check it against.
    pub(super) fn look(&mut self, name: &str, password: &[u8]) -> Result<(), Check> {
        self.refresh();
        if self.known.get(name).is_some_and(|tag| hmac::verify(&self.key, password, tag.as_ref()).is_ok()) {
            return Ok(());
        }
        Err(Check { name: name.to_owned(), hash: self.hashes.get(name).cloned() })
    }

    /// Remembers a password that was right.
    pub(super) fn remember(&mut self, check: &Check, password: &[u8]) {
        // Not if the user has another one by now.
        if check.hash.is_some() && self.hashes.get(&check.name) == check.hash.as_ref() {
            self.known.insert(check.name.clone(), hmac::sign(&self.key, password));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    fn login(users: &mut Users, name: &str, password: &str) -> bool {
        match users.look(name, password.as_bytes()) {
            Ok(()) => true,
            Err(check) => {
                let right = check.passes(password.as_bytes());
                if right {
                    users.remember(&check, password.as_bytes());
                }
                right
            }
        }
    }

    #[test]
    fn a_password_is_set_checked_changed_and_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        set_password(&path, "anna", b"one").unwrap();
        set_password(&path, "bob", b"two").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let mut users = Users::open(&path).unwrap();
        assert!(login(&mut users, "anna", "one") && login(&mut users, "bob", "two"));
        assert!(users.look("anna", b"one").is_ok(), "it is not hashed again");
        assert!(!login(&mut users, "anna", "two") && !login(&mut users, "eve", "one"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        set_password(&path, "anna", b"three").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640, "as it was");
        assert!(!login(&mut users, "anna", "one") && login(&mut users, "anna", "three"));
        assert!(remove(&path, "anna").unwrap() && !remove(&path, "anna").unwrap());
        assert!(!login(&mut users, "anna", "three") && login(&mut users, "bob", "two"));
    }

    #[test]
    fn a_file_that_others_may_read_or_that_is_damaged_is_refused_and_no_hash_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        assert!(Users::open(&path).unwrap_err().to_string().contains("vigie broker passwd USER"));
        set_password(&path, "anna", b"one").unwrap();
        let good = std::fs::read_to_string(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Users::open(&path), Err(UsersError::Open(_, 0o644))));
        for (text, expected) in [
            (format!("{good}anna"), "users:2: there is no `:`"),
            (format!("{good}{good}"), "users:2: this user has a line already"),
            ("eve:secret".to_owned(), "no hash in the PHC format"),
            (good.replace("argon2id", "argon2i"), "not a whole one of Argon2id"),
            (good.replace("m=9216", "m=9216000"), "more memory or time"),
            (format!("a b{}", &good[4..]), "this name cannot be a user's"),
        ] {
            let message = parse(&path, &text).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
            assert!(!message.contains("secret") && !message.contains("$argon2"), "{message}");
        }
        let before = std::fs::read(&path).unwrap();
        assert!(matches!(set_password(&path, "a:b", b"x"), Err(UsersError::Name(_))));
        assert!(matches!(set_password(&path, "a", b""), Err(UsersError::Password)));
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn what_nobody_is_checked_against_is_a_hash_of_the_same_cost() {
        check_hash(NOBODY).unwrap();
        let params = Params::try_from(&PasswordHash::new(NOBODY).unwrap()).unwrap();
        assert_eq!((params.m_cost(), params.t_cost(), params.p_cost()), (MEMORY_KIB, ROUNDS, 1));
        assert!(!Check { name: "x".to_owned(), hash: None }.passes(b""));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "([a-z#:$=, \n]|argon2id){0,60}") {
            let _ = parse(Path::new("users"), &text);
        }
    }
}
