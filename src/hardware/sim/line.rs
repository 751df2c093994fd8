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
    clock: Arc<dyn Clock>,
    seed: u64,
    /// Edges up to here were given out.
    seen: BootTime,
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
        let LineSettings { active_low, edges, .. } = *settings;
        let seen = clock.boot();
        Self { line, active_low, edges, clock, seed, seen, sequence: 0, _taken: taken }
    }

    /// The next time after `at` at which the level changes, and whether it is high then.
    fn next_change(&self, at: BootTime) -> Option<(BootTime, bool)> {
        match self.line {
            Line::Motion => Some(world::next_motion(self.seed, at)),
            Line::Train(train) => Some(train.next_change(at)),
            Line::Pulled(_) => None,
        }
    }

    /// The edges since the last ones that were given out.
    fn waiting_edges(&mut self) -> Vec<Edge> {
        let now = self.clock.boot();
        let mut edges = VecDeque::new();
        while let Some((at, high)) = self.next_change(self.seen).filter(|(at, _)| *at <= now) {
            self.seen = at;
            let active = high != self.active_low;
            if matches!((self.edges, active), (Edges::Both, _) | (Edges::Rising, true) | (Edges::Falling, false)) {
                self.sequence = self.sequence.wrapping_add(1);
                if edges.len() == KEPT_EDGES {
                    edges.pop_front();
                }
                edges.push_back(Edge { at, active, sequence: self.sequence });
            }
        }
        edges.into()
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
        let now = self.clock.boot();
        let high = match self.line {
            Line::Motion => world::motion(self.seed, now),
            Line::Train(train) => train.is_high(now),
            Line::Pulled(high) => high,
        };
        Ok(high != self.active_low)
    }

    fn edges(&mut self) -> BoxFuture<'_, Result<Vec<Edge>, Fault>> {
        Box::pin(async move {
            loop {
                let edges = self.waiting_edges();
                if !edges.is_empty() {
                    return Ok(edges);
                }
                let Some((next, _)) = self.next_change(self.seen) else { return std::future::pending().await };
                tokio::time::sleep(next.since(self.clock.boot()).min(LOOK)).await;
            }
        })
    }
}
