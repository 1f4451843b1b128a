//! `[gateway.limits]` and `[gateway.access_log]`.

use std::{num::NonZeroU32, path::Path};

use super::Checks;
use crate::config::{
    AccessLog, GatewayLimits, bounds,
    raw::{RawAccessLog, RawGatewayLimits},
    section::{Field, Key},
};

/// Resolves the table; what is absent keeps its default.
pub(super) fn limits(raw: Option<&RawGatewayLimits>, checks: &mut Checks<'_>) -> GatewayLimits {
    let mut limits = GatewayLimits::default();
    let Some(raw) = raw else { return limits };
    let mut count = |key: &Key<u64>, into: &mut NonZeroU32, largest: u32| {
        if let Some(number) = key.field().and_then(|field| checks.count(field, largest)) {
            *into = number;
        }
    };
    count(
        &raw.header_count,
        &mut limits.header_count,
        bounds::MAX_HEADER_COUNT,
    );
    count(
        &raw.header_bytes,
        &mut limits.header_bytes,
        bounds::MAX_HEADER_BYTES,
    );
    count(
        &raw.target_bytes,
        &mut limits.target_bytes,
        bounds::MAX_TARGET_BYTES,
    );
    count(&raw.connections, &mut limits.connections, bounds::MAX_CONNECTIONS);
    count(
        &raw.connections_per_address,
        &mut limits.connections_per_address,
        bounds::MAX_CONNECTIONS,
    );
    count(&raw.streams, &mut limits.streams, bounds::MAX_STREAMS);
    if let Some(Field { at, .. }) = raw.header_bytes.field()
        && limits.header_bytes.get() < bounds::MIN_HEADER_BYTES
    {
        checks.error(
            at,
            format!("`header_bytes` must be at least {}", bounds::MIN_HEADER_BYTES),
        );
    }
    if let Some(Field { at, .. }) = raw.target_bytes.field().or(raw.header_bytes.field())
        && limits.target_bytes >= limits.header_bytes
    {
        checks.error_help(
            at,
            "`target_bytes` must be less than `header_bytes`: the target is part of the head",
            format!(
                "they are {} and {}, defaults included",
                limits.target_bytes, limits.header_bytes
            ),
        );
    }
    if let Some(Field { at, .. }) = raw.connections_per_address.field()
        && limits.connections_per_address > limits.connections
    {
        checks.warn(
            at,
            "`connections_per_address` is more than `connections` and limits nothing",
            "lower it or leave it out",
        );
    }
    for (key, into) in [
        (&raw.header_timeout, &mut limits.header_timeout),
        (&raw.idle_timeout, &mut limits.idle_timeout),
        (&raw.stall_timeout, &mut limits.stall_timeout),
        (&raw.proxy_header_timeout, &mut limits.proxy_header_timeout),
    ] {
        *into = checks.duration(key, *into, bounds::MAX_CLIENT_TIMEOUT);
    }
    limits.tunnel_idle_timeout = checks.duration(
        &raw.tunnel_idle_timeout,
        limits.tunnel_idle_timeout,
        bounds::MAX_TUNNEL_IDLE_TIMEOUT,
    );
    for (name, key, into) in [
        ("min_body_rate", &raw.min_body_rate, &mut limits.min_body_rate),
        ("min_read_rate", &raw.min_read_rate, &mut limits.min_read_rate),
    ] {
        if let Some(Field { value, at }) = key.field() {
            match u32::try_from(*value) {
                Ok(rate) if rate <= bounds::MAX_MIN_BODY_RATE => *into = rate,
                _ => checks.error(
                    at,
                    format!("`{name}` must be at most {}", bounds::MAX_MIN_BODY_RATE),
                ),
            }
        }
    }
    limits
}

/// Resolves the table; its file is made at start, in a directory that is there.
pub(super) fn access_log(raw: Option<&RawAccessLog>, checks: &mut Checks<'_>) -> AccessLog {
    let Some(raw) = raw else {
        return AccessLog::default();
    };
    let enabled = raw.enabled.clone().or(true);
    let file = raw.file.field().map(|Field { value, at }| {
        let path = checks.base_dir.join(value);
        if !enabled {
            checks.warn(
                at,
                "the access log is switched off: nothing is written there",
                "remove the key, or `enabled`",
            );
        } else if path.is_dir() || !path.parent().is_some_and(Path::is_dir) {
            checks.error_help(
                at,
                format!("no file can be made at {}", path.display()),
                "name a file in a directory that exists",
            );
        }
        path
    });
    AccessLog {
        enabled,
        file,
        format: raw.format.clone().or_default(),
    }
}
