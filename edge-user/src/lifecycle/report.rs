//! What the running daemon says of its gateway, for people.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

/// The document for people.
pub(super) fn table(report: &Value) -> String {
    let mut out = String::new();
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let _ = writeln!(out, "gateway: {} connections", number(&report["connections"]));
    let auth = &report["auth"];
    for provider in auth["providers"].as_array().into_iter().flatten() {
        let keys = provider["keys"].as_array().map_or(0, Vec::len);
        let _ = write!(
            out,
            "provider {:<12} {keys} keys, {}",
            provider["name"].as_str().unwrap_or_default(),
            provider["freshness"].as_str().unwrap_or_default()
        );
        if let Some(time) = provider["last_success"].as_u64() {
            let _ = write!(out, ", obtained {} ago", ago(time));
        }
        if number(&provider["fetches"]) > 0 {
            let _ = write!(out, ", {} fetches", number(&provider["fetches"]));
        }
        if let Some(error) = provider["error"].as_str() {
            let _ = write!(out, "; {error}");
        }
        out.push('\n');
    }
    let cache = &auth["cache"];
    let (hits, misses) = (number(&cache["hits"]), number(&cache["misses"]));
    if hits + misses > 0 {
        let share = 100.0 * hits as f64 / (hits + misses) as f64;
        let _ = writeln!(
            out,
            "token cache: {share:.1} % of {} found, {} kept; revocations: {}",
            hits + misses,
            number(&cache["entries"]),
            number(&auth["file_revocations"]) + number(&auth["runtime_revocations"])
        );
    }
    for limit in report["limits"].as_array().into_iter().flatten() {
        let _ = writeln!(
            out,
            "limit {:<15} {} refused, {} observed",
            limit["name"].as_str().unwrap_or_default(),
            number(&limit["refused"]),
            number(&limit["observed"])
        );
    }
    let refusals: Vec<_> = report["refusals"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    if !refusals.is_empty() {
        let _ = writeln!(out, "refused: {}", refusals.join(", "));
    }
    let closings: Vec<_> = report["closings"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    if !closings.is_empty() {
        let _ = writeln!(out, "connections closed: {}", closings.join(", "));
    }
    if number(&report["access_lines_lost"]) > 0 {
        let _ = writeln!(
            out,
            "ALERT: {} lines of the access log were lost",
            number(&report["access_lines_lost"])
        );
    }
    if number(&report["arrivals_lost"]) > 0 {
        let _ = writeln!(
            out,
            "{} accepted connections found the queue full: their peers earn exact state with the next",
            number(&report["arrivals_lost"])
        );
    }
    if number(&report["offences_lost"]) > 0 {
        let _ = writeln!(
            out,
            "ALERT: {} offences found the queue full",
            number(&report["offences_lost"])
        );
    }
    out.truncate(out.trim_end().len());
    out
}

fn ago(second: u64) -> humantime::FormattedDuration {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    humantime::format_duration(Duration::from_secs(now.saturating_sub(second)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_says_what_matters() {
        let report = json!({
            "connections": 3,
            "auth": {
                "providers": [{"name": "sso", "keys": [1, 2], "freshness": "stale", "fetches": 9, "error": "status 500"}],
                "cache": {"hits": 999, "misses": 1, "entries": 7},
                "file_revocations": 2, "runtime_revocations": 0,
            },
            "limits": [{"name": "login", "refused": 12, "observed": 0}],
            "refusals": {"rate_limited": 12, "token_refused": 3},
            "closings": {"http2_flood": 1, "tls_malformed": 2},
            "access_lines_lost": 4,
            "offences_lost": 5,
            "arrivals_lost": 6,
        });
        let text = table(&report);
        for line in [
            "gateway: 3 connections",
            "provider sso          2 keys, stale, 9 fetches; status 500",
            "token cache: 99.9 % of 1000 found, 7 kept; revocations: 2",
            "limit login           12 refused, 0 observed",
            "refused: rate_limited 12, token_refused 3",
            "connections closed: http2_flood 1, tls_malformed 2",
            "ALERT: 4 lines of the access log were lost",
            "ALERT: 5 offences found the queue full",
            "6 accepted connections found the queue full: their peers earn exact state with the next",
        ] {
            assert!(text.lines().any(|own| own == line), "{line:?} in\n{text}");
        }
    }
}
