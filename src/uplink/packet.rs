//! MQTT 3.1.1 packets: what the session reads and writes.
//!
//! Reading goes through the codec of `rumqttc` into a small enum of ours, which is the seam for other protocol
//! versions. PUBLISH, which is nearly everything that is sent, is written straight into the output buffer: the
//! codec's own type wants a `String` and a `Bytes` of its own for every message
//! (`docs/decisions/0002-mqtt-codec.md` has the measurement).

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use rumqttc::mqttbytes::v4::{Connect, LastWill, Login, Packet};
use rumqttc::mqttbytes::{self, QoS, check};
use secrecy::{ExposeSecret, SecretString};

use crate::config::Qos;

/// The largest remaining length that the format can express (MQTT 3.1.1, 2.2.3).
const MAX_REMAINING: usize = 268_435_455;

/// A packet from the broker, as far as it matters to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// The answer to CONNECT.
    ConnAck {
        /// Does the broker still have our session?
        session_present: bool,
        /// Accepted, or why not.
        verdict: Verdict,
    },
    /// A message; we subscribe to nothing, but a session of an earlier program may.
    Publish {
        /// Its quality of service decides how it is acknowledged.
        qos: Qos,
        /// Packet id; 0 at QoS 0.
        id: u16,
    },
    /// QoS 1: the broker has taken the message.
    PubAck(u16),
    /// QoS 2, first step: the broker has stored the message.
    PubRec(u16),
    /// QoS 2 of a message to us.
    PubRel(u16),
    /// QoS 2, last step: the broker has released the message.
    PubComp(u16),
    /// The answer to PINGREQ.
    PingResp,
    /// A packet that only a client may send, or an answer to something that we never asked.
    Unexpected,
}

/// CONNACK's return code (MQTT 3.1.1, 3.2.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// 0
    Accepted,
    /// 1
    ProtocolVersion,
    /// 2
    IdentifierRejected,
    /// 3
    ServerUnavailable,
    /// 4
    BadCredentials,
    /// 5
    NotAuthorised,
    /// A code that the specification reserves.
    Reserved(u8),
}

impl Verdict {
    fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Accepted,
            1 => Self::ProtocolVersion,
            2 => Self::IdentifierRejected,
            3 => Self::ServerUnavailable,
            4 => Self::BadCredentials,
            5 => Self::NotAuthorised,
            other => Self::Reserved(other),
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
    /// Not MQTT 3.1.1.
    #[error("the broker sent something that is not MQTT 3.1.1 ({0})")]
    NotMqtt(String),
}

/// Takes the next whole packet from the buffer; `None` when more bytes are needed, for which room is then reserved.
///
/// # Errors
/// The bytes are no packet, or one that is larger than `max`. The connection is of no more use then.
pub fn read(buffer: &mut BytesMut, max: u32) -> Result<Option<Incoming>, Malformed> {
    // Acknowledgements are nearly everything that comes; they have a fixed form of four bytes.
    if let &[kind @ (0x40 | 0x50 | 0x62 | 0x70), 2, high, low, ..] = buffer.as_ref() {
        let id = u16::from_be_bytes([high, low]);
        bytes::Buf::advance(buffer, 4);
        return Ok(Some(match kind {
            0x40 => Incoming::PubAck(id),
            0x50 => Incoming::PubRec(id),
            0x62 => Incoming::PubRel(id),
            _ => Incoming::PubComp(id),
        }));
    }
    // Flags that no broker may set tell at once that this is something else, such as HTTP (MQTT 3.1.1, 2.2.2).
    if let Some(first) = buffer.first()
        && !matches!(first, 0x30..=0x3f | 0x62)
        && first & 0x0f != 0
    {
        return Err(Malformed::NotMqtt(format!("a packet that begins with {first:#04x}")));
    }
    let limit = usize::try_from(max).unwrap_or(usize::MAX);
    match check(buffer.iter(), limit) {
        Ok(_) => {}
        Err(mqttbytes::Error::InsufficientBytes(missing)) => {
            // `check` compared the announced size with the limit first, so that this is bounded by it.
            buffer.reserve(missing);
            return Ok(None);
        }
        Err(mqttbytes::Error::PayloadSizeLimitExceeded(size)) => return Err(Malformed::TooLarge { size, max }),
        Err(error) => return Err(Malformed::NotMqtt(error.to_string())),
    }
    match Packet::read(buffer, limit) {
        Ok(packet) => Ok(Some(incoming(&packet))),
        Err(mqttbytes::Error::InvalidConnectReturnCode(code)) => {
            Ok(Some(Incoming::ConnAck { session_present: false, verdict: Verdict::from_code(code) }))
        }
        Err(error) => Err(Malformed::NotMqtt(error.to_string())),
    }
}

