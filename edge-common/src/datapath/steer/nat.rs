//! Full translation both ways: to a backend from an address and port of the edge's, and its answers back to the client.
//!
//! A packet is only translated whole: without fragments, IPv4 options and IPv6 extension headers, whose ends could not all be
//! told apart. The port is found before the frame is touched; that the way is there and the packet fits comes before that.

use super::{Egress, Lanes, Layout, Query, Sent, Way, flow_hash, refuse, send};
use crate::{
    abi::{Addr, Code, Family, Reason},
    algo::{
        flows::{Info, Owner},
        nat::{self, Fit, Ports, Seen, Translation},
    },
    datapath::{Kind, Packet, Tables},
    wire::{Frame, View as _},
};

/// Both ways of a fragment: that there are more, and where it belongs (RFC 791).
const FRAGMENT: u16 = 0x3fff;

/// What is to be done with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Job {
    /// Hash of its flow.
    pub hash: u64,
    /// The backend.
    pub owner: Owner,
    /// Identifier of the service.
    pub service: u16,
    /// Copy of the tables in force.
    pub copy: u32,
    /// The kernel's jiffies.
    pub tick: u64,
}

/// Sends the client's packet to the backend of `job`.
#[inline(always)]
pub fn translate<F: Frame, T: Tables, L: Lanes, E: Egress>(
    frame: &F,
    packet: &Packet,
    tables: &T,
    lanes: &L,
    egress: &E,
    job: &Job,
) -> Sent {
    let (layout, seen) = match read(frame, packet, Number::Acknowledged) {
        Ok(read) => read,
        Err(reason) => return Sent::not(reason),
    };
    let (Some(rule), Some(backend)) = (
        lanes.rule(job.copy, job.service),
        lanes.backend(job.owner.backend),
    ) else {
        return Sent::not(Reason::Internal);
    };
    let (source, to, to_port) = (rule.source, backend.addr, backend.port);
    let way = match way(packet, &layout, egress, &source, &to) {
        Ok(way) => way,
        Err(reason) => return Sent::not(reason),
    };
    let port = lanes.port(tables, job, seen);
    if port > PORT {
        return Sent::not(if port == CLOSED {
            Reason::NoConnection
        } else {
            Reason::NoPort
        });
    }
    let ends = send::Ends {
        src: source,
        dst: to,
        ports: ports(port as u16, to_port),
    };
    done(
        send::translate(egress, &layout, &way, &ends, seen.is(Seen::TCP)),
        &way,
    )
}

/// Sends a backend's packet to the client that it answers. What answers nobody is left to the stack.
#[inline(always)]
pub fn restore<F: Frame, T: Tables, L: Lanes, E: Egress>(
    frame: &F,
    packet: &Packet,
    tables: &T,
    lanes: &L,
    egress: &E,
    tick: u64,
) -> Sent {
    let params = tables.params();
    let (from, own, port) = (packet.src.get(), packet.dst.get(), packet.dport.get());
    let protocol = packet.protocol.get();
    let home = flow_hash(&from, &own, packet.sport.get(), 0, protocol, params);
    let Some(entry) = lanes.nat(nat::place(home, port)) else {
        return Sent::not(Reason::Internal);
    };
    let Some((found, info)) = nat::read(entry, port, protocol, tick, hz(params.hz)) else {
        return Sent::not(Reason::Admitted);
    };
    if !is_from(lanes, info, &from, packet.sport.get()) {
        return Sent::not(Reason::Admitted);
    }
    let (layout, seen) = match read(frame, packet, Number::Own) {
        Ok(read) => read,
        Err(reason) => return Sent::not(reason),
    };
    let way = match way(packet, &layout, egress, &found.service, &found.client) {
        Ok(way) => way,
        Err(reason) => return Sent::not(reason),
    };
    nat::answered(entry, info, seen, tick, hz(params.hz));
    let ends = send::Ends {
        src: found.service,
        dst: found.client,
        ports: ports(found.service_port, found.client_port),
    };
    done(
        send::translate(egress, &layout, &way, &ends, seen.is(Seen::TCP)),
        &way,
    )
}

#[inline(always)]
const fn done(written: bool, way: &Way) -> Sent {
    if !written {
        return Sent::not(Reason::Unforwardable);
    }
    Sent {
        code: Code(Reason::Steered as u8),
        interface: way.interface,
    }
}

#[inline(always)]
const fn hz(hz: u32) -> u32 {
    if hz == 0 { 1 } else { hz }
}

/// Two ports, host order, as they lie in a packet.
#[inline(always)]
const fn ports(from: u16, to: u16) -> u32 {
    ((from as u32) << 16 | to as u32).to_be()
}

