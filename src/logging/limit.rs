//! How much a sensor, an uplink or a part of the program may write to the log.
//!
//! Journald has a limit of its own (`RateLimitBurst=`), but for the whole service: there, one broken sensor would silence
//! all others. Here each source has its own, and what is left out is counted and told. On stderr it is the same, with more
//! room: there, somebody may be watching.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::Level;

/// A source may write so many records ([`PER_WINDOW`], [`PER_WINDOW_ON_STDERR`]) in so long.
pub(super) const WINDOW: Duration = Duration::from_secs(60);

/// Records of one source in a [`WINDOW`]. A cable that is plugged in and out by hand stays below it.
pub(super) const PER_WINDOW: u32 = 30;

/// The same where the log is text on stderr.
pub(super) const PER_WINDOW_ON_STDERR: u32 = 300;

/// Sources that are told apart; further ones share the limit of one.
const MAX_SOURCES: usize = 512;

/// Who writes: a kind (`sensor`, `uplink`, `target`) and a name.
pub(super) type Source = (&'static str, Box<str>);

/// Counts what each source writes.
#[derive(Debug)]
pub(super) struct Limits {
    sources: HashMap<Source, Window>,
    per_window: u32,
}

#[derive(Debug)]
struct Window {
    begun: Instant,
    written: u32,
    left_out: u64,
}

impl Window {
    fn new(begun: Instant) -> Self {
        Self { begun, written: 0, left_out: 0 }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.begun) >= WINDOW
    }
}

impl Limits {
    /// Each source may write so many records in a [`WINDOW`].
    pub(super) fn new(per_window: u32) -> Self {
        Self { sources: HashMap::new(), per_window }
    }

    /// May this source write a record now?
    pub(super) fn admit(&mut self, source: Source, now: Instant) -> bool {
        let known = self.sources.contains_key(&source);
        if !known && self.sources.len() >= MAX_SOURCES {
            // Those that were quiet for a window, and have nothing to be told, make room.
            self.sources.retain(|_, window| !window.is_over(now) || window.left_out > 0);
        }
        let full = !known && self.sources.len() >= MAX_SOURCES;
        let source = if full { others() } else { source };
        let window = self.sources.entry(source).or_insert_with(|| Window::new(now));
        // What was left out is told before the next window begins.
        if window.is_over(now) && window.left_out == 0 {
            *window = Window::new(now);
        }
        if window.written < self.per_window {
            window.written += 1;
            return true;
        }
        window.left_out += 1;
        false
    }

    /// The sources that were silenced in a window that is over, with how many of their records were left out. Each is
    /// told once, and may write again.
    pub(super) fn silenced(&mut self, now: Instant) -> Vec<(Source, u64)> {
        let mut told = Vec::new();
        for (source, window) in &mut self.sources {
            if window.left_out > 0 && window.is_over(now) {
                told.push((source.clone(), window.left_out));
                *window = Window::new(now);
            }
        }
        told
    }
}

/// A limit that several threads write under.
#[derive(Debug)]
pub(super) struct Gate(Mutex<Limits>);

impl Gate {
    pub(super) fn new(per_window: u32) -> Self {
        Self(Mutex::new(Limits::new(per_window)))
    }

    /// May a record of that source, for which `level` was asked, be written? First, `tell` is given the sources that were
    /// silenced. What was asked for with `debug` or `trace` has no limit.
    pub(super) fn admits(
        &self,
        source: Source,
        level: Level,
        now: Instant,
        mut tell: impl FnMut(&Source, u64, &str),
    ) -> bool {
        if level > Level::INFO {
            return true;
        }
        let (admitted, silenced) = {
            // Counts are whole between two statements, whoever panicked.
            let limits = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let silenced = limits.silenced(now);
            (limits.admit(source, now), silenced)
        };
        for (source, left_out) in silenced {
            let (kind, name) = &source;
            let text = format!(
                "{left_out} records of {kind} `{name}` were left out: it wrote too many within {} s",
                WINDOW.as_secs()
            );
            tell(&source, left_out, &text);
        }
        admitted
    }
}

fn others() -> Source {
    ("source", "others".into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sensor(name: &str) -> Source {
        ("sensor", name.into())
    }

    #[test]
    fn one_source_is_silenced_and_the_others_are_not() {
        let (mut limits, now) = (Limits::new(PER_WINDOW), Instant::now());
        let written = (0..1000).filter(|_| limits.admit(sensor("broken"), now)).count();
        assert_eq!(written, PER_WINDOW as usize);
        assert!(limits.admit(sensor("well"), now));
        assert_eq!(limits.silenced(now), [], "its window is not over");
        let later = now + WINDOW;
        assert_eq!(limits.silenced(later), [(sensor("broken"), 1000 - u64::from(PER_WINDOW))]);
        assert!(limits.admit(sensor("broken"), later), "it may write again");
        assert_eq!(limits.silenced(later + WINDOW), [], "told once");
    }

    #[test]
    fn sources_are_bounded_and_quiet_ones_make_room() {
        let (mut limits, now) = (Limits::new(PER_WINDOW), Instant::now());
        for number in 0..10 * MAX_SOURCES {
            limits.admit(sensor(&number.to_string()), now);
        }
        assert!(limits.sources.len() <= MAX_SOURCES + 1, "{} sources", limits.sources.len());
        assert!(!limits.admit(sensor("one more"), now), "the others have used up what they share");
        assert!(limits.silenced(now + WINDOW).iter().all(|(source, _)| *source == others()));
        assert!(limits.admit(sensor("one more"), now + WINDOW));
        assert!(limits.sources.len() < MAX_SOURCES, "{} sources", limits.sources.len());
    }

    proptest! {
        /// Whatever comes when: what was admitted and what was told as left out is all there was, and no source has more
        /// than its share of any window.
        #[test]
        fn nothing_is_left_out_untold(steps in prop::collection::vec((0_u8..4, 0_u64..20_000), 1..400)) {
            let begin = Instant::now();
            let (mut limits, mut now) = (Limits::new(PER_WINDOW), begin);
            let (mut admitted, mut told) = (0, 0);
            let mut times: HashMap<u8, Vec<Instant>> = HashMap::new();
            for (name, millis) in &steps {
                now += Duration::from_millis(*millis / 10);
                told += limits.silenced(now).iter().map(|(_, count)| count).sum::<u64>();
                if limits.admit(sensor(&name.to_string()), now) {
                    admitted += 1;
                    times.entry(*name).or_default().push(now);
                }
            }
            told += limits.silenced(now + WINDOW).iter().map(|(_, count)| count).sum::<u64>();
            prop_assert_eq!(admitted + told, steps.len() as u64);
            for times in times.values() {
                // Two windows may touch: twice the share within one window's length, never more.
                for (index, first) in times.iter().enumerate() {
                    let within = times[index..].iter().filter(|time| time.duration_since(*first) < WINDOW).count();
                    prop_assert!(within <= 2 * PER_WINDOW as usize);
                }
            }
        }
    }
}
