//! Simulated GPIO lines: a motion sensor on one, trains of pulses on two, pull resistors on the others.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Taken;
use super::world::{self, Train};
use crate::clock::{BootTime, Clock};
use crate::hardware::header;
use crate::hardware::{Bias, BoxFuture, Edge, Edges, InputLine, LineId, LineSettings, OutputLine, OutputSettings};
use crate::reading::{Fault, FaultCode};

/// The line on which the motion sensor is.
const MOTION_LINE: u32 = 17;
/// The line on which a PWM output of 1 kHz is.
const FIXED_LINE: u32 = 23;
/// The line on which a flow meter is.
const FLOW_LINE: u32 = 24;

/// How often a waiting line looks at its clock, so that a clock that is moved by hand is noticed.
const LOOK: Duration = Duration::from_millis(100);

/// Edges that are kept for a reader that does not come, as the kernel's buffer would; older ones are lost.
const KEPT_EDGES: usize = 1024;

pub(super) struct SimLine {
    line: Line,
    active_low: bool,
    edges: Edges,
    debounce: Duration,
    clock: Arc<dyn Clock>,
    seed: u64,
    /// Changes up to here were looked at.
    seen: BootTime,
    /// Was the line high by then, with bounces left out?
    high: bool,
    /// Edges that were not given out yet.
    waiting: VecDeque<Edge>,
    sequence: u32,
    _taken: Taken,
}

#[derive(Clone, Copy)]
enum Line {
    Motion,
    Train(Train),
    Pulled(bool),
}

impl SimLine {
    pub(super) fn new(settings: &LineSettings, clock: Arc<dyn Clock>, seed: u64, taken: Taken) -> Self {
        let line = match taken.offset {
            MOTION_LINE => Line::Motion,
            FIXED_LINE => Line::Train(Train::Fixed),
            FLOW_LINE => Line::Train(Train::Flow),
            _ => Line::Pulled(settings.bias == Bias::PullUp),
        };
        let LineSettings { active_low, edges, debounce, .. } = *settings;
        let seen = clock.boot();
        let high = line.is_high(seed, seen);
        let waiting = VecDeque::new();
        Self { line, active_low, edges, debounce, clock, seed, seen, high, waiting, sequence: 0, _taken: taken }
    }

    /// The next time after `at` at which the level changes, and whether it is high then.
    fn next_change(&self, at: BootTime) -> Option<(BootTime, bool)> {
        match self.line {
            Line::Motion => Some(world::next_motion(self.seed, at)),
            Line::Train(train) => Some(train.next_change(at)),
            Line::Pulled(_) => None,
        }
    }

    /// Looks at the changes up to now. One that does not hold for the time of `debounce` is none; one that does is an
    /// edge at the end of that time, as of the kernel's own filter (gpiolib-cdev.c).
    fn look(&mut self) {
        let now = self.clock.boot();
        while let Some((at, high)) = self.next_change(self.seen) {
            let settled = at.after(self.debounce);
            let bounces = self.next_change(at).is_some_and(|(next, _)| next < settled);
            if at > now || settled > now && !bounces {
                return;
            }
            self.seen = at;
            if !bounces && high != self.high {
                self.high = high;
                self.edge(settled, high != self.active_low);
            }
        }
    }

    fn edge(&mut self, at: BootTime, active: bool) {
        if matches!((self.edges, active), (Edges::Both, _) | (Edges::Rising, true) | (Edges::Falling, false)) {
            self.sequence = self.sequence.wrapping_add(1);
            if self.waiting.len() == KEPT_EDGES {
                self.waiting.pop_front();
            }
            self.waiting.push_back(Edge { at, active, sequence: self.sequence });
        }
    }
}

impl Line {
    fn is_high(self, seed: u64, at: BootTime) -> bool {
        match self {
            Self::Motion => world::motion(seed, at),
            Self::Train(train) => train.is_high(at),
            Self::Pulled(high) => high,
        }
    }
}

