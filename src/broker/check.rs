//! Connects to a broker to see that it answers.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use rumqttc::mqttbytes::Error as CodecError;
use rumqttc::mqttbytes::v4::{Connect, Packet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::Credentials;
use super::login::SELF_CHECK;
use super::looks::Looks;

/// What came instead of an answer to CONNECT.
#[derive(Debug, thiserror::Error)]
pub enum Silence {
    /// Nothing in time.
    #[error("no answer to CONNECT within {} s", Silence::DEADLINE.as_secs())]
    Late,
    /// The connection failed or was closed.
    #[error("the connection failed: {0}")]
    Connection(#[from] std::io::Error),
    /// The kernel takes connections to this address, and nobody accepts them.
    #[error("the listener at {0} accepts no connection")]
    Deaf(SocketAddr),
    /// Something that is not a CONNACK.
    #[error("what it answers to CONNECT is not a CONNACK: {0}")]
    Nonsense(String),
}

impl Silence {
    /// How long an answer may take.
    pub const DEADLINE: Duration = Duration::from_secs(3);
}

/// A CONNACK and what may follow it in one read.
const MAX_ANSWER: usize = 1024;

/// Sends a CONNECT and waits for the CONNACK. One that refuses is an answer as well: a broker at its limit of clients
/// is alive, and starting it again would cost the others their sessions.
pub(super) async fn answers(address: SocketAddr, credentials: &Credentials) -> Result<(), Silence> {
    timeout(Silence::DEADLINE, converse(address, credentials)).await.unwrap_or(Err(Silence::Late))
}

/// Connects to a listener and waits until it has accepted that connection: the kernel would also take it for a listener
/// that is stuck. An address that the machine does not have at the moment is not the broker's fault, and nothing could be
/// learned of its listener: `false`.
pub(super) async fn accepts(address: SocketAddr, looks: &Looks) -> Result<bool, Silence> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Err(error) = socket.bind(SocketAddr::new(address.ip(), 0)) {
        return if error.kind() == std::io::ErrorKind::AddrNotAvailable { Ok(false) } else { Err(error.into()) };
    }
    let look = looks.announce(socket.local_addr()?);
    let accepted = async {
        let _stream = socket.connect(address).await?;
        look.accepted().await.map_err(|_| std::io::Error::from(std::io::ErrorKind::ConnectionReset))
    };
    match timeout(Silence::DEADLINE, accepted).await {
        Ok(Ok(())) => Ok(true),
        Ok(Err(error)) if error.kind() != std::io::ErrorKind::TimedOut => Err(error.into()),
        Ok(Err(_)) | Err(_) => Err(Silence::Deaf(address)),
    }
}

async fn converse(address: SocketAddr, credentials: &Credentials) -> Result<(), Silence> {
    let mut stream = TcpStream::connect(address).await?;
    let mut outgoing = BytesMut::new();
    let mut connect = Connect::new(SELF_CHECK);
    connect.set_login(credentials.username(), credentials.password());
    connect.write(&mut outgoing).map_err(nonsense)?;
    stream.write_all(&outgoing).await?;
    let mut incoming = BytesMut::with_capacity(MAX_ANSWER);
    loop {
        match Packet::read(&mut incoming, MAX_ANSWER) {
            Ok(Packet::ConnAck(_)) => break,
            Ok(packet) => return Err(Silence::Nonsense(format!("{packet:?}"))),
            Err(CodecError::InsufficientBytes(_)) => {}
            Err(error) => return Err(nonsense(error)),
        }
        if stream.read_buf(&mut incoming).await? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
    }
    outgoing.clear();
    Packet::Disconnect.write(&mut outgoing, MAX_ANSWER).map_err(nonsense)?;
    // It has answered; whether it also takes the farewell proves nothing more.
    let _ = stream.write_all(&outgoing).await;
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn nonsense(error: CodecError) -> Silence {
    Silence::Nonsense(error.to_string())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn answered_with(answer: &'static [u8]) -> Result<(), Silence> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let peer = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut connect = [0; 64];
            let read = stream.read(&mut connect).await.unwrap();
            assert_eq!(connect[0], 0x10, "CONNECT");
            assert!(read > 14);
            stream.write_all(answer).await.unwrap();
        });
        let result = answers(address, &Credentials::new().unwrap()).await;
        peer.await.unwrap();
        result
    }

    #[tokio::test]
    async fn only_a_connack_is_an_answer() {
        assert!(answered_with(&[0x20, 2, 0, 0]).await.is_ok());
        assert!(answered_with(&[0x20, 2, 0, 3]).await.is_ok(), "a refusal is an answer");
        assert!(matches!(answered_with(&[0x40, 2, 0, 1]).await, Err(Silence::Nonsense(_))), "a PUBACK");
        assert!(matches!(answered_with(&[0, 0]).await, Err(Silence::Nonsense(_))), "no packet at all");
        assert!(matches!(answered_with(&[0x20, 2]).await, Err(Silence::Connection(_))), "closed in mid-packet");
    }
}
