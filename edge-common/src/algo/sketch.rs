//! The default tier of the limiter: a two-row sketch of GCRA cells.
//!
//! A key owns one cell in each row, shared with whoever hashes there. Each cell's TAT is at least that of every
//! key in it, so the *smaller* of the two is the better estimate, and a packet is refused only if even that one
//! refuses it. Charging is conservative: both cells are raised to the new estimate, never beyond it, so a light
//! key beside a heavy one does not advance the heavy one's cell. Bounded memory, no insertion, nothing to evict.
//!
//! The compare-and-swap on the deciding cell is what admits; if it is lost [`MAX_TRIES`] times in a row, which
//! takes as many *admitted* packets of other cores in the same cell, the packet is refused: the configured
//! rate is never exceeded, and what contention costs is under one refusal in `MAX_TRIES` admissions.

use super::gcra;
use crate::abi::LimitParams;

/// Attempts to charge a cell before the packet is refused as contended.
pub const MAX_TRIES: u32 = 4;

/// One 32-bit cell shared between cores.
pub trait Cell {
    /// The value now.
    fn load(&self) -> u32;
    /// Stores `new` if the value is `old`; whether it did.
    fn swap(&self, old: u32, new: u32) -> bool;
}

/// Answer of a limiter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Charge {
    /// It conforms, and is charged.
    Admitted,
    /// It is over the limit; nothing was charged.
    Refused,
    /// The cell was too busy to charge.
    Contended,
}

/// Judges and charges one packet on an exact cell.
#[inline(always)]
pub fn charge_exact<C: Cell>(params: &LimitParams, tick: u64, amount: u32, cell: &C) -> Charge {
    let now = gcra::now_units(params, tick);
    let cost = gcra::cost(params, amount);
    let mut tries = 0;
    while tries < MAX_TRIES {
        let old = cell.load();
        let Some(next) = gcra::charge(gcra::ahead(old, now, params.capacity), cost, params.capacity) else {
            return Charge::Refused;
        };
        if cell.swap(old, now.wrapping_add(next)) {
            return Charge::Admitted;
        }
        tries += 1;
    }
    Charge::Contended
}

/// Judges and charges one packet on the two cells of its key.
#[inline(always)]
pub fn charge_two<C: Cell>(params: &LimitParams, tick: u64, amount: u32, first: &C, second: &C) -> Charge {
    let now = gcra::now_units(params, tick);
    let cost = gcra::cost(params, amount);
    let mut tries = 0;
    while tries < MAX_TRIES {
        let a = first.load();
        let b = second.load();
        let ahead_a = gcra::ahead(a, now, params.capacity);
        let ahead_b = gcra::ahead(b, now, params.capacity);
        let (deciding, old, least, other, other_old, other_ahead) = if ahead_a < ahead_b {
            (first, a, ahead_a, second, b, ahead_b)
        } else {
            (second, b, ahead_b, first, a, ahead_a)
        };
        let Some(next) = gcra::charge(least, cost, params.capacity) else {
            return Charge::Refused;
        };
        let tat = now.wrapping_add(next);
        // The other cell first: whoever sees the deciding cell charged must not find the other one behind.
        if (other_ahead >= next || other.swap(other_old, tat)) && deciding.swap(old, tat) {
            return Charge::Admitted;
        }
        tries += 1;
    }
    Charge::Contended
}

#[cfg(test)]
mod tests;
