//! The table of bans: two buckets a prefix, the whole prefix compared, written by user space alone.
//!
//! Reading ([`holding`]) and writing ([`Writer`]) go on at the same time without a lock. An entry's [`Stamp`] is what
//! makes it a ban. A writer takes the stamp away before it changes the prefix, and gives it back, of another version,
//! after; a reader takes the stamp, compares the prefix, and then wants the *same* stamp again. So a reader that meets
//! a change in the middle finds nothing, which is what was true before or after, and never a prefix with another
//! prefix's ban. (Loads and stores keep their order on x86-64, the processor that this runs on.)
//!
//! When both buckets are full, entries move to their other bucket: the copy is there before the original goes, and a
//! count of moves tells a reader that found nothing to look again.
//!
//! Invariants: a reader looks at two buckets, at most [`LOOKS`] times; a writer at most at [`SEARCHED`] buckets.

use super::slots::Cell;
use crate::abi::{
    Ban, BanKey, Params,
    ban::{self, BUCKET_ENTRIES, BUCKET_WORDS, ENTRY_WORDS, STAMP, Stamp},
    hint,
};

/// How often a reader looks before it takes "moved meanwhile" for "not there". Each further look takes another move
/// within nanoseconds.
pub const LOOKS: u32 = 3;
/// Buckets that a writer looks at for room.
pub const SEARCHED: usize = 512;

/// The stamp of the ban that holds for exactly this prefix, if `bucket` has one.
#[inline(always)]
pub fn holding<C: Cell>(
    bucket: &[C; BUCKET_WORDS],
    high: u64,
    low: u64,
    bits: u32,
    tick: u64,
) -> Option<Stamp> {
    let mut at = 0;
    while at < BUCKET_WORDS {
        let stamp = Stamp(bucket[at + STAMP].load());
        if bucket[at].load() == high
            && bucket[at + 1].load() == low
            && stamp.is_for(bits)
            && stamp.holds(tick)
            && bucket[at + STAMP].load() == stamp.0
        {
            return Some(stamp);
        }
        at += ENTRY_WORDS;
    }
    None
}

/// Where the words of the table are, for whoever writes them. Stores must become visible in their order.
pub trait Store {
    /// Word `word` of bucket `bucket`.
    fn load(&self, bucket: u32, word: usize) -> u64;
    /// Stores it.
    fn store(&self, bucket: u32, word: usize, value: u64);
    /// Counts a move.
    fn moved(&self);
}

/// The table is full for this prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// Writes the table. There must be one at a time.
#[derive(Debug)]
pub struct Writer<'s, S> {
    store: &'s S,
    params: &'s Params,
}

impl<S> Clone for Writer<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Writer<'_, S> {}

/// An entry's place.
type Place = (u32, usize);

impl<'s, S: Store> Writer<'s, S> {
    /// A writer of the table that `params` describes.
    pub const fn new(store: &'s S, params: &'s Params) -> Self {
        Self { store, params }
    }

    /// The ban on exactly this prefix, ended or not.
    pub fn find(&self, key: &BanKey, now: u64) -> Option<Ban> {
        self.places(key).next().map(|place| self.read(place, now).1)
    }

    /// Writes a ban, over the one that the prefix has. Whether the entry is new.
    ///
    /// # Errors
    /// There is no room, and none can be made by moving others.
    pub fn put(&self, key: &BanKey, ban: &Ban) -> Result<bool, Full> {
        let mut places = self.places(key);
        if let Some(place) = places.next() {
            self.store.store(place.0, place.1 + 3, ban::info(key, ban));
            self.store.store(
                place.0,
                place.1 + STAMP,
                Stamp::new(key.prefix, ban, self.stamp(place)).0,
            );
            // A writer that was killed while it moved the entry has left two.
            places.for_each(|double| self.free(double));
            return Ok(false);
        }
        let own = self.buckets(key);
        let room = own.map(|bucket| self.free_entries(bucket));
        let chosen = if room[1] > room[0] { own[1] } else { own[0] };
        let place = match self.free_in(chosen) {
            Some(place) => place,
            None => self.make_room(own)?,
        };
        let words = [key.addr.high(), key.addr.low(), ban::info(key, ban)];
        self.fill(place, words, Stamp::new(key.prefix, ban, self.stamp(place)));
        Ok(true)
    }

    /// Removes a ban. Whether there was one.
    pub fn remove(&self, key: &BanKey) -> bool {
        let mut there = false;
        for place in self.places(key) {
            self.free(place);
            there = true;
        }
        there
    }

