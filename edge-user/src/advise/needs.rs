//! What of a route, its upstream and its listener only a gateway can do, each with the key that says so.
//!
//! A key that its writer left out, and whose default the kernel does without, is no need: what every route gets from the
//! gateway (strict parsing, time limits, the access log) is told once, with the advice.

use std::{collections::BTreeSet, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::config::{
    Action, AuthPolicy, Balance, Circuit, Config, Ejection, EndpointHost, HashKey, HostPattern, Listener,
    PathPattern, Retry, Route, RouteMatch, Upstream, UpstreamProtocol, bounds,
};

/// A key that needs the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Reason {
    /// As in `route.graphql.auth`.
    pub key: String,
    /// What it asks for.
    pub why: String,
}

/// Gathers reasons of one table.
struct Table {
    at: String,
    found: Vec<Reason>,
}

impl Table {
    fn new(section: &str, name: &str) -> Self {
        Self {
            at: format!("{section}.{name}"),
            found: Vec::new(),
        }
    }

    fn add(&mut self, key: &str, why: impl Into<String>) {
        self.found.push(Reason {
            key: format!("{}.{key}", self.at),
            why: why.into(),
        });
    }

    fn each<const N: usize>(mut self, rows: [(bool, &str, &str); N]) -> Self {
        for (needs, key, why) in rows {
            if needs {
                self.add(key, why);
            }
        }
        self
    }
}

/// Whether nobody comes to it from beyond this machine and its links.
pub(super) fn is_local(listener: &Listener) -> bool {
    let ip = listener.address.ip();
    ip.is_loopback() || is_link_local(ip)
}

const fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// What a listener does before there is a request.
pub(super) fn of_listener(listener: &Listener) -> Vec<Reason> {
    let rows = [
        (
            is_local(listener),
            "address",
            "only this machine and its links have it; steered is what comes from elsewhere",
        ),
        (listener.tls.is_some(), "tls", "TLS ends at the gateway"),
        (
            !listener.proxy_protocol.is_empty(),
            "proxy_protocol",
            "clients' addresses are read from PROXY headers",
        ),
        (
            !listener.trusted_proxies.is_empty(),
            "trusted_proxies",
            "clients' addresses are read from forwarding fields",
        ),
    ];
    Table::new("listener", &listener.name).each(rows).found
}

/// What a route asks for, by itself, by its upstream and by limits.
pub(super) fn of_route(config: &Config, index: usize) -> Vec<Reason> {
    let Some(route) = config.routes.get(index) else {
        return Vec::new();
    };
    let mut table = Table::new("route", &route.name);
    match route.auth {
        AuthPolicy::None => {}
        AuthPolicy::Optional(_) => table.add("auth", "tokens are checked"),
        AuthPolicy::Required(_) => table.add("auth", "it asks for a token"),
    }
    match &route.action {
        Action::Upstream(_) => {}
        Action::Split(_) => table.add("upstreams", "each request picks one of several upstreams"),
        Action::Redirect(_) => table.add("redirect", "the gateway answers"),
        Action::Respond(_) => table.add("respond", "the gateway answers"),
        Action::FanOut(_) => table.add("fan_out", "answers of several upstreams are merged"),
    }
    let rows = [
        (route.rewrite.is_some(), "rewrite", "paths are rewritten"),
        (
            !route.request_headers.is_empty(),
            "request_headers",
            "fields are changed",
        ),
        (
            !route.response_headers.is_empty(),
            "response_headers",
            "fields are changed",
        ),
        (route.cors.is_some(), "cors", "the gateway answers preflights"),
        (route.compress.is_some(), "compress", "answers are compressed"),
        (route.mirror.is_some(), "mirror", "requests are copied"),
        (route.body_limit.is_some(), "body_limit", "bodies are limited"),
        (
            route.request_timeout.is_some(),
            "request_timeout",
            "requests are limited in time",
        ),
        (
            route.idle_timeout.is_some(),
            "idle_timeout",
            "answers are limited in time",
        ),
        (
            route.timeout != bounds::DEFAULT_ROUTE_TIMEOUT,
            "timeout",
            "requests are limited in time",
        ),
    ];
    let mut found = table.each(rows).found;
    for limit in &config.request_limits {
        // One that only observes refuses nothing.
        if !limit.observe && (limit.routes.is_empty() || limit.routes.contains(&index)) {
            found.push(Reason {
                key: format!("limit.{}", limit.name),
                why: "requests are counted and refused".to_owned(),
            });
        }
    }
    if let Some(upstream) = upstream_of(route).and_then(|index| config.upstreams.get(index)) {
        found.extend(of_upstream(config, upstream));
    }
    found
}

/// The one upstream that a route forwards to.
pub(super) fn upstream_of(route: &Route) -> Option<usize> {
    match route.action {
        Action::Upstream(index) => Some(index),
        Action::Split(_) | Action::Redirect(_) | Action::Respond(_) | Action::FanOut(_) => None,
    }
}

