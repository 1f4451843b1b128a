//! Stage 6: rates. Exact cells for sources that earned them, a line of cells for everybody else.

use super::{Kind, Packet, Scope, Step, Tables};
use crate::{
    abi::{
        Code, EarnedHost, Limit, LimitKind, Params, Reason, SLOTS_PER_LINE,
        hint::{self, Hints, Keys},
        limit::{EARNED_KINDS, EARNED_WORDS, MAX_LIMITS},
    },
    algo::{
        earned, gcra, hash,
        slots::{self, Cell, Charge, Front},
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

/// Leaves as path MTU or neighbour discovery, which is never limited.
#[inline(always)]
pub(super) fn signalling(packet: &Packet) -> Step<()> {
    let signals = match (packet.kind.get(), packet.detail.get()) {
        (Kind::Icmp, UNREACHABLE) => packet.code.get() == FRAGMENTATION_NEEDED,
        (Kind::Icmp6, PACKET_TOO_BIG) => true,
        (Kind::Icmp6, kind) if NEIGHBOUR_DISCOVERY.contains(&kind) => packet.hops.get() == ON_LINK,
        _ => false,
    };
    if signals {
        return Step::Break(Code(Reason::Signalling as u8));
    }
    Step::Continue(())
}

/// Leaves with the reason of the first limit that refuses, in the order of [`LimitKind::ORDER`].
#[inline(always)]
pub(super) fn stage<T: Tables>(
    packet: &Packet,
    scope: &Scope<'_>,
    keys: &Keys,
    hints: Hints,
    params: &Params,
    tables: &T,
    tick: u64,
) -> Step<()> {
    let service = scope.service;
    let now = gcra::now(tick);
    if hints.earned & hint::bit(keys.host) != 0 {
        find(packet, keys.host, service.limits[0].salt, params, tables);
    }
    let mut at = 0;
    while at < MAX_LIMITS && at < usize::from(service.active) {
        let limit = &service.limits[at];
        at += 1;
        // What is the same in each turn is read anew in each: a verifier would walk the rest once for each of its values.
        tables.forget();
        if limit.has(Limit::SYNS) && !packet.begins() {
            continue;
        }
        let earned = Earned(tables.found());
        let amount = if limit.has(Limit::BYTES) {
            packet.len.get()
        } else {
            1
        };
        let cost = gcra::cost(limit, amount);
        let charge = if earned.at() != 0 && usize::from(limit.kind) < EARNED_KINDS {
            let Some(bucket) = tables.earned(earned.bucket()) else {
                return Step::Break(Code(Reason::Internal as u8));
            };
            let cell = &bucket[(earned.at() as usize + usize::from(limit.kind)) % EARNED_WORDS];
            match slots::charge_exact_once(cell, now, cost, limit.capacity) {
                Charge::Contended => {
                    let at = earned.at() + u32::from(limit.kind);
                    tables.charge_exact(earned.bucket(), at, now, cost, limit.capacity)
                }
                judged => judged,
            }
        } else {
            let key = if limit.has(Limit::NETWORK) {
                keys.network
            } else {
                keys.host
            };
            let tag = tag(limit, key);
            let fronts = front(limit, key, params);
            let Some(front) = tables.line(fronts) else {
                return Step::Break(Code(Reason::Internal as u8));
            };
            match slots::charge_front(&front[tag as usize % SLOTS_PER_LINE], now, cost, limit) {
                Front::Admitted => Charge::Admitted,
                Front::Over => {
                    let index = behind(limit.kind, key, params);
                    let charge = tables.charge(index, tag, now, cost, limit.capacity - limit.front);
                    if charge == Charge::Admitted {
                        tables.raise_front(fronts, tag, now, cost, limit.capacity + limit.front);
                    }
                    charge
                }
            }
        };
        match charge {
            Charge::Admitted => {}
            Charge::Refused => return Step::Break(refusal(limit.kind)),
            Charge::Contended => return Step::Break(Code(Reason::Contended as u8)),
        }
    }
    Step::Continue(())
}

/// What the default tier has charged a host under `limit`, ahead of `now`: exact state that it earns begins there. `line` finds
/// lines of the table by their index.
#[inline(always)]
pub fn charged<'t, C: Cell + 't>(
    limit: &Limit,
    host: u64,
    params: &Params,
    now: u64,
    line: impl Fn(u32) -> Option<&'t [C; SLOTS_PER_LINE]>,
) -> u64 {
    let fronts = line(front(limit, host, params));
    let (Some(fronts), Some(own)) = (fronts, line(behind(limit.kind, host, params))) else {
        return 0;
    };
    let tag = tag(limit, host);
    slots::charged(&fronts[tag as usize % SLOTS_PER_LINE], own, tag, now, limit)
}

/// [`charged`] for the host in [`Tables::packet`], under the limit of this kind of service `index` of copy `copy`; 0
/// without one.
#[inline(always)]
pub fn charged_source<T: Tables>(tables: &T, copy: u32, index: u16, kind: u8, tick: u64) -> u64 {
    let (Some(packet), Some(service)) = (tables.packet(), tables.service(copy, index)) else {
        return 0;
    };
    let params = tables.params();
    let mut at = 0;
    while at < MAX_LIMITS && at < usize::from(service.active) {
        let limit = &service.limits[at];
        if limit.kind == kind {
            let host = Keys::new(&packet.src.get(), packet.family.get(), params).host;
            return charged(limit, host, params, gcra::now(tick), |line| tables.line(line));
        }
        at += 1;
    }
    0
}

/// What finds a key's cells in its lines. Of it the lower 16 bits count.
#[inline(always)]
const fn tag(limit: &Limit, key: u64) -> u64 {
    key ^ limit.salt as u64
}

/// Index of the line of a key in the front tier, which comes first in the table. Services with other limits have other
/// lines: what one of a low rate charges a cell for a packet would keep one of a high rate out of it for long.
#[inline(always)]
fn front(limit: &Limit, key: u64, params: &Params) -> u32 {
    let own = (key >> 32) as u32 ^ u32::from(limit.salt);
    u32::from(limit.kind) * (params.front_mask + 1) + (own & params.front_mask)
}

/// Index of the line of a key behind the front.
#[inline(always)]
fn behind(kind: u8, key: u64, params: &Params) -> u32 {
    let fronts = LimitKind::COUNT as u32 * (params.front_mask + 1);
    fronts + u32::from(kind) * (params.line_mask + 1) + hash::index(key, params.line_mask)
}

/// Where a host's exact cells are: the bucket, and the first cell in it; at 0 there are none.
#[derive(Clone, Copy)]
struct Earned(u64);

impl Earned {
    #[inline(always)]
    const fn new(bucket: u32, at: u32) -> Self {
        Self((bucket as u64) << 32 | at as u64)
    }

    #[inline(always)]
    const fn bucket(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline(always)]
    const fn at(self) -> u32 {
        self.0 as u32
    }
}

/// Looks for the exact cells of a packet's source, and keeps where they are.
#[inline(always)]
fn find<T: Tables>(packet: &Packet, hash: u64, salt: u16, params: &Params, tables: &T) {
    let host = EarnedHost::new(&packet.src.get(), packet.family.get());
    for bucket in earned::places(hash, params.earned_buckets) {
        if let Some(entries) = tables.earned(bucket) {
            let at = earned::find(entries, host, salt);
            if at != 0 {
                tables.set_found(Earned::new(bucket, at).0);
                return;
            }
        }
    }
}

/// The reason of a kind of limit: the two lists have the same order.
#[inline(always)]
const fn refusal(kind: u8) -> Code {
    Code(Reason::SourcePackets as u8 + kind)
}
const _: () = {
    assert!(refusal(LimitKind::SourceSyns as u8).0 == Reason::SourceSyns as u8);
    assert!(refusal(LimitKind::SourceBytes as u8).0 == Reason::SourceBytes as u8);
    assert!(refusal(LimitKind::NetworkPackets as u8).0 == Reason::NetworkPackets as u8);
    assert!(refusal(LimitKind::NetworkSyns as u8).0 == Reason::NetworkSyns as u8);
    assert!(refusal(LimitKind::NetworkBytes as u8).0 == Reason::NetworkBytes as u8);
    assert!(refusal(LimitKind::SourceIcmp as u8).0 == Reason::SourceIcmp as u8);
};
