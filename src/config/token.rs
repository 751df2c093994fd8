//! `shared_access_key`: a password that is made anew for each connection, and holds for a while only.

use std::ops::RangeInclusive;
use std::time::Duration;

use data_encoding::BASE64;
use secrecy::{ExposeSecret, SecretString};

use super::read::Surroundings;
use super::secret::{self, Password};
use super::{BrokerUrl, uplink};
use crate::options::Options;

/// `signature_lifetime` where it is not given.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// Below some minutes, more would be connected than sent; a token that is stolen should not hold for long.
const LIFETIME: RangeInclusive<Duration> = Duration::from_secs(5 * 60)..=Duration::from_secs(30 * 24 * 60 * 60);

/// A shared access signature of Azure (learn.microsoft.com: Control access to IoT Hub with shared access signatures).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Where the key that it is signed with is read from.
    pub key: Password,
    /// What it gives access to: the hub's name and the device.
    pub resource: String,
    /// How long it holds.
    pub lifetime: Duration,
}

impl Token {
    /// When a connection whose token was made `now` (seconds since 1970) is to be made anew: with time to spare for a
    /// network that is away for a moment.
    #[must_use]
    pub fn renew_after(&self) -> Duration {
        self.lifetime - self.lifetime / 5
    }

    /// Makes one that holds from `now` (since 1970). Reads the key, which may block on the disk.
    ///
    /// # Errors
    /// Why there is no key, or none of use.
    pub fn sign(&self, now: Duration) -> Result<SecretString, String> {
        let key = decode(&self.key.read()?)?;
        let expires = now.saturating_add(self.lifetime).as_secs();
        let resource = encode(&self.resource);
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
        let signature = ring::hmac::sign(&key, format!("{resource}\n{expires}").as_bytes());
        let signature = encode(&BASE64.encode(signature.as_ref()));
        Ok(SecretString::from(format!("SharedAccessSignature sr={resource}&sig={signature}&se={expires}")))
    }
}

fn decode(key: &SecretString) -> Result<Vec<u8>, String> {
    let decoded = BASE64.decode(key.expose_secret().trim().as_bytes());
    decoded.map_err(|_| "the key is not base64, as the portal shows it".to_owned())
}

/// Percent-encodes all but what is unreserved (RFC 3986, 2.3).
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let one = |byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

/// `shared_access_key` and `signature_lifetime`
pub(super) fn token(
    options: &Options<'_>,
    urls: Option<&[BrokerUrl]>,
    client_id: Option<&str>,
    around: &Surroundings<'_>,
) -> Option<Token> {
    let lifetime = options.optional_in("signature_lifetime", LIFETIME);
    let key = secret::password(options, "shared_access_key", around);
    let is_given = |key| options.raw(key).is_some();
    let complain = |key, message: &str, help: &str| {
        let message = format!("{} has {message}", options.what());
        options.problem_with_help(key, message, None, Some(help.to_owned()));
    };
    if lifetime.is_some() && !is_given("shared_access_key") {
        complain("signature_lifetime", "`signature_lifetime` without `shared_access_key`", "take it out");
    }
    if is_given("shared_access_key") && is_given("password") {
        complain("password", "`password` beside `shared_access_key`", "take one of them out");
    }
    if is_given("shared_access_key") && !is_given("username") {
        complain(
            "shared_access_key",
            "a `shared_access_key` without a user name",
            "add preset = \"azure-iot-hub\", which sets it",
        );
    }
    let key = key?;
    // Whether it can be read at all was looked at before.
    if let Some(why) = key.read().ok().and_then(|key| decode(&key).err()) {
        options.problem("shared_access_key", format!("`shared_access_key` of {}: {why}", options.what()), None);
    }
    let host = &urls?.first()?.host;
    let resource = format!("{host}/devices/{}", client_id?);
    uplink::check_text(&resource).ok()?;
    Some(Token { key, resource, lifetime: lifetime.unwrap_or(DEFAULT_LIFETIME) })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::config::{Config, Machine, Report, Username, from_text};
    use crate::drivers::DRIVERS;

    /// 2026-11-21T10:15:30Z
    const NOW: Duration = Duration::from_secs(1_795_256_130);

    fn machine() -> Machine {
        let env = |name: &str| match name {
            "ONE" => Some(OsString::from("c2VjcmV0IGtleSBvZiAzMiBieXRlcyAuLi4uLi4uLi4=")),
            "TWO" => Some(OsString::from("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")),
            "SPOILT" => Some(OsString::from("not base64!")),
            _ => None,
        };
        Machine { env, hostname: "pi".to_owned(), ..Machine::this() }
    }

    fn load(hub: &str, device: &str, rest: &str) -> Result<Config, Report> {
        let text = format!(
            "[uplink.azure]\npreset = \"azure-iot-hub\"\nurl = \"mqtts://{hub}\"\nclient_id = \"{device}\"\n{rest}"
        );
        from_text("test.toml", &text, &machine(), DRIVERS)
    }

    /// What Microsoft's own azure-iot-device 2.14.0 for Python makes of the same (`RenewableSasToken` with
    /// `SymmetricKeySigningMechanism` and a `ttl` of 3600).
    #[test]
    fn a_signature_is_the_one_that_microsofts_library_makes() {
        for (hub, device, key, token) in [
            (
                "hub.azure-devices.net",
                "atelier",
                "ONE",
                "SharedAccessSignature sr=hub.azure-devices.net%2Fdevices%2Fatelier\
                 &sig=yFcJsYA%2FSWj8upDep7nUPQvEuoUK8iW%2BOHZCZxCgKLQ%3D&se=1795259730",
            ),
            (
                "Hub1.azure-devices.net",
                "salle-12@x",
                "TWO",
                "SharedAccessSignature sr=Hub1.azure-devices.net%2Fdevices%2Fsalle-12%40x\
                 &sig=PQbi9dri8jv3tLl1M9t7BOBlee0a96Yj9Vnn54TxxLw%3D&se=1795259730",
            ),
        ] {
            let config = load(hub, device, &format!("shared_access_key = {{ env = \"{key}\" }}\n"));
            let config = config.map_err(|report| report.to_string()).expect("no errors");
            let uplink = &config.uplinks[0];
            let signed = uplink.token.as_ref().expect("a token").sign(NOW).expect("a key");
            assert_eq!(signed.expose_secret(), token);
            let expected = format!("{hub}/{device}/?api-version=2021-04-12");
            assert!(matches!(&uplink.username, Some(Username::Text(name)) if *name == expected));
            assert!(!format!("{config:?}").contains("c2VjcmV0"), "the key is nowhere shown");
        }
    }

    #[test]
    fn a_key_that_is_none_is_refused() {
        let report =
            load("h.azure-devices.net", "d", "shared_access_key = { env = \"SPOILT\" }\n").expect_err("an error");
        assert!(report.to_string().contains("is not base64"), "{report}");
        let beside = "shared_access_key = { env = \"ONE\" }\npassword = { env = \"ONE\" }\n";
        assert!(load("h.azure-devices.net", "d", beside).is_err());
        assert!(load("h.azure-devices.net", "d", "signature_lifetime = \"1h\"\n").is_err());
    }

    #[test]
    fn a_signature_is_renewed_with_time_to_spare() {
        let rest = "shared_access_key = { env = \"ONE\" }\nsignature_lifetime = \"10m\"\n";
        let config = load("h.azure-devices.net", "d", rest).map_err(|report| report.to_string()).expect("no errors");
        let token = config.uplinks[0].token.as_ref().expect("a token");
        assert_eq!(token.renew_after(), Duration::from_secs(480));
    }
}
