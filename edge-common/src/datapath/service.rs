//! Stage 2: whether the packet is for something protected. What is not, leaves untouched, and cheaply.

use super::{Kind, Packet, Step, Tables};
use crate::{
    abi::{
        Addr, AddressFlags, Code, Control, PortEntry, Reason, Service,
        service::{ADDRESS_ENTRY, MAX_CHAIN},
    },
    wire::protocol,
};

/// Who judges a packet.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'t> {
    /// The service. For packets to a protected *address* that carry no port it is the entry for addresses, index 1,
    /// whose identifier is 0.
    pub service: &'t Service,
}

impl Scope<'_> {
    /// Whether it was found by port. The service tells, rather than a variable: a verifier walks the rest once for each of a
    /// variable's values.
    #[inline(always)]
    pub const fn by_port(&self) -> bool {
        self.service.id != 0
    }

    /// Identifier for counters, 0 for none.
    #[inline(always)]
    pub const fn id(&self) -> u16 {
        self.service.id
    }

    /// The service only observes.
    #[inline(always)]
    pub const fn observe(&self) -> bool {
        self.service.flags & Service::OBSERVE != 0
    }
}

/// Whether some service, in either copy of the tables, is on a port.
#[inline(always)]
pub(super) const fn protects(entry: PortEntry, udp: bool) -> bool {
    let [a, b] = if udp { entry.udp } else { entry.tcp };
    a | b != 0
}

/// Finds the service, or leaves with [`Reason::NotProtected`]. `entry` is that of the packet's port, if it has been
/// looked up.
#[inline(always)]
pub(super) fn stage<'t, T: Tables>(
    packet: &Packet,
    tables: &'t T,
    control: Control,
    entry: Option<PortEntry>,
) -> Step<Scope<'t>> {
    let entry = match (entry, packet.kind.get()) {
        (Some(entry), _) => entry,
        (None, Kind::Tcp | Kind::Udp) => tables.port(packet.dport.get()),
        (None, Kind::Truncated) if packet.dport.get() != 0 => tables.port(packet.dport.get()),
        (None, Kind::Icmp | Kind::Icmp6 | Kind::LaterFragment | Kind::Truncated | Kind::Malformed) => {
            return by_address(packet, tables, control);
        }
        (None, Kind::NotIp) => return leave(Reason::NotIp),
        (None, Kind::Other) => return leave(Reason::NotProtected),
    };
    by_port(packet, tables, control, entry)
}

#[inline(always)]
fn leave<'t>(reason: Reason) -> Step<Scope<'t>> {
    Step::Break(Code(reason as u8))
}

#[inline(always)]
fn by_port<'t, T: Tables>(
    packet: &Packet,
    tables: &'t T,
    control: Control,
    entry: PortEntry,
) -> Step<Scope<'t>> {
    let copy = control.copy(Control::SERVICES);
    let heads = if packet.protocol.get() == protocol::TCP {
        entry.tcp
    } else {
        entry.udp
    };
    let head = if copy == 0 { heads[0] } else { heads[1] };
    // Index 0 is nobody's, and no chain has it.
    let Some(first) = tables.service(copy, head) else {
        return leave(Reason::NotProtected);
    };
    if head != 0 && is_for(first, &packet.dst.get(), tables) {
        return found(first);
    }
    if head == 0 || first.next == 0 {
        return leave(Reason::NotProtected);
    }
    let index = tables.follow(copy, first.next);
    match tables.service(copy, index) {
        Some(service) if index != 0 => found(service),
        _ => leave(Reason::NotProtected),
    }
}

#[inline(always)]
fn found(service: &Service) -> Step<Scope<'_>> {
    Step::Continue(Scope { service })
}

/// Index of the first service that the packet in [`Tables::packet`] is for, in the chain from `index` on; 0 if there is
/// none.
#[inline(always)]
pub fn follow<T: Tables>(tables: &T, copy: u32, index: u16) -> u16 {
    let Some(packet) = tables.packet() else {
        return 0;
    };
    let mut index = index;
    let mut links = 1;
    while index != 0 && links < MAX_CHAIN {
        let Some(service) = tables.service(copy, index) else {
            return 0;
        };
        if is_for(service, &packet.dst.get(), tables) {
            return index;
        }
        index = service.next;
        links += 1;
    }
    0
}

#[inline(always)]
fn is_for<T: Tables>(service: &Service, dst: &Addr, tables: &T) -> bool {
    if service.flags & Service::ANY_LOCAL == 0 {
        return service.addr.is(dst);
    }
    // The whole of 127.0.0.0/8 is local, and no interface lists it.
    dst.is_loopback() || tables.address(dst).has(AddressFlags::LOCAL)
}

#[inline(always)]
fn by_address<'t, T: Tables>(packet: &Packet, tables: &'t T, control: Control) -> Step<Scope<'t>> {
    let dst = packet.dst.get();
    let flags = tables.address(&dst);
    let local = flags.has(AddressFlags::LOCAL) || dst.is_loopback();
    let covered = flags.has(AddressFlags::PROTECTED) || control.has(Control::ANY_LOCAL) && local;
    if !covered {
        return leave(Reason::NotProtected);
    }
    match tables.service(control.copy(Control::SERVICES), ADDRESS_ENTRY) {
        Some(service) => found(service),
        None => leave(Reason::Internal),
    }
}
