//! The direct services that a configuration could have, as TOML, and what they take beside it.

use std::{
    collections::{BTreeSet, HashSet},
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde_json::json;

use super::{Kind, guarded, units::Unit};
use crate::config::{
    Balance, Config, Direct, EndpointHost, HashKey, HealthCheck, Listener, Probe, Protocol, Service,
    Upstream, bounds,
};

/// What is not to be had any more, and what is left.
pub(super) struct Places {
    /// Services of the kind `direct` that the kernel has room for.
    services: usize,
    /// Backends of all of them.
    backends: usize,
    addresses: HashSet<IpAddr>,
    names: HashSet<String>,
}

impl Places {
    pub(super) fn of(config: &Config) -> Self {
        let listeners = config.listeners.iter().map(|listener| listener.address.ip());
        let services = config.services.iter().filter_map(|service| service.address);
        let endpoints = config.upstreams.iter().flat_map(|upstream| &upstream.endpoints);
        let endpoints = endpoints.filter_map(|endpoint| match endpoint.host {
            EndpointHost::Address(address) => Some(address.ip().to_canonical()),
            EndpointHost::Name { .. } | EndpointHost::Service(_) => None,
        });
        let direct: Vec<&Direct> = config
            .services
            .iter()
            .filter_map(|service| service.direct.as_ref())
            .collect();
        let backends = direct
            .iter()
            .flat_map(|direct| direct.backends.iter().map(|backend| backend.address));
        let used: usize = direct.iter().map(|direct| direct.backends.len()).sum();
        Self {
            services: bounds::MAX_DIRECT.saturating_sub(direct.len()),
            backends: bounds::MAX_BACKENDS.saturating_sub(used),
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

    /// Takes the room of so many services, if there is as much.
    fn take(&mut self, services: usize, backends: usize) -> bool {
        let left = (
            self.services.checked_sub(services),
            self.backends.checked_sub(services * backends),
        );
        let (Some(services), Some(backends)) = left else {
            return false;
        };
        (self.services, self.backends) = (services, backends);
        true
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

/// What has to be done before, and the text; none if the kernel has no room for it beside what is there, and what was
/// written before.
pub(super) fn write(
    config: &Config,
    unit: &Unit<'_>,
    upstream: &Upstream,
    places: &mut Places,
) -> (Vec<String>, Option<String>) {
    let doors = doors(unit, places);
    let mut steps = first(config, unit, upstream, &doors);
    if !places.take(doors.len(), upstream.endpoints.len()) {
        steps.push(format!(
            "make room: a configuration has at most {} services of kind \"direct\", with {} backends, and what saves more \
             comes before",
            bounds::MAX_DIRECT,
            bounds::MAX_BACKENDS
        ));
        return (steps, None);
    }
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
    (steps, Some(out.trim_end().to_owned()))
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
    let there = there(config, door);
    if !out.is_empty() && !out.ends_with("use.\n") {
        writeln!(out)?;
    }
    let wide = |service: &&Service| {
        service.address.is_none() && service.protocol == Protocol::Tcp && service.port == port
    };
    if let Some(service) = config.services.iter().find(wide).filter(|_| there.is_none()) {
        writeln!(
            out,
            "# The service `{}` has this port of every address: what it has of limits and guards belongs here, too.",
            service.name
        )?;
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
    writeln!(out, "[[service]]\nname = {}", quoted(&name))?;
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
            let ip = address.ip().to_canonical();
            writeln!(out, "\n[[service.backend]]\naddress = \"{ip}\"")?;
            let weight = endpoint.weight.get().min(bounds::MAX_WEIGHT);
            if weight > 1 {
                writeln!(out, "weight = {weight}")?;
            }
        }
    }
    Ok(())
}

/// The service that has just this address and port.
fn there<'c>(config: &'c Config, door: &Door<'_>) -> Option<&'c Service> {
    config.services.iter().find(|service| {
        service.address == Some(door.address)
            && service.protocol == Protocol::Tcp
            && service.port == door.listener.address.port()
    })
}

/// A string of TOML, which also no terminal takes for anything else: one of JSON, but that TOML has no DEL in it.
fn quoted(text: &str) -> String {
    let mut out = String::new();
    for c in json!(text).to_string().chars() {
        if c.is_control() {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

fn health_check(health: &HealthCheck, out: &mut String) -> std::fmt::Result {
    write!(out, "health = {{ ")?;
    match &health.probe {
        Probe::Tcp => write!(out, "probe = \"tcp\"")?,
        Probe::Http {
            path,
            host,
            status,
            body,
        } => {
            write!(out, "probe = \"http\", path = {}", quoted(path))?;
            if let Some(host) = host {
                write!(out, ", host = {}", quoted(host))?;
            }
            let ranges: Vec<String> = status
                .iter()
                .map(|(first, last)| format!("{first}-{last}"))
                .collect();
            write!(out, ", status = {}", json!(ranges))?;
            if let Some(body) = body {
                write!(out, ", body = {}", quoted(body))?;
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
fn first(config: &Config, unit: &Unit<'_>, upstream: &Upstream, doors: &[Door<'_>]) -> Vec<String> {
    let mut found: Vec<String> = done(config, unit, upstream)
        .map(|service| {
            format!(
                "look whether it is done: the direct service `{}` has the same port and backends",
                service.name
            )
        })
        .collect();
    for service in doors.iter().filter_map(|door| there(config, door)) {
        found.push(format!(
            "take the service `{}` out: what is written below has its name, address and port",
            service.name
        ));
    }
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
                let (ip, now) = (address.ip().to_canonical(), address.port());
                found.push(format!("have {ip} serve port {port}: now it serves {now}"));
            }
        }
    }
    found.extend(forwarding(config, upstream));
    found.push("give each backend the service's address and a tunnel device (docs/steering.md)".to_owned());
    found
}

/// Services that steer to the same backends already. Whose hosts they have only clients know.
fn done<'c>(
    config: &'c Config,
    unit: &'c Unit<'_>,
    upstream: &'c Upstream,
) -> impl Iterator<Item = &'c Service> {
    let wanted: BTreeSet<IpAddr> = upstream
        .endpoints
        .iter()
        .filter_map(|endpoint| match endpoint.host {
            EndpointHost::Address(address) => Some(address.ip().to_canonical()),
            EndpointHost::Name { .. } | EndpointHost::Service(_) => None,
        })
        .collect();
    config.services.iter().filter(move |service| {
        let backends = service.direct.as_ref().map(|direct| &direct.backends);
        let is_same = backends.is_some_and(|backends| {
            backends
                .iter()
                .map(|backend| backend.address)
                .collect::<BTreeSet<_>>()
                == wanted
        });
        let mut ports = unit.listeners.iter().map(|listener| listener.address.port());
        is_same && service.protocol == Protocol::Tcp && ports.any(|port| port == service.port)
    })
}

/// Where it is off the kernel looks up no route, and a start is refused.
fn forwarding(config: &Config, upstream: &Upstream) -> Option<String> {
    let families: BTreeSet<&str> = upstream
        .endpoints
        .iter()
        .filter_map(|endpoint| match endpoint.host {
            EndpointHost::Address(address) if address.ip().to_canonical().is_ipv4() => Some("ipv4"),
            EndpointHost::Address(_) => Some("ipv6"),
            EndpointHost::Name { .. } | EndpointHost::Service(_) => None,
        })
        .collect();
    let settings: Vec<String> = config
        .shield
        .interfaces
        .iter()
        .flat_map(|name| {
            // As `sysctl` has names with dots in them.
            let name = name.replace('.', "/").escape_debug().to_string();
            families
                .iter()
                .map(move |family| format!("net.{family}.conf.{name}.forwarding=1"))
        })
        .collect();
    (!settings.is_empty()).then(|| {
        format!(
            "see that forwarding is on where clients come by: `sysctl -w {}`",
            settings.join(" ")
        )
    })
}
