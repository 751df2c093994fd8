//! A TCP forwarder that counts who comes through: how often a client tries is asked of neither client nor broker.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Forwards connections to a port. Its thread ends with the test's process.
pub(crate) struct Door {
    port: u16,
    count: Arc<AtomicUsize>,
}

impl Door {
    /// Opens a port that leads to `to`.
    pub(crate) fn to(to: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                counter.fetch_add(1, Ordering::SeqCst);
                // Without anybody behind it, the client sees its connection closed.
                if let Ok(server) = TcpStream::connect(("127.0.0.1", to)) {
                    join(&client, &server);
                }
            }
        });
        Self { port, count }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Connections so far.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

/// Copies both ways; the end of one side ends both.
pub(super) fn join(client: &TcpStream, server: &TcpStream) {
    for (from, to) in [(client, server), (server, client)] {
        let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { return };
        std::thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}
