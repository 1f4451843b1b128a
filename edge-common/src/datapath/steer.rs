//! Steering: what becomes of an admitted packet of a direct service, which goes to a backend without entering user space.
//!
//! [`steer`] runs as a program of its own, which the pipeline hands packets to once nothing objects to them. It finds the
//! backend ([`choose`]), the way to it, and writes the frame anew ([`send`]). What only the kernel can do is behind
//! [`Egress`], so tests and `steer explain` run the same code.
//!
//! Invariants: nothing is steered that the pipeline has not admitted; a packet goes to a backend with one hop less, so one
//! that comes back goes round a bounded number of times; a frame is altered only once all that may be refused is settled.

mod choose;
mod nat;
mod quote;
mod send;

pub use choose::{Asked, Choice, Lanes, Why, choose, fit, flow_hash, source_hash};
pub use nat::{Job, port, restore, translate};

use super::{Kind, Observed, Packet, Tables, Verdict, limit};
use crate::{
    abi::{Addr, Code, Control, ControlWord, Family, Forward, Reason, SteerRule},
    wire::{Frame, View as _, eth, tcp},
};

/// What is asked of the routes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Query {
    /// Family of the addresses.
    pub family: Family,
    /// Source of what is sent.
    pub src: Addr,
    /// Where it is sent.
    pub dst: Addr,
    /// IP protocol of what is sent.
    pub protocol: u8,
    /// Bytes of the IP packet that is sent.
    pub bytes: u32,
}

/// What the routes say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Way {
    /// [`Way::FOUND`] and its like.
    pub code: u32,
    /// The interface it leaves by.
    pub interface: u32,
    /// Largest IP packet of the way, if it is [`Way::TOO_BIG`].
    pub mtu: u32,
    /// 1 if the destination is a neighbour, not behind a router.
    pub on_link: u32,
    /// The Ethernet addresses, destination first, as they lie in the frame.
    pub link: [u32; 3],
}

impl Way {
    /// There is one.
    pub const FOUND: u32 = 0;
    /// There is none, or the neighbour is not known.
    pub const NONE: u32 = 1;
    /// The packet does not fit.
    pub const TOO_BIG: u32 = 2;

    /// No way.
    pub const fn none() -> Self {
        Self {
            code: Self::NONE,
            interface: 0,
            mtu: 0,
            on_link: 0,
            link: [0; 3],
        }
    }
}

/// The first `N` bytes of a frame, to be written. Words and halves are as they lie in the frame.
pub trait Window {
    /// One byte.
    fn u8(&self, at: usize) -> u8;
    /// 16 bits.
    fn half(&self, at: usize) -> u16;
    /// 32 bits.
    fn word(&self, at: usize) -> u32;
    /// Writes one byte.
    fn set_u8(&self, at: usize, value: u8);
    /// Writes 16 bits.
    fn set_half(&self, at: usize, value: u16);
    /// Writes 32 bits.
    fn set_word(&self, at: usize, value: u32);
}

/// The kernel's routes, and the frame that is sent.
pub trait Egress {
    /// The frame's first bytes.
    type Window<const N: usize>: Window;

    /// The interface the frame came in by.
    fn ingress(&self) -> u32;
    /// The way to somewhere.
    fn route(&self, query: &Query) -> Way;
    /// Gives the frame `more` bytes at its front, or takes some away; whether it could.
    fn stretch(&self, more: i32) -> bool;
    /// Cuts the frame to `bytes`; whether it could.
    fn cut(&self, bytes: u32) -> bool;
    /// The first `N` bytes, if there are as many.
    fn window<const N: usize>(&self) -> Option<Self::Window<N>>;
    /// [`dispatch`]. Apart, so that it can be a function of its own in the kernel: verified once.
    fn dispatch<F: Frame>(&self, frame: &F, packet: &Packet, parcel: &Parcel) -> Sent
    where
        Self: Sized,
    {
        dispatch(frame, packet, parcel, self)
    }
    /// [`translate`]. Apart for the same reason.
    fn translate<F: Frame, T: Tables, L: Lanes>(
        &self,
        frame: &F,
        packet: &Packet,
        tables: &T,
        lanes: &L,
        job: &Job,
    ) -> Sent
    where
        Self: Sized,
    {
        translate(frame, packet, tables, lanes, self, job)
    }
    /// [`restore`]. Apart for the same reason.
    fn restore<F: Frame, T: Tables, L: Lanes>(
        &self,
        frame: &F,
        packet: &Packet,
        tables: &T,
        lanes: &L,
        tick: u64,
    ) -> Sent
    where
        Self: Sized,
    {
        restore(frame, packet, tables, lanes, self, tick)
    }
}

