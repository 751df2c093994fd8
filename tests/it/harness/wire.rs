//! As much of MQTT as is needed to read along, 3.1.1 and 5: a decoder of our own, so that what is said about the
//! agent's packets does not come from the codec that wrote them.

/// A packet, reduced to what a ledger is kept of.
#[derive(Debug)]
pub(crate) enum Packet {
    Connect {
        version: u8,
        clean: bool,
    },
    ConnAck {
        session_present: bool,
        accepted: bool,
    },
    Publish {
        qos: u8,
        dup: bool,
        id: u16,
        topic: String,
        payload: Vec<u8>,
    },
    /// PUBACK, PUBREC, PUBREL or PUBCOMP. The code is 0 where there is none.
    Ack {
        kind: Ack,
        id: u16,
        code: u8,
    },
    Other,
}

/// The four acknowledgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ack {
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
}

/// Takes the first whole packet from the bytes, as its first byte and its body; `None` while it is not whole.
pub(crate) fn take(input: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let (length, digits) = varint(input.get(1..)?)?;
    let (start, end) = (1 + digits, 1 + digits + length);
    let body = input.get(start..end)?.to_vec();
    let first = input[0];
    input.drain(..end);
    Some((first, body))
}

/// A variable length number (MQTT 3.1.1, 2.2.3) and how many bytes it takes.
fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

/// Reads a packet of a connection that speaks this protocol version; `None` if it is malformed.
pub(crate) fn decode(first: u8, body: &[u8], version: u8) -> Option<Packet> {
    let packet = match first >> 4 {
        // The protocol's name comes first: two bytes of length and "MQTT".
        1 => Packet::Connect { version: *body.get(6)?, clean: body.get(7)? & 2 != 0 },
        2 => Packet::ConnAck { session_present: *body.first()? == 1, accepted: *body.get(1)? == 0 },
        3 => return publish(first, body, version),
        kind @ 4..=7 => {
            let kind = [Ack::Puback, Ack::Pubrec, Ack::Pubrel, Ack::Pubcomp][usize::from(kind - 4)];
            Packet::Ack { kind, id: number(body)?, code: body.get(2).copied().unwrap_or(0) }
        }
        _ => Packet::Other,
    };
    Some(packet)
}

fn publish(first: u8, body: &[u8], version: u8) -> Option<Packet> {
    let (qos, dup) = (first >> 1 & 3, first & 8 != 0);
    let mut at = 2 + usize::from(number(body)?);
    let topic = String::from_utf8(body.get(2..at)?.to_vec()).ok()?;
    let mut id = 0;
    if qos > 0 {
        id = number(body.get(at..)?)?;
        at += 2;
    }
    if version == 5 {
        let (properties, digits) = varint(body.get(at..)?)?;
        at += digits + properties;
    }
    Some(Packet::Publish { qos, dup, id, topic, payload: body.get(at..)?.to_vec() })
}

fn number(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]))
}
