//! The command line's end of the socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{Answer, MAX_ANSWER, Request};

/// How long the agent may be silent. It answers in pieces, between its other work.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a running agent.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// `NotFound` or `ConnectionRefused`: no agent runs there. `PermissionDenied`: it is not for us.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks for something.
    ///
    /// # Errors
    /// The agent has gone.
    pub fn ask(&mut self, request: &Request) -> io::Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)
    }

    /// The next answer.
    ///
    /// # Errors
    /// The agent has gone, is silent for too long, or says something that is no answer.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.stream).take(MAX_ANSWER as u64);
        bounded.read_until(b'\n', &mut line).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                io::Error::other(format!("the agent has not answered for {} s", PATIENCE.as_secs()))
            }
            _ => error,
        })?;
        if line.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the agent ended in the middle of its answer"));
        }
        serde_json::from_slice(&line).map_err(|error| {
            io::Error::other(format!("the agent's answer is not understood ({error}): is it of another version?"))
        })
    }
}
