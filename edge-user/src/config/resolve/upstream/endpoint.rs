//! `upstream.endpoints`: addresses, names and service records.

use std::{net::SocketAddr, num::NonZeroU32};

use super::Checks;
use crate::config::{
    DEMO_PREFIX, EndpointHost, EndpointSpec, bounds,
    problem::Place,
    raw_upstream::{EndpointSetting, RawEndpoint, RawUpstream},
    section::{Field, Section},
};

/// How an endpoint that is found by SRV records begins.
const SERVICE_PREFIX: &str = "srv:";

/// Longest name (RFC 1035 section 2.3.4, as text) and longest label, in bytes.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

pub(super) fn endpoints(raw: &RawUpstream, own: &[SocketAddr], checks: &mut Checks<'_>) -> Vec<EndpointSpec> {
    let Some(field @ Field { value: list, at }) = raw.endpoints.required(raw.at(), checks.findings) else {
        return Vec::new();
    };
    checks.bounded(&raw.endpoints, bounds::MAX_ITEMS);
    checks.not_empty(
        field,
        "an upstream needs at least one endpoint",
        "as in [\"127.0.0.1:3000\"]",
    );
    let mut endpoints = Vec::with_capacity(list.len());
    let mut places = Vec::with_capacity(list.len());
    for item in list {
        let item_at = item.at(at);
        let (address, address_at, table) = match &item.value {
            EndpointSetting::Address(address) => (address, item_at, None),
            EndpointSetting::Table(table) => {
                let Some(address) = table.address.required(table.at(), checks.findings) else {
                    continue;
                };
                (&address.value, address.at.clone(), Some(table))
            }
        };
        let host = host(address, &address_at, own, checks);
        places.push((address, address_at));
        if let Some(host) = host {
            endpoints.push(spec(host, table, checks));
        }
    }
    checks.unique(
        "endpoint",
        places
            .iter()
            .map(|(address, at)| (address.to_ascii_lowercase(), (*address).clone(), at)),
    );
    endpoints
}

fn spec(host: EndpointHost, table: Option<&RawEndpoint>, checks: &mut Checks<'_>) -> EndpointSpec {
    let weight = table.and_then(|table| table.weight.field());
    if let (EndpointHost::Service(_), Some(weight)) = (&host, weight) {
        checks.error_help(
            &weight.at,
            "the weights of these endpoints are in their SRV records",
            "remove it",
        );
    }
    let zone = table.and_then(|table| table.zone.field());
    if let Some(zone) = zone
        && (zone.value.is_empty() || zone.value.len() > bounds::MAX_NAME_BYTES)
    {
        checks.error(
            &zone.at,
            format!("a zone has 1 to {} bytes", bounds::MAX_NAME_BYTES),
        );
    }
    EndpointSpec {
        host,
        weight: weight
            .and_then(|field| checks.count(field, bounds::MAX_WEIGHT))
            .unwrap_or(NonZeroU32::MIN),
        zone: zone.map(|zone| zone.value.clone()),
    }
}

fn host(text: &str, at: &Place, own: &[SocketAddr], checks: &mut Checks<'_>) -> Option<EndpointHost> {
    if let Some(demo) = text.strip_prefix(DEMO_PREFIX) {
        let known = checks
            .options
            .quickstart
            .and_then(|quickstart| quickstart.demo(demo));
        if known.is_none() {
            checks.error(at, format!("`{text}` exists only in the built-in quick start"));
        }
        return known.map(EndpointHost::Address);
    }
    if let Some(name) = text.strip_prefix(SERVICE_PREFIX) {
        if !is_name(name) {
            checks.error_help(
                at,
                format!("`{name}` is not a name of SRV records"),
                "as in \"srv:_http._tcp.app.internal\"",
            );
            return None;
        }
        return Some(EndpointHost::Service(normal(name)));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        connectable(address, at, own, checks);
        return Some(EndpointHost::Address(address));
    }
    let named = text
        .rsplit_once(':')
        .and_then(|(name, port)| Some((name, port.parse::<u16>().ok()?)));
    match named {
        Some((_, 0)) => {
            checks.error(at, "an endpoint needs a port other than 0");
            None
        }
        Some((name, port)) if is_name(name) && !ends_in_number(name) => Some(EndpointHost::Name {
            name: normal(name),
            port,
        }),
        _ => {
            checks.error_help(
                at,
                format!("`{text}` is neither an IP address nor a name with a port"),
                "as in \"10.0.0.7:3000\", \"[fd00::7]:3000\" or \"app.internal:3000\"",
            );
            None
        }
    }
}

fn connectable(address: SocketAddr, at: &Place, own: &[SocketAddr], checks: &mut Checks<'_>) {
    if address.port() == 0 {
        checks.error(at, "an endpoint needs a port other than 0");
    } else if address.ip().is_unspecified() || address.ip().is_multicast() {
        checks.error(at, format!("`{}` is not an address to connect to", address.ip()));
    } else if own.contains(&address) {
        checks.error(
            at,
            format!("`{address}` is a listener of this gateway: requests would go round in circles"),
        );
    }
}

fn normal(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// Letters, digits, hyphens and underscores in labels.
pub(super) fn is_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= MAX_NAME && name.split('.').all(label)
}

/// A name whose last label is a number is a mistyped address (RFC 3696 section 2).
fn ends_in_number(name: &str) -> bool {
    name.trim_end_matches('.')
        .rsplit('.')
        .next()
        .is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()))
}
