//! Hints: two words for every source network that say whether an exact table is worth a look-up.
//!
//! A packet looks at the words of its source's network, and in each at the bits of the network, the host, and (IPv6)
//! the lengths between. A set bit means "maybe", a clear bit means "certainly not"; a bit that is set needlessly
//! costs one look-up, one that is missing loses a ban, so bits are set before the entry and cleared after it.

use super::{Addr, Family, Params, assert_layout};
use crate::algo::hash;

/// Element of the hint table: the words of all networks that hash to it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hints {
    /// Bits of banned prefixes.
    pub bans: u64,
    /// Bits of hosts that the table of earned sources has.
    pub earned: u64,
}
assert_layout!(Hints, size = 16, align = 8);

/// Which of the two words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// [`Hints::bans`].
    Bans,
    /// [`Hints::earned`].
    Earned,
}

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

/// Hashes of a source at the two prefix lengths that limits count for.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// At [`host_prefix`].
    pub host: u64,
    /// At [`network_prefix`].
    pub network: u64,
}

impl Keys {
    /// Hashes `addr`.
    #[inline(always)]
    pub const fn new(addr: &Addr, family: Family, params: &Params) -> Self {
        Self {
            host: prefix(addr, family, host_prefix(family), params),
            network: prefix(addr, family, network_prefix(family), params),
        }
    }

    /// Index of the source's [`Hints`].
    #[inline(always)]
    pub const fn element(&self, params: &Params) -> u32 {
        hash::index(self.network, params.hint_mask)
    }
}

/// Hash of the prefix of length `bits` (of 128) that `addr` lies in: IPv4 /32 and /24, IPv6 /128 and up to /64.
#[inline(always)]
pub const fn prefix(addr: &Addr, family: Family, bits: u32, params: &Params) -> u64 {
    // Lengths must not share hashes: the first /56 of a /48 is another prefix than the /48.
    let length = (bits as u64).wrapping_mul(0x0101_0101_0101_0101);
    let masked = addr.masked(bits);
    match family {
        Family::V4 => hash::word(masked.0[3] as u64 ^ length, &params.seeds),
        Family::V6 if bits > 64 => hash::pair(masked.high() ^ length, masked.low(), &params.seeds),
        Family::V6 => hash::word(masked.high() ^ length, &params.seeds),
    }
}

/// The bit of a prefix in its network's words.
#[inline(always)]
pub const fn bit(hash: u64) -> u64 {
    1 << (hash & 63)
}
