//! Passwords, certificates and keys: where they are read from, and who else could read them.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::read::Surroundings;
use super::source::read_text;
use super::uplink;
use crate::options::{Options, Problem};

const EXPECTED_NAME: &str = "expected a text, { credential = \"NAME\" }, { file = \"PATH\" } or { env = \"NAME\" }";

const EXPECTED: &str = "expected { credential = \"NAME\" }, { file = \"PATH\" } or { env = \"NAME\" }";

/// Longest password in bytes (MQTT 3.1.1, 3.1.3.5).
const MAX_PASSWORD_BYTES: usize = 65_535;

/// A user name at a broker. With some systems it is the secret that lets one in, such as an access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Username {
    /// It stands in the configuration.
    Text(String),
    /// It is read from there, as a password is, and never shown.
    Secret(Password),
}

/// Where a password is read from. Files are read at each use, so that a new password, or the next token, needs no restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Password(Place);

#[derive(Clone, Debug)]
enum Place {
    /// A credential's file; systemd sees to who may read it.
    Credential(PathBuf),
    /// A file that nobody but its owner may read.
    File(PathBuf),
    /// The environment does not change; neither does what the agent itself makes up.
    Environment(SecretString),
}

impl PartialEq for Place {
    /// In the same place, not with the same content: that is read at each use.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Credential(one), Self::Credential(other)) | (Self::File(one), Self::File(other)) => one == other,
            (Self::Environment(one), Self::Environment(other)) => one.expose_secret() == other.expose_secret(),
            _ => false,
        }
    }
}

impl Eq for Place {}

impl Password {
    /// One that is known already.
    #[must_use]
    pub fn given(secret: SecretString) -> Self {
        Self(Place::Environment(secret))
    }

    /// Reads it. This may block on the disk.
    ///
    /// # Errors
    /// Why it cannot be read, and the remedy where there is one. Never the password itself.
    pub fn read(&self) -> Result<SecretString, String> {
        self.look().map_err(|(message, help)| match help {
            Some(help) => format!("{message}: {help}"),
            None => message,
        })
    }

    fn look(&self) -> Result<SecretString, Refusal> {
        let text = match &self.0 {
            Place::Environment(secret) => return Ok(secret.clone()),
            Place::File(path) => {
                check_private(path)?;
                read_string(path)
            }
            Place::Credential(path) => read_string(path),
        };
        text.and_then(check).map_err(|message| (message, None))
    }

    /// The file that it is read from, to see whether it changes.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match &self.0 {
            Place::Credential(path) | Place::File(path) => Some(path),
            Place::Environment(_) => None,
        }
    }
}

/// Reads where a password is, and whether it is there.
pub(super) fn password(options: &Options<'_>, key: &'static str, around: &Surroundings<'_>) -> Option<Password> {
    in_table(options, key, EXPECTED, |table| from_table(table, around))
}

/// `username`: a text, or where it is read from.
pub(super) fn username(options: &Options<'_>, around: &Surroundings<'_>) -> Option<Username> {
    const KEY: &str = "username";
    if options.raw(KEY)?.get_ref().as_table().is_some() {
        return in_table(options, KEY, EXPECTED_NAME, |table| from_table(table, around)).map(Username::Secret);
    }
    let text = options.optional::<String>(KEY)?;
    match uplink::check_text(&text) {
        Ok(()) => Some(Username::Text(text)),
        Err(why) => {
            options.problem(KEY, format!("`{KEY}` of {} {why}", options.what()), None);
            None
        }
    }
}

/// Reads the table of a secret, which must not stand in its place.
pub(super) fn in_table<T>(
    options: &Options<'_>,
    key: &'static str,
    expected: &str,
    read: impl FnOnce(&Options<'_>) -> Option<T>,
) -> Option<T> {
    let value = options.raw(key)?;
    let what = format!("`{key}` of {}", options.what());
    if value.get_ref().is_str() {
        options.problem_with_help(
            key,
            format!("{what} stands in the configuration itself, which others may read"),
            Some(expected.to_owned()),
            Some("write it into a file of its own, chmod 600 the file, and give its path: { file = \"…\" }".to_owned()),
        );
        return None;
    }
    let Some(table) = value.get_ref().as_table() else {
        let message = format!("{what} has the wrong type: this is of type {}", value.get_ref().type_str());
        options.problem(key, message, Some(expected.to_owned()));
        return None;
    };
    let table = Options::new(table, value.span(), what.as_str(), options.problems());
    let secret = read(&table);
    table.finish();
    secret
}

/// The one key of the table that is given.
pub(super) fn only_key(table: &Options<'_>, keys: &[&'static str], expected: &str) -> Option<&'static str> {
    let given: Vec<&str> = keys.iter().copied().filter(|key| table.raw(key).is_some()).collect();
    if given.len() != 1 {
        let message = format!("{} must be given in exactly one way", table.what());
        table.problems().push(Problem::new(table.span(), message).expected(expected));
    }
    (given.len() == 1).then(|| given[0])
}

