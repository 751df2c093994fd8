//! Subscriptions: SUBSCRIBE and its answer, and the messages that come of them.

use bytes::{BufMut, Bytes, BytesMut};

use crate::config::{MqttVersion, Qos};

use super::property::Reader;
use super::{Incoming, qos_bits, remaining_length};

/// The options of a subscription in MQTT 5 (3.8.3.1): nothing of our own (No Local), and the retain flag as the sender set
/// it (Retain As Published).
const OPTIONS: u8 = 0x04 | 0x08;

/// Which of what the broker has kept comes with a subscription, as only MQTT 5 can say ("Retain Handling", 3.8.3.1); in
/// 3.1.1 all of it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retained {
    /// All of it, each time.
    Always = 0x00,
    /// All of it, if the broker did not know of the subscription.
    Once = 0x10,
    /// Nothing.
    Never = 0x20,
}

/// What is subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// The topic, at most 65535 bytes.
    pub topic: &'a str,
    /// At most at this quality of service.
    pub qos: Qos,
    /// Which of what the broker has kept.
    pub retained: Retained,
}

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

/// Appends SUBSCRIBE.
pub fn put_subscribe(out: &mut BytesMut, version: MqttVersion, id: u16, topics: &[Wanted<'_>]) {
    let mut body = BytesMut::new();
    body.put_u16(id);
    if version == MqttVersion::V5 {
        body.put_u8(0);
    }
    for Wanted { topic, qos, retained } in topics {
        body.put_u16(u16::try_from(topic.len()).unwrap_or(u16::MAX));
        body.put_slice(topic.as_bytes());
        let options = match version {
            MqttVersion::V311 => 0,
            MqttVersion::V5 => OPTIONS | *retained as u8,
        };
        body.put_u8(options | qos_bits(*qos));
    }
    let (length, digits) = remaining_length(body.len());
    out.put_u8(0x82);
    out.put_slice(&length[..digits]);
    out.put_slice(&body);
}

/// Appends UNSUBSCRIBE.
pub fn put_unsubscribe(out: &mut BytesMut, version: MqttVersion, id: u16, topics: &[String]) {
    let mut body = BytesMut::new();
    body.put_u16(id);
    if version == MqttVersion::V5 {
        body.put_u8(0);
    }
    for topic in topics {
        body.put_u16(u16::try_from(topic.len()).unwrap_or(u16::MAX));
        body.put_slice(topic.as_bytes());
    }
    let (length, digits) = remaining_length(body.len());
    out.put_u8(0xa2);
    out.put_slice(&length[..digits]);
    out.put_slice(&body);
}

/// UNSUBACK (3.11). The reason codes of MQTT 5 change nothing: there is no such subscription afterwards.
pub(super) fn unsuback(body: &[u8]) -> Result<Incoming, String> {
    Ok(Incoming::UnsubAck(Reader(body).two()?))
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
            id in 1..=u16::MAX, topics in prop::collection::vec(("[a-z]{1,30}/set", any::<bool>(), 0..3_usize), 1..9),
        ) {
            let qos = |at_least_once: bool| if at_least_once { Qos::AtLeastOnce } else { Qos::AtMostOnce };
            let kept = [
                (Retained::Always, v5::RetainForwardRule::OnEverySubscribe),
                (Retained::Once, v5::RetainForwardRule::OnNewSubscribe),
                (Retained::Never, v5::RetainForwardRule::Never),
            ];
            let wanted = topics.iter().map(|(topic, once, rule)| {
                Wanted { topic, qos: qos(*once), retained: kept[*rule].0 }
            });
            let texts: Vec<Wanted<'_>> = wanted.collect();
            let (mut out, mut expected) = (BytesMut::new(), BytesMut::new());
            put_subscribe(&mut out, MqttVersion::V311, id, &texts);
            let filters = topics.iter().map(|(topic, once, _)| {
                v4::SubscribeFilter::new(topic.clone(), if *once { QoS::AtLeastOnce } else { QoS::AtMostOnce })
            });
            let reference = v4::Subscribe { pkid: id, filters: filters.collect() };
            reference.write(&mut expected).expect("a packet");
            prop_assert_eq!(&out, &expected);

            let (mut out, mut expected) = (BytesMut::new(), BytesMut::new());
            put_subscribe(&mut out, MqttVersion::V5, id, &texts);
            let filter = |(topic, once, rule): &(String, bool, usize)| v5::Filter {
                nolocal: true,
                preserve_retain: true,
                retain_forward_rule: kept[*rule].1.clone(),
                ..v5::Filter::new(topic.clone(), if *once { QoS5::AtLeastOnce } else { QoS5::AtMostOnce })
            };
            let reference = v5::Subscribe { pkid: id, filters: topics.iter().map(filter).collect(), properties: None };
            reference.write(&mut expected).expect("a packet");
            prop_assert_eq!(&out, &expected);

            let topics: Vec<String> = topics.into_iter().map(|(topic, ..)| topic).collect();
            let (mut out, mut expected) = (BytesMut::new(), BytesMut::new());
            put_unsubscribe(&mut out, MqttVersion::V311, id, &topics);
            let reference = v4::Unsubscribe { pkid: id, topics: topics.clone() };
            reference.write(&mut expected).expect("a packet");
            prop_assert_eq!(&out, &expected);
            let (mut out, mut expected) = (BytesMut::new(), BytesMut::new());
            put_unsubscribe(&mut out, MqttVersion::V5, id, &topics);
            let reference = v5::Unsubscribe { pkid: id, filters: topics, properties: None };
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
