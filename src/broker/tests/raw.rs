//! A client that writes its packets by hand, over any stream.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::DEADLINE;

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

    pub(super) fn user(self, name: &'a str, password: &'a str) -> Self {
        Self { user: Some((name, password)), ..self }
    }

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
    body.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    body.extend(text.as_bytes());
}

pub(super) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut left = body.len();
    loop {
        let digit = u8::try_from(left % 128).unwrap();
        left /= 128;
        bytes.push(if left > 0 { digit | 0x80 } else { digit });
        if left == 0 {
            break;
        }
    }
    bytes.extend(body);
    bytes
}

pub(super) fn publish(version: u8, topic: &str, payload: &str, qos: u8, id: u16) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic);
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    if version == 5 {
        body.push(0);
    }
    body.extend(payload.as_bytes());
    packet(0x30 | qos << 1, &body)
}

fn subscribe(version: u8, filters: &[&str], id: u16) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == 5 {
        body.push(0);
    }
    for filter in filters {
        text(&mut body, filter);
        body.push(1);
    }
    packet(0x82, &body)
}

pub(super) struct Raw<S> {
    pub(super) stream: S,
    pub(super) version: u8,
}

/// What becomes of a PUBLISH.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Taken,
    /// MQTT 5 says why.
    Refused(u8),
    Closed,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    /// Connects; gives the client, or the code of the refusal.
    pub(super) async fn connect(mut stream: S, hello: &Hello<'_>) -> Result<Self, u8> {
        stream.write_all(&hello.packet()).await.unwrap();
        stream.flush().await.unwrap();
        let mut client = Self { stream, version: hello.version };
        let (first, body) = client.next().await.expect("an answer to CONNECT");
        assert_eq!(first, 0x20, "a CONNACK");
        if body[1] == 0 { Ok(client) } else { Err(body[1]) }
    }

    /// The next packet; `None`: the connection is closed.
    pub(super) async fn next(&mut self) -> Option<Packet> {
        timeout(DEADLINE, self.read()).await.expect("the broker lets the client wait")
    }

    async fn read(&mut self) -> Option<Packet> {
        let first = self.stream.read_u8().await.ok()?;
        let mut length = 0;
        for place in 0..4 {
            let digit = self.stream.read_u8().await.ok()?;
            length |= usize::from(digit & 0x7f) << (7 * place);
            if digit & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.ok()?;
        Some((first, body))
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        // The broker may have closed it.
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// Publishes with QoS 1.
    pub(super) async fn publish(&mut self, topic: &str, payload: &str) -> Answer {
        let bytes = publish(self.version, topic, payload, 1, 7);
        self.send(&bytes).await;
        loop {
            match self.next().await {
                Some((0x40, body)) => {
                    return match body.get(2) {
                        None | Some(0) => Answer::Taken,
                        Some(why) => Answer::Refused(*why),
                    };
                }
                None | Some((0xe0, _)) => return Answer::Closed,
                Some(_) => {}
            }
        }
    }

    /// Subscribes with QoS 1; gives the return codes.
    pub(super) async fn subscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let bytes = subscribe(self.version, filters, 9);
        self.send(&bytes).await;
        loop {
            match self.next().await {
                Some((0x90, body)) => return body[if self.version == 5 { 3 } else { 2 }..].to_vec(),
                Some((first, _)) if first & 0xf0 == 0x30 => {}
                other => panic!("expected SUBACK, got {other:?}"),
            }
        }
    }

    /// The next message: topic and payload. It is not acknowledged.
    pub(super) async fn message(&mut self) -> (String, String) {
        loop {
            let (first, body) = self.next().await.expect("a message");
            if first & 0xf0 != 0x30 {
                continue;
            }
            let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
            let topic = String::from_utf8(body[2..2 + length].to_vec()).unwrap();
            let mut rest = &body[2 + length..];
            if first & 0x06 != 0 {
                rest = &rest[2..];
            }
            if self.version == 5 {
                rest = &rest[1 + usize::from(rest[0])..];
            }
            return (topic, String::from_utf8(rest.to_vec()).unwrap());
        }
    }
}
