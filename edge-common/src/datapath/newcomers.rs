//! UDP services: a budget for sources that were not seen lately, since there is no handshake to test.
//!
//! Sources are remembered in cells of a tag and a time. A packet writes a cell only if its source is known already, or
//! within the budget: made-up sources cannot fill the table faster than the budget lets them in.

use super::{
    Packet, Tables,
    budget::{Admission, Guard},
};
use crate::{
    abi::{Code, Reason, SEEN, SEEN_SECONDS, hint},
    algo::{hash, slots::Cell},
};

/// A known source's time is renewed when it is this old, in seconds.
const RENEW_SECONDS: u32 = 8;

/// Answers [`Reason::NewSources`] if the source is not known and the budget is spent.
#[inline(always)]
pub(super) fn judge<T: Tables>(
    guard: &Guard<'_, T::Cell>,
    service: u16,
    packet: &Packet,
    tables: &T,
    tick: u64,
) -> Code {
    let params = tables.params();
    let keys = hint::Keys::new(&packet.src.get(), packet.family.get(), params);
    // Services have cells and tags of their own.
    let key = keys.host ^ u64::from(service) << 32 ^ u64::from(service);
    let Some(cell) = tables.seen(hash::index(key, SEEN - 1)) else {
        return Reason::Internal.into();
    };
    let now = seconds(tick, params.hz);
    let tag = key as u32;
    let old = cell.load();
    let age = now.wrapping_sub(old as u32);
    let is_known = (old >> 32) as u32 == tag && old != 0 && age <= SEEN_SECONDS;
    if is_known && age < RENEW_SECONDS {
        return Code::GO_ON;
    }
    if !is_known && guard.admit(tick) == Admission::Over {
        return Reason::NewSources.into();
    }
    // Whoever wrote meanwhile wins: that costs this source another admission at worst.
    let _ = cell.swap(old, u64::from(tag) << 32 | u64::from(now));
    Code::GO_ON
}

/// Seconds of the tick clock.
#[inline(always)]
const fn seconds(tick: u64, hz: u32) -> u32 {
    let hz = if hz == 0 { 1 } else { hz };
    (tick / hz as u64) as u32
}
