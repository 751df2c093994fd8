//! Properties of MQTT 5 (2.2.2): names for their numbers, and a reader that trusts nothing.

pub(super) const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
pub(super) const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
pub(super) const CONTENT_TYPE: u8 = 0x03;
pub(super) const RESPONSE_TOPIC: u8 = 0x08;
pub(super) const CORRELATION_DATA: u8 = 0x09;
pub(super) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0b;
pub(super) const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
pub(super) const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
pub(super) const SERVER_KEEP_ALIVE: u8 = 0x13;
pub(super) const AUTHENTICATION_METHOD: u8 = 0x15;
pub(super) const AUTHENTICATION_DATA: u8 = 0x16;
pub(super) const RESPONSE_INFORMATION: u8 = 0x1a;
pub(super) const SERVER_REFERENCE: u8 = 0x1c;
pub(super) const REASON_STRING: u8 = 0x1f;
pub(super) const RECEIVE_MAXIMUM: u8 = 0x21;
pub(super) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
pub(super) const TOPIC_ALIAS: u8 = 0x23;
pub(super) const MAXIMUM_QOS: u8 = 0x24;
pub(super) const RETAIN_AVAILABLE: u8 = 0x25;
pub(super) const USER_PROPERTY: u8 = 0x26;
pub(super) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
pub(super) const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 0x28;
pub(super) const SUBSCRIPTION_IDENTIFIERS_AVAILABLE: u8 = 0x29;
pub(super) const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2a;

/// What a property holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// One, two or four bytes, or a variable length.
    Number(u32),
    Text(&'a str),
    Binary(&'a [u8]),
    Pair(&'a str, &'a str),
}

impl Value<'_> {
    /// The number of a property that holds one, by [`value`].
    pub(super) fn number(self) -> u32 {
        if let Self::Number(number) = self { number } else { 0 }
    }
}

/// Bytes that are read from front to back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("a packet that ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    /// A big-endian number of up to four bytes.
    pub(super) fn number(&mut self, bytes: usize) -> Result<u32, String> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| (number << 8) | u32::from(*byte)))
    }

    pub(super) fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn two(&mut self) -> Result<u16, String> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A Variable Byte Integer (1.5.5).
    pub(super) fn variable(&mut self) -> Result<u32, String> {
        let mut number = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            number |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err("a length of more than four bytes".to_owned())
    }

    /// A UTF-8 string (1.5.4).
    pub(super) fn text(&mut self) -> Result<&'a str, String> {
        let text = std::str::from_utf8(self.binary()?).map_err(|_| "a text that is not UTF-8")?;
        if text.contains('\0') { Err("a text with a null character".to_owned()) } else { Ok(text) }
    }

    fn binary(&mut self) -> Result<&'a [u8], String> {
        let length = self.two()?;
        self.take(usize::from(length))
    }

    /// Takes a length and the properties that it covers, and hands each to `found`, which says whether the packet may
    /// have it. None but user properties and subscription identifiers may come twice (2.2.2.2, 3.3.2.3.8).
    pub(super) fn properties(
        &mut self,
        packet: &str,
        mut found: impl FnMut(u8, Value<'a>) -> Result<bool, String>,
    ) -> Result<(), String> {
        let length = self.variable()?;
        let mut properties = Reader(self.take(usize::try_from(length).unwrap_or(usize::MAX))?);
        let mut seen = 0_u64;
        while !properties.is_empty() {
            let kind = properties.byte()?;
            let value = properties.value(kind)?;
            let bit = 1 << kind;
            if seen & bit != 0 && kind != USER_PROPERTY && kind != SUBSCRIPTION_IDENTIFIER {
                return Err(format!("a {packet} with the property {kind:#04x} twice"));
            }
            seen |= bit;
            if !found(kind, value)? {
                return Err(format!("a {packet} with the property {kind:#04x}, which has no place there"));
            }
        }
        Ok(())
    }

    /// Takes the properties of an answer that are of no interest to us.
    pub(super) fn answer_properties(&mut self, packet: &str) -> Result<(), String> {
        self.properties(packet, |kind, _| Ok(matches!(kind, REASON_STRING | USER_PROPERTY)))
    }

    /// The value of a property (table 2-4); all known properties are below 64.
    fn value(&mut self, kind: u8) -> Result<Value<'a>, String> {
        Ok(match kind {
            PAYLOAD_FORMAT_INDICATOR
            | 0x17
            | 0x19
            | MAXIMUM_QOS
            | RETAIN_AVAILABLE
            | WILDCARD_SUBSCRIPTION_AVAILABLE
            | SUBSCRIPTION_IDENTIFIERS_AVAILABLE
            | SHARED_SUBSCRIPTION_AVAILABLE => Value::Number(self.number(1)?),
            SERVER_KEEP_ALIVE | RECEIVE_MAXIMUM | TOPIC_ALIAS_MAXIMUM | TOPIC_ALIAS => Value::Number(self.number(2)?),
            MESSAGE_EXPIRY_INTERVAL | SESSION_EXPIRY_INTERVAL | 0x18 | MAXIMUM_PACKET_SIZE => {
                Value::Number(self.number(4)?)
            }
            SUBSCRIPTION_IDENTIFIER => Value::Number(self.variable()?),
            CONTENT_TYPE
            | RESPONSE_TOPIC
            | ASSIGNED_CLIENT_IDENTIFIER
            | AUTHENTICATION_METHOD
            | RESPONSE_INFORMATION
            | SERVER_REFERENCE
            | REASON_STRING => Value::Text(self.text()?),
            CORRELATION_DATA | AUTHENTICATION_DATA => Value::Binary(self.binary()?),
            USER_PROPERTY => Value::Pair(self.text()?, self.text()?),
            _ => return Err(format!("the property {kind:#04x}, which MQTT 5 does not have")),
        })
    }
}
