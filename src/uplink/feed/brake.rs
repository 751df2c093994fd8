//! How fast messages come down to LAN clients: a broker that gets its acknowledgements late has its window full, and
//! keeps what is more.
//!
//! Acknowledgements leave in the order in which the messages came (MQTT 5, 4.6), so that one that is held back holds up
//! those behind it, of commands, too. What is held back when the connection is lost comes once more.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::BootTime;
use crate::config::{Deliver, Qos};

use super::super::packet;
use super::Output;

/// So much of its rate a rule may use at once.
const BURST: Duration = Duration::from_secs(1);

/// Acknowledgements that are held back at most: there are no more packet ids. Beyond it they leave at once.
const MAX_HELD: usize = u16::MAX as usize;

#[derive(Debug)]
struct Rule {
    interval: Duration,
    /// When the next message is due, by the rate alone.
    next: BootTime,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Brake {
    rules: Vec<Rule>,
    held: VecDeque<(BootTime, Qos, u16)>,
}

impl Brake {
    pub(super) fn new(deliver: &[Deliver]) -> Self {
        let rule =
            |deliver: &Deliver| Rule { interval: Duration::from_secs(1) / deliver.rate.max(1), next: BootTime(0) };
        Self { rules: deliver.iter().map(rule).collect(), held: VecDeque::new() }
    }

    /// A message of that rule came: when its acknowledgement is due. `None`: it needs none, and there are too many.
    pub(super) fn take(&mut self, rule: usize, qos: Qos, now: BootTime) -> Option<BootTime> {
        let Some(rule) = self.rules.get_mut(rule) else { return Some(now) };
        let due = rule.next.max(now);
        if due > now && qos == Qos::AtMostOnce {
            return None;
        }
        let earliest = BootTime(now.0.saturating_sub(u64::try_from(BURST.as_nanos()).unwrap_or(u64::MAX)));
        rule.next = rule.next.max(earliest).after(rule.interval);
        Some(due)
    }

    /// A message is to be acknowledged at `due`; gives whether that is held back.
    pub(super) fn acknowledge(&mut self, qos: Qos, id: u16, due: BootTime, now: BootTime) -> bool {
        if qos == Qos::AtMostOnce {
            return false;
        }
        let due = self.held.back().map_or(due, |(last, ..)| due.max(*last));
        let due = if self.held.len() < MAX_HELD { due } else { now };
        self.held.push_back((due, qos, id));
        due > now
    }

    /// Puts what is due into the output; gives when more is.
    pub(super) fn release(&mut self, output: &mut Output, now: BootTime) -> Option<BootTime> {
        while let Some((due, qos, id)) = self.held.front().copied() {
            if due > now {
                return Some(due);
            }
            match qos {
                Qos::AtMostOnce => {}
                Qos::AtLeastOnce => packet::put_puback(&mut output.buffer, id),
                Qos::ExactlyOnce => packet::put_pubrec(&mut output.buffer, id),
            }
            self.held.pop_front();
        }
        None
    }

    /// The connection is lost: its packet ids mean nothing any more.
    pub(super) fn disconnected(&mut self) {
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::mapping::Mapping;

    fn brake(rate: u32) -> Brake {
        let to = Mapping::parse("{topic}").expect("a mapping");
        Brake::new(&[Deliver { topics: vec!["a".to_owned()], to, retain: false, max_bytes: 1, rate }])
    }

    fn at(millis: u64) -> BootTime {
        BootTime((100_000 + millis) * 1_000_000)
    }

    /// The packet ids that leave.
    fn released(brake: &mut Brake, millis: u64) -> Vec<u16> {
        let mut output = Output::default();
        brake.release(&mut output, at(millis));
        // Each is a PUBACK of four bytes.
        output.buffer.chunks(4).map(|ack| u16::from_be_bytes([ack[2], ack[3]])).collect()
    }

    #[test]
    fn acknowledgements_leave_at_the_rate_and_in_order() {
        let mut brake = brake(10);
        for id in 1..=30 {
            let due = brake.take(0, Qos::AtLeastOnce, at(0)).expect("QoS 1 is never dropped");
            assert_eq!(brake.acknowledge(Qos::AtLeastOnce, id, due, at(0)), id > 11, "{id}");
        }
        // A command, which has no rate.
        assert!(brake.acknowledge(Qos::AtLeastOnce, 31, at(0), at(0)), "it keeps its place");
        assert_eq!(released(&mut brake, 0), (1..=11).collect::<Vec<_>>(), "a second's at once, and the next");
        assert!(released(&mut brake, 99).is_empty());
        assert_eq!(released(&mut brake, 100), [12]);
        assert_eq!(released(&mut brake, 1_000), (13..=21).collect::<Vec<_>>());
        assert_eq!(released(&mut brake, 60_000), (22..=31).collect::<Vec<_>>());
        assert_eq!(brake.release(&mut Output::default(), at(60_000)), None);
    }

    #[test]
    fn what_needs_no_acknowledgement_is_dropped_above_the_rate_and_what_is_held_goes_with_the_connection() {
        let mut brake = brake(10);
        let passed = (0..100).filter(|_| brake.take(0, Qos::AtMostOnce, at(0)).is_some()).count();
        assert_eq!(passed, 11);
        assert!(brake.take(0, Qos::AtMostOnce, at(150)).is_some(), "later there is room again");
        assert!(!brake.acknowledge(Qos::AtMostOnce, 0, at(0), at(0)));
        brake.acknowledge(Qos::AtLeastOnce, 1, at(500), at(0));
        brake.disconnected();
        assert!(released(&mut brake, 1_000).is_empty());
    }
}
