//! An HTTP proxy that opens connections (CONNECT), asks for a password, and alone knows where the names lead.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use super::door::join;

/// Longest request that it reads.
const MAX_REQUEST: usize = 4_096;

/// A proxy for one name. Its thread ends with the test's process.
pub(crate) struct Proxy {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Lets those through to `target` (`host:port` as they must ask for it) who have this in `Proxy-Authorization`;
    /// that leads to the port `to` of this machine.
    pub(crate) fn start(target: &str, to: u16, authorization: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let (seen, target) = (Arc::clone(&requests), target.to_owned());
        let login = format!("Proxy-Authorization: {authorization}");
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let Some(request) = read_request(&mut client) else { continue };
                let first = request.lines().next().unwrap_or_default().to_owned();
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(first.clone());
                let answer = if !request.lines().any(|line| line == login) {
                    "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n"
                } else if first != format!("CONNECT {target} HTTP/1.1") {
                    "HTTP/1.1 403 Forbidden\r\n\r\n"
                } else {
                    "HTTP/1.1 200 Connection established\r\n\r\n"
                };
                // Whoever hangs up meanwhile is not our concern.
                let _ = client.write_all(answer.as_bytes());
                if answer.starts_with("HTTP/1.1 200")
                    && let Ok(server) = TcpStream::connect(("127.0.0.1", to))
                {
                    join(&client, &server);
                }
            }
        });
        Self { port, requests }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The first lines of all requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Reads up to the empty line; `None` for what is no request.
fn read_request(client: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        if request.len() == MAX_REQUEST || client.read(&mut byte).ok()? == 0 {
            return None;
        }
        request.push(byte[0]);
    }
    String::from_utf8(request).ok()
}
