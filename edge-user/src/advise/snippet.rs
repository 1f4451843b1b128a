//! The direct services that a configuration could have, as TOML, and what they take beside it.

use std::{
    collections::{BTreeSet, HashSet},
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde_json::json;

use super::{Kind, guarded, units::Unit};
use crate::config::{
    Balance, Config, EndpointHost, HashKey, HealthCheck, Listener, Probe, Protocol, Upstream, bounds,
};

/// Addresses and names that are not to be had any more.
pub(super) struct Places {
    addresses: HashSet<IpAddr>,
    names: HashSet<String>,
}

impl Places {
    pub(super) fn of(config: &Config) -> Self {
        let listeners = config.listeners.iter().map(|listener| listener.address.ip());
        let services = config.services.iter().filter_map(|service| service.address);
        let endpoints = config.upstreams.iter().flat_map(|upstream| &upstream.endpoints);
        let endpoints = endpoints.filter_map(|endpoint| match endpoint.host {
            EndpointHost::Address(address) => Some(address.ip()),
            EndpointHost::Name { .. } | EndpointHost::Service(_) => None,
        });
        let direct = config
            .services
            .iter()
            .filter_map(|service| service.direct.as_ref());
        let backends = direct.flat_map(|direct| direct.backends.iter().map(|backend| backend.address));
        Self {
            addresses: listeners
                .chain(services)
                .chain(endpoints)
                .chain(backends)
                .collect(),
            names: config
                .services
                .iter()
                .map(|service| service.name.clone())
                .collect(),
        }
    }

    /// An address for documentation (RFC 5737, RFC 3849) that stands for one that only the operator can know.
    fn stand_in(&mut self, is_v4: bool) -> IpAddr {
        let nth = |number: u16| -> IpAddr {
            if is_v4 {
                Ipv4Addr::new(192, 0, 2, number as u8).into()
            } else {
                Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number).into()
            }
        };
        let free = (1..=254)
            .map(nth)
            .find(|address| !self.addresses.contains(address));
        let address = free.unwrap_or_else(|| nth(254));
        self.addresses.insert(address);
        address
    }

    fn name(&mut self, wanted: &str) -> String {
        // Room for a number, and within a name's length, all of whose letters are ASCII.
        let wanted: String = wanted.chars().take(bounds::MAX_NAME_BYTES - 12).collect();
        let each = std::iter::once(format!("{wanted}-direct"))
            .chain((2_u32..).map(|number| format!("{wanted}-direct-{number}")));
        let mut free = each.filter(|name| !self.names.contains(name));
        let name = free.next().unwrap_or_default();
        self.names.insert(name.clone());
        name
    }
}

/// One address and port of it.
struct Door<'c> {
    listener: &'c Listener,
    address: IpAddr,
    is_stand_in: bool,
}

/// What has to be done before, and the text.
pub(super) fn write(
    config: &Config,
    unit: &Unit<'_>,
    upstream: &Upstream,
    places: &mut Places,
) -> (Vec<String>, String) {
    let doors = doors(unit, places);
    let mut out = String::new();
    for address in doors
        .iter()
        .filter(|door| door.is_stand_in)
        .map(|door| door.address)
        .collect::<BTreeSet<_>>()
    {
        let _ = writeln!(
            out,
            "# {address} stands for an address that the edge's clients are to use."
        );
    }
    for door in &doors {
        // Writing to a string cannot fail.
        let _ = service(config, unit, upstream, door, places, &mut out);
    }
    (first(config, unit, upstream), out.trim_end().to_owned())
}

/// Hosts get one new address of each family, whatever the ports; a listener keeps the address that it names.
fn doors<'c>(unit: &Unit<'c>, places: &mut Places) -> Vec<Door<'c>> {
    let mut new: [Option<IpAddr>; 2] = [None, None];
    let mut doors: Vec<Door<'c>> = Vec::new();
    for listener in &unit.listeners {
        let own = listener.address.ip();
        let families = [own.is_ipv4() || listener.dual_stack, own.is_ipv6()];
        for (family, _) in families.iter().enumerate().filter(|(_, speaks)| **speaks) {
            let is_stand_in = unit.kind == Kind::Host || own.is_unspecified();
            let address = if is_stand_in {
                *new[family].get_or_insert_with(|| places.stand_in(family == 0))
            } else {
                own
            };
            let port = listener.address.port();
            if !doors
                .iter()
                .any(|door| door.address == address && door.listener.address.port() == port)
            {
                doors.push(Door {
                    listener,
                    address,
                    is_stand_in,
                });
            }
        }
    }
    doors
}

