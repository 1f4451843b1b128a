//! One picture of the shield: drawn on a terminal, as plain text, or as JSON. Pure: what it shows is handed to it.

use std::fmt::Write as _;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize as _},
    text::{Line, Span},
    widgets::{Block, Borders, Paragraph, Row, Table},
};
use serde::Serialize;

use super::{
    rates::{Rate, Total},
    reading::Shielded,
    sources::Heavy,
};
use crate::kernel::bans::BanEntry;

/// Columns from which the parts stand side by side.
const WIDE: u16 = 110;
/// Columns below which a table loses what can be done without.
const NARROW: u16 = 56;
/// Fewest columns and rows that anything can be read in.
const LEAST: (u16, u16) = (30, 6);
/// Reasons that pass are many packets and little news: they are dimmed.
const QUIET: Style = Style::new().fg(Color::DarkGray);

/// What is shown. Its JSON form is what `top --json` prints.
#[derive(Debug, Clone, Serialize)]
pub struct Picture {
    /// Time that rates are taken over.
    pub seconds: f64,
    /// Where the shield is.
    pub interfaces: Vec<Shielded>,
    /// Something is only observed.
    pub observes: bool,
    /// Sums.
    pub total: Total,
    /// By service and reason.
    pub rates: Vec<Rate>,
    /// Who is dropped most.
    pub sources: SourcesPart,
    /// Who is banned.
    pub bans: BansPart,
    /// Whether it goes on.
    #[serde(skip)]
    pub state: State,
}

/// Whether the picture goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It does.
    Live,
    /// It stands still, as somebody asked.
    Paused,
    /// There is no shield any more.
    Off,
}

/// The heaviest sources, and what they are taken from.
#[derive(Debug, Clone, Serialize)]
pub struct SourcesPart {
    /// Samples that the estimate rests on.
    pub estimated_from_samples: u64,
    /// Seconds that the samples are of.
    pub seconds: f64,
    /// Dropped packets between the two readings that were not sampled.
    pub not_sampled: u64,
    /// Samples that were overwritten before they were seen.
    pub overwritten: u64,
    /// The heaviest first.
    pub heaviest: Vec<Source>,
}

/// A source with the service that it was last dropped for.
#[derive(Debug, Clone, Serialize)]
pub struct Source {
    /// What is known of it.
    #[serde(flatten)]
    pub heavy: Heavy,
    /// Name of the service, `-` for none.
    pub service: String,
}

/// Bans in force.
#[derive(Debug, Clone, Serialize)]
pub struct BansPart {
    /// How many.
    pub held: usize,
    /// Room in the table.
    pub capacity: u32,
    /// The first of them.
    pub list: Vec<BanEntry>,
}

/// A number in few characters: 950, 12.3k, 4.56M.
pub fn short(number: f64) -> String {
    match number {
        n if n < 9.95 && n > 0.0 => format!("{n:.1}"),
        n if n < 999.5 => format!("{n:.0}"),
        n if n < 99_950.0 => format!("{:.1}k", n / 1e3),
        n if n < 999_500.0 => format!("{:.0}k", n / 1e3),
        n if n < 99_950_000.0 => format!("{:.1}M", n / 1e6),
        n if n < 999_500_000.0 => format!("{:.0}M", n / 1e6),
        n => format!("{:.1}G", n / 1e9),
    }
}

/// The time a ban has left.
fn left(ban: &BanEntry) -> String {
    match ban.seconds_left {
        None => "for ever".into(),
        Some(s) if s < 100.0 => format!("{s:.0}s"),
        Some(s) if s < 6000.0 => format!("{:.0}m", s / 60.0),
        Some(s) if s < 360_000.0 => format!("{:.0}h", s / 3600.0),
        Some(s) => format!("{:.0}d", s / 86_400.0),
    }
}

fn network(ban: &BanEntry) -> String {
    if ban.net.prefix_len() == ban.net.max_prefix_len() {
        ban.net.addr().to_string()
    } else {
        ban.net.to_string()
    }
}

fn where_it_is(picture: &Picture) -> String {
    if picture.state == State::Off {
        return "the shield has been taken off; waiting for it to come back".into();
    }
    if picture.interfaces.is_empty() {
        return "attached to no interface".into();
    }
    let all: Vec<_> = picture
        .interfaces
        .iter()
        .map(|shielded| format!("{} {}", shielded.interface, shielded.mode))
        .collect();
    all.join(", ")
}

fn sources_title(part: &SourcesPart) -> String {
    format!("Heaviest, estimated from {} samples", part.estimated_from_samples)
}

/// The picture as plain text.
pub fn text(picture: &Picture) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_text(picture, &mut out);
    out.truncate(out.trim_end().len());
    out
}

