//! A set of chunk numbers as ranges: chunks come nearly in order, so that a few ranges stand for any number of them.

use std::collections::BTreeMap;

/// Numbers, as ranges that neither overlap nor touch. Memory follows the number of gaps, not that of the numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Whether there is no number.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this number is in it.
    pub(super) fn contains(&self, number: u64) -> bool {
        self.0.range(..=number).next_back().is_some_and(|(_, end)| number < *end)
    }

    /// Adds `start..end`; does nothing if that is empty.
    pub(super) fn insert(&mut self, mut start: u64, mut end: u64) {
        if start >= end {
            return;
        }
        if let Some((&before, &its_end)) = self.0.range(..=start).next_back()
            && its_end >= start
        {
            start = before;
            end = end.max(its_end);
        }
        while let Some((&after, &its_end)) = self.0.range(start..=end).next() {
            end = end.max(its_end);
            self.0.remove(&after);
        }
        self.0.insert(start, end);
    }

    /// The ranges, ascending: each from its first number to the one after its last.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(start, end)| (*start, *end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_the_same_numbers_as_a_plain_set_in_as_few_ranges_as_can_be() {
        let (mut ranges, mut plain) = (Ranges::default(), [false; 64]);
        let mut seed = 7u64;
        for _ in 0..500 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (start, len) = (seed >> 58, (seed >> 50) % 4);
            let end = (start + len).min(64);
            ranges.insert(start, end);
            plain[start as usize..end.max(start) as usize].fill(true);
            assert!((0..64).all(|i| ranges.contains(i) == plain[i as usize]));
            let starts = (0..64).filter(|&i| plain[i] && (i == 0 || !plain[i - 1])).count();
            assert_eq!(ranges.iter().len(), starts);
        }
    }
}
