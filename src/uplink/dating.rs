//! The wall time of what was measured: from its boot's offset (wall clock minus boot clock), and from nowhere else.
//!
//! The offset of a boot is noted as soon as its clock is set. From then on everything measured in that boot has a date,
//! also what was measured before, and what is sent by a later run. When the clock steps, the better time is for all that
//! nobody was told a date of yet; what was told stays. So a boot is cut into *eras* with an offset each, and a cut lies
//! behind the newest reading of which a date was told: the same reading has the same date on every uplink, in the archive
//! and after a restart, and of two readings the later one has the later date, unless the clock was put back between them by
//! [`SMOOTHED`] or more. Where it was put back by less, as by a leap second that is inserted, dates go on at half the pace
//! from where they were, until they are right again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{BootId, BootTime, Doubt, Look, Offset, Source, WallTime};
use crate::outbox::{Entry, Moment, Outbox};

#[cfg(test)]
mod tests;

/// So many eras are kept, of one boot or of many; of the oldest ones none. Then a reading has the date that it was taken
/// with, if it was taken with one.
pub const ERAS: usize = 64;

/// A clock has stepped if it went by more than this beyond what cannot be told exactly.
pub const FOLLOWED: Duration = Duration::from_millis(1);

/// A step of the clock that is at least so large is told: a leap second is, and what NTP steps by.
pub const TOLD_STEP: Duration = Duration::from_millis(100);

/// Putting the clock back by less than this makes no reading's date earlier than that of the one before: a leap second is
/// less, and so is most of what NTP puts right once it has set the clock. By more, true dates are worth more than their order.
pub const SMOOTHED: Duration = Duration::from_secs(2);

/// Dates that are ahead of the clock, because it was put back by less than [`SMOOTHED`], go on at one part in so many of its
/// pace: so they are right after twice the time by which they were wrong.
const SLOWED: u64 = 2;

/// The key of the stored form in the outbox's state.
pub const STATE_KEY: &str = "clock/eras";

/// When something was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Date {
    /// At this time.
    Wall(WallTime),
    /// Nobody knows; so long after the start of that boot.
    Uptime(BootId, BootTime),
}

/// A stretch of a boot, up to the next era of that boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Era {
    boot: BootId,
    from: BootTime,
    offset: Offset,
    source: Source,
    /// Was anybody told a date of it?
    told: bool,
    /// The last date of the era before: its own are later, and grow. `None`: there is none, or the clock was put back by
    /// [`SMOOTHED`] or more.
    floor: Option<WallTime>,
}

impl Era {
    /// The date of a moment in it.
    fn date(&self, at: BootTime) -> WallTime {
        let by_offset = self.offset.wall(at);
        self.floor.map_or(by_offset, |floor| {
            let slowed = at.0.saturating_sub(self.from.0) / SLOWED + 1;
            by_offset.max(Offset(floor.0).wall(BootTime(slowed)))
        })
    }
}

/// What somebody says the offset of this boot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The offset.
    pub offset: Offset,
    /// How wrong it may be.
    pub within: Duration,
    /// Who says so.
    pub source: Source,
    /// When it was said: nothing that was told by then is dated anew.
    pub at: BootTime,
}

/// What a claim has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// This boot has dates now.
    Set,
    /// The dates stay, and rest on another word.
    Source,
    /// Dates are so many nanoseconds later than they were before.
    Step(i64),
}

/// The offsets known so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dating {
    /// In the order of time: those of the newest boot last.
    eras: Vec<Era>,
    /// The newest time in the last era of which a date was told.
    told: BootTime,
}

impl Dating {
    /// What an outbox knows.
    #[must_use]
    pub fn of(outbox: &Outbox) -> Self {
        outbox.state(STATE_KEY).map(Self::restore).unwrap_or_default()
    }

    /// Reads the stored form; what is damaged gives no dates rather than wrong ones.
    #[must_use]
    pub fn restore(stored: &[u8]) -> Self {
        let eras: Vec<Era> = postcard::from_bytes(stored).unwrap_or_default();
        // Nobody knows what an earlier run has told, if it has told anything.
        Self { eras, told: BootTime(0) }.bounded()
    }

