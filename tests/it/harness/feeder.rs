//! An Arduino that never stops: numbered lines on a serial port, from a thread of their own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::{MARK, Port};

/// Lines at once, and the pause after them: some 250 lines a second, while somebody reads them.
const AT_ONCE: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// Writes lines until it is stopped or dropped. While nobody reads, the kernel's buffer fills, and it waits.
pub(crate) struct Feeder {
    shared: Arc<Shared>,
    path: PathBuf,
    /// Gives the port back, which must stay open as long as an agent reads.
    thread: Option<JoinHandle<Port>>,
}

#[derive(Default)]
struct Shared {
    /// Lines that the kernel has taken as a whole; also the number of the next mark.
    written: AtomicU32,
    stop: AtomicBool,
}

impl Feeder {
    /// Opens a port and starts to write.
    pub(crate) fn start() -> Self {
        let mut port = Port::open();
        let path = port.path().to_owned();
        let flags = fcntl_getfl(&port).expect("the pty has flags");
        fcntl_setfl(&port, flags | OFlags::NONBLOCK).expect("the pty need not block");
        let shared = Arc::<Shared>::default();
        let also_shared = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            feed(&mut port, &also_shared);
            port
        });
        Self { shared, path, thread: Some(thread) }
    }

    /// What to write as `port` into a configuration.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Lines written so far; also the number of the next mark.
    pub(crate) fn written(&self) -> u32 {
        self.shared.written.load(Ordering::SeqCst)
    }

    /// Stops writing and gives the port back.
    pub(crate) fn stop(&mut self) -> Port {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.take().expect("stopped once").join().expect("the feeder does not panic")
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn feed(port: &mut Port, shared: &Shared) {
    let stopped = || shared.stop.load(Ordering::SeqCst);
    for number in 0.. {
        let line = format!("{{\"mark\":\"{MARK}{number:08}\"}}\n");
        let mut rest = line.as_bytes();
        while !rest.is_empty() {
            match port.master().write(rest) {
                Ok(written) => rest = &rest[written..],
                // The buffer is full. What is left of a line goes to whoever opens the port next.
                Err(_) if !stopped() => std::thread::sleep(PAUSE),
                Err(_) => return,
            }
        }
        shared.written.store(number + 1, Ordering::SeqCst);
        if stopped() {
            return;
        }
        if number % AT_ONCE == 0 {
            std::thread::sleep(PAUSE);
        }
    }
}
