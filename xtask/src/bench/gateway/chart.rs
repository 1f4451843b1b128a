//! The ratios to the best peer, as bars in an SVG.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::{Samples, report, scenarios::SCENARIOS};

const ROW: usize = 26;
const LEFT: usize = 130;
const SCALE: f64 = 220.0;

/// Writes the chart: a bar for each scenario, 1.0 being the best peer; shorter is better throughout.
pub(super) fn write(folder: &Path, samples: &Samples) -> Result<PathBuf> {
    let bars: Vec<(&str, f64, f64)> = SCENARIOS
        .iter()
        .enumerate()
        .filter_map(|(index, scenario)| {
            let (rows, best) = report::rows(index, samples);
            let own = rows
                .iter()
                .find(|row| row.name == "breakwater" || row.name == "10,000 routes")?;
            let (ratio, aim) = (own.figure / best?, scenario.aim);
            // Where more is better the bar shows the inverse: cost, like everywhere.
            Some(if scenario.figure.less_is_better() {
                (scenario.name, ratio, aim)
            } else {
                (scenario.name, 1.0 / ratio, 1.0 / aim)
            })
        })
        .collect();
    let across = |ratio: f64| (ratio.clamp(0.0, 2.0) * SCALE).round();
    let (width, height) = (LEFT as f64 + across(2.0) + 80.0, ROW * (bars.len() + 2));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"8\" y=\"16\">cost beside the best peer (1.0); the mark is the aim; shorter is better</text>\n"
    );
    for (row, (name, ratio, aim)) in bars.iter().enumerate() {
        let y = ROW * (row + 1);
        let bar = across(*ratio);
        let mark = LEFT as f64 + across(*aim);
        let colour = if ratio <= aim { "#2a7f62" } else { "#c0572b" };
        let _ = writeln!(
            svg,
            "<text x=\"8\" y=\"{}\">{name}</text><rect x=\"{LEFT}\" y=\"{}\" width=\"{bar}\" height=\"16\" fill=\"{colour}\"/>\
             <line x1=\"{mark}\" x2=\"{mark}\" y1=\"{}\" y2=\"{}\" stroke=\"#000\" stroke-width=\"2\"/>\
             <text x=\"{}\" y=\"{}\">{ratio:.2}</text>",
            y + 13,
            y + 1,
            y - 2,
            y + 20,
            LEFT as f64 + bar + 6.0,
            y + 13
        );
    }
    let one = LEFT as f64 + across(1.0);
    let _ = writeln!(
        svg,
        "<line x1=\"{one}\" x2=\"{one}\" y1=\"{ROW}\" y2=\"{height}\" stroke=\"#888\" stroke-dasharray=\"3 3\"/>\n</svg>"
    );
    let file = folder.join("chart.svg");
    fs::write(&file, svg)?;
    Ok(file)
}