    /// The stored form.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        postcard::to_allocvec(&self.eras).expect("numbers have a form in postcard")
    }

    fn bounded(mut self) -> Self {
        self.eras.drain(..self.eras.len().saturating_sub(ERAS));
        self
    }

    /// A run begins: what an earlier one of this boot has told may be anything up to now.
    pub fn begin(&mut self, now: BootTime) {
        self.told = if self.eras.last().is_some_and(|era| era.told) { now } else { BootTime(0) };
    }

    /// The era in which this boot is.
    fn current(&self, boot: BootId) -> Option<&Era> {
        self.eras.last().filter(|era| era.boot == boot)
    }

    /// The offset of this boot, as it is known now.
    #[must_use]
    pub fn offset(&self, boot: BootId) -> Option<Offset> {
        self.current(boot).map(|era| era.offset)
    }

    /// On whose word this boot has dates.
    #[must_use]
    pub fn source(&self, boot: BootId) -> Option<Source> {
        self.current(boot).map(|era| era.source)
    }

    /// Takes a claim for the current boot, unless a better one is there. Says what it has changed; then there is
    /// something new to save.
    pub fn take(&mut self, boot: BootId, claim: Claim) -> Option<Change> {
        match self.current(boot) {
            Some(era) if claim.source.rank() < era.source.rank() => None,
            _ => self.insist(boot, claim),
        }
    }

    /// Takes a claim whatever the word is on which the dates rest so far.
    pub fn insist(&mut self, boot: BootId, claim: Claim) -> Option<Change> {
        let Claim { offset, within, source, at } = claim;
        let told = self.told;
        let Some(era) = self.eras.last_mut().filter(|era| era.boot == boot) else {
            self.told = BootTime(0);
            self.push(Era { boot, from: BootTime(0), offset, source, told: false, floor: None });
            return Some(Change::Set);
        };
        let step = offset.minus(era.offset);
        if Duration::from_nanos(step.unsigned_abs()) <= within + FOLLOWED {
            let before = std::mem::replace(&mut era.source, source);
            return (before != source).then_some(Change::Source);
        }
        // Whatever says so, a time that has not come yet was not told.
        let last = told.min(at);
        let is_new = era.told && last >= era.from;
        let floor = if is_put_back(step) {
            None
        } else if is_new {
            Some(era.date(last))
        } else {
            era.floor
        };
        if is_new {
            let from = BootTime(last.0.saturating_add(1));
            self.push(Era { boot, from, offset, source, told: false, floor });
        } else {
            *era = Era { offset, source, floor, ..*era };
        }
        Some(Change::Step(step))
    }

    fn push(&mut self, era: Era) {
        if self.eras.len() >= ERAS {
            self.eras.remove(0);
        }
        self.eras.push(era);
    }

    /// Somebody is told the date of what was measured then: it stays as it is. Says whether there is something new to
    /// save, before which the date may not leave.
    pub fn tell(&mut self, moment: &Moment) -> bool {
        let Some(era) = self.eras.last_mut().filter(|era| era.boot == moment.boot && era.from <= moment.at) else {
            return false;
        };
        self.told = self.told.max(moment.at);
        !std::mem::replace(&mut era.told, true)
    }

    /// The date of a record.
    #[must_use]
    pub fn date(&self, entry: &Entry) -> Date {
        self.date_of(&entry.moment())
    }

    /// The same of the moment at which something was measured.
    #[must_use]
    pub fn date_of(&self, moment: &Moment) -> Date {
        let Moment { boot, at, time } = *moment;
        let era = self.eras.iter().rev().find(|era| era.boot == boot && era.from <= at);
        match era.map(|era| era.date(at)).or(time) {
            Some(time) => Date::Wall(time),
            None => Date::Uptime(boot, at),
        }
    }
}

/// Is a step of so many nanoseconds one after which dates may be earlier than they were?
fn is_put_back(step: i64) -> bool {
    step < 0 && Duration::from_nanos(step.unsigned_abs()) >= SMOOTHED
}

/// Is the wall clock to be believed, given that it cannot be earlier than `earliest`, and was `known` in an earlier boot
/// (`None` once this one has a date)?
///
/// No clock is right that shows a time before this program was built, whoever vouches for it. A hardware clock whose
/// battery is empty starts in the year in which its maker was born, or in 1970, and the kernel takes that for a time like
/// any other: so it must not be before what is known either. A source on the network may, because what is known may have
/// come from a clock that was wrong.
///
/// # Errors
/// Why not.
pub fn believe(look: &Look, earliest: WallTime, known: Option<WallTime>) -> Result<Claim, Doubt> {
    let source = look.word?;
    let shown = look.wall;
    if shown < earliest {
        return Err(Doubt::BeforeBuild(shown));
    }
    match known {
        Some(known) if source == Source::Rtc && shown < known => Err(Doubt::BeforeKnown { shown, known }),
        _ => Ok(Claim { offset: look.offset(), within: look.within, source, at: look.boot }),
    }
}
