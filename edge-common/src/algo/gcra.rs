//! The generic cell rate algorithm on the words of the cell table.
//!
//! GCRA (ITU-T I.371, annex A): a flow's whole state is its theoretical arrival time, TAT. A packet of cost `c`
//! at time `now` conforms if `max(TAT, now) + c <= now + burst`; then TAT becomes `max(TAT, now) + c`.
//!
//! A cell is a 64-bit word: the TAT in its upper 48 bits, in 2^-24 of a tick, and a tag in the lower 16. All
//! arithmetic is on whole words ("cell units", 2^-40 of a tick) whose lower 16 bits are zero, so nothing is ever
//! shifted. Every limit counts in the same unit, so cells of different limits can be compared.
//!
//! Time wraps at 2^24 ticks (18 hours at 250 a second). A live TAT is at most the burst ahead of now, so anything
//! further ahead is an old value, and counts as idle. A cell that was idle for a whole number of wraps can look
//! partly used, with probability burst / 2^24 ticks (at most 1/16, see [`MAX_CAPACITY`]); it then lends less burst
//! for one burst's time, and never admits more.

use crate::abi::Limit;

/// Cell units of a tick, as a power of two.
const TICK_SHIFT: u32 = 40;
/// The bits of a word that are not time.
pub const TAG_MASK: u64 = 0xffff;
/// The least step of a TAT.
const STEP: u64 = TAG_MASK + 1;

/// Largest burst in cell units, 2^20 ticks: a sixteenth of the wrap, which bounds how often a stale TAT looks alive.
pub const MAX_CAPACITY: u64 = (1 << CAPACITY_SHIFT) - 1;
const CAPACITY_SHIFT: u32 = 60;

/// Bursts are at least this many ticks' worth: between two ticks the clock stands still.
pub const MIN_BURST_TICKS: u64 = 2;

/// The front tier may give away one part in so many of a burst.
const FRONT_SHARE: u64 = 4;

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
    /// The rate is beyond what cells can count.
    RateTooLarge,
}

/// The time at `tick`, in cell units.
#[inline(always)]
pub const fn now(tick: u64) -> u64 {
    tick << TICK_SHIFT
}

/// For how long the TAT in `word` has been past at `now`, in cell units; 0 if it lies ahead.
pub const fn idle(word: u64, now: u64) -> u64 {
    let past = now.wrapping_sub(word & !TAG_MASK);
    if past > 1 << 63 { 0 } else { past }
}

/// How far the TAT in `word` lies ahead of `now`; 0 for an idle or stale cell.
#[inline(always)]
pub const fn ahead(word: u64, now: u64) -> u64 {
    let ahead = (word & !TAG_MASK).wrapping_sub(now);
    // All bits if it is below the largest burst, else none: which it is cannot be predicted.
    let lives = (ahead >> CAPACITY_SHIFT).wrapping_sub(1).cast_signed() >> 63;
    ahead & lives.cast_unsigned()
}

/// What a cell holds before it is used, for tables made at `tick`: a time long past. Zeros are a time as well, and one
/// that lies ahead after a boot, since jiffies begin five minutes before they wrap.
pub const fn unused(tick: u64) -> u64 {
    now(tick.wrapping_sub(1 << 22))
}

/// The new distance of the TAT from now if a packet of `cost` conforms, or `None` if it does not. A cell that is
/// further ahead than this limit ever goes was not charged by it, and counts as idle.
#[inline(always)]
pub const fn charge(ahead: u64, cost: u64, capacity: u64) -> Option<u64> {
    // Both are at most MAX_CAPACITY, so the sum cannot wrap.
    let next = if ahead > capacity { cost } else { ahead + cost };
    if next > capacity { None } else { Some(next) }
}

/// Cost of `amount` bytes (or of one packet, with `amount` 1), at most what the front tier leaves of the burst: a
/// packet larger than that takes all of it, rather than never passing.
#[inline(always)]
pub const fn cost(limit: &Limit, amount: u32) -> u64 {
    if amount >= limit.rest {
        return limit.capacity - limit.front;
    }
    // Below the capacity, so the product does not wrap.
    (amount as u64 * limit.cost + STEP / 2) & !TAG_MASK
}

/// Scales a rate for cells on a clock of `hz` ticks a second: cost, capacity and burst; the caller fills in the rest.
///
/// `per_second` and `burst` are packets, or bytes with `bytes`.
///
/// # Errors
/// A rate of zero; a burst below two ticks' worth; a burst that does not fit; a rate so large that a packet takes no
/// time.
pub fn scale(per_second: u64, burst: u64, hz: u32, bytes: bool) -> Result<Limit, ScaleError> {
    if per_second == 0 {
        return Err(ScaleError::ZeroRate);
    }
    let hz = u64::from(hz.max(1));
    let least = per_second.div_ceil(hz).saturating_mul(MIN_BURST_TICKS).max(1);
    if burst < least {
        return Err(ScaleError::BurstTooSmall { least });
    }
    // A packet takes whole steps of the TAT; bytes are rounded once a packet.
    let step = if bytes { 1 } else { u128::from(STEP) };
    let second = u128::from(hz) << TICK_SHIFT;
    let steps = (second / step + u128::from(per_second) / 2) / u128::from(per_second);
    if steps == 0 {
        return Err(ScaleError::RateTooLarge);
    }
    let cost = steps * step;
    let whole = |amount: u64| (u128::from(amount) * cost).next_multiple_of(u128::from(STEP));
    let capacity = whole(burst);
    if capacity > u128::from(MAX_CAPACITY) {
        let most = (u128::from(MAX_CAPACITY) / cost) as u64;
        return Err(ScaleError::BurstTooLarge { most });
    }
    // What the front tier leaves still covers two ticks.
    let front = (burst / FRONT_SHARE).min(burst - least);
    Ok(Limit {
        cost: cost as u64,
        capacity: capacity as u64,
        front: (capacity - whole(burst - front)) as u64,
        rest: u32::try_from(burst - front).unwrap_or(u32::MAX),
        ..Limit::default()
    })
}

/// The rate and the burst that a limit was scaled from, on a clock of `hz` ticks a second.
#[cfg(any(test, feature = "std"))]
pub fn rate(limit: &Limit, hz: u32) -> (f64, f64) {
    let cost = limit.cost.max(1) as f64;
    let second = f64::from(hz) * (1_u64 << TICK_SHIFT) as f64;
    (second / cost, limit.capacity as f64 / cost)
}

#[cfg(test)]
mod tests;