fn of_upstream(config: &Config, upstream: &Upstream) -> Vec<Reason> {
    let balance = match &upstream.balance {
        Balance::RoundRobin | Balance::ConsistentHash(HashKey::ClientAddress) => None,
        Balance::LeastRequest | Balance::PeakEwma => Some("each request goes where there is least to do"),
        Balance::ConsistentHash(HashKey::Header(_) | HashKey::Cookie(_)) => {
            Some("requests are spread by a field")
        }
    };
    let plain = Ejection::default();
    let rows = [
        (upstream.tls.is_some(), "tls", "the gateway speaks TLS to it"),
        (
            upstream.protocol != UpstreamProtocol::Http1,
            "protocol",
            "the gateway translates between versions of HTTP",
        ),
        (
            upstream.send_proxy.is_some(),
            "send_proxy",
            "it is told of clients by PROXY headers",
        ),
        (balance.is_some(), "balance", balance.unwrap_or_default()),
        (
            upstream.prefer_zone.is_some(),
            "prefer_zone",
            "near endpoints are preferred",
        ),
        (
            !upstream.slow_start.is_zero(),
            "slow_start",
            "endpoints that come back begin slowly",
        ),
        (
            upstream.retry != Retry::default(),
            "retry",
            "requests are tried again",
        ),
        (
            upstream.circuit != Circuit::default(),
            "circuit",
            "requests in flight are limited",
        ),
        (
            upstream.pool.connections.is_some(),
            "pool",
            "connections are limited",
        ),
        (
            upstream.ejection.is_some_and(|ejection| ejection != plain),
            "ejection",
            "endpoints are left out for what requests met",
        ),
    ];
    let mut table = Table::new("upstream", &upstream.name).each(rows);
    endpoints(config, upstream, &mut table);
    table.found
}

/// A direct service sends to other machines, known by their addresses alone.
fn endpoints(config: &Config, upstream: &Upstream, table: &mut Table) {
    let mut seen: BTreeSet<IpAddr> = BTreeSet::new();
    for endpoint in &upstream.endpoints {
        let EndpointHost::Address(address) = endpoint.host else {
            let why = format!("{} is a name; a direct service has addresses", endpoint.host);
            return table.add("endpoints", why);
        };
        let ip = address.ip().to_canonical();
        if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
            return table.add("endpoints", format!("{ip} is no address of another machine"));
        }
        if is_link_local(ip) {
            let why = format!("{ip} is an address of one link; a direct service does not say of which");
            return table.add("endpoints", why);
        }
        let own = |listener: &&Listener| listener.address.ip() == ip;
        if let Some(listener) = config.listeners.iter().find(own) {
            let why = format!("{ip} is this machine: the listener `{}` has it", listener.name);
            return table.add("endpoints", why);
        }
        if !seen.insert(ip) {
            return table.add(
                "endpoints",
                format!("{ip} has several ports; the kernel steers to addresses"),
            );
        }
    }
    let most = (bounds::DEFAULT_TABLE_SIZE / bounds::PLACES_A_BACKEND) as usize;
    if seen.len() > most {
        table.add("endpoints", format!("there are more than {most}"));
    }
}

/// What routes cannot do without each other's paths and hosts: they go to different upstreams, or leave requests to others.
pub(super) fn together(config: &Config, routes: &[usize]) -> Vec<Reason> {
    let all = || routes.iter().filter_map(|index| config.routes.get(*index));
    let mut found = Vec::new();
    let mut first = None;
    for route in all() {
        // One without an upstream has a reason of its own.
        let Some(upstream) = upstream_of(route) else {
            continue;
        };
        if *first.get_or_insert(upstream) != upstream {
            let name = config
                .upstreams
                .get(upstream)
                .map_or("", |upstream| &upstream.name);
            found.push(Reason {
                key: format!("route.{}.upstream", route.name),
                why: format!("it goes to `{name}`, others at this address do not"),
            });
        }
    }
    let everything: Vec<&RouteMatch> = all()
        .map(|route| &route.matches)
        .filter(|matches| condition(matches).is_none())
        .collect();
    let taken = |host: Option<&HostPattern>| {
        everything.iter().any(|matches| match host {
            None => matches.hosts.is_empty(),
            Some(host) => matches.hosts.is_empty() || matches.hosts.iter().any(|own| covers(own, host)),
        })
    };
    for route in all() {
        let Some(key) = condition(&route.matches) else {
            continue;
        };
        let hosts = &route.matches.hosts;
        let is_taken = if hosts.is_empty() {
            taken(None)
        } else {
            hosts.iter().all(|host| taken(Some(host)))
        };
        if !is_taken {
            found.push(Reason {
                key: format!("route.{}.{key}", route.name),
                why: "the gateway refuses what it does not match, or has another route for it".to_owned(),
            });
        }
    }
    found
}

/// The key by which a route does not take all requests of its hosts.
fn condition(matches: &RouteMatch) -> Option<&'static str> {
    let path = match &matches.path {
        PathPattern::Prefix(prefix) if prefix == "/" => None,
        PathPattern::Prefix(_) => Some("path"),
        PathPattern::Exact(_) => Some("path_exact"),
        PathPattern::Template(_) => Some("path_template"),
        PathPattern::Regex(_) => Some("path_regex"),
        PathPattern::Tunnel(_) => Some("connect"),
    };
    let rest = [
        (!matches.methods.is_empty(), "methods"),
        (!matches.headers.is_empty(), "headers"),
        (!matches.query.is_empty(), "query"),
    ];
    path.or_else(|| rest.iter().find(|(has, _)| *has).map(|(_, key)| *key))
}

/// Whether all that `host` says is also `pattern`'s.
fn covers(pattern: &HostPattern, host: &HostPattern) -> bool {
    match (pattern, host) {
        (HostPattern::Below(domain), HostPattern::Exact(name) | HostPattern::Below(name)) => {
            pattern == host
                || name
                    .strip_suffix(domain.as_str())
                    .is_some_and(|rest| rest.ends_with('.'))
        }
        _ => pattern == host,
    }
}
