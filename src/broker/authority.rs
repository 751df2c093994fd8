//! An authority of one's own, and certificates of it: for the broker, and for its clients.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

/// Certificates are valid from the first day of this year: a Pi whose clock is not set is not before it.
const FROM_YEAR: i32 = 2020;
/// Years that the authority is valid for.
const AUTHORITY_YEARS: i32 = 20;
/// Years that its certificates are.
const CERTIFICATE_YEARS: i32 = 10;
/// The authority's certificate, for clients.
const AUTHORITY: &str = "ca.pem";
/// Its key, for nobody else.
const AUTHORITY_KEY: &str = "ca.key";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file is there already.
    #[error("{} is there already; nothing was written. Move it away if it is to be made anew", .0.display())]
    Exists(PathBuf),
    /// One of the two files of the authority is there without the other.
    #[error("{} is missing beside {}: without both, nothing can be signed", missing.display(), found.display())]
    Half {
        /// What is not there.
        missing: PathBuf,
        /// What is.
        found: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's words.
        why: io::Error,
    },
    /// The library refuses.
    #[error("no certificate can be made: {0}")]
    Library(#[from] rcgen::Error),
}

/// Whose certificate is wanted.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// The broker's: the names and addresses by which clients call it. The first is its common name.
    Server {
        /// Names of the machine.
        names: &'a [String],
        /// Its addresses.
        addresses: &'a [IpAddr],
    },
    /// That of a client, with its user's name.
    Client(&'a str),
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The authority's certificate, which the other side needs.
    pub authority: PathBuf,
    /// Was the authority made, too?
    pub new_authority: bool,
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Makes a certificate in a folder, and the authority that signs it where the folder has none. Every file is for its
/// owner alone but the certificates, which are public. Nothing is overwritten.
///
/// # Errors
/// Why not; files of this call are taken away again.
pub fn issue(folder: &Path, subject: Subject<'_>, year: i32) -> Result<Issued, AuthorityError> {
    let base = match subject {
        Subject::Server { .. } => "server",
        Subject::Client(name) => name,
    };
    let [authority, authority_key] = [AUTHORITY, AUTHORITY_KEY].map(|name| folder.join(name));
    let (certificate, key) = (folder.join(format!("{base}.pem")), folder.join(format!("{base}.key")));
    for path in [&certificate, &key] {
        if path.exists() {
            return Err(AuthorityError::Exists(path.clone()));
        }
    }
    let file = |path: &Path| {
        let path = path.to_owned();
        move |why| AuthorityError::File { path, why }
    };
    fs::create_dir_all(folder).map_err(file(folder))?;
    let new_authority = match (authority.exists(), authority_key.exists()) {
        (true, true) => false,
        (false, false) => true,
        (true, false) => return Err(AuthorityError::Half { missing: authority_key, found: authority }),
        (false, true) => return Err(AuthorityError::Half { missing: authority, found: authority_key }),
    };
    let mut files: Vec<(PathBuf, u32, String)> = Vec::new();
    let issuer = if new_authority {
        let (params, pair) = (authority_params(subject, year), KeyPair::generate()?);
        files.push((authority_key, 0o600, pair.serialize_pem()));
        files.push((authority.clone(), 0o644, params.self_signed(&pair)?.pem()));
        Issuer::new(params, pair)
    } else {
        let text = |path: &Path| fs::read_to_string(path).map_err(file(path));
        Issuer::from_ca_cert_pem(&text(&authority)?, KeyPair::from_pem(&text(&authority_key)?)?)?
    };
    let pair = KeyPair::generate()?;
    let signed = subject_params(subject, year)?.signed_by(&pair, &issuer)?;
    files.push((key.clone(), 0o600, pair.serialize_pem()));
    files.push((certificate.clone(), 0o644, signed.pem()));
    for (index, (path, mode, text)) in files.iter().enumerate() {
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(*mode)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
        if let Err(why) = written {
            for (path, ..) in &files[..index] {
                let _ = fs::remove_file(path);
            }
            return Err(AuthorityError::File { path: path.clone(), why });
        }
    }
    Ok(Issued { authority, new_authority, certificate, key })
}

fn authority_params(subject: Subject<'_>, year: i32) -> CertificateParams {
    let of = match subject {
        Subject::Server { names, .. } => names.first().map_or("vigie", String::as_str),
        Subject::Client(_) => "vigie",
    };
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("vigie CA of {of}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params, year + AUTHORITY_YEARS);
    params
}

fn subject_params(subject: Subject<'_>, year: i32) -> Result<CertificateParams, AuthorityError> {
    let (name, usage, alternatives) = match subject {
        Subject::Server { names, addresses } => {
            let all = names.iter().cloned().chain(addresses.iter().map(IpAddr::to_string)).collect();
            (names.first().map_or("vigie", String::as_str), ExtendedKeyUsagePurpose::ServerAuth, all)
        }
        Subject::Client(name) => (name, ExtendedKeyUsagePurpose::ClientAuth, Vec::new()),
    };
    let mut params = CertificateParams::new(alternatives)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    validity(&mut params, year + CERTIFICATE_YEARS);
    Ok(params)
}

fn validity(params: &mut CertificateParams, until: i32) {
    params.not_before = date_time_ymd(FROM_YEAR, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn an_authority_is_made_once_and_signs_for_server_and_clients() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("tls");
        let names = ["gate".to_owned(), "localhost".to_owned()];
        let server = Subject::Server { names: &names, addresses: &["127.0.0.1".parse().unwrap()] };
        let first = issue(&folder, server, 2026).unwrap();
        assert!(first.new_authority);
        for (path, mode) in [(&first.key, 0o600), (&first.certificate, 0o644), (&first.authority, 0o644)] {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, mode, "{}", path.display());
        }
        assert_eq!(fs::metadata(folder.join(AUTHORITY_KEY)).unwrap().mode() & 0o777, 0o600);
        let before = fs::read(&first.certificate).unwrap();
        assert!(matches!(issue(&folder, server, 2026), Err(AuthorityError::Exists(_))));
        assert_eq!(fs::read(&first.certificate).unwrap(), before);
        let client = issue(&folder, Subject::Client("esp"), 2026).unwrap();
        assert!(!client.new_authority && client.authority == first.authority);
        fs::remove_file(folder.join(AUTHORITY_KEY)).unwrap();
        let half = issue(&folder, Subject::Client("other"), 2026).unwrap_err().to_string();
        assert!(half.contains("ca.key is missing"), "{half}");
    }
}