fn write_text(picture: &Picture, out: &mut String) -> std::fmt::Result {
    let Total {
        passed,
        dropped,
        observed,
        passed_bytes,
        dropped_bytes,
    } = picture.total;
    writeln!(out, "{} (over {:.1} s)", where_it_is(picture), picture.seconds)?;
    writeln!(
        out,
        "passed {}/s ({}B/s), dropped {}/s ({}B/s), observed {}/s",
        short(passed),
        short(passed_bytes),
        short(dropped),
        short(dropped_bytes),
        short(observed)
    )?;
    writeln!(
        out,
        "\n{:<18} {:<18} {:<8} {:>10} {:>10} {:>10}",
        "SERVICE", "REASON", "OUTCOME", "PACKETS/S", "BYTES/S", "OBSERVED/S"
    )?;
    for rate in &picture.rates {
        writeln!(
            out,
            "{:<18} {:<18} {:<8} {:>10} {:>10} {:>10}",
            rate.service,
            rate.reason,
            rate.outcome,
            short(rate.packets_per_second),
            short(rate.bytes_per_second),
            short(rate.observed_per_second)
        )?;
    }
    writeln!(
        out,
        "\n{} of {:.0} s",
        sources_title(&picture.sources),
        picture.sources.seconds
    )?;
    for Source { heavy, service } in &picture.sources.heaviest {
        writeln!(
            out,
            "{:<40} {:>6.1} % {:>8}/s {:<18} {service}",
            heavy.address,
            heavy.share * 100.0,
            short(heavy.packets_per_second),
            heavy.reason
        )?;
    }
    writeln!(out, "\nBans: {} of {}", picture.bans.held, picture.bans.capacity)?;
    for ban in &picture.bans.list {
        writeln!(
            out,
            "{:<44} {:>8} {:<11} {}",
            network(ban),
            left(ban),
            ban.source,
            ban.reason
        )?;
    }
    Ok(())
}

/// Draws the picture.
pub fn draw(frame: &mut Frame<'_>, picture: &Picture) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        frame.render_widget(Paragraph::new("too small"), area);
        return;
    }
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(2), Constraint::Min(0), Constraint::Length(1)]).areas(area);
    draw_head(frame, head, picture);
    frame.render_widget(
        Paragraph::new(" q quit   p pause   b bans that end first").style(QUIET),
        foot,
    );
    // What does not fit is left out from the end: rates first, then sources, then bans.
    if area.width >= WIDE {
        let [rates, right] = Layout::horizontal([Constraint::Percentage(48), Constraint::Percentage(52)])
            .spacing(1)
            .areas(body);
        let [sources, bans] =
            Layout::vertical([Constraint::Percentage(50), Constraint::Percentage(50)]).areas(right);
        draw_rates(frame, rates, picture);
        draw_sources(frame, sources, picture);
        draw_bans(frame, bans, picture);
    } else {
        let wanted = picture.rates.len() as u16 + 3;
        let (rates, sources, bans) = match body.height {
            0..=9 => (body.height, 0, 0),
            10..=17 => (body.height / 2 + 1, body.height - body.height / 2 - 1, 0),
            height => {
                let rates = wanted.clamp(4, height * 2 / 5);
                let rest = height - rates;
                (rates, rest.div_ceil(2), rest / 2)
            }
        };
        let [rates, sources, bans] = Layout::vertical([
            Constraint::Length(rates),
            Constraint::Length(sources),
            Constraint::Length(bans),
        ])
        .areas(body);
        draw_rates(frame, rates, picture);
        draw_sources(frame, sources, picture);
        draw_bans(frame, bans, picture);
    }
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
    let total = picture.total;
    let mut first = vec![" breakwater ".bold().reversed(), Span::raw(" ")];
    if picture.state == State::Paused {
        first.push("paused ".yellow().bold());
    }
    if picture.observes {
        first.push("observing ".yellow());
    }
    first.push(Span::raw(where_it_is(picture)));
    let second = vec![
        Span::raw(" passed "),
        format!("{}/s", short(total.passed)).green().bold(),
        Span::raw(format!(" {}B/s", short(total.passed_bytes))),
        Span::raw("   dropped "),
        format!("{}/s", short(total.dropped)).red().bold(),
        Span::raw(format!(" {}B/s", short(total.dropped_bytes))),
        Span::raw("   observed "),
        format!("{}/s", short(total.observed)).yellow(),
    ];
    frame.render_widget(Paragraph::new(vec![Line::from(first), Line::from(second)]), area);
}

/// A frame with a title; what is inside.
fn part(frame: &mut Frame<'_>, area: Rect, title: &str) -> Rect {
    let block = Block::new()
        .borders(Borders::TOP)
        .title(Line::from(format!(" {title} ")).bold())
        .border_style(QUIET);
    let inside = block.inner(area);
    frame.render_widget(block, area);
    inside
}