/// Whether an entry's backend is who sent this.
#[inline(always)]
fn is_from<L: Lanes>(lanes: &L, info: Info, from: &Addr, port: u16) -> bool {
    let owner = info.owner();
    lanes.backend(owner.backend).is_some_and(|backend| {
        backend.generation == owner.generation && backend.port == port && backend.addr.is(from)
    })
}

/// Which number of a segment is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Number {
    Own,
    Acknowledged,
}

/// Where everything lies, and what the segment says of its connection.
#[inline(always)]
fn read<F: Frame>(frame: &F, packet: &Packet, number: Number) -> Result<(Layout, Seen), Reason> {
    let Some(layout) = Layout::read(frame) else {
        return Err(Reason::Truncated);
    };
    if let Some(reason) = layout.objection(packet) {
        return Err(reason);
    }
    let (is_plain, header) = match layout.family {
        Family::V4 => {
            let Some(ip) = frame.view::<20>(layout.offset) else {
                return Err(Reason::Truncated);
            };
            (ip.u8(0) == 0x45 && ip.u16_be(6) & FRAGMENT == 0, 20)
        }
        Family::V6 => {
            let Some(ip) = frame.view::<40>(layout.offset) else {
                return Err(Reason::Truncated);
            };
            (ip.u8(6) == packet.protocol.get(), 40)
        }
    };
    if !is_plain {
        return Err(Reason::Unforwardable);
    }
    if !matches!(packet.kind.get(), Kind::Tcp) {
        return Ok((layout, Seen(0)));
    }
    let Some(segment) = frame.view::<20>(layout.offset + header) else {
        return Err(Reason::Truncated);
    };
    let flags = packet.detail.get();
    let number = match number {
        Number::Own => segment.word(4),
        Number::Acknowledged => segment.word(8),
    };
    Ok((layout, Seen::segment(flags, u32::from_be(number))))
}

/// The way from `src` to `dst`.
#[inline(always)]
fn way<E: Egress>(
    packet: &Packet,
    layout: &Layout,
    egress: &E,
    src: &Addr,
    dst: &Addr,
) -> Result<Way, Reason> {
    let family = dst.family();
    if family as u8 != layout.family as u8 {
        return Err(Reason::Unforwardable);
    }
    let way = egress.route(&Query {
        family,
        src: *src,
        dst: *dst,
        protocol: packet.protocol.get(),
        bytes: layout.bytes,
    });
    if way.code == Way::TOO_BIG {
        return Err(refuse(packet, layout, way.mtu, egress));
    }
    if way.code != Way::FOUND {
        return Err(Reason::NoRoute);
    }
    Ok(way)
}

/// Answers of [`port`] above this are none.
const PORT: u32 = 0xffff;
/// No port is free.
const NONE: u32 = 1 << 16;
/// The segment ends a connection that there is not.
const CLOSED: u32 = 1 << 17;

/// The port that stands for the flow of the packet in [`Tables::packet`], which is entered if it is new. (A plain number, as in
/// [`super::choose`].)
#[inline(always)]
pub fn port<T: Tables, L: Lanes>(tables: &T, lanes: &L, job: &Job, seen: Seen) -> u32 {
    let (Some(rule), Some(backend), Some(packet)) = (
        lanes.rule(job.copy, job.service),
        lanes.backend(job.owner.backend),
        tables.packet(),
    ) else {
        return NONE;
    };
    let params = tables.params();
    let hz = hz(params.hz);
    let home = flow_hash(
        &backend.addr,
        &rule.source,
        backend.port,
        0,
        packet.protocol.get(),
        params,
    );
    let range = Ports {
        low: rule.ports[0],
        high: rule.ports[1],
    };
    // The number that a place is judged by is the larger the better: of those that are free or were never answered, the one
    // that has been idle for longest.
    let (mut best, mut port, mut at) = (0, 0, 0);
    while at < nat::TRIES {
        let tried = range.nth(job.hash, at);
        at += 1;
        let fit = lanes.fit(
            tables,
            nat::place(home, tried),
            tried,
            job.hash,
            job.owner,
            job.tick,
        );
        if fit > best {
            best = fit;
            port = tried;
        }
        if fit >> 32 == Fit::Found as u64 {
            break;
        }
    }
    let Some(entry) = lanes.nat(nat::place(home, port)) else {
        return NONE;
    };
    if best >> 32 == Fit::Found as u64 {
        nat::sent(entry, seen, job.tick, hz);
        return u32::from(port);
    }
    if seen.is(Seen::CLOSES) {
        return CLOSED;
    }
    if best >> 32 == Fit::Taken as u64 {
        return NONE;
    }
    let translation = Translation {
        client: packet.src.get(),
        service: packet.dst.get(),
        client_port: packet.sport.get(),
        service_port: packet.dport.get(),
        port,
        protocol: packet.protocol.get(),
    };
    if nat::claim(entry, job.hash, job.owner, &translation, job.tick, hz) {
        u32::from(port)
    } else {
        NONE
    }
}
