//! Bans: an exact prefix, an expiry checked inline, and why.

use super::{Addr, assert_layout};

/// Prefix lengths (of 128) at which bans are kept, narrow to wide: IPv4 /32 and /24.
pub const V4_PREFIXES: [u32; 2] = [128, 120];
/// Prefix lengths at which bans are kept, narrow to wide: IPv6 /128, /64, /56 and /48.
pub const V6_PREFIXES: [u32; 4] = [128, 64, 56, 48];

/// Most bytes of the words that go with a ban.
pub const NOTE_BYTES: usize = 160;

/// Key of the ban map. A hash key, so the padding-free layout matters: 20 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BanKey {
    /// The address, masked to `prefix`.
    pub addr: Addr,
    /// Length of the prefix in bits of 128: one of [`V4_PREFIXES`] or [`V6_PREFIXES`].
    pub prefix: u32,
}
assert_layout!(BanKey, size = 20, align = 4);

impl BanKey {
    /// The key of the prefix of length `prefix` that `addr` lies in.
    #[inline(always)]
    pub const fn new(addr: &Addr, prefix: u32) -> Self {
        Self {
            addr: addr.masked(prefix),
            prefix,
        }
    }
}

/// Who asked for a ban.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum BanSource {
    /// The operator, by the command line.
    Operator = 0,
    /// The gateway, for refused requests.
    Gateway = 1,
    /// The shield, for a source that stayed over its limit.
    Escalation = 2,
    /// Bans of several addresses of one prefix, merged because the table was full.
    Aggregated = 3,
}

impl BanSource {
    /// From the byte in the map; an unknown byte counts as the operator's.
    pub const fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Gateway,
            2 => Self::Escalation,
            3 => Self::Aggregated,
            _ => Self::Operator,
        }
    }

    /// Stable lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Gateway => "gateway",
            Self::Escalation => "escalation",
            Self::Aggregated => "aggregated",
        }
    }
}

/// Value of the ban map.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ban {
    /// First tick at which the ban no longer holds; `u64::MAX` is for ever.
    pub until: u64,
    /// Tick at which it was made.
    pub since: u64,
    /// [`BanSource`].
    pub source: u8,
    /// How often this source was banned before, saturating; lengthens the next ban.
    pub repeats: u8,
    /// What is dropped: [`Ban::EVERYTHING`] or [`Ban::NEW_CONNECTIONS`].
    pub scope: u8,
    /// Zero.
    pub reserved: [u8; 5],
}
assert_layout!(Ban, size = 24, align = 8);

impl Ban {
    /// Every packet is dropped.
    pub const EVERYTHING: u8 = 0;
    /// Only what opens a connection is dropped: for addresses that many share.
    pub const NEW_CONNECTIONS: u8 = 1;

    /// Whether the ban holds at `now`.
    #[inline(always)]
    pub const fn holds(&self, now: u64) -> bool {
        now < self.until
    }
}
