//! Dropping by hand: somebody says that records need not be delivered.
//!
//! All records up to a position become acknowledged ranges of the cursor. Those of one sensor lie between others, and
//! there is no room for a range for each: they become a *rule*, and are passed over when the cursor comes to them.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::record;
use super::{CursorId, DropReason, Entry, Outbox, Seq};

/// Where the rules lie in the state.
const STATE_KEY: &str = "outbox/by-hand";

/// Rules that may hold at once, one a cursor and sensor. Each is forgotten when its cursor has passed its records.
const MAX_RULES: usize = 64;

/// Ranges in flight that a rule leaves alone.
const MAX_LEFT: usize = 64;

/// Records that one call looks at.
const PIECE: usize = 256;

/// A sensor's records that a cursor passes over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Rule {
    cursor: Box<str>,
    sensor: Box<str>,
    /// The positions that it is about.
    seqs: Range<Seq>,
    /// What was in flight when the rule was made, and is delivered all the same.
    left: Vec<Range<Seq>>,
    /// Positions that are dropped and not passed yet.
    pending: u64,
}

impl Rule {
    fn covers(&self, entry: &Entry) -> bool {
        entry.sensor() == Some(&*self.sensor) && entry.seq >= self.seqs.start && entry.seqs().end <= self.seqs.end
    }

    fn leaves(&self, seq: Seq) -> bool {
        self.left.iter().any(|range| range.contains(&seq))
    }

    /// Leaves a position alone; `false`: there are too many such.
    fn leave(&mut self, seq: Seq) -> bool {
        if self.leaves(seq) {
            return true;
        }
        if let Some(last) = self.left.last_mut().filter(|last| last.end == seq) {
            last.end += 1;
            return true;
        }
        let room = self.left.len() < MAX_LEFT;
        if room {
            self.left.push(seq..seq + 1);
        }
        room
    }
}

/// The rules.
#[derive(Debug, Default)]
pub(super) struct Rules(Vec<Rule>);

/// What a call of [`Outbox::drop_by_hand`] came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropping {
    /// Positions that were dropped.
    pub dropped: u64,
    /// Positions that were to be dropped, but are in flight.
    pub in_flight: u64,
    /// Where to go on; `None`: all is done.
    pub next: Option<Seq>,
}

/// Why records cannot be dropped by hand now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotDrop {
    /// Too many rules, or too many ranges in one.
    #[error(
        "too much is being dropped by hand already, or in too many pieces: try again when the uplink has gone over it"
    )]
    TooMany,
}

impl Outbox {
    /// Drops what a cursor has still to acknowledge in `seqs`, of one sensor or of all, but never what is in flight.
    /// A bounded piece may be looked at: call it again from [`Dropping::next`] on. Lasting from the next
    /// `commit` on.
    ///
    /// # Errors
    /// There is no room for it; what was dropped before stays dropped, and is counted.
    pub fn drop_by_hand(
        &mut self,
        cursor: CursorId,
        sensor: Option<&str>,
        seqs: Range<Seq>,
    ) -> Result<Dropping, CannotDrop> {
        let seqs = seqs.start..seqs.end.min(self.committed);
        let mut dropping = Dropping::default();
        let result = match sensor {
            None if self.passing_over(cursor) > 0 => self.drop_beside_rules(cursor, &seqs, &mut dropping),
            None => self.drop_range(cursor, &seqs, &mut dropping),
            Some(sensor) => self.drop_sensor(cursor, sensor, &seqs, &mut dropping),
        };
        if dropping.dropped > 0 {
            let name = self.cursors.get(cursor).map(|cursor| cursor.name().into());
            self.note_drop(DropReason::ByHand, name, sensor, dropping.dropped, seqs, None);
            self.flushing.acks += 1;
        }
        result.map(|()| dropping)
    }

    /// Positions that a cursor passes over, counted as dropped already.
    #[must_use]
    pub fn passing_over(&self, cursor: CursorId) -> u64 {
        let Some(cursor) = self.cursors.get(cursor) else { return 0 };
        self.by_hand.0.iter().filter(|rule| *rule.cursor == *cursor.name()).map(|rule| rule.pending).sum()
    }

