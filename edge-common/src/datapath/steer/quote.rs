//! Messages about connections: an ICMP error is for the backend of the connection that it quotes.
//!
//! "Packet too big" above all: the backend that sends too much is the one that has to hear it.

use super::{super::Tables, Asked, flow_hash, source_hash};
use crate::{
    abi::{Addr, AddressFlags, Control, PortEntry, Service, service::MAX_CHAIN},
    datapath::{Kind, Packet},
    wire::{Frame, View as _, eth, protocol},
};

/// ICMP: destination unreachable, time exceeded, parameter problem (RFC 792).
const ERRORS: [u8; 3] = [3, 11, 12];
/// ICMPv6 errors are below (RFC 4443 section 2.1).
const INFORMATIONAL: u8 = 128;

/// The flow that an ICMP error in the frame quotes, if that is one of a direct service on the error's destination.
#[inline(always)]
pub(super) fn read<F: Frame, T: Tables>(
    frame: &F,
    packet: &Packet,
    tables: &T,
    control: Control,
) -> Option<Asked> {
    let detail = packet.detail.get();
    let (ether_type, offset) = eth::payload(frame);
    let quoted = match (packet.kind.get(), ether_type) {
        (Kind::Icmp, eth::IPV4) if ERRORS.contains(&detail) => v4(frame, offset)?,
        (Kind::Icmp6, eth::IPV6) if detail < INFORMATIONAL => v6(frame, offset)?,
        _ => return None,
    };
    // What is quoted went from the service to the client.
    if quoted.src != packet.dst.get() || !tables.address(&quoted.src).has(AddressFlags::PROTECTED) {
        return None;
    }
    let service = find(&quoted, tables, control)?;
    let params = tables.params();
    let (client, own) = (&quoted.dst, &quoted.src);
    Some(Asked {
        hash: flow_hash(client, own, quoted.dport, quoted.sport, quoted.protocol, params),
        source: source_hash(client, client.family(), params),
        service,
        // Not one that learns: whoever makes up an error is not to enter a flow.
        flags: if quoted.protocol == protocol::TCP {
            Asked::TCP
        } else {
            0
        },
    })
}

struct Quoted {
    src: Addr,
    dst: Addr,
    sport: u16,
    dport: u16,
    protocol: u8,
}

#[inline(always)]
fn v4<F: Frame>(frame: &F, offset: u32) -> Option<Quoted> {
    // The header, 8 bytes of ICMP, the quoted header, the ports; without options on either.
    let bytes = frame.view::<52>(offset)?;
    if bytes.u8(0) != 0x45 || bytes.u8(28) != 0x45 {
        return None;
    }
    Some(Quoted {
        src: Addr::from_v4_word(bytes.word(40)),
        dst: Addr::from_v4_word(bytes.word(44)),
        sport: bytes.u16_be(48),
        dport: bytes.u16_be(50),
        protocol: bytes.u8(37),
    })
}

#[inline(always)]
fn v6<F: Frame>(frame: &F, offset: u32) -> Option<Quoted> {
    let bytes = frame.view::<92>(offset)?;
    if bytes.u8(6) != protocol::ICMPV6 {
        return None;
    }
    Some(Quoted {
        src: bytes.addr(56),
        dst: bytes.addr(72),
        sport: bytes.u16_be(88),
        dport: bytes.u16_be(90),
        protocol: bytes.u8(54),
    })
}

/// The direct service that the quoted packet came from.
#[inline(always)]
fn find<T: Tables>(quoted: &Quoted, tables: &T, control: Control) -> Option<u16> {
    let copy = control.copy(Control::SERVICES);
    let entry: PortEntry = tables.port(quoted.sport);
    let heads = match quoted.protocol {
        protocol::TCP => entry.tcp,
        protocol::UDP => entry.udp,
        _ => return None,
    };
    let mut index = if copy == 0 { heads[0] } else { heads[1] };
    let mut links = 0;
    while index != 0 && links < MAX_CHAIN {
        let service = tables.service(copy, index)?;
        if service.flags & Service::ANY_LOCAL == 0 && service.addr == quoted.src {
            return (service.flags & Service::DIRECT != 0).then_some(service.id);
        }
        index = service.next;
        links += 1;
    }
    None
}
