//! MQTT packets, as far as a publisher needs them.
//!
//! What comes is read into a small enum, which is the same for both versions of MQTT. PUBLISH, which is nearly
//! everything that is sent, is written straight into the output buffer (`docs/decisions/0002-mqtt-codec.md` has the
//! measurement).

use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use secrecy::{ExposeSecret, SecretString};

use crate::config::{MqttVersion, Qos};

pub use publish::{Alias, Form, Head, TooLarge, put_publish};
pub use reason::Reason;
pub use subscribe::{Message, Retained, Wanted, put_subscribe, put_unsubscribe};

mod property;
mod publish;
pub mod reason;
mod subscribe;
#[cfg(test)]
mod tests;
mod v4;
mod v5;

/// The largest remaining length that the format can express (MQTT 3.1.1, 2.2.3; MQTT 5, 1.5.5).
const MAX_REMAINING: usize = 268_435_455;

/// A packet from the broker, as far as it matters to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The answer to CONNECT: accepted, or why not.
    ConnAck(Box<Result<Accepted, Reason>>),
    /// A message to us: a command, or of a subscription that an earlier program made.
    Publish(Box<Message>),
    /// The answer to SUBSCRIBE: packet id, and a reason code for each topic.
    SubAck(u16, Vec<u8>),
    /// The answer to UNSUBSCRIBE.
    UnsubAck(u16),
    /// QoS 1: the broker has taken the message, or refuses it.
    PubAck(u16, Reason),
    /// QoS 2, first step: the broker has stored the message, or refuses it.
    PubRec(u16, Reason),
    /// QoS 2 of a message to us.
    PubRel(u16),
    /// QoS 2, last step: the broker has released the message.
    PubComp(u16, Reason),
    /// The answer to PINGREQ.
    PingResp,
    /// The broker ends the connection and says why; MQTT 5 only.
    Disconnect(Reason),
    /// A packet that only a client may send, or an answer to something that we never asked.
    Unexpected,
}

impl Incoming {
    fn connack(answer: Result<Accepted, Reason>) -> Self {
        Self::ConnAck(Box::new(answer))
    }
}

/// The broker has accepted the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Does the broker still have our session?
    pub session_present: bool,
    /// What it wants to be observed.
    pub limits: Limits,
}

/// What a broker takes on this connection (MQTT 5, 3.2.2.3). Where it says nothing, and in MQTT 3.1.1, where it cannot,
/// the default holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// So many messages at QoS 1 and 2 may wait for their acknowledgement, 1 to 65535 (Receive Maximum).
    pub receive_maximum: u16,
    /// Largest packet that it takes, in bytes.
    pub max_packet: u32,
    /// Highest quality of service of a message.
    pub max_qos: Qos,
    /// Does it keep retained messages?
    pub retain: bool,
    /// So many topics may have an alias.
    pub topic_aliases: u16,
    /// The keep-alive to observe instead of ours; zero: none.
    pub keep_alive: Option<Duration>,
    /// How long it keeps the session after the connection is lost; `None`: as long as we asked, which is for ever.
    pub session_expiry: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            receive_maximum: u16::MAX,
            max_packet: u32::MAX,
            max_qos: Qos::ExactlyOnce,
            retain: true,
            topic_aliases: 0,
            keep_alive: None,
            session_expiry: None,
        }
    }
}

/// What came is not MQTT, or more than we accept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The packet says that it is larger than we accept; nothing was reserved for it.
    #[error("the broker announced a packet of {size} bytes, the limit `max_packet` is {max}")]
    TooLarge {
        /// Its remaining length.
        size: usize,
        /// The limit.
        max: u32,
    },
    /// Not MQTT, or not as its specification wants it.
    #[error("the broker sent something that is not MQTT ({0})")]
    NotMqtt(String),
}

