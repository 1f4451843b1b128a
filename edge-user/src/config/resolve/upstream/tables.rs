//! The tables of an upstream that are numbers and times: names, pools, ejection, circuit, retries.

use std::num::NonZeroU32;

use super::{Checks, amount, ascending, number, percent};
use crate::config::{
    Circuit, Dns, Ejection, EndpointHost, EndpointSpec, PoolLimits, Retry, bounds,
    raw_upstream::{EjectionSetting, RawCircuit, RawPool, RawRetry, RawUpstream},
    section::{Field, Key, Section},
};

pub(super) fn dns(raw: &RawUpstream, endpoints: &[EndpointSpec], checks: &mut Checks<'_>) -> Dns {
    let default = Dns::default();
    let Some(Field { value: raw_dns, at }) = raw.dns.field() else {
        return default;
    };
    let has_name = endpoints
        .iter()
        .any(|endpoint| !matches!(endpoint.host, EndpointHost::Address(_)));
    if !has_name && raw.endpoints.value().is_some() && !checks.findings.reported_within(&raw.at().span) {
        checks.warn(
            at,
            "no endpoint of this upstream is a name: nothing is resolved",
            "remove it",
        );
    }
    let dns = Dns {
        refresh_min: checks.duration(&raw_dns.refresh_min, default.refresh_min, bounds::MAX_DNS_REFRESH),
        refresh_max: checks.duration(&raw_dns.refresh_max, default.refresh_max, bounds::MAX_DNS_REFRESH),
        server: raw_dns.server.value().copied(),
    };
    ascending(
        (&raw_dns.refresh_min, dns.refresh_min),
        (&raw_dns.refresh_max, dns.refresh_max),
        ["refresh_min", "refresh_max"],
        raw_dns.at(),
        checks,
    );
    dns
}

fn limit(key: &Key<u64>, checks: &mut Checks<'_>) -> Option<NonZeroU32> {
    key.field()
        .and_then(|field| checks.count(field, bounds::MAX_POOL))
}

pub(super) fn pool(raw: Option<&RawPool>, checks: &mut Checks<'_>) -> PoolLimits {
    let default = PoolLimits::default();
    let Some(raw) = raw else { return default };
    let max_age = raw
        .max_age
        .field()
        .map(|_| checks.duration(&raw.max_age, bounds::MAX_POOL_TIME, bounds::MAX_POOL_TIME));
    PoolLimits {
        idle: amount(&raw.idle, bounds::DEFAULT_POOL_IDLE, bounds::MAX_POOL, checks) as usize,
        idle_timeout: checks.duration(&raw.idle_timeout, default.idle_timeout, bounds::MAX_POOL_TIME),
        max_age,
        connections: limit(&raw.connections, checks),
        waiting: amount(
            &raw.waiting,
            bounds::DEFAULT_POOL_WAITING,
            bounds::MAX_POOL,
            checks,
        ) as usize,
        wait_timeout: checks.duration(&raw.wait_timeout, default.wait_timeout, bounds::MAX_POOL_TIME),
        streams: number(&raw.streams, default.streams, bounds::MAX_POOL, checks),
    }
}

pub(super) fn ejection(raw: Option<&EjectionSetting>, checks: &mut Checks<'_>) -> Option<Ejection> {
    let default = Ejection::default();
    let raw = match raw {
        None => return Some(default),
        Some(EjectionSetting::Off) => return None,
        Some(EjectionSetting::On(raw)) => raw,
    };
    let ejection = Ejection {
        consecutive: number(&raw.consecutive, default.consecutive, bounds::MAX_POOL, checks),
        failure_percent: percent(&raw.failure_percent, checks),
        min_requests: amount(&raw.min_requests, default.min_requests, bounds::MAX_POOL, checks),
        interval: checks.duration(&raw.interval, default.interval, bounds::MAX_EJECTION_TIME),
        time: checks.duration(&raw.time, default.time, bounds::MAX_EJECTION_TIME),
        max_time: checks.duration(&raw.max_time, default.max_time, bounds::MAX_EJECTION_TIME),
        max_percent: percent(&raw.max_percent, checks).unwrap_or(default.max_percent),
        count_500: raw.count_500.value() == Some(&true),
    };
    ascending(
        (&raw.time, ejection.time),
        (&raw.max_time, ejection.max_time),
        ["time", "max_time"],
        raw.at(),
        checks,
    );
    Some(ejection)
}

pub(super) fn circuit(raw: Option<&RawCircuit>, checks: &mut Checks<'_>) -> Circuit {
    raw.map_or_else(Circuit::default, |raw| Circuit {
        connections: limit(&raw.connections, checks),
        pending: limit(&raw.pending, checks),
        requests: limit(&raw.requests, checks),
        retries: limit(&raw.retries, checks),
    })
}

pub(super) fn retry(raw: Option<&RawRetry>, checks: &mut Checks<'_>) -> Retry {
    let default = Retry::default();
    let Some(raw) = raw else { return default };
    let try_timeout = raw.try_timeout.field().map(|_| {
        checks.duration(
            &raw.try_timeout,
            bounds::MAX_ROUTE_TIMEOUT,
            bounds::MAX_ROUTE_TIMEOUT,
        )
    });
    let mut statuses = Vec::new();
    if let Some(Field { value: list, at }) = raw.statuses.field() {
        checks.bounded(&raw.statuses, bounds::MAX_CLAIMS);
        for item in list {
            match u16::try_from(item.value) {
                Ok(status @ (429 | 500..=599)) => statuses.push(status),
                _ => checks.error_help(
                    &item.at(at),
                    format!("{} is no status that another try could change", item.value),
                    "429, or 500 to 599",
                ),
            }
        }
    }
    Retry {
        attempts: number(
            &raw.attempts,
            default.attempts,
            bounds::MAX_RETRY_ATTEMPTS,
            checks,
        ),
        budget_percent: amount(&raw.budget_percent, default.budget_percent, 100, checks),
        try_timeout,
        statuses,
        buffer_bytes: amount(
            &raw.buffer_bytes,
            default.buffer_bytes,
            bounds::MAX_RETRY_BUFFER_BYTES,
            checks,
        ),
    }
}
