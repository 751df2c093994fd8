//! The check of a broker's certificate while all that is known of the time is that it is this or later.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

/// A chain has no more certificates than this that begin to be valid one after the other.
const MAX_STEPS: usize = 8;

/// Checks a chain at the earliest time that may be now and at which all of it has begun to be valid: one that had
/// expired by then is refused.
#[derive(Debug)]
pub(super) struct AtLeast(pub(super) Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AtLeast {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        earliest: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut time = earliest;
        for _ in 0..MAX_STEPS {
            match self.0.verify_server_cert(own, intermediates, name, ocsp, time) {
                Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }))
                    if not_before > time =>
                {
                    time = not_before;
                }
                verdict => return verdict,
            }
        }
        self.0.verify_server_cert(own, intermediates, name, ocsp, time)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
