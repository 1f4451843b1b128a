//! How many retries a worker may send: a share of its requests, and a few a second besides.
//!
//! Without a budget an upstream that fails gets a multiple of the load that it could not bear.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// Retries a second that need no requests to pay for them.
pub const FREE_PER_SECOND: u32 = 10;

/// Retries that can be saved up.
pub const MAX_SAVED: u32 = 100;

/// One retry, in the unit of the account.
const PRICE: u32 = 100;

/// A worker's account.
#[derive(Debug)]
pub struct Budget {
    percent: u32,
    saved: Cell<u32>,
    filled: Cell<Option<Instant>>,
}

impl Budget {
    /// An account into which each request pays `percent` hundredths of a retry.
    pub fn new(percent: u32) -> Self {
        Self {
            percent,
            saved: Cell::new(FREE_PER_SECOND * PRICE),
            filled: Cell::new(None),
        }
    }

    /// A request pays in.
    #[inline]
    pub fn pay(&self) {
        self.save(self.percent);
    }

    /// Takes out a retry, if there is one.
    pub fn take(&self, now: Instant) -> bool {
        let since = self.filled.get().map_or(Duration::ZERO, |filled| now - filled);
        let earned = u64::from(FREE_PER_SECOND * PRICE) * since.as_millis() as u64 / 1000;
        if earned > 0 || self.filled.get().is_none() {
            self.filled.set(Some(now));
            self.save(u32::try_from(earned).unwrap_or(u32::MAX));
        }
        let saved = self.saved.get();
        self.saved.set(saved.saturating_sub(PRICE));
        if saved < PRICE {
            self.saved.set(saved);
        }
        saved >= PRICE
    }

    fn save(&self, amount: u32) {
        let saved = self.saved.get().saturating_add(amount);
        self.saved.set(saved.min(MAX_SAVED * PRICE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_requests_and_a_few_a_second() {
        let budget = Budget::new(20);
        let now = Instant::now();
        let spent = (0..1000).filter(|_| budget.take(now)).count();
        assert_eq!(spent, FREE_PER_SECOND as usize, "what it starts with");
        for _ in 0..50 {
            budget.pay();
        }
        assert_eq!((0..1000).filter(|_| budget.take(now)).count(), 10);
        let later = now + Duration::from_millis(500);
        assert_eq!((0..1000).filter(|_| budget.take(later)).count(), 5);
        for _ in 0..1_000_000 {
            budget.pay();
        }
        assert_eq!(
            (0..1000).filter(|_| budget.take(later)).count(),
            MAX_SAVED as usize
        );
    }
}
