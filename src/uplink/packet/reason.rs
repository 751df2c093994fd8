//! Reason codes of MQTT 5, and what a broker adds to them in words.

use std::fmt;
use std::fmt::Write;

/// So much of what a broker says in its own words is kept and shown, in characters.
pub const MAX_SAID: usize = 200;

/// Why a broker answered as it did (MQTT 5, 2.4), with what it said in its own words.
///
/// The return codes of MQTT 3.1.1 are translated into these; its acknowledgements always are [`SUCCESS`](Self::SUCCESS).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    code: u8,
    /// Safe to print.
    said: Option<Box<str>>,
}

impl Reason {
    /// It has done what it was asked to.
    pub const SUCCESS: Self = Self::new(0);
    /// Of DISCONNECT: the will is to be published all the same.
    pub const DISCONNECT_WITH_WILL: Self = Self::new(0x04);
    /// The broker cannot read the packet.
    pub const MALFORMED_PACKET: Self = Self::new(0x81);
    /// A packet that may not come now, or not like this.
    pub const PROTOCOL_ERROR: Self = Self::new(0x82);
    /// The broker does not speak this version of MQTT.
    pub const UNSUPPORTED_PROTOCOL_VERSION: Self = Self::new(0x84);
    /// The broker does not accept the client identifier.
    pub const CLIENT_IDENTIFIER_NOT_VALID: Self = Self::new(0x85);
    /// User name or password is wrong.
    pub const BAD_USER_NAME_OR_PASSWORD: Self = Self::new(0x86);
    /// This client may not do that.
    pub const NOT_AUTHORIZED: Self = Self::new(0x87);
    /// The broker is there, but does not serve.
    pub const SERVER_UNAVAILABLE: Self = Self::new(0x88);
    /// The packet id stands for another message at the broker.
    pub const PACKET_IDENTIFIER_IN_USE: Self = Self::new(0x91);
    /// The packet is larger than the other side accepts.
    pub const PACKET_TOO_LARGE: Self = Self::new(0x95);
    /// A limit that somebody has set is reached.
    pub const QUOTA_EXCEEDED: Self = Self::new(0x97);
    /// The broker keeps no retained messages.
    pub const RETAIN_NOT_SUPPORTED: Self = Self::new(0x9a);
    /// The broker does not take messages at this quality of service.
    pub const QOS_NOT_SUPPORTED: Self = Self::new(0x9b);

    /// A reason without words of the broker.
    #[must_use]
    pub const fn new(code: u8) -> Self {
        Self { code, said: None }
    }

    /// A reason with what the broker said: its Reason String, Server Reference and user properties, as far as it gave
    /// them. Control characters are escaped, and only the first [`MAX_SAID`] characters kept.
    #[must_use]
    pub fn with(code: u8, reason: Option<&str>, server: Option<&str>, properties: &[(&str, &str)]) -> Self {
        let mut said = String::new();
        if let Some(reason) = reason {
            let _ = write!(said, "\"{reason}\"");
        }
        let labelled = server.map(|server| ("server reference", server));
        for (name, value) in labelled.iter().chain(properties) {
            let _ = write!(said, "{}{name}: \"{value}\"", if said.is_empty() { "" } else { ", " });
        }
        let said = (!said.is_empty()).then(|| printable(&said).into());
        Self { code, said }
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.code
    }

    /// Has it the same code, whatever the broker said?
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.code == other.code
    }

    /// Does it say no? All codes from 0x80 on do (MQTT 5, 2.4).
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.code >= 0x80
    }

    /// What the broker said in its own words, safe to print.
    #[must_use]
    pub fn said(&self) -> Option<&str> {
        self.said.as_deref()
    }

    /// The specification's name (MQTT 5, table 2-6).
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        Some(match self.code {
            0x00 => "success",
            0x04 => "disconnect with will message",
            0x10 => "no matching subscribers",
            0x80 => "unspecified error",
            0x81 => "malformed packet",
            0x82 => "protocol error",
            0x83 => "implementation specific error",
            0x84 => "unsupported protocol version",
            0x85 => "client identifier not valid",
            0x86 => "bad user name or password",
            0x87 => "not authorized",
            0x88 => "server unavailable",
            0x89 => "server busy",
            0x8a => "banned",
            0x8b => "server shutting down",
            0x8c => "bad authentication method",
            0x8d => "keep alive timeout",
            0x8e => "session taken over",
            0x8f => "topic filter invalid",
            0x90 => "topic name invalid",
            0x91 => "packet identifier in use",
            0x92 => "packet identifier not found",
            0x93 => "receive maximum exceeded",
            0x94 => "topic alias invalid",
            0x95 => "packet too large",
            0x96 => "message rate too high",
            0x97 => "quota exceeded",
            0x98 => "administrative action",
            0x99 => "payload format invalid",
            0x9a => "retain not supported",
            0x9b => "QoS not supported",
            0x9c => "use another server",
            0x9d => "server moved",
            0x9e => "shared subscriptions not supported",
            0x9f => "connection rate exceeded",
            0xa0 => "maximum connect time",
            0xa1 => "subscription identifiers not supported",
            0xa2 => "wildcard subscriptions not supported",
            _ => return None,
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({:#04x})", self.code)?,
            None => write!(f, "a reason that MQTT does not know ({:#04x})", self.code)?,
        }
        match &self.said {
            Some(said) => write!(f, "; the broker says {said}"),
            None => Ok(()),
        }
    }
}

/// Text from outside for logs and terminals: control characters escaped, and cut at [`MAX_SAID`] characters.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_SAID));
    for (count, character) in text.chars().enumerate() {
        if count == MAX_SAID {
            out.push('…');
            break;
        }
        // Invisible characters that turn the direction of writing would change what the rest of a line seems to say.
        if character.is_control()
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_reason_is_put_in_words() {
        assert_eq!(Reason::NOT_AUTHORIZED.to_string(), "not authorized (0x87)");
        assert_eq!(Reason::new(0xee).to_string(), "a reason that MQTT does not know (0xee)");
        let said = Reason::with(0x9c, Some("full\u{1b}[2J"), Some("other:1883"), &[("node", "3")]);
        assert_eq!(
            said.to_string(),
            "use another server (0x9c); the broker says \"full\\u{1b}[2J\", server reference: \"other:1883\", node: \"3\""
        );
        assert!(said.is(&Reason::new(0x9c)) && said.is_refusal() && !Reason::new(0x10).is_refusal());
    }

    proptest! {
        #[test]
        fn what_the_broker_says_is_bounded_and_printable(reason: String, value: String) {
            let text = Reason::with(0x80, Some(&reason), None, &[("k", &value)]).to_string();
            prop_assert!(!text.chars().any(char::is_control));
            prop_assert!(text.chars().count() < 100 + 11 * MAX_SAID);
        }
    }
}
