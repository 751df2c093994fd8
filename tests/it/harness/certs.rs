//! Certificates made on the spot by openssl, so that none in the repository can expire.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A certificate authority in a folder.
pub(crate) struct Authority {
    dir: PathBuf,
    name: String,
}

/// A certificate and its key.
pub(crate) struct Pair {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

const KEY: [&str; 6] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout"];

impl Authority {
    /// Makes one.
    pub(crate) fn new(dir: &Path, name: &str) -> Self {
        let authority = Self { dir: dir.to_owned(), name: name.to_owned() };
        let (cert, key) = (authority.cert(), authority.file("key"));
        openssl(
            &[&["req", "-x509"], &KEY[..], &[&text(&key), "-out", &text(&cert)]].concat(),
            &["-subj", &format!("/CN={name}"), "-days", "3650", "-addext", "basicConstraints=critical,CA:TRUE"],
        );
        authority
    }

    /// Its own certificate.
    pub(crate) fn cert(&self) -> PathBuf {
        self.file("pem")
    }

    fn file(&self, extension: &str) -> PathBuf {
        self.dir.join(format!("{}.{extension}", self.name))
    }

    /// Issues a certificate for a host or client of that name; with days below zero it has expired.
    pub(crate) fn issue(&self, name: &str, days: i32) -> Pair {
        let path = |extension: &str| self.dir.join(format!("{}-{name}{days}.{extension}", self.name));
        let (cert, key, request) = (path("pem"), path("key"), path("csr"));
        openssl(
            &[&["req"], &KEY[..], &[&text(&key), "-out", &text(&request)]].concat(),
            &["-subj", &format!("/CN={name}"), "-addext", &format!("subjectAltName=DNS:{name},IP:127.0.0.1")],
        );
        openssl(
            &["x509", "-req", "-in", &text(&request), "-CA", &text(&self.cert()), "-CAkey", &text(&self.file("key"))],
            &["-copy_extensions", "copy", "-days", &days.to_string(), "-out", &text(&cert)],
        );
        Pair { cert, key }
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[track_caller]
fn openssl(first: &[&str], second: &[&str]) {
    let output = Command::new("openssl").args(first).args(second).output().expect("openssl starts; is it installed?");
    assert!(output.status.success(), "openssl {first:?}: {}", String::from_utf8_lossy(&output.stderr));
}
