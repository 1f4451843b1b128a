//! Stage 2: whether the packet is for something protected. What is not, leaves untouched, and cheaply.

use super::{Kind, Packet, Step, Tables};
use crate::{
    abi::{Addr, AddressFlags, Control, Reason, Service, service::MAX_CHAIN},
    wire::protocol,
};

/// Who judges a packet.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'t> {
    /// The service, or `None` for packets to a protected *address* that carry no port.
    pub service: Option<&'t Service>,
    /// The service whose settings stand in where there is no port: the first one, index 1.
    pub fallback: Option<&'t Service>,
}

impl Scope<'_> {
    /// Identifier for counters, 0 for none.
    #[inline(always)]
    pub fn id(&self) -> u16 {
        self.service.map_or(0, |service| service.id)
    }

    /// The service only observes.
    #[inline(always)]
    pub fn observe(&self) -> bool {
        self.service
            .is_some_and(|service| service.flags & Service::OBSERVE != 0)
    }
}

/// Finds the service, or leaves with [`Reason::NotProtected`].
#[inline(always)]
pub(super) fn stage<'t, T: Tables>(packet: &Packet, tables: &'t T, control: Control) -> Step<Scope<'t>> {
    match packet.kind.get() {
        Kind::Tcp | Kind::Udp => by_port(packet, tables, control),
        Kind::Truncated if packet.dport.get() != 0 => by_port(packet, tables, control),
        Kind::Icmp | Kind::Icmp6 | Kind::LaterFragment | Kind::Truncated | Kind::Malformed => {
            by_address(packet, tables, control)
        }
        Kind::NotIp => Step::Break(Reason::NotIp),
        Kind::Other => Step::Break(Reason::NotProtected),
    }
}

#[inline(always)]
fn by_port<'t, T: Tables>(packet: &Packet, tables: &'t T, control: Control) -> Step<Scope<'t>> {
    let copy = control.copy(Control::SERVICES);
    let heads = tables.port(copy, packet.dport.get());
    let mut index = if packet.protocol.get() == protocol::TCP {
        heads.tcp
    } else {
        heads.udp
    };
    let mut links = 0;
    while index != 0 && links < MAX_CHAIN {
        let Some(service) = tables.service(copy, index) else {
            break;
        };
        if is_for(service, &packet.dst.get(), tables) {
            return Step::Continue(Scope {
                service: Some(service),
                fallback: None,
            });
        }
        index = service.next;
        links += 1;
    }
    Step::Break(Reason::NotProtected)
}

#[inline(always)]
fn is_for<T: Tables>(service: &Service, dst: &Addr, tables: &T) -> bool {
    if service.flags & Service::ANY_LOCAL == 0 {
        return service.addr == *dst;
    }
    // The whole of 127.0.0.0/8 is local, and no interface lists it.
    dst.is_loopback() || tables.address(dst).has(AddressFlags::LOCAL)
}

#[inline(always)]
fn by_address<'t, T: Tables>(packet: &Packet, tables: &'t T, control: Control) -> Step<Scope<'t>> {
    let dst = packet.dst.get();
    let flags = tables.address(&dst);
    let local = flags.has(AddressFlags::LOCAL) || dst.is_loopback();
    if flags.has(AddressFlags::PROTECTED) || control.has(Control::ANY_LOCAL) && local {
        let fallback = tables.service(control.copy(Control::SERVICES), 1);
        return Step::Continue(Scope {
            service: None,
            fallback,
        });
    }
    Step::Break(Reason::NotProtected)
}
