//! `[service.syn]` and `service.new_sources`.

use std::time::Duration;

use super::{Checks, shield::limit};
use crate::config::{
    CookieMode, Guard, Protocol, Syn, bounds,
    raw::{RawService, RawSyn},
    section::{Field, Key, Section},
    value::shown,
};

/// How the service is guarded. What belongs to the other protocol is an error: it would guard nothing.
pub(super) fn guard(raw: &RawService, protocol: Option<Protocol>, checks: &mut Checks<'_>) -> Guard {
    let new_sources = limit(&raw.new_sources, None, checks);
    let syn = raw.syn.value().map(|raw| syn(raw, checks));
    match protocol {
        Some(Protocol::Tcp) => {
            if let Some(Field { at, .. }) = raw.new_sources.field() {
                checks.error_help(
                    at,
                    "`new_sources` is for UDP: a TCP source proves itself by its handshake",
                    "write `[service.syn]` with a `budget`",
                );
            }
            syn.flatten().map_or(Guard::None, Guard::Syn)
        }
        Some(Protocol::Udp) => {
            if let Some(Field { at, .. }) = raw.syn.field() {
                checks.error_help(
                    at,
                    "`syn` is for TCP: UDP has no handshake to answer with a cookie",
                    "write `new_sources = { per_second = …, burst = … }`",
                );
            }
            new_sources.map_or(Guard::None, Guard::NewSources)
        }
        None => Guard::None,
    }
}

fn syn(raw: &RawSyn, checks: &mut Checks<'_>) -> Option<Syn> {
    let budget = limit(&raw.budget, None, checks);
    let asked = raw.cookies.field();
    if budget.is_none() && asked.is_none() {
        // What is wrong was reported.
        if !matches!(raw.budget, Key::Bad | Key::Set(_)) && !matches!(raw.cookies, Key::Bad) {
            checks.error_help(
                raw.at(),
                "`syn` sets nothing: there is neither a budget nor cookies",
                "set `budget = { per_second = …, burst = … }`, or `cookies = \"always\"`",
            );
        }
        return None;
    }
    let cookies = asked.map_or(CookieMode::Auto, |field| field.value);
    if let (CookieMode::Auto, None, Some(Field { at, .. })) = (cookies, budget, asked)
        && !matches!(raw.budget, Key::Bad)
        && !checks.findings.reported_within(&raw.at().span)
    {
        checks.error_help(
            at,
            "`auto` asks for cookies over the budget, and there is none",
            "set `budget = { per_second = …, burst = … }`, or `cookies = \"always\"`",
        );
    }
    if let (CookieMode::Off, None, Some(Field { at, .. })) = (cookies, budget, asked) {
        checks.warn(at, "`syn` has no effect: no budget, no cookies", "remove it");
    }
    let hold = hold(raw, cookies, checks);
    Some(Syn {
        budget,
        cookies,
        hold,
        window_scale: window_scale(raw, cookies, checks),
    })
}

fn hold(raw: &RawSyn, cookies: CookieMode, checks: &mut Checks<'_>) -> Duration {
    let hold = checks.duration(&raw.hold, bounds::DEFAULT_SYN_HOLD, bounds::MAX_SYN_HOLD);
    let Some(Field { value, at }) = raw.hold.field() else {
        return hold;
    };
    if !value.is_zero() && *value < bounds::MIN_SYN_HOLD {
        checks.error_help(
            at,
            format!("`hold` must be at least {}", shown(bounds::MIN_SYN_HOLD)),
            "a handshake begun with a cookie needs that long to come to its end",
        );
    }
    if cookies != CookieMode::Auto {
        checks.warn(
            at,
            "`hold` has no effect unless `cookies` is \"auto\"",
            "remove one of the two",
        );
    }
    hold
}

fn window_scale(raw: &RawSyn, cookies: CookieMode, checks: &mut Checks<'_>) -> Option<u8> {
    let Field { value, at } = raw.window_scale.field()?;
    if *value > bounds::MAX_WINDOW_SCALE {
        checks.error_help(
            at,
            format!("`window_scale` must be at most {}", bounds::MAX_WINDOW_SCALE),
            "TCP has no larger one (RFC 7323)",
        );
        return None;
    }
    if cookies == CookieMode::Off {
        checks.warn(at, "`window_scale` has no effect without cookies", "remove it");
    }
    u8::try_from(*value).ok()
}
