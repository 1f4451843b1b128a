//! `route.connect`: what CONNECT may name, and what else such a route may have.
//!
//! A route with tunnels has nothing that is about paths, messages or their bodies: after the 200 there are bytes.

use std::net::Ipv6Addr;

use super::{Checks, items, matching};
use crate::config::{
    HostPattern, UpstreamProtocol, bounds,
    problem::Place,
    raw::{RawConfig, RawRoute},
    section::{Field, Section},
    value::Item,
};

/// The keys that say something about a tunnel.
const KEYS: [&str; 10] = [
    "name",
    "connect",
    "headers",
    "upstream",
    "upstreams",
    "hash",
    "auth",
    "providers",
    "scopes",
    "claims",
];

/// The authorities of a route in the spelling of the route table; `None` if nothing is left of them.
pub(super) fn authorities(
    raw: &RawRoute,
    field: &Field<Vec<Item<String>>>,
    checks: &mut Checks<'_>,
) -> Option<Vec<String>> {
    checks.bounded(&raw.connect, bounds::MAX_ROUTE_HOSTS);
    checks.not_empty(
        field,
        "CONNECT to nothing is allowed",
        "as in [\"db.example.org:5432\"]",
    );
    for (name, at) in raw.given() {
        if !KEYS.contains(&name) {
            checks.error_help(
                at,
                format!("`{name}` has no meaning in a route with `connect`"),
                "such a route serves CONNECT alone, and passes bytes on as they are",
            );
        }
    }
    let read = field
        .value
        .iter()
        .filter_map(|item| authority(&item.value, &item.at(&field.at), checks));
    let authorities: Vec<_> = read.collect();
    (!authorities.is_empty()).then_some(authorities)
}

/// Host and port, the host in its one spelling.
fn authority(text: &str, at: &Place, checks: &mut Checks<'_>) -> Option<String> {
    let port = text
        .rsplit_once(':')
        .filter(|(host, _)| !host.starts_with('[') || host.ends_with(']'));
    let Some((host, port)) = port else {
        checks.error_help(
            at,
            format!("`{text}` has no port"),
            "CONNECT names host and port, as in \"db.example.org:5432\"",
        );
        return None;
    };
    let is_number = !port.starts_with('0') && port.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || port.parse::<u16>().is_err() {
        checks.error_help(at, format!("`{port}` is not a port"), "from 1 to 65535");
        return None;
    }
    match matching::host(host, at, checks)? {
        HostPattern::Exact(host) => Some(format!("{host}:{port}")),
        HostPattern::Below(_) => {
            checks.error_help(
                at,
                "this is a domain, not a host",
                "each authority is written out: they are matched as they are",
            );
            None
        }
    }
}

/// The one spelling of an authority, as far as it is one.
fn spelling(text: &str) -> String {
    let address = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    match address.map(|(address, port)| (address.parse::<Ipv6Addr>(), port)) {
        Some((Ok(address), port)) => format!("[{address}]{port}"),
        _ => text.to_ascii_lowercase(),
    }
}

/// Reports authorities that several routes allow, and upstreams that bytes cannot be passed to as they are.
pub(super) fn alone(raw: &[&RawRoute], file: &RawConfig, checks: &mut Checks<'_>) {
    let mut all: Vec<(String, String, Place)> = Vec::new();
    for (route, field) in raw.iter().filter_map(|raw| Some((raw, raw.connect.field()?))) {
        for item in &field.value {
            all.push((spelling(&item.value), item.value.clone(), item.at(&field.at)));
        }
        let named = route
            .upstream
            .field()
            .map(|field| (field.value.as_str(), &field.at));
        let shares = items(&route.upstreams).iter().filter_map(|item| {
            let field = item.value.name.field()?;
            Some((field.value.as_str(), &field.at))
        });
        for (name, at) in named.into_iter().chain(shares) {
            let speaks = items(&file.upstream).iter().find_map(|item| {
                let upstream = &item.value;
                (upstream.name.value().map(String::as_str) == Some(name))
                    .then(|| upstream.protocol.value())?
            });
            if speaks.is_some_and(|protocol| *protocol != UpstreamProtocol::Http1) {
                checks.error_help(
                    at,
                    format!(
                        "a tunnel cannot lead to upstream `{name}`: its connections are shared by requests"
                    ),
                    "leave out its `protocol`",
                );
            }
        }
    }
    checks.unique(
        "authority",
        all.iter().map(|(key, shown, at)| (key, shown.clone(), at)),
    );
}
