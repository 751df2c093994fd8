//! What a connection needs from files: certificates, keys, passwords. They are read anew for each connection, and
//! while it lasts it is looked whether they have changed.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use secrecy::SecretString;

use crate::config::{Password, UplinkConfig, Username};

use super::known_time::CertificateTime;
use super::packet::UserName;
use super::{Failure, tls};

/// How often it is looked whether a file has changed.
pub const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Files that change are looked at again so much later, until they stay as they are: certificate and key are two
/// files, and a writer may be in the middle of one.
const SETTLE: Duration = Duration::from_secs(1);

/// What was read.
#[derive(Debug)]
pub struct Access {
    /// For TLS.
    pub tls: Option<tls::Prepared>,
    /// The user name at the broker, where it is a secret.
    pub username: Option<SecretString>,
    /// The password at the broker.
    pub password: Option<SecretString>,
    /// The password at the proxy.
    pub proxy_password: Option<SecretString>,
}

/// How files looked: device, inode, size and time of the last change of each; `None` where there is none.
pub type Seen = Vec<Option<(u64, u64, u64, i64, i64)>>;

/// Reads what a connection needs. `with_tls`: that includes the certificates.
///
/// # Errors
/// Which file is wrong and why.
pub async fn read(config: &Arc<UplinkConfig>, with_tls: bool, now: CertificateTime) -> Result<Access, Failure> {
    let needs_disk = with_tls || !files(config).is_empty();
    let config = config.clone();
    let job = move || {
        let proxy_password = config.proxy.as_ref().and_then(|proxy| proxy.password.as_ref());
        let username = secret_username(&config);
        Ok(Access {
            tls: with_tls.then(|| tls::prepare(&config.tls, now)).transpose()?,
            username: username.map(Password::read).transpose().map_err(Failure::Username)?,
            password: password(&config, now)?,
            proxy_password: proxy_password.map(Password::read).transpose().map_err(Failure::ProxyPassword)?,
        })
    };
    if needs_disk { on_disk(job).await? } else { job() }
}

/// Where the user name is read from, if it is a secret.
fn secret_username(config: &UplinkConfig) -> Option<&Password> {
    match &config.username {
        Some(Username::Secret(secret)) => Some(secret),
        Some(Username::Text(_)) | None => None,
    }
}

impl Access {
    /// The user name with which to log in.
    #[must_use]
    pub fn login<'a>(&'a self, config: &'a UplinkConfig) -> Option<UserName<'a>> {
        match &config.username {
            Some(Username::Text(name)) => Some(UserName::Known(name)),
            Some(Username::Secret(_)) => self.username.as_ref().map(UserName::Secret),
            None => None,
        }
    }
}

/// The password as it stands somewhere, or made for now.
fn password(config: &UplinkConfig, now: CertificateTime) -> Result<Option<SecretString>, Failure> {
    let Some(token) = &config.token else {
        return config.password.as_ref().map(Password::read).transpose().map_err(Failure::Password);
    };
    let CertificateTime::Exact(now) = now else { return Err(Failure::ClockUnset) };
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    token.sign(now).map(Some).map_err(Failure::Password)
}

/// Returns when a password that was made just now must be replaced; never, where it holds for ever.
pub async fn expires(config: &UplinkConfig) {
    match &config.token {
        Some(token) => tokio::time::sleep(token.renew_after()).await,
        None => std::future::pending().await,
    }
}

/// Returns when a file is no longer as it was `seen`, and all together are of use; what is of no use is logged once.
/// Never returns where there are no files.
pub async fn changed(config: &Arc<UplinkConfig>, with_tls: bool, seen: &Seen, now: impl Fn() -> CertificateTime) {
    if seen.is_empty() {
        return std::future::pending().await;
    }
    let mut known = seen.clone();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(fresh) = settled(config, &known).await else { continue };
        known = fresh;
        if known == *seen {
            continue;
        }
        let outcome = read(config, with_tls, now()).await.and_then(|access| {
            let expired = |tls: &tls::Prepared| tls.own_expired(now().earliest());
            match access.tls.as_ref().and_then(expired) {
                Some(name) => Err(Failure::Tls(tls::TlsError::Expired { name })),
                None => Ok(()),
            }
        });
        match outcome {
            Ok(()) => return,
            Err(failure) => tracing::warn!(
                uplink = config.name,
                "files for the connection have changed, but cannot be used: {failure} (the connection stays as it is)"
            ),
        }
    }
}

/// Returns as soon as a file is no longer as it was `seen`: whoever waits to try again need not wait any longer.
/// Never returns where there are no files.
pub async fn touched(config: &UplinkConfig, seen: &Seen) {
    if seen.is_empty() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(SETTLE).await;
        if settled(config, seen).await.is_some() {
            return;
        }
    }
}

/// How the files look, once they no longer change; `None` if that is as `known`.
async fn settled(config: &UplinkConfig, known: &Seen) -> Option<Seen> {
    let mut last = seen_now(config).await.filter(|fresh| fresh != known)?;
    loop {
        tokio::time::sleep(SETTLE).await;
        let fresh = seen_now(config).await?;
        if fresh == last {
            return (fresh != *known).then_some(fresh);
        }
        last = fresh;
    }
}

/// How the files look now; `None` if that cannot be told at the moment.
pub async fn seen_now(config: &UplinkConfig) -> Option<Seen> {
    let files = files(config);
    if files.is_empty() {
        return Some(Seen::new());
    }
    on_disk(move || look(&files)).await.ok()
}

async fn on_disk<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let broken_off = |_| Failure::Lost("reading the files for the connection was broken off".to_owned());
    tokio::task::spawn_blocking(job).await.map_err(broken_off)
}

/// All files that the configuration names for the connection.
fn files(config: &UplinkConfig) -> Vec<PathBuf> {
    let tls = config.tls.ca.iter().chain(config.tls.client.iter().flat_map(|(cert, key)| [cert, key]));
    let proxy = config.proxy.iter().filter_map(|proxy| proxy.password.as_ref());
    let passwords = secret_username(config).into_iter().chain(&config.password);
    let passwords = passwords.chain(config.token.iter().map(|token| &token.key)).chain(proxy);
    tls.map(PathBuf::as_path).chain(passwords.filter_map(Password::file)).map(Path::to_owned).collect()
}

fn look(files: &[PathBuf]) -> Seen {
    let seen = |path: &PathBuf| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
    };
    files.iter().map(seen).collect()
}
