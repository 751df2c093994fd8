//! Packets of MQTT 3.1.1 and 5, written and read by hand: so that what a client sees does not come from the codec that wrote
//! it. The tests of the built program use them as well.

/// A packet: its first byte, and what follows the length.
pub(super) type Packet = (u8, Vec<u8>);

/// How a client presents itself.
#[derive(Clone, Copy)]
pub(super) struct Hello<'a> {
    pub(super) version: u8,
    pub(super) id: &'a str,
    pub(super) user: Option<(&'a str, &'a str)>,
    pub(super) clean: bool,
    pub(super) will: Option<(&'a str, &'a str)>,
}

impl<'a> Hello<'a> {
    pub(super) fn new(version: u8, id: &'a str) -> Self {
        Self { version, id, user: None, clean: true, will: None }
    }

    /// CONNECT.
    pub(super) fn packet(&self) -> Vec<u8> {
        let flags = u8::from(self.clean) << 1
            | if self.user.is_some() { 0xc0 } else { 0 }
            | if self.will.is_some() { 0x04 } else { 0 };
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', self.version, flags, 0, 0];
        if self.version == 5 {
            // Session expiry: an hour, where the session is to be kept.
            body.extend(if self.clean { vec![0] } else { vec![5, 0x11, 0, 0, 0x0e, 0x10] });
        }
        text(&mut body, self.id);
        if let Some((topic, payload)) = self.will {
            if self.version == 5 {
                body.push(0);
            }
            text(&mut body, topic);
            text(&mut body, payload);
        }
        if let Some((name, password)) = self.user {
            text(&mut body, name);
            text(&mut body, password);
        }
        packet(0x10, &body)
    }
}

fn text(body: &mut Vec<u8>, text: &str) {
    body.extend(u16::try_from(text.len()).expect("a short text").to_be_bytes());
    body.extend(text.as_bytes());
}

/// A packet with its length.
pub(super) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut left = body.len();
    loop {
        let digit = u8::try_from(left % 128).expect("below 128");
        left /= 128;
        bytes.push(if left > 0 { digit | 0x80 } else { digit });
        if left == 0 {
            break;
        }
    }
    bytes.extend(body);
    bytes
}

/// PUBLISH.
pub(super) fn publish(version: u8, topic: &str, payload: &(impl AsRef<[u8]> + ?Sized), qos: u8, id: u16) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic);
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    if version == 5 {
        body.push(0);
    }
    body.extend(payload.as_ref());
    packet(0x30 | qos << 1, &body)
}

/// SUBSCRIBE with QoS 1.
pub(super) fn subscribe(version: u8, filters: &[&str]) -> Vec<u8> {
    let mut body = vec![0, 9];
    if version == 5 {
        body.push(0);
    }
    for filter in filters {
        text(&mut body, filter);
        body.push(1);
    }
    packet(0x82, &body)
}

/// The codes of a SUBACK.
pub(super) fn codes(version: u8, body: &[u8]) -> Vec<u8> {
    body[if version == 5 { 3 } else { 2 }..].to_vec()
}

/// What becomes of a PUBLISH.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Taken,
    /// MQTT 5 says why.
    Refused(u8),
    Closed,
}

impl Answer {
    /// What the next packet says of a PUBLISH with QoS 1, if it is about that. Without a packet the connection is closed.
    pub(super) fn of(next: Option<&Packet>) -> Option<Self> {
        match next {
            Some((0x40, body)) => Some(match body.get(2) {
                None | Some(0) => Self::Taken,
                Some(why) => Self::Refused(*why),
            }),
            None | Some((0xe0, _)) => Some(Self::Closed),
            Some(_) => None,
        }
    }
}

/// The parts of a PUBLISH: its topic, the bytes of its number above QoS 0, and its payload. `None`: it is another packet.
/// Its properties are few.
pub(super) fn message(version: u8, (first, body): &Packet) -> Option<(String, Option<[u8; 2]>, Vec<u8>)> {
    if first & 0xf0 != 0x30 {
        return None;
    }
    let (topic, mut rest) = body[2..].split_at(usize::from(u16::from_be_bytes([body[0], body[1]])));
    let mut id = None;
    if first & 6 != 0 {
        id = Some([rest[0], rest[1]]);
        rest = &rest[2..];
    }
    if version == 5 {
        rest = &rest[1 + usize::from(rest[0])..];
    }
    Some((String::from_utf8_lossy(topic).into_owned(), id, rest.to_vec()))
}
