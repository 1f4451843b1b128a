//! Limits as the program applies them, and the exact state of sources that earned it.

use super::{Addr, Family, Params, assert_layout, hint};

/// What a limit counts, and for whom. The discriminant selects the region of the cell table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum LimitKind {
    /// Packets of a source host.
    SourcePackets = 0,
    /// SYNs of a source host.
    SourceSyns = 1,
    /// Bytes of a source host.
    SourceBytes = 2,
    /// Packets of a source network.
    NetworkPackets = 3,
    /// SYNs of a source network.
    NetworkSyns = 4,
    /// Bytes of a source network.
    NetworkBytes = 5,
    /// ICMP and ICMPv6 packets of a source host to any protected address.
    SourceIcmp = 6,
}

impl LimitKind {
    /// Number of kinds.
    pub const COUNT: usize = 7;
    /// All kinds, in the order of their discriminants.
    pub const ALL: [Self; Self::COUNT] = [
        Self::SourcePackets,
        Self::SourceSyns,
        Self::SourceBytes,
        Self::NetworkPackets,
        Self::NetworkSyns,
        Self::NetworkBytes,
        Self::SourceIcmp,
    ];
    /// The order in which a packet meets them: host before network, connections before packets before bytes.
    pub const ORDER: [Self; Self::COUNT] = [
        Self::SourceSyns,
        Self::SourcePackets,
        Self::SourceBytes,
        Self::SourceIcmp,
        Self::NetworkSyns,
        Self::NetworkPackets,
        Self::NetworkBytes,
    ];

    /// [`Limit::NETWORK`], [`Limit::SYNS`] and [`Limit::BYTES`], as the kind has them.
    pub const fn flags(self) -> u8 {
        match self {
            Self::SourcePackets | Self::SourceIcmp => 0,
            Self::SourceSyns => Limit::SYNS,
            Self::SourceBytes => Limit::BYTES,
            Self::NetworkPackets => Limit::NETWORK,
            Self::NetworkSyns => Limit::NETWORK | Limit::SYNS,
            Self::NetworkBytes => Limit::NETWORK | Limit::BYTES,
        }
    }
}

/// Limits that a service can have in force at once: every kind but that of ICMP, which the entry for addresses has
/// alone.
pub const MAX_LIMITS: usize = LimitKind::COUNT - 1;

/// One limit in force, scaled to cells (see [`crate::algo::gcra`]).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limit {
    /// Time that one packet or one byte takes, in cell units.
    pub cost: u64,
    /// Time that the burst takes, in cell units; 0 is no limit.
    pub capacity: u64,
    /// The part of it that the front tier may give away.
    pub front: u64,
    /// The rest of the burst in packets or bytes, saturating: nothing costs more than it.
    pub rest: u32,
    /// Mixed into the tag of a slot: services with other limits have slots of their own.
    pub salt: u16,
    /// [`LimitKind`].
    pub kind: u8,
    /// [`Limit::NETWORK`], [`Limit::SYNS`], [`Limit::BYTES`].
    pub flags: u8,
}
assert_layout!(Limit, size = 32, align = 8);

impl Limit {
    /// Counts for the source's network, not for the host.
    pub const NETWORK: u8 = 1 << 0;
    /// Counts only what opens a connection.
    pub const SYNS: u8 = 1 << 1;
    /// Counts bytes, not packets.
    pub const BYTES: u8 = 1 << 2;

    /// Whether all bits of `mask` are set.
    #[inline(always)]
    pub const fn has(&self, mask: u8) -> bool {
        self.flags & mask == mask
    }
}

/// Slots that share a line of the cell table: a cache line of 64-bit words.
pub const SLOTS_PER_LINE: usize = 8;

/// A host in the table of earned sources: an IPv4 address, or the first 64 bits of an IPv6 address. (The IPv4 ones lie
/// where IPv6 has multicast addresses, which are no sources.)
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EarnedHost(pub u64);

impl EarnedHost {
    /// No host: a free entry.
    pub const FREE: Self = Self(0);
    const V4: u64 = 0xffff << 48;

    /// The host that `addr` belongs to.
    #[inline(always)]
    pub const fn new(addr: &Addr, family: Family) -> Self {
        match family {
            Family::V4 => Self(addr.0[3] as u64 | Self::V4),
            // ::/64 is no source, and zero is a free entry.
            Family::V6 if addr.high() == 0 => Self(1),
            Family::V6 => Self(addr.high()),
        }
    }

    /// The family of the host.
    pub const fn family(self) -> Family {
        if self.0 >> 32 == Self::V4 >> 32 {
            Family::V4
        } else {
            Family::V6
        }
    }

    /// The host: an IPv4 address, or the first of an IPv6 /64.
    pub const fn addr(self) -> Addr {
        match self.family() {
            Family::V4 => Addr::from_v4_word(self.0 as u32),
            Family::V6 => Addr([(self.0 >> 32) as u32, self.0 as u32, 0, 0]),
        }
    }

    /// Hashes of the host: for its hint, and for its buckets.
    pub const fn keys(self, params: &Params) -> hint::Keys {
        hint::Keys::new(&self.addr(), self.family(), params)
    }
}

/// Kinds of limits that earned sources have exact cells for, by their discriminants: packets, SYNs, bytes of a host.
pub const EARNED_KINDS: usize = 3;
/// 64-bit words of an entry: the [`EarnedHost`], and a cell for each of the kinds, whose tag is the limits' salt.
pub const EARNED_ENTRY: usize = 1 + EARNED_KINDS;
/// Words of a bucket: four entries, two cache lines.
pub const EARNED_WORDS: usize = 4 * EARNED_ENTRY;
