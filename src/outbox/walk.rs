//! Walking over what waits, for one cursor or for several together, a bounded piece at a time.

use super::{CursorId, Entry, Outbox, Seq};

/// Records that are read at a time.
const PIECE: usize = 64;

/// A walk over the records that at least one of some cursors has still to acknowledge. Between two pieces the outbox
/// may change: what is acknowledged meanwhile is left out.
#[derive(Debug)]
pub struct Walk {
    cursors: Vec<CursorId>,
    from: Seq,
    end: Seq,
}

impl Walk {
    /// From `from` to what is now the end.
    #[must_use]
    pub fn new(outbox: &Outbox, cursors: Vec<CursorId>, from: Seq) -> Self {
        Self { cursors, from, end: outbox.end() }
    }

    /// Appends the next records, in order; `false`: there are no more. A piece may be empty although more follow.
    pub fn step(&mut self, outbox: &mut Outbox, out: &mut Vec<Entry>) -> bool {
        if self.from >= self.end {
            return false;
        }
        let start = out.len();
        // Up to here every cursor was read as far as it goes.
        let mut horizon = self.end;
        for cursor in &self.cursors {
            let before = out.len();
            outbox.read(*cursor, self.from, PIECE, out);
            if out.len() - before == PIECE {
                horizon = horizon.min(out.last().map_or(horizon, |last| last.seqs().end));
            }
        }
        let mut piece = out.split_off(start);
        piece.retain(|entry| entry.seq < horizon);
        piece.sort_by_key(|entry| entry.seq);
        piece.dedup_by_key(|entry| entry.seq);
        out.append(&mut piece);
        self.from = horizon;
        true
    }

    /// Has one of the cursors still to acknowledge that position?
    #[must_use]
    pub fn waits(&self, outbox: &Outbox, seq: Seq) -> bool {
        seq < self.end && self.cursors.iter().any(|cursor| !outbox.is_acked(*cursor, seq))
    }
}
