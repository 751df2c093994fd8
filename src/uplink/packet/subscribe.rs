//! Subscriptions: SUBSCRIBE and its answer, and the messages that come of them.

use bytes::{BufMut, Bytes, BytesMut};

use crate::config::{MqttVersion, Qos};

use super::property::Reader;
use super::{Incoming, remaining_length};

/// The options of a subscription at QoS 0 in MQTT 5 (3.8.3.1): nothing of our own (No Local, 0x04), the retain flag as
/// the sender set it (Retain As Published, 0x08), and nothing that is retained (Retain Handling 2, 0x20).
const OPTIONS: u8 = 0x04 | 0x08 | 0x20;

/// ...and of one at QoS 1: the same, but what is retained comes with a subscription that is new (Retain Handling 1).
const DELIVERY: u8 = 0x01 | 0x04 | 0x08 | 0x10;

/// A message to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its quality of service decides how it is acknowledged.
    pub qos: Qos,
    /// Packet id; 0 at QoS 0.
    pub id: u16,
    /// The broker had kept it; in MQTT 5 also: its sender wanted it to be kept.
    pub retain: bool,
    /// Where it was published.
    pub topic: String,
    /// What was published.
    pub payload: Bytes,
    /// MQTT 5: the user property `time`.
    pub time: Option<String>,
    /// MQTT 5: the sender's correlation data (3.3.2.3.6).
    pub correlation: Option<Bytes>,
}

/// Appends SUBSCRIBE for filters that are each at most 65535 bytes long, at QoS 0 or 1.
pub fn put_subscribe(out: &mut BytesMut, version: MqttVersion, id: u16, topics: &[(&str, Qos)]) {
    let mut body = BytesMut::new();
    body.put_u16(id);
    if version == MqttVersion::V5 {
        body.put_u8(0);
    }
    for (topic, qos) in topics {
        body.put_u16(u16::try_from(topic.len()).unwrap_or(u16::MAX));
        body.put_slice(topic.as_bytes());
        body.put_u8(match (qos, version) {
            (Qos::AtMostOnce, MqttVersion::V311) => 0,
            (Qos::AtMostOnce, MqttVersion::V5) => OPTIONS,
            (_, MqttVersion::V311) => 1,
            (_, MqttVersion::V5) => DELIVERY,
        });
    }
    let (length, digits) = remaining_length(body.len());
    out.put_u8(0x82);
    out.put_slice(&length[..digits]);
    out.put_slice(&body);
}

