//! A Mosquitto of our own: own port, own store, own configuration; the machine's service is never touched.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{Lines, free_port, wait_for, wait_until};

/// A broker that can be stopped and started again on the same port with the same store.
pub(crate) struct Mosquitto {
    dir: tempfile::TempDir,
    port: u16,
    extra: String,
    child: Option<Child>,
    pub(crate) log: Lines,
}

impl Mosquitto {
    /// A broker for anybody, without TLS.
    pub(crate) fn start() -> Self {
        Self::with("allow_anonymous true\n")
    }

    /// A broker with further lines of configuration.
    pub(crate) fn with(extra: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut broker = Self { dir, port: free_port(), extra: extra.to_owned(), child: None, log: Lines::default() };
        // Somebody else may take the port between our look and Mosquitto's: then another one is tried.
        for _ in 0..5 {
            if broker.launch() {
                return broker;
            }
            broker.port = free_port();
        }
        panic!("Mosquitto did not start on any of 5 ports; its log:\n{}", broker.log.text());
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where it may keep files of a test (passwords, certificates).
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Ends it as a service manager would; its store is written.
    pub(crate) fn stop(&mut self) {
        self.end(Signal::TERM);
    }

    /// Ends it with a signal. With SIGKILL it forgets what it has not stored, what it acknowledged included.
    pub(crate) fn end(&mut self, signal: Signal) {
        let Some(mut child) = self.child.take() else { return };
        kill_process(Pid::from_child(&child), signal).expect("the process is our child and was not waited for");
        wait_for("Mosquitto's end", || child.try_wait().expect("a child can be waited for"));
    }

    /// Lets it do nothing more, with its connections open.
    pub(crate) fn freeze(&self) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), Signal::STOP).expect("the process is our child and was not waited for");
    }

    /// Makes it read its password file anew.
    pub(crate) fn reload(&self) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), Signal::HUP).expect("the process is our child and was not waited for");
    }

    /// Starts it again where it was.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        assert!(self.child.is_none(), "stop it first");
        assert!(self.launch(), "Mosquitto did not start again on port {}; its log:\n{}", self.port, self.log.text());
    }

    /// Replaces the further lines of configuration; they hold from the next start on.
    pub(crate) fn set_extra(&mut self, extra: &str) {
        extra.clone_into(&mut self.extra);
    }

    /// Starts it and waits until it listens; `false` if it ended.
    fn launch(&mut self) -> bool {
        let config = self.write_config();
        let listening = self.log.count("Opening ipv4 listen socket");
        let mut child = Command::new(program())
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("mosquitto starts; is it installed?");
        self.log.collect(child.stderr.take().expect("a pipe was asked for"));
        // "Opening" is logged before the socket is bound, so its log tells that the bind was tried, and `running` that
        // it went well.
        let running = self.log.count(" running");
        let up = wait_for("Mosquitto to listen", || {
            if child.try_wait().expect("a child can be waited for").is_some() {
                return Some(false);
            }
            (self.log.count(" running") > running || self.log.count("Opening ipv4 listen socket") > listening)
                .then(|| TcpStream::connect(("127.0.0.1", self.port)).is_ok())
                .filter(|up| *up)
        });
        if up {
            self.child = Some(child);
        }
        up
    }

    fn write_config(&self) -> PathBuf {
        let path = self.path().join("mosquitto.conf");
        let mut text = format!("per_listener_settings true\nlistener {} 127.0.0.1\n", self.port);
        let store = self.path().display();
        let _ = write!(
            text,
            "persistence true\npersistence_location {store}/\nmax_queued_messages 0\nlog_dest stderr\n\
             log_type error\nlog_type warning\nlog_type notice\nlog_type information\nuser root\n{}",
            self.extra
        );
        fs::write(&path, text).expect("the configuration can be written");
        path
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    /// Waits until a line of its log contains `part`.
    #[track_caller]
    pub(crate) fn wait_log(&self, part: &str, times: usize) {
        wait_until(&format!("{times} lines with {part:?} in Mosquitto's log"), || self.log.count(part) >= times);
    }
}

/// Debian keeps it out of an ordinary user's search path.
fn program() -> &'static str {
    if Path::new("/usr/sbin/mosquitto").exists() { "/usr/sbin/mosquitto" } else { "mosquitto" }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
