//! Signals that the agent is sent.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM, SIGINT and SIGHUP.
pub(super) struct Signals {
    term: Signal,
    interrupt: Signal,
    hang_up: Signal,
    reloads: bool,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// An orderly end, by this signal.
    Stop(&'static str),
    /// That the configuration is read anew.
    Reload,
}

impl Signals {
    /// From now on they are waited for. `reloads`: SIGHUP asks for a reload; else it asks for the end, as it does of any
    /// program whose terminal is closed.
    pub(super) fn new(reloads: bool) -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            reloads,
        })
    }

    /// The next of them.
    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.term.recv() => Asked::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Asked::Stop("SIGINT"),
            _ = self.hang_up.recv() => if self.reloads { Asked::Reload } else { Asked::Stop("SIGHUP") },
        }
    }

    /// The next that asks for the end, by name. A SIGHUP that asks for a reload stays to be asked for.
    pub(super) async fn stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hang_up.recv(), if !self.reloads => "SIGHUP",
        }
    }
}
