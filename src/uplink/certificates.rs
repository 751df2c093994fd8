//! The certificates of a connection: when they expire is published, and warned of in time.

use std::time::Duration;

use super::Hub;
use super::expiry::{Expiry, Warnings};
use super::status::CertificateInfo;

/// How often it is looked whether a certificate expires soon, on a connection that lasts.
const EXPIRY_CHECK: Duration = Duration::from_secs(6 * 60 * 60);

/// The certificates of the present connection.
#[derive(Debug, Default)]
pub struct Certificates {
    expiries: Vec<Expiry>,
    warnings: Warnings,
}

impl Certificates {
    /// A new connection has these.
    pub fn set(&mut self, expiries: Vec<Expiry>) {
        self.expiries = expiries;
    }

    /// Says in `…/info` which one expires first, and warns of those that expire soon. Never ends.
    pub async fn watch(&mut self, uplink: &str, hub: &Hub) {
        let first = self.expiries.iter().min_by_key(|expiry| expiry.at).map(|expiry| CertificateInfo {
            whose: expiry.whose.as_str(),
            expires: humantime::format_rfc3339_seconds(expiry.at).to_string(),
        });
        hub.update_info(|info| match first {
            Some(first) => drop(info.certificates.insert(uplink.to_owned(), first)),
            None => drop(info.certificates.remove(uplink)),
        });
        loop {
            if let Some(now) = hub.now() {
                let now = now.to_system();
                for expiry in &self.expiries {
                    if let Some(days) = self.warnings.check(expiry, now) {
                        let date = humantime::format_rfc3339_seconds(expiry.at);
                        let (whose, name) = (expiry.whose.as_str(), &expiry.name);
                        tracing::warn!(uplink, whose, name, days, "a certificate expires on {date}: renew it in time");
                    }
                }
            }
            tokio::time::sleep(EXPIRY_CHECK).await;
        }
    }
}
