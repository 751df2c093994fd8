//! The built program as a child process.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{DEADLINE, Lines, wait_for};

/// A running `vigie`. Killed when dropped.
pub(crate) struct Agent {
    child: Child,
    #[cfg_attr(not(feature = "broker"), expect(dead_code, reason = "the demonstration's tests read it"))]
    pub(crate) out: Lines,
    pub(crate) log: Lines,
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
}

/// The program with arguments, in an environment without what a service manager or a desktop would set.
pub(crate) fn command(args: &[&str], home: &Path) -> Command {
    command_through(&[], args, home)
}

/// The same, started by another program, which is given with its arguments.
pub(crate) fn command_through(other: &[&str], args: &[&str], home: &Path) -> Command {
    let mut words = other.iter().chain(&[env!("CARGO_BIN_EXE_vigie")]).chain(args);
    let mut command = Command::new(words.next().expect("at least the program"));
    command.args(words).env_clear().env("HOME", home).env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Agent {
    /// Starts it, with nothing but `home` and the search path in its environment.
    pub(crate) fn start(args: &[&str], home: &Path) -> Self {
        Self::spawn(&mut command(args, home))
    }

    /// Starts what [`command_through`] has made.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("vigie starts");
        let (out, log) = (Lines::default(), Lines::default());
        out.collect(child.stdout.take().expect("a pipe was asked for"));
        log.collect(child.stderr.take().expect("a pipe was asked for"));
        Self { child, out, log }
    }

    /// Waits until a line of the log contains `part`; fails with the whole log, at once if the program has ended.
    #[track_caller]
    pub(crate) fn wait_log(&mut self, part: &str) {
        self.wait_log_times(part, 1);
    }

    /// Waits until that many lines of the log contain `part`.
    #[track_caller]
    pub(crate) fn wait_log_times(&mut self, part: &str, times: usize) {
        let start = std::time::Instant::now();
        while self.log.count(part) < times {
            let ended = self.child.try_wait().expect("a child can be waited for");
            assert!(
                ended.is_none() && start.elapsed() < DEADLINE,
                "no {times} log lines with {part:?} ({ended:?}); log:\n{}",
                self.log.text()
            );
            std::thread::sleep(super::POLL);
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the process is our child and was not waited for");
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> Exit {
        let status = wait_for("the agent's end", || self.child.try_wait().expect("a child can be waited for"));
        exit(status)
    }

    /// SIGTERM, and waits.
    #[track_caller]
    pub(crate) fn terminate(&mut self) -> Exit {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// SIGKILL, and waits.
    #[track_caller]
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        assert_eq!(self.wait(), Exit::Signal(9));
    }
}

fn exit(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => panic!("ended without code or signal: {status:?}"),
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the agent's log\n{}", self.log.text());
        }
    }
}
