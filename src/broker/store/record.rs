//! What the store keeps, and how it is written: each record stands for itself, and the last one about a thing counts.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A message without what belongs to one delivery of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::broker) struct Message {
    pub(in crate::broker) topic: Arc<str>,
    pub(in crate::broker) payload: Bytes,
    /// 0 to 2, as it was published.
    pub(in crate::broker) qos: u8,
    /// Client identifier of the publisher.
    pub(in crate::broker) from: Arc<str>,
    /// Those of MQTT 5 (3.3.2.3) that go on to subscribers.
    pub(in crate::broker) properties: Option<Box<Properties>>,
}

/// Properties of a PUBLISH.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::broker) struct Properties {
    pub(in crate::broker) correlation_data: Option<Bytes>,
    /// Seconds that were left when it was taken.
    pub(in crate::broker) expiry: Option<u32>,
    pub(in crate::broker) content_type: Option<Box<str>>,
    pub(in crate::broker) response_topic: Option<Box<str>>,
    pub(in crate::broker) user: Vec<(Box<str>, Box<str>)>,
    pub(in crate::broker) is_utf8: bool,
}

/// The session of a client that wants to find it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::broker) struct Session {
    /// Protocol level of its CONNECT: 3, 4 or 5.
    pub(in crate::broker) level: u8,
    /// Its user; `None`: anonymous, or the gateway.
    pub(in crate::broker) user: Option<Arc<str>>,
    /// Is it the gateway's own?
    pub(in crate::broker) gateway: bool,
    /// Seconds that it is kept after the client has left.
    pub(in crate::broker) expiry: u32,
    /// What the client takes at once (MQTT 5, 3.1.2.11.3).
    pub(in crate::broker) receive_max: Option<u16>,
    /// Milliseconds since 1970, by the clock of that time.
    pub(in crate::broker) created_at: i64,
    /// By filter.
    pub(in crate::broker) subscriptions: Vec<(Arc<str>, Subscription)>,
}

/// Options of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::broker) struct Subscription {
    pub(in crate::broker) qos: u8,
    /// `None`: of a 3.1.1 client.
    pub(in crate::broker) v5: Option<Options5>,
}

/// What only MQTT 5 has (3.8.3.1 and 3.8.2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::broker) struct Options5 {
    pub(in crate::broker) no_local: bool,
    pub(in crate::broker) retain_as_published: bool,
    /// 0 to 2.
    pub(in crate::broker) retain_handling: u8,
    pub(in crate::broker) id: Option<u32>,
}

/// A client that has not acknowledged a message yet, and how it is delivered to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::broker) struct Waiting {
    pub(in crate::broker) client: Arc<str>,
    pub(in crate::broker) qos: u8,
    pub(in crate::broker) retain: bool,
    /// Identifiers of the subscriptions that it comes by.
    pub(in crate::broker) subscriptions: Vec<u32>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::broker) enum Record {
    /// The retained message of a topic; `None`: it has none.
    Retained(Arc<str>, Option<Message>),
    /// The session of a client; `None`: it has none, and nothing waits for it.
    Session(Arc<str>, Option<Session>),
    /// A message and who waits for it; `None`: nobody does any more.
    Message(u32, Option<(Message, Vec<Waiting>)>),
    /// A client does not wait for this message any more.
    Done(u32, Arc<str>),
}

/// Bytes before each record: its length and its checksum, each of 32 bits, little-endian.
const HEAD: usize = 8;
/// Longest record: a packet, its properties, and every session waiting for it.
const MAX_RECORD: usize = 8 * 1024 * 1024;

/// Appends a record to a buffer.
pub(super) fn write(record: &Record, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    let written = postcard::to_extend(record, std::mem::take(out)).expect("every record can be written");
    *out = written;
    let length = u32::try_from(out.len() - start - HEAD).expect("packets are far shorter");
    let sum = crc32fast::hash(&out[start + HEAD..]);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + HEAD].copy_from_slice(&sum.to_le_bytes());
}

/// Reads records until one is not whole; says how many bytes were good.
pub(super) fn read(bytes: &[u8], mut take: impl FnMut(Record)) -> usize {
    let mut good = 0;
    while let Some((record, length)) = one(&bytes[good..]) {
        take(record);
        good += length;
    }
    good
}

fn one(bytes: &[u8]) -> Option<(Record, usize)> {
    let head = bytes.first_chunk::<HEAD>()?;
    let [a, b, c, d, sum @ ..] = *head;
    let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).ok().filter(|length| *length <= MAX_RECORD)?;
    let body = bytes.get(HEAD..HEAD + length)?;
    if crc32fast::hash(body) != u32::from_le_bytes(sum) {
        return None;
    }
    Some((postcard::from_bytes(body).ok()?, HEAD + length))
}
