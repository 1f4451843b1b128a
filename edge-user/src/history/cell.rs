//! One route within one cell of time, and how it is written down.
//!
//! A cell is a row's blob: a format number, then LEB128 numbers: statuses (1xx to 5xx), unanswered, and two histograms
//! (latency, tax), each as its sum, how many buckets it has, and for each the distance to the bucket before and its count.

use crate::gateway::{
    counters::RouteSnapshot,
    tax::{HistogramSnapshot, Phase},
};

/// The first byte of what is written.
const FORMAT: u8 = 1;

/// Most buckets that a histogram has here; more are not ours.
const MOST_BUCKETS: u64 = 4096;

/// What a route did in one cell, or from a start on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cell {
    /// Requests answered with 1xx to 5xx.
    pub statuses: [u64; 5],
    /// Requests whose client got no status.
    pub unanswered: u64,
    /// How long requests took, from the head to the last byte of the response.
    pub latency: HistogramSnapshot,
    /// The gateway's own time of them.
    pub tax: HistogramSnapshot,
}

impl From<&RouteSnapshot> for Cell {
    fn from(route: &RouteSnapshot) -> Self {
        Self {
            statuses: route.statuses,
            unanswered: route.unanswered,
            latency: route.latency.clone(),
            tax: route.tax.phase(Phase::Total).clone(),
        }
    }
}

impl Cell {
    /// Requests.
    pub fn requests(&self) -> u64 {
        let all = self.statuses.into_iter().chain([self.unanswered]);
        all.fold(0, u64::saturating_add)
    }

    /// Requests answered with 5xx.
    pub fn errors(&self) -> u64 {
        self.statuses[4]
    }

    /// Whether there was none.
    pub fn is_empty(&self) -> bool {
        self.requests() == 0
    }

    /// What came since an earlier moment; all of it if the counters have begun anew.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        if self.requests() < before.requests() {
            return self.clone();
        }
        let mut since = Self {
            statuses: self.statuses,
            unanswered: self.unanswered.saturating_sub(before.unanswered),
            latency: self.latency.since(&before.latency),
            tax: self.tax.since(&before.tax),
        };
        for (now, then) in since.statuses.iter_mut().zip(before.statuses) {
            *now = now.saturating_sub(then);
        }
        since
    }

    /// Adds another one. What a damaged file has fails nobody.
    pub fn merge(&mut self, other: &Self) {
        for (sum, more) in self.statuses.iter_mut().zip(other.statuses) {
            *sum = sum.saturating_add(more);
        }
        self.unanswered = self.unanswered.saturating_add(other.unanswered);
        self.latency.merge(&other.latency);
        self.tax.merge(&other.tax);
    }

    /// As a blob.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        for number in self.statuses.into_iter().chain([self.unanswered]) {
            put(&mut out, number);
        }
        for histogram in [&self.latency, &self.tax] {
            put(&mut out, histogram.sum_ns);
            put(&mut out, histogram.buckets.len() as u64);
            let mut last = 0;
            for (bucket, count) in &histogram.buckets {
                let bucket = *bucket as u64;
                put(&mut out, bucket - last);
                put(&mut out, *count);
                last = bucket;
            }
        }
        out
    }

    /// From a blob; `None` if it is not one.
    pub fn decode(blob: &[u8]) -> Option<Self> {
        let (&FORMAT, mut rest) = blob.split_first()? else {
            return None;
        };
        let mut cell = Self::default();
        for number in &mut cell.statuses {
            *number = take(&mut rest)?;
        }
        cell.unanswered = take(&mut rest)?;
        for histogram in [&mut cell.latency, &mut cell.tax] {
            histogram.sum_ns = take(&mut rest)?;
            let buckets = take(&mut rest)?;
            let mut bucket = 0_u64;
            for _ in 0..buckets {
                bucket = bucket.checked_add(take(&mut rest)?)?;
                let count = take(&mut rest)?;
                if bucket >= MOST_BUCKETS {
                    return None;
                }
                histogram.count = histogram.count.checked_add(count)?;
                histogram.buckets.insert(bucket as usize, count);
            }
        }
        rest.is_empty().then_some(cell)
    }
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, more) = rest.split_first()?;
        *rest = more;
        let part = u64::from(byte & 0x7f);
        // The last byte has one bit.
        if shift == 63 && part > 1 {
            return None;
        }
        number |= part << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn histogram() -> impl Strategy<Value = HistogramSnapshot> {
        (
            any::<u32>(),
            proptest::collection::btree_map(0_usize..512, 1..u64::from(u32::MAX), 0..40),
        )
            .prop_map(|(sum_ns, buckets)| HistogramSnapshot {
                count: buckets.values().sum(),
                sum_ns: u64::from(sum_ns),
                buckets,
            })
    }

    fn cell() -> impl Strategy<Value = Cell> {
        (any::<[u32; 5]>(), any::<u32>(), histogram(), histogram()).prop_map(
            |(statuses, unanswered, latency, tax)| Cell {
                statuses: statuses.map(u64::from),
                unanswered: u64::from(unanswered),
                latency,
                tax,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(cell in cell()) {
            prop_assert_eq!(Cell::decode(&cell.encode()), Some(cell));
        }

        #[test]
        fn what_was_cut_or_is_something_else_is_not_a_cell(cell in cell(), cut in 1_usize..20, noise in any::<Vec<u8>>()) {
            let blob = cell.encode();
            prop_assert_eq!(Cell::decode(&blob[..blob.len().saturating_sub(cut)]), None);
            let mut longer = blob;
            longer.push(0);
            prop_assert_eq!(Cell::decode(&longer), None);
            // Total: whatever it is, there is an answer.
            let _ = Cell::decode(&noise);
        }

        #[test]
        fn differences_add_up(mut first in cell(), second in cell()) {
            let before = first.clone();
            first.merge(&second);
            let since = first.since(&before);
            prop_assert_eq!(&since, &second);
        }
    }

    #[test]
    fn counters_that_begin_anew_count_whole() {
        let (mut old, mut new) = (Cell::default(), Cell::default());
        old.statuses[1] = 10;
        new.statuses[1] = 3;
        assert_eq!(new.since(&old), new);
    }

    #[test]
    fn numbers_beyond_everything_are_as_many_as_can_be_told() {
        let mut most = Cell {
            statuses: [u64::MAX; 5],
            unanswered: u64::MAX,
            ..Cell::default()
        };
        most.tax.sum_ns = u64::MAX;
        most.tax.count = u64::MAX;
        most.tax.buckets.insert(1, u64::MAX);
        let mut sum = most.clone();
        sum.merge(&most);
        assert_eq!(sum, most);
        assert_eq!(sum.requests(), u64::MAX);
    }
}
