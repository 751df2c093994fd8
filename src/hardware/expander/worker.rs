//! The thread of an expander: the only one that speaks to the chip.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::ExpanderSettings;
use super::chip::{Chip, Seen, Wanted, Wire, bit, chip, fault};
use crate::clock::{BootTime, Clock};
use crate::hardware::Hardware;
use crate::reading::{Fault, FaultCode};

/// Between two looks where an interrupt line tells of changes: for what it missed, and a chip that has gone. So often,
/// too, the registers are compared with what was written.
const CHECK: Duration = Duration::from_secs(1);

/// How long a look that found a change waits for the interrupt that came of it, if it did not come before. It goes
/// through the runtime, which may be held up for longer than this thread.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

/// A look that has been under way for so long makes the levels unknown.
pub(super) const STALE: Duration = Duration::from_secs(5);

/// The thread needs little.
const STACK: usize = 256 * 1024;

/// What the thread is asked for.
pub(super) enum Request {
    /// A look, because of an interrupt at that time.
    Interrupt(BootTime),
    /// To make the lines what they are to be, and a look.
    Apply(SyncSender<Result<(), Fault>>),
}

/// A line whose changes are followed.
pub(super) struct Subscriber {
    pub(super) line: u8,
    pub(super) active_low: bool,
    /// When it is full, changes are lost.
    pub(super) out: mpsc::Sender<Result<(BootTime, bool), Fault>>,
}

/// What the thread and the lines share. Never locked across a transfer.
#[derive(Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Since when a transfer is under way.
    busy: Mutex<Option<Instant>>,
}

#[derive(Default)]
pub(super) struct State {
    taken: u16,
    pub(super) wanted: Wanted,
    subscribers: Vec<Subscriber>,
    /// `None` until the chip has answered, and after a fault.
    levels: Option<u16>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails when a transfer has been under way for so long, with the words for it.
    pub(super) fn check_busy(&self, limit: Duration) -> Result<(), String> {
        let busy = *self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        match busy.map(|since| since.elapsed()).filter(|busy| *busy >= limit) {
            Some(busy) => Err(format!("does not answer: a transfer has been running for {:.1} s", busy.as_secs_f32())),
            None => Ok(()),
        }
    }

    fn set_busy(&self, since: Option<Instant>) {
        *self.busy.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }
}

impl State {
    /// Marks a line as taken; false if it is already.
    pub(super) fn take(&mut self, line: u8) -> bool {
        let free = self.taken & bit(line) == 0;
        self.taken |= bit(line);
        free
    }

    pub(super) fn give_back(&mut self, line: u8) {
        self.taken &= !bit(line);
        self.wanted.clear(line);
        self.subscribers.retain(|subscriber| subscriber.line != line);
    }

    /// Follows a line; gives its level: active or not.
    pub(super) fn subscribe(&mut self, subscriber: Subscriber) -> Result<bool, Fault> {
        let active = self.level(subscriber.line)? != subscriber.active_low;
        self.subscribers.push(subscriber);
        Ok(active)
    }

    /// Is the line high?
    pub(super) fn level(&self, line: u8) -> Result<bool, Fault> {
        let unknown = || Fault::new(FaultCode::Missing, "the expander does not answer".to_owned());
        self.levels.map(|levels| levels & bit(line) != 0).ok_or_else(unknown)
    }

    /// The chip does not answer: everybody is told, and takes the line anew when it does.
    pub(super) fn fail(&mut self, fault: &Fault) {
        self.levels = None;
        for subscriber in self.subscribers.drain(..) {
            // One that is full learns it by the end of the channel.
            let _ = subscriber.out.try_send(Err(fault.clone()));
        }
    }

    /// Would [`State::saw`] tell anybody of something?
    fn is_news(&self, seen: Seen) -> bool {
        let followed = self.subscribers.iter().fold(0, |lines, subscriber| lines | bit(subscriber.line));
        self.levels.is_some_and(|before| (before ^ seen.levels | seen.changed) & followed != 0)
    }

