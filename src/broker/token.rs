//! Logins with a JSON Web Token (RFC 7519) in place of the password.
//!
//! Which algorithm counts follows from the key, never from the token: a public RSA key verifies RS256, one on P-256 ES256,
//! anything else is a secret for HS256 (RFC 7518, 3.1). So no token can choose how it is looked at.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use data_encoding::BASE64URL_NOPAD;
use ring::{hmac, signature};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::stamp::Stamp;
use super::users::check_name;
use crate::clock::{Clock, WallTime};
use crate::logging::AUDIT;

/// The longest token that is looked at, in bytes.
const MAX_BYTES: usize = 8 * 1024;
/// The longest key file, in bytes.
const MAX_KEY_BYTES: u64 = 64 * 1024;
/// The shortest secret, in bytes (RFC 7518, 3.2).
const MIN_SECRET_BYTES: usize = 32;
/// So far the clocks of whoever issues tokens and of the gateway may be apart, in seconds.
const LEEWAY: f64 = 60.0;
/// rsaEncryption (RFC 8017, A.1).
const RSA: &str = "1.2.840.113549.1.1.1";
/// id-ecPublicKey and its curve secp256r1 (RFC 5480, 2.1.1).
const EC: &str = "1.2.840.10045.2.1";
const P256: &str = "1.2.840.10045.3.1.7";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeyError {
    /// The file cannot be read.
    #[error("the key for tokens {} cannot be read: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's words.
        why: io::Error,
    },
    /// Others may read the secret.
    #[error("the secret for tokens {path} can be read by everybody (mode {mode:03o}): chmod 640 it", path = .0.display(), mode = .1)]
    Open(PathBuf, u32),
    /// What it holds is no key that is of use here.
    #[error("{} is no key for tokens: {why}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// What tokens are verified with.
enum Key {
    Hs256(hmac::Key),
    Rs256(Vec<u8>),
    Es256(Vec<u8>),
}

impl Key {
    fn algorithm(&self) -> &'static str {
        match self {
            Self::Hs256(_) => "HS256",
            Self::Rs256(_) => "RS256",
            Self::Es256(_) => "ES256",
        }
    }

    fn verifies(&self, message: &[u8], tag: &[u8]) -> bool {
        let signed = |algorithm: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            signature::UnparsedPublicKey::new(algorithm, key).verify(message, tag).is_ok()
        };
        match self {
            Self::Hs256(key) => hmac::verify(key, message, tag).is_ok(),
            Self::Rs256(key) => signed(&signature::RSA_PKCS1_2048_8192_SHA256, key),
            Self::Es256(key) => signed(&signature::ECDSA_P256_SHA256_FIXED, key),
        }
    }
}

/// Verifies tokens. The key is read again when its file has changed.
pub(super) struct Tokens {
    path: PathBuf,
    stamp: Stamp,
    key: Key,
    audience: Option<String>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("algorithm", &self.key.algorithm()).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    /// Extensions that must be understood (RFC 7515, 4.1.11); there are none that are.
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
    aud: Option<Audience>,
}

/// One or several (RFC 7519, 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn names(&self, wanted: &str) -> bool {
        match self {
            Self::One(one) => one == wanted,
            Self::Several(several) => several.iter().any(|one| one == wanted),
        }
    }
}

/// What is known of the time: not before `earliest`, and exactly `now` if the clock is set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time {
    now: Option<f64>,
    earliest: f64,
}

impl Time {
    /// As a clock tells it.
    pub(super) fn of(clock: &dyn Clock) -> Self {
        let seconds = |time: WallTime| {
            time.to_system().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
        };
        let look = clock.look();
        Self { now: look.word.is_ok().then(|| seconds(look.wall)), earliest: seconds(clock.earliest()) }
    }
}

/// Until when a token lets its user in, in seconds since 1970 (RFC 7519, 4.1.4).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Until(f64);

impl Until {
    /// How long that still is, with the leeway of a login; `None`: nobody knows the time.
    pub(super) fn left(self, time: Time) -> Option<Duration> {
        // The furthest that anybody would wait.
        const FAR: f64 = 1e9;
        Some(Duration::from_secs_f64((self.0 + LEEWAY - time.now?).clamp(0.0, FAR)))
    }
}

impl Tokens {
    /// Reads the key.
    pub(super) fn open(path: &Path, audience: Option<String>) -> Result<Self, TokenKeyError> {
        let stamp = Stamp::of(path).map_err(|why| TokenKeyError::File { path: path.to_owned(), why })?;
        Ok(Self { path: path.to_owned(), stamp, key: read(path)?, audience })
    }

