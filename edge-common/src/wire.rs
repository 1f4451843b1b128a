//! Header readers over a [`Frame`]: what lies where, and nothing about what it means for us.
//!
//! Every read is checked against the frame's end; a reader never panics and never loops unbounded.

pub mod checksum;
pub mod eth;
pub mod ipv4;
pub mod ipv6;
pub mod segment;
pub mod synack;
pub mod tcp;
pub mod tcp_options;

use crate::abi::Addr;

/// A frame as it arrived, from the Ethernet header on.
pub trait Frame {
    /// Some bytes of the frame, known to be there.
    type View<const N: usize>: View;

    /// Bytes of the frame on the wire; may exceed what can be read.
    fn len(&self) -> u32;

    /// Whether the frame has no byte at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `N` bytes at `offset`, if the frame has them all. One check for a whole header: the reads are then free.
    fn view<const N: usize>(&self, offset: u32) -> Option<Self::View<N>>;
}

/// Bytes that are known to be there. A read beyond them answers zero; the offsets are constants, so that is
/// decided by the compiler.
pub trait View {
    /// One byte.
    fn u8(&self, at: usize) -> u8;
    /// A 16-bit big-endian number.
    fn u16_be(&self, at: usize) -> u16;
    /// A 32-bit word as it lies in the frame.
    fn word(&self, at: usize) -> u32;

    /// An IPv6 address.
    #[inline(always)]
    fn addr(&self, at: usize) -> Addr {
        Addr([
            self.word(at),
            self.word(at + 4),
            self.word(at + 8),
            self.word(at + 12),
        ])
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
