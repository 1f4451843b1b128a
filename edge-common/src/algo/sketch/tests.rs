//! What sharing cells, and sharing them between cores, does to a limit.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::vec::Vec;

use super::{Charge, charge_exact, charge_two};
use crate::{
    abi::Addr,
    algo::{gcra, hash},
};

const HZ: u32 = 250;

struct Sketch {
    rows: [Vec<AtomicU32>; 2],
    mask: u32,
}

impl Sketch {
    fn new(cells: u32) -> Self {
        let row = || (0..cells).map(|_| AtomicU32::new(0)).collect();
        Self {
            rows: [row(), row()],
            mask: cells - 1,
        }
    }

    fn charge(&self, limit: &crate::abi::LimitParams, tick: u64, source: u32) -> Charge {
        let h = hash::address(
            &Addr::from_v4_word(source.to_be()),
            &[0x1234_5678_9abc_def1, 0xfeed_face_cafe_beef],
            128,
        );
        let first = &self.rows[0][hash::low_index(h, self.mask) as usize];
        let second = &self.rows[1][hash::high_index(h, self.mask) as usize];
        charge_two(limit, tick, 1, first, second)
    }
}

/// The stated bound on collisions: a million honest sources at a tenth of their limit beside a thousand that
/// send ten times theirs, in the default table.
#[test]
fn collisions_refuse_fewer_than_one_honest_packet_in_ten_thousand() {
    let limit = gcra::scale(100, 50, HZ, false).expect("fits");
    let sketch = Sketch::new(1 << 18);
    let (mut honest, mut refused) = (0_u64, 0_u64);
    // Ten packets a second each: one every 25 ticks, out of step with each other.
    for tick in 1_000..1_000 + 300_u64 {
        for bad in 0..1_000_u32 {
            for _ in 0..4 {
                let _ = sketch.charge(&limit, tick, 0xc000_0000 + bad * 77);
            }
        }
        for source in (0..1_000_000_u32).skip((tick % 25) as usize).step_by(25) {
            let answer = sketch.charge(&limit, tick, 0x0a00_0000 + source);
            if tick >= 1_100 {
                honest += 1;
                refused += u64::from(answer != Charge::Admitted);
            }
        }
    }
    assert!(honest > 5_000_000);
    assert!(
        refused * 10_000 < honest,
        "{refused} of {honest} honest packets refused"
    );
}

#[test]
fn a_source_alone_gets_exactly_its_rate() {
    let limit = gcra::scale(1_000, 100, HZ, false).expect("fits");
    let sketch = Sketch::new(1 << 10);
    let mut admitted = 0_u64;
    for tick in 0..10 * u64::from(HZ) {
        for _ in 0..40 {
            admitted += u64::from(sketch.charge(&limit, 7 + tick, 42) == Charge::Admitted);
        }
    }
    let expected = 100 + 1_000 * 10;
    assert!(
        admitted.abs_diff(expected) <= expected / 100,
        "{admitted} admitted, {expected} configured"
    );
}

#[test]
fn a_light_source_does_not_advance_a_heavy_neighbours_cell() {
    let limit = gcra::scale(1_000, 100, HZ, false).expect("fits");
    let (shared, heavy_own, light_own) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    for _ in 0..50 {
        assert_eq!(charge_two(&limit, 1, 1, &shared, &heavy_own), Charge::Admitted);
    }
    let before = shared.load(Ordering::Relaxed);
    for _ in 0..20 {
        assert_eq!(charge_two(&limit, 1, 1, &shared, &light_own), Charge::Admitted);
    }
    assert_eq!(shared.load(Ordering::Relaxed), before);
}

/// Losing a compare-and-swap never admits more than configured, and rarely costs an admission.
#[test]
fn two_cores_share_one_limit() {
    let limit = gcra::scale(1_000_000, 200_000, HZ, false).expect("fits");
    let cell = (AtomicU32::new(0), AtomicU32::new(0));
    let (admitted, contended) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..150_000 {
                    match charge_two(&limit, 5, 1, &cell.0, &cell.1) {
                        Charge::Admitted => _ = admitted.fetch_add(1, Ordering::Relaxed),
                        Charge::Contended => _ = contended.fetch_add(1, Ordering::Relaxed),
                        Charge::Refused => {}
                    }
                }
            });
        }
    });
    let (admitted, contended) = (admitted.into_inner(), contended.into_inner());
    // The clock stands still: exactly the burst may pass.
    assert!(admitted <= 200_000, "{admitted} admitted of a burst of 200000");
    assert!(
        contended * 4 <= admitted,
        "{contended} contended beside {admitted} admitted"
    );
    assert!(
        admitted + contended >= 200_000,
        "{admitted} admitted, {contended} contended"
    );
}

#[test]
fn two_cores_share_an_exact_cell() {
    let limit = gcra::scale(1_000_000, 200_000, HZ, false).expect("fits");
    let cell = AtomicU32::new(0);
    let admitted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..150_000 {
                    if charge_exact(&limit, 5, 1, &cell) == Charge::Admitted {
                        admitted.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert!(admitted.into_inner() <= 200_000);
}
