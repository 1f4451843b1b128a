//! Tokens that were verified before, one cache a worker.
//!
//! Holds verified tokens only, so a flood of bad ones displaces nothing. A hit compares the whole token: the hash only
//! says where to look. Whether an entry still counts (time, keys, revocations, the route's choice of provider) is
//! the caller's question at every hit. Bounded in entries and in bytes; nothing here locks.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::VerifiedToken;

/// Places in one set: as many tags as fit a cache line.
const WAYS: usize = 8;
/// Sets: 16,384 tokens a worker.
const SETS: usize = 2048;
/// What all entries together may take, in bytes (estimated).
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// How much of a token's end is hashed, in bytes: all of it signature, so spread evenly for any valid token.
const TAIL: usize = 32;

/// A token and what was true when it was last looked at.
#[derive(Debug)]
pub(super) struct Entry {
    /// The token, with its text.
    pub(super) token: Arc<VerifiedToken>,
    /// Generation of the provider's keys under which its key was last seen.
    pub(super) keys: u64,
    /// Generation of the revocations against which it was last checked.
    pub(super) revocations: u64,
    /// When the token expires; here, so that looking for a victim touches no token.
    until: i64,
    /// Second chance: looked at since the hand passed.
    is_used: bool,
}

impl Entry {
    pub(super) fn new(token: Arc<VerifiedToken>, keys: u64, revocations: u64) -> Self {
        Self {
            until: token.window.until,
            token,
            keys,
            revocations,
            is_used: false,
        }
    }

    /// Text, claims if somebody asked for them (about twice the text), headers and bookkeeping.
    fn cost(&self) -> usize {
        3 * self.token.text().len() + 512
    }
}

/// Counters of one worker's cache, readable by others.
#[derive(Debug, Default)]
pub struct CacheCounters {
    hits: AtomicU64,
    misses: AtomicU64,
    insertions: AtomicU64,
    evictions: AtomicU64,
    entries: AtomicU64,
    bytes: AtomicU64,
}

/// Sums or single readings of [`CacheCounters`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct CacheStatus {
    /// Tokens found.
    pub hits: u64,
    /// Tokens not found, good and bad.
    pub misses: u64,
    /// Tokens put in.
    pub insertions: u64,
    /// Tokens put out for others.
    pub evictions: u64,
    /// Tokens in it now.
    pub entries: u64,
    /// Estimated bytes in use now.
    pub bytes: u64,
}

impl CacheCounters {
    pub(super) fn read(&self) -> CacheStatus {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheStatus {
            hits: get(&self.hits),
            misses: get(&self.misses),
            insertions: get(&self.insertions),
            evictions: get(&self.evictions),
            entries: get(&self.entries),
            bytes: get(&self.bytes),
        }
    }
}

impl std::ops::Add for CacheStatus {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            hits: self.hits + other.hits,
            misses: self.misses + other.misses,
            insertions: self.insertions + other.insertions,
            evictions: self.evictions + other.evictions,
            entries: self.entries + other.entries,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// The cache of one worker.
#[derive(Debug)]
pub(super) struct TokenCache {
    tags: Box<[u64]>,
    entries: Box<[Option<Entry>]>,
    seed: u64,
    bytes: usize,
    hand: usize,
    counters: Arc<CacheCounters>,
}

impl TokenCache {
    pub(super) fn new(counters: Arc<CacheCounters>) -> Self {
        Self {
            tags: vec![0; SETS * WAYS].into(),
            entries: std::iter::repeat_with(|| None).take(SETS * WAYS).collect(),
            seed: RandomState::new().hash_one(0),
            bytes: 0,
            hand: 0,
            counters,
        }
    }

    /// The place of this very token, to be asked for with [`Self::entry`].
    pub(super) fn find(&mut self, text: &[u8]) -> Option<usize> {
        let found = self.position(text);
        let counter = if found.is_some() {
            &self.counters.hits
        } else {
            &self.counters.misses
        };
        bump(counter, 1);
        found
    }

