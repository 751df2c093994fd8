//! Chance that can be had again.

use std::time::{SystemTime, UNIX_EPOCH};

/// SplitMix64: small, and good enough to choose moments.
pub(crate) struct Random(u64);

impl Random {
    /// From the seed in the environment variable, else from the clock. The seed is printed.
    pub(crate) fn seeded(variable: &str) -> Self {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
        Self::seeded_or(variable, u64::from(nanos))
    }

    /// From the seed in the environment variable, else from this one. The seed is printed.
    pub(crate) fn seeded_or(variable: &str, default: u64) -> Self {
        let given = std::env::var(variable).ok().map(|text| text.parse().expect("the seed is a number"));
        let seed = given.unwrap_or(default);
        eprintln!("{variable}={seed}");
        Self(seed)
    }

    /// Another one, for a thread of its own.
    #[cfg(feature = "broker")]
    pub(crate) fn fork(&mut self) -> Self {
        let high = u64::from(self.below(u32::MAX));
        Self(high << 32 | u64::from(self.below(u32::MAX)))
    }

    /// Anything below `bound`.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((mixed ^ mixed >> 31) % u64::from(bound)).expect("below a u32")
    }

    /// True once in so many times.
    pub(crate) fn one_in(&mut self, times: u32) -> bool {
        self.below(times) == 0
    }
}
