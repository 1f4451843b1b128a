//! The generic cell rate algorithm on 32-bit cells.
//!
//! GCRA (ITU-T I.371, annex A): a flow's whole state is its theoretical arrival time, TAT. A packet of cost `c`
//! at time `now` conforms if `max(TAT, now) + c <= now + burst`; then TAT becomes `max(TAT, now) + c`.
//!
//! Time is counted in *cell units*: a limit's own fraction of a tick, chosen by [`scale`] so that costs are
//! whole numbers with under 0.5 % of rounding. Units wrap at 2^32. A live TAT is never more than the burst ahead
//! of now, so anything further ahead is an old value, and counts as idle. An idle cell read a whole number of
//! wraps later can look partly used, with probability burst / 2^32 (at most 1/16, see [`MAX_CAPACITY`]); it
//! then lends less burst for one burst's time, and never admits more.

use crate::abi::LimitParams;

/// Largest burst in cell units: a sixteenth of the wrap, which bounds how often a stale TAT looks alive.
pub const MAX_CAPACITY: u32 = 1 << 28;

/// The least units a tick: below 256 the rounding to whole units would exceed 0.2 %.
const MIN_UNITS_PER_TICK: u128 = 256;

/// Bursts are at least this many ticks' worth: between two ticks the clock stands still.
pub const MIN_BURST_TICKS: u64 = 2;

/// Why a rate cannot be expressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScaleError {
    /// A rate of zero is a ban, not a limit.
    ZeroRate,
    /// The burst does not cover two timer ticks at this rate; the least burst is given.
    BurstTooSmall {
        /// Least burst that works.
        least: u64,
    },
    /// The burst is too large for this rate; the largest is given.
    BurstTooLarge {
        /// Largest burst that works.
        most: u64,
    },
    /// The rate is beyond what 32-bit cells can count.
    RateTooLarge,
}

/// The time at `tick`, in units of the limit `params`.
#[inline(always)]
pub const fn now_units(params: &LimitParams, tick: u64) -> u32 {
    (tick as u32).wrapping_mul(params.units_per_tick)
}

/// How far `tat` lies ahead of `now`; 0 for an idle or stale cell.
#[inline(always)]
pub const fn ahead(tat: u32, now: u32, capacity: u32) -> u32 {
    let ahead = tat.wrapping_sub(now);
    if ahead > capacity { 0 } else { ahead }
}

/// The new distance of the TAT from now if a packet of `cost` conforms, or `None` if it does not.
#[inline(always)]
pub const fn charge(ahead: u32, cost: u32, capacity: u32) -> Option<u32> {
    // Both are at most MAX_CAPACITY, so the sum cannot wrap.
    let next = ahead + cost;
    if next > capacity { None } else { Some(next) }
}

/// Cost of `amount` bytes (or of one packet, with `amount` 1), at most the burst: a packet larger than the
/// burst takes all of it, rather than never passing.
#[inline(always)]
pub const fn cost(params: &LimitParams, amount: u32) -> u32 {
    // A frame is below 2^17 bytes and a cost per byte below 2^12, see `scale`.
    let cost = amount.saturating_mul(params.cost);
    if cost > params.capacity {
        params.capacity
    } else {
        cost
    }
}

/// Scales a rate for cells on a clock of `hz` ticks a second.
///
/// `per_second` and `burst` are packets, or bytes with `bytes`.
///
/// # Errors
/// A rate of zero; a burst below two ticks' worth or (with bytes) below one byte; a burst that does not fit.
pub fn scale(per_second: u64, burst: u64, hz: u32, bytes: bool) -> Result<LimitParams, ScaleError> {
    if per_second == 0 {
        return Err(ScaleError::ZeroRate);
    }
    let hz = u64::from(hz.max(1));
    let least = per_second.div_ceil(hz).saturating_mul(MIN_BURST_TICKS).max(1);
    if burst < least {
        return Err(ScaleError::BurstTooSmall { least });
    }
    // Cost of one unit of traffic: as large as needed for precision at low rates, as small as possible for range.
    let limit = if bytes { 12 } else { 24 };
    let start = if bytes { 0 } else { 8 };
    for shift in start..=limit {
        let cost = 1_u128 << shift;
        let units = (u128::from(per_second) * cost + u128::from(hz) / 2) / u128::from(hz);
        if units < MIN_UNITS_PER_TICK {
            continue;
        }
        let capacity = u128::from(burst) * cost;
        if units > u128::from(MAX_CAPACITY) {
            return Err(ScaleError::RateTooLarge);
        }
        if capacity > u128::from(MAX_CAPACITY) {
            let most = u64::from(MAX_CAPACITY) >> shift;
            return Err(ScaleError::BurstTooLarge { most });
        }
        return Ok(LimitParams {
            units_per_tick: units as u32,
            cost: cost as u32,
            capacity: capacity as u32,
            reserved: 0,
        });
    }
    // Only rates below MIN_UNITS_PER_TICK * hz / 2^limit a second get here: less than one byte a second.
    let cost = 1_u32 << limit;
    let units = ((u128::from(per_second) << limit) / u128::from(hz)).max(1) as u32;
    let most = u64::from(MAX_CAPACITY) >> limit;
    if burst > most {
        return Err(ScaleError::BurstTooLarge { most });
    }
    Ok(LimitParams {
        units_per_tick: units,
        cost,
        capacity: burst as u32 * cost,
        reserved: 0,
    })
}

#[cfg(test)]
mod tests;
