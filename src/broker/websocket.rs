//! MQTT over WebSocket, from the server's side (MQTT 3.1.1, section 6).

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::websocket::{CHUNK, Socket};

/// Names of the subprotocol: that of the specification, and the one of clients for MQTT 3.1.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
/// What may wait inside of the codec: one message of ours that the socket did not take, and answers to pings.
const MAX_UNSENT: usize = 2 * CHUNK;
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
    Ok(Socket::new(socket))
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
    Ok(Socket::new(socket))
}
