//! Advice for people.

use std::fmt::{self, Write as _};

use super::{Advice, Kind, Reason, Report, RouteAdvice, Verdict};
use crate::history::moment;

/// Reasons that people are told of one thing.
const TOLD: usize = 12;

/// What holds of everything that can go.
const CLOSING: &str = "\
Saved is the gateway's own time, as it was measured. What steering costs instead, and what the kernel spends on
connections that would end elsewhere, was not. Past the gateway there are no requests: no access log, no history, no
offences, no time limits, no strict parsing, no retries, and backends get whatever host a client names.";

/// Seconds of a day.
const DAY: i64 = 86_400;

/// Writes it down: each thing with what it saves and why, then the text for the configuration.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_all(report, &mut out);
    out.trim_end().to_owned()
}

fn write_all(report: &Report, out: &mut String) -> fmt::Result {
    if let Some(period) = &report.period {
        let length = period.to - period.from;
        let shown = humantime::format_duration(std::time::Duration::from_secs(length.unsigned_abs()));
        writeln!(
            out,
            "measured from {} to {} UTC, {shown}",
            moment(period.from),
            moment(period.to)
        )?;
        if length < DAY {
            writeln!(
                out,
                "that is less than a day: what is told of a day goes on at the same rate"
            )?;
        }
    }
    if let Some(why) = &report.unmeasured {
        writeln!(out, "not measured: {why}")?;
    }
    if report.advice.is_empty() {
        writeln!(
            out,
            "nothing that is served by the gateway, and so nothing to steer past it"
        )?;
    }
    for advice in &report.advice {
        writeln!(out)?;
        write_one(advice, out)?;
    }
    let snippets: Vec<&Advice> = report
        .advice
        .iter()
        .filter(|advice| advice.snippet.is_some())
        .collect();
    if snippets.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{CLOSING}")?;
    for advice in snippets {
        let snippet = advice.snippet.as_deref().unwrap_or_default();
        writeln!(out, "\n# {}\n{snippet}", title(advice))?;
    }
    Ok(())
}

fn title(advice: &Advice) -> String {
    let (one, many) = match advice.kind {
        Kind::Listener => ("listener", "listeners"),
        Kind::Host => ("host", "hosts"),
    };
    let what = if advice.names.len() == 1 { one } else { many };
    format!("{what} {}", advice.names.join(", "))
}

fn write_one(advice: &Advice, out: &mut String) -> fmt::Result {
    let verdict = match advice.verdict {
        Verdict::Direct => "can be steered directly",
        Verdict::OwnAddress => "could be steered directly, with an address of its own",
        Verdict::Stays => "must stay",
    };
    writeln!(out, "{}: {verdict}", title(advice))?;
    let word = match (advice.verdict, advice.at_most) {
        (Verdict::Stays, _) => "costs",
        (_, false) => "saves",
        (_, true) => "saves, at most,",
    };
    match (advice.seconds, advice.seconds_a_day) {
        (Some(seconds), Some(day)) => writeln!(out, "  {word} {}, {} a day", time(seconds), time(day))?,
        _ => writeln!(out, "  {word} not measured")?,
    }
    let name = |route: &RouteAdvice| route.name.chars().count();
    let width = advice.routes.iter().map(name).max().unwrap_or(0);
    for route in &advice.routes {
        let figures = route.measured.as_ref().map_or_else(
            || "not measured".to_owned(),
            |found| {
                let plural = if found.requests == 1 { "" } else { "s" };
                format!(
                    "{} request{plural}, {}, p50 {}",
                    found.requests,
                    time(found.seconds),
                    time(found.p50)
                )
            },
        );
        writeln!(out, "  route {:<width$}  {figures}{}", route.name, uses(route))?;
    }
    for Reason { key, why } in advice.reasons.iter().take(TOLD) {
        writeln!(out, "  {key}: {why}")?;
    }
    if let Some(more @ 1..) = advice.reasons.len().checked_sub(TOLD) {
        writeln!(out, "  and {more} more; --json has all")?;
    }
    let is_listeners = |reason: &Reason| reason.key.starts_with("listener.");
    if advice.verdict == Verdict::Stays && !advice.reasons.iter().any(is_listeners) {
        // One that has hosts, and not all of their paths, is not told to get some.
        let is_kept = |route: &RouteAdvice| {
            let own = format!("route.{}.", route.name);
            advice.kind == Kind::Host && advice.reasons.iter().any(|reason| reason.key.starts_with(&own))
        };
        let could = |route: &&RouteAdvice| route.needs.is_empty() && !is_kept(route);
        for route in advice.routes.iter().filter(could) {
            writeln!(
                out,
                "  {} itself needs nothing of the gateway: with hosts of its own, and an address for them, it could go",
                route.name
            )?;
        }
    }
    for step in &advice.first {
        writeln!(out, "  first: {step}")?;
    }
    Ok(())
}

fn uses(route: &RouteAdvice) -> String {
    match route.needs.len() {
        0 => "; uses nothing of the gateway".to_owned(),
        1 => "; uses 1 thing of the gateway".to_owned(),
        many => format!("; uses {many} things of the gateway"),
    }
}

fn time(seconds: f64) -> String {
    let micros = seconds * 1e6;
    if micros < 1000.0 {
        format!("{micros:.1} µs")
    } else if micros < 1e6 {
        format!("{:.2} ms", micros / 1e3)
    } else {
        format!("{seconds:.1} s")
    }
}
