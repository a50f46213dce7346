//! How long things took, in fixed buckets: the memory is the same whatever comes.

use std::time::Duration;

/// The upper bounds of the buckets, in microseconds, each included in its bucket; one more bucket is for what took longer. From within one machine to the
/// longest deadline that is usual, at about 2.5 times the one before.
pub const BOUNDS_US: [u64; 17] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000,
];

/// A histogram of durations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; 18],
    sum_us: u64,
}

const _: () = assert!(BOUNDS_US.len() + 1 == 18, "one bucket more than bounds");

impl Histogram {
    /// One of these durations.
    pub fn of(all: &[Duration]) -> Histogram {
        let mut histogram = Histogram::default();
        all.iter().for_each(|took| histogram.note(*took));
        histogram
    }

    /// Adds another one's counts.
    pub fn absorb(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.saturating_add(more);
        }
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }

    /// Counts one.
    pub(crate) fn note(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count = count.saturating_add(1);
        }
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// How many fell into each bucket: as many as [`BOUNDS_US`], and one.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// How many in all.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum: u64, count| sum.saturating_add(*count))
    }

    /// How long all took together.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_falls_into_the_bucket_that_ends_with_it() {
        let histogram = Histogram::of(&[0, 100, 101, 30_000_000, 30_000_001, u64::MAX].map(Duration::from_micros));
        let mut expected = [0; 18];
        (expected[0], expected[1], expected[16], expected[17]) = (2, 1, 1, 2);
        assert_eq!((histogram.counts(), histogram.total()), (&expected[..], 6));
        assert_eq!(histogram.sum(), Duration::from_micros(u64::MAX), "it stays at the end instead of wrapping");
    }
}
