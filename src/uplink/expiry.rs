//! When certificates expire, and the warnings before it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// So many days before a certificate expires there is a warning, and one when it has expired.
pub const WARN_DAYS: [u32; 4] = [30, 7, 1, 0];

/// Whose certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// The broker's.
    Server,
    /// Ours.
    Client,
    /// The authority's, from a file that the configuration names.
    Ca,
}

impl Whose {
    /// As published in `…/info`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
            Self::Ca => "ca",
        }
    }
}

/// The last moment at which a certificate is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// Whose.
    pub whose: Whose,
    /// The certificate's `notAfter`.
    pub at: SystemTime,
    /// Its subject, or its file.
    pub name: String,
}

impl Expiry {
    /// Reads it from a certificate in DER; `None` if that cannot be read.
    #[must_use]
    pub fn of(whose: Whose, der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
        Some(Self { whose, at: UNIX_EPOCH + Duration::from_secs(seconds), name: certificate.subject().to_string() })
    }
}

/// Remembers which warnings were given, so that each is given once.
#[derive(Debug, Default)]
pub struct Warnings(BTreeMap<Whose, (SystemTime, u32)>);

impl Warnings {
    /// The days that are left, if that is to be warned of now.
    pub fn check(&mut self, expiry: &Expiry, now: SystemTime) -> Option<u32> {
        let left = expiry.at.duration_since(now).unwrap_or_default();
        let step = WARN_DAYS.into_iter().rev().find(|days| left <= DAY * *days)?;
        let given = self.0.get(&expiry.whose);
        if given.is_some_and(|(at, last)| *at == expiry.at && *last <= step) {
            return None;
        }
        self.0.insert(expiry.whose, (expiry.at, step));
        u32::try_from(left.as_secs() / DAY.as_secs()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_warning_is_given_once() {
        let at = UNIX_EPOCH + DAY * 1_000;
        let expiry = Expiry { whose: Whose::Client, at, name: "CN=pi".to_owned() };
        let mut warnings = Warnings::default();
        let given: Vec<(u32, u32)> = (940..1_003)
            .flat_map(|day| [day, day])
            .filter_map(|day| Some((day, warnings.check(&expiry, UNIX_EPOCH + DAY * day)?)))
            .collect();
        assert_eq!(given, [(970, 30), (993, 7), (999, 1), (1_000, 0)]);

        let renewed = Expiry { at: at + DAY * 365, ..expiry.clone() };
        assert_eq!(warnings.check(&renewed, at), None);
        assert_eq!(warnings.check(&renewed, at + DAY * 364), Some(1), "the first look is a late one");
        let server = Expiry { whose: Whose::Server, ..expiry };
        assert_eq!(warnings.check(&server, at), Some(0), "each certificate has its own warnings");
    }

    #[test]
    fn what_is_no_certificate_has_no_expiry() {
        assert_eq!(Expiry::of(Whose::Ca, b"nonsense"), None);
    }
}