fn incoming(packet: &Packet) -> Incoming {
    match packet {
        Packet::ConnAck(answer) => Incoming::ConnAck {
            session_present: answer.session_present,
            verdict: Verdict::from_code(answer.code as u8),
        },
        Packet::Publish(message) => Incoming::Publish {
            qos: match message.qos {
                QoS::AtMostOnce => Qos::AtMostOnce,
                QoS::AtLeastOnce => Qos::AtLeastOnce,
                QoS::ExactlyOnce => Qos::ExactlyOnce,
            },
            id: message.pkid,
        },
        Packet::PubAck(ack) => Incoming::PubAck(ack.pkid),
        Packet::PubRec(ack) => Incoming::PubRec(ack.pkid),
        Packet::PubRel(ack) => Incoming::PubRel(ack.pkid),
        Packet::PubComp(ack) => Incoming::PubComp(ack.pkid),
        Packet::PingResp => Incoming::PingResp,
        Packet::Connect(_)
        | Packet::Subscribe(_)
        | Packet::SubAck(_)
        | Packet::Unsubscribe(_)
        | Packet::UnsubAck(_)
        | Packet::PingReq
        | Packet::Disconnect => Incoming::Unexpected,
    }
}

/// What stands before a message's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// Topic, at most [`MAX_BYTES`](crate::topic::MAX_BYTES) long.
    pub topic: &'a str,
    /// Quality of service.
    pub qos: Qos,
    /// Shall the broker keep it for later subscribers?
    pub retain: bool,
    /// Was it perhaps sent before, under the same packet id?
    pub dup: bool,
    /// Packet id; not written at QoS 0.
    pub id: u16,
}

/// A message does not fit into the largest packet that may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of {size} bytes is larger than `max_packet` ({max})")]
pub struct TooLarge {
    /// The packet's size, or the topic's where that alone is too long.
    pub size: usize,
    /// The limit.
    pub max: u32,
}

