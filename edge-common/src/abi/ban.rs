//! Bans: an exact prefix, an expiry checked inline, and why.

use super::{Addr, assert_layout};

/// Prefix lengths (of 128) at which bans are kept, narrow to wide: IPv4 /32 and /24.
pub const V4_PREFIXES: [u32; 2] = [128, 120];
/// Prefix lengths at which bans are kept, narrow to wide: IPv6 /128, /64, /56 and /48.
pub const V6_PREFIXES: [u32; 4] = [128, 64, 56, 48];

/// Most bytes of the words that go with a ban.
pub const NOTE_BYTES: usize = 160;

/// A banned prefix; also the key of the map of notes, so the layout without padding matters: 20 bytes.
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
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Operator, Self::Gateway, Self::Escalation, Self::Aggregated];

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

/// A ban, apart from its prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ban {
    /// First tick at which the ban no longer holds; [`Ban::FOREVER`] never comes.
    pub until: u64,
    /// Tick at which it was made.
    pub since: u64,
    /// [`BanSource`].
    pub source: u8,
    /// How often this source was banned before, saturating; lengthens the next ban.
    pub repeats: u8,
    /// What is dropped: [`Ban::EVERYTHING`] or [`Ban::NEW_CONNECTIONS`].
    pub scope: u8,
}

impl Ban {
    /// Every packet is dropped.
    pub const EVERYTHING: u8 = 0;
    /// Only what opens a connection is dropped: for addresses that many share.
    pub const NEW_CONNECTIONS: u8 = 1;
    /// The last tick that an entry can say, 8,900 years away at a thousand a second: the ban never ends.
    pub const FOREVER: u64 = (1 << UNTIL_BITS) - 1;

    /// Whether the ban holds at `now`.
    pub const fn holds(&self, now: u64) -> bool {
        now < self.until
    }
}

const UNTIL_BITS: u32 = 48;
const UNTIL_SHIFT: u32 = 64 - UNTIL_BITS;
const LENGTH_SHIFT: u32 = 12;
const VERSION_MASK: u64 = 0x7ff;

/// The word of an entry that makes it one: until when, for which prefix length, what is dropped, and which writing of
/// the entry it is. No `until` is a free entry.
///
/// ```text
/// 63       16  15     12  11      1   0
/// until        length/8   version     only what opens a connection
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp(pub u64);

impl Stamp {
    /// Of an entry that never held a ban.
    pub const FREE: Self = Self(0);
    /// The bits that tell one writing of an entry from the next.
    pub const VERSION: u64 = VERSION_MASK << 1;

    /// The stamp of `ban` on a prefix of `bits`, of another version than `old`.
    pub const fn new(bits: u32, ban: &Ban, old: Self) -> Self {
        let until = if ban.until > Ban::FOREVER {
            Ban::FOREVER
        } else {
            ban.until
        };
        Self(
            until << UNTIL_SHIFT
                | Self::length(bits) << LENGTH_SHIFT
                | old.next_version()
                | (ban.scope & 1) as u64,
        )
    }

    /// The version bits after this one's.
    pub const fn next_version(self) -> u64 {
        (self.0 & Self::VERSION).wrapping_add(2) & Self::VERSION
    }

    /// The prefix length as a stamp has it: all that are kept differ in it.
    #[inline(always)]
    pub const fn length(bits: u32) -> u64 {
        ((bits / 8) & 0xf) as u64
    }

    /// Whether there is no ban.
    pub const fn is_free(self) -> bool {
        self.until() == 0
    }

    /// No ban, of the same version.
    #[must_use]
    pub const fn freed(self) -> Self {
        Self(self.0 & ((1 << UNTIL_SHIFT) - 1))
    }

    /// Whether it is for prefixes of `bits`.
    #[inline(always)]
    pub const fn is_for(self, bits: u32) -> bool {
        self.0 >> LENGTH_SHIFT & 0xf == Self::length(bits)
    }

    /// First tick at which it no longer holds.
    #[inline(always)]
    pub const fn until(self) -> u64 {
        self.0 >> UNTIL_SHIFT
    }

    /// Whether it holds at `tick`.
    #[inline(always)]
    pub const fn holds(self, tick: u64) -> bool {
        tick < self.until()
    }

    /// Whether only what opens a connection is dropped.
    #[inline(always)]
    pub const fn spares_connections(self) -> bool {
        self.0 & 1 != 0
    }
}

/// 64-bit words of an entry: the prefix's two halves, the [`Stamp`], and what only user space asks ([`info`]).
pub const ENTRY_WORDS: usize = 4;
/// The word that is the [`Stamp`].
pub const STAMP: usize = 2;
/// Entries of a bucket.
pub const BUCKET_ENTRIES: usize = 4;
/// Words of a bucket: two cache lines.
pub const BUCKET_WORDS: usize = ENTRY_WORDS * BUCKET_ENTRIES;

/// What only user space asks of an entry: `since`, repeats, prefix length and source.
pub const fn info(key: &BanKey, ban: &Ban) -> u64 {
    (ban.since & SINCE_MASK) << 24
        | (ban.repeats as u64) << 16
        | (key.prefix as u64 & 0xff) << 8
        | ban.source as u64
}

const SINCE_MASK: u64 = (1 << 40) - 1;

/// The key and the ban of an entry's words, at the tick `now`.
pub const fn entry(words: [u64; ENTRY_WORDS], now: u64) -> (BanKey, Ban) {
    let [high, low, stamp, info] = words;
    let stamp = Stamp(stamp);
    let age = now.wrapping_sub(info >> 24) & SINCE_MASK;
    let addr = Addr([(high >> 32) as u32, high as u32, (low >> 32) as u32, low as u32]);
    let key = BanKey {
        addr,
        prefix: (info >> 8 & 0xff) as u32,
    };
    let ban = Ban {
        until: stamp.until(),
        since: now.saturating_sub(age),
        source: info as u8,
        repeats: (info >> 16) as u8,
        scope: (stamp.0 & 1) as u8,
    };
    (key, ban)
}

/// The two buckets of a prefix with this hash, in a table of `buckets`.
#[inline(always)]
pub const fn buckets(hash: u64, buckets: u32) -> [u32; 2] {
    // A product's upper half maps a number onto any range without a division.
    let (low, high) = (hash & 0xffff_ffff, hash >> 32);
    [
        ((low * buckets as u64) >> 32) as u32,
        ((high * buckets as u64) >> 32) as u32,
    ]
}
