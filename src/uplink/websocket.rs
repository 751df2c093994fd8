//! MQTT over WebSocket, from the client's side (MQTT 3.1.1, section 6).

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::config::BrokerUrl;
use crate::websocket::{CHUNK, Socket};

/// The subprotocol's name (MQTT 3.1.1, section 6; also MQTT 5).
const SUBPROTOCOL: &str = "mqtt";

/// A message from the broker may be so long at least, also where `max_packet` is smaller: it may hold many packets.
const LEAST_MESSAGE: usize = 64 * 1_024;

/// Bytes for which there is room at each read.
const READ_SIZE: usize = 8 * 1_024;

/// What may wait inside of the codec: one message of ours that the socket did not take, and answers to pings.
const MAX_UNSENT: usize = 4 * CHUNK;

/// Why the endpoint does not speak MQTT with us.
#[derive(Debug, thiserror::Error)]
pub enum WebSocketError {
    /// An HTTP answer other than 101.
    #[error(
        "the server answers with HTTP status {status} instead of opening a WebSocket: check the path `{path}` in `url`"
    )]
    Status {
        /// Its code.
        status: u16,
        /// What we asked for, without query.
        path: String,
    },
    /// It opens one, but not for MQTT.
    #[error("the WebSocket at the path `{path}` does not offer MQTT (subprotocol `mqtt`): check the path in `url`")]
    Subprotocol {
        /// What we asked for, without query.
        path: String,
    },
    /// It says nothing.
    #[error("the server closed the connection instead of opening a WebSocket: is this a WebSocket's port?")]
    Closed,
    /// Anything else.
    #[error("no WebSocket: {0}")]
    Other(String),
}

/// Opens the WebSocket of a URL over a connected stream; messages longer than `max_packet` are refused.
///
/// # Errors
/// What the server says instead; what went wrong below stays an I/O error.
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    url: &BrokerUrl,
    path: &str,
    max_packet: u32,
    stream: S,
) -> io::Result<Result<Socket<S>, WebSocketError>> {
    let scheme = if url.tls { "wss" } else { "ws" };
    let other = |error: &dyn std::fmt::Display| WebSocketError::Other(error.to_string());
    let mut request = match format!("{scheme}://{}{path}", url.authority()).into_client_request() {
        Ok(request) => request,
        Err(error) => return Ok(Err(other(&error))),
    };
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    let most = usize::try_from(max_packet).unwrap_or(usize::MAX).max(LEAST_MESSAGE);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_SIZE)
        .write_buffer_size(READ_SIZE)
        .max_write_buffer_size(MAX_UNSENT)
        .max_message_size(Some(most))
        .max_frame_size(Some(most));
    let path = || path.split('?').next().unwrap_or_default().to_owned();
    match tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await {
        Ok((socket, _)) => Ok(Ok(Socket::new(socket))),
        Err(Error::Io(error)) if is_end(&error) => Ok(Err(WebSocketError::Closed)),
        Err(Error::Protocol(ProtocolError::HandshakeIncomplete)) => Ok(Err(WebSocketError::Closed)),
        Err(Error::Io(error)) => Err(error),
        Err(Error::Http(answer)) => Ok(Err(WebSocketError::Status { status: answer.status().as_u16(), path: path() })),
        Err(Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_))) => {
            Ok(Err(WebSocketError::Subprotocol { path: path() }))
        }
        Err(error) => Ok(Err(other(&error))),
    }
}

fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::{SinkExt, StreamExt};
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
    use tokio_tungstenite::tungstenite::protocol::Message;

    use super::*;

    fn url() -> BrokerUrl {
        BrokerUrl { websocket: Some("/mqtt".to_owned()), ..BrokerUrl::of(([127, 0, 0, 1], 80).into()) }
    }

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test)
    }

    #[expect(clippy::result_large_err, reason = "the codec's own signature")]
    fn offer_mqtt(
        request: &Request,
        mut answer: Response,
    ) -> Result<Response, tokio_tungstenite::tungstenite::handshake::server::ErrorResponse> {
        assert_eq!(request.uri().path(), "/mqtt");
        assert_eq!(request.headers()[SEC_WEBSOCKET_PROTOCOL], "mqtt");
        answer.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("mqtt"));
        Ok(answer)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// However the bytes are cut into messages and the stream into pieces, the same bytes come out.
        #[test]
        fn bytes_go_both_ways(
            to_broker in proptest::collection::vec(any::<u8>(), 0..200_000),
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3_000), 0..10),
            pipe in 1..5_000_usize,
        ) {
            let from_broker = messages.concat();
            let (expected_here, expected_there) = (from_broker.len(), to_broker.len());
            let (ours, theirs) = tokio::io::duplex(pipe.max(64));
            let client = async {
                let mut socket = connect(&url(), "/mqtt", 1_024, ours).await.expect("a stream").expect("a socket");
                let mut received = vec![0; expected_here];
                let (mut read, mut write) = tokio::io::split(&mut socket);
                let (sent, got) = tokio::join!(
                    async { write.write_all(&to_broker).await?; write.flush().await },
                    read.read_exact(&mut received)
                );
                sent.expect("written");
                got.expect("read");
                // Both stay open until both have said all, answers to pings included.
                (received, socket)
            };
            let broker = async {
                let socket = tokio_tungstenite::accept_hdr_async(theirs, offer_mqtt).await.expect("a handshake");
                let (mut write, mut read) = socket.split();
                let send = async {
                    for message in messages {
                        write.send(Message::Ping(Bytes::new())).await.expect("sent");
                        write.send(Message::Binary(message.into())).await.expect("sent");
                    }
                };
                let receive = async {
                    let mut received = Vec::new();
                    while received.len() < expected_there {
                        match read.next().await {
                            Some(Ok(Message::Binary(bytes))) => received.extend_from_slice(&bytes),
                            Some(Ok(_)) => {}
                            other => panic!("{other:?}"),
                        }
                    }
                    received
                };
                let received = tokio::join!(send, receive).1;
                (received, (write, read))
            };
            let ((here, _open), (there, _also)) = run(async { tokio::join!(client, broker) });
            prop_assert!(here == from_broker && there == to_broker);
        }

        #[test]
        fn no_bytes_of_a_server_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), upgraded: bool) {
            run(async {
                let (ours, mut theirs) = tokio::io::duplex(64 * 1_024);
                let client = async {
                    if upgraded {
                        let role = tokio_tungstenite::tungstenite::protocol::Role::Client;
                        let socket = WebSocketStream::from_raw_socket(ours, role, None).await;
                        let mut sink = Vec::new();
                        let _ = Socket::new(socket).read_to_end(&mut sink).await;
                    } else {
                        assert!(!matches!(connect(&url(), "/mqtt", 1_024, ours).await, Ok(Ok(_))));
                    }
                };
                let server = async {
                    let _ = theirs.write_all(&bytes).await;
                    drop(theirs);
                };
                tokio::join!(client, server);
            });
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_words() {
        for (answer, expected) in [
            ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "HTTP status 404"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "HTTP status 200"),
            ("SSH-2.0-server\r\n\r\n", "no WebSocket"),
            ("", "is this a WebSocket's port?"),
        ] {
            let (ours, mut theirs) = tokio::io::duplex(4_096);
            let server = async {
                theirs.write_all(answer.as_bytes()).await.expect("written");
                (!answer.is_empty()).then_some(theirs)
            };
            let url = url();
            let client = connect(&url, "/mqtt?token=x", 1_024, ours);
            let (result, _open) = run(async { tokio::join!(client, server) });
            let error = result.expect("a stream").map(|_| ()).expect_err(expected).to_string();
            assert!(error.contains(expected) && !error.contains("token"), "{error}");
        }
    }

    #[test]
    fn a_message_that_is_too_long_and_a_text_are_refused() {
        for message in [Message::Binary(vec![0; LEAST_MESSAGE + 1].into()), Message::text("hello")] {
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            let client = async {
                let mut socket = connect(&url(), "/mqtt", 1_024, ours).await.expect("a stream").expect("a socket");
                socket.read_u8().await.expect_err("refused")
            };
            let broker = async {
                let mut socket = tokio_tungstenite::accept_hdr_async(theirs, offer_mqtt).await.expect("a handshake");
                socket.send(message).await.expect("sent");
                socket
            };
            let (error, _open) = run(async { tokio::join!(client, broker) });
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
