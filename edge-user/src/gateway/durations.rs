//! How long requests took, as histograms of one worker with the round bounds that dashboards expect.
//!
//! Written by one thread, read by any. Finer ones, of the gateway's own time alone, are in [`super::tax`].

use std::time::Duration;

use super::{counters::Counter, tax::nanoseconds};

/// Upper bounds of the buckets, nanoseconds; what is longer counts in one more.
pub const BOUNDS_NS: [u64; 18] = [
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
    300_000_000_000,
];

/// Counts durations; only from the worker that owns it.
#[derive(Debug, Default)]
pub struct Durations {
    counts: [Counter; BOUNDS_NS.len() + 1],
    sum_ns: Counter,
}

impl Durations {
    /// Counts one.
    pub fn add(&self, duration: Duration) {
        let ns = nanoseconds(duration);
        let bucket = BOUNDS_NS.partition_point(|bound| *bound < ns);
        if let Some(count) = self.counts.get(bucket) {
            count.add(1);
        }
        self.sum_ns.add(ns);
    }

    /// Adds what was counted to `sum`.
    pub fn merge_into(&self, sum: &mut DurationsSnapshot) {
        for (merged, count) in sum.counts.iter_mut().zip(&self.counts) {
            *merged += count.get();
        }
        sum.sum_ns = sum.sum_ns.wrapping_add(self.sum_ns.get());
    }
}

/// Durations at one moment, all workers together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DurationsSnapshot {
    /// Requests by bucket: each above the bound before it and at most its own of [`BOUNDS_NS`]; the last has none.
    pub counts: [u64; BOUNDS_NS.len() + 1],
    /// Sum of their times, nanoseconds.
    pub sum_ns: u64,
}

impl DurationsSnapshot {
    /// Requests counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_the_last_of_its_bucket() {
        let durations = Durations::default();
        for ns in [
            0,
            250_000,
            250_001,
            300_000_000_000,
            300_000_000_001,
            u64::MAX / 4,
        ] {
            durations.add(Duration::from_nanos(ns));
        }
        let mut sum = DurationsSnapshot::default();
        durations.merge_into(&mut sum);
        assert_eq!((sum.counts[0], sum.counts[1]), (2, 1));
        assert_eq!((sum.counts[17], sum.counts[18]), (1, 2));
        assert_eq!(sum.count(), 6);
        assert!(BOUNDS_NS.is_sorted());
    }
}
