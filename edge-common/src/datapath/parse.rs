//! Stage 1: what the packet is. Never drops: what to do with an unreadable packet depends on whom it is for.

use super::{Brief, Kind, Observed, Packet, Tables};
use crate::{
    abi::{Addr, Family},
    wire::{Frame, View, eth, ipv4, ipv6, protocol},
};

/// A packet that a glance tells enough about: Ethernet; IPv4 without options or offset, or IPv6; TCP or UDP, all there.
/// Most packets are. Constant offsets, and one check of the length or two. Whatever is otherwise goes the long way,
/// which would have answered the same; tests hold the two together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Plain {
    /// It is something else.
    No,
    /// IPv4, TCP.
    Tcp4,
    /// IPv4, UDP.
    Udp4,
    /// IPv6, TCP.
    Tcp6,
    /// IPv6, UDP.
    Udp6,
}

const IP: usize = eth::HEADER as usize;
const L4_OF_4: usize = IP + 20;
const L4_OF_6: usize = IP + 40;
/// Bytes up to the end of the transport header.
const UDP4_BYTES: usize = L4_OF_4 + 8;
const TCP4_BYTES: usize = L4_OF_4 + 20;
const UDP6_BYTES: usize = L4_OF_6 + 8;
const TCP6_BYTES: usize = L4_OF_6 + 20;

impl Plain {
    /// Whether it is UDP.
    #[inline(always)]
    pub(super) const fn is_udp(self) -> bool {
        matches!(self, Self::Udp4 | Self::Udp6)
    }
}

/// What a glance tells, and the destination port.
#[inline(always)]
pub(super) fn glance<F: Frame>(frame: &F) -> (Plain, u16) {
    let Some(bytes) = frame.view::<UDP4_BYTES>(0) else {
        return (Plain::No, 0);
    };
    match bytes.u16_be(IP - 2) {
        eth::IPV4 => {
            let is_plain = bytes.u8(IP) == 0x45
                && bytes.u16_be(IP + 2) >= 20
                && bytes.u16_be(IP + 6) & ipv4::OFFSET == 0;
            match bytes.u8(IP + 9) {
                protocol::TCP if is_plain && frame.view::<TCP4_BYTES>(0).is_some() => {
                    (Plain::Tcp4, bytes.u16_be(L4_OF_4 + 2))
                }
                protocol::UDP if is_plain => (Plain::Udp4, bytes.u16_be(L4_OF_4 + 2)),
                _ => (Plain::No, 0),
            }
        }
        eth::IPV6 => {
            let Some(bytes) = frame.view::<UDP6_BYTES>(0) else {
                return (Plain::No, 0);
            };
            let is_plain = bytes.u8(IP) >> 4 == 6;
            match bytes.u8(IP + 6) {
                protocol::TCP if is_plain && frame.view::<TCP6_BYTES>(0).is_some() => {
                    (Plain::Tcp6, bytes.u16_be(L4_OF_6 + 2))
                }
                protocol::UDP if is_plain => (Plain::Udp6, bytes.u16_be(L4_OF_6 + 2)),
                _ => (Plain::No, 0),
            }
        }
        _ => (Plain::No, 0),
    }
}

/// Reads the headers into `packet`; `plain` is what a glance told.
#[inline(always)]
pub(super) fn stage<F: Frame, T: Tables>(frame: &F, packet: &Packet, plain: Plain, tables: &T) {
    if !fill(frame, packet, plain, tables) {
        packet.observed.set(Observed::NONE);
        packet.proven.set(0);
        packet.len.set(frame.len());
        tables.set_found(0);
        tables.read(frame, packet);
    }
}

/// Reads a plain packet; whether it was one.
#[inline(always)]
fn fill<F: Frame, T: Tables>(frame: &F, packet: &Packet, plain: Plain, tables: &T) -> bool {
    match plain {
        Plain::No => false,
        Plain::Tcp4 => {
            let Some(bytes) = frame.view::<TCP4_BYTES>(0) else {
                return false;
            };
            let flags = bytes.u8(L4_OF_4 + 13);
            fill_v4(frame, &bytes, packet, (protocol::TCP, Kind::Tcp, flags), tables);
            true
        }
        Plain::Udp4 => {
            let Some(bytes) = frame.view::<UDP4_BYTES>(0) else {
                return false;
            };
            fill_v4(frame, &bytes, packet, (protocol::UDP, Kind::Udp, 0), tables);
            true
        }
        Plain::Tcp6 => {
            let Some(bytes) = frame.view::<TCP6_BYTES>(0) else {
                return false;
            };
            let flags = bytes.u8(L4_OF_6 + 13);
            fill_v6(frame, &bytes, packet, (protocol::TCP, Kind::Tcp, flags), tables);
            true
        }
        Plain::Udp6 => {
            let Some(bytes) = frame.view::<UDP6_BYTES>(0) else {
                return false;
            };
            fill_v6(frame, &bytes, packet, (protocol::UDP, Kind::Udp, 0), tables);
            true
        }
    }
}

