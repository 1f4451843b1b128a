//! `[gateway]`, `[[listener]]`, `[[upstream]]` and `[[route]]`.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use super::{Checks, Names, items};
use crate::config::{
    DEMO_PREFIX, Upstream, bounds,
    raw::{RawConfig, RawGateway, RawListener, RawUpstream},
    section::{Field, Section},
    trusted::{self, Exposure, Fault, Terms},
    value::Item,
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
    let mut endpoints = Vec::new();
    if let Some(field @ Field { value: list, at }) = raw.endpoints.required(raw.at(), checks.findings) {
        checks.bounded(&raw.endpoints, bounds::MAX_ITEMS);
        checks.not_empty(
            field,
            "an upstream needs at least one endpoint",
            "as in [\"127.0.0.1:3000\"]",
        );
        let places: Vec<_> = list.iter().map(|item| item.at(at)).collect();
        checks.unique(
            "endpoint",
            list.iter()
                .zip(&places)
                .map(|(item, at)| (item.value.as_str(), item.value.clone(), at)),
        );
        for (item, at) in list.iter().zip(&places) {
            endpoints.extend(endpoint(&item.value, at, own, checks));
        }
    }
    Upstream {
        name,
        endpoints,
        connect_timeout,
    }
}

fn endpoint(
    text: &str,
    at: &crate::config::problem::Place,
    own: &[SocketAddr],
    checks: &mut Checks<'_>,
) -> Option<SocketAddr> {
    if let Some(demo) = text.strip_prefix(DEMO_PREFIX) {
        let known = checks
            .options
            .quickstart
            .and_then(|quickstart| quickstart.demo(demo));
        if known.is_none() {
            checks.error(at, format!("`{text}` exists only in the built-in quick start"));
        }
        return known;
    }
    let Ok(address) = text.parse::<SocketAddr>() else {
        checks.error_help(
            at,
            format!("`{text}` is not an IP address with a port"),
            "as in \"10.0.0.7:3000\" or \"[fd00::7]:3000\"; names are not resolved",
        );
        return None;
    };
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
    Some(address)
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
