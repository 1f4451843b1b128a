//! Header readers over a [`Frame`]: what lies where, and nothing about what it means for us.
//!
//! Every read is checked against the frame's end; a reader never panics and never loops unbounded.

pub mod eth;
pub mod ipv4;
pub mod ipv6;
pub mod tcp;

use crate::abi::Addr;

/// A frame as it arrived, from the Ethernet header on.
///
/// The typed reads have defaults in terms of [`Frame::read`]; the kernel's frame overrides them, since its
/// virtual machine loads 2 and 4 bytes at once.
pub trait Frame {
    /// Bytes of the frame on the wire; may exceed what can be read.
    fn len(&self) -> u32;

    /// Whether the frame has no byte at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `N` bytes at `offset`, if the frame has them all.
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;

    /// One byte.
    #[inline(always)]
    fn u8(&self, offset: u32) -> Option<u8> {
        let [byte] = self.read(offset)?;
        Some(byte)
    }

    /// A 16-bit big-endian number.
    #[inline(always)]
    fn u16_be(&self, offset: u32) -> Option<u16> {
        Some(u16::from_be_bytes(self.read(offset)?))
    }

    /// A 32-bit word as it lies in the frame.
    #[inline(always)]
    fn word(&self, offset: u32) -> Option<u32> {
        Some(u32::from_ne_bytes(self.read(offset)?))
    }

    /// An IPv6 address.
    #[inline(always)]
    fn addr(&self, offset: u32) -> Option<Addr> {
        Some(Addr::from_bytes(self.read(offset)?))
    }
}

/// IP protocol numbers (IANA "Assigned Internet Protocol Numbers").
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Authentication header (RFC 4302).
    pub const AUTHENTICATION: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION: u8 = 60;
    /// Mobility header (RFC 6275).
    pub const MOBILITY: u8 = 135;
}
