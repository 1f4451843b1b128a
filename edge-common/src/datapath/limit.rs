//! Stage 6: rates. Exact cells for sources that earned them, the sketch for everybody else.

use super::{Kind, Packet, Scope, Step, Tables, ban};
use crate::{
    abi::{Addr, LimitKind, LimitParams, Params, Reason, Service, hint},
    algo::{
        hash,
        sketch::{self, Charge},
    },
};

/// ICMP "destination unreachable" (RFC 792) and its code "fragmentation needed" (RFC 1191).
const UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
/// ICMPv6 "packet too big" (RFC 4443 section 3.2).
const PACKET_TOO_BIG: u8 = 2;
/// ICMPv6 neighbour discovery (RFC 4861 section 4): the first and the last type.
const NEIGHBOUR_DISCOVERY: core::ops::RangeInclusive<u8> = 133..=137;
/// Only a hop limit that no router has lowered is from this link (RFC 4861 section 7.1).
const ON_LINK: u8 = 255;

/// One packet before one limiter.
struct Asked<'a, T> {
    tables: &'a T,
    params: &'a Params,
    service: &'a Service,
    tick: u64,
}

/// Leaves with the reason of the first limit that refuses: host before network, connections before packets.
#[inline(always)]
pub(super) fn stage<T: Tables>(
    packet: &Packet,
    service: &Service,
    keys: &hint::Keys,
    params: &Params,
    tables: &T,
    tick: u64,
) -> Step<()> {
    let asked = Asked {
        tables,
        params,
        service,
        tick,
    };
    let opens = packet.opens();
    let cells = if ban::hinted(keys.host, hint::EARNED, params, tables) {
        tables.earned(&host(&packet.src.get(), keys))
    } else {
        None
    };
    if let Some([packets, syns, bytes]) = cells {
        if opens {
            asked.exact(LimitKind::SourceSyns, 1, syns, Reason::SourceSyns)?;
        }
        asked.exact(LimitKind::SourcePackets, 1, packets, Reason::SourcePackets)?;
        asked.exact(
            LimitKind::SourceBytes,
            packet.len.get(),
            bytes,
            Reason::SourceBytes,
        )?;
    } else {
        if opens {
            asked.sketch(LimitKind::SourceSyns, 1, keys.host, Reason::SourceSyns)?;
        }
        asked.sketch(LimitKind::SourcePackets, 1, keys.host, Reason::SourcePackets)?;
        asked.sketch(
            LimitKind::SourceBytes,
            packet.len.get(),
            keys.host,
            Reason::SourceBytes,
        )?;
    }
    if opens {
        asked.sketch(LimitKind::NetworkSyns, 1, keys.network, Reason::NetworkSyns)?;
    }
    asked.sketch(LimitKind::NetworkPackets, 1, keys.network, Reason::NetworkPackets)?;
    asked.sketch(
        LimitKind::NetworkBytes,
        packet.len.get(),
        keys.network,
        Reason::NetworkBytes,
    )
}

/// The limit of packets that carry no port; path MTU and neighbour discovery leave before it.
#[inline(always)]
pub(super) fn icmp<T: Tables>(
    packet: &Packet,
    keys: &hint::Keys,
    params: &Params,
    tables: &T,
    scope: &Scope<'_>,
    tick: u64,
) -> Step<()> {
    match (packet.kind.get(), packet.detail.get()) {
        (Kind::Icmp, UNREACHABLE) if packet.code.get() == FRAGMENTATION_NEEDED => {
            return Step::Break(Reason::Signalling);
        }
        (Kind::Icmp6, PACKET_TOO_BIG) => return Step::Break(Reason::Signalling),
        (Kind::Icmp6, kind) if NEIGHBOUR_DISCOVERY.contains(&kind) && packet.hops.get() == ON_LINK => {
            return Step::Break(Reason::Signalling);
        }
        _ => {}
    }
    let Some(service) = scope.fallback else {
        return Step::Continue(());
    };
    Asked {
        tables,
        params,
        service,
        tick,
    }
    .sketch(LimitKind::SourceIcmp, 1, keys.host, Reason::SourceIcmp)
}

impl<T: Tables> Asked<'_, T> {
    #[inline(always)]
    fn limit(&self, kind: LimitKind) -> &LimitParams {
        &self.service.limits[kind as usize]
    }

    #[inline(always)]
    fn exact(&self, kind: LimitKind, amount: u32, cell: &T::Cell, refused: Reason) -> Step<()> {
        let limit = self.limit(kind);
        if limit.capacity == 0 {
            return Step::Continue(());
        }
        settle(sketch::charge_exact(limit, self.tick, amount, cell), refused)
    }

    #[inline(always)]
    fn sketch(&self, kind: LimitKind, amount: u32, key: u64, refused: Reason) -> Step<()> {
        let limit = self.limit(kind);
        if limit.capacity == 0 {
            return Step::Continue(());
        }
        let h = hash::derive(key, u64::from(self.service.limit_set) << 8 | kind as u64);
        let mask = self.params.cell_mask;
        let row = mask + 1;
        let region = kind as u32 * 2 * row;
        let (Some(first), Some(second)) = (
            self.tables.cell(region + hash::low_index(h, mask)),
            self.tables.cell(region + row + hash::high_index(h, mask)),
        ) else {
            return Step::Break(Reason::Internal);
        };
        settle(
            sketch::charge_two(limit, self.tick, amount, first, second),
            refused,
        )
    }
}

#[inline(always)]
fn settle(charge: Charge, refused: Reason) -> Step<()> {
    match charge {
        Charge::Admitted => Step::Continue(()),
        Charge::Refused => Step::Break(refused),
        Charge::Contended => Step::Break(Reason::Contended),
    }
}

#[inline(always)]
fn host(src: &Addr, keys: &hint::Keys) -> Addr {
    src.masked(hint::host_prefix(keys.family))
}
