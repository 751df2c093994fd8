//! Simulated GPIO lines: a motion sensor on one, pull resistors on the others.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Taken, world};
use crate::clock::{BootTime, Clock};
use crate::hardware::{Bias, BoxFuture, Edge, InputLine, LineId, LineSettings, OutputLine, OutputSettings};
use crate::reading::{Fault, FaultCode};

/// The header's lines are 0 to this (exclusive), as on the 40-pin header.
const HEADER_LINES: u32 = 28;

/// The line on which the motion sensor is.
const MOTION_LINE: u32 = 17;

/// How often a waiting line looks at its clock, so that a clock that is moved by hand is noticed.
const LOOK: Duration = Duration::from_millis(100);

/// Edges that are kept for a reader that does not come, as the kernel's buffer would; older ones are lost.
const KEPT_EDGES: u32 = 1024;

pub(super) struct SimLine {
    line: Line,
    active_low: bool,
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
    Pulled(bool),
}

impl SimLine {
    pub(super) fn take(
        settings: &LineSettings,
        clock: Arc<dyn Clock>,
        seed: u64,
        lines: Arc<Mutex<BTreeSet<u32>>>,
    ) -> Result<Self, Fault> {
        let taken = take(&settings.line, lines)?;
        let line = if taken.offset == MOTION_LINE { Line::Motion } else { Line::Pulled(settings.bias == Bias::PullUp) };
        let seen = clock.boot();
        Ok(Self { line, active_low: settings.active_low, clock, seed, seen, sequence: 0, _taken: taken })
    }

    /// The edges since the last ones that were given out.
    fn waiting_edges(&mut self) -> Vec<Edge> {
        let now = self.clock.boot();
        let mut edges = Vec::new();
        loop {
            let (at, high) = world::next_motion(self.seed, self.seen);
            if at > now {
                break;
            }
            self.seen = at;
            self.sequence = self.sequence.wrapping_add(1);
            edges.push(Edge { at, active: high != self.active_low, sequence: self.sequence });
        }
        let keep = usize::try_from(KEPT_EDGES).expect("1024 fits usize");
        edges.drain(..edges.len().saturating_sub(keep));
        edges
    }
}

/// Takes the header's line of that name or offset.
fn take(line: &LineId, lines: Arc<Mutex<BTreeSet<u32>>>) -> Result<Taken, Fault> {
    let offset = match line {
        LineId::Name(name) => name.strip_prefix("GPIO").and_then(|number| number.parse().ok()),
        LineId::Offset { chip, offset } => (chip == "gpiochip0").then_some(*offset),
    };
    let Some(offset) = offset.filter(|offset| *offset < HEADER_LINES) else {
        let detail = format!("no line is called {line}: the simulated machine has GPIO0 to GPIO27 on gpiochip0");
        return Err(Fault::new(FaultCode::Missing, detail));
    };
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
        Ok(Self { _taken: take(&settings.line, lines)? })
    }
}

impl OutputLine for SimOutput {
    fn set(&mut self, _active: bool) -> Result<(), Fault> {
        Ok(())
    }
}

impl InputLine for SimLine {
    fn level(&mut self) -> Result<bool, Fault> {
        let high = match self.line {
            Line::Motion => world::motion(self.seed, self.clock.boot()),
            Line::Pulled(high) => high,
        };
        Ok(high != self.active_low)
    }

    fn edges(&mut self) -> BoxFuture<'_, Result<Vec<Edge>, Fault>> {
        Box::pin(async move {
            if let Line::Pulled(_) = self.line {
                return std::future::pending().await;
            }
            loop {
                let edges = self.waiting_edges();
                if !edges.is_empty() {
                    return Ok(edges);
                }
                let (next, _) = world::next_motion(self.seed, self.seen);
                tokio::time::sleep(next.since(self.clock.boot()).min(LOOK)).await;
            }
        })
    }
}
