//! Two curves as text.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    symbols::Marker,
    widgets::{Axis, Chart, Dataset, GraphType, Widget},
};

use super::compare::Point;

const WIDTH: u16 = 100;
const HEIGHT: u16 = 14;

/// Draws a figure of two stretches over each other: the earlier as dots, the later as a line.
pub(super) fn draw(
    before: &[Point],
    now: &[Point],
    figure: fn(&Point) -> f64,
    shown: fn(f64) -> String,
) -> String {
    let points = |curve: &[Point]| -> Vec<(f64, f64)> {
        let asked = curve.iter().filter(|point| point.requests > 0);
        asked.map(|point| (point.offset as f64, figure(point))).collect()
    };
    let (old, new) = (points(before), points(now));
    let all = || old.iter().chain(&new);
    let most = all().map(|(_, y)| *y).fold(0.0, f64::max).max(f64::MIN_POSITIVE) * 1.1;
    let last = all().map(|(x, _)| *x).fold(1.0, f64::max);
    let chart = Chart::new(vec![
        Dataset::default().marker(Marker::Dot).data(&old),
        Dataset::default()
            .marker(Marker::Braille)
            .graph_type(GraphType::Line)
            .data(&new),
    ])
    .x_axis(
        Axis::default()
            .bounds([0.0, last])
            .labels(["0".to_owned(), minutes(last)]),
    )
    .y_axis(
        Axis::default()
            .bounds([0.0, most])
            .labels([shown(0.0), shown(most / 2.0), shown(most)]),
    );
    let area = Rect::new(0, 0, WIDTH, HEIGHT);
    let mut buffer = Buffer::empty(area);
    chart.render(area, &mut buffer);
    let line = |y| -> String {
        let cells = (0..WIDTH).filter_map(|x| buffer.cell((x, y)));
        cells.map(ratatui::buffer::Cell::symbol).collect()
    };
    let lines: Vec<String> = (0..HEIGHT).map(|y| line(y).trim_end().to_owned()).collect();
    lines.join("\n")
}

fn minutes(seconds: f64) -> String {
    if seconds < 120.0 {
        format!("{seconds:.0} s")
    } else {
        format!("{:.0} min", seconds / 60.0)
    }
}
