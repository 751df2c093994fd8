//! From a URL to a connected stream: interface, TCP, proxy, TLS, WebSocket.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::config::{BrokerUrl, UplinkConfig};

use super::access::Access;
use super::expiry::Expiry;
use super::{Failure, proxy, tls, websocket};

/// An attempt to connect may take so long, from the name to CONNACK.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// One address may take so long, where a name has several.
const ADDRESS_DEADLINE: Duration = Duration::from_secs(10);

/// The kernel gives up on bytes that the other side does not confirm after one and a half keep-alive intervals, but
/// not sooner than this: a mobile network may be away for some seconds.
const LEAST_USER_TIMEOUT: Duration = Duration::from_secs(10);

/// ... and not later than this. By itself it would try for a quarter of an hour (tcp(7), `tcp_retries2`).
const MOST_USER_TIMEOUT: Duration = Duration::from_secs(300);

/// A connection to a broker, with TLS or without.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// Connects. Gives the expiry of every certificate that is involved, too.
///
/// # Errors
/// What was tried and why it did not work.
pub async fn dial(
    url: &BrokerUrl,
    config: &UplinkConfig,
    access: &Access,
) -> Result<(Box<dyn Stream>, Vec<Expiry>), Failure> {
    let (stream, expiries) = secured(url, config, access).await?;
    let Some(path) = &url.websocket else { return Ok((stream, expiries)) };
    let opened = websocket::connect(url, path, config.max_packet, stream).await;
    let socket = opened.map_err(|error| Failure::io(&error, name(url, config)))??;
    Ok((Box::new(socket), expiries))
}

/// Looks whether a broker can be reached at all: up to TLS and no further.
///
/// # Errors
/// Why not.
pub async fn probe(url: &BrokerUrl, config: &UplinkConfig, access: &Access) -> Result<(), Failure> {
    let (mut stream, _) = secured(url, config, access).await?;
    // Whatever the other side makes of it, it was there.
    let _ = stream.shutdown().await;
    Ok(())
}

/// The name that the broker's certificate must be for, and for messages about TLS.
#[must_use]
pub fn name<'a>(url: &'a BrokerUrl, config: &'a UplinkConfig) -> &'a str {
    config.tls.server_name.as_deref().unwrap_or(&url.host)
}

async fn secured(
    url: &BrokerUrl,
    config: &UplinkConfig,
    access: &Access,
) -> Result<(Box<dyn Stream>, Vec<Expiry>), Failure> {
    let stream = match &config.proxy {
        None => tcp(&url.host, url.port, config).await?,
        Some(proxy) => {
            let mut stream = tcp(&proxy.host, proxy.port, config).await?;
            let login = proxy.username.as_deref().map(|name| (name, access.proxy_password.as_ref()));
            proxy::connect(&mut stream, &url.authority(), login).await?;
            stream
        }
    };
    let Some(prepared) = &access.tls else { return Ok((Box::new(stream), Vec::new())) };
    let (stream, server) = tls::connect(prepared, name(url, config), stream).await?;
    let expiries = prepared.expiries.iter().cloned().chain(server).collect();
    Ok((Box::new(stream), expiries))
}

async fn tcp(host: &str, port: u16, config: &UplinkConfig) -> Result<TcpStream, Failure> {
    let unresolved = |error: String| Failure::Resolve { host: host.to_owned(), error };
    let found = tokio::net::lookup_host((host, port)).await;
    let addresses: Vec<SocketAddr> = found.map_err(|error| unresolved(error.to_string()))?.collect();
    let mut failure = unresolved("it has no address".to_owned());
    for address in addresses {
        let socket = socket(address, config)?;
        let error = match tokio::time::timeout(ADDRESS_DEADLINE, socket.connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", ADDRESS_DEADLINE.as_secs()),
        };
        failure = Failure::Tcp { address, error };
    }
    Err(failure)
}

fn socket(address: SocketAddr, config: &UplinkConfig) -> Result<TcpSocket, Failure> {
    let lost = |error: io::Error| Failure::Lost(error.to_string());
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(lost)?;
    if let Some(name) = &config.interface {
        socket.bind_device(Some(name.as_bytes())).map_err(|error| Failure::Interface {
            name: name.clone(),
            reason: if error.raw_os_error() == Some(libc::ENODEV) {
                "there is none of that name (`ip link` lists them)".to_owned()
            } else {
                error.to_string()
            },
        })?;
    }
    // Messages are batched here; the kernel holding back the last one would only delay it.
    socket.set_nodelay(true).map_err(lost)?;
    let timeout = (config.keep_alive + config.keep_alive / 2).clamp(LEAST_USER_TIMEOUT, MOST_USER_TIMEOUT);
    let millis = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(&socket, millis).map_err(|error| lost(error.into()))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Qos;
    use crate::uplink::scripted::{any_port, config, run};

    #[test]
    fn the_kernel_gives_up_in_time() {
        run(async {
            for (keep_alive, millis) in [(0, 10_000), (30, 45_000), (65_535, 300_000)] {
                let mut config = config(Qos::AtLeastOnce, 1);
                config.keep_alive = Duration::from_secs(keep_alive);
                config.interface = Some("lo".to_owned());
                let socket = socket(any_port(), &config).expect("a socket");
                assert_eq!(rustix::net::sockopt::tcp_user_timeout(&socket), Ok(millis));
                assert_eq!(socket.device().expect("readable").as_deref(), Some(&b"lo"[..]));
            }
        });
    }
}