    fn drop_range(&mut self, id: CursorId, seqs: &Range<Seq>, dropping: &mut Dropping) -> Result<(), CannotDrop> {
        let Some(cursor) = self.cursors.get_mut(id) else { return Ok(()) };
        let mut from = seqs.start;
        let mut flying: Vec<Range<Seq>> = cursor.in_flight().to_vec();
        flying.sort_by_key(|range| range.start);
        flying.push(seqs.end..seqs.end);
        for flight in flying {
            let gap = from..flight.start.clamp(from, seqs.end);
            let fresh = cursor.acked.missing_below(gap.end) - cursor.acked.missing_below(gap.start);
            if fresh > 0 && !cursor.ack(gap) {
                return Err(CannotDrop::TooMany);
            }
            dropping.dropped += fresh;
            let flight = flight.start.clamp(from, seqs.end)..flight.end.min(seqs.end);
            if !flight.is_empty() {
                dropping.in_flight += cursor.acked.missing_below(flight.end) - cursor.acked.missing_below(flight.start);
                from = flight.end;
            } else {
                from = from.max(flight.start);
            }
        }
        Ok(())
    }

    /// As [`drop_range`](Self::drop_range), a piece at a time, where rules have dropped some of it before: those were
    /// counted then.
    fn drop_beside_rules(
        &mut self,
        id: CursorId,
        seqs: &Range<Seq>,
        dropping: &mut Dropping,
    ) -> Result<(), CannotDrop> {
        let mut entries = Vec::new();
        self.read(id, seqs.start, PIECE, &mut entries);
        let next = if entries.len() < PIECE { None } else { entries.last().map(|last| last.seqs().end) };
        let next = next.filter(|next| *next < seqs.end);
        let piece = seqs.start..next.unwrap_or(seqs.end);
        let counts = |seq: &Seq| piece.contains(seq) && !self.is_acked(id, *seq) && !self.is_in_flight(id, *seq);
        let fresh = entries.iter().flat_map(Entry::seqs).filter(counts).count() as u64;
        let result = self.drop_range(id, &piece, dropping);
        // What is gone now and was none of these, a rule had dropped.
        let mut passed = dropping.dropped.saturating_sub(fresh);
        dropping.dropped = dropping.dropped.min(fresh);
        dropping.next = next;
        let name = self.cursors.get(id).map(|cursor| (cursor.name().to_owned(), cursor.acked.low()));
        if let Some((name, low)) = name {
            for rule in self.by_hand.0.iter_mut().filter(|rule| *rule.cursor == *name) {
                let its = passed.min(rule.pending);
                rule.pending -= its;
                passed -= its;
            }
            self.by_hand.0.retain(|rule| *rule.cursor != *name || (rule.seqs.end > low && rule.pending > 0));
            self.save_rules();
        }
        result
    }

