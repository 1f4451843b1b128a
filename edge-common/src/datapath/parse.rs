//! Stage 1: what the packet is. Never drops: what to do with an unreadable packet depends on whom it is for.

use super::{Kind, Observed, Packet};
use crate::{
    abi::Addr,
    wire::{Frame, View, eth, ipv4, ipv6, protocol},
};

/// Reads the headers into `packet`.
#[inline(always)]
pub(super) fn stage<F: Frame>(frame: &F, packet: &Packet) {
    packet.observed.set(Observed::NONE);
    packet.len.set(frame.len());
    if plain_v4_tcp(frame, packet) {
        return;
    }
    packet.sport.set(0);
    packet.dport.set(0);
    packet.kind.set(network(frame, packet));
}

/// Ethernet, IPv4 without options or fragments, TCP: most packets. One check of the length, constant offsets.
/// Whatever is otherwise goes the long way; a test holds the two together.
#[inline(always)]
fn plain_v4_tcp<F: Frame>(frame: &F, packet: &Packet) -> bool {
    const IP: usize = eth::HEADER as usize;
    const TCP: usize = IP + 20;
    let Some(bytes) = frame.view::<{ TCP + 20 }>(0) else {
        return false;
    };
    if bytes.u16_be(12) != eth::IPV4
        || bytes.u8(IP) != 0x45
        || bytes.u16_be(IP + 2) < 20
        || bytes.u16_be(IP + 6) & 0x1fff != 0
        || bytes.u8(IP + 9) != protocol::TCP
    {
        return false;
    }
    packet.src.set(Addr::from_v4_word(bytes.word(IP + 12)));
    packet.dst.set(Addr::from_v4_word(bytes.word(IP + 16)));
    packet.protocol.set(protocol::TCP);
    packet.hops.set(bytes.u8(IP + 8));
    packet.sport.set(bytes.u16_be(TCP));
    packet.dport.set(bytes.u16_be(TCP + 2));
    packet.detail.set(bytes.u8(TCP + 13));
    packet.kind.set(Kind::Tcp);
    true
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
