//! The gateway tax: the proxy's own time of each request, by phase, as histograms of one worker.
//!
//! Own time is everything but waiting for the client and the upstream. It is taken by the codec, turn by turn: from the
//! moment at which a connection's task is woken for a request to the moment at which it has written what it had. System
//! calls are in it; time in the kernel's queues before the task runs is not.
//!
//! Buckets are sixteenths of powers of two, so a quantile is known within 5 %, and sums are exact. A route that was never
//! asked for has no histograms. Written by one thread, read by any.

use std::{sync::OnceLock, time::Duration};

use super::counters::Counter;

/// What a request's own time was spent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Gate and stages: from the head to the decision where it goes.
    Decide,
    /// Composing and sending the request, a new connection's time left out.
    Send,
    /// Judging, composing and passing on the answer, and bodies.
    Answer,
    /// All of it.
    Total,
}

impl Phase {
    /// Every phase, in the order of their histograms.
    pub const ALL: [Self; 4] = [Self::Decide, Self::Send, Self::Answer, Self::Total];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Decide => "decide",
            Self::Send => "send",
            Self::Answer => "answer",
            Self::Total => "total",
        }
    }
}

/// Own time of one request, nanoseconds by phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tax {
    /// See [`Phase::Decide`].
    pub decide_ns: u64,
    /// See [`Phase::Send`].
    pub send_ns: u64,
    /// See [`Phase::Answer`].
    pub answer_ns: u64,
}

impl Tax {
    /// All of it.
    pub fn total_ns(&self) -> u64 {
        self.decide_ns
            .saturating_add(self.send_ns)
            .saturating_add(self.answer_ns)
    }
}

/// A duration in whole nanoseconds.
pub fn nanoseconds(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::from(duration.subsec_nanos()))
}

/// Buckets within one power of two.
const FINE: u64 = 16;

/// Times below this (nanoseconds) share the first buckets, one for each sixteenth of it.
const LEAST: u64 = 256;

/// Powers of two above [`LEAST`] that are told apart: up to 4.3 s.
const OCTAVES: u64 = 24;

/// How many buckets there are.
pub const BUCKETS: usize = (FINE + OCTAVES * FINE) as usize;

/// The bucket of a time.
fn bucket_of(ns: u64) -> usize {
    let index = if ns < LEAST {
        ns / (LEAST / FINE)
    } else {
        let octave = u64::from(ns.ilog2() - LEAST.ilog2());
        // The four bits below the highest one.
        let fine = (ns >> (u64::from(ns.ilog2()) - 4)) & (FINE - 1);
        FINE + octave * FINE + fine
    };
    index as usize
}

/// The least time of a bucket, nanoseconds.
pub fn lower_bound_ns(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < FINE {
        return bucket * (LEAST / FINE);
    }
    let (octave, fine) = ((bucket - FINE) / FINE, (bucket - FINE) % FINE);
    (LEAST + fine * (LEAST / FINE)) << octave
}

/// How many buckets a histogram of whole requests has: up to 9 minutes.
const LATENCY_BUCKETS: usize = (FINE + 31 * FINE) as usize;

/// Counts times; only from the worker that owns it.
#[derive(Debug)]
struct Histogram<const N: usize> {
    counts: [Counter; N],
    sum_ns: Counter,
}

impl<const N: usize> Histogram<N> {
    fn new() -> Self {
        Self {
            counts: std::array::from_fn(|_| Counter::default()),
            sum_ns: Counter::default(),
        }
    }

    fn add(&self, ns: u64) {
        if let Some(count) = self.counts.get(bucket_of(ns).min(N - 1)) {
            count.add(1);
        }
        self.sum_ns.add(ns);
    }

    fn merge_into(&self, merged: &mut HistogramSnapshot) {
        merged.sum_ns += self.sum_ns.get();
        for (bucket, count) in self.counts.iter().enumerate() {
            let count = count.get();
            if count > 0 {
                merged.count += count;
                *merged.buckets.entry(bucket).or_default() += count;
            }
        }
    }
}

/// How long the requests of one route took on one worker, finely; made when the first is counted.
#[derive(Debug, Default)]
pub struct RouteLatency(OnceLock<Box<Histogram<LATENCY_BUCKETS>>>);

impl RouteLatency {
    /// Counts a request.
    pub fn add(&self, duration: Duration) {
        self.0
            .get_or_init(|| Box::new(Histogram::new()))
            .add(nanoseconds(duration));
    }

    /// Adds what was counted to `sum`.
    pub fn merge_into(&self, sum: &mut HistogramSnapshot) {
        if let Some(histogram) = self.0.get() {
            histogram.merge_into(sum);
        }
    }
}

/// The histograms of one route on one worker; made when the first request is counted.
#[derive(Debug, Default)]
pub struct RouteTax(OnceLock<Box<[Histogram<BUCKETS>; Phase::ALL.len()]>>);

