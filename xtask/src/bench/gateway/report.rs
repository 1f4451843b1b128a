//! What was measured, as a table, as JSON.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    Options, Sample, Samples,
    scenarios::{SCENARIOS, Scenario},
};

/// What stands for asking the origin itself.
pub(super) const DIRECT: &str = "direct";

/// What is said about one proxy in one scenario.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) figure: f64,
    low: f64,
    high: f64,
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    pss_mib: f64,
    errors: u64,
}

/// The rows of a scenario, in the order in which the proxies were measured, and the best peer's figure.
pub(super) fn rows(index: usize, samples: &Samples) -> (Vec<Row>, Option<f64>) {
    let Some(scenario) = SCENARIOS.get(index) else {
        return (Vec::new(), None);
    };
    let rows: Vec<Row> = samples
        .iter()
        .filter(|((of, _), _)| *of == index)
        .map(|((_, name), samples)| {
            let mut figures: Vec<f64> = samples.iter().map(|sample| scenario.figure.of(sample)).collect();
            figures.sort_by(f64::total_cmp);
            let of = |get: &dyn Fn(&Sample) -> f64| median(samples.iter().map(get).collect());
            Row {
                name,
                figure: median(figures.clone()),
                low: figures.first().copied().unwrap_or_default(),
                high: figures.last().copied().unwrap_or_default(),
                per_second: of(&|sample| sample.requests as f64 / sample.wall.as_secs_f64().max(1e-9)),
                p50_us: of(&|sample| sample.p50_us),
                p99_us: of(&|sample| sample.p99_us),
                pss_mib: of(&|sample| sample.pss_kib as f64 / 1024.0),
                errors: samples.iter().map(|sample| sample.errors).sum(),
            }
        })
        .collect();
    let own = |row: &&Row| ![DIRECT, "breakwater", "10,000 routes"].contains(&row.name);
    let peers = rows.iter().filter(own).map(|row| row.figure);
    let best = if scenario.figure.less_is_better() {
        peers.reduce(f64::min)
    } else {
        peers.reduce(f64::max)
    };
    (rows, best)
}

/// Prints a scenario's table.
pub(super) fn print(scenario: &Scenario, index: usize, samples: &Samples) {
    let (rows, best) = rows(index, samples);
    println!(
        "{:14} {:>10} {:>19} {:>7} {:>10} {:>9} {:>9} {:>8}   {}",
        "",
        "median",
        "spread",
        "ratio",
        "a second",
        "p50 us",
        "p99 us",
        "PSS MiB",
        scenario.figure.unit()
    );
    for row in &rows {
        let ratio = best.map_or(f64::NAN, |best| row.figure / best);
        println!(
            "{:14} {:>10.2} {:>9.2}-{:<9.2} {:>7.2} {:>10.0} {:>9.1} {:>9.1} {:>8.1}",
            row.name,
            row.figure,
            row.low,
            row.high,
            ratio,
            row.per_second,
            row.p50_us,
            row.p99_us,
            row.pss_mib
        );
    }
    println!("aim: {:.2} of the best peer", scenario.aim);
}

/// Writes everything to a file.
pub(super) fn write(folder: &Path, options: &Options, samples: &Samples) -> Result<PathBuf> {
    let mut scenarios = Vec::new();
    for (index, scenario) in SCENARIOS.iter().enumerate() {
        let (rows, best) = rows(index, samples);
        if rows.is_empty() {
            continue;
        }
        let rows: Vec<Value> = rows
            .iter()
            .map(|row| {
                json!({
                    "proxy": row.name, "median": row.figure, "low": row.low, "high": row.high,
                    "ratio_to_best_peer": best.map(|best| row.figure / best), "requests_per_second": row.per_second,
                    "p50_us": row.p50_us, "p99_us": row.p99_us, "pss_mib": row.pss_mib, "errors": row.errors,
                })
            })
            .collect();
        scenarios.push(json!({
            "name": scenario.name, "about": scenario.about, "unit": scenario.figure.unit(), "aim": scenario.aim,
            "proxies": rows,
        }));
    }
    let document = json!({
        "rounds": options.rounds, "seconds": options.seconds, "realtime": options.realtime,
        "load_average_after": super::load_average(), "scenarios": scenarios,
    });
    let file = folder.join("results.json");
    fs::write(&file, serde_json::to_string_pretty(&document)?)?;
    Ok(file)
}

/// The middle value.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle.wrapping_sub(1)), values.get(middle)) {
        (Some(low), Some(high)) if values.len().is_multiple_of(2) => (low + high) / 2.0,
        (_, Some(middle)) => *middle,
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(Vec::new()).is_nan());
    }
}
