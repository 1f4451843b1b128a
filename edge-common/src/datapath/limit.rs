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
        slots::{self, Charge, Front},
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
    let opens = packet.begins();
    let mut earned = Earned { bucket: 0, at: 0 };
    if hints.earned & hint::bit(keys.host) != 0 {
        earned = find(packet, keys.host, service.limits[0].salt, params, tables);
    }
    // Found or not, the loop is verified once.
    earned.at = tables.launder(earned.at);
    earned.bucket = tables.launder(earned.bucket);
    let mut at = 0;
    while at < MAX_LIMITS && at < usize::from(service.active) {
        let limit = &service.limits[at];
        at += 1;
        if limit.has(Limit::SYNS) && !opens {
            continue;
        }
        let amount = if limit.has(Limit::BYTES) {
            packet.len.get()
        } else {
            1
        };
        let cost = gcra::cost(limit, amount);
        let charge = if earned.at != 0 && usize::from(limit.kind) < EARNED_KINDS {
            let Some(bucket) = tables.earned(earned.bucket) else {
                return Step::Break(Code(Reason::Internal as u8));
            };
            let cell = &bucket[(earned.at as usize + usize::from(limit.kind)) % EARNED_WORDS];
            match slots::charge_exact_once(cell, now, cost, limit.capacity) {
                Charge::Contended => {
                    let at = earned.at + u32::from(limit.kind);
                    tables.charge_exact(earned.bucket, at, now, cost, limit.capacity)
                }
                judged => judged,
            }
        } else {
            let key = if limit.has(Limit::NETWORK) {
                keys.network
            } else {
                keys.host
            };
            let tag = key ^ u64::from(limit.salt);
            let fronts = front(limit.kind, key, params);
            let Some(front) = tables.line(fronts) else {
                return Step::Break(Code(Reason::Internal as u8));
            };
            match slots::charge_front(&front[tag as usize % SLOTS_PER_LINE], now, cost, limit) {
                Front::Admitted => Charge::Admitted,
                Front::Over => {
                    let index = line(limit.kind, key, params);
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

/// Index of the line of a key in the front tier, which comes first in the table.
#[inline(always)]
fn front(kind: u8, key: u64, params: &Params) -> u32 {
    u32::from(kind) * (params.front_mask + 1) + hash::index(key, params.front_mask)
}

/// Index of the line of a key behind the front.
#[inline(always)]
fn line(kind: u8, key: u64, params: &Params) -> u32 {
    let fronts = LimitKind::COUNT as u32 * (params.front_mask + 1);
    fronts + u32::from(kind) * (params.line_mask + 1) + hash::index(key, params.line_mask)
}

/// Where a host's exact cells are: the bucket, and the first cell in it; at 0 there are none.
#[derive(Clone, Copy)]
struct Earned {
    bucket: u32,
    at: u32,
}

/// Looks for the exact cells of a packet's source.
#[inline(always)]
fn find<T: Tables>(packet: &Packet, hash: u64, salt: u16, params: &Params, tables: &T) -> Earned {
    let host = EarnedHost::new(&packet.src.get(), packet.family.get());
    for bucket in earned::places(hash, params.earned_buckets) {
        if let Some(entries) = tables.earned(bucket) {
            let at = earned::find(entries, host, salt);
            if at != 0 {
                return Earned { bucket, at };
            }
        }
    }
    Earned { bucket: 0, at: 0 }
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
