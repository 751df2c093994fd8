//! MQTT over WebSocket, from the server's side (MQTT 3.1.1, section 6): a stream of bytes in binary messages.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};

/// Names of the subprotocol: that of the specification, and the one of clients for MQTT 3.1.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
/// What may wait inside of the codec: what was written at once, and answers to pings.
const MAX_UNSENT: usize = 64 * 1024;
/// Bytes for which there is room at each read.
const READ_SIZE: usize = 4 * 1024;
/// How much longer a message from a client may be than the largest packet: it may hold many packets or a part of one,
/// but clients mostly send each packet as one.
const MESSAGE_ABOVE_PACKET: usize = 64 * 1024;

/// The longest message from a client, in bytes, where packets may be so long.
pub(super) fn longest_message(packet: u32) -> usize {
    usize::try_from(packet).unwrap_or(usize::MAX).saturating_add(MESSAGE_ABOVE_PACKET)
}

/// Does the HTTP part; any path will do. A longer message than that closes the connection.
pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(stream: S, longest: usize) -> Result<Socket<S>, Error> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_SIZE)
        .write_buffer_size(READ_SIZE)
        .max_write_buffer_size(MAX_UNSENT)
        .max_message_size(Some(longest))
        .max_frame_size(Some(longest));
    let socket = tokio_tungstenite::accept_hdr_async_with_config(stream, choose, Some(config)).await?;
    Ok(Socket { socket, unread: Bytes::new() })
}

#[expect(clippy::result_large_err, reason = "the shape that the library wants")]
fn choose(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let offered = request.headers().get_all(SEC_WEBSOCKET_PROTOCOL);
    let offered = offered.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let known = offered.map(str::trim).find_map(|offer| SUBPROTOCOLS.into_iter().find(|known| *known == offer));
    match known {
        Some(known) => {
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(known));
            Ok(response)
        }
        None => {
            // MQTT 3.1.1, [MQTT-6.0.0-3].
            let mut refusal =
                ErrorResponse::new(Some("This is an MQTT broker: ask for the subprotocol `mqtt`.\n".into()));
            *refusal.status_mut() = StatusCode::BAD_REQUEST;
            Err(refusal)
        }
    }
}

/// The bytes of the binary messages of a WebSocket.
#[derive(Debug)]
pub(super) struct Socket<S> {
    socket: WebSocketStream<S>,
    /// What is left of the last message.
    unread: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Socket<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(context)) {
                Some(Ok(Message::Binary(bytes))) => self.unread = bytes,
                // The codec answers them.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                None | Some(Ok(Message::Close(_))) => return Poll::Ready(Ok(())),
                Some(Ok(Message::Text(_))) => {
                    // MQTT 3.1.1, [MQTT-6.0.0-1].
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a text over the WebSocket")));
                }
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
            }
        }
        let length = self.unread.len().min(out.remaining());
        out.put_slice(&self.unread.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(context)).map_err(io_error)?;
        let message = Message::Binary(Bytes::copy_from_slice(bytes));
        Pin::new(&mut self.socket).start_send(message).map_err(io_error)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context).map_err(io_error)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(context).map_err(io_error)
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::ConnectionAborted.into(),
        other => io::Error::other(other.to_string()),
    }
}

/// The client's side, for tests.
#[cfg(test)]
pub(super) async fn connect(
    stream: tokio::net::TcpStream,
    address: std::net::SocketAddr,
    subprotocol: &'static str,
) -> Result<Socket<tokio::net::TcpStream>, Error> {
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;

    let mut request = format!("ws://{address}/mqtt").into_client_request()?;
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
    let (socket, _) = tokio_tungstenite::client_async(request, stream).await?;
    Ok(Socket { socket, unread: Bytes::new() })
}
