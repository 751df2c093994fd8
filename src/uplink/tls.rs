//! TLS to the broker: whom to trust, who we are, and what went wrong in words.
//!
//! The files are read anew at each connection, so that renewed certificates are used without a restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::TlsConfig;

use super::expiry::{Expiry, Whose};
use super::known_time::CertificateTime;

mod at_least;

/// Why TLS cannot be used, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}, the file of {what}: {error}", .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What it is for.
        what: &'static str,
        /// Why not.
        error: std::io::Error,
    },
    /// A file holds something else.
    #[error("{} holds no usable {what}: {reason}", .path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key are not a pair.
    #[error("the key in {} does not belong to the certificate in {}, or cannot be used: {reason}",
        .key.display(), .certificate.display())]
    Pair {
        /// File of the certificate.
        certificate: PathBuf,
        /// File of the key.
        key: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The system trusts nobody.
    #[error(
        "this system has no authorities to trust ({reason}): install ca-certificates, or name the file of the \
             broker's authority with `tls.ca`"
    )]
    NoRoots {
        /// What was found instead.
        reason: String,
    },
    /// The host in the URL cannot stand in a certificate.
    #[error("`{0}` is neither a DNS name nor an address that a certificate could be for")]
    Name(String),
    /// Our own certificate is of no use any more.
    #[error("our certificate ({name}) has expired: renew it")]
    Expired {
        /// Its subject.
        name: String,
    },
    /// The handshake failed.
    #[error("{0}")]
    Handshake(String),
}

/// What is needed for one connection.
#[derive(Debug)]
pub struct Prepared {
    config: Arc<ClientConfig>,
    /// When our certificates and those of named authorities expire.
    pub expiries: Vec<Expiry>,
}

impl Prepared {
    /// The name of our certificate, if that has expired.
    #[must_use]
    pub fn own_expired(&self, now: SystemTime) -> Option<String> {
        let own = self.expiries.iter().find(|expiry| expiry.whose == Whose::Client)?;
        (own.at < now).then(|| own.name.clone())
    }
}

/// The time against which certificates are checked during one connection.
#[derive(Debug)]
struct Fixed(UnixTime);

impl TimeProvider for Fixed {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}

/// Reads the files. `now` is the time against which certificates are checked. This blocks on the disk.
///
/// # Errors
/// Which file is wrong and why.
pub fn prepare(settings: &TlsConfig, now: CertificateTime) -> Result<Prepared, TlsError> {
    let mut expiries = Vec::new();
    let mut roots = RootCertStore::empty();
    if let Some(path) = &settings.ca {
        for certificate in certificates(path, "the authority (`tls.ca`)")? {
            expiries.extend(Expiry::of(Whose::Ca, &certificate));
            roots.add(certificate).map_err(|error| TlsError::Content {
                path: path.clone(),
                what: "certificate of an authority",
                reason: error.to_string(),
            })?;
        }
    } else {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let reason = found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
            return Err(TlsError::NoRoots { reason });
        }
    }
    let time = now.earliest().duration_since(UNIX_EPOCH).unwrap_or_default();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let unusable = |error: &dyn std::fmt::Display| TlsError::Handshake(error.to_string());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| unusable(&error))?;
    let builder = ClientConfig::builder_with_details(provider, Arc::new(Fixed(UnixTime::since_unix_epoch(time))))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?;
    let builder = match now {
        CertificateTime::Exact(_) => builder.with_webpki_verifier(verifier),
        // Nothing is left out: only what "now" means in it is different.
        CertificateTime::AtLeast(_) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(at_least::AtLeast(verifier)))
        }
    };
    let mut config = match &settings.client {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate, "our certificate (`tls.cert`)")?;
            expiries.extend(chain.first().and_then(|own| Expiry::of(Whose::Client, own)));
            builder.with_client_auth_cert(chain, private_key(key)?).map_err(|error| TlsError::Pair {
                certificate: certificate.clone(),
                key: key.clone(),
                reason: error.to_string(),
            })?
        }
    };
    config.alpn_protocols = settings.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Prepared { config: Arc::new(config), expiries })
}

/// Does the handshake over a connected stream. Gives the stream and when the broker's certificate expires.
///
/// # Errors
/// Whom we or the broker do not trust, and the remedy.
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    prepared: &Prepared,
    host: &str,
    stream: S,
) -> Result<(TlsStream<S>, Option<Expiry>), TlsError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name(host.to_owned()))?;
    let stream = TlsConnector::from(prepared.config.clone())
        .connect(name, stream)
        .await
        .map_err(|error| TlsError::Handshake(explain(&error, host).unwrap_or_else(|| error.to_string())))?;
    let own = stream.get_ref().1.peer_certificates().and_then(|chain| Expiry::of(Whose::Server, chain.first()?));
    Ok((stream, own))
}