    /// Tells of what has changed: at `changed`, when the interrupt came, or at `now`, when it was looked.
    fn saw(&mut self, seen: Seen, changed: BootTime, now: BootTime) {
        if let Some(before) = self.levels {
            for subscriber in &self.subscribers {
                let line = bit(subscriber.line);
                let (before, after) = (before & line != 0, seen.levels & line != 0);
                let captured = seen.captured & line != 0;
                let tell = |at, high: bool| {
                    let _ = subscriber.out.try_send(Ok((at, high != subscriber.active_low)));
                };
                if seen.changed & line != 0 && captured != before {
                    tell(changed, captured);
                    if after != captured {
                        tell(now, after);
                    }
                } else if after != before {
                    tell(changed, after);
                }
            }
        }
        self.levels = Some(seen.levels);
    }
}

pub(super) struct Worker {
    settings: ExpanderSettings,
    hardware: Arc<dyn Hardware>,
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
    chip: Box<dyn Chip>,
    /// Open since the chip last answered, with what was written to it then, and when that was last checked.
    open: Option<(Wire, Wanted, Instant)>,
}

impl Worker {
    pub(super) fn new(
        settings: &ExpanderSettings,
        hardware: Arc<dyn Hardware>,
        clock: Arc<dyn Clock>,
        shared: Arc<Shared>,
    ) -> Self {
        Self { settings: settings.clone(), hardware, clock, shared, chip: chip(settings.chip), open: None }
    }

    /// Starts the thread, which ends when nobody can ask it any more.
    pub(super) fn start(mut self, asked: Receiver<Request>) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name(format!("x:{}", self.settings.name)).stack_size(STACK);
        thread.spawn(move || self.run(&asked)).map(drop)
    }

    fn run(&mut self, asked: &Receiver<Request>) {
        let pace = if self.settings.interrupt.is_some() { CHECK } else { self.settings.every };
        let mut left = None;
        loop {
            // A chip that does not answer is asked again when somebody wants a line of it, or after a while.
            let pause = match left {
                Some(_) => Duration::ZERO,
                None if self.open.is_some() => pace,
                None => CHECK,
            };
            let first = match asked.recv_timeout(pause) {
                Ok(request) => Some(request),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let (mut interrupt, mut replies) = (None, Vec::new());
            for request in left.take().into_iter().chain(first).chain(asked.try_iter()) {
                match request {
                    Request::Interrupt(at) => interrupt = interrupt.or(Some(at)),
                    Request::Apply(reply) => replies.push(reply),
                }
            }
            self.shared.set_busy(Some(Instant::now()));
            let seen = self.look();
            self.shared.set_busy(None);
            let now = self.clock.boot();
            let news = |seen: &Seen| self.shared.lock().is_news(*seen);
            if interrupt.is_none() && self.settings.interrupt.is_some() && seen.as_ref().is_ok_and(news) {
                match asked.recv_timeout(ON_ITS_WAY) {
                    Ok(Request::Interrupt(at)) => interrupt = Some(at),
                    other => left = other.ok(),
                }
            }
            {
                let mut state = self.shared.lock();
                match &seen {
                    Ok(seen) => state.saw(*seen, interrupt.unwrap_or(now), now),
                    Err(fault) => state.fail(fault),
                }
            }
            for reply in replies {
                let _ = reply.send(seen.clone().map(drop));
            }
        }
    }

    fn look(&mut self) -> Result<Seen, Fault> {
        let wanted = self.shared.lock().wanted;
        let (mut wire, written, checked) = match self.open.take() {
            Some((wire, written, checked)) => (wire, Some(written), checked),
            None => (Wire::open(&self.settings, &*self.hardware)?, None, Instant::now()),
        };
        let error = |error| fault(&self.settings, &error);
        let due = checked.elapsed() >= CHECK;
        let checked = if due { Instant::now() } else { checked };
        let as_written =
            written == Some(wanted) && (!due || self.chip.is_configured(&mut wire, wanted).map_err(error)?);
        if !as_written {
            self.chip.configure(&mut wire, wanted).map_err(error)?;
        }
        let seen = self.chip.look(&mut wire).map_err(error)?;
        self.open = Some((wire, wanted, checked));
        Ok(seen)
    }
}
