//! A comparison for people.

use std::fmt::Write as _;

use super::{
    chart,
    compare::{Figure, LEAST_CELLS, Point, Row, Verdict},
    question::{Comparison, Side, moment},
};

/// What of a point is drawn.
type Drawn = fn(&Point) -> f64;

/// Writes it down: a table, both curves, changes.
pub fn render(comparison: &Comparison) -> String {
    let Comparison { before, now, .. } = comparison;
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_all(&mut out, comparison, before, now);
    out.trim_end().to_owned()
}

fn write_all(out: &mut String, comparison: &Comparison, before: &Side, now: &Side) -> std::fmt::Result {
    writeln!(out, "route {}, times in UTC", comparison.route)?;
    for (name, side) in [("before", before), ("now", now)] {
        let (from, to) = (moment(side.from), moment(side.to));
        writeln!(out, "  {name:7} {from} to {to}  {} requests", side.requests)?;
    }
    let headings = ["", "BEFORE", "NOW", "DIFFERENCE", "WITHIN", ""];
    let rows = comparison.rows.iter().map(cells);
    let rows: Vec<[String; 6]> = std::iter::once(headings.map(ToOwned::to_owned))
        .chain(rows)
        .collect();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; 6] = std::array::from_fn(width);
    writeln!(out)?;
    for row in &rows {
        let mut line = format!("{:<1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(widths).take(5).skip(1) {
            let _ = write!(line, "  {cell:>width$}");
        }
        let _ = write!(line, "  {}", row[5]);
        writeln!(out, "{}", line.trim_end())?;
    }
    writeln!(out)?;
    if comparison.rows.iter().any(|row| row.interval.is_none()) {
        writeln!(
            out,
            "Too little to tell what is chance: that takes {LEAST_CELLS} cells of {} s with requests at each side.",
            comparison.cell_seconds
        )?;
    } else {
        let percent = comparison.confidence * 100.0;
        writeln!(
            out,
            "All differences lie within their intervals with a probability of {percent:.0} %."
        )?;
    }
    let drawn: [(&str, Drawn); 2] = [("p50", |point| point.p50), ("p99", |point| point.p99)];
    for (name, figure) in drawn {
        writeln!(out, "\n{name}: dots before, line now")?;
        writeln!(out, "{}", chart::draw(&before.curve, &now.curve, figure, time))?;
    }
    if !comparison.changes.is_empty() {
        writeln!(out, "\nchanges:")?;
        for change in comparison.changes.iter().rev() {
            let at = moment(change.at as i64);
            writeln!(
                out,
                "  {:>4}  {at}  {} {}",
                change.number, change.kind, change.detail
            )?;
        }
    }
    Ok(())
}

fn cells(row: &Row) -> [String; 6] {
    let (name, shown): (&str, fn(f64) -> String) = match row.figure {
        Figure::P50 => ("p50", time),
        Figure::P90 => ("p90", time),
        Figure::P99 => ("p99", time),
        Figure::Errors => ("errors", percent),
        Figure::Rate => ("requests/s", plain),
        Figure::Tax => ("tax p50", time),
    };
    let signed = |value: f64| {
        let sign = if value < 0.0 { "-" } else { "+" };
        format!("{sign}{}", shown(value.abs()))
    };
    let within = row.interval.map_or_else(
        || "-".to_owned(),
        |[low, high]| format!("{} .. {}", signed(low), signed(high)),
    );
    let share = if row.before > 0.0 {
        format!(" ({:+.0} %)", row.difference / row.before * 100.0)
    } else {
        String::new()
    };
    let verdict = match row.verdict {
        Verdict::Higher => format!("higher{share}"),
        Verdict::Lower => format!("lower{share}"),
        Verdict::Same => "no difference to be seen".to_owned(),
        Verdict::Unknown => String::new(),
    };
    [
        name.to_owned(),
        shown(row.before),
        shown(row.now),
        signed(row.difference),
        within,
        verdict,
    ]
}

fn time(seconds: f64) -> String {
    let micros = seconds * 1e6;
    if micros < 1000.0 {
        format!("{micros:.1} µs")
    } else if micros < 1e6 {
        format!("{:.2} ms", micros / 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

fn plain(number: f64) -> String {
    format!("{number:.1}")
}
