//! Stage 1: what the packet is. Never drops: what to do with an unreadable packet depends on whom it is for.

use super::Step;
use crate::{
    abi::{Addr, Reason},
    wire::{Frame, eth, ipv4, ipv6, protocol},
};

/// Transport of a packet, as far as it could be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// TCP with its flags.
    Tcp {
        /// The low eight flags.
        flags: u8,
    },
    /// UDP.
    Udp,
    /// ICMP with its type and code.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// ICMPv6 with its type.
    Icmp6 {
        /// Type.
        kind: u8,
    },
    /// Another protocol.
    Other,
    /// A fragment that is not the first.
    LaterFragment,
    /// The frame ends inside a header.
    Truncated,
    /// A header contradicts itself, or there are too many extension headers.
    Malformed,
}

/// What the later stages know of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    /// Source.
    pub src: Addr,
    /// Destination.
    pub dst: Addr,
    /// Source port, host order; 0 where there is none.
    pub sport: u16,
    /// Destination port, host order; 0 where there is none.
    pub dport: u16,
    /// Transport.
    pub kind: Kind,
    /// IP protocol.
    pub protocol: u8,
    /// Bytes of the frame.
    pub len: u32,
    /// Where the IP header begins.
    pub network: u32,
}

/// Reads the headers.
#[inline(always)]
pub(super) fn stage<F: Frame>(frame: &F) -> Step<Packet> {
    let Some((ether_type, network)) = eth::payload(frame) else {
        return Step::Break(Reason::NotIp);
    };
    match ether_type {
        eth::IPV4 => v4(frame, network),
        eth::IPV6 => v6(frame, network),
        _ => Step::Break(Reason::NotIp),
    }
}

#[inline(always)]
fn v4<F: Frame>(frame: &F, network: u32) -> Step<Packet> {
    let Some(header) = ipv4::read(frame, network) else {
        return Step::Break(Reason::NotIp);
    };
    let mut packet = bare(frame, header.src, header.dst, header.protocol, network);
    if header.malformed {
        packet.kind = Kind::Malformed;
    } else if header.later_fragment {
        packet.kind = Kind::LaterFragment;
    } else {
        transport(frame, &mut packet, header.protocol, header.payload);
    }
    Step::Continue(packet)
}

#[inline(always)]
fn v6<F: Frame>(frame: &F, network: u32) -> Step<Packet> {
    let Some(header) = ipv6::read(frame, network) else {
        return Step::Break(Reason::NotIp);
    };
    let mut packet = bare(frame, header.src, header.dst, header.next, network);
    if header.malformed {
        packet.kind = Kind::Malformed;
        return Step::Continue(packet);
    }
    match ipv6::walk(frame, header.next, network + ipv6::HEADER) {
        ipv6::Chain::Payload { protocol, offset } => transport(frame, &mut packet, protocol, offset),
        ipv6::Chain::LaterFragment => packet.kind = Kind::LaterFragment,
        ipv6::Chain::Truncated => packet.kind = Kind::Truncated,
        ipv6::Chain::TooLong => packet.kind = Kind::Malformed,
    }
    Step::Continue(packet)
}

#[inline(always)]
fn bare<F: Frame>(frame: &F, src: Addr, dst: Addr, protocol: u8, network: u32) -> Packet {
    Packet {
        src,
        dst,
        sport: 0,
        dport: 0,
        kind: Kind::Other,
        protocol,
        len: frame.len(),
        network,
    }
}

/// Reads what of the transport header decides: a header cut short makes the packet [`Kind::Truncated`].
#[inline(always)]
fn transport<F: Frame>(frame: &F, packet: &mut Packet, protocol: u8, offset: u32) {
    packet.protocol = protocol;
    packet.kind = match protocol {
        protocol::TCP | protocol::UDP => ports(frame, packet, protocol, offset),
        protocol::ICMP => match (frame.u8(offset), frame.u8(offset + 1)) {
            (Some(kind), Some(code)) => Kind::Icmp { kind, code },
            _ => Kind::Truncated,
        },
        protocol::ICMPV6 => frame
            .u8(offset)
            .map_or(Kind::Truncated, |kind| Kind::Icmp6 { kind }),
        _ => Kind::Other,
    };
}

#[inline(always)]
fn ports<F: Frame>(frame: &F, packet: &mut Packet, protocol: u8, offset: u32) -> Kind {
    let (Some(sport), Some(dport)) = (frame.u16_be(offset), frame.u16_be(offset + 2)) else {
        return Kind::Truncated;
    };
    packet.sport = sport;
    packet.dport = dport;
    if protocol == protocol::UDP {
        return match frame.u8(offset + 7) {
            Some(_) => Kind::Udp,
            None => Kind::Truncated,
        };
    }
    // The last byte of the fixed header, so that a whole one is there.
    match (frame.u8(offset + 13), frame.u8(offset + 19)) {
        (Some(flags), Some(_)) => Kind::Tcp { flags },
        _ => Kind::Truncated,
    }
}
