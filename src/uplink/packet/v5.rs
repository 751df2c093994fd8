//! MQTT 5: reading and CONNECT, written by hand.
//!
//! The codec of `rumqttc` serves as a reference in the tests, and only there: it takes a short answer (a CONNACK of
//! two bytes, as a broker of 3.1.1 sends it; an acknowledgement of three) for the beginning of one and waits for ever,
//! knows no reason code that its authors did not know, and lets properties come twice or run past their length.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use secrecy::{ExposeSecret, SecretString};

use crate::config::Qos;

use super::property::{self, Reader, Value};
use super::{Accepted, ConnectSettings, Incoming, Limits, Message, Reason, qos_bits, remaining_length};

/// Reads one whole packet: its first byte, and what comes after the length.
pub(super) fn read(first: u8, whole: &Bytes) -> Result<Incoming, String> {
    let mut body = Reader(whole);
    Ok(match first {
        0x20 => connack(body)?,
        0x30..=0x3f => publish(first, whole)?,
        0x40 => acknowledgement(body, "PUBACK").map(|(id, reason)| Incoming::PubAck(id, reason))?,
        0x50 => acknowledgement(body, "PUBREC").map(|(id, reason)| Incoming::PubRec(id, reason))?,
        0x62 => acknowledgement(body, "PUBREL").map(|(id, _)| Incoming::PubRel(id))?,
        0x70 => acknowledgement(body, "PUBCOMP").map(|(id, reason)| Incoming::PubComp(id, reason))?,
        0xd0 if body.is_empty() => Incoming::PingResp,
        0xd0 => return Err("a PINGRESP with something in it".to_owned()),
        0xe0 => Incoming::Disconnect(if body.is_empty() {
            Reason::SUCCESS
        } else {
            let code = body.byte()?;
            reason(body, code, "DISCONNECT")?
        }),
        0x00 => return Err("a packet that begins with 0x00".to_owned()),
        _ => Incoming::Unexpected,
    })
}

/// CONNACK (3.2).
fn connack(mut body: Reader<'_>) -> Result<Incoming, String> {
    let (flags, code) = (body.byte()?, body.byte()?);
    if flags > 1 {
        return Err(format!("a CONNACK with the flags {flags:#04x}"));
    }
    if body.is_empty() {
        // A broker that knows no later version answers in the form of its own, with return codes 1 to 5.
        return match code {
            0 => Err("a CONNACK as of MQTT 3.1.1: set `mqtt = \"3.1.1\"`".to_owned()),
            1 => Ok(Incoming::connack(Err(Reason::UNSUPPORTED_PROTOCOL_VERSION))),
            _ => Ok(Incoming::connack(Err(Reason::new(code)))),
        };
    }
    if code != 0 {
        return Ok(Incoming::connack(Err(reason(body, code, "CONNACK")?)));
    }
    let mut limits = Limits::default();
    body.properties("CONNACK", |kind, value| {
        let number = value.number();
        let known = |good: bool| if good { Ok(()) } else { Err(format!("a CONNACK with {number} for {kind:#04x}")) };
        match (kind, value) {
            (property::RECEIVE_MAXIMUM, _) => {
                known(number > 0)?;
                limits.receive_maximum = u16::try_from(number).unwrap_or(u16::MAX);
            }
            (property::MAXIMUM_PACKET_SIZE, _) => {
                known(number > 0)?;
                limits.max_packet = number;
            }
            (property::MAXIMUM_QOS, _) => {
                known(number < 2)?;
                limits.max_qos = if number == 0 { Qos::AtMostOnce } else { Qos::AtLeastOnce };
            }
            (property::RETAIN_AVAILABLE, _) => {
                known(number < 2)?;
                limits.retain = number == 1;
            }
            (property::TOPIC_ALIAS_MAXIMUM, _) => {
                limits.topic_aliases = u16::try_from(number).unwrap_or(u16::MAX);
            }
            (property::SERVER_KEEP_ALIVE, _) => limits.keep_alive = Some(Duration::from_secs(number.into())),
            (property::SESSION_EXPIRY_INTERVAL, _) => {
                limits.session_expiry = (number != NEVER).then(|| Duration::from_secs(number.into()));
            }
            (property::ASSIGNED_CLIENT_IDENTIFIER, Value::Text(id)) => {
                let id = super::reason::printable(id);
                return Err(format!("a CONNACK that assigns us the client identifier `{id}`, although we have one"));
            }
            _ => return Ok(is_of_answer(kind) || IGNORED_IN_CONNACK.contains(&kind)),
        }
        Ok(true)
    })?;
    end(body, "CONNACK")?;
    Ok(Incoming::connack(Ok(Accepted { session_present: flags == 1, limits })))
}

/// What a publisher has no use for.
const IGNORED_IN_CONNACK: [u8; 6] = [
    property::WILDCARD_SUBSCRIPTION_AVAILABLE,
    property::SUBSCRIPTION_IDENTIFIERS_AVAILABLE,
    property::SHARED_SUBSCRIPTION_AVAILABLE,
    property::RESPONSE_INFORMATION,
    property::AUTHENTICATION_METHOD,
    property::AUTHENTICATION_DATA,
];

fn is_of_answer(kind: u8) -> bool {
    matches!(kind, property::REASON_STRING | property::SERVER_REFERENCE | property::USER_PROPERTY)
}

/// A session that lasts until it is discarded (3.1.2.11.2).
const NEVER: u32 = u32::MAX;

