//! Subscriptions: SUBSCRIBE and its answer, and the messages that come of them.

use bytes::{BufMut, Bytes, BytesMut};

use crate::config::{MqttVersion, Qos};

use super::property::Reader;
use super::{Incoming, remaining_length};

/// The options of a subscription at QoS 0 in MQTT 5 (3.8.3.1): nothing of our own (No Local, 0x04), the retain flag as
/// the sender set it (Retain As Published, 0x08), and nothing that is retained (Retain Handling 2, 0x20).
const OPTIONS: u8 = 0x04 | 0x08 | 0x20;

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

/// Appends SUBSCRIBE at QoS 0 for topics that are each at most 65535 bytes long.
pub fn put_subscribe(out: &mut BytesMut, version: MqttVersion, id: u16, topics: &[&str]) {
    let mut body = BytesMut::new();
    body.put_u16(id);
    if version == MqttVersion::V5 {
        body.put_u8(0);
    }
    for topic in topics {
        body.put_u16(u16::try_from(topic.len()).unwrap_or(u16::MAX));
        body.put_slice(topic.as_bytes());
        body.put_u8(if version == MqttVersion::V5 { OPTIONS } else { 0 });
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
