//! The broker of the model.

use std::collections::BTreeMap;

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::Packet;

use crate::uplink::packet::{Incoming, Reason};

/// A broker that keeps to the specification.
#[derive(Default)]
pub(super) struct Broker {
    pub(super) has_session: bool,
    /// QoS 2: taken, not yet released.
    pub(super) unreleased: BTreeMap<u16, Vec<u32>>,
    /// Records in the order in which they were delivered.
    pub(super) deliveries: Vec<u32>,
}

impl Broker {
    pub(super) fn forget(&mut self) {
        self.has_session = false;
        self.unreleased.clear();
    }

    pub(super) fn take(&mut self, packet: Packet) -> Option<Incoming> {
        let message = match packet {
            Packet::Publish(message) => message,
            Packet::PubRel(release) => {
                self.unreleased.remove(&release.pkid);
                return Some(Incoming::PubComp(release.pkid, Reason::SUCCESS));
            }
            Packet::Subscribe(subscribe) => {
                assert!(!self.unreleased.contains_key(&subscribe.pkid), "its packet id is a message's");
                return Some(Incoming::SubAck(subscribe.pkid, vec![0]));
            }
            Packet::PingReq => return Some(Incoming::PingResp),
            other => panic!("{other:?}"),
        };
        let id = message.pkid;
        let numbers = numbers(&message.payload);
        match message.qos {
            QoS::ExactlyOnce if !numbers.is_empty() => {
                match self.unreleased.get(&id) {
                    Some(held) => assert_eq!(*held, numbers, "a packet id stands for two messages: one would be lost"),
                    None => {
                        self.deliveries.extend(&numbers);
                        self.unreleased.insert(id, numbers);
                    }
                }
                Some(Incoming::PubRec(id, Reason::SUCCESS))
            }
            _ => {
                self.deliveries.extend(&numbers);
                Some(Incoming::PubAck(id, Reason::SUCCESS))
            }
        }
    }
}

/// The numbers of a message: a text, or several in an array of JSON. None if it is one of state.
fn numbers(payload: &[u8]) -> Vec<u32> {
    match serde_json::from_slice(payload) {
        Ok(serde_json::Value::Number(number)) => {
            number.as_u64().and_then(|number| number.try_into().ok()).into_iter().collect()
        }
        Ok(serde_json::Value::Array(several)) => {
            let number = |element: serde_json::Value| element["value"].as_u64().expect("a number").try_into();
            several.into_iter().map(|element| number(element).expect("of 32 bits")).collect()
        }
        _ => Vec::new(),
    }
}
