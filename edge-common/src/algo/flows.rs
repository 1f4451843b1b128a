//! The connection table: which backend a flow belongs to, so that it stays there when the set of backends changes.
//!
//! A flow is known by a seeded 64-bit hash. Two buckets a flow, four entries each, a cache line a bucket. Entries are
//! made by the program on any CPU, claimed by compare-and-swap, and never evicted: an entry is given up when it has been
//! idle for its time, and by nothing else. A flow is only entered with its second packet, and only if a cell of the
//! *candidates* still remembers the first; so a flood of made-up sources, each of which sends one packet, overwrites
//! candidates and leaves the table alone.
//!
//! Invariants: an entry that is alive keeps its place, whatever arrives; two flows share an entry only if 64 bits of their
//! hashes agree; a flow that finds no room is steered by the Maglev table alone.

use super::slots::Cell;
use crate::abi::{ban::buckets, steer::FLOW_WORDS};

/// A bucket of the table.
pub type Bucket<C> = [C; FLOW_WORDS];
/// Words of an entry: the hash, and [`Info`].
const ENTRY: usize = 2;

/// How far a flow has come, which decides how long its entry outlives its last packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Class {
    /// Datagrams.
    Datagrams = 1,
    /// A TCP connection.
    Open = 2,
    /// A TCP connection of which a FIN or RST was seen.
    Closing = 3,
}

/// Seconds that an entry outlives its flow's last packet, by [`Class`].
pub const IDLE_SECONDS: [u32; 4] = [0, 60, 3_600, 30];
/// Ticks that a packet may be newer than whoever looks at its entry, who has read the clock before he came to it.
const AHEAD: u32 = 1 << 16;
/// Seconds that a candidate is remembered.
pub const CANDIDATE_SECONDS: u16 = 10;

/// Which backend: its index and the generation of what is kept there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// Index in the table of backends, at most 12 bits.
    pub backend: u16,
    /// Generation.
    pub generation: u8,
}

/// The second word of an entry: tick of the last packet (32 bits), backend (16), generation (8), class (8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Info(pub u64);

impl Info {
    /// Of a flow of `owner`, seen at `tick`.
    #[inline(always)]
    pub const fn new(owner: Owner, class: u8, tick: u64) -> Self {
        Self(
            tick as u32 as u64
                | (owner.backend as u64) << 32
                | (owner.generation as u64) << 48
                | (class as u64) << 56,
        )
    }

    /// Whose it is.
    #[inline(always)]
    pub const fn owner(self) -> Owner {
        Owner {
            backend: (self.0 >> 32) as u16,
            generation: (self.0 >> 48) as u8,
        }
    }

    /// The class; 0 of an entry that was never used.
    #[inline(always)]
    pub const fn class(self) -> u8 {
        (self.0 >> 56) as u8
    }

    /// Ticks since the last packet: none, if that was seen by somebody whose `tick` is newer.
    #[inline(always)]
    pub const fn age(self, tick: u64) -> u32 {
        let age = (tick as u32).wrapping_sub(self.0 as u32);
        if age > u32::MAX - AHEAD { 0 } else { age }
    }

    /// Whether the flow may still go on.
    #[inline(always)]
    pub const fn is_alive(self, tick: u64, hz: u32) -> bool {
        self.age(tick) < IDLE_SECONDS[self.class() as usize & 3].wrapping_mul(hz)
    }
}

/// The hash as it is kept: 0 is an empty entry's.
#[inline(always)]
const fn tag(hash: u64) -> u64 {
    if hash == 0 { 1 } else { hash }
}

/// The two buckets of a flow.
#[inline(always)]
pub const fn places(hash: u64, mask: u32) -> [u32; 2] {
    buckets(hash, mask + 1)
}

/// Word of the flow's [`Info`] in `bucket`; 0 is none.
#[inline(always)]
pub fn find<C: Cell>(bucket: &Bucket<C>, hash: u64) -> usize {
    let mut at = 0;
    while at < FLOW_WORDS {
        if bucket[at].load() == tag(hash) {
            return at + 1;
        }
        at += ENTRY;
    }
    0
}

/// Takes note of a packet of the flow whose [`Info`] is word `at`, if that says anything new: a word that all CPUs read
/// is not written with every packet.
#[inline(always)]
pub fn touch<C: Cell>(bucket: &Bucket<C>, at: usize, old: Info, class: u8, tick: u64, hz: u32) {
    if old.age(tick) < hz && old.class() == class {
        return;
    }
    // Whoever was faster has said the same.
    let _ = bucket[at % FLOW_WORDS].swap(old.0, Info::new(old.owner(), class, tick).0);
}

/// Gives the entry of a flow, if `bucket` has one, to another owner; whether it has one.
#[inline(always)]
pub fn hand_over<C: Cell>(bucket: &Bucket<C>, hash: u64, owner: Owner, class: u8, tick: u64) -> bool {
    let at = find(bucket, hash);
    if at == 0 {
        return false;
    }
    let info = &bucket[at % FLOW_WORDS];
    // Whoever was faster has said the same.
    let _ = info.swap(info.load(), Info::new(owner, class, tick).0);
    true
}

/// Enters a flow into `bucket`, in the place of one that has been idle for its time; whether there was one.
#[inline(always)]
pub fn insert<C: Cell>(bucket: &Bucket<C>, hash: u64, owner: Owner, class: u8, tick: u64, hz: u32) -> bool {
    let mut at = 0;
    while at < FLOW_WORDS {
        let was = bucket[at].load();
        let info = Info(bucket[at + 1].load());
        // The word that says it is alive first: whoever changes it has the entry, and the old flow's packets, which has
        // been idle for its time, go to the new backend until the hash is the new one.
        if !info.is_alive(tick, hz) && bucket[at + 1].swap(info.0, Info::new(owner, class, tick).0) {
            return bucket[at].swap(was, tag(hash));
        }
        at += ENTRY;
    }
    false
}

/// A flow's first packet as a candidate cell keeps it: 28 bits of its hash, 12 of the backend, 8 of its generation, and
/// the second (16 bits).
#[inline(always)]
pub const fn candidate(hash: u64, owner: Owner, second: u64) -> u64 {
    (hash & TAG) << 36
        | (owner.backend as u64 & 0xfff) << 24
        | (owner.generation as u64) << 16
        | second & 0xffff
}

/// Whose the flow's first packet was, if the cell remembers it. (A plain number, since an option would have a verifier
/// walk the rest twice; [`NOBODY`] is none.)
#[inline(always)]
pub const fn remembered(cell: u64, hash: u64, second: u64) -> u32 {
    let age = (second as u16).wrapping_sub(cell as u16);
    if cell >> 36 != hash & TAG || age >= CANDIDATE_SECONDS || cell == 0 {
        return NOBODY;
    }
    (cell >> 16) as u32 & 0xf_ffff
}

/// No owner.
pub const NOBODY: u32 = u32::MAX;
const TAG: u64 = (1 << 28) - 1;

/// The owner behind what [`remembered`] answers.
#[inline(always)]
pub const fn owner(remembered: u32) -> Owner {
    Owner {
        backend: (remembered >> 8) as u16 & 0xfff,
        generation: remembered as u8,
    }
}

#[cfg(test)]
mod tests;