/// Takes the header's line of that name or offset.
pub(super) fn take(line: &LineId, reserved: bool, lines: Arc<Mutex<BTreeSet<u32>>>) -> Result<Taken, Fault> {
    let Some(offset) = line.on_header().map(|found| u32::from(found.bcm)) else {
        let detail = format!("no line is called {line}: the simulated machine has GPIO0 to GPIO27 on gpiochip0");
        return Err(Fault::new(FaultCode::Missing, detail));
    };
    if !reserved {
        header::check_unreserved(line, offset)?;
    }
    Taken::take(offset, lines).ok_or_else(|| {
        let detail = format!("GPIO line {line} (gpiochip0, line {offset}) is in use by `vigie`");
        Fault::new(FaultCode::Busy, detail)
    })
}

/// An output, to which nothing is connected.
pub(super) struct SimOutput {
    _taken: Taken,
}

impl SimOutput {
    pub(super) fn take(settings: &OutputSettings, lines: Arc<Mutex<BTreeSet<u32>>>) -> Result<Self, Fault> {
        Ok(Self { _taken: take(&settings.line, false, lines)? })
    }
}

impl OutputLine for SimOutput {
    fn set(&mut self, _active: bool) -> Result<(), Fault> {
        Ok(())
    }
}

impl InputLine for SimLine {
    fn level(&mut self) -> Result<bool, Fault> {
        self.look();
        let high = if self.debounce.is_zero() { self.line.is_high(self.seed, self.clock.boot()) } else { self.high };
        Ok(high != self.active_low)
    }

    fn edges(&mut self) -> BoxFuture<'_, Result<Vec<Edge>, Fault>> {
        Box::pin(async move {
            loop {
                self.look();
                if !self.waiting.is_empty() {
                    return Ok(std::mem::take(&mut self.waiting).into());
                }
                let Some((next, _)) = self.next_change(self.seen) else { return std::future::pending().await };
                let until = next.after(self.debounce).since(self.clock.boot());
                tokio::time::sleep(until.min(LOOK)).await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn line(pin: u32, debounce: Duration, clock: &Arc<ManualClock>) -> SimLine {
        let settings = LineSettings {
            line: LineId::Name(format!("GPIO{pin}")),
            reserved: false,
            bias: Bias::AsIs,
            active_low: false,
            debounce,
            edges: Edges::Both,
        };
        let taken = take(&settings.line, false, Arc::default()).expect("free");
        SimLine::new(&settings, Arc::clone(clock) as Arc<dyn Clock>, 1, taken)
    }

    #[test]
    fn what_holds_long_enough_is_an_edge_when_it_has_and_what_does_not_is_none() {
        let second = Duration::from_secs(1);
        let clock = Arc::new(ManualClock::new());
        let (mut plain, mut filtered) = (line(MOTION_LINE, Duration::ZERO, &clock), line(MOTION_LINE, second, &clock));
        // Each movement, and each pause between two, takes longer than a second.
        for _ in 0..1_000 {
            clock.advance(Duration::from_millis(100));
            let _ = (plain.level(), filtered.level());
        }
        // The last one may be too recent.
        assert!(filtered.waiting.len() >= 19 && plain.waiting.len() == 20);
        for (edge, raw) in filtered.waiting.iter().zip(&plain.waiting) {
            assert_eq!(*edge, Edge { at: raw.at.after(second), ..*raw });
        }

        // 1 kHz, high for 0.3 ms and low for 0.7 ms.
        for (micros, changes) in [(200, true), (500, false), (5_000, false)] {
            let mut pwm = line(FIXED_LINE, Duration::from_micros(micros), &clock);
            clock.advance(Duration::from_millis(10));
            assert!(pwm.level().is_ok());
            assert_eq!(pwm.waiting.len() > 15, changes, "{micros} µs: {:?}", pwm.waiting);
            assert!(changes || pwm.waiting.len() <= 1, "to low at most, and then never again: {:?}", pwm.waiting);
        }
    }
}
