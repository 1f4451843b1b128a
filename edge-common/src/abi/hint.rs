//! Hints: two bits a hashed prefix that say whether an exact table is worth a look-up.
//!
//! A field of the hint table covers every prefix that hashes to it. A set bit means "maybe", a clear bit means
//! "certainly not"; a bit that is set needlessly costs one look-up, one that is missing loses a ban, so bits
//! are set before the entry and cleared after it.

use super::{Addr, Family, Params, ban};
use crate::algo::hash;

/// Bits a field has.
pub const BITS: u32 = 2;
/// Fields in one 64-bit word.
pub const FIELDS_PER_WORD: u32 = 64 / BITS;
/// The ban map has a prefix that hashes here.
pub const BAN: u64 = 1 << 0;
/// The table of earned sources has a host that hashes here.
pub const EARNED: u64 = 1 << 1;

/// Prefix length (of 128) of a source host: IPv4 /32, IPv6 /64.
#[inline(always)]
pub const fn host_prefix(family: Family) -> u32 {
    match family {
        Family::V4 => 128,
        Family::V6 => 64,
    }
}

/// Prefix length (of 128) of a source network: IPv4 /24, IPv6 /48.
#[inline(always)]
pub const fn network_prefix(family: Family) -> u32 {
    match family {
        Family::V4 => 120,
        Family::V6 => 48,
    }
}

/// Hashes of a source at every prefix length that some table keeps.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// IPv4 or IPv6.
    pub family: Family,
    /// At [`host_prefix`].
    pub host: u64,
    /// At [`network_prefix`].
    pub network: u64,
    /// IPv6 at /128 and /56; zero for IPv4, whose two lengths are host and network.
    pub others: [u64; 2],
}

impl Keys {
    /// Hashes `addr`.
    #[inline(always)]
    pub const fn new(addr: &Addr, params: &Params) -> Self {
        match addr.family() {
            Family::V4 => Self {
                family: Family::V4,
                host: prefix(addr, 128, params),
                network: prefix(addr, 120, params),
                others: [0, 0],
            },
            Family::V6 => Self {
                family: Family::V6,
                host: prefix(addr, 64, params),
                network: prefix(addr, 48, params),
                others: [
                    prefix(addr, ban::V6_PREFIXES[0], params),
                    prefix(addr, ban::V6_PREFIXES[2], params),
                ],
            },
        }
    }
}

/// Hash of the prefix of length `bits` that `addr` lies in.
#[inline(always)]
pub const fn prefix(addr: &Addr, bits: u32, params: &Params) -> u64 {
    hash::address(&addr.masked(bits), &params.seeds, bits as u64)
}

/// Where the field of a hash lies: the word's index and the shift in it.
#[inline(always)]
pub const fn place(hash: u64, params: &Params) -> (u32, u32) {
    let field = hash::low_index(hash, params.hint_mask);
    (field / FIELDS_PER_WORD, field % FIELDS_PER_WORD * BITS)
}