fn draw_rates(frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
    if area.height == 0 {
        return;
    }
    let inside = part(frame, area, "Packets a second by service and reason");
    if picture.rates.is_empty() {
        frame.render_widget(Paragraph::new(" no packet yet").style(QUIET), inside);
        return;
    }
    let narrow = inside.width < NARROW;
    let shown = rows(inside);
    let rows = picture.rates.iter().take(shown).map(|rate| {
        let style = if rate.outcome == "pass" {
            QUIET
        } else if rate.packets_per_second > 0.0 {
            Style::new().fg(Color::Red)
        } else if rate.observed_per_second > 0.0 {
            Style::new().fg(Color::Yellow)
        } else {
            Style::new()
        };
        let number = |number: f64| format!("{:>7}", short(number));
        let mut cells = vec![
            rate.service.clone(),
            rate.reason.to_owned(),
            number(rate.packets_per_second),
        ];
        if !narrow {
            cells.extend([number(rate.bytes_per_second), number(rate.observed_per_second)]);
        }
        Row::new(cells).style(style)
    });
    let reasons = picture.rates.iter().take(shown).map(|rate| rate.reason.len());
    let mut columns = vec![
        ("service", Constraint::Fill(1)),
        ("reason", longest(reasons)),
        ("  pkt/s", Constraint::Length(7)),
    ];
    if !narrow {
        columns.extend([
            ("  byt/s", Constraint::Length(7)),
            ("  obs/s", Constraint::Length(7)),
        ]);
    }
    table(frame, inside, rows, &columns);
}

fn draw_sources(frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
    if area.height == 0 {
        return;
    }
    let inside = part(frame, area, &sources_title(&picture.sources));
    if picture.sources.heaviest.is_empty() {
        let why = if picture.total.dropped + picture.total.observed > 0.0 {
            " no sample yet"
        } else {
            " nothing was dropped, so nothing was sampled"
        };
        frame.render_widget(Paragraph::new(why).style(QUIET), inside);
        return;
    }
    let narrow = inside.width < NARROW;
    let shown = rows(inside);
    let heaviest = || picture.sources.heaviest.iter().take(shown);
    let rows = heaviest().map(|Source { heavy, service }| {
        let mut cells = vec![
            heavy.address.to_string(),
            format!("{:>8}", format!("~{}", short(heavy.packets_per_second))),
            heavy.reason.to_owned(),
        ];
        if !narrow {
            cells.insert(1, format!("{:>5.1}", heavy.share * 100.0));
            cells.push(service.clone());
        }
        Row::new(cells)
    });
    let mut columns = vec![
        (
            "source",
            longest(heaviest().map(|source| source.heavy.address.to_string().len())),
        ),
        ("   pkt/s", Constraint::Length(8)),
        ("reason", Constraint::Fill(1)),
    ];
    if !narrow {
        columns.insert(1, ("    %", Constraint::Length(5)));
        columns.push(("service", Constraint::Fill(1)));
    }
    table(frame, inside, rows, &columns);
}

fn draw_bans(frame: &mut Frame<'_>, area: Rect, picture: &Picture) {
    if area.height == 0 {
        return;
    }
    let title = format!("Bans: {} of {}", picture.bans.held, picture.bans.capacity);
    let inside = part(frame, area, &title);
    if picture.bans.list.is_empty() {
        frame.render_widget(Paragraph::new(" nobody is banned").style(QUIET), inside);
        return;
    }
    let narrow = inside.width < NARROW;
    let shown = rows(inside);
    let bans = || picture.bans.list.iter().take(shown);
    let rows = bans().map(|ban| {
        let mut cells = vec![network(ban), format!("{:>8}", left(ban)), ban.reason.clone()];
        if !narrow {
            cells.insert(2, ban.source.to_owned());
        }
        Row::new(cells)
    });
    let mut columns = vec![
        ("network", longest(bans().map(|ban| network(ban).len()))),
        ("    left", Constraint::Length(8)),
        ("why", Constraint::Fill(1)),
    ];
    if !narrow {
        columns.insert(2, ("by", Constraint::Length(11)));
    }
    table(frame, inside, rows, &columns);
}

/// Lines that a table has under its heading.
fn rows(inside: Rect) -> usize {
    inside.height.saturating_sub(1) as usize
}

/// A column that cuts nothing off: half an address is none.
fn longest(lengths: impl Iterator<Item = usize>) -> Constraint {
    Constraint::Length(lengths.max().unwrap_or(0) as u16)
}

fn table<'a>(
    frame: &mut Frame<'_>,
    inside: Rect,
    rows: impl Iterator<Item = Row<'a>>,
    columns: &[(&str, Constraint)],
) {
    let heading = Row::new(columns.iter().map(|(name, _)| (*name).to_owned()))
        .style(Style::new().add_modifier(Modifier::UNDERLINED));
    let widths = columns.iter().map(|(_, width)| *width);
    frame.render_widget(Table::new(rows, widths).header(heading), inside);
}

#[cfg(test)]
mod tests;
