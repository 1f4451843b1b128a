//! A service's budget: how many new connections, from whomever, before cookies are asked for.
//!
//! A limit by source does nothing against sources that are made up; this one counts for the service as a whole. The
//! first SYN over it engages cookies by a word that ages ([`SynState::UNTIL`]); SYNs over half of the budget push it on.
//! So cookies begin with the packet that exceeds the budget and end by themselves when it has been quiet for the hold
//! time, with no daemon alive.

use crate::{
    abi::{CookieMode, Limit, SynRule, SynState},
    algo::{
        gcra,
        slots::{self, Cell, Charge},
    },
};

/// A service's rule and state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guard<'t, C> {
    /// What the configuration says.
    pub(super) rule: &'t SynRule,
    /// What all CPUs share.
    pub(super) state: &'t [C; SynState::CELLS],
}

/// What a new connection meets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(super) enum Admission {
    /// It is within the budget.
    Within,
    /// It is over it.
    Over,
}

impl<C: Cell> Guard<'_, C> {
    /// Whether SYNs are answered with cookies at `tick`.
    #[inline(always)]
    pub(super) fn is_engaged(&self, tick: u64) -> bool {
        if self.rule.mode == CookieMode::Always as u8 {
            return true;
        }
        self.rule.mode == CookieMode::Auto as u8 && self.state[SynState::UNTIL].load() > tick
    }

    /// Charges one new connection (or source) to the budget; without one everything is within.
    #[inline(always)]
    pub(super) fn admit(&self, tick: u64) -> Admission {
        if self.rule.budget.capacity == 0 {
            return Admission::Within;
        }
        match charge(&self.rule.budget, &self.state[SynState::BUDGET], tick) {
            Charge::Admitted => Admission::Within,
            // A cell that is too busy to charge is one under a flood.
            Charge::Refused | Charge::Contended => Admission::Over,
        }
    }

    /// Engages cookies at `tick`. Whether they are in force then; not without a rule that asks for them.
    #[inline(always)]
    pub(super) fn engage(&self, tick: u64) -> bool {
        if self.rule.mode == CookieMode::Off as u8 {
            return false;
        }
        self.push(tick);
        true
    }

    /// Takes note of a SYN while cookies are engaged: above the quiet rate they stay so.
    #[inline(always)]
    pub(super) fn note(&self, tick: u64) {
        if self.rule.mode != CookieMode::Auto as u8 {
            return;
        }
        match charge(&self.rule.calm, &self.state[SynState::CALM], tick) {
            Charge::Admitted => {}
            Charge::Refused | Charge::Contended => self.push(tick),
        }
    }

    /// Moves the end of the engagement to a hold time from now, if that is a notable step: a flood must not have all CPUs
    /// write one word with every packet.
    #[inline(always)]
    fn push(&self, tick: u64) {
        let hold = u64::from(self.rule.hold_ticks);
        let until = &self.state[SynState::UNTIL];
        let old = until.load();
        if old > tick + (hold - hold / 8) {
            return;
        }
        // Whoever loses the race has been beaten by a CPU that wrote the same.
        if !until.swap(old, tick + hold) || old > tick {
            return;
        }
        let since = &self.state[SynState::SINCE];
        let _ = since.swap(since.load(), tick);
        let count = &self.state[SynState::ENGAGEMENTS];
        let before = count.load();
        let _ = count.swap(before, before + 1);
    }
}

/// Charges one packet to a cell that is this limit's alone.
#[inline(always)]
fn charge<C: Cell>(limit: &Limit, cell: &C, tick: u64) -> Charge {
    slots::charge_exact(cell, gcra::now(tick), gcra::cost(limit, 1), limit.capacity)
}

#[cfg(test)]
mod tests;
