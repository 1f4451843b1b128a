//! Two stretches of time of one route: what is different, and whether that may be chance.
//!
//! A difference's standard error comes from a moving block bootstrap: stretches are drawn again from runs of neighbouring
//! cells, since what comes soon after one another is alike, and every figure is computed from what was drawn. Its interval is
//! the difference and so many standard errors at each side as Student's t says, with one degree of freedom a block. The level
//! holds for all figures of a comparison together (Bonferroni). Pure; the same cells give the same answer.

use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde::{Deserialize, Serialize};

use super::Cell;
use crate::gateway::tax::{HistogramSnapshot, lower_bound_ns};

/// How sure all intervals of a comparison are together.
pub const CONFIDENCE: f64 = 0.95;

/// Times that each stretch is drawn again.
const DRAWS: usize = 400;

/// Cells with requests that a stretch has at least for an interval.
pub const LEAST_CELLS: usize = 10;

/// The normal distribution's quantile at 1 - (1 - [`CONFIDENCE`]) / (2 · figures).
const Z: f64 = 2.638_257;

/// Points of a curve at most.
const MOST_POINTS: usize = 60;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// Half of the requests took at most this, seconds.
    P50,
    /// Nine of ten did.
    P90,
    /// 99 of 100 did.
    P99,
    /// Requests answered with 5xx, of all.
    Errors,
    /// Requests a second.
    Rate,
    /// The gateway's own time of half of the requests was at most this, seconds.
    Tax,
}

impl Figure {
    /// Each.
    pub const ALL: [Self; 6] = [
        Self::P50,
        Self::P90,
        Self::P99,
        Self::Errors,
        Self::Rate,
        Self::Tax,
    ];
}

/// What a difference means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// More than chance explains.
    Higher,
    /// Less than chance explains.
    Lower,
    /// Chance explains it.
    Same,
    /// There is too little to tell.
    Unknown,
}

/// A figure, twice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Which.
    pub figure: Figure,
    /// What it was.
    pub before: f64,
    /// What it is.
    pub now: f64,
    /// `now - before`.
    pub difference: f64,
    /// Within which the difference lies, if there is enough to tell.
    pub interval: Option<[f64; 2]>,
    /// What that means.
    pub verdict: Verdict,
}

/// Part of a curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Seconds from the stretch's beginning.
    pub offset: u64,
    /// Requests.
    pub requests: u64,
    /// Of them answered with 5xx.
    pub errors: u64,
    /// Seconds.
    pub p50: f64,
    /// Seconds.
    pub p90: f64,
    /// Seconds.
    pub p99: f64,
    /// Seconds of the gateway's own.
    pub tax: f64,
}

/// Cells of one route, one after the other, those without requests among them.
#[derive(Debug, Clone, Default)]
pub struct Stretch {
    /// Where the first begins, seconds since the epoch.
    pub from: i64,
    /// So long is each.
    pub cell_seconds: u32,
    /// Each.
    pub cells: Vec<Cell>,
}

impl Stretch {
    /// Lays found cells out over `from..to`.
    pub fn lay_out(found: Vec<(i64, Cell)>, from: i64, to: i64, cell_seconds: u32) -> Self {
        let each = i64::from(cell_seconds.max(1));
        let count = usize::try_from((to - from).max(0) / each).unwrap_or(0);
        let mut cells = vec![Cell::default(); count];
        for (at, cell) in found {
            let index = usize::try_from((at - from).div_euclid(each)).ok();
            if let Some(slot) = index.and_then(|index| cells.get_mut(index)) {
                slot.merge(&cell);
            }
        }
        Self {
            from,
            cell_seconds,
            cells,
        }
    }

    /// All of it.
    pub fn sum(&self) -> Cell {
        let mut sum = Cell::default();
        for cell in &self.cells {
            sum.merge(cell);
        }
        sum
    }