    fn position(&self, text: &[u8]) -> Option<usize> {
        let tag = self.tag(text);
        let start = set(tag) * WAYS;
        (start..start + WAYS).find(|place| {
            self.tags[*place] == tag
                && self.entries[*place]
                    .as_ref()
                    .is_some_and(|entry| entry.token.text() == text)
        })
    }

    /// The entry at a place.
    pub(super) fn entry(&mut self, place: usize) -> Option<&mut Entry> {
        let entry = self.entries[place].as_mut()?;
        entry.is_used = true;
        Some(entry)
    }

    /// Puts out the entry at a place.
    pub(super) fn remove(&mut self, place: usize) {
        if let Some(entry) = self.entries[place].take() {
            self.bytes -= entry.cost();
            self.tags[place] = 0;
            self.publish_size(-1);
        }
    }

    /// Puts in a verified token; another in the same set, expired or least lately used, may have to go.
    pub(super) fn insert(&mut self, entry: Entry, now: i64) {
        let tag = self.tag(entry.token.text());
        let place = self
            .position(entry.token.text())
            .unwrap_or_else(|| self.victim(set(tag) * WAYS, now));
        if self.entries[place].is_some() {
            bump(&self.counters.evictions, 1);
            self.remove(place);
        }
        self.bytes += entry.cost();
        self.tags[place] = tag;
        self.entries[place] = Some(entry);
        bump(&self.counters.insertions, 1);
        self.publish_size(1);
        self.shrink(place);
    }

    fn victim(&mut self, start: usize, now: i64) -> usize {
        let mut places = start..start + WAYS;
        let is_free = |entry: &Option<Entry>| entry.as_ref().is_none_or(|entry| entry.until <= now);
        if let Some(free) = places.find(|place| is_free(&self.entries[*place])) {
            return free;
        }
        let begin = self.hand % WAYS;
        self.hand = self.hand.wrapping_add(1);
        for place in (0..WAYS).map(|step| start + (begin + step) % WAYS) {
            match self.entries[place].as_mut() {
                Some(entry) if entry.is_used => entry.is_used = false,
                _ => return place,
            }
        }
        start + begin
    }

    /// Puts out entries until the bytes fit, sparing the one just put in. Two rounds visit every entry unused once.
    fn shrink(&mut self, spared: usize) {
        for _ in 0..2 * self.entries.len() {
            if self.bytes <= MAX_BYTES {
                return;
            }
            self.hand = self.hand.wrapping_add(1) % self.entries.len();
            match self.entries[self.hand].as_mut() {
                Some(_) if self.hand == spared => {}
                Some(entry) if entry.is_used => entry.is_used = false,
                Some(_) => {
                    bump(&self.counters.evictions, 1);
                    self.remove(self.hand);
                }
                None => {}
            }
        }
    }

    fn publish_size(&self, change: i64) {
        let entries = self
            .counters
            .entries
            .load(Ordering::Relaxed)
            .saturating_add_signed(change);
        self.counters.entries.store(entries, Ordering::Relaxed);
        self.counters.bytes.store(self.bytes as u64, Ordering::Relaxed);
    }

    /// Seeded hash of a token's end and length; never 0, which marks a free place.
    fn tag(&self, text: &[u8]) -> u64 {
        let mut tail = [0; TAIL];
        let length = text.len().min(TAIL);
        tail[..length].copy_from_slice(&text[text.len() - length..]);
        let mut hash = self.seed ^ text.len() as u64;
        for word in tail.chunks_exact(8) {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            hash = fold(hash ^ u64::from_le_bytes(bytes), self.seed | 1);
        }
        fold(hash, 0x9e37_79b9_7f4a_7c15) | 1
    }
}

/// Upper bits choose the set; the lowest is always set.
fn set(tag: u64) -> usize {
    (tag >> 32) as usize % SETS
}

fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    product as u64 ^ (product >> 64) as u64
}

/// One writer: a plain addition, without the bus lock of an atomic one.
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed) + by, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