    fn drop_sensor(
        &mut self,
        id: CursorId,
        sensor: &str,
        seqs: &Range<Seq>,
        dropping: &mut Dropping,
    ) -> Result<(), CannotDrop> {
        let mut entries = Vec::new();
        self.read(id, seqs.start, PIECE, &mut entries);
        let Some(cursor) = self.cursors.get(id) else { return Ok(()) };
        let next = if entries.len() < PIECE { None } else { entries.last().map(|last| last.seqs().end) };
        let next = next.filter(|next| *next < seqs.end);
        let mut rule = match self.by_hand.0.iter().find(|rule| rule.is_of(cursor.name(), sensor)) {
            Some(rule) => rule.clone(),
            None if self.by_hand.0.len() < MAX_RULES => Rule {
                cursor: cursor.name().into(),
                sensor: sensor.into(),
                seqs: seqs.start..seqs.start,
                left: Vec::new(),
                pending: 0,
            },
            None => return Err(CannotDrop::TooMany),
        };
        rule.left.retain(|range| range.end > cursor.acked.low());
        let (mut dropped, mut in_flight) = (0, 0);
        let of_it = |entry: &&Entry| entry.sensor() == Some(sensor) && entry.seqs().end <= seqs.end;
        for seq in entries.iter().filter(of_it).flat_map(Entry::seqs) {
            if cursor.acked.contains(seq) {
                continue;
            }
            if rule.leaves(seq) || cursor.in_flight().iter().any(|range| range.contains(&seq)) {
                in_flight += 1;
                if !rule.leave(seq) {
                    return Err(CannotDrop::TooMany);
                }
            } else {
                dropped += 1;
            }
        }
        *dropping = Dropping { dropped, in_flight, next };
        rule.pending += dropped;
        // A rule holds as far as its records were looked at, so that what comes later is not dropped by it.
        rule.seqs = rule.seqs.start.min(seqs.start)..rule.seqs.end.max(next.unwrap_or(seqs.end));
        if rule.pending > 0 {
            self.by_hand.0.retain(|other| !other.is_of(&rule.cursor, &rule.sensor));
            self.by_hand.0.push(rule);
            self.save_rules();
        }
        Ok(())
    }

    /// Takes those out of `out` from `start` on that were dropped by hand; `true`: there were some.
    pub(super) fn pass_over(&mut self, id: CursorId, start: usize, out: &mut Vec<Entry>) -> bool {
        if self.by_hand.0.is_empty() {
            return false;
        }
        let Some(cursor) = self.cursors.get_mut(id) else { return false };
        let name = cursor.name().to_owned();
        let mut rules: Vec<&mut Rule> = self.by_hand.0.iter_mut().filter(|rule| *rule.cursor == *name).collect();
        let before = out.len();
        let mut passed = false;
        let mut index = 0;
        out.retain(|entry| {
            index += 1;
            if index <= start {
                return true;
            }
            let Some(rule) = rules.iter_mut().find(|rule| rule.covers(entry)) else { return true };
            let mut keep = false;
            for seq in entry.seqs().filter(|seq| !cursor.acked.contains(*seq)).collect::<Vec<_>>() {
                if rule.leaves(seq) {
                    keep = true;
                } else if cursor.ack(seq..seq + 1) {
                    rule.pending = rule.pending.saturating_sub(1);
                    passed = true;
                }
            }
            keep
        });
        let low = cursor.acked.low();
        self.by_hand.0.retain(|rule| *rule.cursor != *name || rule.seqs.end > low);
        if passed {
            self.flushing.acks += 1;
            // With the acknowledgements, so that the count of what is left agrees with them after a kill.
            self.store_rules();
        }
        out.len() < before
    }

    fn save_rules(&mut self) {
        self.store_rules();
        self.persist_soon();
    }

    fn store_rules(&mut self) {
        let stored = (!self.by_hand.0.is_empty()).then(|| {
            let mut stored = Vec::new();
            record::write(&mut stored, &self.by_hand.0);
            stored
        });
        self.put_state(STATE_KEY, stored);
    }

    /// Takes up the rules of the last run. Damaged ones are forgotten: their records are delivered.
    pub(super) fn restore_rules(&mut self) {
        let rules = self.state(STATE_KEY).and_then(|stored| postcard::from_bytes::<Vec<Rule>>(stored).ok());
        let mut rules = rules.unwrap_or_default();
        rules.truncate(MAX_RULES);
        // A position that nobody has given yet will be another record's.
        rules.retain(|rule| rule.seqs.end <= self.next && rule.left.len() <= MAX_LEFT);
        self.by_hand = Rules(rules);
    }
}

