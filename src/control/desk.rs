//! What is asked of an outbox, a bounded piece at a time: the same beside a running agent, which does other things
//! between two pieces, and without one.

use std::collections::VecDeque;
use std::time::Duration;

use super::status::About;
use super::{Dropped, MAX_SHOWN, Which};
use crate::clock::WallTime;
use crate::export::{self, Row};
use crate::outbox::{CursorId, Entry, Outbox, Seq, Walk};
use crate::uplink::dating::{Date, Dating};

/// All rows that wait, in order.
#[derive(Debug)]
pub struct Rows {
    walk: Walk,
    which: Which,
    read_errors: u64,
    entries: Vec<Entry>,
}

impl Rows {
    /// Begins at the oldest.
    ///
    /// # Errors
    /// There is no such uplink, in words.
    pub fn new(outbox: &mut Outbox, about: &About, which: Which) -> Result<Self, String> {
        let cursors = about.cursors(outbox, which.uplink.as_deref())?;
        Ok(Self::from(outbox, cursors, which, 0))
    }

    fn from(outbox: &Outbox, cursors: Vec<CursorId>, which: Which, from: Seq) -> Self {
        let walk = Walk::new(outbox, cursors, from);
        Self { walk, which, read_errors: outbox.stats().read_errors, entries: Vec::new() }
    }

    /// Appends the next rows; `false`: that was all. A piece may be empty although more follow.
    pub fn step(&mut self, outbox: &mut Outbox, dating: &Dating, out: &mut Vec<Row>) -> bool {
        self.entries.clear();
        let more = self.walk.step(outbox, &mut self.entries);
        for entry in &self.entries {
            let date = dating.date(entry);
            if self.which.filter.wants(entry, date) {
                export::rows(entry, date, |seq| self.walk.waits(outbox, seq), out);
            }
        }
        more
    }

    /// Did records turn up that cannot be read at the moment?
    #[must_use]
    pub fn unreadable(&self, outbox: &Outbox) -> bool {
        outbox.stats().read_errors > self.read_errors
    }
}

/// The newest rows that wait.
#[derive(Debug)]
pub struct Newest {
    rows: Rows,
    cursors: Vec<CursorId>,
    limit: usize,
    /// Values that the walk began before the end.
    reach: u64,
    from: Seq,
    found: VecDeque<Row>,
    scratch: Vec<Row>,
}

/// When too few of the newest are wanted ones, so many times as many are looked at.
const REACH_FURTHER: u64 = 16;

impl Newest {
    /// Looks for at most `limit` rows.
    ///
    /// # Errors
    /// There is no such uplink, in words.
    pub fn new(outbox: &mut Outbox, about: &About, which: Which, limit: usize) -> Result<Self, String> {
        let limit = limit.min(MAX_SHOWN);
        let cursors = about.cursors(outbox, which.uplink.as_deref())?;
        let reach = limit as u64;
        let from = start(outbox, &cursors, reach);
        let rows = Rows::from(outbox, cursors.clone(), which, from);
        Ok(Self { rows, cursors, limit, reach, from, found: VecDeque::new(), scratch: Vec::new() })
    }

    /// Looks at a piece; `false`: all was seen.
    pub fn step(&mut self, outbox: &mut Outbox, dating: &Dating) -> bool {
        let more = self.rows.step(outbox, dating, &mut self.scratch);
        self.found.extend(self.scratch.drain(..));
        let surplus = self.found.len().saturating_sub(self.limit);
        self.found.drain(..surplus);
        if more {
            return true;
        }
        if self.found.len() >= self.limit || self.from <= start(outbox, &self.cursors, u64::MAX) {
            return false;
        }
        self.reach = self.reach.saturating_mul(REACH_FURTHER);
        self.from = start(outbox, &self.cursors, self.reach);
        self.rows = Rows::from(outbox, self.cursors.clone(), self.rows.which.clone(), self.from);
        self.found.clear();
        true
    }

    /// What was found, and whether records could not be read.
    #[must_use]
    pub fn finish(self, outbox: &Outbox) -> (VecDeque<Row>, bool) {
        let unreadable = self.rows.unreadable(outbox);
        (self.found, unreadable)
    }
}

/// The position from which on each cursor has `count` values waiting, or all it has.
fn start(outbox: &Outbox, cursors: &[CursorId], count: u64) -> Seq {
    cursors.iter().map(|cursor| outbox.newest_waiting(*cursor, count)).min().unwrap_or(0)
}

