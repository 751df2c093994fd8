//! Writing PUBLISH, which is nearly everything that is sent, straight into the output buffer.

use std::fmt::Write;

use bytes::{BufMut, BytesMut};

use crate::config::Qos;
use crate::outbox::Seq;
use crate::reading::MAX_CONTENT_TYPE;

use super::{MAX_REMAINING, property, qos_bits, remaining_length};

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
    /// Run and position of the reading, the `id` of its payload; with MQTT 5 the user property `id`.
    pub reading: Option<(u32, Seq)>,
    /// With MQTT 5, after so many seconds the broker shall no longer deliver it (Message Expiry Interval, 3.3.2.3.3).
    pub expiry: Option<u32>,
    /// With MQTT 5, what the payload is (Content Type, 3.3.2.3.9); at most
    /// [`MAX_CONTENT_TYPE`] bytes.
    pub content_type: Option<&'a str>,
    /// With MQTT 5, a checksum of the payload: the name and the value of a user property, at most 75 bytes
    /// together.
    pub integrity: Option<(&'a str, &'a str)>,
}

/// Bytes of a checksum and its name: those of HMAC-SHA256 in hexadecimal.
const MAX_INTEGRITY: usize = 75;

/// How the head is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5, perhaps with an alias for the topic.
    V5(Option<Alias>),
}

/// A number that stands for a topic on one connection (MQTT 5, 3.3.2.3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias {
    /// From 1 to what the broker allows.
    pub number: u16,
    /// Was the topic sent with it before, so that it can be left out?
    pub known: bool,
}

/// A message does not fit into the largest packet that may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of {size} bytes is larger than the largest packet that may be sent ({max})")]
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
    form: Form,
    max: u32,
    payload: impl FnOnce(&mut BytesMut),
) -> Result<(), TooLarge> {
    // The remaining length comes before the payload whose length is not known yet. Nearly always it takes two
    // bytes (128 to 16383); where it does not, what follows is moved.
    const GUESS: usize = 2;
    let start = out.len();
    let topic = match form {
        Form::V5(Some(Alias { known: true, .. })) => "",
        Form::V5(_) | Form::V311 => head.topic,
    };
    let Ok(topic_length) = u16::try_from(topic.len()) else {
        return Err(TooLarge { size: topic.len(), max });
    };
    out.put_u8(0x30 | (u8::from(head.dup) << 3) | (qos_bits(head.qos) << 1) | u8::from(head.retain));
    out.put_bytes(0, GUESS);
    out.put_u16(topic_length);
    out.put_slice(topic.as_bytes());
    if head.qos != Qos::AtMostOnce {
        out.put_u16(head.id);
    }
    if let Form::V5(alias) = form {
        put_properties(out, head, alias);
    }
    payload(out);

    let body = start + 1 + GUESS;
    let remaining = out.len() - body;
    let (length, digits) = remaining_length(remaining);
    let size = 1 + digits + remaining;
    // A message that is sent again on another connection has its whole topic, and must fit then too.
    let left_out = head.topic.len() - topic.len();
    if remaining > MAX_REMAINING || size + left_out > usize::try_from(max).unwrap_or(usize::MAX) {
        out.truncate(start);
        return Err(TooLarge { size: size + left_out, max });
    }
    if digits != GUESS {
        out.resize(out.len().max(start + size), 0);
        out.copy_within(body..body + remaining, start + 1 + digits);
        out.truncate(start + size);
    }
    out[start + 1..start + 1 + digits].copy_from_slice(&length[..digits]);
    Ok(())
}

/// The properties of a PUBLISH (MQTT 5, 3.3.2.3). They take at most 46 bytes without a content type and 127 with one, so
/// that their length takes one byte; with a checksum it may take two.
fn put_properties(out: &mut BytesMut, head: &Head<'_>, alias: Option<Alias>) {
    let start = out.len();
    out.put_u8(0);
    if let Some(seconds) = head.expiry {
        out.put_u8(property::MESSAGE_EXPIRY_INTERVAL);
        out.put_u32(seconds);
    }
    if let Some(alias) = alias {
        out.put_u8(property::TOPIC_ALIAS);
        out.put_u16(alias.number);
    }
    if let Some((run, seq)) = head.reading {
        out.put_slice(&[property::USER_PROPERTY, 0, 2, b'i', b'd', 0, 0]);
        let text = out.len();
        // Writing to a buffer that grows cannot fail.
        let _ = write!(out, "{run}-{seq}");
        out[text - 1] = short(out.len() - text);
    }
    if let Some(text) = head.content_type.filter(|text| text.len() <= MAX_CONTENT_TYPE) {
        out.put_slice(&[property::CONTENT_TYPE, 0, short(text.len())]);
        out.put_slice(text.as_bytes());
    }
    if let Some((name, sum)) = head.integrity.filter(|(name, sum)| name.len() + sum.len() <= MAX_INTEGRITY) {
        out.put_slice(&[property::USER_PROPERTY, 0, short(name.len())]);
        out.put_slice(name.as_bytes());
        out.put_slice(&[0, short(sum.len())]);
        out.put_slice(sum.as_bytes());
    }
    let taken = out.len() - start - 1;
    let (length, digits) = remaining_length(taken);
    for _ in 1..digits {
        out.put_u8(0);
    }
    out.copy_within(start + 1..start + 1 + taken, start + digits);
    out[start..start + digits].copy_from_slice(&length[..digits]);
}

