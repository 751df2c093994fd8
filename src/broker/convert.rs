//! Between the broker crate's types and what the store keeps.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use bytes::Bytes;
use rmqtt::codec::types::Publish as Packet;
use rmqtt::codec::v3::Connect as Connect3;
use rmqtt::codec::v5::{
    Connect as Connect5, PublishProperties, RetainHandling, SubscriptionOptions as PacketOptions, UserProperties,
};
use rmqtt::types::{
    ClientId, ConnectInfo, From as Sender, Id, Publish, QoS, Retain, SharedGroup, SubscriptionOptions, TopicName,
    UserName,
};

use super::access::Access;
use super::store::record::{Message, Options5, Properties, Session, Subscription, Waiting};

/// The protocol level of MQTT 5.
const LEVEL_5: u8 = 5;

/// Copies what is a window into the connection's read buffer, which it would keep alive as a whole.
pub(super) fn own(publish: &mut Publish) {
    publish.payload = Bytes::copy_from_slice(&publish.payload);
    publish.topic = TopicName::from(publish.topic.to_string());
}

/// The message of a packet.
pub(super) fn message(publish: &Publish, from: &str) -> Message {
    Message {
        topic: Arc::from(&*publish.topic),
        payload: publish.payload.clone(),
        qos: publish.qos.value(),
        from: Arc::from(from),
        properties: publish
            .properties
            .as_ref()
            .map(properties)
            .filter(|some| *some != Properties::default())
            .map(Box::new),
    }
}

fn properties(all: &PublishProperties) -> Properties {
    Properties {
        correlation_data: all.correlation_data.clone().map(|data| Bytes::copy_from_slice(&data)),
        expiry: all.message_expiry_interval.map(NonZeroU32::get),
        content_type: all.content_type.as_deref().map(Into::into),
        response_topic: all.response_topic.as_deref().map(Into::into),
        user: all.user_properties.iter().map(|(name, value)| ((**name).into(), (**value).into())).collect(),
        is_utf8: all.is_utf8_payload,
    }
}

/// The packet of a message, as if it had been taken now.
pub(super) fn publish(message: &Message, qos: u8, retain: bool, subscriptions: &[u32]) -> Publish {
    let kept = message.properties.as_deref().cloned().unwrap_or_default();
    let properties = PublishProperties {
        topic_alias: None,
        correlation_data: kept.correlation_data,
        message_expiry_interval: kept.expiry.and_then(NonZeroU32::new),
        content_type: kept.content_type.map(|text| text.into_string().into()),
        user_properties: kept
            .user
            .into_iter()
            .map(|(name, value)| (name.into_string().into(), value.into_string().into()))
            .collect::<UserProperties>(),
        is_utf8_payload: kept.is_utf8,
        response_topic: kept.response_topic.map(|text| text.into_string().into()),
        subscription_ids: subscriptions.iter().copied().filter_map(NonZeroU32::new).collect(),
    };
    let packet = Packet {
        dup: false,
        retain,
        qos: quality(qos),
        topic: TopicName::from(message.topic.to_string()),
        packet_id: None,
        payload: message.payload.clone(),
        properties: Some(properties),
    };
    Publish::from(packet).create_time(now_millis())
}

/// A retained message as the broker crate wants it.
pub(super) fn retain(message: &Message) -> Retain {
    Retain { msg_id: None, from: sender(message), publish: publish(message, message.qos, true, &[]) }
}

/// Who published it, as far as is known: its client may be gone.
pub(super) fn sender(message: &Message) -> Sender {
    Sender::from_custom(Id::from(super::server::NODE, ClientId::from(message.from.to_string())))
}

pub(super) fn quality(level: u8) -> QoS {
    QoS::try_from(level).unwrap_or(QoS::AtLeastOnce)
}

fn now_millis() -> i64 {
    rmqtt::utils::timestamp_millis()
}

/// What of a CONNECT is kept with its session; never its password.
pub(super) fn session(connect: &ConnectInfo, access: &Access, expiry: u32, created_at: i64) -> Session {
    let receive_max = match connect {
        ConnectInfo::V3(..) => None,
        ConnectInfo::V5(_, connect) => connect.receive_max.map(NonZeroU16::get),
    };
    Session {
        level: connect.proto_ver(),
        user: access.user().map(Arc::from),
        gateway: access.is_gateway(),
        expiry,
        receive_max,
        created_at,
        subscriptions: Vec::new(),
    }
}

/// A CONNECT that makes such a session.
pub(super) fn connect(id: &Id, session: &Session) -> ConnectInfo {
    let username = session.user.as_deref().map(|name| UserName::from(name.to_owned()));
    let client_id = id.client_id.clone();
    if session.level == LEVEL_5 {
        let packet = Connect5 {
            clean_start: false,
            session_expiry_interval_secs: session.expiry,
            receive_max: session.receive_max.and_then(NonZeroU16::new),
            client_id,
            username,
            ..Connect5::default()
        };
        return ConnectInfo::V5(id.clone(), Box::new(packet));
    }
    let packet = Connect3 { clean_session: false, client_id, username, ..Connect3::default() };
    ConnectInfo::V3(id.clone(), Box::new(packet))
}

/// What is kept of a subscription.
pub(super) fn subscription(options: &SubscriptionOptions) -> Subscription {
    let v5 = match options {
        SubscriptionOptions::V3(_) => None,
        SubscriptionOptions::V5(five) => Some(Options5 {
            no_local: five.no_local,
            retain_as_published: five.retain_as_published,
            retain_handling: five.retain_handling_value(),
            id: five.id.map(NonZeroU32::get),
        }),
    };
    Subscription { qos: options.qos().value(), v5 }
}

/// The options of a subscription that was kept.
pub(super) fn options(kept: Subscription, group: Option<&str>) -> SubscriptionOptions {
    let (qos, group) = (quality(kept.qos), group.map(|group| SharedGroup::from(group.to_owned())));
    let Some(five) = kept.v5 else { return SubscriptionOptions::from((qos, group, None)) };
    let packet = PacketOptions {
        qos,
        no_local: five.no_local,
        retain_as_published: five.retain_as_published,
        retain_handling: match five.retain_handling {
            0 => RetainHandling::AtSubscribe,
            1 => RetainHandling::AtSubscribeNew,
            _ => RetainHandling::NoAtSubscribe,
        },
    };
    SubscriptionOptions::from((&packet, group, None, five.id.and_then(NonZeroU32::new)))
}

/// How a message is delivered along one subscription.
pub(super) fn waiting(client: &str, publish: &Publish, options: &SubscriptionOptions, ids: &[NonZeroU32]) -> Waiting {
    Waiting {
        client: Arc::from(client),
        qos: publish.qos.value().min(options.qos().value()),
        retain: publish.retain && options.retain_as_published().unwrap_or(false),
        subscriptions: ids.iter().map(|id| id.get()).collect(),
    }
}
