//! Pseudonyms: names that only who has the key can lead back to the ones that they stand for.

use std::sync::Arc;

use data_encoding::BASE32_NOPAD;
use ring::hmac;
use secrecy::ExposeSecret;

use super::OutboxKey;

/// Bytes of the HMAC that a pseudonym is made of: 80 bits, which are 16 characters.
const BYTES: usize = 10;

/// What a name is the name of: the same word for a room and for a sensor gives two pseudonyms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// `gateway.name`
    Gateway,
    /// `gateway.id`, the board's serial number, and what is made of it.
    Id,
    /// The host's name.
    Host,
    /// `gateway.site`
    Site,
    /// A room.
    Room,
    /// A sensor.
    Sensor,
    /// The value of a tag.
    Tag,
    /// The `id` of a message.
    Message,
}

impl Named {
    /// What stands before the name when its pseudonym is made.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Id => "id",
            Self::Host => "host",
            Self::Site => "site",
            Self::Room => "room",
            Self::Sensor => "sensor",
            Self::Tag => "tag",
            Self::Message => "message",
        }
    }
}

/// Makes pseudonyms. The key is not shown by `Debug`.
#[derive(Clone, Debug)]
pub struct Pseudonyms(Arc<hmac::Key>);

impl Pseudonyms {
    /// With this key.
    #[must_use]
    pub fn new(key: &OutboxKey) -> Self {
        Self(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, key.expose_secret())))
    }

    /// The pseudonym of a name: the first 80 bits of HMAC-SHA256 (RFC 2104) over what it is, a zero byte and the name, in
    /// base32 (RFC 4648, 6) with small letters. No topic and no client identifier has trouble with these.
    #[must_use]
    pub fn of(&self, what: Named, name: &str) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(what.as_str().as_bytes());
        context.update(&[0]);
        context.update(name.as_bytes());
        BASE32_NOPAD.encode(&context.sign().as_ref()[..BYTES]).to_ascii_lowercase()
    }
}

impl PartialEq for Pseudonyms {
    /// With the same key; a chance of 2⁻⁸⁰ is left that it is another one.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.of(Named::Message, "") == other.of(Named::Message, "")
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretBox;

    use super::*;

    /// Made with Python: `base64.b32encode(hmac.digest(bytes(range(32)), b"room\0salon", "sha256")[:10]).lower()`.
    #[test]
    fn others_can_make_them_too() {
        let key: [u8; 32] = std::array::from_fn(|index| u8::try_from(index).expect("below 256"));
        let pseudonyms = Pseudonyms::new(&Arc::new(SecretBox::new(Box::new(key))));
        assert_eq!(pseudonyms.of(Named::Room, "salon"), "rn5taiftvq2q4gl4");
        assert_eq!(pseudonyms.of(Named::Sensor, "salon"), "obatlmftqjflxnyy");
        assert!(!format!("{pseudonyms:?}").contains("1, 2, 3"), "{pseudonyms:?}");
    }
}