/// Drops what waits.
#[derive(Debug)]
pub struct Drops {
    cursors: Vec<CursorId>,
    sensor: Option<String>,
    /// What was measured before this, if that matters.
    before: Option<WallTime>,
    dry_run: bool,
    work: Work,
    /// How it stands.
    pub dropped: Dropped,
}

#[derive(Debug)]
enum Work {
    /// Looks where the records end that are old enough.
    Search(Walk, Seq),
    /// Drops below the position; the next cursor and the next position.
    Drop(Seq, usize, Seq),
    /// Counts what would be dropped.
    Count(Walk, Seq),
}

impl Drops {
    /// Begins; `now` is the wall clock's time, `None` where it is not set.
    ///
    /// # Errors
    /// There is no such uplink, or it cannot be told what is old, in words.
    pub fn new(
        outbox: &mut Outbox,
        about: &About,
        (uplink, sensor): (Option<&str>, Option<String>),
        older_than: Option<Duration>,
        now: Option<WallTime>,
        dry_run: bool,
    ) -> Result<Self, String> {
        let cursors = about.cursors(outbox, uplink)?;
        let before = match (older_than, now) {
            (None, _) => None,
            (Some(_), None) => {
                return Err(
                    "the clock is not set, so that it cannot be told what is old: set it, or drop by --sensor \
                            or --all"
                        .to_owned(),
                );
            }
            (Some(age), Some(WallTime(now))) => {
                let age = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
                Some(WallTime(now.saturating_sub(age)))
            }
        };
        let work = match before {
            Some(_) => Work::Search(Walk::new(outbox, cursors.clone(), 0), 0),
            None => Self::begin(outbox, &cursors, outbox.end(), dry_run),
        };
        Ok(Self { cursors, sensor, before, dry_run, work, dropped: Dropped::default() })
    }

    fn begin(outbox: &Outbox, cursors: &[CursorId], end: Seq, dry_run: bool) -> Work {
        if dry_run { Work::Count(Walk::new(outbox, cursors.to_vec(), 0), end) } else { Work::Drop(end, 0, 0) }
    }

    /// Does a piece; `false`: all is done. Lasting from the next `commit` on.
    ///
    /// # Errors
    /// There is no room for it, in words; what was dropped before stays dropped.
    pub fn step(&mut self, outbox: &mut Outbox, dating: &Dating) -> Result<bool, String> {
        match &mut self.work {
            Work::Search(walk, end) => {
                let mut entries = Vec::new();
                let mut more = walk.step(outbox, &mut entries);
                // Positions grow with time: what lies before something old is old, with a date or without.
                for entry in &entries {
                    if let (Date::Wall(time), Some(before)) = (dating.date(entry), self.before) {
                        if time >= before {
                            more = false;
                            break;
                        }
                        *end = entry.seqs().end;
                    }
                }
                if !more {
                    self.work = Self::begin(outbox, &self.cursors, *end, self.dry_run);
                }
                Ok(true)
            }
            Work::Count(walk, end) => {
                let mut entries = Vec::new();
                let more = walk.step(outbox, &mut entries);
                let wanted = |entry: &&Entry| self.sensor.is_none() || entry.sensor() == self.sensor.as_deref();
                for seq in entries.iter().filter(wanted).flat_map(Entry::seqs).filter(|seq| *seq < *end) {
                    for cursor in &self.cursors {
                        if outbox.is_in_flight(*cursor, seq) {
                            self.dropped.in_flight += 1;
                        } else if !outbox.is_acked(*cursor, seq) {
                            self.dropped.dropped += 1;
                        }
                    }
                }
                Ok(more && entries.last().is_none_or(|last| last.seq < *end))
            }
            Work::Drop(end, index, from) => {
                let Some(cursor) = self.cursors.get(*index) else { return Ok(false) };
                let done = outbox
                    .drop_by_hand(*cursor, self.sensor.as_deref(), *from..*end)
                    .map_err(|error| error.to_string())?;
                self.dropped.dropped += done.dropped;
                self.dropped.in_flight += done.in_flight;
                match done.next {
                    Some(next) => *from = next,
                    None => (*index, *from) = (*index + 1, 0),
                }
                Ok(true)
            }
        }
    }
}
