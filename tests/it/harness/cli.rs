//! The program run to its end beside a gateway, and what that leaves in the gateway's folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Gateway, command};

/// How a program that was run has ended, and what it said.
pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Gateway {
    /// Runs `vigie` on its configuration, in a French place.
    #[track_caller]
    pub(crate) fn vigie(&self, args: &[&str]) -> Output {
        let config = self.config_file().display().to_string();
        let all = [args, &["--config", &config]].concat();
        let output = command(&all, self.path()).env("TZ", "Europe/Paris").output().expect("vigie starts");
        Output {
            code: output.status.code().expect("it was not killed"),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    /// The same, which must go well.
    #[track_caller]
    pub(crate) fn fine(&self, args: &[&str]) -> String {
        let Output { code, out, err } = self.vigie(args);
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}: {out}");
        out
    }
}

/// The table of an uplink `home` to a broker on this machine.
pub(crate) fn uplink(port: u16) -> String {
    format!("[uplink.home]\nurl = \"mqtt://localhost:{port}\"\n")
}

/// Every file below a folder, with what is in it.
pub(crate) fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() {
            found.insert(path.clone(), fs::read(&path).expect("a file"));
        }
    }
    found
}
