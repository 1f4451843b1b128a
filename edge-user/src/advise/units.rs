//! What can be steered or not as a whole: the listeners' addresses, and hosts that share no route with others.

use std::collections::{HashMap, HashSet};

use super::{
    Kind, Reason, Verdict,
    needs::{self, upstream_of},
};
use crate::config::{Config, HostPattern, Listener, Protocol, Upstream};

/// One of them.
pub(super) struct Unit<'c> {
    pub(super) kind: Kind,
    pub(super) names: Vec<String>,
    pub(super) verdict: Verdict,
    pub(super) reasons: Vec<Reason>,
    /// Indices of its routes.
    pub(super) routes: Vec<usize>,
    /// Where its clients come in.
    pub(super) listeners: Vec<&'c Listener>,
    pub(super) at_most: bool,
}

impl Unit<'_> {
    /// Where all of it goes.
    pub(super) fn upstream<'c>(&self, config: &'c Config) -> Option<&'c Upstream> {
        let route = config.routes.get(*self.routes.first()?)?;
        config.upstreams.get(upstream_of(route)?)
    }
}

/// All of them.
pub(super) fn units(config: &Config) -> Vec<Unit<'_>> {
    let listeners = config
        .listeners
        .iter()
        .filter(|listener| !is_steered(config, listener));
    // Those that need nothing are alike, and so are those that must stay.
    let (plain, busy): (Vec<&Listener>, Vec<&Listener>) =
        listeners.partition(|listener| needs::of_listener(listener).is_empty());
    let groups: Vec<Vec<&Listener>> = [plain, busy]
        .into_iter()
        .filter(|group| !group.is_empty())
        .collect();
    let every: Vec<usize> = (0..config.routes.len()).collect();
    if groups.is_empty() || every.is_empty() {
        return Vec::new();
    }
    let shared = of_routes(config, &every);
    let own = |group: &[&Listener]| -> Vec<Reason> {
        group
            .iter()
            .flat_map(|listener| needs::of_listener(listener))
            .collect()
    };
    let hosts = components(config);
    let rest: Vec<usize> = every
        .iter()
        .copied()
        .filter(|index| config.routes[*index].matches.hosts.is_empty())
        .collect();
    let mut units = Vec::new();
    // A host's clients come from elsewhere, if anybody can.
    let all: Vec<&Listener> = groups.iter().flatten().copied().collect();
    let (near, mut far): (Vec<&Listener>, Vec<&Listener>) =
        all.into_iter().partition(|listener| needs::is_local(listener));
    let is_shared = !far.is_empty() && !near.is_empty();
    if far.is_empty() {
        far = near;
    }
    let all_own = own(&far);
    let mut is_whole = false;
    for group in &groups {
        let mut reasons = own(group);
        reasons.extend(shared.iter().cloned());
        let goes = reasons.is_empty();
        is_whole |= goes;
        let routes = if goes { &every } else { &rest };
        if !routes.is_empty() {
            units.push(Unit {
                kind: Kind::Listener,
                names: group.iter().map(|listener| listener.name.clone()).collect(),
                verdict: if goes { Verdict::Direct } else { Verdict::Stays },
                reasons,
                routes: routes.clone(),
                listeners: group.clone(),
                at_most: groups.len() > 1,
            });
        }
    }
    if is_whole {
        return units;
    }
    for (names, routes) in hosts {
        let mut reasons = all_own.clone();
        reasons.extend(of_routes(config, &routes));
        units.push(Unit {
            kind: Kind::Host,
            names,
            verdict: if reasons.is_empty() {
                Verdict::OwnAddress
            } else {
                Verdict::Stays
            },
            reasons,
            routes,
            listeners: far.clone(),
            at_most: is_shared,
        });
    }
    units
}

/// What routes need, each by itself and all together; nothing twice.
fn of_routes(config: &Config, routes: &[usize]) -> Vec<Reason> {
    let each = routes.iter().flat_map(|index| needs::of_route(config, *index));
    let mut seen = HashSet::new();
    each.chain(needs::together(config, routes))
        .filter(|reason| seen.insert(reason.clone()))
        .collect()
}

/// Whether the kernel has it already.
fn is_steered(config: &Config, listener: &Listener) -> bool {
    config.services.iter().any(|service| {
        service.direct.is_some()
            && service.protocol == Protocol::Tcp
            && service.port == listener.address.port()
            && service.address == Some(listener.address.ip())
    })
}

/// Hosts that are linked by routes, with the routes.
fn components(config: &Config) -> Vec<(Vec<String>, Vec<usize>)> {
    let mut found: Vec<(Vec<&HostPattern>, Vec<usize>)> = Vec::new();
    // Where in `found` a host is.
    let mut places: HashMap<&HostPattern, usize> = HashMap::new();
    for (index, route) in config.routes.iter().enumerate() {
        if route.matches.hosts.is_empty() {
            continue;
        }
        let mut one: (Vec<&HostPattern>, Vec<usize>) = (Vec::new(), vec![index]);
        for host in &route.matches.hosts {
            if let Some(place) = places.get(host)
                && let Some((hosts, routes)) = found.get_mut(*place)
            {
                // Empty if another host of this route has brought them.
                one.0.append(hosts);
                one.1.append(routes);
            } else {
                one.0.push(host);
            }
        }
        places.extend(one.0.iter().map(|host| (*host, found.len())));
        found.push(one);
    }
    found.retain(|(_, routes)| !routes.is_empty());
    let shown = |host: &HostPattern| match host {
        HostPattern::Exact(name) => name.clone(),
        HostPattern::Below(domain) => format!("*.{domain}"),
    };
    found
        .into_iter()
        .map(|(hosts, mut routes)| {
            let mut names: Vec<String> = hosts.into_iter().map(shown).collect();
            names.sort_unstable();
            names.dedup();
            routes.sort_unstable();
            (names, routes)
        })
        .collect()
}
