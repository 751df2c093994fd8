//! MQTT 3.1.1: reading and CONNECT, by the codec of `rumqttc`.

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{ConnAck, Connect, LastWill, Login, Packet};
use rumqttc::mqttbytes::{Error, QoS};
use secrecy::{ExposeSecret, SecretString};

use crate::config::Qos;

use super::{Accepted, ConnectSettings, Incoming, Limits, Message, Reason, UserName};

/// Reads one whole packet.
pub(super) fn read(mut packet: BytesMut) -> Result<Incoming, String> {
    let size = packet.len();
    match Packet::read(&mut packet, size) {
        Ok(packet) => Ok(incoming(packet)),
        Err(Error::InvalidConnectReturnCode(code)) => Ok(connack(false, code)),
        Err(error) => Err(error.to_string()),
    }
}

fn incoming(packet: Packet) -> Incoming {
    match packet {
        Packet::ConnAck(ConnAck { session_present, code }) => connack(session_present, code as u8),
        Packet::Publish(message) => Incoming::Publish(Box::new(Message {
            qos: match message.qos {
                QoS::AtMostOnce => Qos::AtMostOnce,
                QoS::AtLeastOnce => Qos::AtLeastOnce,
                QoS::ExactlyOnce => Qos::ExactlyOnce,
            },
            id: message.pkid,
            retain: message.retain,
            topic: message.topic,
            payload: message.payload,
            time: None,
            correlation: None,
        })),
        Packet::PubAck(ack) => Incoming::PubAck(ack.pkid, Reason::SUCCESS),
        Packet::PubRec(ack) => Incoming::PubRec(ack.pkid, Reason::SUCCESS),
        Packet::PubRel(ack) => Incoming::PubRel(ack.pkid),
        Packet::PubComp(ack) => Incoming::PubComp(ack.pkid, Reason::SUCCESS),
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

/// CONNACK with its return code (MQTT 3.1.1, 3.2.2.3). What the specification reserves stays as it is: some brokers
/// send the codes of MQTT 5 to everybody.
fn connack(session_present: bool, code: u8) -> Incoming {
    Incoming::connack(match code {
        0 => Ok(Accepted { session_present, limits: Limits::default() }),
        1 => Err(Reason::UNSUPPORTED_PROTOCOL_VERSION),
        2 => Err(Reason::CLIENT_IDENTIFIER_NOT_VALID),
        3 => Err(Reason::SERVER_UNAVAILABLE),
        4 => Err(Reason::BAD_USER_NAME_OR_PASSWORD),
        5 => Err(Reason::NOT_AUTHORIZED),
        other => Err(Reason::new(other)),
    })
}

/// Appends CONNECT.
pub(super) fn put_connect(out: &mut BytesMut, settings: &ConnectSettings<'_>) -> Result<(), String> {
    let username = settings.username.map_or("", UserName::name);
    let password = settings.password.map(SecretString::expose_secret).unwrap_or_default();
    if username.is_empty() && !password.is_empty() {
        return Err("a password without a user name cannot be sent in MQTT 3.1.1: set `username`".to_owned());
    }
    let mut connect = Connect::new(settings.client_id);
    connect.keep_alive = settings.keep_alive_seconds();
    connect.clean_session = settings.clean_session;
    connect.last_will = settings.will.map(|will| {
        let qos = match will.qos {
            Qos::AtMostOnce => QoS::AtMostOnce,
            Qos::AtLeastOnce => QoS::AtLeastOnce,
            Qos::ExactlyOnce => QoS::ExactlyOnce,
        };
        LastWill::new(will.topic, will.payload, qos, will.retain)
    });
    connect.login = Some(Login::new(username, password));
    connect.write(out).map_err(|error| error.to_string())?;
    Ok(())
}
