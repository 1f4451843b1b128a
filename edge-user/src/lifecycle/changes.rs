//! What is different between two configurations, for people: by kind and name. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::config::{Action, AuthPolicy, Config, Limits, RequestLimit, Route};

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What kind of thing.
    pub kind: &'static str,
    /// Its name; empty where there is only one.
    pub name: String,
    /// What became of it.
    pub what: What,
}

/// What became of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is another under the same name.
    Changed,
    /// It stands at another place in an order that matters.
    Moved,
}

impl What {
    /// In a word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
            Self::Moved => "moved",
        }
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.name.is_empty() {
            write!(f, "{} {}", self.kind, self.what.word())
        } else {
            write!(f, "{} {} {}", self.kind, self.name, self.what.word())
        }
    }
}

/// Everything that is different, in a fixed order.
pub(super) fn between(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = Vec::new();
    named(&mut changes, "service", &old.services, &new.services, |one| {
        &one.name
    });
    list(&mut changes, "allow list", &old.shield.allow, &new.shield.allow);
    list(&mut changes, "deny list", &old.shield.deny, &new.shield.deny);
    let shield = |config: &Config| {
        let mut shield = config.shield.clone();
        (shield.allow, shield.deny) = (Vec::new(), Vec::new());
        // Limits are in the services that they apply to.
        shield.limits = Limits::default();
        shield
    };
    single(&mut changes, "shield", &shield(old), &shield(new));
    named(&mut changes, "listener", &old.listeners, &new.listeners, |one| {
        &one.name
    });
    named(&mut changes, "upstream", &old.upstreams, &new.upstreams, |one| {
        &one.name
    });
    named(&mut changes, "provider", &old.providers, &new.providers, |one| {
        &one.name
    });
    routes(&mut changes, old, new);
    let limits = |config: &Config| {
        let names: Vec<String> = config.routes.iter().map(|route| route.name.clone()).collect();
        let limit = |limit: &RequestLimit| {
            let on: Vec<_> = limit
                .routes
                .iter()
                .filter_map(|index| names.get(*index))
                .collect();
            let mut shown = limit.clone();
            shown.routes = Vec::new();
            (limit.name.clone(), format!("{on:?}"), shown)
        };
        config.request_limits.iter().map(limit).collect::<Vec<_>>()
    };
    named(&mut changes, "limit", &limits(old), &limits(new), |one| &one.0);
    single(&mut changes, "offences", &old.offences, &new.offences);
    single(&mut changes, "paths", &old.paths, &new.paths);
    let gateway = |config: &Config| {
        (
            config.shutdown_grace,
            config.limits,
            config.revocation_file.clone(),
        )
    };
    single(&mut changes, "gateway", &gateway(old), &gateway(new));
    changes
}

/// Routes refer to upstreams and providers by index: what they mean is compared, not where it stands.
fn routes(changes: &mut Vec<Change>, old: &Config, new: &Config) {
    let meant = |config: &Config| -> Vec<(String, Route, Vec<String>)> {
        let one = |route: &Route| {
            let (route, names) = by_name(config, route.clone());
            (route.name.clone(), route, names)
        };
        config.routes.iter().map(one).collect()
    };
    named(changes, "route", &meant(old), &meant(new), |one| &one.0);
}

/// The route without indices, and the names behind them in a fixed order.
fn by_name(config: &Config, mut route: Route) -> (Route, Vec<String>) {
    let mut names = Vec::new();
    let mut upstream = |index: &mut usize| {
        names.push(
            config
                .upstreams
                .get(*index)
                .map_or_else(String::new, |one| one.name.clone()),
        );
        *index = 0;
    };
    match &mut route.action {
        Action::Upstream(index) => upstream(index),
        Action::Split(split) => split.parts.iter_mut().for_each(|(index, _)| upstream(index)),
        Action::FanOut(fan_out) => fan_out
            .parts
            .iter_mut()
            .for_each(|part| upstream(&mut part.upstream)),
        Action::Redirect(_) | Action::Respond(_) => {}
    }
    if let Some(mirror) = &mut route.mirror {
        upstream(&mut mirror.upstream);
    }
    if let AuthPolicy::Optional(rule) | AuthPolicy::Required(rule) = &mut route.auth {
        for index in rule.providers.drain(..) {
            names.push(
                config
                    .providers
                    .get(index)
                    .map_or_else(String::new, |one| one.name.clone()),
            );
        }
    }
    (route, names)
}

fn single<T: PartialEq>(changes: &mut Vec<Change>, kind: &'static str, old: &T, new: &T) {
    if old != new {
        changes.push(Change {
            kind,
            name: String::new(),
            what: What::Changed,
        });
    }
}

/// How many networks came and went.
fn list(changes: &mut Vec<Change>, kind: &'static str, old: &[ipnet::IpNet], new: &[ipnet::IpNet]) {
    if old == new {
        return;
    }
    let (before, after): (std::collections::HashSet<_>, std::collections::HashSet<_>) =
        (old.iter().collect(), new.iter().collect());
    let added = after.difference(&before).count();
    let removed = before.difference(&after).count();
    changes.push(Change {
        kind,
        name: format!("+{added} -{removed}"),
        what: What::Changed,
    });
}

fn named<T: PartialEq>(
    changes: &mut Vec<Change>,
    kind: &'static str,
    old: &[T],
    new: &[T],
    name: impl Fn(&T) -> &String,
) {
    let before: BTreeMap<&str, &T> = old.iter().map(|one| (name(one).as_str(), one)).collect();
    let after: BTreeMap<&str, &T> = new.iter().map(|one| (name(one).as_str(), one)).collect();
    let mut push = |name: &str, what| {
        changes.push(Change {
            kind,
            name: name.to_owned(),
            what,
        });
    };
    for one in old {
        if !after.contains_key(name(one).as_str()) {
            push(name(one), What::Removed);
        }
    }
    for one in new {
        match before.get(name(one).as_str()) {
            None => push(name(one), What::Added),
            Some(old) if *old != one => push(name(one), What::Changed),
            Some(_) => {}
        }
    }
    // The first that fits wins, for routes; elsewhere an order is harmless to tell about.
    let kept = |of: &[T], in_other: &BTreeMap<&str, &T>| -> Vec<String> {
        of.iter()
            .map(|one| name(one).clone())
            .filter(|name| in_other.contains_key(name.as_str()))
            .collect()
    };
    let (old_order, new_order) = (kept(old, &after), kept(new, &before));
    if kind == "route" {
        for (was, is) in old_order.iter().zip(&new_order) {
            if was != is {
                push(is, What::Moved);
            }
        }
    }
}