/// Appends a PUBLISH whose payload `payload` appends.
///
/// # Errors
/// It is larger than `max`; the buffer is then as it was.
pub fn put_publish(
    out: &mut BytesMut,
    head: &Head<'_>,
    max: u32,
    payload: impl FnOnce(&mut BytesMut),
) -> Result<(), TooLarge> {
    // The remaining length comes before the payload whose length is not known yet. Nearly always it takes two
    // bytes (128 to 16383); where it does not, what follows is moved.
    const GUESS: usize = 2;
    let start = out.len();
    let Ok(topic_length) = u16::try_from(head.topic.len()) else {
        return Err(TooLarge { size: head.topic.len(), max });
    };
    out.put_u8(0x30 | (u8::from(head.dup) << 3) | (qos_bits(head.qos) << 1) | u8::from(head.retain));
    out.put_bytes(0, GUESS);
    out.put_u16(topic_length);
    out.put_slice(head.topic.as_bytes());
    if head.qos != Qos::AtMostOnce {
        out.put_u16(head.id);
    }
    payload(out);

    let body = start + 1 + GUESS;
    let remaining = out.len() - body;
    let (length, digits) = remaining_length(remaining);
    let size = 1 + digits + remaining;
    if remaining > MAX_REMAINING || size > usize::try_from(max).unwrap_or(usize::MAX) {
        out.truncate(start);
        return Err(TooLarge { size, max });
    }
    if digits != GUESS {
        out.resize(out.len().max(start + size), 0);
        out.copy_within(body..body + remaining, start + 1 + digits);
        out.truncate(start + size);
    }
    out[start + 1..start + 1 + digits].copy_from_slice(&length[..digits]);
    Ok(())
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

/// Appends DISCONNECT: the broker then discards the will.
pub fn put_disconnect(out: &mut BytesMut) {
    out.put_slice(&[0xe0, 0]);
}

/// What CONNECT says.
#[derive(Debug)]
pub struct ConnectSettings<'a> {
    /// Client identifier.
    pub client_id: &'a str,
    /// User name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a SecretString>,
    /// Sent as whole seconds, 0 to 65535.
    pub keep_alive: Duration,
    /// Shall the broker forget the session that it has?
    pub clean_session: bool,
    /// Topic and payload of the retained will.
    pub will: (&'a str, &'a str),
}

