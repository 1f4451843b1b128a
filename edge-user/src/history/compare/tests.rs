//! Synthetic traffic with known differences, and with none.

use std::time::Duration;

use super::*;
use crate::gateway::tax::RouteLatency;

/// A day's traffic in an hour's cells: latencies lognormal around a median, which drifts from cell to cell (correlated),
/// as does the load.
struct Traffic {
    median: f64,
    per_cell: f64,
    errors: f64,
    cells: usize,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            median: 0.020,
            per_cell: 120.0,
            errors: 0.01,
            cells: 60,
        }
    }
}

/// A standard normal number (Box and Muller).
fn normal(random: &mut SmallRng) -> f64 {
    let (one, two): (f64, f64) = (random.random::<f64>().max(1e-12), random.random());
    (-2.0 * one.ln()).sqrt() * (std::f64::consts::TAU * two).cos()
}

impl Traffic {
    fn stretch(&self, random: &mut SmallRng) -> Stretch {
        let (mut drift, mut load) = (0.0, 0.0);
        let mut cell = || {
            drift = 0.5 * drift + 0.05 * normal(random);
            load = 0.5 * load + 0.05 * normal(random);
            let expected = self.per_cell * (1.0 + load);
            let count = (expected + expected.sqrt() * normal(random)).max(0.0).round() as i64;
            let (latency, tax) = (RouteLatency::default(), RouteLatency::default());
            let mut cell = Cell::default();
            for _ in 0..count {
                let seconds = self.median * (1.0 + drift) * (0.5 * normal(random)).exp();
                latency.add(Duration::from_secs_f64(seconds));
                tax.add(Duration::from_secs_f64(30e-6 * (0.2 * normal(random)).exp()));
                let failed = random.random::<f64>() < self.errors;
                cell.statuses[if failed { 4 } else { 1 }] += 1;
            }
            latency.merge_into(&mut cell.latency);
            tax.merge_into(&mut cell.tax);
            cell
        };
        Stretch {
            from: 0,
            cell_seconds: 60,
            cells: (0..self.cells).map(|_| cell()).collect(),
        }
    }
}

fn verdict(rows: &[Row], figure: Figure) -> Verdict {
    rows.iter()
        .find(|row| row.figure == figure)
        .expect("a row")
        .verdict
}

/// Where nothing is different, at most one comparison of twenty says otherwise; the bound leaves room for the luck of 100
/// (exceeded once in a thousand times at exactly 5 %).
#[test]
fn no_difference_is_seldom_taken_for_one() {
    let mut random = SmallRng::seed_from_u64(1);
    let false_alarms = (0..100)
        .filter(|_| {
            let (one, other) = (
                Traffic::default().stretch(&mut random),
                Traffic::default().stretch(&mut random),
            );
            let rows = rows(&one, &other);
            rows.iter().any(|row| row.verdict != Verdict::Same)
        })
        .count();
    println!("{false_alarms} of 100");
    assert!(false_alarms <= 12, "{false_alarms} of 100");
}

#[test]
fn a_known_difference_is_found_and_its_size_is_within_the_interval() {
    let mut random = SmallRng::seed_from_u64(2);
    let slower = Traffic {
        median: 0.024,
        ..Traffic::default()
    };
    let (mut found, mut within, mut others) = (0, 0, 0);
    for _ in 0..50 {
        let rows = rows(
            &Traffic::default().stretch(&mut random),
            &slower.stretch(&mut random),
        );
        let p50 = &rows[0];
        found += u32::from(p50.verdict == Verdict::Higher);
        let [low, high] = p50.interval.expect("enough cells");
        within += u32::from(low <= 0.004 && 0.004 <= high);
        others += u32::from(verdict(&rows, Figure::Tax) != Verdict::Same);
    }
    assert!(found >= 48, "{found} of 50");
    assert!(within >= 46, "{within} of 50");
    assert!(others <= 3, "{others} of 50");
}

#[test]
fn errors_and_load_are_told_apart_from_latency() {
    let mut random = SmallRng::seed_from_u64(3);
    let other = Traffic {
        errors: 0.06,
        per_cell: 200.0,
        ..Traffic::default()
    };
    let rows = rows(
        &Traffic::default().stretch(&mut random),
        &other.stretch(&mut random),
    );
    let got: Vec<_> = [Figure::P50, Figure::Errors, Figure::Rate]
        .map(|figure| verdict(&rows, figure))
        .into();
    assert_eq!(got, [Verdict::Same, Verdict::Higher, Verdict::Higher]);
    let back = super::rows(
        &other.stretch(&mut random),
        &Traffic::default().stretch(&mut random),
    );
    assert_eq!(verdict(&back, Figure::Rate), Verdict::Lower);
}

#[test]
fn too_little_is_no_verdict() {
    let mut random = SmallRng::seed_from_u64(4);
    let short = Traffic {
        cells: LEAST_CELLS - 1,
        ..Traffic::default()
    };
    let rows = rows(
        &short.stretch(&mut random),
        &Traffic::default().stretch(&mut random),
    );
    assert!(
        rows.iter()
            .all(|row| row.verdict == Verdict::Unknown && row.interval.is_none())
    );
    let nothing = super::rows(&Stretch::default(), &Stretch::default());
    assert!(nothing.iter().all(|row| row.difference == 0.0));
}

#[test]
fn the_same_cells_give_the_same_answer_and_quantiles_agree() {
    let mut random = SmallRng::seed_from_u64(5);
    let (one, other) = (
        Traffic::default().stretch(&mut random),
        Traffic::default().stretch(&mut random),
    );
    assert_eq!(rows(&one, &other), rows(&one, &other));
    let (p99, sum) = (rows(&one, &other)[2].before, one.sum());
    assert!((p99 / (sum.latency.quantile_ns(0.99) / 1e9) - 1.0).abs() < 1e-9);
    // Student's t at 0.995833 with 14 degrees is 3.065 (tables give 3.06 to 3.07).
    assert!((student(14.0) - 3.065).abs() < 0.01, "{}", student(14.0));
}
