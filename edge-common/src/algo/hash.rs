//! Seeded hashing of addresses.
//!
//! Multiply-shift with a secret multiplier and a secret offset: the top bits of `(x ^ a) * b` for a random odd
//! `b` are 2-universal (Dietzfelbinger et al., "A reliable randomized algorithm for the closest-pair problem",
//! 1997), so a sender who does not know the seeds cannot aim at a cell. Two multiplications, no table.

use crate::abi::Addr;

/// Odd constant that spreads the second half (2^64 divided by the golden ratio).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hash of an address prefix under `seeds`; `tweak` separates uses (prefix length, limit set, kind).
///
/// The high bits are the strong ones. Take indices with [`low_index`] and [`high_index`].
#[inline(always)]
pub const fn address(addr: &Addr, seeds: &[u64; 2], tweak: u64) -> u64 {
    let multiplier = seeds[1] | 1;
    let mut h = (addr.low() ^ seeds[0] ^ tweak).wrapping_mul(multiplier);
    h ^= h >> 32;
    h = (h ^ addr.high().wrapping_mul(SPREAD) ^ (tweak << 17)).wrapping_mul(multiplier);
    h ^= h >> 29;
    h = h.wrapping_mul(SPREAD);
    h ^ (h >> 32)
}

/// A second hash from a first: for the cells of limit set and kind `tweak`.
#[inline(always)]
pub const fn derive(hash: u64, tweak: u64) -> u64 {
    let h = (hash ^ tweak).wrapping_mul(SPREAD);
    h ^ (h >> 32)
}

/// An index from the low half of a hash.
#[inline(always)]
pub const fn low_index(hash: u64, mask: u32) -> u32 {
    hash as u32 & mask
}

/// An index from the high half of a hash.
#[inline(always)]
pub const fn high_index(hash: u64, mask: u32) -> u32 {
    (hash >> 32) as u32 & mask
}
