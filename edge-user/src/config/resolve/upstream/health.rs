//! `upstream.health`: what an endpoint is asked, how often, and what its answers mean.

use super::{Checks, number};
use crate::config::{
    HealthCheck, Probe, bounds,
    raw_upstream::{ProbeName, RawHealth},
    section::{Field, Section},
    value::shown,
};

/// Statuses that are good where none are named: RFC 9110, 15.3.
const SUCCESS: (u16, u16) = (200, 299);

pub(in crate::config::resolve) fn check(raw: &RawHealth, checks: &mut Checks<'_>) -> HealthCheck {
    let interval = checks.duration(
        &raw.interval,
        bounds::DEFAULT_HEALTH_INTERVAL,
        bounds::MAX_HEALTH_INTERVAL,
    );
    if let Some(Field { value, at }) = raw.interval.field()
        && !value.is_zero()
        && *value < bounds::MIN_HEALTH_INTERVAL
    {
        let least = shown(bounds::MIN_HEALTH_INTERVAL);
        checks.error(at, format!("{} must be at least {least}", at.subject()));
    }
    let port = raw.port.field().and_then(|field| {
        checks
            .count(field, u16::MAX.into())
            .and_then(|port| u16::try_from(port.get()).ok())
    });
    HealthCheck {
        probe: probe(raw, checks),
        interval,
        timeout: checks.duration(
            &raw.timeout,
            bounds::DEFAULT_HEALTH_TIMEOUT,
            bounds::MAX_HEALTH_TIMEOUT,
        ),
        rise: number(
            &raw.rise,
            bounds::DEFAULT_HEALTH_RISE,
            bounds::MAX_HEALTH_THRESHOLD,
            checks,
        ),
        fall: number(
            &raw.fall,
            bounds::DEFAULT_HEALTH_FALL,
            bounds::MAX_HEALTH_THRESHOLD,
            checks,
        ),
        port,
    }
}

fn probe(raw: &RawHealth, checks: &mut Checks<'_>) -> Probe {
    let Some(probe) = raw.probe.required(raw.at(), checks.findings) else {
        return Probe::Tcp;
    };
    if probe.value == ProbeName::Tcp {
        let places = [
            raw.path.field().map(|field| &field.at),
            raw.host.field().map(|field| &field.at),
            raw.status.field().map(|field| &field.at),
            raw.body.field().map(|field| &field.at),
        ];
        for at in places.into_iter().flatten() {
            let message = format!("{} has no meaning: a TCP probe sends nothing", at.subject());
            checks.error_help(at, message, "remove it, or write `probe = \"http\"`");
        }
        return Probe::Tcp;
    }
    Probe::Http {
        path: path(raw, checks),
        host: host(raw, checks),
        status: statuses(raw, checks),
        body: body(raw, checks),
    }
}

fn path(raw: &RawHealth, checks: &mut Checks<'_>) -> String {
    let Some(Field { value, at }) = raw.path.required(raw.at(), checks.findings) else {
        return String::new();
    };
    let is_target = value.starts_with('/')
        && value.len() <= bounds::MAX_PATH_BYTES
        && value.bytes().all(|byte| byte.is_ascii_graphic())
        && !value.contains('#');
    if !is_target {
        checks.error_help(at, "this is not a path to ask for", "as in \"/healthz\"");
    }
    value.clone()
}

fn host(raw: &RawHealth, checks: &mut Checks<'_>) -> Option<String> {
    let Field { value, at } = raw.host.field()?;
    if value.parse::<http::uri::Authority>().is_err() || value.contains('@') {
        checks.error_help(at, "this is not a host", "as in \"app.internal\"");
    }
    Some(value.clone())
}

fn statuses(raw: &RawHealth, checks: &mut Checks<'_>) -> Vec<(u16, u16)> {
    let Some(field @ Field { value: list, at }) = raw.status.field() else {
        return vec![SUCCESS];
    };
    checks.bounded(&raw.status, bounds::MAX_CLAIMS);
    checks.not_empty(field, "no status is good here", "as in [\"200-299\", \"404\"]");
    let parse = |text: &str| -> Option<(u16, u16)> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (range.0 >= 100 && range.0 <= range.1 && range.1 <= 599).then_some(range)
    };
    list.iter()
        .filter_map(|item| {
            let range = parse(&item.value);
            if range.is_none() {
                checks.error_help(
                    &item.at(at),
                    format!("`{}` is not a status", item.value),
                    "as in \"200\" or \"200-299\"",
                );
            }
            range
        })
        .collect()
}

fn body(raw: &RawHealth, checks: &mut Checks<'_>) -> Option<String> {
    let Field { value, at } = raw.body.field()?;
    if value.is_empty() || value.len() > bounds::MAX_HEALTH_BODY_BYTES {
        checks.error(
            at,
            format!(
                "{} has 1 to {} bytes",
                at.subject(),
                bounds::MAX_HEALTH_BODY_BYTES
            ),
        );
    }
    Some(value.clone())
}
