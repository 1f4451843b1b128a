//! A ceiling on bans a minute: whoever can provoke bans must not be able to ban the world. Pure.

use std::{collections::VecDeque, time::Duration};

/// Over what time bans are counted.
const WINDOW: Duration = Duration::from_mins(1);

/// Counts the bans of the last minute.
#[derive(Debug)]
pub struct Ceiling {
    most: u32,
    made: VecDeque<Duration>,
}

impl Ceiling {
    /// At most `most` bans a minute.
    pub fn new(most: u32) -> Self {
        Self {
            most,
            made: VecDeque::new(),
        }
    }

    /// Another ceiling; the bans of the last minute stay counted.
    pub fn configure(&mut self, most: u32) {
        self.most = most;
    }

    /// Whether one more ban may be made at `now`; counts it if so.
    pub fn admits(&mut self, now: Duration) -> bool {
        while self
            .made
            .front()
            .is_some_and(|first| now.saturating_sub(*first) >= WINDOW)
        {
            self.made.pop_front();
        }
        let has_room = self.made.len() < self.most as usize;
        if has_room {
            self.made.push_back(now);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    //! The ceiling over any minute.

    use super::*;

    #[test]
    fn no_minute_has_more_bans_than_the_ceiling() {
        let mut ceiling = Ceiling::new(10);
        let made: Vec<u64> = (0..600)
            .filter(|second| {
                ceiling.admits(Duration::from_secs(*second)) | ceiling.admits(Duration::from_secs(*second))
            })
            .collect();
        for start in 0..540 {
            let within = made
                .iter()
                .filter(|second| (start..start + 60).contains(*second))
                .count();
            assert!(within <= 10, "{within} bans in the minute from {start}");
        }
        assert!(made.len() >= 50, "the ceiling lets bans through again");
    }
}
