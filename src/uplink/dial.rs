//! From a URL to a connected stream.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::config::{BrokerUrl, TlsConfig};

use super::expiry::Expiry;
use super::{Failure, tls};

/// An attempt to connect may take so long, from the name to CONNACK.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// One address may take so long, where a name has several.
const ADDRESS_DEADLINE: Duration = Duration::from_secs(10);

/// A connection to a broker, with TLS or without.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// Connects. Gives the expiry of every certificate that is involved, too. `now` is what certificates are checked
/// against.
///
/// # Errors
/// What was tried and why it did not work.
pub async fn dial(
    url: &BrokerUrl,
    settings: Option<&TlsConfig>,
    now: SystemTime,
) -> Result<(Box<dyn Stream>, Vec<Expiry>), Failure> {
    if !url.tls {
        return Ok((Box::new(tcp(url).await?), Vec::new()));
    }
    let settings = settings.cloned().unwrap_or_default();
    let prepared = tokio::task::spawn_blocking(move || tls::prepare(&settings, now))
        .await
        .map_err(|_| Failure::Lost("reading the certificates was broken off".to_owned()))??;
    let (stream, server) = tls::connect(&prepared, &url.host, tcp(url).await?).await?;
    let expiries = prepared.expiries.into_iter().chain(server).collect();
    Ok((Box::new(stream), expiries))
}

async fn tcp(url: &BrokerUrl) -> Result<TcpStream, Failure> {
    let unresolved = |error: String| Failure::Resolve { host: url.host.clone(), error };
    let found = tokio::net::lookup_host((url.host.as_str(), url.port)).await;
    let addresses: Vec<SocketAddr> = found.map_err(|error| unresolved(error.to_string()))?.collect();
    let mut failure = unresolved("it has no address".to_owned());
    for address in addresses {
        let error = match tokio::time::timeout(ADDRESS_DEADLINE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Messages are batched here; the kernel holding back the last one would only delay it.
                stream.set_nodelay(true).map_err(|error| Failure::Lost(error.to_string()))?;
                return Ok(stream);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", ADDRESS_DEADLINE.as_secs()),
        };
        failure = Failure::Tcp { address, error };
    }
    Err(failure)
}
