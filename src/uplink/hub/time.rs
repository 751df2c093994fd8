//! What time it is, and was: the hub's side of [`dating`](super::super::dating).
//!
//! `…/info` says on whose word the clock counts as set (`clock`). When it has stepped by [`TOLD_STEP`] or more, `…/clock`,
//! retained, says by how much, when, and how often since the start: `{"source":"synchronised","steps":1,"step":{"seconds":
//! 40.001,"time":"…"}}`.

use std::cell::Ref;
use std::mem::discriminant;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Hub;
use crate::clock::{BootTime, Doubt, Offset, Source, WallTime};
use crate::outbox::{Entry, Moment, Outbox};
use crate::uplink::dating::{self, Change, Claim, Dating, TOLD_STEP};
use crate::uplink::known_time::{self, CertificateTime};

/// How wrong the time of a GPS receiver may be: its sentences come some tenths of a second after the moment that they are
/// about.
const GPS_WITHIN: Duration = Duration::from_secs(1);

/// The topic below the gateway's.
const LEAF: &str = "clock";

/// A step of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// By so many nanoseconds; negative: it was put back.
    pub nanos: i64,
    /// When it was seen, by the clock as it was afterwards.
    pub time: WallTime,
}

/// What was noticed since the start.
#[derive(Debug, Default)]
pub(super) struct Steps {
    /// Those of at least [`TOLD_STEP`].
    count: u64,
    last: Option<Step>,
    /// Why the clock was not believed when it was looked at last.
    doubt: Option<Doubt>,
}

/// How it stands with the clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStatus {
    /// On whose word this boot has dates; `None`: it has none.
    pub source: Option<Source>,
    /// Now, by these dates.
    pub now: Option<WallTime>,
    /// What the machine's clock shows.
    pub shown: WallTime,
    /// Since the machine was started.
    pub uptime: BootTime,
    /// Why the machine's clock is not believed.
    pub doubt: Option<String>,
    /// Steps that were told since the agent was started.
    pub steps: u64,
    /// The last of them.
    pub step: Option<Step>,
}

/// `…/clock`
#[derive(Serialize)]
struct Told {
    source: Option<Source>,
    steps: u64,
    step: Option<ToldStep>,
}

#[derive(Serialize)]
struct ToldStep {
    /// To the millisecond.
    seconds: f64,
    time: String,
}

impl Hub {
    /// Looks whether the clock is set, or has been stepped. Cheap: it is done for each batch of readings, so that none is
    /// dated by a clock that is no more.
    pub fn look_at_clock(&self) {
        let look = self.clock.look();
        let knows = self.dating().offset(self.boot).is_some();
        let known = if knows { None } else { self.known() };
        let believed = dating::believe(&look, self.clock.earliest(), known);
        let doubt = believed.err();
        let before = std::mem::replace(&mut self.steps.borrow_mut().doubt, doubt);
        match believed {
            Ok(claim) => self.take(claim, Dating::take),
            // The reason alone: what a clock shows goes on.
            Err(doubt) if before.map(|before| discriminant(&before)) != Some(discriminant(&doubt)) => {
                self.doubts(doubt);
            }
            Err(_) => {}
        }
    }

    /// Did somebody vouch for the machine's clock when it was looked at last?
    pub(in crate::uplink) fn is_vouched_for(&self) -> bool {
        !matches!(self.steps.borrow().doubt, Some(Doubt::NotSynchronised | Doubt::Refused(_)))
    }

    fn doubts(&self, doubt: Doubt) {
        match (doubt, self.dating().source(self.boot)) {
            // An NTP client that has lost its server: the boot clock goes on.
            (_, Some(source)) => {
                let source = source.as_str();
                tracing::info!(source, "the machine's clock does not count as set any more; dates go on as they were");
            }
            (Doubt::NotSynchronised, None) => {
                tracing::info!("the clock is not set: {doubt}; readings have no time yet");
            }
            (_, None) => tracing::warn!("the clock is not set: {doubt}"),
        }
    }

    /// A GPS receiver said that it was that time.
    pub fn take_fix(&self, at: BootTime, time: WallTime) {
        if time < self.clock.earliest() {
            return;
        }
        let offset = Offset::between(at, time);
        // What was measured since the fix may have been told already.
        let at = self.clock.boot();
        self.take(Claim { offset, within: GPS_WITHIN, source: Source::Gps, at }, Dating::take);
    }

    /// Somebody says that it is that time.
    ///
    /// # Errors
    /// Why that does not count, in words.
    pub fn set_clock(&self, at: BootTime, time: WallTime) -> Result<(), String> {
        let look = self.clock.look();
        let refused = match look.word {
            Ok(Source::Synchronised) => {
                "the machine's clock follows a source of time, which counts for more (`timedatectl` says which)"
            }
            Ok(Source::Trusted) => "[clock] says trust = \"always\": set the machine's clock (`date -s`)",
            _ if time < self.clock.earliest() => "that is before this program was built",
            _ if at > look.boot => "the machine has not been running for so long",
            _ => {
                let offset = Offset::between(at, time);
                self.take(
                    Claim { offset, within: Duration::ZERO, source: Source::ByHand, at: look.boot },
                    Dating::insist,
                );
                return Ok(());
            }
        };
        Err(refused.to_owned())
    }

