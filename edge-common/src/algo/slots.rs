//! The default tier of the limiter: a small front of shared GCRA cells, and behind it sets of tagged ones.
//!
//! Every key has a cell in the *front*, which is small enough to stay in a core's own cache, and shares it with whoever
//! hashes there. It is charged for every packet that any of them is admitted. While it is within a part of the burst
//! ([`Limit::front`]), each of its keys is, and no more is asked: so it is with most traffic, and with a flood of which
//! every packet has another source. Beyond it the key's own cell behind the front decides, within the *rest* of the
//! burst. What a key was admitted is then at most that part more than its own cell knows: never more than the burst in
//! all, and in the long run the rate. In a crowded front, a key has only the rest of its burst.
//!
//! Behind the front, a key has a line of [`SLOTS_PER_LINE`] cells, a cache line, in it a set of [`WAYS`] of them, and in that a cell of its
//! own, found by a 16-bit tag. A key without one takes over the cell that is least ahead, *with* what that cell has been
//! charged ("Space-Saving": Metwally, Agrawal, El Abbadi, "Efficient computation of frequent and top-k elements in data
//! streams", 2005). As most sources are idle most of the time, that is nearly always a cell with nothing on it.
//!
//! Invariants, for keys of one limit: a key's cell is never charged less than the key was, since what was displaced
//! was least, and the least of a set only grows; so nobody gets more than his rate by being displaced. It is charged
//! more than the key was at most by the least of its set, so an honest key is refused only while *every* cell of its
//! set is about to be refused. Nothing is inserted or evicted elsewhere; memory is fixed.
//!
//! A key that was found away from its home goes there once the home is idle, and leaves a copy that it will not charge
//! again: whoever displaces something displaces the copy first, since it is behind.
//!
//! A charge is one compare-and-swap. If it is lost [`MAX_TRIES`] times in a row, which takes as many *admitted*
//! packets of other cores in the same cell, the packet is refused: the configured rate is never exceeded, and what
//! contention costs is at most one refusal in `MAX_TRIES` admissions. (Two cores that charge an absent key at the same
//! moment can place it twice, if a third displaces another key meanwhile: one packet's worth, once.)

use super::gcra::{self, TAG_MASK};
use crate::abi::{Limit, SLOTS_PER_LINE};

/// Cells of a set.
pub const WAYS: usize = 4;

/// Attempts to charge a cell before the packet is refused as contended.
pub const MAX_TRIES: u32 = 4;

/// One 64-bit cell shared between cores.
pub trait Cell {
    /// The value now.
    fn load(&self) -> u64;
    /// Stores `new` if the value is `old`; whether it did.
    fn swap(&self, old: u64, new: u64) -> bool;
    /// Answers with the index it is given. In the kernel the compiler does not see where it comes from, so the check
    /// of its range that follows stays: older verifiers (6.1) do not follow an exclusive or.
    fn hide(index: usize) -> usize {
        index
    }
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

/// Judges and charges one packet on a cell that only its key has. The tag stays.
#[inline(always)]
pub fn charge_exact<C: Cell>(cell: &C, now: u64, cost: u64, capacity: u64) -> Charge {
    let mut tries = 0;
    while tries < MAX_TRIES {
        match charge_exact_once(cell, now, cost, capacity) {
            Charge::Contended => tries += 1,
            judged => return judged,
        }
    }
    Charge::Contended
}

/// One attempt of [`charge_exact`].
#[inline(always)]
pub fn charge_exact_once<C: Cell>(cell: &C, now: u64, cost: u64, capacity: u64) -> Charge {
    let old = cell.load();
    let Some(next) = gcra::charge(gcra::ahead(old, now), cost, capacity) else {
        return Charge::Refused;
    };
    if cell.swap(old, now.wrapping_add(next) | old & TAG_MASK) {
        Charge::Admitted
    } else {
        Charge::Contended
    }
}

/// What the front tier says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Front {
    /// The packet conforms, and is charged.
    Admitted,
    /// The exact tier has to judge.
    Over,
}

/// Judges and charges one packet on the front cell of its key, which many keys share: what all of them were admitted
/// is charged to it, so while it is within `limit.front`, each of them is.
#[inline(always)]
pub fn charge_front<C: Cell>(cell: &C, now: u64, cost: u64, limit: &Limit) -> Front {
    let old = cell.load();
    let next = gcra::ahead(old, now) + cost;
    if next <= limit.front && cell.swap(old, now.wrapping_add(next)) {
        return Front::Admitted;
    }
    Front::Over
}

/// Charges the front cell for a packet that the tier behind it admitted. It need not go further ahead than `most`, a
/// burst and what it may give away: when it is back, all keys have been idle for long enough.
#[inline(always)]
pub fn raise_front<C: Cell>(cell: &C, now: u64, cost: u64, most: u64) {
    let mut tries = 0;
    while tries < MAX_TRIES {
        let old = cell.load();
        let ahead = gcra::ahead(old, now);
        let next = ahead + cost;
        let next = if next > most { most } else { next };
        if next <= ahead || cell.swap(old, now.wrapping_add(next)) {
            return;
        }
        tries += 1;
    }
}

