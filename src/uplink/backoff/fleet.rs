//! Prevents: a broker that comes back and is knocked down again by the gateways that have waited for it.
//!
//! A simulation of 1,000 gateways, all of which lose their connection at the same moment, over the real back-off. Its
//! figures are those of `docs/guides/fleets.md`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::{Backoff, STABLE};
use crate::uplink::dial;

const GATEWAYS: usize = 1_000;
/// So many runs, each with chances of its own: the figures are of the worst.
const RUNS: u64 = 20;
/// Nobody may be away for longer after the broker's return.
const LATEST: Duration = Duration::from_secs(600);

/// What happens to all gateways at once.
#[derive(Clone, Copy)]
struct Outage {
    what: &'static str,
    lasts: Duration,
    /// How long it takes until an attempt has failed: none where the broker's machine refuses it.
    fails_after: Duration,
    /// So many connections a second the broker takes; the others it refuses.
    takes: Option<u32>,
    /// The worst that may come of it: attempts in one second, and seconds until all are back.
    most: (u32, u64),
}

const OUTAGES: &[Outage] = &[
    // The first wait is a second, and up to one more.
    Outage {
        what: "cut of 0.5 s",
        lasts: Duration::from_millis(500),
        fails_after: Duration::ZERO,
        takes: None,
        most: (1_000, 2),
    },
    Outage {
        what: "cut of 0.5 s",
        lasts: Duration::from_millis(500),
        fails_after: Duration::ZERO,
        takes: Some(100),
        most: (1_000, 60),
    },
    Outage {
        what: "restart of 2 s",
        lasts: Duration::from_secs(2),
        fails_after: Duration::ZERO,
        takes: None,
        most: (450, 6),
    },
    Outage {
        what: "restart of 2 s",
        lasts: Duration::from_secs(2),
        fails_after: Duration::ZERO,
        takes: Some(100),
        most: (450, 60),
    },
    Outage {
        what: "10 min, refused",
        lasts: Duration::from_secs(600),
        fails_after: Duration::ZERO,
        takes: None,
        most: (70, 60),
    },
    Outage {
        what: "10 min, refused",
        lasts: Duration::from_secs(600),
        fails_after: Duration::ZERO,
        takes: Some(20),
        most: (70, 240),
    },
    Outage {
        what: "10 min, no answer",
        lasts: Duration::from_secs(600),
        fails_after: dial::DEADLINE,
        takes: None,
        most: (50, 90),
    },
];

/// Numbers that look random, from a seed (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// When gateways knocked after the broker's return, in order; when half of them were back, and all.
struct Return {
    attempts: Vec<Duration>,
    half: Duration,
    all: Duration,
}

impl Return {
    /// The most attempts within one second, whenever that begins.
    fn peak(&self) -> u32 {
        let within = |first: usize| {
            let end = self.attempts[first] + Duration::from_secs(1);
            self.attempts.partition_point(|&at| at < end) - first
        };
        let most = (0..self.attempts.len()).map(within).max().unwrap_or_default();
        u32::try_from(most).expect("not that many")
    }
}

fn simulate(outage: &Outage, mut wait: impl FnMut(usize) -> Duration) -> Return {
    // When which gateway knocks.
    let mut knocks: BinaryHeap<Reverse<(Duration, usize)>> =
        (0..GATEWAYS).map(|gateway| Reverse((wait(gateway), gateway))).collect();
    let (mut attempts, mut taken): (Vec<Duration>, Vec<u32>) = (Vec::new(), Vec::new());
    let (mut back, mut half) = (0, Duration::ZERO);
    while let Some(Reverse((at, gateway))) = knocks.pop() {
        let Some(after) = at.checked_sub(outage.lasts) else {
            knocks.push(Reverse((at + outage.fails_after + wait(gateway), gateway)));
            continue;
        };
        assert!(after < LATEST, "{} gateways are still away", GATEWAYS - back);
        let second = usize::try_from(after.as_secs()).expect("not that long");
        taken.resize(taken.len().max(second + 1), 0);
        attempts.push(after);
        if outage.takes.is_some_and(|most| taken[second] >= most) {
            knocks.push(Reverse((at + wait(gateway), gateway)));
            continue;
        }
        taken[second] += 1;
        back += 1;
        if back == GATEWAYS / 2 {
            half = after;
        }
        if back == GATEWAYS {
            return Return { attempts, half, all: after };
        }
    }
    unreachable!("every gateway comes back or knocks again")
}

/// Of the runs with the real back-off: the most attempts in a second, and when half and all were back, at worst.
fn worst(outage: &Outage) -> (u32, Duration, Duration) {
    let mut worst = (0, Duration::ZERO, Duration::ZERO);
    for run in 0..RUNS {
        let mut random = Random(run);
        let mut backoffs: Vec<Backoff> = (0..GATEWAYS).map(|_| Backoff::default()).collect();
        for backoff in &mut backoffs {
            backoff.was_up(STABLE);
        }
        let came = simulate(outage, |gateway| backoffs[gateway].failed(random.next()));
        worst = (worst.0.max(came.peak()), worst.1.max(came.half), worst.2.max(came.all));
    }
    worst
}

#[test]
fn a_thousand_gateways_do_not_come_back_at_once() {
    let guide = std::fs::read_to_string("docs/guides/fleets.md").expect("the guide");
    let mut missing = Vec::new();
    for outage in OUTAGES {
        let (peak, half, all) = worst(outage);
        let row = format!(
            "| {} | {} | {peak} | {} s | {} s |",
            outage.what,
            outage.takes.map_or_else(|| "any number".to_owned(), |most| format!("{most} a second")),
            half.as_secs() + 1,
            all.as_secs() + 1,
        );
        assert!(peak <= outage.most.0 && all.as_secs() < outage.most.1, "{row}: it was to be {:?}", outage.most);
        if !guide.contains(&row) {
            missing.push(row);
        }
    }
    assert!(missing.is_empty(), "docs/guides/fleets.md has other figures than\n{}", missing.join("\n"));
}

/// The simulation itself would show a stampede.
#[test]
fn without_chance_they_would() {
    let outage = OUTAGES.iter().find(|outage| outage.takes.is_none()).expect("one");
    let came = simulate(outage, |_| Duration::from_secs(5));
    assert_eq!(came.peak(), 1_000);
}
