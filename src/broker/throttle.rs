//! Slows down who guesses passwords.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::clients::customer;

/// Wrong logins of one address without any consequence.
const FREE: u32 = 5;
/// The first time that an address must wait; each wrong login more doubles it.
const FIRST: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST: Duration = Duration::from_secs(64);
/// After this time without a wrong login everything is forgotten.
const FORGET: Duration = Duration::from_secs(600);
/// Addresses that are remembered; beyond it, the one that was quiet for the longest time is forgotten.
const MAX_ADDRESSES: usize = 1024;

/// The wrong logins by address.
#[derive(Debug, Default)]
pub(super) struct Throttle(HashMap<IpAddr, Failures>);

#[derive(Debug)]
struct Failures {
    count: u32,
    last: Instant,
    until: Instant,
}

impl Throttle {
    /// Must the address wait before another login is looked at?
    pub(super) fn blocks(&self, address: IpAddr, now: Instant) -> bool {
        self.0.get(&customer(address)).is_some_and(|failures| now < failures.until)
    }

    /// A wrong login.
    pub(super) fn failed(&mut self, address: IpAddr, now: Instant) {
        self.0.retain(|_, failures| now.saturating_duration_since(failures.last) < FORGET);
        let address = customer(address);
        if self.0.len() >= MAX_ADDRESSES
            && !self.0.contains_key(&address)
            && let Some(quiet) = self.0.iter().min_by_key(|(_, failures)| failures.last).map(|(quiet, _)| *quiet)
        {
            self.0.remove(&quiet);
        }
        let failures = self.0.entry(address).or_insert(Failures { count: 0, last: now, until: now });
        failures.count = failures.count.saturating_add(1);
        failures.last = now;
        if failures.count > FREE {
            let doubled = 2_u32.saturating_pow((failures.count - FREE - 1).min(16));
            failures.until = now + FIRST.saturating_mul(doubled).min(LONGEST);
        }
    }

    /// A right one: whoever made the wrong ones knows the password.
    pub(super) fn succeeded(&mut self, address: IpAddr) {
        self.0.remove(&customer(address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_waits_longer_and_longer_and_others_do_not() {
        let mut throttle = Throttle::default();
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let mut now = Instant::now();
        for _ in 0..FREE {
            throttle.failed(address, now);
            assert!(!throttle.blocks(address, now));
        }
        for expected in [1, 2, 4, 8, 16, 32, 64, 64] {
            throttle.failed(address, now);
            assert!(throttle.blocks(address, now + Duration::from_secs(expected) - Duration::from_millis(1)));
            assert!(!throttle.blocks("192.0.2.2".parse().unwrap(), now));
            now += Duration::from_secs(expected);
            assert!(!throttle.blocks(address, now));
        }
        throttle.succeeded(address);
        throttle.failed(address, now);
        assert!(!throttle.blocks(address, now));
    }

    #[test]
    fn it_remembers_a_bounded_number_of_addresses() {
        let mut throttle = Throttle::default();
        let now = Instant::now();
        for number in 0..5000_u32 {
            throttle.failed(IpAddr::V4(number.into()), now + Duration::from_millis(number.into()));
        }
        assert_eq!(throttle.0.len(), MAX_ADDRESSES);
        throttle.failed("192.0.2.1".parse().unwrap(), now + FORGET + Duration::from_secs(10));
        assert_eq!(throttle.0.len(), 1);
    }
}
