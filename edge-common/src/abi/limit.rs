//! Limits as the program applies them: a rate in cell units a tick.

use super::assert_layout;

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
}

/// Cells that share one map element: a cache line.
pub const CELLS_PER_BUCKET: u32 = 16;

/// One limit, scaled to 32-bit cells (see [`crate::algo::gcra`]). All zero means no limit.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LimitParams {
    /// Cell units that pass in a tick.
    pub units_per_tick: u32,
    /// Cell units that one packet costs, or that one byte costs shifted left by [`Self::shift`].
    pub cost: u32,
    /// The burst, in cell units; 0 switches the limit off.
    pub capacity: u32,
    /// Reserved, zero.
    pub reserved: u32,
}
assert_layout!(LimitParams, size = 16, align = 4);

/// Exact limiter state of a source that earned it: one cell for each per-host kind.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Earned {
    /// Theoretical arrival times for [`LimitKind::SourcePackets`], `SourceSyns` and `SourceBytes`.
    pub cells: [u32; 3],
    /// Low 32 bits of the tick at which it was last seen by the daemon; for expiry.
    pub seen: u32,
}
assert_layout!(Earned, size = 16, align = 4);
