//! `[[listener]]`.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::{Checks, items, tls};
use crate::config::{
    Listener, bounds,
    problem::Place,
    raw::RawListener,
    section::{Field, Key, Section},
    value::Item,
};

/// Resolves every listener.
pub(super) fn listeners(raw: &[Item<RawListener>], checks: &mut Checks<'_>) -> Vec<Listener> {
    let names = raw.iter().filter_map(|item| item.value.name.field());
    checks.unique(
        "listener name",
        names.map(|name| (&name.value, name.value.clone(), &name.at)),
    );
    // Port 0 asks for any free one, so two of them do not meet.
    let addresses = raw.iter().filter_map(|item| item.value.address.field());
    let fixed = addresses.filter(|field| field.value.port() != 0);
    checks.unique(
        "listener address",
        fixed.map(|field| (field.value, field.value.to_string(), &field.at)),
    );
    overlapping(raw, checks);
    raw.iter()
        .filter_map(|Item { value: raw, .. }| listener(raw, checks))
        .collect()
}

fn listener(raw: &RawListener, checks: &mut Checks<'_>) -> Option<Listener> {
    let name = checks.name(&raw.name, raw.at());
    let proxy_protocol = networks(&raw.proxy_protocol, "sender of PROXY protocol", checks);
    let trusted_proxies = networks(&raw.trusted_proxies, "trusted proxy", checks);
    let tls = raw.tls.value().and_then(|raw| tls::tls(raw, checks));
    let address = raw.address.required(raw.at(), checks.findings)?.value;
    let bare = SocketAddr::new(address.ip().to_canonical(), address.port());
    if bare.is_ipv4() != address.is_ipv4()
        && let Some(field) = raw.address.field()
    {
        // No socket of IPv6 alone takes it.
        checks.error_help(
            &field.at,
            format!("`{address}` is an address of IPv4, written as one of IPv6"),
            format!("write \"{bare}\""),
        );
    }
    let dual_stack = raw.dual_stack.clone().or_default();
    if dual_stack
        && !is_any_v6(address)
        && let Some(field) = raw.dual_stack.field()
    {
        checks.error_help(
            &field.at,
            format!("`{address}` is one address: only `[::]` takes IPv4 and IPv6"),
            "leave `dual_stack` out, or add a listener for the other address",
        );
    }
    Some(Listener {
        name,
        address,
        dual_stack,
        proxy_protocol,
        trusted_proxies,
        tls,
    })
}

fn is_any_v6(address: SocketAddr) -> bool {
    matches!(address.ip(), IpAddr::V6(ip) if ip.is_unspecified())
}

/// A dual-stack listener takes what a listener for all of IPv4 on its port would take.
fn overlapping(raw: &[Item<RawListener>], checks: &mut Checks<'_>) {
    let both: Vec<(u16, &Place)> = raw
        .iter()
        .filter(|item| item.value.dual_stack.value() == Some(&true))
        .filter_map(|item| item.value.address.field())
        .filter(|field| is_any_v6(field.value) && field.value.port() != 0)
        .map(|field| (field.value.port(), &field.at))
        .collect();
    for Field { value, at } in raw.iter().filter_map(|item| item.value.address.field()) {
        if let Some((_, first)) = both.iter().find(|(port, _)| *port == value.port())
            && value.ip().is_ipv4()
        {
            checks.error_help(
                at,
                format!("`{value}` is taken: another listener takes IPv4 on this port too (`dual_stack`)"),
                format!("the other is `{}`", first.key),
            );
        }
    }
}

fn networks(key: &Key<Vec<Item<IpNet>>>, what: &str, checks: &mut Checks<'_>) -> Vec<IpNet> {
    checks.bounded(key, bounds::MAX_ITEMS);
    if let Some(Field { value: list, at }) = key.field() {
        let places: Vec<_> = list.iter().map(|item| item.at(at)).collect();
        checks.unique(
            what,
            list.iter()
                .zip(&places)
                .map(|(item, at)| (item.value, item.value.to_string(), at)),
        );
    }
    items(key).iter().map(|item| item.value).collect()
}
