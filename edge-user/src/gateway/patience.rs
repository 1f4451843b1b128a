//! How long a client may take over its body, or over the answer's: the time it was waited for is measured, not the time
//! that passes while the upstream does not take or give more.

use std::time::{Duration, Instant};

/// Time spent waiting for one request body, and what it brought.
#[derive(Debug)]
pub(crate) struct Patience {
    window: Duration,
    rate: u32,
    waiting: Option<Instant>,
    waited: Duration,
    bytes: u64,
}

/// The body comes too slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooSlow;

impl Patience {
    /// Asks for `rate` bytes a second over each `window` of waiting.
    pub(crate) fn new(window: Duration, rate: u32) -> Self {
        Self {
            window,
            rate,
            waiting: None,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// Notes that the client is waited for.
    pub(crate) fn wait(&mut self, now: Instant) {
        self.waiting.get_or_insert(now);
    }

    /// Whether the client is waited for.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Notes that `bytes` have come.
    ///
    /// # Errors
    /// They are too few for the time that was spent waiting.
    pub(crate) fn came(&mut self, bytes: u64, now: Instant) -> Result<(), TooSlow> {
        self.bytes += bytes;
        let Some(since) = self.waiting.take() else {
            return Ok(());
        };
        self.waited += now.saturating_duration_since(since);
        if self.waited < self.window {
            return Ok(());
        }
        let least = self.waited.as_millis() * u128::from(self.rate) / 1000;
        let enough = u128::from(self.bytes) >= least;
        self.waited = Duration::ZERO;
        self.bytes = 0;
        if enough { Ok(()) } else { Err(TooSlow) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_waiting_counts() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut patience = Patience::new(10 * second, 100);
        // The upstream takes its time: no time of the client's.
        assert_eq!(patience.came(1, start + 1000 * second), Ok(()));
        // A byte a second.
        let mut now = start;
        let drip = (0..100).position(|_| {
            patience.wait(now);
            now += second;
            patience.came(1, now).is_err()
        });
        assert_eq!(drip, Some(9));
        // As many as asked for.
        for _ in 0..100 {
            patience.wait(now);
            now += second;
            assert_eq!(patience.came(100, now), Ok(()));
        }
    }
}
