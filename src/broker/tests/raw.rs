//! A client that writes its packets by hand, over any stream.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::DEADLINE;
pub(super) use super::packets::{Answer, Hello, packet, publish};
use super::packets::{Packet, codes, message, subscribe};

impl<'a> Hello<'a> {
    pub(super) fn user(self, name: &'a str, password: &'a str) -> Self {
        Self { user: Some((name, password)), ..self }
    }
}

pub(super) struct Raw<S> {
    pub(super) stream: S,
    pub(super) version: u8,
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
            if let Some(answer) = Answer::of(self.next().await.as_ref()) {
                return answer;
            }
        }
    }

    /// Subscribes with QoS 1; gives the return codes.
    pub(super) async fn subscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let bytes = subscribe(self.version, filters);
        self.send(&bytes).await;
        loop {
            match self.next().await {
                Some((0x90, body)) => return codes(self.version, &body),
                Some((first, _)) if first & 0xf0 == 0x30 => {}
                other => panic!("expected SUBACK, got {other:?}"),
            }
        }
    }

    /// The next message: topic and payload. It is not acknowledged.
    pub(super) async fn message(&mut self) -> (String, String) {
        loop {
            let next = self.next().await.expect("a message");
            if let Some((topic, _, payload)) = message(self.version, &next) {
                return (topic, String::from_utf8(payload).unwrap());
            }
        }
    }
}
