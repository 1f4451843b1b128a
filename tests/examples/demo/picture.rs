//! The picture of the story: each request of the client by when and by how long, the attack, and the change.

use std::{fmt::Write, fs, io, path::Path, time::Duration};

use super::client::Asked;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 360.0;
/// Around the plot, for axes and titles.
const EDGE: f64 = 50.0;
/// Seconds between two marks of the axis.
const MARK: usize = 5;

/// Writes it as SVG.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn draw(
    file: &Path,
    asked: &[Asked],
    (from, to): (Duration, Duration),
    change: Duration,
) -> io::Result<()> {
    let end = asked.last().map_or(1.0, |one| one.at.as_secs_f64());
    let mut took: Vec<f64> = asked.iter().map(|one| one.took.as_secs_f64() * 1e3).collect();
    took.sort_unstable_by(f64::total_cmp);
    // A few slow ones do not press all others to the ground; they are drawn at the top.
    let top = took.get(took.len() * 999 / 1000).copied().unwrap_or(1.0) * 1.2;
    let x = |at: f64| EDGE + at / end * (WIDTH - 2.0 * EDGE);
    let y = |took: f64| HEIGHT - EDGE - took.min(top) / top * (HEIGHT - 2.0 * EDGE);
    let (from, to, change) = (
        x(from.as_secs_f64()),
        x(to.as_secs_f64()),
        x(change.as_secs_f64()),
    );
    let (low, high) = (y(0.0), y(top));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{EDGE}\" y=\"24\" font-size=\"16\">Each request to /graphql, milliseconds</text>\n\
         <rect x=\"{from:.1}\" y=\"{high:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#fbe3e1\"/>\n\
         <text x=\"{from:.1}\" y=\"{:.1}\" fill=\"#b3261e\">attack</text>\n\
         <line x1=\"{change:.1}\" x2=\"{change:.1}\" y1=\"{high:.1}\" y2=\"{low:.1}\" stroke=\"#7a4d00\" stroke-dasharray=\"4 4\"/>\n\
         <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#7a4d00\">the old gateway is taken out</text>\n",
        to - from,
        low - high,
        high - 4.0,
        change + 4.0,
        high - 4.0,
    );
    let marks = (0..).step_by(MARK).take_while(|second| f64::from(*second) <= end);
    for second in marks {
        let at = x(f64::from(second));
        let below = low + 18.0;
        // Writing to a string cannot fail.
        let _ = writeln!(
            svg,
            "<text x=\"{at:.1}\" y=\"{below:.1}\" text-anchor=\"middle\">{second} s</text>"
        );
    }
    for step in 0..=4 {
        let value = top / 4.0 * f64::from(step);
        let (at, beside) = (y(value), EDGE - 6.0);
        let right = WIDTH - EDGE;
        let _ = writeln!(
            svg,
            "<line x1=\"{EDGE}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{beside}\" y=\"{at:.1}\" text-anchor=\"end\">{value:.1}</text>"
        );
    }
    for one in asked {
        let (at, took) = (x(one.at.as_secs_f64()), y(one.took.as_secs_f64() * 1e3));
        let colour = if one.is_good { "#0b5cad" } else { "#b3261e" };
        let _ = writeln!(
            svg,
            "<circle cx=\"{at:.1}\" cy=\"{took:.1}\" r=\"1.5\" fill=\"{colour}\"/>"
        );
    }
    svg += "</svg>\n";
    fs::write(file, svg)
}
