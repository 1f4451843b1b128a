//! Protected services: how a destination becomes one.
//!
//! `PORTS[port]` names the head of a chain in `SERVICES`; each link is one compare. Traffic to a port that
//! nothing protects costs one array look-up.

use super::{Addr, LimitKind, LimitParams, assert_layout};

/// Most services at once (a copy); index 0 means "none".
pub const MAX_SERVICES: u32 = 256;
/// Most services that share a port; bounds the chain.
pub const MAX_CHAIN: u32 = 16;
/// Most bytes of a service's name.
pub const NAME_BYTES: usize = 64;
/// Ports.
pub const PORTS: u32 = 65_536;

/// Element of the port table: chain heads by protocol, 0 where nothing is protected.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortEntry {
    /// Head of the chain of TCP services.
    pub tcp: u16,
    /// Head of the chain of UDP services.
    pub udp: u16,
}
assert_layout!(PortEntry, size = 4, align = 2);

/// One protected service.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Service {
    /// The protected address; ignored with [`Service::ANY_LOCAL`].
    pub addr: Addr,
    /// Next service on the same port and protocol; 0 ends the chain.
    pub next: u16,
    /// Identifier for counters and events; stays the same while the service exists.
    pub id: u16,
    /// Services with the same limits share cells: mixed into the hash.
    pub limit_set: u16,
    /// [`Service::ANY_LOCAL`], [`Service::OBSERVE`].
    pub flags: u16,
    /// Limits by [`LimitKind`].
    pub limits: [LimitParams; LimitKind::COUNT],
}
assert_layout!(Service, size = 16 + 8 + 16 * LimitKind::COUNT, align = 4);

impl Service {
    /// Every local address.
    pub const ANY_LOCAL: u16 = 1 << 0;
    /// Count what this service's stages would drop, drop nothing.
    pub const OBSERVE: u16 = 1 << 1;
}

/// What is known of a destination address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AddressFlags(pub u32);

impl AddressFlags {
    /// The address belongs to this machine.
    pub const LOCAL: u32 = 1 << 0;
    /// Some service protects this very address.
    pub const PROTECTED: u32 = 1 << 1;

    /// Whether all bits of `mask` are set.
    #[inline(always)]
    pub const fn has(self, mask: u32) -> bool {
        self.0 & mask == mask
    }
}
