//! When an endpoint is left out for what requests met there, and for how long. Pure.

use std::time::{Duration, Instant};

use crate::config::Ejection;

/// What is remembered of an endpoint.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Record {
    until: Option<Instant>,
    times: u32,
    /// Requests and failures when shares were last looked at.
    counted: (u64, u64),
}

impl Record {
    /// When it ends, if it is ejected.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Ejects it: each time for twice as long, unless it was well for long enough.
    pub(super) fn eject(&mut self, ejection: &Ejection, now: Instant) -> Duration {
        let factor = 2_u32.saturating_pow(self.times.min(31));
        let time = ejection.time.saturating_mul(factor).min(ejection.max_time);
        self.times = self.times.saturating_add(1);
        self.until = Some(now + time);
        time
    }

    /// Takes it back if its time is over.
    pub(super) fn end(&mut self, now: Instant) -> bool {
        let over = self.until.is_some_and(|until| until <= now);
        if over {
            self.until = None;
        }
        over
    }

    /// Looks at the share of failures since the last look; answers whether it is too large.
    pub(super) fn look(&mut self, ejection: &Ejection, counts: (u64, u64)) -> bool {
        let requests = counts.0.saturating_sub(self.counted.0);
        let failures = counts.1.saturating_sub(self.counted.1);
        self.counted = counts;
        if failures == 0 && requests > 0 && self.until.is_none() {
            // It was well: what it did before is forgotten step by step.
            self.times = self.times.saturating_sub(1);
        }
        ejection.failure_percent.is_some_and(|percent| {
            requests >= u64::from(ejection.min_requests.max(1))
                && failures * 100 >= requests * u64::from(percent)
        })
    }
}

/// Whether one more may be ejected where `ejected` of `all` are.
pub(super) fn has_room(ejection: &Ejection, ejected: usize, all: usize) -> bool {
    all > 1 && (ejected + 1) * 100 <= all * usize::from(ejection.max_percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_twice_as_long_up_to_the_longest() {
        let ejection = Ejection {
            time: Duration::from_secs(10),
            max_time: Duration::from_secs(50),
            ..Ejection::default()
        };
        let (mut record, now) = (Record::default(), Instant::now());
        let times: Vec<_> = (0..5).map(|_| record.eject(&ejection, now).as_secs()).collect();
        assert_eq!(times, [10, 20, 40, 50, 50]);
        assert!(!record.end(now));
        assert!(record.end(now + Duration::from_secs(50)));
        assert!(!record.end(now + Duration::from_secs(50)));
        for round in 1..=5 {
            record.look(&ejection, (round * 100, 0));
        }
        assert_eq!(record.eject(&ejection, now).as_secs(), 10, "it was well for long");
    }

    #[test]
    fn shares_need_enough_requests() {
        let ejection = Ejection {
            failure_percent: Some(50),
            min_requests: 10,
            ..Ejection::default()
        };
        let mut record = Record::default();
        assert!(!record.look(&ejection, (9, 9)), "too few to tell");
        assert!(!record.look(&ejection, (29, 18)), "9 of 20");
        assert!(record.look(&ejection, (49, 28)), "10 of 20");
        assert!(!record.look(&ejection, (49, 28)), "nothing new");
    }

    #[test]
    fn some_always_stay() {
        let ejection = Ejection::default();
        assert!(!has_room(&ejection, 0, 1));
        assert!(has_room(&ejection, 0, 2));
        assert!(!has_room(&ejection, 1, 2));
        assert!(has_room(&ejection, 0, 3) && !has_room(&ejection, 1, 3));
        let all = Ejection {
            max_percent: 100,
            ..ejection
        };
        assert!(has_room(&all, 1, 2) && !has_room(&all, 0, 1));
    }
}
