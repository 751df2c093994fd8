//! A serial port with an Arduino of ours at its other end: it writes numbered lines and remembers them.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use super::{Gateway, MARK, wait_until};

/// The master side of a pseudo-terminal. Closing it unplugs the port.
///
/// Agents get the path of a link that goes first, as one below `/dev/serial/by-id` does: the kernel gives the number of
/// a pseudo-terminal that was closed to the next one that is opened, perhaps by another test, and an agent that is
/// still looking for its port must not find that one.
pub(crate) struct Port {
    // In this order: the link goes before the terminal.
    _folder: tempfile::TempDir,
    master: File,
    path: PathBuf,
    /// When each mark was written; the number of a mark is its index.
    sent: Vec<SystemTime>,
}

impl Port {
    /// Opens a pseudo-terminal in raw mode.
    pub(crate) fn open() -> Self {
        let master: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pty");
        grantpt(&master).expect("the pty is granted");
        unlockpt(&master).expect("the pty is unlocked");
        let name = ptsname(&master, Vec::new()).expect("the pty has a name");
        let path = PathBuf::from(name.into_string().expect("the name is ASCII"));
        let mut settings = tcgetattr(&master).expect("the pty has settings");
        settings.make_raw();
        tcsetattr(&master, OptionalActions::Now, &settings).expect("the pty can be raw");
        // A pty whose other end was never open does not report that it is closed: see `is_open`.
        drop(File::open(&path).expect("the other end opens"));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let link = folder.path().join("port");
        std::os::unix::fs::symlink(path, &link).expect("a link can be made");
        Self { _folder: folder, master: File::from(master), path: link, sent: Vec::new() }
    }

    /// What to write as `port` into a configuration.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Does anybody hold the other end open?
    pub(crate) fn is_open(&self) -> bool {
        let mut fds = [PollFd::new(&self.master, PollFlags::OUT)];
        let _ = poll(&mut fds, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 }));
        !fds[0].revents().contains(PollFlags::HUP)
    }

    /// The end that the Arduino writes to.
    pub(crate) fn master(&mut self) -> &mut File {
        &mut self.master
    }

    /// Writes a line as it is.
    pub(crate) fn write_line(&mut self, line: &str) {
        self.master.write_all(format!("{line}\n").as_bytes()).expect("the pty takes a line");
    }

    /// Writes the next `count` numbered lines: a text that tells the number, and a number that differs from the last.
    pub(crate) fn send(&mut self, count: usize) {
        for _ in 0..count {
            let number = self.sent.len();
            self.sent.push(SystemTime::now());
            self.write_line(&format!("{{\"mark\":\"{MARK}{number:08}\",\"level\":{number}.5}}"));
        }
    }

    /// Number of the next mark.
    pub(crate) fn next(&self) -> u32 {
        u32::try_from(self.sent.len()).expect("few marks")
    }

    /// When the mark was written.
    pub(crate) fn sent_at(&self, mark: u32) -> SystemTime {
        self.sent[mark as usize]
    }

    /// Writes lines until the outbox holds one of them: the port is open and read. What was written before may have
    /// met a port that was not open yet, and belongs to the kernel. Gives the first mark that was taken.
    #[track_caller]
    pub(crate) fn send_until_taken(&mut self, gateway: &Gateway) -> u32 {
        let first = self.next();
        wait_until("the agent to open the port", || self.is_open());
        let mut taken = None;
        wait_until("a line to be taken", || {
            self.send(1);
            taken = gateway.marks_held().into_iter().find(|mark| *mark >= first);
            taken.is_some()
        });
        taken.expect("the wait ended because there was one")
    }

    /// Waits until the outbox holds the last line written. Lines are read in order, so all before it were taken too.
    /// Only of use while nothing is acknowledged: what is acknowledged may leave the outbox.
    #[track_caller]
    pub(crate) fn wait_all_taken(&self, gateway: &Gateway) {
        let last = self.next() - 1;
        wait_until("the last line to be taken", || gateway.marks_held().last() == Some(&last));
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.master.as_fd()
    }
}