/// Takes the next whole packet from the buffer; `None` when more bytes are needed, for which room is then reserved.
///
/// # Errors
/// The bytes are no packet, or one that is larger than `max`. The connection is of no more use then.
pub fn read(buffer: &mut BytesMut, version: MqttVersion, max: u32) -> Result<Option<Incoming>, Malformed> {
    // Acknowledgements are nearly everything that comes; without a reason they have a fixed form of four bytes.
    if let &[kind @ (0x40 | 0x50 | 0x62 | 0x70), 2, high, low, ..] = buffer.as_ref() {
        let id = u16::from_be_bytes([high, low]);
        buffer.advance(4);
        return Ok(Some(match kind {
            0x40 => Incoming::PubAck(id, Reason::SUCCESS),
            0x50 => Incoming::PubRec(id, Reason::SUCCESS),
            0x62 => Incoming::PubRel(id),
            _ => Incoming::PubComp(id, Reason::SUCCESS),
        }));
    }
    let Some((first, header, remaining)) = fixed_header(buffer)? else { return Ok(None) };
    if remaining > usize::try_from(max).unwrap_or(usize::MAX) {
        return Err(Malformed::TooLarge { size: remaining, max });
    }
    let missing = (header + remaining).saturating_sub(buffer.len());
    if missing > 0 {
        // The announced size was compared with the limit before, so that this is bounded by it.
        buffer.reserve(missing);
        return Ok(None);
    }
    let packet = buffer.split_to(header + remaining);
    let read = match (first, version) {
        (0x90, _) => subscribe::suback(version, &packet[header..]),
        (0xb0, _) => subscribe::unsuback(&packet[header..]),
        (_, MqttVersion::V311) => v4::read(packet),
        (_, MqttVersion::V5) => v5::read(first, &packet.freeze().slice(header..)),
    };
    read.map(Some).map_err(Malformed::NotMqtt)
}

/// Is the next packet a message that nobody waits to have acknowledged?
#[must_use]
pub fn is_at_qos_0(buffer: &BytesMut) -> bool {
    buffer.first().is_some_and(|first| first & 0xf6 == 0x30)
}

/// The size of the next packet, as far as it says one.
#[must_use]
pub fn announced(buffer: &BytesMut) -> usize {
    fixed_header(buffer).ok().flatten().map_or(0, |(_, header, remaining)| header + remaining)
}

/// The first byte of the next packet, the size of the fixed header, and how much comes after it; `None` when that is
/// not known yet.
fn fixed_header(buffer: &BytesMut) -> Result<Option<(u8, usize, usize)>, Malformed> {
    let Some((&first, rest)) = buffer.split_first() else { return Ok(None) };
    // Flags that no broker may set tell at once that this is something else, such as HTTP (MQTT 3.1.1, 2.2.2).
    if !matches!(first, 0x30..=0x3f | 0x62) && first & 0x0f != 0 {
        return Err(Malformed::NotMqtt(format!("a packet that begins with {first:#04x}")));
    }
    let mut remaining = 0;
    for (index, byte) in rest.iter().take(4).enumerate() {
        remaining |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((first, index + 2, remaining)));
        }
    }
    if rest.len() < 4 { Ok(None) } else { Err(Malformed::NotMqtt("a length of more than four bytes".to_owned())) }
}

/// The variable length encoding (MQTT 3.1.1, 2.2.3) and how many bytes of it count.
fn remaining_length(mut length: usize) -> ([u8; 4], usize) {
    let mut bytes = [0; 4];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::try_from(length % 128).expect("below 128");
        length /= 128;
        if length == 0 {
            return (bytes, index + 1);
        }
        *byte |= 128;
    }
    (bytes, 4)
}

fn qos_bits(qos: Qos) -> u8 {
    match qos {
        Qos::AtMostOnce => 0,
        Qos::AtLeastOnce => 1,
        Qos::ExactlyOnce => 2,
    }
}

/// Appends PUBREL, which lets the broker release a message that it has stored.
pub fn put_pubrel(out: &mut BytesMut, id: u16) {
    put_ack(out, 0x62, id);
}

/// Appends PUBACK for a message to us.
pub fn put_puback(out: &mut BytesMut, id: u16) {
    put_ack(out, 0x40, id);
}

