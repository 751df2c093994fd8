//! A TCP proxy between one agent and its broker that reads along: every PUBLISH and every acknowledgement goes into a
//! [`Ledger`] before it is passed on.
//!
//! *Before* is what makes the ledger a witness: what the agent knows, it was told in bytes that were recorded first,
//! and what the broker acknowledged, it acknowledged after the PUBLISH was recorded. What was recorded may still get
//! lost on its way to the other side, so that the ledger never knows less than the agent, and may know more.
//! Connections are served one after the other, each to the last byte that its agent left behind.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ledger::{From, Ledger};
use super::wire;

/// The proxy. Its threads end with the test's process.
pub(crate) struct Recorder {
    port: u16,
    ledger: Arc<Mutex<Ledger>>,
}

impl Recorder {
    /// Opens a port that leads to `to` on this machine.
    pub(crate) fn to(to: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let ledger = Arc::<Mutex<Ledger>>::default();
        let shared = Arc::clone(&ledger);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // Without a broker behind it, the agent sees its connection closed.
                if let Ok(server) = TcpStream::connect(("127.0.0.1", to)) {
                    serve(&client, &server, &shared);
                }
            }
        });
        Self { port, ledger }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What has been recorded so far.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Passes on both ways until one side has ended and nothing is left of what it sent.
fn serve(client: &TcpStream, server: &TcpStream, ledger: &Mutex<Ledger>) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    std::thread::scope(|scope| {
        scope.spawn(|| pump(From::Broker, server, client, ledger));
        pump(From::Agent, client, server, ledger);
    });
}

fn pump(side: From, mut from: &TcpStream, mut to: &TcpStream, ledger: &Mutex<Ledger>) {
    let (mut input, mut chunk) = (Vec::new(), [0; 16 * 1024]);
    let mut open = true;
    while open {
        let read = match from.read(&mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        input.extend_from_slice(&chunk[..read]);
        {
            let ledger = &mut *lock(ledger);
            while let Some(packet) = wire::take(&mut input) {
                ledger.record(side, packet);
            }
        }
        open = to.write_all(&chunk[..read]).is_ok();
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