    /// Every entry.
    pub fn entries(self, now: u64) -> impl Iterator<Item = (BanKey, Ban)> + use<'s, S> {
        (0..self.params.ban_buckets)
            .flat_map(|bucket| (0..BUCKET_ENTRIES).map(move |entry| (bucket, entry * ENTRY_WORDS)))
            .filter(move |place| !self.stamp(*place).is_free())
            .map(move |place| self.read(place, now))
    }

    fn buckets(&self, key: &BanKey) -> [u32; 2] {
        ban::buckets(hash(key, self.params), self.params.ban_buckets)
    }

    /// Where the prefix is: in one place, or nowhere.
    fn places(&self, key: &BanKey) -> impl Iterator<Item = Place> + use<'_, 's, S> {
        let [first, second] = self.buckets(key);
        let key = *key;
        let second = (second != first).then_some(second);
        core::iter::once(first)
            .chain(second)
            .flat_map(|bucket| (0..BUCKET_ENTRIES).map(move |entry| (bucket, entry * ENTRY_WORDS)))
            .filter(move |place| {
                let stamp = self.stamp(*place);
                !stamp.is_free()
                    && stamp.is_for(key.prefix)
                    && self.store.load(place.0, place.1) == key.addr.high()
                    && self.store.load(place.0, place.1 + 1) == key.addr.low()
            })
    }

    fn read(&self, (bucket, at): Place, now: u64) -> (BanKey, Ban) {
        let words = core::array::from_fn(|word| self.store.load(bucket, at + word));
        ban::entry(words, now)
    }

    fn stamp(&self, (bucket, at): Place) -> Stamp {
        Stamp(self.store.load(bucket, at + STAMP))
    }

    fn free_in(&self, bucket: u32) -> Option<Place> {
        (0..BUCKET_ENTRIES)
            .map(|entry| (bucket, entry * ENTRY_WORDS))
            .find(|place| self.stamp(*place).is_free())
    }

    fn free_entries(&self, bucket: u32) -> usize {
        (0..BUCKET_ENTRIES)
            .filter(|entry| self.stamp((bucket, entry * ENTRY_WORDS)).is_free())
            .count()
    }

    fn free(&self, place: Place) {
        self.store
            .store(place.0, place.1 + STAMP, self.stamp(place).freed().0);
    }

    /// Fills a free entry; the stamp comes last.
    fn fill(&self, (bucket, at): Place, [high, low, info]: [u64; 3], stamp: Stamp) {
        self.store.store(bucket, at, high);
        self.store.store(bucket, at + 1, low);
        self.store.store(bucket, at + 3, info);
        self.store.store(bucket, at + STAMP, stamp.0);
    }

    /// Looks, nearest first, for a bucket with a free entry that a chain of moves can reach, and makes the moves from
    /// the far end. Answers with the entry that is free then.
    fn make_room(&self, own: [u32; 2]) -> Result<Place, Full> {
        // Bucket, and the place whose entry would move into it: index of the bucket before, and offset there.
        let mut seen = [(0_u32, 0_usize, 0_usize); SEARCHED];
        (seen[0], seen[1]) = ((own[0], 0, 0), (own[1], 1, 0));
        let (mut next, mut end) = (0, 2);
        while next < end {
            let bucket = seen[next].0;
            for entry in 0..BUCKET_ENTRIES {
                let at = entry * ENTRY_WORDS;
                let (key, _) = self.read((bucket, at), 0);
                let [first, second] = self.buckets(&key);
                let other = if first == bucket { second } else { first };
                if seen[..end].iter().any(|(known, ..)| *known == other) {
                    continue;
                }
                if let Some(free) = self.free_in(other) {
                    return Ok(self.shift(&seen, (next, at), free));
                }
                if end < SEARCHED {
                    seen[end] = (other, next, at);
                    end += 1;
                }
            }
            next += 1;
        }
        Err(Full)
    }

    fn shift(&self, seen: &[(u32, usize, usize); SEARCHED], from: (usize, usize), free: Place) -> Place {
        let (mut from, mut free) = (from, free);
        loop {
            let (bucket, before, at) = seen[from.0];
            let source = (bucket, from.1);
            let word = |word| self.store.load(source.0, source.1 + word);
            let stamp = self.stamp(source).0 & !Stamp::VERSION | self.stamp(free).next_version();
            self.fill(free, [word(0), word(1), word(3)], Stamp(stamp));
            self.store.moved();
            self.free(source);
            if from.0 == before {
                return source;
            }
            (from, free) = ((before, at), source);
        }
    }
}

/// Hash of a banned prefix.
pub const fn hash(key: &BanKey, params: &Params) -> u64 {
    hint::prefix(&key.addr, key.addr.family(), key.prefix, params)
}

#[cfg(test)]
mod tests;
