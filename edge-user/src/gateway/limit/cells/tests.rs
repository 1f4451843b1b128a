//! The rate, its precision across threads, and that no flood of other keys buys anybody anything.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn key(cells: &Cells, number: u64) -> u64 {
    cells.tag(|hasher| feed(hasher, 0, &number.to_le_bytes()))
}

#[test]
fn a_burst_then_the_rate_and_what_is_told_about_it() {
    let cells = Cells::new(1024);
    let rate = Gcra::new(10, Duration::from_secs(1), 3);
    let one = key(&cells, 1);
    let at = |tenths: u64| 5 * SECOND + tenths * SECOND / 10;
    for remaining in [2, 1, 0] {
        let verdict = cells.take(one, rate, at(0));
        assert!(verdict.admitted);
        assert_eq!(verdict.remaining, remaining);
    }
    let refused = cells.take(one, rate, at(0));
    assert!(!refused.admitted);
    assert_eq!(refused.retry_after, Duration::from_millis(100));
    assert_eq!(refused.full_after, Duration::from_millis(300));
    // Refusals cost nothing; one more is admitted exactly when it was said.
    assert!(!cells.take(one, rate, at(1) - 1).admitted);
    assert!(cells.take(one, rate, at(1)).admitted);
    assert!(!cells.take(one, rate, at(1)).admitted);
    assert!(cells.take(key(&cells, 2), rate, at(1)).admitted, "another key");
    assert_eq!(
        cells.take(one, rate, at(100)).remaining,
        2,
        "all of it comes back, and no more"
    );
}

#[test]
fn a_clock_that_stands_still_or_jumps_ahead_admits_no_more_than_the_burst() {
    let cells = Cells::new(1024);
    let rate = Gcra::new(1, Duration::from_hours(1), 5);
    let one = key(&cells, 1);
    let admitted = |now: u64| (0..100).filter(|_| cells.take(one, rate, now).admitted).count();
    assert_eq!(admitted(0), 5);
    assert_eq!(admitted(0), 0);
    assert_eq!(admitted(u64::MAX / 2), 5);
    assert_eq!(admitted(u64::MAX / 2), 0);
    assert_eq!(admitted(u64::MAX), 0, "the end of time admits nothing");
}

/// Many threads that ask for one key far too often, by one clock: the rate of all together is the configured one.
#[test]
fn workers_together_hold_the_rate_within_two_percent() {
    const ASKED: u64 = 400_000;
    let cells = Cells::new(1024);
    let rate = Gcra::new(100_000, Duration::from_secs(1), 100);
    let one = key(&cells, 1);
    let (clock, admitted) = (AtomicU64::new(SECOND), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..ASKED / 4 {
                    // A million requests a second, ten times the rate.
                    let now = clock.fetch_add(1_000, Ordering::Relaxed);
                    if cells.take(one, rate, now).admitted {
                        admitted.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let (real, allowed) = (admitted.load(Ordering::Relaxed), 100 + ASKED / 10);
    println!("{real} admitted of {allowed} allowed");
    assert!(real.abs_diff(allowed) * 50 <= allowed, "{real} of {allowed}");
}

/// A limit that is used up stays used up, however many other keys come: no eviction gives it back.
#[test]
fn a_flood_of_other_keys_resets_nobodys_limit() {
    let cells = Cells::with_sets(16);
    let rate = Gcra::new(10, Duration::from_hours(1), 10);
    let one = key(&cells, 0);
    assert_eq!((0..20).filter(|_| cells.take(one, rate, 0).admitted).count(), 10);
    for number in 1..20_000 {
        cells.take(key(&cells, number), rate, 0);
        assert!(!cells.take(one, rate, 0).admitted, "after {number} other keys");
    }
}

/// While a flood of made-up keys goes on at a pace that leaves each of them little debt, an honest new key is served.
#[test]
fn in_a_flood_new_keys_begin_with_little_debt() {
    let cells = Cells::with_sets(64);
    let rate = Gcra::new(60, Duration::from_mins(1), 20);
    let mut served = 0;
    for number in 0..5_120_u64 {
        // 512 cells, ten times as many keys within ten seconds.
        let now = number * 10 * SECOND / 5_120;
        cells.take(key(&cells, 1_000 + number), rate, now);
        if number % 64 == 0 && cells.take(key(&cells, 900_000_000 + number), rate, now).admitted {
            served += 1;
        }
    }
    assert!(served >= 78, "{served} of 80 honest keys were served");
}

proptest! {
    /// Whatever other keys come in between, in a table far too small for all: within any time no key gets more than its
    /// burst and its rate.
    #[test]
    fn no_key_ever_gets_more_than_its_limit(
        steps in prop::collection::vec((0_u64..40, 0_u64..SECOND / 4), 1..800),
        requests in 1_u64..20,
        burst in 1_u64..8,
    ) {
        let cells = Cells::with_sets(1);
        let rate = Gcra::new(requests, Duration::from_secs(1), burst);
        let mut now = 0;
        let mut admitted: Vec<Vec<u64>> = vec![Vec::new(); 40];
        for (number, pause) in steps {
            now += pause;
            if cells.take(key(&cells, number), rate, now).admitted {
                admitted[number as usize].push(now);
            }
        }
        for times in &admitted {
            for (first, begin) in times.iter().enumerate() {
                for (last, end) in times.iter().enumerate().skip(first) {
                    let most = burst + (end - begin) * requests / SECOND + 1;
                    prop_assert!((last - first + 1) as u64 <= most, "{} within {} ns", last - first + 1, end - begin);
                }
            }
        }
    }
}