/// The keys of a `password` table.
pub(super) fn from_table(table: &Options<'_>, around: &Surroundings<'_>) -> Option<Password> {
    let credential = table.optional::<String>("credential");
    let file = table.optional::<String>("file");
    let env = table.optional::<String>("env");
    let key = only_key(table, &["credential", "file", "env"], EXPECTED)?;
    let found = match (&credential, file, env) {
        (Some(name), _, _) => credential_called(name, around).map(Place::Credential),
        (_, Some(path), _) => Ok(Place::File(around.resolve(&path))),
        (_, _, Some(name)) => from_environment(&name, around).map(Place::Environment),
        _ => return None,
    };
    let found = found.map(Password).and_then(|password| match password.look() {
        Ok(_) => Ok(password),
        Err(refusal) => Err(with_unit(refusal, credential.as_deref())),
    });
    found.map_err(|refusal| report(table, key, refusal, around)).ok()
}

/// Says how a credential comes to its service, if nothing else helps.
pub(super) fn with_unit((message, help): Refusal, credential: Option<&str>) -> Refusal {
    let unit = |name| format!("give the unit the line LoadCredential={name}:/PATH");
    (message, help.or_else(|| credential.map(unit)))
}

/// Reports why a secret cannot be had, if it is needed.
pub(super) fn report(table: &Options<'_>, key: &'static str, (message, help): Refusal, around: &Surroundings<'_>) {
    if !around.machine.secrets {
        return;
    }
    table.problem_with_help(key, format!("{}: {message}", table.what()), None, help);
}

/// A message and a remedy.
pub(super) type Refusal = (String, Option<String>);

/// The file of a credential.
pub(super) fn credential_called(name: &str, around: &Surroundings<'_>) -> Result<PathBuf, Refusal> {
    if name.is_empty() || name.contains(['/', '\0']) || name == "." || name == ".." {
        return Err((format!("`{name}` cannot be the name of a credential"), None));
    }
    let Some(folder) = &around.machine.credentials else {
        return Err((
            format!("there are no credentials, as $CREDENTIALS_DIRECTORY is not set, so `{name}` cannot be read"),
            Some(format!(
                "systemd sets it for a unit with LoadCredential={name}:/PATH; to check by hand, set it to the folder \
                 that holds the file `{name}`"
            )),
        ));
    };
    Ok(folder.join(name))
}

fn from_environment(name: &str, around: &Surroundings<'_>) -> Result<SecretString, Refusal> {
    // `std::env::var_os` panics on such names on some systems.
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err((format!("`{name}` cannot be the name of an environment variable"), None));
    }
    let value = (around.machine.env)(name).ok_or_else(|| {
        (
            format!("the environment variable {name} is not set"),
            Some(format!("set it, or use {{ file = \"…\" }} instead of {name}")),
        )
    })?;
    let text = value.into_string().map_err(|_| format!("the environment variable {name} is not UTF-8 text"));
    text.and_then(check).map_err(|message| (message, None))
}

fn read_string(path: &Path) -> Result<String, String> {
    let bytes = read_text(path).map_err(|error| cannot_read(path, &error))?;
    String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8 text", path.display()))
}

pub(super) fn cannot_read(path: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}

/// Refuses a secret file that others than its owner may read.
pub(super) fn check_private(path: &Path) -> Result<(), Refusal> {
    let meta = std::fs::metadata(path).map_err(|error| (cannot_read(path, &error), None))?;
    let mode = meta.permissions().mode() & 0o777;
    if meta.is_file() && mode & 0o077 != 0 {
        return Err((
            format!("{} can be read by others than its owner (mode {mode:03o})", path.display()),
            Some(format!("chmod 600 {}", path.display())),
        ));
    }
    Ok(())
}

/// Takes off the newline that editors put at the end.
fn check(mut text: String) -> Result<SecretString, String> {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.len() > MAX_PASSWORD_BYTES {
        return Err(format!("it is longer than {MAX_PASSWORD_BYTES} bytes"));
    }
    Ok(SecretString::from(text))
}

/// A PEM file that must be there and hold something with the given label; `secret`: nobody else may read it.
pub(super) fn pem_file(
    options: &Options<'_>,
    key: &'static str,
    label: &str,
    secret: bool,
    around: &Surroundings<'_>,
) -> Option<PathBuf> {
    let path = around.resolve(&options.optional::<String>(key)?);
    match check_pem(&path, label, secret) {
        Ok(()) => Some(path),
        Err(_) if !around.machine.secrets => Some(path),
        Err((message, help)) => {
            options.problem_with_help(key, format!("`{key}` of {}: {message}", options.what()), None, help);
            None
        }
    }
}

fn check_pem(path: &Path, label: &str, secret: bool) -> Result<(), Refusal> {
    if secret {
        check_private(path)?;
    }
    let text = read_text(path).map_err(|error| (cannot_read(path, &error), None))?;
    // `PRIVATE KEY` also has forms such as `EC PRIVATE KEY` (RFC 7468, section 10).
    let found = String::from_utf8_lossy(&text)
        .lines()
        .filter_map(|line| line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----").map(str::to_owned))
        .any(|found| found.ends_with(label));
    if found { Ok(()) } else { Err((format!("{} holds no {label} in PEM form", path.display()), None)) }
}
