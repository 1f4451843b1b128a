//! Services of the kind `direct`: their backends, and what may not be led past the gateway.

use std::{
    net::{IpAddr, SocketAddr},
    num::{NonZeroU16, NonZeroU32},
};

use edge_common::algo::{maglev, nat::TRIES};

use super::{Checks, items, upstream};
use crate::config::{
    AuthPolicy, BackendSpec, CookieMode, Direct, Forward, Listener, Nat, PortRange, Protocol, Route, Service,
    bounds,
    problem::Place,
    raw::{RawBackend, RawService, ServiceKind},
    section::{Field, Section},
    value::Item,
};

fn is_direct(raw: &RawService) -> bool {
    raw.kind.value() == Some(&ServiceKind::Direct)
}

/// Checks that the kernel has room for all of them.
pub(super) fn room(raw: &[Item<RawService>], checks: &mut Checks<'_>) {
    let (mut services, mut backends) = (0, 0);
    for service in raw.iter().map(|item| &item.value).filter(|raw| is_direct(raw)) {
        services += 1;
        if services == bounds::MAX_DIRECT + 1 {
            checks.error(
                service.at(),
                format!("more than {} services of kind \"direct\"", bounds::MAX_DIRECT),
            );
        }
        let had = backends;
        backends += items(&service.backend).len();
        if let Some(Field { at, .. }) = service.backend.field()
            && had <= bounds::MAX_BACKENDS
            && backends > bounds::MAX_BACKENDS
        {
            checks.error(
                at,
                format!(
                    "all services together have {backends} backends by now, more than the {} allowed",
                    bounds::MAX_BACKENDS
                ),
            );
        }
    }
}

/// What makes a service direct.
pub(super) fn direct(raw: &RawService, checks: &mut Checks<'_>) -> Option<Direct> {
    if !is_direct(raw) {
        meaningless(raw, checks);
        return None;
    }
    if raw.address.is_absent() {
        checks.error_help(
            raw.at(),
            "a service of kind \"direct\" needs an `address`",
            "the one that clients use; it need not be an address of this machine",
        );
    }
    if let Some(Field { value, at }) = raw.syn.field()
        && value.cookies.value().is_none_or(|mode| *mode != CookieMode::Off)
    {
        checks.error_help(
            at,
            "no SYN cookies for a service of kind \"direct\": the backend, not this machine, would have to take them",
            "write `cookies = \"off\"`: the budget works without",
        );
    }
    let forward = raw
        .forward
        .required(raw.at(), checks.findings)
        .map(|field| field.value);
    let table_size = table_size(raw, checks);
    let nat = nat(raw, forward, checks);
    let backends = backends(raw, forward, table_size, checks);
    Some(Direct {
        forward: forward?,
        nat,
        affinity: raw.affinity.clone().or_default(),
        table_size,
        backends,
        health: raw
            .health
            .value()
            .map(|health| upstream::health::check(health, checks)),
    })
}

/// Keys that say how to forward, in a service that is not forwarded.
fn meaningless(raw: &RawService, checks: &mut Checks<'_>) {
    let places = [
        raw.forward.field().map(|field| &field.at),
        raw.nat_source.field().map(|field| &field.at),
        raw.nat_ports.field().map(|field| &field.at),
        raw.affinity.field().map(|field| &field.at),
        raw.table_size.field().map(|field| &field.at),
        raw.backend.field().map(|field| &field.at),
        raw.health.field().map(|field| &field.at),
    ];
    for at in places.into_iter().flatten() {
        let message = format!("{} has no meaning unless `kind` is \"direct\"", at.subject());
        checks.error_help(at, message, "remove it, or write `kind = \"direct\"`");
    }
}

/// Ports that a kernel leaves alone, unless it is told otherwise (net.ipv4.ip_local_port_range).
const NAT_PORTS: PortRange = PortRange {
    low: 61_000,
    high: 65_535,
};

/// The end that backends see, and that nothing says so where they see the client's.
fn nat(raw: &RawService, forward: Option<Forward>, checks: &mut Checks<'_>) -> Option<Nat> {
    if forward.is_some_and(|forward| forward != Forward::Nat) {
        let ports = items(&raw.backend)
            .iter()
            .filter_map(|item| Some(&item.value.port.field()?.at));
        let places = [
            raw.nat_source.field().map(|field| &field.at),
            raw.nat_ports.field().map(|field| &field.at),
        ];
        for at in places.into_iter().flatten().chain(ports) {
            let message = format!("{} has no meaning unless `forward` is \"nat\"", at.subject());
            checks.error_help(at, message, "remove it, or write `forward = \"nat\"`");
        }
        return None;
    }
    forward?;
    let Field { value: source, at } = raw.nat_source.required(raw.at(), checks.findings)?;
    if source.is_unspecified() || source.is_multicast() || source.is_loopback() {
        checks.error(
            at,
            format!("`{source}` is not an address that a backend can answer to"),
        );
    }
    if let Some(vip) = raw.address.value()
        && vip.is_ipv4() != source.is_ipv4()
    {
        checks.error_help(
            at,
            format!("`forward = \"nat\"` cannot carry packets for {vip} from {source}, of the other address family"),
            "name an address of the service's family",
        );
    }
    let ports = raw.nat_ports.value().copied().unwrap_or(NAT_PORTS);
    if let Some(field) = raw.nat_ports.field()
        && u32::from(ports.high - ports.low) + 1 < TRIES
    {
        checks.error(
            &field.at,
            format!("{} must be at least {TRIES} ports", field.at.subject()),
        );
    }
    if raw.address.value() == Some(source)
        && let Some(port) = raw.port.value()
        && u16::try_from(*port).is_ok_and(|port| (ports.low..=ports.high).contains(&port))
    {
        checks.error_help(
            at,
            format!("the service's own port {port} is among the ports {ports} that backends answer to"),
            "name other ports as `nat_ports`, or another address",
        );
    }
    Some(Nat {
        source: *source,
        ports,
    })
}