/// Appends PUBREC for a message to us.
pub fn put_pubrec(out: &mut BytesMut, id: u16) {
    put_ack(out, 0x50, id);
}

/// Appends PUBCOMP for a message to us.
pub fn put_pubcomp(out: &mut BytesMut, id: u16) {
    put_ack(out, 0x70, id);
}

fn put_ack(out: &mut BytesMut, kind: u8, id: u16) {
    out.put_slice(&[kind, 2]);
    out.put_u16(id);
}

/// Appends PINGREQ.
pub fn put_pingreq(out: &mut BytesMut) {
    out.put_slice(&[0xc0, 0]);
}

/// Appends DISCONNECT: the broker then discards the will. In MQTT 5 it is the short form of the reason 0x00.
pub fn put_disconnect(out: &mut BytesMut) {
    out.put_slice(&[0xe0, 0]);
}

/// Appends a DISCONNECT of MQTT 5 that says what is wrong; the broker publishes the will.
pub fn put_disconnect_because(out: &mut BytesMut, reason: &Reason) {
    out.put_slice(&[0xe0, 1, reason.code()]);
}

/// What the broker publishes for us when the connection is lost.
#[derive(Clone, Copy, Debug)]
pub struct Will<'a> {
    /// Where.
    pub topic: &'a str,
    /// What.
    pub payload: &'a [u8],
    /// Quality of service.
    pub qos: Qos,
    /// Shall the broker keep it?
    pub retain: bool,
}

/// A user name.
#[derive(Clone, Copy, Debug)]
pub enum UserName<'a> {
    /// It may be shown.
    Known(&'a str),
    /// It may not.
    Secret(&'a SecretString),
}

impl<'a> UserName<'a> {
    /// As the broker is to get it.
    #[must_use]
    pub fn name(self) -> &'a str {
        match self {
            Self::Known(name) => name,
            Self::Secret(name) => name.expose_secret(),
        }
    }

    /// As people may see it.
    #[must_use]
    pub fn shown(self) -> &'a str {
        match self {
            Self::Known(name) => name,
            Self::Secret(_) => "(secret)",
        }
    }
}

/// What CONNECT says.
#[derive(Debug)]
pub struct ConnectSettings<'a> {
    /// Version of MQTT.
    pub version: MqttVersion,
    /// Client identifier.
    pub client_id: &'a str,
    /// User name.
    pub username: Option<UserName<'a>>,
    /// Password.
    pub password: Option<&'a SecretString>,
    /// Sent as whole seconds, 0 to 65535.
    pub keep_alive: Duration,
    /// Shall the broker forget the session that it has, and this one when the connection ends?
    pub clean_session: bool,
    /// Largest packet that is accepted, in bytes; the broker is told in MQTT 5.
    pub max_packet: u32,
    /// The will, where there is one.
    pub will: Option<Will<'a>>,
}

impl ConnectSettings<'_> {
    fn keep_alive_seconds(&self) -> u16 {
        u16::try_from(self.keep_alive.as_secs()).unwrap_or(u16::MAX)
    }
}

/// Appends CONNECT.
///
/// # Errors
/// A field is longer than the format allows (65535 bytes), or there is a password without a user name, which
/// MQTT 3.1.1 forbids (3.1.2.9).
pub fn put_connect(out: &mut BytesMut, settings: &ConnectSettings<'_>) -> Result<(), String> {
    for (what, length) in [
        ("`client_id`", settings.client_id.len()),
        ("`username`", settings.username.map_or(0, |user| user.name().len())),
        ("`password`", settings.password.map_or(0, |password| password.expose_secret().len())),
        ("the will's topic", settings.will.map_or(0, |will| will.topic.len())),
        ("the will", settings.will.map_or(0, |will| will.payload.len())),
    ] {
        if length > usize::from(u16::MAX) {
            return Err(format!("{what} is longer than 65535 bytes, the most that MQTT can carry"));
        }
    }
    match settings.version {
        MqttVersion::V311 => v4::put_connect(out, settings),
        MqttVersion::V5 => {
            v5::put_connect(out, settings);
            Ok(())
        }
    }
}
