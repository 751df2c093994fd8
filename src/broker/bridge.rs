//! Bridges from other brokers, which say that they are: Mosquitto, and those that follow it, set the highest bit of the
//! protocol level in CONNECT. It is taken off on the way, because the broker crate knows no such level.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::peers::Peer;

/// The first byte of CONNECT (MQTT 3.1.1, 3.1.1).
const CONNECT: u8 = 0x10;
/// The bit in the protocol level.
const BRIDGE: u8 = 0x80;
/// The name of the protocol with its length (3.1.2.1).
const NAME: [u8; 6] = *b"\0\x04MQTT";

/// Where in CONNECT the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Kind,
    /// So many bytes of the length have come (2.2.3).
    Length(u8),
    Name(u8),
    Level,
    /// Nothing more is looked at.
    Done,
}

/// Looks through the first bytes of a connection.
#[derive(Debug)]
struct Look(Place);

impl Look {
    /// Takes the bit off, if it is in these bytes; says whether it was.
    fn through(&mut self, bytes: &mut [u8]) -> bool {
        for byte in bytes {
            self.0 = match self.0 {
                Place::Kind if *byte == CONNECT => Place::Length(0),
                Place::Length(count) if *byte & 0x80 != 0 && count < 3 => Place::Length(count + 1),
                Place::Length(_) if *byte & 0x80 == 0 => Place::Name(0),
                Place::Name(at) if NAME.get(usize::from(at)) == Some(byte) => {
                    if usize::from(at) + 1 == NAME.len() {
                        Place::Level
                    } else {
                        Place::Name(at + 1)
                    }
                }
                Place::Level => {
                    self.0 = Place::Done;
                    let is_bridge = *byte & BRIDGE != 0;
                    *byte &= !BRIDGE;
                    return is_bridge;
                }
                _ => Place::Done,
            };
            if self.0 == Place::Done {
                return false;
            }
        }
        false
    }
}

/// A client's stream, whose CONNECT is looked at.
pub(super) struct Introduced<S> {
    stream: S,
    look: Look,
    peer: Arc<Peer>,
}

impl<S> Introduced<S> {
    pub(super) fn new(stream: S, peer: Arc<Peer>) -> Self {
        Self { stream, look: Look(Place::Kind), peer }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Introduced<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, out))?;
        if self.look.0 != Place::Done && self.look.through(&mut out.filled_mut()[before..]) {
            self.peer.bridge.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Introduced<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Looks through chunks that are cut at these places; gives what came through, and whether it was a bridge.
    fn look(bytes: &[u8], chunk: usize) -> (Vec<u8>, bool) {
        let (mut look, mut bridge, mut bytes) = (Look(Place::Kind), false, bytes.to_vec());
        for part in bytes.chunks_mut(chunk.max(1)) {
            bridge |= look.through(part);
        }
        (bytes, bridge)
    }

    #[test]
    fn the_bit_is_seen_and_taken_off_wherever_the_bytes_are_cut() {
        for level in [4_u8, 5] {
            let plain = [&b"\x10\x90\x01\0\x04MQTT"[..], &[level, 0x82, 0, 60]].concat();
            let mut bridge = plain.clone();
            bridge[9] |= BRIDGE;
            for chunk in 1..=plain.len() {
                assert_eq!(look(&bridge, chunk), (plain.clone(), true));
                assert_eq!(look(&plain, chunk), (plain.clone(), false));
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_else_is_changed(bytes in prop::collection::vec(any::<u8>(), 0..40), chunk in 1_usize..10) {
            let (after, bridge) = look(&bytes, chunk);
            let differ = bytes.iter().zip(&after).filter(|(before, after)| before != after).count();
            prop_assert_eq!(differ, usize::from(bridge));
        }
    }
}
