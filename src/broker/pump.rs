//! Carries bytes between a client and the broker, without a buffer for a connection that says nothing.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

/// Bytes that are carried at once, on the stack; what the other end does not take at once is kept until it does.
const CHUNK: usize = 8 * 1024;
/// How long the broker may go on to send after the client has ended its side.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Carries bytes both ways until one end closes, or it is `enough`. When the client closes, the broker hears of it, and
/// may still say something; when the broker does, the client gets what was on its way, and then the `farewell`, if there
/// is one. When it is enough, the client is no longer listened to, and the broker closes.
pub(super) async fn carry<C, B>(
    client: C,
    broker: B,
    enough: impl Future<Output = ()>,
    farewell: impl Future<Output = Option<[u8; 3]>>,
) where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_broker, mut to_broker) = tokio::io::split(broker);
    let broker_ended = {
        let mut down = std::pin::pin!(pump(&mut from_broker, &mut to_client));
        let up = pump(&mut from_client, &mut to_broker);
        let end = tokio::select! {
            end = &mut down => End::Broker(end.is_ok()),
            _ = up => End::Client,
            () = enough => End::Enough,
        };
        if let End::Broker(whole) = end {
            whole
        } else {
            // An error here, and below, means that the connection is gone, which is what we are about.
            let _ = to_broker.shutdown().await;
            let last_words = tokio::time::timeout(LAST_WORDS, down).await;
            matches!((end, last_words), (End::Enough, Ok(Ok(()))))
        }
    };
    // The broker ends with a whole packet.
    if broker_ended && let Some(packet) = farewell.await {
        let _ = tokio::time::timeout(LAST_WORDS, to_client.write_all(&packet)).await;
    }
    let _ = tokio::time::timeout(LAST_WORDS, to_client.shutdown()).await;
}

/// What came first.
enum End {
    /// The broker has closed, and what it said was passed on as a whole, or not.
    Broker(bool),
    Client,
    Enough,
}

/// Carries bytes one way until the end.
async fn pump(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let mut left: Vec<u8> = Vec::new();
    let mut written = 0;
    let mut flushed = true;
    poll_fn(|context| {
        loop {
            while written < left.len() {
                let count = ready!(Pin::new(&mut *to).poll_write(context, &left[written..]))?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                written += count;
            }
            // Most of the time there is nothing, so that an idle connection has no buffer.
            left = Vec::new();
            written = 0;
            match step(from, to, context, &mut left, &mut flushed) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(end) => return Poll::Ready(end.map(drop)),
                Poll::Pending => {
                    if !flushed {
                        ready!(Pin::new(&mut *to).poll_flush(context))?;
                        flushed = true;
                    }
                    return Poll::Pending;
                }
            }
        }
    })
    .await
}

/// Reads once and writes as much of it as there is room for; the rest goes into `left`. `false`: the end.
fn step(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    context: &mut Context<'_>,
    left: &mut Vec<u8>,
    flushed: &mut bool,
) -> Poll<io::Result<bool>> {
    let mut bytes = [0; CHUNK];
    let mut chunk = ReadBuf::new(&mut bytes);
    ready!(Pin::new(from).poll_read(context, &mut chunk))?;
    let mut rest = chunk.filled();
    if rest.is_empty() {
        return Poll::Ready(Ok(false));
    }
    *flushed = false;
    while !rest.is_empty() {
        match Pin::new(&mut *to).poll_write(context, rest)? {
            Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(count) => rest = &rest[count..],
            Poll::Pending => {
                left.extend_from_slice(rest);
                break;
            }
        }
    }
    Poll::Ready(Ok(true))
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;

    #[tokio::test]
    async fn everything_arrives_in_both_directions_through_a_narrow_way() {
        let (client, outer) = duplex(7);
        let (inner, broker) = duplex(11);
        let carrying = tokio::spawn(carry(outer, inner, pending(), async { Some([1, 2, 3]) }));
        let sent: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        let (expected, answer) = (sent.clone(), sent.iter().rev().copied().collect::<Vec<u8>>());
        let answered = answer.clone();
        let (mut client_reads, mut client_writes) = tokio::io::split(client);
        let (mut broker_reads, mut broker_writes) = tokio::io::split(broker);
        let up = tokio::spawn(async move {
            client_writes.write_all(&sent).await.unwrap();
            client_writes.shutdown().await.unwrap();
        });
        let at_broker = tokio::spawn(async move {
            let mut got = Vec::new();
            broker_reads.read_to_end(&mut got).await.unwrap();
            broker_writes.write_all(&answer).await.unwrap();
            broker_writes.shutdown().await.unwrap();
            got
        });
        let mut got = Vec::new();
        client_reads.read_to_end(&mut got).await.unwrap();
        assert!(got == answered, "what the broker says after the client has ended its side");
        assert!(at_broker.await.unwrap() == expected);
        up.await.unwrap();
        carrying.await.unwrap();
    }

    /// The broker's last words arrive, what the client is told then, and the end.
    async fn says_bye(mut broker: DuplexStream, mut client: DuplexStream) {
        broker.write_all(b"bye").await.unwrap();
        drop(broker);
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"bye\x01\x02\x03");
    }

    #[tokio::test]
    async fn the_client_is_closed_when_the_broker_closes() {
        let (client, outer) = duplex(64);
        let (inner, broker) = duplex(64);
        let carrying = tokio::spawn(carry(outer, inner, pending(), async { Some([1, 2, 3]) }));
        says_bye(broker, client).await;
        carrying.await.unwrap();
    }

    #[tokio::test]
    async fn when_it_is_enough_the_broker_may_finish_and_the_client_is_told() {
        let (mut client, outer) = duplex(64);
        let (inner, mut broker) = duplex(64);
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let enough = async {
            ended.await.unwrap();
        };
        let carrying = tokio::spawn(carry(outer, inner, enough, async { Some([1, 2, 3]) }));
        client.write_all(b"hello").await.unwrap();
        let mut got = [0; 5];
        broker.read_exact(&mut got).await.unwrap();
        end.send(()).unwrap();
        assert_eq!(broker.read(&mut got).await.unwrap(), 0, "it hears nothing more");
        says_bye(broker, client).await;
        carrying.await.unwrap();
    }
}