fn table_size(raw: &RawService, checks: &mut Checks<'_>) -> u32 {
    let Some(Field { value, at }) = raw.table_size.field() else {
        return bounds::DEFAULT_TABLE_SIZE;
    };
    let (least, most) = (bounds::MIN_TABLE_SIZE, bounds::DEFAULT_TABLE_SIZE);
    match u32::try_from(*value) {
        Ok(size) if (least..=most).contains(&size) && maglev::is_prime(size) => size,
        Ok(size) if (least..=most).contains(&size) => {
            let prime = (size..=most).find(|size| maglev::is_prime(*size)).unwrap_or(most);
            checks.error_help(
                at,
                format!("a table has a prime number of places, and {size} is none"),
                format!("the next one is {prime}"),
            );
            prime
        }
        _ => {
            checks.error(
                at,
                format!("{} must be a prime from {least} to {most}", at.subject()),
            );
            most
        }
    }
}

fn backends(
    raw: &RawService,
    forward: Option<Forward>,
    table_size: u32,
    checks: &mut Checks<'_>,
) -> Vec<BackendSpec> {
    let Some(field @ Field { value: list, at }) = raw.backend.required(raw.at(), checks.findings) else {
        return Vec::new();
    };
    checks.not_empty(
        field,
        "a direct service needs at least one backend",
        "add a `[[service.backend]]`",
    );
    let most = table_size / bounds::PLACES_A_BACKEND;
    if list.len() > most as usize {
        checks.error_help(
            at,
            format!(
                "{} backends are more than a table of {table_size} places can be shared by: {most}",
                list.len()
            ),
            format!(
                "{} places a backend keep shares within 1 % of the weights",
                bounds::PLACES_A_BACKEND
            ),
        );
    }
    checks.unique(
        "backend",
        list.iter().filter_map(|item| {
            let address = item.value.address.field()?;
            Some((address.value, address.value.to_string(), &address.at))
        }),
    );
    list.iter()
        .filter_map(|item| backend(&item.value, raw.address.value().copied(), forward, checks))
        .collect()
}

fn backend(
    raw: &RawBackend,
    vip: Option<IpAddr>,
    forward: Option<Forward>,
    checks: &mut Checks<'_>,
) -> Option<BackendSpec> {
    let weight = raw.weight.field().map_or(Some(NonZeroU32::MIN), |field| {
        checks.count(field, bounds::MAX_WEIGHT)
    });
    let Field { value: address, at } = raw.address.required(raw.at(), checks.findings)?;
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        checks.error(at, format!("`{address}` is not an address of a backend"));
    }
    if vip == Some(*address) {
        checks.error_help(
            at,
            format!("`{address}` is the service's own address: packets would go round in circles"),
            "write the backend's own address; it has the service's beside it",
        );
    }
    if let Some(mode @ (Forward::DsrL2 | Forward::Nat)) = forward
        && let Some(vip) = vip
        && vip.is_ipv4() != address.is_ipv4()
    {
        let mode = mode.name();
        checks.error_help(
            at,
            format!("`forward = \"{mode}\"` cannot carry packets for {vip} to {address}, of the other address family"),
            "name the backend by an address of the service's family, or write `forward = \"ipip\"`",
        );
    }
    let port = match raw.port.field() {
        Some(field) => {
            let port = checks.count(field, u16::MAX.into())?;
            NonZeroU16::try_from(port).ok()
        }
        None => None,
    };
    Some(BackendSpec {
        address: *address,
        weight: weight?,
        port,
    })
}

/// Refuses services that lead past a listener whose routes ask for a token.
pub(super) fn bypassing(
    raw: &[Item<RawService>],
    services: &[Service],
    listeners: &[Listener],
    routes: &[Route],
    checks: &mut Checks<'_>,
) {
    let guarded = routes
        .iter()
        .find(|route| !matches!(route.auth, AuthPolicy::None));
    for service in services.iter().filter(|service| service.direct.is_some()) {
        let Some(vip) = service.address.filter(|_| service.protocol == Protocol::Tcp) else {
            continue;
        };
        let covered = listeners
            .iter()
            .find(|listener| covers(listener, SocketAddr::new(vip, service.port)));
        let (Some(listener), Some(at)) = (covered, place(raw, &service.name)) else {
            continue;
        };
        let (listener, vip) = (&listener.name, SocketAddr::new(vip, service.port));
        match guarded {
            Some(route) => checks.error_help(
                at,
                format!(
                    "`kind = \"direct\"` would lead around authentication: the listener `{listener}` serves {vip}, and \
                     the route `{}` asks for a token",
                    route.name
                ),
                "give the service another address or port, or leave it to the gateway",
            ),
            None => checks.warn(
                at,
                format!("the listener `{listener}` gets no connections to {vip}: they go to the backends"),
                "give one of the two another address or port",
            ),
        }
    }
}

fn covers(listener: &Listener, vip: SocketAddr) -> bool {
    let address = listener.address;
    let everywhere = address.ip().is_unspecified()
        && (address.is_ipv4() == vip.is_ipv4() || address.is_ipv6() && listener.dual_stack);
    address.port() == vip.port() && (address.ip() == vip.ip() || everywhere)
}

fn place<'r>(raw: &'r [Item<RawService>], name: &str) -> Option<&'r Place> {
    let raw = raw
        .iter()
        .map(|item| &item.value)
        .find(|raw| raw.name.value().is_some_and(|known| known == name))?;
    raw.kind.field().map(|field| &field.at)
}