    /// Cells that have requests.
    pub fn asked(&self) -> usize {
        self.cells.iter().filter(|cell| !cell.is_empty()).count()
    }

    /// Its curve: neighbours are put together if there are many.
    pub fn curve(&self) -> Vec<Point> {
        let together = self.cells.len().div_ceil(MOST_POINTS).max(1);
        let chunks = self.cells.chunks(together).enumerate();
        chunks
            .map(|(index, cells)| {
                let mut sum = Cell::default();
                for cell in cells {
                    sum.merge(cell);
                }
                point((index * together) as u64 * u64::from(self.cell_seconds), &sum)
            })
            .collect()
    }
}

/// A cell's figures.
pub fn point(offset: u64, cell: &Cell) -> Point {
    let latency = |part| cell.latency.quantile_ns(part) / 1e9;
    Point {
        offset,
        requests: cell.requests(),
        errors: cell.errors(),
        p50: latency(0.5),
        p90: latency(0.9),
        p99: latency(0.99),
        tax: cell.tax.quantile_ns(0.5) / 1e9,
    }
}

/// Compares.
pub fn rows(before: &Stretch, now: &Stretch) -> Vec<Row> {
    let (old, new) = (Flat::of(before), Flat::of(now));
    let (was, is) = (old.figures(0..old.cells.len()), new.figures(0..new.cells.len()));
    let enough = before.asked() >= LEAST_CELLS && now.asked() >= LEAST_CELLS;
    let errors = enough.then(|| {
        let mut random = SmallRng::seed_from_u64(0x0062_6b77);
        let (one, other) = (old.spread(&mut random), new.spread(&mut random));
        let blocks = old.blocks().min(new.blocks()).max(2) - 1;
        let wide = student(blocks as f64);
        std::array::from_fn::<f64, { Figure::ALL.len() }, _>(|index| {
            wide * (one[index] + other[index]).sqrt()
        })
    });
    let each = Figure::ALL.iter().enumerate();
    each.map(|(index, figure)| {
        let difference = is[index] - was[index];
        let interval = errors.map(|errors| [difference - errors[index], difference + errors[index]]);
        let verdict = match interval {
            None => Verdict::Unknown,
            Some([low, _]) if low > 0.0 => Verdict::Higher,
            Some([_, high]) if high < 0.0 => Verdict::Lower,
            Some(_) => Verdict::Same,
        };
        Row {
            figure: *figure,
            before: was[index],
            now: is[index],
            difference,
            interval,
            verdict,
        }
    })
    .collect()
}

/// Student's t for [`Z`], by the expansion of Cornish and Fisher (Abramowitz and Stegun 26.7.5).
fn student(freedom: f64) -> f64 {
    let cubed = Z.powi(3);
    Z + (cubed + Z) / (4.0 * freedom)
        + (5.0 * Z.powi(5) + 16.0 * cubed + 3.0 * Z) / (96.0 * freedom * freedom)
        + (3.0 * Z.powi(7) + 19.0 * Z.powi(5) + 17.0 * cubed - 15.0 * Z) / (384.0 * freedom.powi(3))
}

/// A stretch, ready to be drawn from many times.
struct Flat {
    cells: Vec<FlatCell>,
    cell_seconds: f64,
    /// One more than the highest bucket.
    latency_buckets: usize,
    tax_buckets: usize,
}

struct FlatCell {
    requests: u64,
    errors: u64,
    latency: Vec<(usize, u64)>,
    tax: Vec<(usize, u64)>,
}

