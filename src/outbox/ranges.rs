//! The set of acknowledged positions of a cursor: everything below a low-water mark, and ranges above it.

use std::ops::Range;

use super::Seq;

/// Ranges above the low-water mark that a cursor keeps. At the bound further ones are forgotten: their messages are
/// sent again after the next restart, never taken for delivered.
pub(super) const MAX_RANGES: usize = 512;

/// A set of positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Acked {
    /// Every position below it is in the set, and it itself is not.
    low: Seq,
    /// Sorted, not empty, not touching each other nor `low`.
    above: Vec<Range<Seq>>,
}

impl Acked {
    /// Every position below `low`.
    pub(super) fn below(low: Seq) -> Self {
        Self { low, above: Vec::new() }
    }

    /// The first position that is not in the set.
    pub(super) fn low(&self) -> Seq {
        self.low
    }

    /// The ranges above the low-water mark.
    pub(super) fn above(&self) -> &[Range<Seq>] {
        &self.above
    }

    /// The position after the last one in the set.
    pub(super) fn end(&self) -> Seq {
        self.above.last().map_or(self.low, |range| range.end)
    }

    /// Is the position in the set?
    pub(super) fn contains(&self, seq: Seq) -> bool {
        self.next_missing(seq) != seq
    }

    /// The first position from `from` on that is not in the set.
    pub(super) fn next_missing(&self, from: Seq) -> Seq {
        if from < self.low {
            return self.low;
        }
        let index = self.above.partition_point(|range| range.end <= from);
        match self.above.get(index) {
            Some(range) if range.start <= from => range.end,
            _ => from,
        }
    }

    /// How many positions below `end` are not in the set.
    pub(super) fn missing_below(&self, end: Seq) -> u64 {
        let covered: u64 = self.above.iter().map(|range| range.end.min(end).saturating_sub(range.start.min(end))).sum();
        end.saturating_sub(self.low) - covered
    }

    /// The position from which on `count` positions below `end` are not in the set, or all there are.
    pub(super) fn last_missing(&self, end: Seq, count: u64) -> Seq {
        let (mut end, mut left) = (end, count);
        for range in self.above.iter().rev() {
            if range.start >= end {
                continue;
            }
            let gap = end.saturating_sub(range.end);
            if left <= gap {
                return end - left;
            }
            left -= gap;
            end = range.start;
        }
        end.saturating_sub(left).max(self.low).min(end)
    }

    /// Puts a range into the set; `false`: there was no room for another range, nothing is changed.
    pub(super) fn insert(&mut self, range: Range<Seq>) -> bool {
        let mut range = range.start.max(self.low)..range.end;
        if range.is_empty() {
            return true;
        }
        // All ranges that overlap or touch the new one become one with it.
        let first = self.above.partition_point(|other| other.end < range.start);
        let last = self.above.partition_point(|other| other.start <= range.end);
        if first < last {
            range.start = range.start.min(self.above[first].start);
            range.end = range.end.max(self.above[last - 1].end);
        }
        if range.start <= self.low {
            self.low = range.end;
            self.above.drain(..last);
        } else if first < last {
            self.above[first] = range;
            self.above.drain(first + 1..last);
        } else if self.above.len() < MAX_RANGES {
            self.above.insert(first, range);
        } else {
            return false;
        }
        true
    }

    /// Puts all of another set into this one, as far as there is room.
    pub(super) fn merge(&mut self, other: &Self) {
        self.insert(0..other.low);
        for range in &other.above {
            self.insert(range.clone());
        }
    }

    /// What is in both sets.
    pub(super) fn intersection(&self, other: &Self) -> Self {
        let end = self.end().min(other.end());
        let mut both = Self::default();
        let mut from = 0;
        while from < end {
            // A stretch ends where either set has its next hole; the next begins where neither has one.
            let missing = self.next_missing(from).min(other.next_missing(from));
            both.insert(from..missing.min(end));
            from = self.next_present(missing).max(other.next_present(missing));
        }
        both
    }

    /// The first position from `from` on that is in the set; `Seq::MAX` if there is none.
    pub(super) fn next_present(&self, from: Seq) -> Seq {
        if from < self.low {
            return from;
        }
        let index = self.above.partition_point(|range| range.end <= from);
        self.above.get(index).map_or(Seq::MAX, |range| range.start.max(from))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(ranges: &[Range<Seq>]) -> (Acked, BTreeSet<Seq>) {
        let mut acked = Acked::default();
        for range in ranges {
            assert!(acked.insert(range.clone()));
        }
        (acked, ranges.iter().flat_map(Clone::clone).collect())
    }

    fn ranges() -> impl Strategy<Value = Vec<Range<Seq>>> {
        prop::collection::vec((0u64..80, 0u64..12).prop_map(|(start, len)| start..start + len), 0..14)
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_set(ranges in ranges()) {
            let (acked, plain) = set(&ranges);
            for seq in 0..100 {
                prop_assert_eq!(acked.contains(seq), plain.contains(&seq));
                prop_assert_eq!(acked.next_missing(seq), (seq..).find(|seq| !plain.contains(seq)).expect("some"));
                let missing: Vec<u64> = (0..seq).filter(|seq| !plain.contains(seq)).collect();
                for count in 1..4 {
                    let from = acked.last_missing(seq, count as u64);
                    let found: Vec<u64> = missing.iter().copied().filter(|seq| *seq >= from).collect();
                    prop_assert_eq!(&found[..], &missing[missing.len().saturating_sub(count)..]);
                }
                prop_assert_eq!(acked.missing_below(seq), (0..seq).filter(|seq| !plain.contains(seq)).count() as u64);
            }
            prop_assert!(acked.above.iter().all(|range| range.start > acked.low && !range.is_empty()));
            prop_assert!(acked.above.windows(2).all(|pair| pair[0].end < pair[1].start));
        }

        #[test]
        fn intersection_and_merge_agree_with_plain_sets(a in ranges(), b in ranges()) {
            let ((a, plain_a), (b, plain_b)) = (set(&a), set(&b));
            let both = a.intersection(&b);
            let mut either = a.clone();
            either.merge(&b);
            for seq in 0..100 {
                prop_assert_eq!(both.contains(seq), plain_a.contains(&seq) && plain_b.contains(&seq));
                prop_assert_eq!(either.contains(seq), plain_a.contains(&seq) || plain_b.contains(&seq));
            }
        }
    }

    #[test]
    fn at_its_bound_it_forgets_and_says_so() {
        let mut acked = Acked::default();
        for index in 0..MAX_RANGES as u64 {
            assert!(acked.insert(10 * index + 5..10 * index + 6));
        }
        assert!(!acked.insert(1_000_000..1_000_001));
        assert!(!acked.contains(1_000_000));
        assert!(acked.insert(0..5), "what needs no further range still fits");
        assert_eq!(acked.low(), 6);
        assert!(acked.insert(1_000_000..1_000_001));
    }
}
