//! When to send PINGREQ, and when a silent broker counts as gone.

use std::time::Duration;

use crate::clock::BootTime;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing before this time; `None`: nothing ever.
    Wait(Option<BootTime>),
    /// PINGREQ is to be sent.
    Ping,
    /// Nothing came for one and a half intervals, not even the answer to PINGREQ: the connection is dead.
    Dead,
}

/// Keeps watch over one connection.
#[derive(Debug)]
pub struct KeepAlive {
    interval: Duration,
    sent: BootTime,
    received: BootTime,
    asked: bool,
}

impl KeepAlive {
    /// Starts with a fresh connection. An interval of zero switches it off.
    #[must_use]
    pub fn new(interval: Duration, now: BootTime) -> Self {
        Self { interval, sent: now, received: now, asked: false }
    }

    /// Something was written.
    pub fn sent(&mut self, now: BootTime) {
        self.sent = now;
    }

    /// Something came.
    pub fn received(&mut self, now: BootTime) {
        self.received = now;
        self.asked = false;
    }

    /// What is due now. After [`Due::Ping`], [`sent`](Self::sent) is to be called.
    pub fn check(&mut self, now: BootTime) -> Due {
        if self.interval.is_zero() {
            return Due::Wait(None);
        }
        let dead = self.received.after(self.interval + self.interval / 2);
        // The broker wants to hear from us within the interval (MQTT 3.1.1, 3.1.2.10). At QoS 0 it never says
        // anything by itself, so that it is asked too when it was silent for an interval.
        let mut ping = self.sent.after(self.interval);
        if !self.asked {
            ping = ping.min(self.received.after(self.interval));
        }
        if now >= dead {
            Due::Dead
        } else if now >= ping {
            self.asked = true;
            Due::Ping
        } else {
            Due::Wait(Some(dead.min(ping)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime(0).after(Duration::from_secs(seconds))
    }

    #[test]
    fn an_idle_connection_is_kept_up() {
        let mut watch = KeepAlive::new(Duration::from_secs(30), at(0));
        assert_eq!(watch.check(at(10)), Due::Wait(Some(at(30))));
        assert_eq!(watch.check(at(30)), Due::Ping);
        watch.sent(at(30));
        assert_eq!(watch.check(at(30)), Due::Wait(Some(at(45))));
        watch.received(at(31));
        assert_eq!(watch.check(at(31)), Due::Wait(Some(at(60))));
    }

    #[test]
    fn silence_is_death_after_one_and_a_half_intervals() {
        let mut watch = KeepAlive::new(Duration::from_secs(30), at(0));
        watch.sent(at(20));
        assert_eq!(watch.check(at(30)), Due::Ping, "we talk, but nobody answers");
        watch.sent(at(30));
        assert_eq!(watch.check(at(44)), Due::Wait(Some(at(45))));
        assert_eq!(watch.check(at(45)), Due::Dead);
    }

    #[test]
    fn who_only_listens_must_still_speak() {
        let mut watch = KeepAlive::new(Duration::from_secs(30), at(0));
        watch.received(at(29));
        assert_eq!(watch.check(at(30)), Due::Ping);
    }

    #[test]
    fn zero_switches_it_off() {
        assert_eq!(KeepAlive::new(Duration::ZERO, at(0)).check(at(1_000_000)), Due::Wait(None));
    }
}
