//! TLS of a listener: our certificate, and whose certificates we believe.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::ListenerTls;
use crate::logging::AUDIT;

/// How often the files are looked at, to see whether they are new ones: a renewed certificate needs no restart.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Why a listener cannot do TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not there, or not readable.
    #[error("{} cannot be read: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// A file does not hold what it should.
    #[error("{} has no {what} in PEM form", path.display())]
    Empty {
        /// Which.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
    },
    /// They do not go together, or the library does not take them.
    #[error("{} and {} cannot be used: {why}", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's.
        key: PathBuf,
        /// The library's words.
        why: String,
    },
    /// The authority that clients are to have their certificates from.
    #[error("the certificates in {} cannot be used to check clients: {why}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// The library's words.
        why: String,
    },
}

/// What a listener does TLS with.
#[derive(Debug)]
pub(super) struct Tls {
    files: ListenerTls,
    /// A client without a certificate may come in, and say its password.
    optional: bool,
    loaded: Mutex<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    stamps: Vec<Option<SystemTime>>,
    looked: Instant,
}

impl Tls {
    /// Reads the files.
    pub(super) fn open(files: &ListenerTls, optional: bool) -> Result<Self, TlsError> {
        let stamps = stamps(files);
        let loaded = Loaded { config: load(files, optional)?, stamps, looked: Instant::now() };
        Ok(Self { files: files.clone(), optional, loaded: Mutex::new(loaded) })
    }

    /// For the next connection. Files that have changed are read again; if they cannot be used, the old ones are.
    pub(super) fn acceptor(&self, now: Instant) -> TlsAcceptor {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(loaded.looked) >= LOOK_EVERY {
            loaded.looked = now;
            let stamps = stamps(&self.files);
            if stamps != loaded.stamps {
                loaded.stamps = stamps;
                match load(&self.files, self.optional) {
                    Ok(config) => {
                        loaded.config = config;
                        let file = self.files.certificate.display();
                        tracing::info!(target: AUDIT, audit = "credentials", %file, "the broker has a new certificate");
                    }
                    Err(why) => {
                        let kept = "the broker keeps its old certificate";
                        tracing::warn!(target: AUDIT, audit = "credentials", "{kept}: {why}");
                    }
                }
            }
        }
        TlsAcceptor::from(Arc::clone(&loaded.config))
    }
}

fn stamps(files: &ListenerTls) -> Vec<Option<SystemTime>> {
    let paths = [Some(&files.certificate), Some(&files.key), files.client_ca.as_ref()];
    let changed = |path: &PathBuf| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
    paths.into_iter().flatten().map(changed).collect()
}

fn load(files: &ListenerTls, optional: bool) -> Result<Arc<ServerConfig>, TlsError> {
    let certificates = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
        .map_err(|_| TlsError::Empty { path: files.key.clone(), what: "private key" })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pair = |error: rustls::Error| TlsError::Pair {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        why: error.to_string(),
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let builder = builder.map_err(pair)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let unusable = |why: String| TlsError::Authority { path: path.clone(), why };
            let mut roots = RootCertStore::empty();
            for certificate in self::certificates(path)? {
                roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if optional { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| unusable(error.to_string()))?)
        }
    };
    Ok(Arc::new(builder.with_single_cert(certificates, key).map_err(pair)?))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    read.ok()
        .filter(|all| !all.is_empty())
        .ok_or_else(|| TlsError::Empty { path: path.to_owned(), what: "certificate" })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|why| TlsError::File { path: path.to_owned(), why: why.to_string() })
}

/// The common name of the certificate that a client has shown and that was verified.
pub(super) fn client_name(session: &rustls::ServerConnection) -> Option<Box<str>> {
    let (_, certificate) = X509Certificate::from_der(session.peer_certificates()?.first()?).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.into())
}

/// What went wrong in a handshake, and what to do about it.
pub(super) fn explain(error: &io::Error) -> String {
    use rustls::CertificateError as Bad;
    use rustls::Error as Tls;

    let mut text = error.to_string();
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Tls>());
    let remedy = match inner {
        Some(Tls::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. })) => {
            "the client's certificate has expired"
        }
        Some(Tls::InvalidCertificate(Bad::UnknownIssuer)) => {
            "the client's certificate is not of the authority in `client_ca`"
        }
        Some(Tls::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. })) => {
            "the client's certificate is not valid yet: is this clock set?"
        }
        Some(Tls::NoCertificatesPresented) => "the client showed no certificate",
        Some(Tls::AlertReceived(_)) => "the client does not trust our certificate: does it have ca.pem?",
        Some(Tls::InvalidMessage(_)) => "that is not TLS: is it a client that should use another port?",
        _ => return text,
    };
    // Writing to a `String` cannot fail.
    let _ = write!(text, " ({remedy})");
    text
}
