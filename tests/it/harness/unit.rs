//! A unit on a serial line that speaks when it is asked: each of its answers has the next number.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use super::{Port, wait_until};

/// Between two looks at a port that nobody has open, and at whether it is time to end.
const LOOK: Duration = Duration::from_millis(5);

/// Between two bytes that are to be read one by one.
const BYTE: Duration = Duration::from_millis(2);

/// What the unit does at the next question, instead of a plain answer.
pub(crate) enum Trick {
    /// Answers a byte at a time.
    ByteByByte,
    /// Says these bytes first.
    Noise(Vec<u8>),
    /// Says these bytes alone, once: an answer that was damaged on its way.
    Damaged(Vec<u8>),
    /// Says these bytes, and nothing any more.
    Breaks(Vec<u8>),
}

/// A running unit. Ended when dropped: then it holds the port no longer.
pub(crate) struct Unit {
    tricks: Sender<Trick>,
    /// Those that were not played yet.
    waiting: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Unit {
    /// At the far end of that port. It answers this request, and each time with the record of the next number.
    pub(crate) fn start(port: &Port, request: Vec<u8>, record: fn(u32) -> Vec<u8>, next: Arc<AtomicU32>) -> Self {
        let line = File::from(port.as_fd().try_clone_to_owned().expect("a descriptor"));
        let (tricks, told) = channel();
        let (waiting, ends): (Arc<AtomicUsize>, Arc<AtomicBool>) = Default::default();
        let thread = thread::spawn({
            let (waiting, ends) = (Arc::clone(&waiting), Arc::clone(&ends));
            move || answer(line, &request, &told, &waiting, &ends, || record(next.fetch_add(1, Ordering::SeqCst)))
        });
        Self { tricks, waiting, ends, thread: Some(thread) }
    }

    /// Has it do that at the next question; several one after the other.
    pub(crate) fn play(&self, trick: Trick) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.tricks.send(trick).expect("the unit runs");
    }

    /// Waits until it has done all that it was to do.
    #[track_caller]
    pub(crate) fn wait_played(&self) {
        wait_until("the unit to be asked", || self.waiting.load(Ordering::SeqCst) == 0);
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // Where the test has failed, it may speak to an agent that is gone, and wait for ever.
        if !thread::panicking() {
            let ended = self.thread.take().map(JoinHandle::join);
            assert!(ended.is_none_or(|ended| ended.is_ok()), "the unit has failed");
        }
    }
}

fn answer(
    mut line: File,
    request: &[u8],
    tricks: &Receiver<Trick>,
    waiting: &AtomicUsize,
    ends: &AtomicBool,
    mut next: impl FnMut() -> Vec<u8>,
) {
    let (mut asked, mut bytes) = (Vec::new(), [0; 256]);
    while !ends.load(Ordering::SeqCst) {
        let look = rustix::time::Timespec { tv_sec: 0, tv_nsec: i64::from(LOOK.subsec_nanos()) };
        let waits = poll(&mut [PollFd::new(&line, PollFlags::IN)], Some(&look)).is_ok_and(|ready| ready > 0);
        match if waits { line.read(&mut bytes) } else { Ok(0) } {
            Ok(count) => asked.extend_from_slice(&bytes[..count]),
            // Nobody has the port open.
            Err(_) => {
                asked.clear();
                thread::sleep(LOOK);
            }
        }
        // What was asked while it spoke, it has not heard.
        let Some(begin) = asked.windows(request.len()).rposition(|window| window == request) else { continue };
        asked.drain(..begin + request.len());
        let Ok(trick) = tricks.try_recv() else {
            line.write_all(&next()).expect("the pty takes an answer");
            continue;
        };
        let breaks = matches!(trick, Trick::Breaks(_));
        let said = match trick {
            Trick::ByteByByte => next().iter().try_for_each(|byte| {
                thread::sleep(BYTE);
                line.write_all(&[*byte])
            }),
            Trick::Noise(noise) => line.write_all(&noise).and_then(|()| line.write_all(&next())),
            Trick::Damaged(bytes) | Trick::Breaks(bytes) => line.write_all(&bytes),
        };
        said.expect("the pty takes an answer");
        waiting.fetch_sub(1, Ordering::SeqCst);
        if breaks {
            return;
        }
    }
}
