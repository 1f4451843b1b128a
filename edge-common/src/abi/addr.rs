//! Addresses: IPv4 is kept v4-mapped, so there is one key type for both families.

use super::assert_layout;

/// An IPv6 or v4-mapped IPv4 address: four 32-bit words as they lie in the packet (network byte order).
///
/// Words rather than bytes, because the kernel's virtual machine compares and loads 32 bits at a time.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Addr(pub [u32; 4]);
assert_layout!(Addr, size = 16, align = 4);

/// Address family of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The third word of `::ffff:0:0/96` (RFC 4291 section 2.5.5.2).
const MAPPED: u32 = 0x0000_ffff_u32.to_be();

impl Addr {
    /// The unspecified IPv6 address `::`.
    pub const UNSPECIFIED: Self = Self([0; 4]);

    /// A v4-mapped address from the word that lies in the packet.
    #[inline(always)]
    pub const fn from_v4_word(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// From 16 bytes in network order.
    #[inline(always)]
    #[expect(clippy::many_single_char_names, reason = "sixteen bytes have no better names")]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self([
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
        ])
    }

    /// The 16 bytes in network order.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(self.0) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// Which family the address belongs to: v4-mapped is IPv4.
    #[inline(always)]
    pub const fn family(&self) -> Family {
        if self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED {
            Family::V4
        } else {
            Family::V6
        }
    }

    /// The address as two words, as they lie in the packet.
    #[inline(always)]
    pub const fn to_words(self) -> [u64; 2] {
        let [a, b, c, d] = self.0;
        [join(a, b), join(c, d)]
    }

    /// From [`Self::to_words`].
    #[inline(always)]
    pub const fn from_words([first, second]: [u64; 2]) -> Self {
        let ([a, b], [c, d]) = (split(first), split(second));
        Self([a, b, c, d])
    }

    /// Whether both are the same; in the kernel cheaper than `==`, which compares by way of the stack.
    #[inline(always)]
    pub const fn is(&self, other: &Self) -> bool {
        let ([a, b], [c, d]) = (self.to_words(), other.to_words());
        (a ^ c) | (b ^ d) == 0
    }

    /// The first 64 bits, as one integer that only serves as a key.
    #[inline(always)]
    pub const fn high(&self) -> u64 {
        (self.0[0] as u64) << 32 | self.0[1] as u64
    }

    /// The last 64 bits, as one integer that only serves as a key.
    #[inline(always)]
    pub const fn low(&self) -> u64 {
        (self.0[2] as u64) << 32 | self.0[3] as u64
    }

    /// The address with all but its first `bits` (of 128) cleared.
    #[inline(always)]
    #[must_use]
    pub const fn masked(&self, bits: u32) -> Self {
        Self([
            self.0[0] & word_mask(bits, 0),
            self.0[1] & word_mask(bits, 32),
            self.0[2] & word_mask(bits, 64),
            self.0[3] & word_mask(bits, 96),
        ])
    }

    /// `127.0.0.0/8` or `::1`.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        match self.family() {
            Family::V4 => u32::from_be(self.0[3]) >> 24 == 127,
            Family::V6 => self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0 && self.0[3] == 1_u32.to_be(),
        }
    }

    /// `224.0.0.0/4`, `255.255.255.255` or `ff00::/8`.
    #[inline(always)]
    pub const fn is_multicast_or_broadcast(&self) -> bool {
        match self.family() {
            Family::V4 => u32::from_be(self.0[3]) >> 28 == 0xe || self.0[3] == u32::MAX,
            Family::V6 => u32::from_be(self.0[0]) >> 24 == 0xff,
        }
    }

    /// The unspecified address of either family (`0.0.0.0/8` counts: RFC 1122 section 3.2.1.3).
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        match self.family() {
            Family::V4 => u32::from_be(self.0[3]) >> 24 == 0,
            Family::V6 => self.0[0] == 0 && self.0[1] == 0 && self.0[2] == 0 && self.0[3] == 0,
        }
    }
}

/// Two words that lie one behind the other, as one.
#[inline(always)]
const fn join(first: u32, second: u32) -> u64 {
    if cfg!(target_endian = "little") {
        first as u64 | (second as u64) << 32
    } else {
        (first as u64) << 32 | second as u64
    }
}

/// The two words that [`join`] has joined.
#[inline(always)]
const fn split(word: u64) -> [u32; 2] {
    if cfg!(target_endian = "little") {
        [word as u32, (word >> 32) as u32]
    } else {
        [(word >> 32) as u32, word as u32]
    }
}

/// The bits of the word at bit `start` that a prefix of `bits` keeps, in network byte order.
#[inline(always)]
const fn word_mask(bits: u32, start: u32) -> u32 {
    let kept = bits.saturating_sub(start);
    if kept >= 32 {
        u32::MAX
    } else {
        (!(u32::MAX >> kept)).to_be()
    }
}

#[cfg(any(test, feature = "std"))]
impl From<core::net::IpAddr> for Addr {
    fn from(address: core::net::IpAddr) -> Self {
        match address {
            core::net::IpAddr::V4(v4) => Self::from_bytes(v4.to_ipv6_mapped().octets()),
            core::net::IpAddr::V6(v6) => Self::from_bytes(v6.octets()),
        }
    }
}

#[cfg(any(test, feature = "std"))]
impl From<Addr> for core::net::IpAddr {
    fn from(address: Addr) -> Self {
        core::net::Ipv6Addr::from(address.to_bytes()).to_canonical()
    }
}
