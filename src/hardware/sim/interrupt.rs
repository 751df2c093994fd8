//! Lines of the header to which the interrupt outputs of the simulated expanders are wired.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Taken;
use super::bus::Wires;
use crate::hardware::{BoxFuture, Edge, Edges, InputLine, LineSettings};
use crate::reading::{Fault, FaultCode};

/// BCM numbers of the lines, and the addresses of the expanders.
const WIRED: [(u32, u8); 2] = [(25, 0x20), (26, 0x21)];

/// How often a waiting line looks at the output.
const LOOK: Duration = Duration::from_millis(5);

/// The expander whose interrupt output is wired to that line.
pub(super) fn wired_to(bcm: u32) -> Option<u8> {
    WIRED.iter().find(|(line, _)| *line == bcm).map(|(_, address)| *address)
}

pub(super) struct InterruptLine {
    wires: Arc<Mutex<Wires>>,
    address: u8,
    active_low: bool,
    edges: Edges,
    sequence: u32,
    _taken: Taken,
}

impl InterruptLine {
    pub(super) fn new(settings: &LineSettings, wires: Arc<Mutex<Wires>>, address: u8, taken: Taken) -> Self {
        let LineSettings { active_low, edges, .. } = *settings;
        let line = Self { wires, address, active_low, edges, sequence: 0, _taken: taken };
        // What happened before it was taken is not reported.
        drop(line.changes());
        line
    }

    fn changes(&self) -> Vec<(crate::clock::BootTime, bool)> {
        let wires = self.wires.lock().unwrap_or_else(PoisonError::into_inner);
        wires.pins(self.address).map(|pins| pins.interrupt_changes()).unwrap_or_default()
    }
}

impl InputLine for InterruptLine {
    fn level(&mut self) -> Result<bool, Fault> {
        let wires = self.wires.lock().unwrap_or_else(PoisonError::into_inner);
        let pins = wires.pins(self.address);
        let gone = || Fault::new(FaultCode::Io, "there is no expander at the line's other end");
        pins.map(|pins| pins.interrupt() != self.active_low).ok_or_else(gone)
    }

    fn edges(&mut self) -> BoxFuture<'_, Result<Vec<Edge>, Fault>> {
        Box::pin(async move {
            loop {
                let mut edges = Vec::new();
                for (at, high) in self.changes() {
                    let active = high != self.active_low;
                    if matches!(
                        (self.edges, active),
                        (Edges::Both, _) | (Edges::Rising, true) | (Edges::Falling, false)
                    ) {
                        self.sequence = self.sequence.wrapping_add(1);
                        edges.push(Edge { at, active, sequence: self.sequence });
                    }
                }
                if !edges.is_empty() {
                    return Ok(edges);
                }
                tokio::time::sleep(LOOK).await;
            }
        })
    }
}
