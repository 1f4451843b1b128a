//! The arithmetic against a reference on exact rationals, clock wrap included.

use std::vec;

use proptest::prelude::*;

use super::{MAX_CAPACITY, ScaleError, ahead, charge, cost, now, scale};

/// GCRA on 128-bit integers, in cell units that never wrap.
struct Reference {
    tat: u128,
}

impl Reference {
    fn admits(&mut self, now: u128, cost: u128, capacity: u128) -> bool {
        let next = self.tat.max(now) + cost;
        let conforms = next <= now + capacity;
        if conforms {
            self.tat = next;
        }
        conforms
    }
}

#[test]
fn a_rate_of_zero_and_bursts_that_do_not_fit_are_refused() {
    assert_eq!(scale(0, 10, 250, false), Err(ScaleError::ZeroRate));
    assert_eq!(
        scale(1000, 7, 250, false),
        Err(ScaleError::BurstTooSmall { least: 8 })
    );
    assert_eq!(
        scale(1, 0, 250, false),
        Err(ScaleError::BurstTooSmall { least: 2 })
    );
    // 2^20 ticks are 4,194 seconds.
    assert!(scale(1000, 4_194_000, 250, false).is_ok());
    assert!(matches!(
        scale(1000, 4_195_000, 250, false),
        Err(ScaleError::BurstTooLarge {
            most: 4_194_000..4_195_000
        })
    ));
    assert_eq!(scale(1 << 40, 1 << 40, 100, false), Err(ScaleError::RateTooLarge));
}

proptest! {
    #[test]
    fn the_scaled_rate_is_within_half_a_percent(
        per_second in 1_u64..2_000_000,
        hz in prop::sample::select(vec![100_u32, 250, 300, 1000]),
    ) {
        let least = (per_second.div_ceil(u64::from(hz)) * 2).max(1);
        let limit = scale(per_second, least, hz, false).expect("two ticks of burst always fit");
        let admitted = f64::from(hz) * 2_f64.powi(40) / limit.cost as f64;
        let wanted = per_second as f64;
        prop_assert!((admitted - wanted).abs() <= wanted * 0.005, "{admitted} for {wanted}");
        prop_assert!(limit.capacity <= MAX_CAPACITY);
    }

    #[test]
    fn byte_rates_are_within_half_a_percent(
        per_second in 1_000_u64..12_500_000_000,
        hz in prop::sample::select(vec![100_u32, 250, 300, 1000]),
    ) {
        let burst = (per_second.div_ceil(u64::from(hz)) * 2).max(65_536);
        let Ok(limit) = scale(per_second, burst, hz, true) else { return Ok(()) };
        let admitted = f64::from(hz) * 2_f64.powi(40) / limit.cost as f64;
        let wanted = per_second as f64;
        prop_assert!((admitted - wanted).abs() <= wanted * 0.005, "{admitted} for {wanted}");
    }

    #[test]
    fn it_equals_the_reference_across_the_wrap(
        per_second in 1_u64..1_000_000,
        extra in 0_u64..1000,
        start in any::<u64>().prop_map(|tick| tick >> 8),
        steps in prop::collection::vec((0_u64..40, 1_u32..4), 1..200),
    ) {
        let burst = per_second.div_ceil(250) * 2 + extra;
        let limit = scale(per_second, burst, 250, false).expect("fits");
        let mut tick = start;
        let mut tat = now(tick);
        let mut reference = Reference { tat: 0 };
        for (pause, packets) in steps {
            tick += pause;
            for _ in 0..packets {
                let now = now(tick);
                let price = cost(&limit, 1);
                let mine = charge(ahead(tat, now), price, limit.capacity);
                let theirs =
                    reference.admits(u128::from(tick) << 40, u128::from(price), u128::from(limit.capacity));
                prop_assert_eq!(mine.is_some(), theirs);
                if let Some(next) = mine {
                    tat = now.wrapping_add(next);
                }
            }
        }
    }

    #[test]
    fn it_never_admits_more_than_burst_and_rate(
        per_second in 1_u64..100_000,
        extra in 0_u64..500,
        pauses in prop::collection::vec(0_u64..10, 1..300),
    ) {
        let burst = per_second.div_ceil(250) * 2 + extra;
        let limit = scale(per_second, burst, 250, false).expect("fits");
        let mut tick = 12_345;
        let begin = tick;
        let mut tat = now(tick);
        let mut admitted = 0_u64;
        for pause in pauses {
            tick += pause;
            for _ in 0..=burst / 4 {
                let now = now(tick);
                if let Some(next) = charge(ahead(tat, now), limit.cost, limit.capacity) {
                    tat = now.wrapping_add(next);
                    admitted += 1;
                }
            }
            let seconds = (tick - begin) as f64 / 250.0;
            let allowed = burst as f64 + per_second as f64 * 1.005 * seconds;
            prop_assert!(admitted as f64 <= allowed + 1e-6, "{admitted} > {allowed}");
        }
    }

    #[test]
    fn a_packet_larger_than_the_burst_passes_when_idle(amount in 1_u32..200_000) {
        let limit = scale(100_000, 2_000, 250, true).expect("fits");
        let price = cost(&limit, amount);
        prop_assert!(charge(0, price, limit.capacity).is_some());
    }
}
