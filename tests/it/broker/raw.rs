//! A client that writes its packets by hand, and one that shows that the broker still serves.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

pub(super) use super::packets::{Answer, Hello, packet, publish, subscribe};
use super::packets::{Packet, codes, message};
use crate::it::harness::{Agent, DEADLINE, take_packet, wait_until};

/// A connection to a port of this machine, on which nothing is waited for longer than the deadline.
pub(super) fn open(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("the broker listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    stream.set_nodelay(true).expect("at once");
    stream
}

/// Waits until the broker closes it; gives what it said before.
pub(super) fn closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest);
    let late = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
    assert!(!ended.as_ref().is_err_and(late), "the connection stays open");
    rest
}

pub(super) struct Raw {
    pub(super) stream: TcpStream,
    pub(super) version: u8,
    input: Vec<u8>,
    /// What came while an acknowledgement was waited for.
    early: VecDeque<Packet>,
}

impl Raw {
    /// Connects with a session that begins anew; gives the client, or the code of the refusal.
    pub(super) fn login(port: u16, version: u8, id: &str, user: Option<(&str, &str)>) -> Result<Self, u8> {
        let mut client = Self { stream: open(port), version, input: Vec::new(), early: VecDeque::new() };
        client.send(&Hello { user, ..Hello::new(version, id) }.packet());
        let (first, body) = client.next().expect("an answer to CONNECT");
        assert_eq!(first, 0x20, "a CONNACK");
        if body[1] == 0 { Ok(client) } else { Err(body[1]) }
    }

    pub(super) fn connect(port: u16, version: u8, id: &str) -> Self {
        Self::login(port, version, id, None).unwrap_or_else(|code| panic!("{id}: refused with {code:#x}"))
    }

    /// The next packet; `None`: the connection is closed.
    pub(super) fn next(&mut self) -> Option<Packet> {
        self.early.pop_front().or_else(|| self.read())
    }

    fn read(&mut self) -> Option<Packet> {
        let mut chunk = [0; 16 * 1024];
        loop {
            if let Some(packet) = take_packet(&mut self.input) {
                return Some(packet);
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(count) => self.input.extend_from_slice(&chunk[..count]),
                Err(error) => {
                    assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "the broker lets the client wait");
                    return None;
                }
            }
        }
    }

    /// The broker may have closed the connection.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Subscribes with QoS 1; gives the code of each filter.
    pub(super) fn subscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        self.send(&subscribe(self.version, filters));
        loop {
            match self.next().expect("an answer to SUBSCRIBE") {
                (0x90, body) => return codes(self.version, &body),
                (first, _) => assert_eq!(first & 0xf0, 0x30, "a message that was kept"),
            }
        }
    }

    /// Publishes with QoS 1.
    pub(super) fn publish(&mut self, topic: &str, payload: &[u8]) -> Answer {
        self.send(&publish(self.version, topic, payload, 1, 7));
        loop {
            let next = self.read();
            if let Some(answer) = Answer::of(next.as_ref()) {
                return answer;
            }
            self.early.extend(next);
        }
    }

    /// The payload of the next message, which is acknowledged.
    pub(super) fn message(&mut self) -> Vec<u8> {
        let (id, payload) = self.unacknowledged();
        if let Some(id) = id {
            self.send(&packet(0x40, &id));
        }
        payload
    }

    /// The number of the next message and its payload.
    pub(super) fn unacknowledged(&mut self) -> (Option<[u8; 2]>, Vec<u8>) {
        loop {
            let next = self.next().expect("a message");
            if let Some((_, id, payload)) = message(self.version, &next) {
                return (id, payload);
            }
        }
    }
}

/// A client that sends itself messages for as long as it lives, each when the one before has come: it is never
/// disconnected, whatever others do.
pub(super) struct Canary {
    rounds: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Canary {
    pub(super) fn start(port: u16, user: Option<(&'static str, &'static str)>) -> Self {
        let (rounds, ends): (Arc<AtomicUsize>, Arc<AtomicBool>) = Default::default();
        let mut client = Raw::login(port, 4, "canary", user).unwrap_or_else(|code| panic!("refused with {code:#x}"));
        assert_eq!(client.subscribe(&["canary"]), [1]);
        let (counted, told) = (Arc::clone(&rounds), Arc::clone(&ends));
        let sing = move || {
            while !told.load(Ordering::SeqCst) {
                let text = counted.load(Ordering::SeqCst).to_string();
                client.send(&publish(4, "canary", &text, 1, 7));
                assert_eq!(String::from_utf8_lossy(&client.message()), text);
                counted.fetch_add(1, Ordering::SeqCst);
            }
            let _ = client.stream.shutdown(Shutdown::Both);
        };
        Self { rounds, ends, thread: Some(std::thread::spawn(sing)) }
    }

    /// Waits until it has been served a few times more.
    #[track_caller]
    pub(super) fn sings(&self, after: &str) {
        let before = self.rounds.load(Ordering::SeqCst);
        wait_until(&format!("the canary, after {after}"), || {
            assert!(!self.thread.as_ref().is_some_and(JoinHandle::is_finished), "the canary is dead after {after}");
            self.rounds.load(Ordering::SeqCst) > before + 20
        });
    }

    /// Ends it; gives how often it was served.
    pub(super) fn end(mut self) -> usize {
        self.ends.store(true, Ordering::SeqCst);
        self.thread.take().map(JoinHandle::join).expect("it runs").expect("the canary is well");
        self.rounds.load(Ordering::SeqCst)
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
    }
}

/// What the kernel says of the program.
pub(super) struct Size {
    pub(super) kib: usize,
    pub(super) descriptors: usize,
}

impl Size {
    pub(super) fn of(agent: &Agent) -> Self {
        let folder = format!("/proc/{}", agent.pid());
        let status = std::fs::read_to_string(format!("{folder}/status")).expect("it runs");
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
        let kib = rss.trim().trim_end_matches(" kB").parse().expect("a number");
        let descriptors = std::fs::read_dir(format!("{folder}/fd")).expect("it runs").count();
        Self { kib, descriptors }
    }
}