/// SUBACK (3.9): a reason code for each topic, in their order.
pub(super) fn suback(version: MqttVersion, body: &[u8]) -> Result<Incoming, String> {
    let mut body = Reader(body);
    let id = body.two()?;
    if version == MqttVersion::V5 {
        body.answer_properties("SUBACK")?;
    }
    Ok(Incoming::SubAck(id, body.0.to_vec()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rumqttc::mqttbytes::{QoS, v4};
    use rumqttc::v5::mqttbytes::{QoS as QoS5, v5};

    use super::super::read;
    use super::*;

    proptest! {
        /// The codec's own writer is the reference.
        #[test]
        fn a_subscription_is_written_as_the_codec_writes_it(
            id in 1..=u16::MAX, topics in prop::collection::vec("[a-z]{1,30}/set", 1..9),
        ) {
            let texts: Vec<(&str, Qos)> = topics.iter().map(|topic| (topic.as_str(), Qos::AtMostOnce)).collect();
            let (mut out, mut expected) = (BytesMut::new(), BytesMut::new());
            put_subscribe(&mut out, MqttVersion::V311, id, &texts);
            let filters = topics.iter().map(|topic| v4::SubscribeFilter::new(topic.clone(), QoS::AtMostOnce));
            let reference = v4::Subscribe { pkid: id, filters: filters.collect() };
            reference.write(&mut expected).expect("a packet");
            prop_assert_eq!(&out, &expected);

            let (mut out, mut expected) = (BytesMut::new(), BytesMut::new());
            put_subscribe(&mut out, MqttVersion::V5, id, &texts);
            let filter = |topic: &String| v5::Filter {
                nolocal: true,
                preserve_retain: true,
                retain_forward_rule: v5::RetainForwardRule::Never,
                ..v5::Filter::new(topic.clone(), QoS5::AtMostOnce)
            };
            let reference = v5::Subscribe { pkid: id, filters: topics.iter().map(filter).collect(), properties: None };
            reference.write(&mut expected).expect("a packet");
            prop_assert_eq!(&out, &expected);
        }

        #[test]
        fn a_message_is_read_as_the_codec_writes_it(
            topic in "[a-z]{1,12}(/[a-z]{1,12}){0,2}", payload in prop::collection::vec(any::<u8>(), 0..300), qos in 0..3_u8,
            retain: bool, correlation in prop::option::of(prop::collection::vec(any::<u8>(), 0..50)),
            time in prop::option::of("[0-9TZ:-]{0,30}"), others in 0..3_usize,
        ) {
            let (kind, kind5, qos) = [
                (QoS::AtMostOnce, QoS5::AtMostOnce, Qos::AtMostOnce),
                (QoS::AtLeastOnce, QoS5::AtLeastOnce, Qos::AtLeastOnce),
                (QoS::ExactlyOnce, QoS5::ExactlyOnce, Qos::ExactlyOnce),
            ][usize::from(qos)];
            let id = if qos == Qos::AtMostOnce { 0 } else { 77 };
            let mut expected = Message {
                qos, id, retain, topic: topic.clone(), payload: payload.clone().into(), time: None, correlation: None,
            };
            let mut buffer = BytesMut::new();
            let mut old = v4::Publish::new(topic.as_str(), kind, payload.clone());
            (old.retain, old.pkid) = (retain, id);
            old.write(&mut buffer).expect("a packet");
            let found = read(&mut buffer, MqttVersion::V311, 1_000);
            prop_assert_eq!(found, Ok(Some(Incoming::Publish(Box::new(expected.clone())))));

            let mut pairs = vec![("other".to_owned(), "time".to_owned()); others];
            pairs.extend(time.iter().map(|time| ("time".to_owned(), time.clone())));
            let properties = v5::PublishProperties {
                correlation_data: correlation.clone().map(Bytes::from),
                user_properties: pairs,
                content_type: Some("text/plain".to_owned()),
                response_topic: Some("answers".to_owned()),
                ..v5::PublishProperties::default()
            };
            let mut new = v5::Publish::new(topic.as_str(), kind5, payload, Some(properties));
            (new.retain, new.pkid) = (retain, id);
            new.write(&mut buffer).expect("a packet");
            (expected.time, expected.correlation) = (time, correlation.map(Bytes::from));
            let found = read(&mut buffer, MqttVersion::V5, 1_000);
            prop_assert_eq!(found, Ok(Some(Incoming::Publish(Box::new(expected)))));
        }
    }

    #[test]
    fn an_answer_may_have_any_codes() {
        for (version, packet) in [
            (MqttVersion::V311, &[0x90, 5, 0, 9, 0, 0x80, 0x87][..]),
            (MqttVersion::V5, &[0x90, 6, 0, 9, 0, 0, 0x80, 0x87]),
            // A reason in words and a user property.
            (MqttVersion::V5, &[0x90, 15, 0, 9, 9, 0x1f, 0, 1, b'x', 0x26, 0, 0, 0, 0, 0, 0x80, 0x87]),
        ] {
            let mut buffer = BytesMut::from(packet);
            assert_eq!(read(&mut buffer, version, 100), Ok(Some(Incoming::SubAck(9, vec![0, 0x80, 0x87]))));
        }
        for packet in [&[0x90, 1, 0][..], &[0x90, 3, 0, 9, 7], &[0x90, 5, 0, 9, 2, 0x21, 0]] {
            assert!(read(&mut BytesMut::from(packet), MqttVersion::V5, 100).is_err(), "{packet:?}");
        }
    }
}
