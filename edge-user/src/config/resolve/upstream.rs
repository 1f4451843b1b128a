//! `[[upstream]]`: endpoints, how they are spoken to and how one is chosen.

mod endpoint;
pub(super) mod health;
mod tables;
mod tls;

use std::net::SocketAddr;

use super::Checks;
use crate::config::{
    Balance, EndpointHost, EndpointSpec, HashKey, Upstream, UpstreamProtocol, bounds,
    problem::Place,
    raw::RawListener,
    raw_upstream::{BalanceName, RawUpstream},
    section::{Field, Key, Section},
    value::Item,
};

pub(super) fn upstreams(
    raw: &[Item<RawUpstream>],
    listeners: &[Item<RawListener>],
    checks: &mut Checks<'_>,
) -> Vec<Upstream> {
    let names = raw.iter().filter_map(|item| item.value.name.field());
    checks.unique(
        "upstream name",
        names.map(|name| (&name.value, name.value.clone(), &name.at)),
    );
    let own: Vec<_> = listeners
        .iter()
        .filter_map(|item| item.value.address.value().copied())
        .collect();
    raw.iter()
        .map(|item| upstream(&item.value, &own, checks))
        .collect()
}

fn upstream(raw: &RawUpstream, own: &[SocketAddr], checks: &mut Checks<'_>) -> Upstream {
    let name = checks.name(&raw.name, raw.at());
    let connect_timeout = checks.duration(
        &raw.connect_timeout,
        bounds::DEFAULT_CONNECT_TIMEOUT,
        bounds::MAX_CONNECT_TIMEOUT,
    );
    let endpoints = endpoint::endpoints(raw, own, checks);
    let tls = raw.tls.field().map(|field| tls::tls(&field.value, checks));
    let protocol = protocol(raw, tls.is_some(), checks);
    let is_service = |spec: &EndpointSpec| matches!(spec.host, EndpointHost::Service(_));
    if let (Some(tls), Some(field)) = (&tls, raw.tls.field())
        && tls.server_name.is_none()
        && endpoints.iter().any(is_service)
    {
        checks.error_help(
            &field.at,
            "endpoints from SRV records have no name that a certificate could be for: `server_name` is missing",
            "as in `server_name = \"app.internal\"`",
        );
    }
    let balance = balance(raw, checks);
    let slow_start = slow_start(raw, &balance, checks);
    Upstream {
        name,
        connect_timeout,
        protocol,
        tls,
        send_proxy: raw.send_proxy.value().copied(),
        balance,
        prefer_zone: prefer_zone(raw, &endpoints, checks),
        slow_start,
        dns: tables::dns(raw, &endpoints, checks),
        pool: tables::pool(raw.pool.value(), checks),
        health: raw
            .health
            .field()
            .map(|field| health::check(&field.value, checks)),
        ejection: tables::ejection(raw.ejection.value(), checks),
        circuit: tables::circuit(raw.circuit.value(), checks),
        retry: tables::retry(raw.retry.value(), checks),
        endpoints,
    }
}

fn protocol(raw: &RawUpstream, has_tls: bool, checks: &mut Checks<'_>) -> UpstreamProtocol {
    let Some(Field { value: protocol, at }) = raw.protocol.field() else {
        return UpstreamProtocol::default();
    };
    match protocol {
        UpstreamProtocol::Auto if !has_tls && !matches!(raw.tls, Key::Bad) => checks.error_help(
            at,
            "`auto` asks by ALPN, which is a part of TLS, and there is no TLS here",
            "add `[upstream.tls]`, or write \"http1\" or \"http2\"",
        ),
        UpstreamProtocol::Http2 | UpstreamProtocol::Auto => {
            if let Some(proxy) = raw.send_proxy.field() {
                checks.error_help(
                    &proxy.at,
                    "a PROXY header names one client, and an HTTP/2 connection carries many",
                    "write `protocol = \"http1\"`, or remove it",
                );
            }
        }
        UpstreamProtocol::Http1 => {}
    }
    *protocol
}

fn balance(raw: &RawUpstream, checks: &mut Checks<'_>) -> Balance {
    let name = raw.balance.value().copied().unwrap_or(BalanceName::RoundRobin);
    if name != BalanceName::ConsistentHash
        && let Some(hash) = raw.hash.field()
        && !matches!(raw.balance, Key::Bad)
    {
        checks.error_help(
            &hash.at,
            "`hash` has no meaning here: nothing is hashed",
            "write `balance = \"consistent_hash\"`, or remove it",
        );
    }
    match name {
        BalanceName::RoundRobin => Balance::RoundRobin,
        BalanceName::LeastRequest => Balance::LeastRequest,
        BalanceName::PeakEwma => Balance::PeakEwma,
        BalanceName::ConsistentHash => {
            if let Some(at) = raw.balance.field().map(|field| &field.at)
                && raw.hash.is_absent()
            {
                checks.error_help(
                    at,
                    "a consistent hash needs a key to hash: `hash` is missing",
                    "as in `hash = \"header:x-user\"`, \"cookie:session\" or \"client_address\"",
                );
            }
            let key = raw.hash.field().and_then(|field| hash_key(field, checks));
            Balance::ConsistentHash(key.unwrap_or(HashKey::ClientAddress))
        }
    }
}

