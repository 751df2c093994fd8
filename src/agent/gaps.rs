//! What consumers cannot know by themselves: which readings will never come.
//!
//! `…/gaps`, retained, gives the totals since the outbox was made by reason, sensor and, where it is one uplink's alone,
//! uplink: `{"dropped":120,"gaps":[{"reason":"disk-full","sensor":"meteo","count":120,"first":{"time":"…"},
//! "last":{"time":"…"}}]}`. While nobody knows the time of a reading, `boot` and `uptime` stand in place of `time`, as
//! in the reading itself. The totals are kept in the outbox's state.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::when::When;
use crate::clock::BootTime;
use crate::config::Named;
use crate::outbox::{DropReason, Dropped, Moment};
use crate::uplink::Hub;
use crate::uplink::dating::Dating;
use crate::uplink::veil::Veil;

/// The topic below the gateway's.
const LEAF: &str = "gaps";

/// The key of the stored form in the outbox's state.
const STATE_KEY: &str = "gaps";

/// `…/gaps` changes this often at most.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Drops are logged this often at most.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Gaps that are told apart; beyond that they are summed by reason.
const MAX_GAPS: usize = 64;

/// Readings that were dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Gap {
    /// [`DropReason::as_str`]; kept as it is, should a newer version have other ones.
    reason: Box<str>,
    uplink: Option<Box<str>>,
    sensor: Option<Box<str>>,
    count: u64,
    when: Option<(Moment, Moment)>,
}

impl Gap {
    fn of(dropped: &Dropped) -> Self {
        let Dropped { reason, cursor, sensor, count, when, .. } = dropped;
        let (uplink, sensor) = (cursor.clone(), sensor.clone());
        Self { reason: reason.as_str().into(), uplink, sensor, count: *count, when: *when }
    }

    fn is_alike(&self, other: &Self) -> bool {
        (&self.reason, &self.uplink, &self.sensor) == (&other.reason, &other.uplink, &other.sensor)
    }

    /// Takes up a later one.
    fn add(&mut self, later: &Self) {
        self.count += later.count;
        self.when = match (self.when, later.when) {
            (Some((first, _)), Some((_, last))) => Some((first, last)),
            (when, later) => when.or(later),
        };
    }

    /// Puts it into a list, or what is left of it where there is no more room.
    fn add_to(mut self, list: &mut Vec<Self>) {
        if list.len() >= MAX_GAPS && !list.iter().any(|gap| gap.is_alike(&self)) {
            (self.uplink, self.sensor) = (None, None);
        }
        match list.iter_mut().find(|gap| gap.is_alike(&self)) {
            Some(gap) => gap.add(&self),
            None => list.push(self),
        }
    }
}

#[derive(Serialize)]
struct ToldGap<'a> {
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    uplink: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sensor: Option<Box<str>>,
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<When>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<When>,
}

#[derive(Serialize)]
struct Payload<'a> {
    dropped: u64,
    gaps: Vec<ToldGap<'a>>,
}

fn payload<'a>(totals: impl Iterator<Item = &'a Gap> + Clone, dating: &Dating, veil: &Veil) -> String {
    let told = totals.clone().map(|gap| ToldGap {
        reason: &gap.reason,
        uplink: gap.uplink.as_deref().filter(|_| !veil.hides_names()),
        sensor: gap.sensor.as_deref().map(|sensor| veil.name(Named::Sensor, sensor)),
        count: gap.count,
        first: gap.when.map(|(first, _)| veil.date(dating.date_of(&first)).into()),
        last: gap.when.map(|(_, last)| veil.date(dating.date_of(&last)).into()),
    });
    let payload = Payload { dropped: totals.map(|gap| gap.count).sum(), gaps: told.collect() };
    serde_json::to_string(&payload).expect("strings and finite numbers are always JSON")
}

/// Everything that was dropped since the outbox was made, and what of it was not logged yet.
pub(super) struct Gaps {
    totals: Vec<Gap>,
    unlogged: Vec<(DropReason, Gap)>,
    looked: Option<BootTime>,
    logged: Option<BootTime>,
}

impl Gaps {
    /// Goes on from what the outbox's state says, and publishes it.
    pub(super) fn of(hub: &Hub) -> Self {
        let stored = hub.outbox.borrow().state(STATE_KEY).map(postcard::from_bytes::<Vec<Gap>>);
        let totals = match stored {
            Some(Ok(totals)) => totals,
            // A newer version's, or damaged: to count anew is better than not to start.
            Some(Err(_)) | None => Vec::new(),
        };
        let gaps = Self { totals, unlogged: Vec::new(), looked: None, logged: None };
        gaps.publish(hub);
        gaps
    }

    /// Takes up what was dropped, unless that was done a moment ago.
    pub(super) fn look(&mut self, hub: &Hub) {
        let now = hub.clock.boot();
        if self.looked.is_none_or(|looked| now.since(looked) >= LOOK_EVERY) {
            self.looked = Some(now);
            self.take(hub);
        }
        if self.logged.is_none_or(|logged| now.since(logged) >= LOG_EVERY) && !self.unlogged.is_empty() {
            self.logged = Some(now);
            self.log(hub);
        }
    }