fn service(
    config: &Config,
    unit: &Unit<'_>,
    upstream: &Upstream,
    door: &Door<'_>,
    places: &mut Places,
    out: &mut String,
) -> std::fmt::Result {
    let port = door.listener.address.port();
    let there = config.services.iter().find(|service| {
        service.address == Some(door.address) && service.protocol == Protocol::Tcp && service.port == port
    });
    if !out.is_empty() && !out.ends_with("use.\n") {
        writeln!(out)?;
    }
    let name = if let Some(service) = there {
        writeln!(
            out,
            "# In the place of the service `{}`: what it has of limits and guards belongs here.",
            service.name
        )?;
        service.name.clone()
    } else {
        let route = unit.routes.first().and_then(|index| config.routes.get(*index));
        places.name(match unit.kind {
            Kind::Listener => &door.listener.name,
            Kind::Host => route.map_or("host", |route| &route.name),
        })
    };
    writeln!(out, "[[service]]\nname = {}", json!(name))?;
    writeln!(
        out,
        "protocol = \"tcp\"\naddress = \"{}\"\nport = {port}",
        door.address
    )?;
    writeln!(out, "kind = \"direct\"\nforward = \"ipip\"")?;
    if upstream.balance == Balance::ConsistentHash(HashKey::ClientAddress) {
        writeln!(out, "affinity = \"source\"")?;
    }
    if let Some(health) = &upstream.health {
        health_check(health, out)?;
    }
    for endpoint in &upstream.endpoints {
        if let EndpointHost::Address(address) = endpoint.host {
            writeln!(out, "\n[[service.backend]]\naddress = \"{}\"", address.ip())?;
            let weight = endpoint.weight.get().min(bounds::MAX_WEIGHT);
            if weight > 1 {
                writeln!(out, "weight = {weight}")?;
            }
        }
    }
    Ok(())
}

fn health_check(health: &HealthCheck, out: &mut String) -> std::fmt::Result {
    // A string of JSON is one of TOML.
    write!(out, "health = {{ ")?;
    match &health.probe {
        Probe::Tcp => write!(out, "probe = \"tcp\"")?,
        Probe::Http {
            path,
            host,
            status,
            body,
        } => {
            write!(out, "probe = \"http\", path = {}", json!(path))?;
            if let Some(host) = host {
                write!(out, ", host = {}", json!(host))?;
            }
            let ranges: Vec<String> = status
                .iter()
                .map(|(first, last)| format!("{first}-{last}"))
                .collect();
            write!(out, ", status = {}", json!(ranges))?;
            if let Some(body) = body {
                write!(out, ", body = {}", json!(body))?;
            }
        }
    }
    if let Some(port) = health.port {
        write!(out, ", port = {port}")?;
    }
    let shown = |duration| humantime::format_duration(duration).to_string();
    writeln!(
        out,
        ", interval = {}, timeout = {}, rise = {}, fall = {} }}",
        json!(shown(health.interval)),
        json!(shown(health.timeout)),
        health.rise,
        health.fall
    )
}

/// What the text alone does not do.
fn first(config: &Config, unit: &Unit<'_>, upstream: &Upstream) -> Vec<String> {
    let mut found = Vec::new();
    if config.shield.interfaces.is_empty() {
        found.push(
            "name the interfaces that clients come by in `shield.interfaces`: it names none".to_owned(),
        );
    }
    if unit.kind == Kind::Host {
        found.push(format!(
            "give {} an address that no listener has",
            unit.names.join(", ")
        ));
        // `check` refuses what leads around a token, and such a listener has the new address too.
        if let Some(route) = guarded(config) {
            let listeners = unit.listeners.iter();
            for listener in listeners.filter(|listener| listener.address.ip().is_unspecified()) {
                found.push(format!(
                    "name the gateway's own address in `listener.{}.address`: {} takes every one, and the route \
                     `{route}` asks for a token",
                    listener.name, listener.address
                ));
            }
        }
    }
    let ports: BTreeSet<u16> = unit
        .listeners
        .iter()
        .map(|listener| listener.address.port())
        .collect();
    for endpoint in &upstream.endpoints {
        if let EndpointHost::Address(address) = endpoint.host {
            for port in ports.iter().filter(|port| **port != address.port()) {
                let (ip, now) = (address.ip(), address.port());
                found.push(format!("have {ip} serve port {port}: now it serves {now}"));
            }
        }
    }
    found.push("give each backend the service's address and a tunnel device (docs/steering.md)".to_owned());
    found
}