/// What became of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Steered {
    /// Why.
    pub verdict: Verdict,
    /// The interface it leaves by, if it is sent on.
    pub interface: u32,
}

/// Where an IP packet lies in its frame, and what of its header decides.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// Offset of the IP header.
    offset: u32,
    family: Family,
    /// Bytes of the IP packet by its own account.
    bytes: u32,
    /// Traffic class or type of service.
    class: u8,
    /// It may not be fragmented, and its sender can be told.
    answerable: bool,
}

impl Layout {
    #[inline(always)]
    fn read<F: Frame>(frame: &F) -> Option<Self> {
        let (ether_type, offset) = eth::payload(frame);
        if ether_type == eth::IPV4 {
            let header = frame.view::<20>(offset)?;
            return Some(Self {
                offset,
                family: Family::V4,
                bytes: u32::from(header.u16_be(2)),
                class: header.u8(1),
                answerable: header.u16_be(6) & DONT_FRAGMENT != 0
                    && header.u8(0) == 0x45
                    && offset == eth::HEADER,
            });
        }
        let header = frame.view::<40>(offset)?;
        Some(Self {
            offset,
            family: Family::V6,
            bytes: u32::from(header.u16_be(4)) + 40,
            class: (header.u16_be(0) >> 4) as u8,
            answerable: offset == eth::HEADER,
        })
    }
}

impl Layout {
    /// Why the packet cannot go on, if it cannot.
    #[inline(always)]
    fn objection(&self, packet: &Packet) -> Option<Reason> {
        if packet.hops.get() <= 1 {
            return Some(Reason::HopsExceeded);
        }
        if self.offset + self.bytes > packet.len.get() {
            return Some(Reason::Truncated);
        }
        None
    }
}

/// The bit of an IPv4 header's byte 6 (RFC 791).
const DONT_FRAGMENT: u16 = 0x4000;

/// What is known of a packet that is sent on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parcel {
    /// Hash of its flow.
    pub hash: u64,
    /// [`Forward`].
    pub forward: u8,
    /// Index of the backend.
    pub backend: u16,
    /// The backend's address.
    pub to: Addr,
}

/// What became of a packet that was to be sent on: a [`Code`], and the interface it leaves by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub struct Sent {
    /// Why.
    pub code: Code,
    /// The interface it leaves by, if it does.
    pub interface: u32,
}

impl Sent {
    #[inline(always)]
    const fn not(reason: Reason) -> Self {
        Self {
            code: Code(reason as u8),
            interface: 0,
        }
    }

    /// The same with who judged it.
    #[inline(always)]
    pub const fn by(self, service: u16, observed: Observed) -> Steered {
        Steered {
            verdict: Verdict {
                code: self.code,
                observed,
                service,
            },
            interface: self.interface,
        }
    }

    /// As one number.
    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        (self.interface as u64) << 8 | self.code.0 as u64
    }

    /// From that number.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self {
            code: Code(bits as u8),
            interface: (bits >> 8) as u32,
        }
    }
}

/// Sends the packet in [`Tables::packet`] to a backend of `service`, or, if that is 0, the message about a connection to
/// the backend of the connection that it quotes.
#[inline(always)]
pub fn steer<F: Frame, T: Tables, L: Lanes, E: Egress>(
    frame: &F,
    tables: &T,
    lanes: &L,
    egress: &E,
    service: u16,
    tick: u64,
) -> Steered {
    let control = Control(tables.word(ControlWord::Control));
    let Some(packet) = tables.packet() else {
        return plain(Reason::Internal, service, Observed::NONE);
    };
    let observed = packet.observed.get();
    let copy = control.copy(Control::SERVICES);
    if service != 0 && lanes.rule(copy, service).is_some_and(returns) {
        return egress
            .restore(frame, packet, tables, lanes, tick)
            .by(service, observed);
    }
    let asked = if service == 0 {
        match quote::read(frame, packet, tables, control) {
            Some(asked) => asked,
            None => return plain(unconcerned(packet), service, observed),
        }
    } else {
        of(packet, tables, service)
    };
    let choice = lanes.choose(tables, copy, &asked, tick);
    let backend = choice.owner.backend;
    if backend == 0 {
        return plain(Reason::NoBackend, asked.service, observed);
    }
    let (Some(rule), Some(entry)) = (lanes.rule(copy, asked.service), lanes.backend(backend)) else {
        return plain(Reason::Internal, asked.service, observed);
    };
    let sent = if rule.forward == Forward::Nat as u8 {
        if service == 0 {
            // What it quotes would have to be translated too.
            return plain(unconcerned(packet), service, observed);
        }
        let job = Job {
            hash: asked.hash,
            owner: choice.owner,
            service,
            copy,
            tick,
        };
        egress.translate(frame, packet, tables, lanes, &job)
    } else {
        let parcel = Parcel {
            hash: asked.hash,
            forward: rule.forward,
            backend,
            to: entry.addr,
        };
        egress.dispatch(frame, packet, &parcel)
    };
    if sent.code.0 == Reason::Steered as u8 {
        lanes.count(backend, packet.len.get(), choice.opened, choice.entered);
    }
    sent.by(asked.service, observed)
}

