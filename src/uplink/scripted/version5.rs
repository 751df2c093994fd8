//! What the agent sends in MQTT 5, read strictly and handed out in the form of MQTT 3.1.1.

use bytes::{Buf, BytesMut};
use rumqttc::mqttbytes::v4::{
    Connect, LastWill, Login, Packet, PubAck, PubComp, PubRec, PubRel, Publish, Subscribe, SubscribeFilter,
};
use rumqttc::mqttbytes::{Error, QoS};
use rumqttc::v5::mqttbytes::v5::{
    Packet as Packet5, PubAckReason, PubCompReason, PubRecReason, PubRelReason, RetainForwardRule,
};
use rumqttc::v5::mqttbytes::{Error as Error5, QoS as QoS5};

use super::Said;

pub(super) fn read(buffer: &mut BytesMut, said: &mut Said, aliases: &mut [Option<String>]) -> Result<Packet, Error> {
    // The codec wants properties in a DISCONNECT, which may be without.
    match buffer.as_ref() {
        [0xe0] | [0xe0, 1] => return Err(Error::InsufficientBytes(1)),
        &[0xe0, length @ (0 | 1), ..] => {
            said.disconnect = Some(if length == 0 { 0 } else { buffer[2] });
            buffer.advance(2 + usize::from(length));
            return Ok(Packet::Disconnect);
        }
        _ => {}
    }
    let packet = match Packet5::read(buffer, Some(1_000_000)) {
        Ok(packet) => packet,
        Err(Error5::InsufficientBytes(missing)) => return Err(Error::InsufficientBytes(missing)),
        Err(error) => panic!("the agent sent nonsense: {error}"),
    };
    Ok(match packet {
        Packet5::Connect(connect, will, login) => {
            said.connect = connect.properties;
            Packet::Connect(Connect {
                protocol: rumqttc::mqttbytes::Protocol::V4,
                keep_alive: connect.keep_alive,
                client_id: connect.client_id,
                clean_session: connect.clean_start,
                last_will: will
                    .map(|will| LastWill::new(text(&will.topic), will.message.to_vec(), qos(will.qos), will.retain)),
                login: login.map(|login| Login::new(login.username, login.password)),
            })
        }
        Packet5::Publish(message) => {
            let alias = message.properties.as_ref().and_then(|properties| properties.topic_alias);
            said.publish = message.properties;
            said.aliased = message.topic.is_empty();
            let topic = match alias {
                None => text(&message.topic),
                Some(alias) => {
                    let place = usize::from(alias).checked_sub(1).and_then(|index| aliases.get_mut(index));
                    let place = place.unwrap_or_else(|| panic!("alias {alias} was not allowed"));
                    if !said.aliased {
                        *place = Some(text(&message.topic));
                    }
                    place.clone().unwrap_or_else(|| panic!("alias {alias} stands for nothing"))
                }
            };
            assert!(!topic.is_empty(), "neither topic nor alias");
            let mut publish = Publish::from_bytes(topic, qos(message.qos), message.payload);
            (publish.dup, publish.retain, publish.pkid) = (message.dup, message.retain, message.pkid);
            Packet::Publish(publish)
        }
        Packet5::PubAck(ack) if ack.reason == PubAckReason::Success => Packet::PubAck(PubAck::new(ack.pkid)),
        Packet5::PubRec(ack) if ack.reason == PubRecReason::Success => Packet::PubRec(PubRec::new(ack.pkid)),
        Packet5::PubRel(ack) if ack.reason == PubRelReason::Success => Packet::PubRel(PubRel::new(ack.pkid)),
        Packet5::PubComp(ack) if ack.reason == PubCompReason::Success => Packet::PubComp(PubComp::new(ack.pkid)),
        Packet5::PingReq(_) => Packet::PingReq,
        Packet5::Subscribe(subscribe) => {
            for filter in &subscribe.filters {
                // What is retained does not come, and what comes has its sender's flag.
                assert!(filter.nolocal && filter.preserve_retain, "{filter:?}");
                assert_eq!(filter.retain_forward_rule, RetainForwardRule::Never);
            }
            let filters =
                subscribe.filters.into_iter().map(|filter| SubscribeFilter::new(filter.path, qos(filter.qos)));
            Packet::Subscribe(Subscribe { pkid: subscribe.pkid, filters: filters.collect() })
        }
        other => panic!("the agent has no business to send {other:?}"),
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn qos(qos: QoS5) -> QoS {
    match qos {
        QoS5::AtMostOnce => QoS::AtMostOnce,
        QoS5::AtLeastOnce => QoS::AtLeastOnce,
        QoS5::ExactlyOnce => QoS::ExactlyOnce,
    }
}