impl Rule {
    fn is_of(&self, cursor: &str, sensor: &str) -> bool {
        *self.cursor == *cursor && *self.sensor == *sensor
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::simulated::Simulated;
    use super::super::tests::{body, descriptor, settings};
    use super::*;
    use crate::clock::{BootId, BootTime};

    fn open(disk: &Simulated) -> Outbox {
        let (outbox, _) =
            super::super::recovery::open(Arc::new(disk.clone()), settings(), BootId([7; 16]), BootTime(0))
                .expect("opens");
        outbox
    }

    /// What a cursor has still to deliver.
    fn waiting(outbox: &mut Outbox, cursor: CursorId) -> Vec<Seq> {
        let mut entries = Vec::new();
        outbox.read(cursor, 0, usize::MAX, &mut entries);
        entries.iter().flat_map(Entry::seqs).filter(|seq| !outbox.is_acked(cursor, *seq)).collect()
    }

    proptest! {
        /// Whatever is acknowledged, in flight or dropped before, and whatever dies in between: exactly what was meant
        /// goes, is counted once, and the rest waits.
        #[test]
        fn exactly_what_was_meant_goes(
            sensors in prop::collection::vec(0..3_usize, 1..700),
            acked in prop::collection::vec((0..700_u64, 1..9_u64), 0..20),
            flying in (0..700_u64, 0..40_u64),
            drops in prop::collection::vec((0..4_usize, 1..700_u64), 1..5),
            kill in any::<bool>(),
        ) {
            let disk = Simulated::new(Path::new("/run"));
            let mut outbox = open(&disk);
            let cursor = outbox.cursor("home");
            let names = ["a", "b", "c"];
            let known = names.map(descriptor);
            let first = outbox.end();
            for (number, sensor) in (0..).zip(&sensors) {
                outbox.append(BootTime(0), None, body(&known[*sensor], number));
            }
            outbox.commit(BootTime(0));
            let end = outbox.end();
            for (start, count) in acked {
                outbox.ack(cursor, first + start..(first + start + count).min(end));
            }
            let flying = first + flying.0..first + flying.0 + flying.1;
            outbox.set_in_flight(cursor, std::slice::from_ref(&flying));
            let mut expected = waiting(&mut outbox, cursor);
            let mut counted = 0;
            for (sensor, upto) in drops {
                let sensor = names.get(sensor).copied();
                let upto = (first + upto).min(end);
                let of_it = |seq: Seq| {
                    let index = usize::try_from(seq - first).expect("small");
                    seq < upto && sensor.is_none_or(|sensor| names[sensors[index]] == sensor)
                };
                let meant: Vec<Seq> = expected.iter().copied().filter(|seq| of_it(*seq)).collect();
                let going = meant.iter().filter(|seq| !flying.contains(seq)).count() as u64;
                let (mut from, mut sum) = (0, Dropping::default());
                loop {
                    let part = outbox.drop_by_hand(cursor, sensor, from..upto).expect("room");
                    sum.dropped += part.dropped;
                    sum.in_flight += part.in_flight;
                    match part.next {
                        Some(next) => from = next,
                        None => break,
                    }
                }
                outbox.commit(BootTime(0));
                prop_assert_eq!((sum.dropped, sum.in_flight), (going, meant.len() as u64 - going));
                counted += going;
                expected.retain(|seq| !of_it(*seq) || flying.contains(seq));
                let counts = outbox.backlog(cursor) - outbox.passing_over(cursor);
                prop_assert_eq!(counts, expected.len() as u64);
            }
            prop_assert_eq!(outbox.stats().dropped, counted);
            if kill {
                drop(outbox);
                outbox = open(&disk);
            }
            let cursor = outbox.cursor("home");
            prop_assert_eq!(waiting(&mut outbox, cursor), expected);
            prop_assert_eq!(outbox.passing_over(cursor), 0);
        }
    }

    #[test]
    fn a_rule_of_any_bytes_does_no_harm() {
        let disk = Simulated::new(Path::new("/run"));
        let mut outbox = open(&disk);
        let cursor = outbox.cursor("home");
        outbox.append(BootTime(0), None, body(&descriptor("a"), 1));
        outbox.put_state(STATE_KEY, Some(vec![0xff; 300]));
        outbox.commit(BootTime(0));
        drop(outbox);
        let mut outbox = open(&disk);
        assert_eq!(outbox.cursor("home"), cursor);
        assert_eq!(waiting(&mut outbox, cursor).len(), 1);
    }
}