impl RouteTax {
    /// Counts a request.
    pub fn add(&self, tax: &Tax) {
        let histograms = self
            .0
            .get_or_init(|| Box::new(std::array::from_fn(|_| Histogram::new())));
        let times = [tax.decide_ns, tax.send_ns, tax.answer_ns, tax.total_ns()];
        for (histogram, ns) in histograms.iter().zip(times) {
            histogram.add(ns);
        }
    }

    /// Adds what was counted to `sum`.
    pub fn merge_into(&self, sum: &mut TaxSnapshot) {
        let Some(histograms) = self.0.get() else { return };
        for (histogram, merged) in histograms.iter().zip(&mut sum.phases) {
            histogram.merge_into(merged);
        }
    }
}

/// The tax of one route at one moment, all workers together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaxSnapshot {
    phases: [HistogramSnapshot; Phase::ALL.len()],
}

impl TaxSnapshot {
    /// What was counted since an earlier moment.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut since = self.clone();
        for (now, then) in since.phases.iter_mut().zip(&before.phases) {
            *now = now.since(then);
        }
        since
    }

    /// The histogram of a phase.
    pub fn phase(&self, phase: Phase) -> &HistogramSnapshot {
        &self.phases[phase as usize]
    }
}

/// A histogram at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// Requests counted.
    pub count: u64,
    /// Sum of their times, nanoseconds.
    pub sum_ns: u64,
    /// Requests by bucket, empty ones left out; [`lower_bound_ns`] tells what a bucket means.
    pub buckets: std::collections::BTreeMap<usize, u64>,
}

impl HistogramSnapshot {
    /// What was counted since an earlier moment.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut since = self.clone();
        since.sum_ns = since.sum_ns.saturating_sub(before.sum_ns);
        for (bucket, count) in &before.buckets {
            if let Some(have) = since.buckets.get_mut(bucket) {
                *have = have.saturating_sub(*count);
            }
        }
        since.buckets.retain(|_, count| *count > 0);
        since.count = since.buckets.values().sum();
        since
    }

    /// Adds what another one has.
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        for (bucket, count) in &other.buckets {
            let sum = self.buckets.entry(*bucket).or_default();
            *sum = sum.saturating_add(*count);
        }
    }

    /// The time below which this part of the requests lies (0.5 is the median), nanoseconds, within a bucket by
    /// proportion; 0 without requests.
    pub fn quantile_ns(&self, part: f64) -> f64 {
        let wanted = part.clamp(0.0, 1.0) * self.count as f64;
        let mut below = 0.0;
        for (bucket, count) in &self.buckets {
            let count = *count as f64;
            if below + count >= wanted {
                let (low, high) = (lower_bound_ns(*bucket) as f64, lower_bound_ns(bucket + 1) as f64);
                return low + (high - low) * ((wanted - below) / count);
            }
            below += count;
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_time_lies_within_its_bucket(ns in 0_u64..4_000_000_000) {
            let bucket = bucket_of(ns);
            prop_assert!(lower_bound_ns(bucket) <= ns, "{ns} in {bucket}");
            prop_assert!(ns < lower_bound_ns(bucket + 1), "{ns} in {bucket}");
            let width = lower_bound_ns(bucket + 1) - lower_bound_ns(bucket);
            prop_assert!(width <= 16.max(ns / 15), "{ns}: {width}");
        }
    }

    #[test]
    fn histograms_are_merged_and_tell_quantiles() {
        let (one, other) = (RouteTax::default(), RouteTax::default());
        for ns in 1..=1000 {
            let tax = Tax {
                decide_ns: ns * 1000,
                send_ns: 0,
                answer_ns: 1,
            };
            if ns % 2 == 0 { &one } else { &other }.add(&tax);
        }
        let mut sum = TaxSnapshot::default();
        RouteTax::default().merge_into(&mut sum);
        one.merge_into(&mut sum);
        other.merge_into(&mut sum);
        let decide = sum.phase(Phase::Decide);
        assert_eq!((decide.count, decide.sum_ns), (1000, 500_500_000));
        assert_eq!(sum.phase(Phase::Total).sum_ns, 500_501_000);
        for (part, want) in [(0.5, 500_000.0), (0.99, 990_000.0)] {
            let got = decide.quantile_ns(part);
            assert!((got / want - 1.0).abs() < 0.05, "{part}: {got}");
        }
        one.add(&Tax {
            decide_ns: u64::MAX,
            ..Tax::default()
        });
        let mut longest = TaxSnapshot::default();
        one.merge_into(&mut longest);
        assert!(
            longest
                .since(&sum)
                .phase(Phase::Decide)
                .buckets
                .contains_key(&(BUCKETS - 1))
        );
    }
}