    /// The last look: what it finds is in the state before the outbox is closed.
    pub(super) fn close(mut self, hub: &Hub) {
        self.take(hub);
        self.log(hub);
    }

    fn take(&mut self, hub: &Hub) {
        let dropped = hub.outbox.borrow_mut().take_drops();
        if !dropped.is_empty() {
            for dropped in &dropped {
                let gap = Gap::of(dropped);
                match self.unlogged.iter().position(|(_, other)| other.is_alike(&gap)) {
                    Some(index) => self.unlogged[index].1.add(&gap),
                    None if self.unlogged.len() < MAX_GAPS => self.unlogged.push((dropped.reason, gap.clone())),
                    None => {}
                }
                gap.add_to(&mut self.totals);
            }
            let outbox = &mut *hub.outbox.borrow_mut();
            outbox.put_state(STATE_KEY, postcard::to_allocvec(&self.totals).ok());
            outbox.commit(hub.clock.boot());
        }
        // A clock that was set since gives dates to what had none; what has not changed is not sent again.
        self.publish(hub);
    }

    fn publish(&self, hub: &Hub) {
        let dating = hub.dating();
        hub.set_gateway_state(LEAF, payload(self.totals.iter(), &dating, &Veil::default()), |uplink, veil| {
            // What is another uplink's says how it is called.
            let own = |gap: &&Gap| !veil.hides_names() || gap.uplink.as_deref().is_none_or(|other| other == uplink);
            Some(payload(self.totals.iter().filter(own), &dating, veil))
        });
    }

    fn log(&mut self, hub: &Hub) {
        let dating = hub.dating();
        for (reason, gap) in self.unlogged.drain(..) {
            let (uplink, sensor) = (gap.uplink.as_deref().unwrap_or("-"), gap.sensor.as_deref().unwrap_or("-"));
            let text = |moment: &Moment| When::from(dating.date_of(moment)).text();
            let (first, last) = match &gap.when {
                Some((first, last)) => (text(first), text(last)),
                None => ("unknown".to_owned(), "unknown".to_owned()),
            };
            let (count, remedy) = (gap.count, reason.remedy());
            warn!(sensor, uplink, count, reason = reason.as_str(), first, last, "readings were dropped: {remedy}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{BootId, Offset, Source};
    use crate::uplink::dating::Claim;

    const BOOT: BootId = BootId([0xab; 16]);

    fn gap(reason: DropReason, sensor: Option<&str>, at: u64) -> Gap {
        let moment = Moment { boot: BOOT, at: BootTime(at * 1_000_000_000), time: None };
        Gap::of(&Dropped {
            reason,
            cursor: None,
            sensor: sensor.map(Box::from),
            count: 2,
            span: 0..0,
            when: Some((moment, moment)),
        })
    }

    #[test]
    fn gaps_add_up_and_are_dated_when_that_is_possible() {
        let mut totals = Vec::new();
        for at in [5, 7] {
            gap(DropReason::DiskFull, Some("meteo"), at).add_to(&mut totals);
        }
        let unreadable = Gap { when: None, ..gap(DropReason::Damaged, None, 0) };
        unreadable.add_to(&mut totals);
        let mut dating = Dating::default();
        assert_eq!(
            payload(totals.iter(), &dating, &Veil::default()),
            concat!(
                r#"{"dropped":6,"gaps":[{"reason":"disk-full","sensor":"meteo","count":4,"#,
                r#""first":{"boot":"abababababababababababababababab","uptime":5.0},"#,
                r#""last":{"boot":"abababababababababababababababab","uptime":7.0}},"#,
                r#"{"reason":"damaged","count":2}]}"#
            )
        );
        let claim = Claim {
            offset: Offset(1_800_000_000_000_000_000),
            within: Duration::ZERO,
            source: Source::Synchronised,
            at: BootTime(8_000_000_000),
        };
        dating.take(BOOT, claim);
        let text = payload(totals[..1].iter(), &dating, &Veil::default());
        assert!(text.contains(r#""last":{"time":"2027-01-15T08:00:07.000Z"}"#), "{text}");
        let stored = postcard::to_allocvec(&totals).expect("small");
        assert_eq!(postcard::from_bytes::<Vec<Gap>>(&stored).expect("as written"), totals);
    }

    #[test]
    fn beyond_the_bound_they_are_summed_by_reason() {
        let mut totals = Vec::new();
        for sensor in 0..1000 {
            for reason in DropReason::ALL {
                gap(reason, Some(&format!("sensor-{sensor}")), 1).add_to(&mut totals);
            }
        }
        assert!(totals.len() <= MAX_GAPS + DropReason::ALL.len(), "{}", totals.len());
        let expected = 1_000 * 2 * DropReason::ALL.len() as u64;
        assert_eq!(totals.iter().map(|gap| gap.count).sum::<u64>(), expected);
        assert!(payload(totals.iter(), &Dating::default(), &Veil::default()).len() < 32 * 1024);
    }
}
