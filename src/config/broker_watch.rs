//! `[broker.watch]` and `[broker.jwt]`: what of its clients the broker tells, and logins with tokens.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::read::Surroundings;
use crate::options::{Options, YEAR};

/// The shortest `silent_after`: it is looked at as often as once a second.
const SHORTEST_SILENCE: Duration = Duration::from_secs(1);
const FACTOR: RangeInclusive<u32> = 2..=1000;

/// `[broker.watch]`: what is published of what clients do. Nothing, unless it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerWatch {
    /// A client that published regularly is silent after this time.
    pub silent_after: Option<Duration>,
    /// Are clients told that were never seen before?
    pub unknown_clients: bool,
    /// A client that publishes so many times as much as it used to is told.
    pub rate_factor: Option<u32>,
}

impl BrokerWatch {
    /// Is there anything to watch of a single client's messages?
    #[must_use]
    pub fn sees_messages(&self) -> bool {
        self.silent_after.is_some() || self.rate_factor.is_some()
    }
}

/// `[broker.jwt]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerJwt {
    /// File with the key: a public key in PEM form, or a secret.
    pub key: PathBuf,
    /// What `aud` must name; `None`: anything.
    pub audience: Option<String>,
}

/// The keys of `[broker.watch]`.
pub(super) fn watch(section: &Options<'_>) -> BrokerWatch {
    BrokerWatch {
        silent_after: silent_after(section),
        unknown_clients: section.optional("unknown_clients").unwrap_or(false),
        rate_factor: section.optional_in("rate_factor", FACTOR),
    }
}

/// `silent_after`, also of `[[broker.ingest]]`.
pub(super) fn silent_after(section: &Options<'_>) -> Option<Duration> {
    section.optional_in("silent_after", SHORTEST_SILENCE..=YEAR)
}

/// The keys of `[broker.jwt]`.
pub(super) fn jwt(section: &Options<'_>, around: &Surroundings<'_>) -> Option<BrokerJwt> {
    let (key, audience) = (section.required::<String>("key"), section.optional("audience"));
    let key = around.resolve(&key?);
    if let Err(error) = std::fs::File::open(&key) {
        section.problem("key", format!("{} cannot be read: {error}", key.display()), None);
        return None;
    }
    Some(BrokerJwt { key, audience })
}
