//! `integrity` of an uplink: a checksum of each payload, or one that only who has a key can make.

use std::sync::Arc;

use ring::hmac;
use secrecy::ExposeSecret;

use super::MqttVersion;
use super::outbox_key::outbox_key;
use super::payload::Format;
use super::read::Surroundings;
use crate::options::Options;

/// What is made of each payload.
#[derive(Clone, Debug)]
pub enum Integrity {
    /// CRC-32 as in Ethernet and zlib (ISO 3309): whether it was damaged.
    Crc32,
    /// HMAC-SHA256 (RFC 2104): whether it comes from somebody who has the key. `Debug` does not show that.
    Hmac(Arc<hmac::Key>),
}

impl Integrity {
    /// The name of the field or property.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Crc32 => "crc32",
            Self::Hmac(_) => "hmac-sha256",
        }
    }

    /// The checksum in hexadecimal, small letters: 8 digits or 64.
    #[must_use]
    pub fn of(&self, payload: &[u8]) -> String {
        match self {
            Self::Crc32 => format!("{:08x}", crc32fast::hash(payload)),
            Self::Hmac(key) => data_encoding::HEXLOWER.encode(hmac::sign(key, payload).as_ref()),
        }
    }
}

impl PartialEq for Integrity {
    /// By the same method, and with the same key.
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name() && self.of(b"") == other.of(b"")
    }
}

/// What `method` may say.
#[derive(Clone, Copy)]
enum Method {
    Crc32,
    Hmac,
}

/// `integrity = { … }`
pub(super) fn integrity(
    options: &Options<'_>,
    format: Format,
    mqtt: MqttVersion,
    around: &Surroundings<'_>,
) -> Option<Integrity> {
    let keys = options.section("integrity")?;
    let integrity = integrity_keys(&keys, around);
    keys.finish();
    if format != Format::Json && mqtt == MqttVersion::V311 {
        let message = format!("{} has `integrity`, but its payloads have no place for a checksum", options.what());
        let help = "set mqtt = \"5\", where it is a user property, or format = \"json\", where it is a field";
        options.problem_with_help("integrity", message, None, Some(help.to_owned()));
    }
    integrity
}

/// The keys of `integrity`.
pub(super) fn integrity_keys(keys: &Options<'_>, around: &Surroundings<'_>) -> Option<Integrity> {
    let method = keys.optional_word("method", &[("crc32", Method::Crc32), ("hmac-sha256", Method::Hmac)]);
    let key = outbox_key(keys, around);
    let is_given = keys.raw("key").is_some();
    match (method, key) {
        (Some(Method::Crc32), _) if is_given => {
            let message = format!("{} has a key, which a CRC knows nothing of", keys.what());
            let help = "set method = \"hmac-sha256\", or take `key` out";
            keys.problem_with_help("key", message, None, Some(help.to_owned()));
            None
        }
        (Some(Method::Crc32), _) => Some(Integrity::Crc32),
        (Some(Method::Hmac), Some(key)) => {
            Some(Integrity::Hmac(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, key.expose_secret()))))
        }
        (Some(Method::Hmac), None) if !is_given => {
            let message = format!("{} has no `key` for an HMAC", keys.what());
            let help = "add key = { file = \"…\" }; `openssl rand -hex 32` makes one";
            keys.problem_with_help("method", message, None, Some(help.to_owned()));
            None
        }
        (Some(Method::Hmac), None) => None,
        (None, _) => {
            let _ = keys.required::<String>("method");
            None
        }
    }
}
