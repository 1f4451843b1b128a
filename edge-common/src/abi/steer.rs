//! Services that are spread over backends without entering user space ([`super::Service::DIRECT`]).
//!
//! A service's [`SteerRule`] names a block of [`PLACES`] with its Maglev table; a place names a [`Backend`]. Backends keep
//! their index while they exist, whatever else changes, since connections remember it.

use super::{Addr, assert_layout};
use crate::algo::maglev;

/// Most backends at once, of all services; index 0 is none. (A connection's candidate cell has 12 bits for one.)
pub const MAX_BACKENDS: u32 = 4_096;
/// Most services that are steered.
pub const MAX_DIRECT: u32 = 16;
/// Places that share a word of [`PLACES`].
pub const PLACES_A_WORD: u32 = 4;
/// Words of a block: room for the largest table.
pub const BLOCK_WORDS: u32 = maglev::SIZE.div_ceil(PLACES_A_WORD);
/// Blocks: two a service, so that a table is filled beside the one in force.
pub const BLOCKS: u32 = MAX_DIRECT * 2;
/// Words of all tables.
pub const PLACES: u32 = BLOCKS * BLOCK_WORDS;
/// Words of a bucket of the connection table: a cache line of four entries.
pub const FLOW_WORDS: usize = 8;
/// Entries of a bucket.
pub const FLOW_ENTRIES: u32 = 4;
/// Cells that remember a flow's first packet; a power of two.
pub const CANDIDATES: u32 = 1 << 17;

/// Places for translations ([`crate::algo::nat`]); a power of two.
pub const NATS: u32 = 1 << 17;
/// Words of a translation: a cache line.
pub const NAT_WORDS: usize = 8;

/// How a packet reaches its backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Forward {
    /// As it is, in a frame to the backend's Ethernet address; the backend has the service's address and answers the client
    /// itself.
    DsrL2 = 1,
    /// Inside another IP packet (RFC 2003, RFC 2473, RFC 4213); the backend has the service's address too.
    Ipip = 2,
    /// From an address and port of the edge's to the backend's, and back the same way: the backend knows nothing of the
    /// service's address.
    Nat = 3,
}

impl Forward {
    /// The configuration's word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DsrL2 => "dsr-l2",
            Self::Ipip => "ipip",
            Self::Nat => "nat",
        }
    }

    /// The one with this discriminant.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::DsrL2),
            2 => Some(Self::Ipip),
            3 => Some(Self::Nat),
            _ => None,
        }
    }
}

/// How a service is steered, in the table beside its [`super::Service`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SteerRule {
    /// Its table: first word (lower half) and number of places (upper half), 0 for none. Stored whole, so that a reader has
    /// the old table or the new one.
    pub table: u64,
    /// Places that its tables have.
    pub size: u32,
    /// [`Forward`].
    pub forward: u8,
    /// [`SteerRule::BY_SOURCE`] and its like.
    pub flags: u8,
    /// Zero.
    pub reserved: u16,
    /// Zero; for the way around a gateway that is down: another node instead of a backend.
    pub spare: [u64; 2],
    /// With [`Forward::Nat`], the address that backends see.
    pub source: Addr,
    /// The first and the last of its ports.
    pub ports: [u16; 2],
    /// Zero.
    pub unused: u32,
}
assert_layout!(SteerRule, size = 56, align = 8);

impl SteerRule {
    /// New flows of one source host go to one backend.
    pub const BY_SOURCE: u8 = 1 << 0;
    /// It is where backends' answers to translated packets come: they go to the client.
    pub const RETURNS: u8 = 1 << 1;

    /// What [`Self::table`] is for a table of `size` places in block `block`.
    pub const fn table(block: u32, size: u32) -> u64 {
        (size as u64) << 32 | (block * BLOCK_WORDS) as u64
    }

    /// The block that its table is in, if it has one.
    pub const fn block(&self) -> Option<u32> {
        if self.table >> 32 == 0 {
            return None;
        }
        Some(self.table as u32 / BLOCK_WORDS)
    }
}

/// Where flows are sent.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Backend {
    /// Its own address, by which it is reached.
    pub addr: Addr,
    /// Port that translated packets go to, host order; the service's, where nothing is translated.
    pub port: u16,
    /// Identifier of the service.
    pub service: u16,
    /// Its share among the service's backends.
    pub weight: u16,
    /// Counts who had this index: a connection of an earlier one is nobody's.
    pub generation: u8,
    /// [`Backend::PRESENT`] and its like.
    pub flags: u8,
    /// Zero; for what kind of a place it is, once there are others than backends.
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
}
assert_layout!(Backend, size = 32, align = 4);

impl Backend {
    /// The index is taken.
    pub const PRESENT: u8 = 1 << 0;
    /// It answers its checks, or has none. Connections of one that does not go elsewhere.
    pub const UP: u8 = 1 << 1;
    /// It gets no new connections.
    pub const DRAINED: u8 = 1 << 2;

    /// Word of the structure that [`Self::state`] is; the address is in the two before it.
    pub const STATE_WORD: usize = 2;

    /// Everything but the address, as it lies in one word, which is stored whole.
    pub const fn state(&self) -> u64 {
        let mut bytes = [0; 8];
        let mut at = 0;
        while at < 2 {
            bytes[at] = self.port.to_ne_bytes()[at];
            bytes[at + 2] = self.service.to_ne_bytes()[at];
            bytes[at + 4] = self.weight.to_ne_bytes()[at];
            at += 1;
        }
        bytes[6] = self.generation;
        bytes[7] = self.flags;
        u64::from_ne_bytes(bytes)
    }

    /// Whether it takes packets of connections that it has.
    #[inline(always)]
    pub const fn serves(&self) -> bool {
        self.flags & (Self::PRESENT | Self::UP) == Self::PRESENT | Self::UP
    }

    /// Whether it takes new connections.
    #[inline(always)]
    pub const fn takes_new(&self) -> bool {
        self.flags & (Self::PRESENT | Self::UP | Self::DRAINED) == Self::PRESENT | Self::UP
    }
}

/// What a CPU counts of a backend.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BackendCount {
    /// Packets sent to it.
    pub packets: u64,
    /// Bytes of the frames as they arrived.
    pub bytes: u64,
    /// SYNs among them (datagrams: first ones of a flow).
    pub opened: u64,
    /// Flows entered into the connection table.
    pub entered: u64,
}
assert_layout!(BackendCount, size = 32, align = 8);