impl Flat {
    fn of(stretch: &Stretch) -> Self {
        let flat = |histogram: &HistogramSnapshot| {
            histogram
                .buckets
                .iter()
                .map(|(at, count)| (*at, *count))
                .collect()
        };
        let highest = |get: fn(&Cell) -> &HistogramSnapshot| {
            let last = |cell: &Cell| get(cell).buckets.keys().next_back().copied();
            stretch
                .cells
                .iter()
                .filter_map(last)
                .max()
                .map_or(0, |last| last + 1)
        };
        let cell = |cell: &Cell| FlatCell {
            requests: cell.requests(),
            errors: cell.errors(),
            latency: flat(&cell.latency),
            tax: flat(&cell.tax),
        };
        Self {
            cells: stretch.cells.iter().map(cell).collect(),
            cell_seconds: f64::from(stretch.cell_seconds),
            latency_buckets: highest(|cell| &cell.latency),
            tax_buckets: highest(|cell| &cell.tax),
        }
    }

    /// Cells of one block: the cube root of all (Künsch).
    fn block(&self) -> usize {
        let all = self.cells.len();
        (1..all).find(|block| block.pow(3) >= all).unwrap_or(1)
    }

    fn blocks(&self) -> usize {
        self.cells.len() / self.block()
    }

    /// The figures of these cells, in the order of [`Figure::ALL`].
    fn figures(&self, drawn: impl IntoIterator<Item = usize>) -> [f64; Figure::ALL.len()] {
        let (mut latency, mut tax) = (vec![0; self.latency_buckets], vec![0; self.tax_buckets]);
        let (mut requests, mut errors, mut count) = (0, 0, 0_u32);
        for cell in drawn.into_iter().filter_map(|index| self.cells.get(index)) {
            count += 1;
            requests += cell.requests;
            errors += cell.errors;
            add(&mut latency, &cell.latency);
            add(&mut tax, &cell.tax);
        }
        let of_all = |part: u64| part as f64 / (requests.max(1)) as f64;
        let [p50, p90, p99] = quantiles(&latency, [0.5, 0.9, 0.99]);
        let [tax] = quantiles(&tax, [0.5]);
        let seconds = (f64::from(count) * self.cell_seconds).max(f64::MIN_POSITIVE);
        [p50, p90, p99, of_all(errors), requests as f64 / seconds, tax]
    }

    /// The variance of each figure.
    fn spread(&self, random: &mut SmallRng) -> [f64; Figure::ALL.len()] {
        let (count, block) = (self.cells.len(), self.block());
        let mut sums = [(0.0, 0.0); Figure::ALL.len()];
        for _ in 0..DRAWS {
            let starts: Vec<usize> = (0..count.div_ceil(block))
                .map(|_| random.random_range(0..count))
                .collect();
            // The end is joined to the beginning, so that every cell is drawn as often.
            let drawn = starts
                .iter()
                .flat_map(|start| (*start..start + block).map(|index| index % count))
                .take(count);
            for ((sum, squares), figure) in sums.iter_mut().zip(self.figures(drawn)) {
                *sum += figure;
                *squares += figure * figure;
            }
        }
        let draws = DRAWS as f64;
        sums.map(|(sum, squares)| ((squares - sum * sum / draws) / (draws - 1.0)).max(0.0))
    }
}

fn add(sum: &mut [u64], cell: &[(usize, u64)]) {
    for (bucket, count) in cell {
        if let Some(sum) = sum.get_mut(*bucket) {
            *sum += count;
        }
    }
}

/// Quantiles in rising order, seconds, within a bucket by proportion; 0 without requests.
fn quantiles<const N: usize>(counts: &[u64], parts: [f64; N]) -> [f64; N] {
    let all: u64 = counts.iter().sum();
    let mut found = [0.0; N];
    let (mut below, mut next) = (0.0, 0);
    for (bucket, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let count = *count as f64;
        while let Some(part) = parts.get(next) {
            let wanted = part * all as f64;
            if below + count < wanted {
                break;
            }
            let (low, high) = (lower_bound_ns(bucket) as f64, lower_bound_ns(bucket + 1) as f64);
            found[next] = (low + (high - low) * ((wanted - below) / count)) / 1e9;
            next += 1;
        }
        below += count;
    }
    found
}

#[cfg(test)]
mod tests;