fn read(path: &Path, what: &'static str) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::Read { path: path.to_owned(), what, error })
}

fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path, what)?;
    let wrong = |reason| TlsError::Content { path: path.to_owned(), what: "PEM certificate", reason };
    let found = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(describe_pem(&error)))?;
    if found.is_empty() {
        return Err(wrong(describe_pem(&pem::Error::NoItemsFound)));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(path, "our key (`tls.key`)")?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let reason = if text.windows(9).any(|word| word == b"ENCRYPTED") {
            "it is protected by a passphrase: store it without one (`openssl pkey -in FILE -out NEW`), readable \
             by vigie's user alone"
                .to_owned()
        } else {
            describe_pem(&error)
        };
        TlsError::Content { path: path.to_owned(), what: "PEM key (PKCS#8, PKCS#1 or SEC1)", reason }
    })
}

fn describe_pem(error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "there is no such section (`-----BEGIN …`) in it".to_owned(),
        pem::Error::MissingSectionEnd { .. } => "a section has no end (`-----END …`): is it cut off?".to_owned(),
        other => other.to_string(),
    }
}

/// Puts an error of TLS in words; `None` if it is something else. With TLS 1.3 the broker's verdict on our
/// certificate comes after the handshake, with the first read.
#[must_use]
pub fn explain(error: &std::io::Error, host: &str) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match error {
        rustls::Error::InvalidCertificate(reason) => explain_certificate(reason, host),
        rustls::Error::AlertReceived(alert) => explain_alert(*alert),
        rustls::Error::InvalidMessage(_) => {
            "the broker's answer is not TLS: is this the port for `mqtts`, usually 8883?".to_owned()
        }
        other => format!("TLS failed: {other}"),
    })
}

fn explain_certificate(reason: &CertificateError, host: &str) -> String {
    match reason {
        CertificateError::ExpiredContext { time, not_after } => format!(
            "the broker's certificate expired on {}: renew it on the broker (here it is {})",
            date(*not_after),
            date(*time)
        ),
        CertificateError::Expired => "the broker's certificate has expired: renew it on the broker".to_owned(),
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "the broker's certificate is valid only from {} on, and here it is {}: is this clock wrong?",
            date(*not_before),
            date(*time)
        ),
        CertificateError::UnknownIssuer => "the broker's certificate was signed by an authority that is not trusted \
                                            here: name that authority's file with `tls.ca`"
            .to_owned(),
        CertificateError::BadSignature => "the broker's certificate was not signed by the authority in `tls.ca`, \
                                           though by one of the same name: take the authority's current file"
            .to_owned(),
        CertificateError::NotValidForNameContext { presented, .. } => {
            // They come as `DnsName("broker.lan")`.
            let plain = |name: &String| name.split('"').nth(1).unwrap_or(name).to_owned();
            let names: Vec<String> = presented.iter().map(plain).collect();
            let names = if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") };
            format!(
                "the broker's certificate is for {names}, not for `{host}`: use such a name in `url`, or have `{host}` \
                 added to the certificate's subjectAltName"
            )
        }
        CertificateError::NotValidForName => format!("the broker's certificate is not for `{host}`"),
        other => format!("the broker's certificate cannot be accepted: {other}"),
    }
}

fn explain_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => "the broker wants a certificate of ours: set `tls.cert` and \
                                                  `tls.key`"
            .to_owned(),
        AlertDescription::CertificateExpired => "the broker says that our certificate (`tls.cert`) has \
                                                 expired: renew it"
            .to_owned(),
        AlertDescription::CertificateRevoked => "the broker says that our certificate (`tls.cert`) was revoked: \
                                                 get a new one"
            .to_owned(),
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::DecryptError
        | AlertDescription::AccessDenied => format!(
            "the broker does not accept our certificate (alert {alert:?}): check that `tls.cert` was signed by \
             the authority that the broker trusts"
        ),
        AlertDescription::HandshakeFailure => "the broker broke off the handshake: it may want a certificate of ours \
                                               (`tls.cert`, `tls.key`), or share no cipher with us"
            .to_owned(),
        AlertDescription::NoApplicationProtocol => {
            "the broker speaks none of the protocols that we offer: check `tls.alpn`".to_owned()
        }
        AlertDescription::ProtocolVersion => {
            "the broker speaks neither TLS 1.2 nor 1.3: bring it up to date".to_owned()
        }
        other => format!("the broker broke off TLS (alert {other:?})"),
    }
}

fn date(time: UnixTime) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time.as_secs())).to_string()
}

#[cfg(test)]
mod tests;