    fn take(&self, claim: Claim, take: fn(&mut Dating, crate::clock::BootId, Claim) -> Option<Change>) {
        let change = take(&mut self.dating.borrow_mut(), self.boot, claim);
        let Some(change) = change else { return };
        let source = claim.source.as_str();
        self.offset.send_replace(Some(claim.offset));
        self.keep_dating();
        self.remember_time();
        match change {
            Change::Set => tracing::info!(source, "the clock is set: readings of this boot have a time"),
            Change::Source => tracing::info!(source, "the clock rests on another word"),
            Change::Step(nanos) => self.stepped(nanos, claim),
        }
        self.update_info(|info| info.clock = Some(source));
        self.work.send_replace(());
    }

    fn stepped(&self, nanos: i64, claim: Claim) {
        let source = claim.source.as_str();
        let seconds = seconds(nanos);
        if Duration::from_nanos(nanos.unsigned_abs()) < TOLD_STEP {
            tracing::debug!(source, seconds, "the clock was stepped");
            return;
        }
        tracing::warn!(source, seconds, "the clock was stepped: readings from now on, and those that wait, go by it");
        let step = Step { nanos, time: claim.offset.wall(self.clock.boot()) };
        let steps = &mut *self.steps.borrow_mut();
        steps.count += 1;
        steps.last = Some(step);
        let time = humantime::format_rfc3339_millis(step.time.to_system()).to_string();
        let told = Told { source: Some(claim.source), steps: steps.count, step: Some(ToldStep { seconds, time }) };
        let payload = serde_json::to_string(&told).expect("strings and finite numbers are always JSON");
        // Its time is to the millisecond.
        self.set_gateway_state(LEAF, payload, |_, _| None);
    }

    fn keep_dating(&self) {
        let outbox = &mut *self.outbox.borrow_mut();
        outbox.put_state(dating::STATE_KEY, Some(self.dating.borrow().save()));
        outbox.persist_soon();
        outbox.commit(self.clock.boot());
    }

    /// What dates readings.
    #[must_use]
    pub fn dating(&self) -> Ref<'_, Dating> {
        self.dating.borrow()
    }

    /// The date of a record goes out: from then on it stays. Says whether the outbox is to be committed before that.
    pub fn tell(&self, outbox: &mut Outbox, entry: &Entry) -> bool {
        self.tell_moment(outbox, &entry.moment())
    }

    /// The same of the moment at which something was measured.
    pub fn tell_moment(&self, outbox: &mut Outbox, moment: &Moment) -> bool {
        let dating = &mut *self.dating.borrow_mut();
        let is_news = dating.tell(moment);
        if is_news {
            outbox.put_state(dating::STATE_KEY, Some(dating.save()));
        }
        is_news
    }

    /// This boot's offset, if it is known; and when it changes.
    #[must_use]
    pub fn offset(&self) -> watch::Receiver<Option<Offset>> {
        self.offset.subscribe()
    }

    /// What time it is, if that is known.
    #[must_use]
    pub fn now(&self) -> Option<WallTime> {
        self.stamp(self.clock.boot())
    }

    /// What time it was at that moment of this boot, if that is known.
    #[must_use]
    pub fn stamp(&self, at: BootTime) -> Option<WallTime> {
        match self.dating().date_of(&Moment { boot: self.boot, at, time: None }) {
            dating::Date::Wall(time) => Some(time),
            dating::Date::Uptime(..) => None,
        }
    }

    /// How it stands with the clock.
    #[must_use]
    pub fn clock_status(&self) -> ClockStatus {
        let (look, steps) = (self.clock.look(), self.steps.borrow());
        ClockStatus {
            source: self.dating().source(self.boot),
            now: self.now(),
            shown: look.wall,
            uptime: look.boot,
            doubt: steps.doubt.map(|doubt| doubt.to_string()),
            steps: steps.count,
            step: steps.last,
        }
    }

    /// Keeps the time for a later boot without a clock, if it is known.
    pub fn remember_time(&self) {
        if let Some(now) = self.now() {
            let outbox = &mut *self.outbox.borrow_mut();
            outbox.put_state(known_time::STATE_KEY, Some(known_time::save(now)));
            outbox.commit(self.clock.boot());
        }
    }

    /// What certificates are to be checked against now.
    #[must_use]
    pub fn certificate_time(&self) -> CertificateTime {
        if let Some(now) = self.now() {
            return CertificateTime::Exact(now.to_system());
        }
        known_time::at_least(self.clock.look().wall.to_system(), self.known())
    }

    /// The time when it was last known, now or in an earlier boot.
    fn known(&self) -> Option<WallTime> {
        self.outbox.borrow().state(known_time::STATE_KEY).and_then(known_time::restore)
    }
}

/// To the millisecond.
fn seconds(nanos: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of centuries stay below 2^53")]
    let millis = (nanos / 1_000_000) as f64;
    millis / 1_000.0
}

#[cfg(test)]
mod tests;