/// Protocol, kind and detail.
type Transport = (u8, Kind, u8);

#[inline(always)]
fn fill_v4<F: Frame, V: View, T: Tables>(
    frame: &F,
    bytes: &V,
    packet: &Packet,
    (protocol, kind, detail): Transport,
    tables: &T,
) {
    packet.src.set(Addr::from_v4_word(bytes.word(IP + 12)));
    packet.dst.set(Addr::from_v4_word(bytes.word(IP + 16)));
    let brief = Brief {
        len: frame.len(),
        ports: u32::from_be(bytes.word(L4_OF_4)),
        kind,
        detail,
        protocol,
        hops: bytes.u8(IP + 8),
        family: Family::V4,
    };
    tables.note(packet, brief);
}

#[inline(always)]
fn fill_v6<F: Frame, V: View, T: Tables>(
    frame: &F,
    bytes: &V,
    packet: &Packet,
    (protocol, kind, detail): Transport,
    tables: &T,
) {
    let src = bytes.addr(IP + 8);
    packet.src.set(src);
    packet.dst.set(bytes.addr(IP + 24));
    let brief = Brief {
        len: frame.len(),
        ports: u32::from_be(bytes.word(L4_OF_6)),
        kind,
        detail,
        protocol,
        hops: bytes.u8(IP + 7),
        family: src.family(),
    };
    tables.note(packet, brief);
}

/// The long way, for every frame there is: reads the headers into `packet`.
#[inline(always)]
pub fn read<F: Frame>(frame: &F, packet: &Packet) {
    packet.sport.set(0);
    packet.dport.set(0);
    packet.kind.set(network(frame, packet));
}

#[inline(always)]
fn network<F: Frame>(frame: &F, packet: &Packet) -> Kind {
    let (ether_type, offset) = eth::payload(frame);
    match ether_type {
        eth::IPV4 => v4(frame, offset, packet),
        eth::IPV6 => v6(frame, offset, packet),
        _ => Kind::NotIp,
    }
}

#[inline(always)]
fn v4<F: Frame>(frame: &F, offset: u32, packet: &Packet) -> Kind {
    let Some(header) = ipv4::read(frame, offset) else {
        return Kind::NotIp;
    };
    packet.src.set(header.src);
    packet.dst.set(header.dst);
    packet.family.set(Family::V4);
    packet.protocol.set(header.protocol);
    packet.hops.set(header.hops);
    if header.malformed {
        return Kind::Malformed;
    }
    if header.later_fragment {
        return Kind::LaterFragment;
    }
    transport(frame, packet, header.protocol, header.payload)
}

#[inline(always)]
fn v6<F: Frame>(frame: &F, offset: u32, packet: &Packet) -> Kind {
    let Some(header) = ipv6::read(frame, offset) else {
        return Kind::NotIp;
    };
    packet.src.set(header.src);
    packet.dst.set(header.dst);
    packet.family.set(header.src.family());
    packet.protocol.set(header.next);
    packet.hops.set(header.hops);
    if header.malformed {
        return Kind::Malformed;
    }
    match ipv6::walk(frame, header.next, offset + ipv6::HEADER) {
        ipv6::Chain::Payload { protocol, offset } => {
            packet.protocol.set(protocol);
            transport(frame, packet, protocol, offset)
        }
        ipv6::Chain::LaterFragment => Kind::LaterFragment,
        ipv6::Chain::Truncated => Kind::Truncated,
        ipv6::Chain::TooLong => Kind::Malformed,
    }
}

/// Reads what of the transport header decides; a header cut short behind its ports still tells which service it
/// is for.
#[inline(always)]
fn transport<F: Frame>(frame: &F, packet: &Packet, protocol: u8, offset: u32) -> Kind {
    match protocol {
        protocol::TCP => {
            if let Some(header) = frame.view::<20>(offset) {
                packet.sport.set(header.u16_be(0));
                packet.dport.set(header.u16_be(2));
                packet.detail.set(header.u8(13));
                return Kind::Tcp;
            }
            ports_alone(frame, packet, offset)
        }
        protocol::UDP => {
            if let Some(header) = frame.view::<8>(offset) {
                packet.sport.set(header.u16_be(0));
                packet.dport.set(header.u16_be(2));
                return Kind::Udp;
            }
            ports_alone(frame, packet, offset)
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let Some(header) = frame.view::<8>(offset) else {
                return Kind::Truncated;
            };
            packet.detail.set(header.u8(0));
            packet.code.set(header.u8(1));
            if protocol == protocol::ICMP {
                Kind::Icmp
            } else {
                Kind::Icmp6
            }
        }
        _ => Kind::Other,
    }
}

#[inline(always)]
fn ports_alone<F: Frame>(frame: &F, packet: &Packet, offset: u32) -> Kind {
    if let Some(ports) = frame.view::<4>(offset) {
        packet.sport.set(ports.u16_be(0));
        packet.dport.set(ports.u16_be(2));
    }
    Kind::Truncated
}

#[cfg(test)]
mod tests;
