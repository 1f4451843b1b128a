//! Budgets over time: when cookies begin, how they stay, how they end.

use core::sync::atomic::AtomicU64;

use super::*;
use crate::{abi::Limit, algo::gcra};

const HZ: u32 = 250;

fn rule(mode: CookieMode, per_second: u64, burst: u64) -> SynRule {
    let scale = |rate, burst| gcra::scale(rate, burst, HZ, false).unwrap_or_default();
    SynRule {
        budget: scale(per_second, burst),
        calm: scale(per_second / 2, burst / 2),
        hold_ticks: 10 * HZ,
        mode: mode as u8,
        scale: SynRule::OWN_SCALE,
        reserved: 0,
    }
}

fn state(tick: u64) -> [AtomicU64; SynState::CELLS] {
    SynState::unused(tick).cells.map(AtomicU64::new)
}

/// One SYN as the pipeline treats it: whether it is answered with a cookie.
fn syn(guard: &Guard<'_, AtomicU64>, tick: u64) -> bool {
    if guard.is_engaged(tick) {
        guard.note(tick);
        return true;
    }
    guard.admit(tick) == Admission::Over && guard.engage(tick)
}

fn engagements(state: &[AtomicU64; SynState::CELLS]) -> u64 {
    Cell::load(&state[SynState::ENGAGEMENTS])
}

#[test]
fn the_first_syn_over_the_budget_engages_and_not_one_before() {
    // Just before the low words of the ticks wrap, as they do five minutes after every boot.
    for start in [1_000_000, u64::from(u32::MAX) - 5, 0xffff_fffb, 0xffff_ffff] {
        // A rate whose steps do not come to lie on the wrap of time.
        let (rule, state) = (rule(CookieMode::Auto, 999, 100), state(start));
        let guard = Guard {
            rule: &rule,
            state: &state,
        };
        let passed = (0..101).filter(|_| !syn(&guard, start)).count();
        assert_eq!(passed, 100, "at {start}");
        assert!(guard.is_engaged(start + 9 * u64::from(HZ)));
        assert_eq!(engagements(&state), 1);
    }
}

#[test]
fn quiet_for_the_hold_time_ends_it_and_half_of_the_budget_does_not() {
    let (rule, state) = (rule(CookieMode::Auto, 1_000, 100), state(5_000));
    let guard = Guard {
        rule: &rule,
        state: &state,
    };
    let mut tick = 5_000;
    for _ in 0..=100 {
        syn(&guard, tick);
    }
    // 750 a second, three a tick: below the budget, above half of it. Cookies stay.
    for _ in 0..60 * HZ {
        tick += 1;
        for _ in 0..3 {
            assert!(syn(&guard, tick));
        }
    }
    assert_eq!(engagements(&state), 1, "pushed on, not engaged anew");
    // 250 a second: below half.
    let quiet = tick;
    loop {
        tick += 1;
        if !syn(&guard, tick) {
            break;
        }
    }
    let seconds = (tick - quiet) / u64::from(HZ);
    assert!((8..=11).contains(&seconds), "{seconds} s");
    for _ in 0..=100 {
        syn(&guard, tick);
    }
    assert!(guard.is_engaged(tick));
    assert_eq!(engagements(&state), 2);
}

#[test]
fn off_never_engages_and_always_always_is() {
    let (off, always, state) = (
        rule(CookieMode::Off, 10, 10),
        rule(CookieMode::Always, 10, 10),
        state(9),
    );
    let guard = Guard {
        rule: &off,
        state: &state,
    };
    for _ in 0..50 {
        assert!(!syn(&guard, 9));
    }
    assert_eq!(guard.admit(9), Admission::Over);
    assert!(
        Guard {
            rule: &always,
            state: &state
        }
        .is_engaged(9)
    );
    let open = SynRule {
        budget: Limit::default(),
        ..off
    };
    assert_eq!(
        Guard {
            rule: &open,
            state: &state
        }
        .admit(9),
        Admission::Within
    );
}

/// Four threads flood one service: the budget is kept, and one engagement counted.
#[test]
fn many_cpus_engage_once_and_keep_the_budget() {
    let (rule, state) = (rule(CookieMode::Auto, 1_000, 500), state(77));
    let passed: usize = std::thread::scope(|scope| {
        let threads: std::vec::Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let guard = Guard {
                        rule: &rule,
                        state: &state,
                    };
                    (0..10_000).filter(|_| !syn(&guard, 77)).count()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_default())
            .sum()
    });
    assert!(passed <= 500, "{passed} passed");
    assert_eq!(engagements(&state), 1);
}
