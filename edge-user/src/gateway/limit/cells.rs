//! Rates of many keys in bounded memory, shared by all workers without a lock.
//!
//! A key's state is one number, the time until which its requests are paid for (GCRA's theoretical arrival time), in a
//! cell that it finds by a seeded hash among the eight of a set. All workers use the same cells, so the configured rate
//! is the rate of the whole gateway, whichever worker a client's connections land on. Nobody waits and nobody is woken:
//! a contended update is tried again a bounded number of times and then counts as over the limit.
//!
//! Invariant: no key is admitted more than its limit, whatever other keys do. When a set is full, a new key takes over
//! the cell with the least debt and inherits that debt ("space saving"). So a key that was pushed out comes back to at
//! least the debt it left behind: eviction resets nothing. What a flood of made-up keys can do is make new keys begin
//! with some debt; that it cannot aim for, and it decays at the limit's own pace.

use std::{
    hash::{BuildHasher, Hash, Hasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Cells in a set: their tags fill one cache line, their times another.
const WAYS: usize = 8;

/// Tries of one update. Each failure means that another worker succeeded.
const TRIES: usize = 64;

/// A rate: one request every `interval`, and a number of intervals at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gcra {
    /// Nanoseconds that one request pays for.
    interval: u64,
    /// Nanoseconds that may be paid for in advance.
    depth: u64,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is within the rate.
    pub admitted: bool,
    /// Requests that would be admitted now, one after the other.
    pub remaining: u64,
    /// Until the next one is admitted; zero while some remain.
    pub retry_after: Duration,
    /// Until everything is admitted again that the burst allows.
    pub full_after: Duration,
}

impl Gcra {
    /// `requests` in every `per`, `burst` at once. Both at least one.
    pub fn new(requests: u64, per: Duration, burst: u64) -> Self {
        let per = u64::try_from(per.as_nanos()).unwrap_or(u64::MAX);
        let interval = (per / requests.max(1)).max(1);
        Self {
            interval,
            depth: interval.saturating_mul(burst.max(1)),
        }
    }

    /// The time paid for after one more request at `now`, if it is admitted.
    fn charge(self, paid: u64, now: u64) -> Option<u64> {
        let next = paid.max(now).checked_add(self.interval)?;
        (next - now <= self.depth).then_some(next)
    }

    fn verdict(self, admitted: bool, paid: u64, now: u64) -> Verdict {
        let debt = paid.saturating_sub(now);
        let room = self.depth.saturating_sub(debt);
        let short = self.interval.saturating_sub(room);
        Verdict {
            admitted,
            remaining: room / self.interval,
            retry_after: Duration::from_nanos(if room < self.interval { short } else { 0 }),
            full_after: Duration::from_nanos(debt),
        }
    }
}

#[derive(Debug)]
#[repr(align(128))]
struct Set {
    /// A seeded hash of the key; 0 is nobody's.
    tags: [AtomicU64; WAYS],
    /// The time until which requests are paid for, in nanoseconds.
    paid: [AtomicU64; WAYS],
}

/// The cells of one limit, so that a flood of one limit's keys takes no room from another's.
#[derive(Debug)]
pub struct Cells {
    sets: Box<[Set]>,
    hasher: RandomState,
}

impl Cells {
    /// Room for as many keys, rounded up to sets of eight; 16 bytes each.
    pub fn new(keys: usize) -> Self {
        Self::with_sets(keys.div_ceil(WAYS).max(1))
    }

    fn with_sets(sets: usize) -> Self {
        let set = || Set {
            tags: [const { AtomicU64::new(0) }; WAYS],
            paid: [const { AtomicU64::new(0) }; WAYS],
        };
        Self {
            sets: std::iter::repeat_with(set).take(sets).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Where a key's state is: a hash with these cells' seeds of whatever `feed` puts in.
    pub fn tag(&self, feed: impl FnOnce(&mut dyn Hasher)) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        feed(&mut hasher);
        hasher.finish().max(1)
    }

    /// Takes one request of the key with this tag at `now`, nanoseconds of a clock that never goes back.
    pub fn take(&self, tag: u64, rate: Gcra, now: u64) -> Verdict {
        let paid = self.cell(tag);
        let mut known = paid.load(Ordering::Relaxed);
        for _ in 0..TRIES {
            let Some(next) = rate.charge(known, now) else {
                return rate.verdict(false, known, now);
            };
            match paid.compare_exchange_weak(known, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return rate.verdict(true, next, now),
                Err(other) => known = other,
            }
        }
        rate.verdict(false, known.max(now.saturating_add(rate.depth)), now)
    }

    /// The cell of a tag; a new tag takes over the one with the least debt, and the debt with it.
    fn cell(&self, tag: u64) -> &AtomicU64 {
        let set = &self.sets[(tag >> 32) as usize % self.sets.len()];
        for _ in 0..TRIES {
            if let Some(way) = set.find(tag) {
                return &set.paid[way];
            }
            let least = set
                .paid
                .iter()
                .map(|paid| paid.load(Ordering::Relaxed))
                .enumerate()
                .min_by_key(|(_, paid)| *paid)
                .map_or(0, |(way, _)| way);
            let old = set.tags[least].load(Ordering::SeqCst);
            // Two workers that meet the same new key at once may take two cells: both then use the first.
            if set.tags[least]
                .compare_exchange(old, tag, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
            {
                return &set.paid[set.find(tag).unwrap_or(least)];
            }
        }
        // Everybody fights for this set: whoever cannot get a cell of its own shares one.
        &set.paid[tag as usize % WAYS]
    }
}

impl Set {
    fn find(&self, tag: u64) -> Option<usize> {
        self.tags.iter().position(|own| own.load(Ordering::SeqCst) == tag)
    }
}

/// Feeds one part of a key, so that no two lists of parts are the same bytes.
pub fn feed(hasher: &mut dyn Hasher, kind: u8, part: &[u8]) {
    struct To<'h>(&'h mut dyn Hasher);
    impl Hasher for To<'_> {
        fn finish(&self) -> u64 {
            self.0.finish()
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.write(bytes);
        }
    }
    kind.hash(&mut To(hasher));
    part.hash(&mut To(hasher));
}

#[cfg(test)]
mod tests;
