//! Seeded hashing of address prefixes.
//!
//! Multiply-shift with a secret multiplier and a secret offset: the top bits of `(x ^ a) * b` for a random odd
//! `b` are 2-universal (Dietzfelbinger et al., "A reliable randomized algorithm for the closest-pair problem",
//! 1997), so a sender who does not know the seeds cannot aim at a cell. A second multiplication spreads them over
//! the word. Prefixes of up to 64 bits, all but an IPv6 host's /128, are hashed as one integer.

/// Odd constant that spreads the upper half (2^64 divided by the golden ratio).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hash of an integer under `seeds`. Both halves are good, the upper one is the better.
#[inline(always)]
pub const fn word(x: u64, seeds: &[u64; 2]) -> u64 {
    let mut h = (x ^ seeds[0]).wrapping_mul(seeds[1] | 1);
    h ^= h >> 32;
    h = h.wrapping_mul(SPREAD);
    h ^ (h >> 32)
}

/// Hash of two integers: of an IPv6 address.
#[inline(always)]
pub const fn pair(high: u64, low: u64, seeds: &[u64; 2]) -> u64 {
    word(word(high, seeds) ^ low, seeds)
}

/// An index below `mask + 1` from the upper half of a hash.
#[inline(always)]
pub const fn index(hash: u64, mask: u32) -> u32 {
    (hash >> 32) as u32 & mask
}