/// Appends CONNECT.
///
/// # Errors
/// A field is longer than the format allows (65535 bytes), or there is a password without a user name, which
/// MQTT 3.1.1 forbids (3.1.2.9).
pub fn put_connect(out: &mut BytesMut, settings: &ConnectSettings<'_>) -> Result<(), String> {
    let username = settings.username.unwrap_or_default();
    let password = settings.password.map(SecretString::expose_secret).unwrap_or_default();
    let (will_topic, will_payload) = settings.will;
    for (what, length) in [
        ("`client_id`", settings.client_id.len()),
        ("`username`", username.len()),
        ("`password`", password.len()),
        ("the will's topic", will_topic.len()),
    ] {
        if length > usize::from(u16::MAX) {
            return Err(format!("{what} is longer than 65535 bytes, the most that MQTT can carry"));
        }
    }
    if username.is_empty() && !password.is_empty() {
        return Err("a password without a user name cannot be sent in MQTT 3.1.1: set `username`".to_owned());
    }
    let mut connect = Connect::new(settings.client_id);
    connect.keep_alive = u16::try_from(settings.keep_alive.as_secs()).unwrap_or(u16::MAX);
    connect.clean_session = settings.clean_session;
    connect.last_will = Some(LastWill::new(will_topic, will_payload, QoS::AtLeastOnce, true));
    connect.login = Some(Login::new(username, password));
    connect.write(out).map_err(|error| error.to_string())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rumqttc::mqttbytes::v4::Publish;

    use super::*;

    fn head(topic: &str, qos: Qos) -> Head<'_> {
        Head { topic, qos, retain: true, dup: false, id: 4711 }
    }

    proptest! {
        /// The codec's own encoder is the reference, over every length of the length field.
        #[test]
        fn publish_is_written_as_the_codec_writes_it(
            topic in "[a-z]{1,12}(/[a-z]{1,12}){0,2}", size in prop_oneof![0..200_usize, 16_300..16_500_usize],
            level in 0..3_u8, retain: bool, dup: bool, before in 0..5_usize,
        ) {
            let (qos, reference_qos) = match level {
                0 => (Qos::AtMostOnce, QoS::AtMostOnce),
                1 => (Qos::AtLeastOnce, QoS::AtLeastOnce),
                _ => (Qos::ExactlyOnce, QoS::ExactlyOnce),
            };
            let payload = vec![b'x'; size];
            let mut reference = Publish::new(topic.as_str(), reference_qos, payload.clone());
            (reference.retain, reference.dup, reference.pkid) = (retain, dup, 4711);
            let mut expected = BytesMut::from(vec![9; before].as_slice());
            reference.write(&mut expected).expect("a packet");
            let mut out = BytesMut::from(vec![9; before].as_slice());
            let head = Head { topic: &topic, qos, retain, dup, id: 4711 };
            put_publish(&mut out, &head, 1_000_000, |out| out.put_slice(&payload)).expect("small enough");
            prop_assert_eq!(out, expected);
        }

        #[test]
        fn no_bytes_whatsoever_panic_the_reader(bytes: Vec<u8>, max in 0..2_000_u32) {
            let mut buffer = BytesMut::from(bytes.as_slice());
            while let Ok(Some(_)) = read(&mut buffer, max) {}
            prop_assert!(buffer.capacity() <= bytes.len() + max as usize + 1_024);
        }

        /// Packets that begin well and go wrong further in.
        #[test]
        fn no_packet_type_panics_the_reader(kind: u8, body in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut buffer = BytesMut::from([kind, u8::try_from(body.len()).expect("short")].as_slice());
            buffer.put_slice(&body);
            let _ = read(&mut buffer, 1_000);
        }
    }

    #[test]
    fn what_does_not_fit_leaves_the_buffer_alone() {
        let mut out = BytesMut::from("before".as_bytes());
        let refused = put_publish(&mut out, &head("a/b", Qos::AtLeastOnce), 64, |out| out.put_bytes(b'x', 100));
        assert_eq!(refused, Err(TooLarge { size: 109, max: 64 }));
        assert_eq!(out, "before".as_bytes());
        let long = "t".repeat(70_000);
        assert!(put_publish(&mut out, &head(&long, Qos::AtLeastOnce), 1_000_000, |_| {}).is_err());
        assert_eq!(out, "before".as_bytes());
    }

    #[test]
    fn an_announced_size_is_refused_before_anything_is_reserved() {
        let mut buffer = BytesMut::from([0x30, 0xff, 0xff, 0xff, 0x7f].as_slice());
        assert_eq!(read(&mut buffer, 1_000), Err(Malformed::TooLarge { size: 268_435_455, max: 1_000 }));
        assert!(buffer.capacity() < 1_024);
    }

    #[test]
    fn packets_come_one_byte_at_a_time() {
        let whole = [0x20, 2, 1, 0, 0x40, 2, 0, 7, 0xd0, 0];
        let mut buffer = BytesMut::new();
        let mut seen = Vec::new();
        for byte in whole {
            buffer.put_u8(byte);
            while let Some(packet) = read(&mut buffer, 100).expect("MQTT") {
                seen.push(packet);
            }
        }
        let accepted = Incoming::ConnAck { session_present: true, verdict: Verdict::Accepted };
        assert_eq!(seen, [accepted, Incoming::PubAck(7), Incoming::PingResp]);
    }

    #[test]
    fn every_return_code_has_its_meaning() {
        for (code, verdict) in [(1, Verdict::ProtocolVersion), (5, Verdict::NotAuthorised), (77, Verdict::Reserved(77))]
        {
            let mut buffer = BytesMut::from([0x20, 2, 0, code].as_slice());
            let packet = read(&mut buffer, 100).expect("MQTT");
            assert_eq!(packet, Some(Incoming::ConnAck { session_present: false, verdict }));
        }
    }

    #[test]
    fn connect_refuses_what_the_format_cannot_carry() {
        let secret = SecretString::from("secret".to_owned());
        let settings = ConnectSettings {
            client_id: "vigie",
            username: None,
            password: Some(&secret),
            keep_alive: Duration::from_secs(30),
            clean_session: false,
            will: ("a/availability", "{}"),
        };
        assert!(put_connect(&mut BytesMut::new(), &settings).is_err_and(|why| why.contains("username")));
        let long = "x".repeat(70_000);
        let settings = ConnectSettings { client_id: &long, password: None, ..settings };
        assert!(put_connect(&mut BytesMut::new(), &settings).is_err_and(|why| why.contains("client_id")));
    }
}