    /// Reads the key again if its file has changed; one that cannot be used leaves the old one.
    pub(super) fn refresh(&mut self) {
        if !self.stamp.renew(&self.path) {
            return;
        }
        match read(&self.path) {
            Ok(key) => {
                self.key = key;
                let file = self.path.display();
                tracing::info!(target: AUDIT, audit = "credentials", %file, "the broker has a new key for tokens");
            }
            Err(why) => {
                tracing::warn!(target: AUDIT, audit = "credentials", "the broker keeps its old key for tokens: {why}");
            }
        }
    }

    /// Could this password be a token at all?
    pub(super) fn could_be(password: &[u8]) -> bool {
        password.starts_with(b"eyJ") && password.iter().filter(|byte| **byte == b'.').count() == 2
    }

    /// Whose token this is, and until when, if it says so.
    ///
    /// # Errors
    /// It is not believed, and why.
    pub(super) fn user(&self, token: &[u8], time: Time) -> Result<(String, Option<Until>), &'static str> {
        const MALFORMED: &str = "the password is no JSON Web Token";
        if token.len() > MAX_BYTES {
            return Err("its token is too long");
        }
        let token = std::str::from_utf8(token).map_err(|_| MALFORMED)?;
        let (signed, tag) = token.rsplit_once('.').ok_or(MALFORMED)?;
        let (header, claims) = signed.split_once('.').ok_or(MALFORMED)?;
        let decoded = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| MALFORMED);
        let header: Header = serde_json::from_slice(&decoded(header)?).map_err(|_| MALFORMED)?;
        if header.alg != self.key.algorithm() || header.crit.is_some() {
            return Err("its token is signed in another way than the key is for");
        }
        if !self.key.verifies(signed.as_bytes(), &decoded(tag)?) {
            return Err("the signature of its token is wrong");
        }
        let claims: Claims = serde_json::from_slice(&decoded(claims)?)
            .map_err(|_| "the claims of its token are not what RFC 7519 says")?;
        // A number that is none (JSON has no such, but `1e999` is read as infinite) is no end.
        let until = claims.exp.filter(|until| until.is_finite());
        if until.is_some_and(|until| until + LEEWAY <= time.now.unwrap_or(time.earliest)) {
            return Err("its token has expired");
        }
        if let (Some(from), Some(now)) = (claims.nbf, time.now)
            && now + LEEWAY < from
        {
            return Err("its token is not valid yet");
        }
        if let Some(wanted) = &self.audience
            && !claims.aud.is_some_and(|aud| aud.names(wanted))
        {
            return Err("its token is for another audience");
        }
        let user = claims.sub.ok_or("its token has no `sub`, which would be its user")?;
        check_name(&user).map_err(|_| "`sub` of its token cannot be a user's name")?;
        Ok((user, until.map(Until)))
    }
}

/// Reads and checks a key.
fn read(path: &Path) -> Result<Key, TokenKeyError> {
    let failed = |why| TokenKeyError::File { path: path.to_owned(), why };
    let unfit = |why| TokenKeyError::Unfit { path: path.to_owned(), why };
    let meta = std::fs::metadata(path).map_err(failed)?;
    if meta.len() > MAX_KEY_BYTES {
        return Err(unfit("it is too long"));
    }
    let text = std::fs::read(path).map_err(failed)?;
    if text.starts_with(b"-----BEGIN") {
        return public(&text).map_err(unfit);
    }
    if meta.mode() & 0o007 != 0 {
        return Err(TokenKeyError::Open(path.to_owned(), meta.mode() & 0o777));
    }
    // An editor leaves an end of line.
    let secret = text.trim_ascii_end();
    if secret.len() < MIN_SECRET_BYTES {
        return Err(unfit("a secret has at least 32 bytes (`openssl rand -hex 32` makes one)"));
    }
    Ok(Key::Hs256(hmac::Key::new(hmac::HMAC_SHA256, secret)))
}

/// A public key in PEM form.
fn public(pem: &[u8]) -> Result<Key, &'static str> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem)
        .map_err(|_| "it has no PUBLIC KEY in PEM form (`openssl pkey -pubout` makes one)")?;
    let (_, info) = SubjectPublicKeyInfo::from_der(&der).map_err(|_| "its public key cannot be read")?;
    let key = info.subject_public_key.data.to_vec();
    let curve = info.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    match info.algorithm.algorithm.to_id_string().as_str() {
        RSA => Ok(Key::Rs256(key)),
        EC if curve.is_some_and(|curve| curve.to_id_string() == P256) => Ok(Key::Es256(key)),
        _ => Err("its public key is neither RSA nor on the curve P-256"),
    }
}

#[cfg(test)]
mod tests;