fn short(length: usize) -> u8 {
    u8::try_from(length).expect("two numbers have at most 30 digits, and all texts are kept below 128 bytes")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rumqttc::mqttbytes::{QoS, v4};
    use rumqttc::v5::mqttbytes::{QoS as QoS5, v5};

    use super::*;

    fn head(topic: &str, qos: Qos) -> Head<'_> {
        Head {
            topic,
            qos,
            retain: true,
            dup: false,
            id: 4711,
            reading: None,
            expiry: None,
            content_type: None,
            integrity: None,
        }
    }

    fn level(level: u8) -> (Qos, QoS, QoS5) {
        match level {
            0 => (Qos::AtMostOnce, QoS::AtMostOnce, QoS5::AtMostOnce),
            1 => (Qos::AtLeastOnce, QoS::AtLeastOnce, QoS5::AtLeastOnce),
            _ => (Qos::ExactlyOnce, QoS::ExactlyOnce, QoS5::ExactlyOnce),
        }
    }

    proptest! {
        /// The codec's own encoder is the reference, over every length of the length field.
        #[test]
        fn publish_is_written_as_the_codec_writes_it(
            topic in "[a-z]{1,12}(/[a-z]{1,12}){0,2}", size in prop_oneof![0..200_usize, 16_300..16_500_usize],
            qos in 0..3_u8, retain: bool, dup: bool, before in 0..5_usize,
        ) {
            let (qos, reference_qos, _) = level(qos);
            let payload = vec![b'x'; size];
            let mut reference = v4::Publish::new(topic.as_str(), reference_qos, payload.clone());
            (reference.retain, reference.dup, reference.pkid) = (retain, dup, 4711);
            let mut expected = BytesMut::from(vec![9; before].as_slice());
            reference.write(&mut expected).expect("a packet");
            let mut out = BytesMut::from(vec![9; before].as_slice());
            let head = Head { retain, dup, reading: Some((1, 2)), expiry: Some(3), ..head(&topic, qos) };
            put_publish(&mut out, &head, Form::V311, 1_000_000, |out| out.put_slice(&payload)).expect("small enough");
            prop_assert_eq!(out, expected);
        }

        /// The same for MQTT 5.
        #[test]
        fn publish_with_properties_is_read_by_the_codec(
            topic in "[a-z]{1,12}(/[a-z]{1,12}){0,2}", size in prop_oneof![0..200_usize, 16_300..16_500_usize],
            qos in 0..3_u8, retain: bool, dup: bool, reading: Option<(u32, u64)>, expiry: Option<u32>,
            alias: Option<(u16, bool)>, content_type in prop::option::of("[a-z]{1,17}/[a-z]{1,60}"),
            integrity in prop::option::of(("[a-z]{1,11}", "[0-9a-f]{1,64}")),
        ) {
            let (qos, _, reference_qos) = level(qos);
            let payload = vec![b'x'; size];
            let alias = alias.map(|(number, known)| Alias { number, known });
            let mut out = BytesMut::new();
            let sum = integrity.as_ref().map(|(name, sum)| (&**name, &**sum));
            let content = content_type.as_deref();
            let head =
                Head { retain, dup, reading, expiry, content_type: content, integrity: sum, ..head(&topic, qos) };
            put_publish(&mut out, &head, Form::V5(alias), 1_000_000, |out| out.put_slice(&payload)).expect("small");
            let sent = if alias.is_some_and(|alias| alias.known) { "" } else { topic.as_str() };
            let id = reading.map(|(run, seq)| ("id".to_owned(), format!("{run}-{seq}")));
            let properties = v5::PublishProperties {
                message_expiry_interval: expiry,
                topic_alias: alias.map(|alias| alias.number),
                content_type,
                user_properties: id.into_iter().chain(integrity.clone()).collect(),
                ..v5::PublishProperties::default()
            };
            let properties = (properties != v5::PublishProperties::default()).then_some(properties);
            let mut reference = v5::Publish::new(sent, reference_qos, payload, properties);
            (reference.retain, reference.dup) = (retain, dup);
            if qos != Qos::AtMostOnce {
                reference.pkid = 4711;
            }
            let read = v5::Packet::read(&mut out, None).expect("a packet");
            prop_assert_eq!(read, v5::Packet::Publish(reference));
            prop_assert!(out.is_empty());
        }
    }

    #[test]
    fn what_does_not_fit_leaves_the_buffer_alone() {
        let mut out = BytesMut::from("before".as_bytes());
        let put = |out: &mut BytesMut| out.put_bytes(b'x', 100);
        let refused = put_publish(&mut out, &head("a/b", Qos::AtLeastOnce), Form::V311, 64, put);
        assert_eq!(refused, Err(TooLarge { size: 109, max: 64 }));
        let refused = put_publish(&mut out, &head("a/b", Qos::AtLeastOnce), Form::V5(None), 109, put);
        assert_eq!(refused, Err(TooLarge { size: 110, max: 109 }));
        assert_eq!(out, "before".as_bytes());
        let long = "t".repeat(70_000);
        assert!(put_publish(&mut out, &head(&long, Qos::AtLeastOnce), Form::V311, 1_000_000, |_| {}).is_err());
        assert_eq!(out, "before".as_bytes());
    }
}
