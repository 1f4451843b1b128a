//! Protected services: how a destination becomes one.
//!
//! `PORTS[port]` names the head of a chain in `SERVICES`; each link is one compare. Traffic to a port that
//! nothing protects costs one array look-up.

use super::{Addr, Limit, assert_layout, limit::MAX_LIMITS};

/// Most services at once (a copy); index 0 means "none".
pub const MAX_SERVICES: u32 = 256;
/// Index of the entry that judges packets to protected addresses that carry no port. Its identifier is 0.
pub const ADDRESS_ENTRY: u16 = 1;
/// Most services that share a port; bounds the chain.
pub const MAX_CHAIN: u32 = 16;
/// Most bytes of a service's name.
pub const NAME_BYTES: usize = 64;
/// Ports.
pub const PORTS: u32 = 65_536;

/// Element of the port table: chain heads of both copies by protocol, 0 where nothing is protected. Both copies lie in
/// one word, so a packet to a port that nothing protects need not know which is in force.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortEntry {
    /// Heads of the chains of TCP services.
    pub tcp: [u16; 2],
    /// Heads of the chains of UDP services.
    pub udp: [u16; 2],
}
assert_layout!(PortEntry, size = 8, align = 2);

impl PortEntry {
    /// The entry as the one word that it is stored in.
    pub const fn to_word(self) -> u64 {
        let ([a, b], [c, d]) = (self.tcp, self.udp);
        let ([a0, a1], [b0, b1]) = (a.to_ne_bytes(), b.to_ne_bytes());
        let ([c0, c1], [d0, d1]) = (c.to_ne_bytes(), d.to_ne_bytes());
        u64::from_ne_bytes([a0, a1, b0, b1, c0, c1, d0, d1])
    }
}

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
    /// Number of `limits` in force.
    pub active: u16,
    /// [`Service::ANY_LOCAL`] and its like.
    pub flags: u16,
    /// Limits in force, in the order in which a packet meets them ([`super::LimitKind::ORDER`]).
    pub limits: [Limit; MAX_LIMITS],
}
assert_layout!(Service, size = 16 + 8 + 32 * MAX_LIMITS, align = 8);

impl Service {
    /// Every local address.
    pub const ANY_LOCAL: u16 = 1 << 0;
    /// Count what this service's stages would drop, drop nothing.
    pub const OBSERVE: u16 = 1 << 1;
    /// There is a [`super::SynRule`] for it.
    pub const GUARDED: u16 = 1 << 2;
    /// What is admitted goes to a backend: there is a [`super::SteerRule`] for it.
    pub const DIRECT: u16 = 1 << 3;

    /// The limits in force.
    pub fn active_limits(&self) -> &[Limit] {
        self.limits
            .get(..usize::from(self.active))
            .unwrap_or(&self.limits)
    }
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
