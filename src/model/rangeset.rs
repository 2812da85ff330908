//! A set of numbers, kept as ranges: I/O ports, frames of device memory, interrupts that a domain may use.

use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// Ranges in ascending order, of which no two touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet(Vec<RangeInclusive<u64>>);

impl RangeSet {
    /// The empty set.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The ranges, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = RangeInclusive<u64>> + '_ {
        self.0.iter().cloned()
    }

    /// Whether the set has no numbers.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all numbers of the range are in the set. An empty range is in every set.
    pub fn contains(&self, range: RangeInclusive<u64>) -> bool {
        let after = self.0.partition_point(|one| one.end() < range.start());
        range.is_empty()
            || self.0.get(after).is_some_and(|one| one.start() <= range.start() && range.end() <= one.end())
    }

    /// Whether any number of the range is in the set.
    pub fn overlaps(&self, range: RangeInclusive<u64>) -> bool {
        let after = self.0.partition_point(|one| one.end() < range.start());
        !range.is_empty() && self.0.get(after).is_some_and(|one| one.start() <= range.end())
    }

    /// Adds all numbers of the range.
    pub fn add(&mut self, range: RangeInclusive<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = range.into_inner();
        // Ranges that touch the new one, with no number in between, become part of it.
        let first = self.0.partition_point(|one| *one.end() < start.saturating_sub(1));
        let after = self.0.partition_point(|one| *one.start() <= end.saturating_add(1));
        if let Some(touching) = self.0.get(first..after).filter(|touching| !touching.is_empty()) {
            start = start.min(*touching[0].start());
            end = end.max(*touching[touching.len() - 1].end());
        }
        self.0.splice(first..after, [start..=end]);
    }

    /// Takes all numbers of the range out.
    pub fn remove(&mut self, range: RangeInclusive<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.0.partition_point(|one| one.end() < range.start());
        let after = self.0.partition_point(|one| one.start() <= range.end());
        let Some(hit) = self.0.get(first..after).filter(|hit| !hit.is_empty()) else { return };
        let (low, high) = (*hit[0].start(), *hit[hit.len() - 1].end());
        let before = (low < *range.start()).then(|| low..=*range.start() - 1);
        let beyond = (high > *range.end()).then(|| *range.end() + 1..=high);
        self.0.splice(first..after, before.into_iter().chain(beyond));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn ranges_that_touch_are_one() {
        let mut set = RangeSet::new();
        for range in [0..=1, 4..=5, 2..=3, u64::MAX..=u64::MAX, 8..=u64::MAX - 1] {
            set.add(range);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [0..=5, 8..=u64::MAX]);
        set.remove(0..=u64::MAX);
        assert!(set.is_empty());
    }

    proptest! {
        #[test]
        fn the_set_agrees_with_one_that_keeps_each_number(
            steps in prop::collection::vec((any::<bool>(), 0u64..40, 0u64..40), 0..30),
            asked in prop::collection::vec((0u64..40, 0u64..40), 20),
        ) {
            let (mut set, mut twin) = (RangeSet::new(), BTreeSet::new());
            for (adds, start, end) in steps {
                if adds {
                    set.add(start..=end);
                    twin.extend(start..=end);
                } else {
                    set.remove(start..=end);
                    twin.retain(|number| !(start..=end).contains(number));
                }
                prop_assert!(set.iter().flatten().eq(twin.iter().copied()));
                prop_assert!(set.0.windows(2).all(|two| two[0].end() + 1 < *two[1].start()));
            }
            for (start, end) in asked {
                prop_assert_eq!(set.contains(start..=end), (start..=end).all(|number| twin.contains(&number)));
                prop_assert_eq!(set.overlaps(start..=end), (start..=end).any(|number| twin.contains(&number)));
            }
        }
    }
}