/// A message (3.3).
fn publish(first: u8, whole: &Bytes) -> Result<Incoming, String> {
    let mut body = Reader(whole);
    let qos = match (first >> 1) & 3 {
        0 => Qos::AtMostOnce,
        1 => Qos::AtLeastOnce,
        2 => Qos::ExactlyOnce,
        _ => return Err("a PUBLISH with QoS 3".to_owned()),
    };
    let topic = body.text()?;
    let id = if qos == Qos::AtMostOnce { 0 } else { body.two()? };
    if id == 0 && qos != Qos::AtMostOnce {
        return Err("a PUBLISH with the packet id 0".to_owned());
    }
    let (mut time, mut correlation) = (None, None);
    body.properties("PUBLISH", |kind, value| {
        match (kind, value) {
            (property::TOPIC_ALIAS, _) => {
                return Err("a PUBLISH with a topic alias, which we never allowed".to_owned());
            }
            (property::CORRELATION_DATA, Value::Binary(data)) => correlation = Some(whole.slice_ref(data)),
            (property::USER_PROPERTY, Value::Pair("time", text)) => time = Some(text.to_owned()),
            (
                property::PAYLOAD_FORMAT_INDICATOR
                | property::MESSAGE_EXPIRY_INTERVAL
                | property::CONTENT_TYPE
                | property::RESPONSE_TOPIC
                | property::SUBSCRIPTION_IDENTIFIER
                | property::USER_PROPERTY,
                _,
            ) => {}
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    if topic.is_empty() {
        return Err("a PUBLISH without a topic".to_owned());
    }
    let (retain, topic, payload) = (first & 1 != 0, topic.to_owned(), whole.slice_ref(body.0));
    Ok(Incoming::Publish(Box::new(Message { qos, id, retain, topic, payload, time, correlation })))
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP (3.4 to 3.7): without a reason code they mean success.
fn acknowledgement(mut body: Reader<'_>, packet: &str) -> Result<(u16, Reason), String> {
    let id = body.two()?;
    if body.is_empty() {
        return Ok((id, Reason::SUCCESS));
    }
    let code = body.byte()?;
    Ok((id, reason(body, code, packet)?))
}

/// The properties that give a reason in words, which may be missing, and nothing after them.
fn reason(mut body: Reader<'_>, code: u8, packet: &str) -> Result<Reason, String> {
    if body.is_empty() {
        return Ok(Reason::new(code));
    }
    let (mut text, mut server, mut pairs) = (None, None, Vec::new());
    body.properties(packet, |kind, value| {
        match (kind, value) {
            (property::REASON_STRING, Value::Text(reason)) => text = Some(reason),
            (property::SERVER_REFERENCE, Value::Text(other)) if matches!(packet, "CONNACK" | "DISCONNECT") => {
                server = Some(other);
            }
            (property::USER_PROPERTY, Value::Pair(name, value)) => {
                if pairs.len() < MAX_PAIRS {
                    pairs.push((name, value));
                }
            }
            // A refusal may come with any of the properties of an acceptance.
            _ => return Ok(packet == "CONNACK" && kind != property::TOPIC_ALIAS),
        }
        Ok(true)
    })?;
    end(body, packet)?;
    Ok(Reason::with(code, text, server, &pairs))
}

/// So many user properties of an answer are looked at.
const MAX_PAIRS: usize = 8;

fn end(body: Reader<'_>, packet: &str) -> Result<(), String> {
    if body.is_empty() { Ok(()) } else { Err(format!("a {packet} with something after its end")) }
}

/// Appends CONNECT (3.1). The session never expires, as in MQTT 3.1.1, but for one that is to be forgotten. What is
/// not said is as we want it: no topic aliases for messages to us, reasons in words.
pub(super) fn put_connect(out: &mut BytesMut, settings: &ConnectSettings<'_>) {
    let mut flags = settings.will.map_or(0, |will| 0x04 | (qos_bits(will.qos) << 3) | (u8::from(will.retain) << 5));
    flags |= u8::from(settings.clean_session) << 1;
    flags |= u8::from(settings.username.is_some()) << 7;
    flags |= u8::from(settings.password.is_some()) << 6;
    let mut body = BytesMut::new();
    put_text(&mut body, "MQTT");
    body.put_slice(&[5, flags]);
    body.put_u16(settings.keep_alive_seconds());
    let expiry = if settings.clean_session { 0 } else { NEVER };
    body.put_u8(10);
    body.put_u8(property::SESSION_EXPIRY_INTERVAL);
    body.put_u32(expiry);
    body.put_u8(property::MAXIMUM_PACKET_SIZE);
    body.put_u32(settings.max_packet);
    put_text(&mut body, settings.client_id);
    if let Some(will) = settings.will {
        // No properties: it is published at once.
        body.put_u8(0);
        put_text(&mut body, will.topic);
        put_binary(&mut body, will.payload);
    }
    if let Some(user) = settings.username {
        put_text(&mut body, user.name());
    }
    if let Some(password) = settings.password {
        put_text(&mut body, SecretString::expose_secret(password));
    }
    let (length, digits) = remaining_length(body.len());
    out.put_u8(0x10);
    out.put_slice(&length[..digits]);
    out.put_slice(&body);
}

/// A text that was checked to be no longer than 65535 bytes.
fn put_text(out: &mut BytesMut, text: &str) {
    put_binary(out, text.as_bytes());
}

/// Bytes that were checked to be no more than 65535.
fn put_binary(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u16(u16::try_from(bytes.len()).unwrap_or(u16::MAX));
    out.put_slice(bytes);
}