/// A message that is about nothing that is steered is the stack's, as if there were no steering.
#[inline(always)]
fn unconcerned(packet: &Packet) -> Reason {
    if limit::signalling(packet).is_break() {
        Reason::Signalling
    } else {
        Reason::Admitted
    }
}

#[inline(always)]
const fn plain(reason: Reason, service: u16, observed: Observed) -> Steered {
    Steered {
        verdict: Verdict {
            code: Code(reason as u8),
            observed,
            service,
        },
        interface: 0,
    }
}

/// What is asked for a packet of `service`.
#[inline(always)]
fn of<T: Tables>(packet: &Packet, tables: &T, service: u16) -> Asked {
    let (src, dst) = (packet.src.get(), packet.dst.get());
    let (sport, dport) = (packet.sport.get(), packet.dport.get());
    let params = tables.params();
    let mut flags = Asked::LEARNS;
    if matches!(packet.kind.get(), Kind::Tcp) {
        flags |= Asked::TCP;
        if packet.opens() {
            flags |= Asked::OPENS;
        }
        if packet.detail.get() & (tcp::FIN | tcp::RST) != 0 {
            flags |= Asked::CLOSES;
        }
    }
    Asked {
        hash: flow_hash(&src, &dst, sport, dport, packet.protocol.get(), params),
        source: source_hash(&src, packet.family.get(), params),
        service,
        flags,
    }
}

/// Sends a packet on, as [`Parcel::forward`] says.
#[inline(always)]
pub fn dispatch<F: Frame, E: Egress>(frame: &F, packet: &Packet, parcel: &Parcel, egress: &E) -> Sent {
    let Some(layout) = Layout::read(frame) else {
        return Sent::not(Reason::Truncated);
    };
    if let Some(reason) = layout.objection(packet) {
        return Sent::not(reason);
    }
    let wrapped = parcel.forward == Forward::Ipip as u8;
    let family = parcel.to.family();
    let (src, more, protocol) = if wrapped {
        let more = match family {
            Family::V4 => send::IPV4_BYTES,
            Family::V6 => send::IPV6_BYTES,
        };
        (
            send::outer_source(family, parcel.hash),
            more,
            send::inner_protocol(layout.family),
        )
    } else {
        (packet.src.get(), 0, packet.protocol.get())
    };
    let bytes = layout.bytes + more;
    if bytes > MOST_BYTES {
        return Sent::not(Reason::Oversized);
    }
    let way = egress.route(&Query {
        family,
        src,
        dst: parcel.to,
        protocol,
        bytes,
    });
    if way.code == Way::TOO_BIG {
        return Sent::not(refuse(packet, &layout, way.mtu.saturating_sub(more), egress));
    }
    // Who is behind a router would get what is for the service's address from nobody.
    if way.code != Way::FOUND || !wrapped && way.on_link == 0 {
        return Sent::not(Reason::NoRoute);
    }
    let written = if wrapped {
        send::wrap(egress, &layout, &way, &src, &parcel.to, parcel.hash)
    } else {
        send::relay(egress, &layout, &way)
    };
    if !written {
        return Sent::not(Reason::Unforwardable);
    }
    Sent {
        code: Code(Reason::Steered as u8),
        interface: way.interface,
    }
}

/// Largest IP packet (RFC 791 section 3.1).
const MOST_BYTES: u32 = 65_535;

/// Tells the sender what would fit, if that can be.
#[inline(always)]
fn refuse<E: Egress>(packet: &Packet, layout: &Layout, fits: u32, egress: &E) -> Reason {
    // Never about a message about a message (RFC 1122 section 3.2.2, RFC 4443 section 2.4).
    let is_message = matches!(packet.kind.get(), Kind::Icmp | Kind::Icmp6);
    if layout.answerable && !is_message && send::answer(egress, layout, packet, fits) {
        Reason::TooBig
    } else {
        Reason::Oversized
    }
}

/// Whether a rule is that of backends' answers.
#[inline(always)]
const fn returns(rule: &SteerRule) -> bool {
    rule.flags & SteerRule::RETURNS != 0
}

/// Whether a rule spreads by source.
#[inline(always)]
const fn by_source(rule: &SteerRule) -> bool {
    rule.flags & SteerRule::BY_SOURCE != 0
}

#[cfg(test)]
mod tests;
