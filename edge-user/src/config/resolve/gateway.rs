//! `[gateway]`, and what is defined and does nothing.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use super::{Checks, Names, items};
use crate::config::{
    Lifecycle, bounds,
    raw::{RawConfig, RawGateway},
    section::{Field, Section},
    trusted::{self, Exposure, Fault, Terms},
};

pub(super) fn process(raw: Option<&RawGateway>, checks: &mut Checks<'_>) -> (Option<NonZeroU32>, Duration) {
    let Some(raw) = raw else {
        return (None, bounds::DEFAULT_SHUTDOWN_GRACE);
    };
    let workers = raw
        .workers
        .field()
        .and_then(|field| checks.count(field, bounds::MAX_WORKERS));
    let grace = checks.duration(
        &raw.shutdown_grace,
        bounds::DEFAULT_SHUTDOWN_GRACE,
        bounds::MAX_SHUTDOWN_GRACE,
    );
    (workers, grace)
}

/// How the daemon follows its files, and how it goes.
pub(super) fn lifecycle(raw: Option<&RawGateway>, checks: &mut Checks<'_>) -> Lifecycle {
    let defaults = Lifecycle::default();
    let Some(raw) = raw else {
        return defaults;
    };
    let drain_delay = match raw.drain_delay.value() {
        // None at all is a delay, too.
        Some(delay) if delay.is_zero() => Duration::ZERO,
        _ => checks.duration(&raw.drain_delay, defaults.drain_delay, bounds::MAX_DRAIN_DELAY),
    };
    Lifecycle {
        watch: raw.watch.value().copied().unwrap_or(defaults.watch),
        sandbox: raw.sandbox.value().copied().unwrap_or(defaults.sandbox),
        drain_delay,
        upgrade_timeout: checks.duration(
            &raw.upgrade_timeout,
            defaults.upgrade_timeout,
            bounds::MAX_UPGRADE_TIMEOUT,
        ),
    }
}

/// `gateway.revocation_file`; what is in it is read by authentication.
pub(super) fn revocation_file(raw: &RawConfig, checks: &mut Checks<'_>) -> Option<PathBuf> {
    let Field { value, at } = raw.gateway.value()?.revocation_file.field()?;
    let path = checks.base_dir.join(value);
    let terms = Terms {
        exposure: Exposure::Public,
        most_bytes: bounds::MAX_REVOCATION_FILE_BYTES,
        may_be_empty: true,
    };
    if let Err(Fault { message, help }) = trusted::open(&path, terms) {
        checks.error_help(at, message, help);
    } else if items(&raw.provider).is_empty() {
        checks.warn(
            at,
            "there is no provider, so no token to revoke",
            "add a `[[provider]]` or remove it",
        );
    }
    Some(path)
}

/// Warns of what is defined and does nothing.
pub(super) fn unused(raw: &RawConfig, upstreams: &Names<'_>, providers: &Names<'_>, checks: &mut Checks<'_>) {
    let named = items(&raw.upstream)
        .iter()
        .map(|item| &item.value.name)
        .zip(&upstreams.used);
    for (name, _) in named.filter(|(_, used)| !**used) {
        if let Some(Field { value, at }) = name.field() {
            checks.warn(
                at,
                format!("no route uses upstream `{value}`"),
                "name it in a route or remove it",
            );
        }
    }
    let named = items(&raw.provider)
        .iter()
        .map(|item| &item.value.name)
        .zip(&providers.used);
    for (name, _) in named.filter(|(_, used)| !**used) {
        if let Some(Field { value, at }) = name.field() {
            checks.warn(
                at,
                format!("no route uses provider `{value}`"),
                "name it in a route or remove it",
            );
        }
    }
    let (listeners, routes) = (items(&raw.listener), items(&raw.route));
    match (listeners.first(), routes.first()) {
        (Some(listener), None) => checks.warn(
            listener.value.at(),
            "there is a listener but no route: every request is answered with 404",
            "add a `[[route]]`",
        ),
        (None, Some(route)) => checks.warn(
            route.value.at(),
            "there are routes but no listener: no request can reach them",
            "add a `[[listener]]`",
        ),
        (Some(_), Some(_)) | (None, None) => {}
    }
    if let Some(shield) = raw.shield.value()
        && let Some(interfaces) = shield.interfaces.field()
        && !interfaces.value.is_empty()
        && items(&raw.service).is_empty()
    {
        checks.warn(
            &interfaces.at,
            "the shield is attached but judges nothing: there is no service",
            "add a `[[service]]` for each protected port",
        );
    }
}