/// What a hash is made of.
pub(super) fn hash_key(field: &Field<String>, checks: &mut Checks<'_>) -> Option<HashKey> {
    let Field { value, at } = field;
    let token = |name: &str| {
        !name.is_empty()
            && name.len() <= bounds::MAX_NAME_BYTES
            && http::HeaderName::from_bytes(name.as_bytes()).is_ok()
    };
    let key = match value.split_once(':') {
        Some(("header", name)) if token(name) => Some(HashKey::Header(name.to_ascii_lowercase())),
        Some(("cookie", name)) if token(name) => Some(HashKey::Cookie(name.to_owned())),
        None if value == "client_address" => Some(HashKey::ClientAddress),
        _ => None,
    };
    if key.is_none() {
        checks.error_help(
            at,
            format!("`{value}` is nothing that can be hashed"),
            "\"header:NAME\", \"cookie:NAME\" or \"client_address\"",
        );
    }
    key
}

fn prefer_zone(raw: &RawUpstream, endpoints: &[EndpointSpec], checks: &mut Checks<'_>) -> Option<String> {
    let Field { value: zone, at } = raw.prefer_zone.field()?;
    let is_known = endpoints
        .iter()
        .any(|endpoint| endpoint.zone.as_ref() == Some(zone));
    if !is_known && !matches!(raw.endpoints, Key::Bad) {
        checks.error_help(
            at,
            format!("no endpoint stands in zone `{zone}`"),
            "as in `endpoints = [{ address = \"10.0.0.7:3000\", zone = \"a\" }]`",
        );
    }
    Some(zone.clone())
}

fn slow_start(raw: &RawUpstream, balance: &Balance, checks: &mut Checks<'_>) -> std::time::Duration {
    let slow_start = checks.duration(&raw.slow_start, std::time::Duration::ZERO, bounds::MAX_SLOW_START);
    if let (Balance::ConsistentHash(_), Some(field)) = (balance, raw.slow_start.field()) {
        checks.error_help(
            &field.at,
            "`slow_start` would move keys from endpoint to endpoint while it lasts",
            "remove it, or balance in another way",
        );
    }
    slow_start
}

/// A number in `1..=largest`, or `default`.
fn number(
    key: &Key<u64>,
    default: std::num::NonZeroU32,
    largest: u32,
    checks: &mut Checks<'_>,
) -> std::num::NonZeroU32 {
    key.field()
        .and_then(|field| checks.count(field, largest))
        .unwrap_or(default)
}

/// A number in `0..=largest`, or `default`.
fn amount(key: &Key<u64>, default: u32, largest: u32, checks: &mut Checks<'_>) -> u32 {
    let Some(Field { value, at }) = key.field() else {
        return default;
    };
    let number = u32::try_from(*value).ok().filter(|value| *value <= largest);
    if number.is_none() {
        checks.error(
            at,
            format!("{} must be at most {largest}, is {value}", at.subject()),
        );
    }
    number.unwrap_or(default)
}

/// A share of the whole, 1 to 100.
fn percent(key: &Key<u64>, checks: &mut Checks<'_>) -> Option<u8> {
    let field = key.field()?;
    let percent = checks.count(field, 100)?;
    u8::try_from(percent.get()).ok()
}

/// A shorter time that is longer than a longer one.
fn ascending(
    (shorter, short): (&Key<std::time::Duration>, std::time::Duration),
    (longer, long): (&Key<std::time::Duration>, std::time::Duration),
    names: [&str; 2],
    section: &Place,
    checks: &mut Checks<'_>,
) {
    if short <= long || matches!(shorter, Key::Bad) || matches!(longer, Key::Bad) {
        return;
    }
    let at = shorter
        .field()
        .or(longer.field())
        .map_or(section, |field| &field.at);
    let [shorter, longer] = names;
    let (short, long) = (
        crate::config::value::shown(short),
        crate::config::value::shown(long),
    );
    checks.error(
        at,
        format!("`{shorter}` ({short}) is longer than `{longer}` ({long})"),
    );
}
