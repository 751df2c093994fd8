//! What a configuration takes from the machine that it is read on: names, folders, the environment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The machine as the configuration sees it; tests make one up.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The host's name.
    pub hostname: String,
    /// The board's serial number, else a hash of the machine id, else the host's name.
    pub id: String,
    /// Folder for what must survive a restart.
    pub state_dir: PathBuf,
    /// `$CREDENTIALS_DIRECTORY`, where systemd puts a service's secrets.
    pub credentials: Option<PathBuf>,
    /// Reads an environment variable.
    pub env: fn(&str) -> Option<OsString>,
    /// Is the embedded broker part of this build?
    pub has_broker: bool,
    /// Must passwords, certificates and keys be there and readable? They are the service's, so that whoever only looks
    /// at a gateway does without.
    pub secrets: bool,
}

impl Machine {
    /// The machine that this runs on.
    #[must_use]
    pub fn this() -> Self {
        let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let id = id_below(Path::new("/")).unwrap_or_else(|| hostname.clone());
        Self {
            hostname,
            id,
            state_dir: state_dir(variable, rustix::process::geteuid().is_root()),
            credentials: variable("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            env: variable,
            has_broker: cfg!(feature = "broker"),
            secrets: true,
        }
    }

    /// The same, for somebody who only looks at the gateway of that configuration: without its secrets, and with the
    /// service's state folder, whoever looks, if the configuration is the system's (below `/etc`).
    #[must_use]
    pub fn looking_at(configuration: &Path) -> Self {
        let this = Self { secrets: false, ..Self::this() };
        // A path that cannot be made absolute is none of the system's.
        let is_systems = std::path::absolute(configuration).is_ok_and(|path| path.starts_with("/etc"));
        if is_systems { Self { state_dir: state_dir(variable, true), ..this } } else { this }
    }
}

/// An environment variable that is set to something.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// What the machine id is hashed for. Never changes: the identity of every gateway without a serial number hangs on it.
const ID_PURPOSE: &[u8] = b"vigie gateway id";

/// The board's serial number; else a hash of the machine id, which is a secret of the machine and is to be shown to
/// others in that form only (machine-id(5)).
fn id_below(root: &Path) -> Option<String> {
    serial_below(root).or_else(|| {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, text_of(root, "etc/machine-id")?.as_bytes());
        let hash = ring::hmac::sign(&key, ID_PURPOSE);
        Some(hash.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect())
    })
}

/// The serial number of this board. A copy of its card has another one.
#[must_use]
pub fn board_serial() -> Option<String> {
    serial_below(Path::new("/"))
}

fn serial_below(root: &Path) -> Option<String> {
    text_of(root, "proc/device-tree/serial-number")
}

/// What a file of one word says.
fn text_of(root: &Path, path: &str) -> Option<String> {
    let text = std::fs::read_to_string(root.join(path)).ok()?;
    // The device tree ends its texts with a NUL.
    let id = text.trim_matches(|character: char| character.is_whitespace() || character == '\0');
    (!id.is_empty()).then(|| id.to_owned())
}

/// systemd's state folder of the service, else the system's for root and the user's own for anybody else.
fn state_dir(variable: impl Fn(&str) -> Option<OsString>, root: bool) -> PathBuf {
    if let Some(folders) = variable("STATE_DIRECTORY") {
        // systemd separates several with colons (systemd.exec(5)).
        if let Some(first) = folders.to_string_lossy().split(':').next() {
            return PathBuf::from(first);
        }
    }
    let users = variable("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".local/state")));
    match users {
        Some(folder) if !root => folder.join("vigie"),
        _ => PathBuf::from("/var/lib/vigie"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boards_serial_number_comes_before_the_machine_id() {
        let root = tempfile::tempdir().expect("a folder");
        assert_eq!(id_below(root.path()), None);
        std::fs::create_dir_all(root.path().join("etc")).expect("a folder");
        std::fs::write(root.path().join("etc/machine-id"), "0123abcd\n").expect("a file");
        let hashed = id_below(root.path()).expect("an id");
        assert_eq!(hashed.len(), 32);
        assert!(!hashed.contains("0123abcd"), "the machine id is not shown");
        assert_eq!(id_below(root.path()), Some(hashed), "it stays the same");
        std::fs::create_dir_all(root.path().join("proc/device-tree")).expect("a folder");
        std::fs::write(root.path().join("proc/device-tree/serial-number"), "10000000abcdef01\0").expect("a file");
        assert_eq!(id_below(root.path()).as_deref(), Some("10000000abcdef01"));
    }

    #[test]
    fn the_state_folder_is_the_services_the_systems_or_the_users() {
        let only = |wanted: &'static str, value: &'static str| {
            move |name: &str| (name == wanted).then(|| OsString::from(value))
        };
        assert_eq!(state_dir(only("STATE_DIRECTORY", "/var/lib/a:/var/lib/b"), false), PathBuf::from("/var/lib/a"));
        assert_eq!(state_dir(only("HOME", "/root"), true), PathBuf::from("/var/lib/vigie"));
        assert_eq!(state_dir(only("HOME", "/home/pi"), false), PathBuf::from("/home/pi/.local/state/vigie"));
        assert_eq!(state_dir(only("XDG_STATE_HOME", "/s"), false), PathBuf::from("/s/vigie"));
        assert_eq!(state_dir(|_| None, false), PathBuf::from("/var/lib/vigie"));
        assert_eq!(Machine::looking_at(Path::new("/etc/vigie/vigie.toml")).state_dir, state_dir(variable, true));
        assert_eq!(Machine::looking_at(Path::new("vigie.toml")).state_dir, Machine::this().state_dir);
    }
}