/// The tier behind the front: judges by the front cell first, and keeps it charged.
#[inline(always)]
pub fn charge_tiers<C: Cell>(
    front: &C,
    line: &[C; SLOTS_PER_LINE],
    tag: u64,
    now: u64,
    cost: u64,
    limit: &Limit,
) -> Charge {
    if charge_front(front, now, cost, limit) == Front::Admitted {
        return Charge::Admitted;
    }
    let charged = charge(line, tag, now, cost, limit.capacity - limit.front);
    if charged == Charge::Admitted {
        raise_front(front, now, cost, limit.capacity + limit.front);
    }
    charged
}

/// What a key has been charged by both tiers under `limit`, ahead of `now`: its own cell, and of the front cell what that may
/// give away, whoever it was given to. At most the burst.
///
/// A key that has been displaced has no cell of its own, and counts for nothing here: in a flood that fills the lines,
/// the least of its set is what others sent.
#[inline(always)]
pub fn charged<C: Cell>(front: &C, line: &[C; SLOTS_PER_LINE], tag: u64, now: u64, limit: &Limit) -> u64 {
    let tag = tag & TAG_MASK;
    let home = tag as usize % SLOTS_PER_LINE;
    let mut own = 0;
    let mut way = 0;
    while way < WAYS {
        let word = line[C::hide(home ^ way) % SLOTS_PER_LINE].load();
        let ahead = gcra::ahead(word, now);
        // The copy that a key leaves behind when it goes home is behind. What is further ahead than the limit ever goes
        // was not charged by it.
        if (word ^ tag) & TAG_MASK == 0 && ahead > own && ahead <= limit.capacity - limit.front {
            own = ahead;
        }
        way += 1;
    }
    let given = gcra::ahead(front.load(), now);
    own + if given > limit.front { limit.front } else { given }
}

/// Judges and charges one packet on the line of its key. Of `tag` the lower 16 bits count.
#[inline(always)]
pub fn charge<C: Cell>(line: &[C; SLOTS_PER_LINE], tag: u64, now: u64, cost: u64, capacity: u64) -> Charge {
    let mut tries = 0;
    while tries < MAX_TRIES {
        match charge_once(line, tag, now, cost, capacity) {
            Charge::Contended => tries += 1,
            judged => return judged,
        }
    }
    Charge::Contended
}

/// One attempt of [`charge`].
#[inline(always)]
pub fn charge_once<C: Cell>(
    line: &[C; SLOTS_PER_LINE],
    tag: u64,
    now: u64,
    cost: u64,
    capacity: u64,
) -> Charge {
    let tag = tag & TAG_MASK;
    let home = tag as usize % SLOTS_PER_LINE;
    let mut cell = &line[home];
    let mut old = cell.load();
    let mut ahead = gcra::ahead(old, now);
    // A key alone in its set lives here: one load and one compare.
    if (old ^ tag) & TAG_MASK != 0 {
        let found = look(line, tag, now, home, ahead);
        if ahead == 0 {
            ahead = found & !TAG_MASK;
        } else {
            cell = &line[C::hide(home ^ (found as usize % WAYS)) % SLOTS_PER_LINE];
            // Judged by what will be swapped, if another core was here since.
            old = cell.load();
            ahead = gcra::ahead(old, now);
        }
    }
    let Some(next) = gcra::charge(ahead, cost, capacity) else {
        return Charge::Refused;
    };
    if cell.swap(old, now.wrapping_add(next) | tag) {
        Charge::Admitted
    } else {
        Charge::Contended
    }
}

/// The cell of the set with this tag, or else the one least ahead: how far it is, and in the lower bits which it is,
/// counted from the home. Without branches but for the tags, which are predictable: floods make every other one a guess.
#[inline(always)]
fn look<C: Cell>(line: &[C; SLOTS_PER_LINE], tag: u64, now: u64, home: usize, ahead: u64) -> u64 {
    let mut least = ahead;
    let mut way = 1;
    while way < WAYS {
        let word = line[C::hide(home ^ way) % SLOTS_PER_LINE].load();
        let candidate = gcra::ahead(word, now) | way as u64;
        if (word ^ tag) & TAG_MASK == 0 {
            return candidate;
        }
        least = lesser(least, candidate);
        way += 1;
    }
    least
}

/// The lesser of two distances, neither of which has its uppermost bit.
#[inline(always)]
const fn lesser(a: u64, b: u64) -> u64 {
    let difference = a.wrapping_sub(b);
    b.wrapping_add(difference & (difference.cast_signed() >> 63).cast_unsigned())
}

#[cfg(test)]
mod tests;
