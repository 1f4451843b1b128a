//! The table of earned sources: exact cells for hosts that proved that they are there.
//!
//! Two buckets a host, as in the table of bans; but entries are made by the program as well, on any CPU, so an entry
//! is claimed by compare-and-swap and never moved. A new entry's cells begin where the default tier's were, so nobody has his
//! burst twice for earning one. The salt of the limits is the tag of an entry's cells.
//!
//! Invariants: a host is looked for in eight entries; nothing is ever evicted, a host that finds no room stays in the
//! default tier; what is claimed twice at the same moment by two CPUs is the same host twice, of which the first is
//! found and the other idles away.

use super::{gcra::TAG_MASK, slots::Cell};
use crate::abi::{
    EarnedHost,
    ban::buckets,
    limit::{EARNED_ENTRY, EARNED_KINDS, EARNED_WORDS},
};

/// A bucket of the table.
pub type Bucket<C> = [C; EARNED_WORDS];

/// What became of a host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// It has an entry now.
    Added,
    /// It had one.
    Known,
    /// Its buckets are full.
    Refused,
}

/// The two buckets of a host with this hash.
#[inline(always)]
pub const fn places(hash: u64, count: u32) -> [u32; 2] {
    buckets(hash, count)
}

/// Index of the first cell of the host under the limits with this salt, if it is in `bucket`. 0 is none: a bucket
/// does not begin with a cell.
#[inline(always)]
pub fn find<C: Cell>(bucket: &Bucket<C>, host: EarnedHost, salt: u16) -> u32 {
    let mut at = 0;
    while at < EARNED_WORDS {
        if bucket[at % EARNED_WORDS].load() == host.0
            && bucket[(at + 1) % EARNED_WORDS].load() & TAG_MASK == u64::from(salt)
        {
            return at as u32 + 1;
        }
        at += EARNED_ENTRY;
    }
    0
}

/// Gives a host an entry in `bucket`. `now` is the time in cell units; `charged` says how far ahead of it the cell of a kind of
/// limit begins, at most the burst, and is asked once the entry is taken, so that little is charged elsewhere meanwhile.
#[inline(always)]
pub fn claim<C: Cell>(
    bucket: &Bucket<C>,
    host: EarnedHost,
    salt: u16,
    now: u64,
    charged: &impl Fn(usize) -> u64,
) -> Claim {
    if find(bucket, host, salt) != 0 {
        return Claim::Known;
    }
    let mut at = 0;
    while at < EARNED_WORDS {
        if bucket[at % EARNED_WORDS].load() == EarnedHost::FREE.0
            && bucket[at % EARNED_WORDS].swap(EarnedHost::FREE.0, host.0)
        {
            let mut kind = EARNED_KINDS;
            // The first cell, whose tag makes the entry found, comes last.
            while kind > 0 {
                kind -= 1;
                let cell = at + 1 + kind;
                let begin = now.wrapping_add(charged(kind) & !TAG_MASK);
                let old = bucket[cell % EARNED_WORDS].load();
                // Lost only to a charge of whoever had the entry before.
                bucket[cell % EARNED_WORDS].swap(old, begin | u64::from(salt));
            }
            return Claim::Added;
        }
        at += EARNED_ENTRY;
    }
    Claim::Refused
}

/// Gives a host an entry in one of its two buckets, unless it has one.
#[inline(always)]
pub fn claim_either<C: Cell>(
    [first, second]: [&Bucket<C>; 2],
    host: EarnedHost,
    salt: u16,
    now: u64,
    charged: &impl Fn(usize) -> u64,
) -> Claim {
    if find(second, host, salt) != 0 {
        return Claim::Known;
    }
    match claim(first, host, salt, now, charged) {
        Claim::Refused => claim(second, host, salt, now, charged),
        done => done,
    }
}

#[cfg(test)]
mod tests;
