//! When a sensor is due: on the grid that began with its first sample or, with `align`, at the multiples of `every` on the
//! wall clock. While that is not set they are multiples of the time since boot.
//!
//! Time passes on the boot clock, which does not step. A step of the wall clock moves the multiples, and with them the next
//! sample: it comes between half an interval and one and a half after the last, so that a step costs one sample or adds one
//! at most.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::{Context, Counts, Sampler, Schedule, count};
use crate::clock::{BootTime, Clock, Offset};

/// Waits for when a sensor is due.
pub(super) struct Due {
    clock: Arc<dyn Clock>,
    offset: watch::Receiver<Option<Offset>>,
    schedule: watch::Receiver<Schedule>,
    counts: Arc<Counts>,
    grid: Grid,
}

impl Due {
    /// For the first sample: at once, or at the next multiple.
    pub(super) fn first(sampler: &Sampler, context: &Context) -> Self {
        let Context { clock, offset, counts, .. } = context.clone();
        let mut schedule = sampler.schedule.clone();
        let Schedule { every, align, .. } = *schedule.borrow_and_update();
        let grid = Grid::new(clock.boot(), align.then_some(every), *offset.borrow());
        Self { clock, offset, schedule, counts, grid }
    }

    /// At once.
    pub(super) fn now(&mut self) {
        self.grid.at = self.clock.boot();
    }

    /// Waits for it.
    pub(super) async fn wait(&mut self) {
        loop {
            let now = self.clock.boot();
            self.grid.follow(now, *self.offset.borrow());
            tokio::select! {
                () = sleep(self.grid.at.since(now)) => return,
                () = changed(&mut self.offset), if self.grid.every.is_some() => {}
                () = changed(&mut self.schedule) => {
                    let Schedule { every, align, .. } = *self.schedule.borrow();
                    self.grid.reschedule(self.clock.boot(), every, align);
                }
            }
        }
    }

    /// The next sample: so much after the time at which this one was due.
    pub(super) fn next(&mut self, pause: Duration) {
        if !self.grid.next(self.clock.boot(), pause) {
            count(&self.counts.overrun);
        }
    }
}

/// Never resolves once nobody is left who could change it.
async fn changed<T>(value: &mut watch::Receiver<T>) {
    if value.changed().await.is_err() {
        pending::<()>().await;
    }
}

/// When the next sample is due, and why then.
#[derive(Debug)]
struct Grid {
    at: BootTime,
    /// With `align`: the interval whose multiples count.
    every: Option<Duration>,
    /// What they were reckoned with.
    offset: Option<Offset>,
    /// The last sample was due then, and the next is due so much later, more or less; `None`: it is the first.
    last: Option<(BootTime, Duration)>,
}

impl Grid {
    fn new(now: BootTime, every: Option<Duration>, offset: Option<Offset>) -> Self {
        let mut grid = Self { at: now, every, offset, last: None };
        grid.align(now);
        grid
    }

    /// Goes on. `false`: the time of a sample has passed meanwhile; it is skipped.
    fn next(&mut self, now: BootTime, pause: Duration) -> bool {
        let due = self.at;
        self.at = due.after(pause);
        let in_time = self.at >= now;
        if !in_time {
            let missed = now.since(self.at).as_nanos() / pause.as_nanos().max(1) + 1;
            self.at = self.at.after(pause.saturating_mul(u32::try_from(missed).unwrap_or(u32::MAX)));
        }
        self.last = Some((due, self.at.since(due)));
        self.align(now);
        in_time
    }

    /// It is sampled at other times from now on: next so long after the last sample, or now.
    fn reschedule(&mut self, now: BootTime, every: Duration, align: bool) {
        self.every = align.then_some(every);
        if let Some((last, pause)) = &mut self.last {
            self.at = last.after(every).max(now);
            *pause = every;
        }
        self.align(now);
    }

    /// The wall clock may have been set.
    fn follow(&mut self, now: BootTime, offset: Option<Offset>) {
        if self.offset != offset {
            self.offset = offset;
            self.align(now);
        }
    }

    fn align(&mut self, now: BootTime) {
        let Some(every) = self.every else { return };
        let offset = self.offset.unwrap_or(Offset(0));
        let near = self.last.and_then(|(last, pause)| nearest(last, pause, every, offset));
        self.at = near.filter(|near| *near > now).unwrap_or_else(|| next_multiple(now, every, offset));
    }
}

/// The multiple of `every` that is nearest to `pause` after `last`; `None` if that is not after it.
fn nearest(last: BootTime, pause: Duration, every: Duration, offset: Offset) -> Option<BootTime> {
    let (wall, every) = (i128::from(offset.wall(last).0), nanos(every));
    let multiple = (wall + nanos(pause) + every / 2).div_euclid(every) * every;
    let wait = u64::try_from(multiple - wall).ok().filter(|wait| *wait > 0)?;
    Some(last.after(Duration::from_nanos(wait)))
}

/// The next multiple of `every`; now, if it is one.
fn next_multiple(now: BootTime, every: Duration, offset: Offset) -> BootTime {
    let (wall, every) = (i128::from(offset.wall(now).0), nanos(every));
    now.after(Duration::from_nanos(u64::try_from((-wall).rem_euclid(every)).unwrap_or_default()))
}

/// Above zero, and so that sums of a few of them have room.
fn nanos(time: Duration) -> i128 {
    i128::try_from(time.as_nanos()).unwrap_or(i128::MAX).clamp(1, i128::MAX / 4)
}

#[cfg(test)]
mod tests;
