//! Raw to typed: names to indices, defaults, bounds, and what only makes sense together.
//!
//! Every check reports and goes on. A section that fails still takes part in the checks of others through its
//! raw form, so that one mistake does not hide or cause another. What is built here is only used if no check
//! reported an error.

mod action;
mod admin;
mod auth;
mod bans;
mod beside;
mod claims;
mod cors;
mod direct;
mod edits;
mod fetch;
mod fields;
mod forward;
mod gateway;
mod guard;
mod history;
mod key;
mod limiting;
mod limits;
mod listener;
mod lists;
mod login;
mod matching;
mod offences;
mod paths;
mod provider;
mod routes;
mod shadow;
mod shield;
mod sources;
mod split;
mod tls;
mod tunnel;
mod upstream;
mod url;

use std::{collections::HashMap, num::NonZeroU32, path::Path, time::Duration};

use super::{
    Config, Document, LoadOptions, bounds,
    problem::{Finding, Findings, Place},
    raw::RawConfig,
    section::{Field, Key},
    suggest,
    value::{Item, shown},
};

pub(crate) use self::{admin::read_token, key::least_secret_bytes, shield::is_interface_name};

/// What the checks share.
pub(super) struct Checks<'c> {
    pub(super) findings: &'c mut Findings,
    pub(super) options: &'c LoadOptions<'c>,
    /// Relative paths start here.
    pub(super) base_dir: &'c Path,
}

impl Checks<'_> {
    fn error(&mut self, at: &Place, message: impl Into<String>) {
        self.findings.push(Finding::error(at.clone(), message));
    }

    fn error_help(&mut self, at: &Place, message: impl Into<String>, help: impl Into<String>) {
        self.findings.push(Finding::error(at.clone(), message).help(help));
    }

    fn warn(&mut self, at: &Place, message: impl Into<String>, help: impl Into<String>) {
        self.findings
            .push(Finding::warning(at.clone(), message).help(help));
    }

    /// A duration in `1ns..=longest`, or `default`.
    fn duration(&mut self, key: &Key<Duration>, default: Duration, longest: Duration) -> Duration {
        let Some(Field { value, at }) = key.field() else {
            return default;
        };
        if value.is_zero() {
            self.error(at, format!("{} must be longer than zero", at.subject()));
        } else if *value > longest {
            self.error(at, format!("{} must be at most {}", at.subject(), shown(longest)));
        }
        *value
    }

    /// A number in `1..=largest`.
    fn count(&mut self, field: &Field<u64>, largest: u32) -> Option<NonZeroU32> {
        let Field { value, at } = field;
        let number = u32::try_from(*value)
            .ok()
            .filter(|value| *value <= largest)
            .and_then(NonZeroU32::new);
        if number.is_none() {
            self.error(
                at,
                format!("{} must be between 1 and {largest}, is {value}", at.subject()),
            );
        }
        number
    }

    /// A list of at most `most` entries.
    fn bounded<T>(&mut self, list: &Key<Vec<Item<T>>>, most: usize) {
        if let Some(Field { value, at }) = list.field()
            && value.len() > most
        {
            self.error(
                at,
                format!(
                    "{} has {} entries, more than the {most} allowed",
                    at.subject(),
                    value.len()
                ),
            );
        }
    }

    /// A list with at least one entry. Entries that are no values at all were reported when read and left out,
    /// so an empty list that had some is not reported again.
    fn not_empty<T>(&mut self, field: &Field<Vec<Item<T>>>, message: &str, help: &str) {
        if field.value.is_empty() && !self.findings.reported_within(&field.at.span) {
            self.error_help(&field.at, message, help);
        }
    }

    /// The name of a section, well formed; its value if there is one at all.
    fn name(&mut self, key: &Key<String>, section: &Place) -> String {
        let Some(Field { value, at }) = key.required(section, self.findings) else {
            return String::new();
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if value.is_empty() || value.len() > bounds::MAX_NAME_BYTES || !value.chars().all(allowed) {
            self.error_help(
                at,
                "this is not a name",
                format!("1 to {} letters, digits, `-`, `_` or `.`", bounds::MAX_NAME_BYTES),
            );
        }
        value.clone()
    }

    /// Reports every key that was seen before as a duplicate of its first place.
    fn unique<'k, K: std::hash::Hash + Eq>(
        &mut self,
        what: &str,
        keys: impl IntoIterator<Item = (K, String, &'k Place)>,
    ) {
        let mut first: HashMap<K, &Place> = HashMap::new();
        for (key, shown, at) in keys {
            match first.get(&key) {
                Some(earlier) => self.error_help(
                    at,
                    format!("{what} `{shown}` is given twice"),
                    format!("the first is `{}`", earlier.key),
                ),
                None => {
                    first.insert(key, at);
                }
            }
        }
    }

    fn unknown(&mut self, what: &str, name: &str, at: &Place, names: &Names<'_>) {
        let message = format!("unknown {what} `{name}`");
        match suggest::nearest(name, names.names.keys().copied()) {
            Some(near) => self.error(at, format!("{message}; did you mean `{near}`?")),
            None => self.error_help(at, message, format!("define it with `[[{what}]]`")),
        }
    }
}

/// The names of one kind of section, and which of them something refers to.
struct Names<'r> {
    names: HashMap<&'r str, usize>,
    used: Vec<bool>,
}

impl<'r> Names<'r> {
    fn new(names: impl IntoIterator<Item = Option<&'r String>>) -> Self {
        let mut count = 0;
        let mut index = HashMap::new();
        for (at, name) in names.into_iter().enumerate() {
            count = at + 1;
            if let Some(name) = name {
                index.entry(name.as_str()).or_insert(at);
            }
        }
        Self {
            names: index,
            used: vec![false; count],
        }
    }

    fn refer(&mut self, name: &str) -> Option<usize> {
        let index = *self.names.get(name)?;
        if let Some(used) = self.used.get_mut(index) {
            *used = true;
        }
        Some(index)
    }
}

pub(super) fn items<T>(key: &Key<Vec<Item<T>>>) -> &[Item<T>] {
    key.value().map_or(&[], Vec::as_slice)
}

/// Checks everything and builds what the raw sections describe.
pub(super) fn resolve(raw: &RawConfig, checks: &mut Checks<'_>) -> Config {
    checks.bounded(&raw.service, bounds::MAX_ITEMS);
    checks.bounded(&raw.listener, bounds::MAX_ITEMS);
    checks.bounded(&raw.upstream, bounds::MAX_ITEMS);
    checks.bounded(&raw.route, bounds::MAX_ITEMS);
    checks.bounded(&raw.provider, bounds::MAX_ITEMS);

    let shield = shield::shield(raw.shield.value(), checks);
    let services = shield::services(items(&raw.service), &shield, checks);
    shield::never_escalating(raw.shield.value(), &shield, &services, checks);
    let listeners = listener::listeners(items(&raw.listener), checks);
    let upstreams = upstream::upstreams(items(&raw.upstream), items(&raw.listener), checks);
    let providers = provider::providers(items(&raw.provider), checks);

    let mut upstream_names = Names::new(items(&raw.upstream).iter().map(|item| item.value.name.value()));
    let mut provider_names = Names::new(items(&raw.provider).iter().map(|item| item.value.name.value()));
    let mut targets = routes::Targets {
        upstreams: &mut upstream_names,
        providers: &mut provider_names,
        issuers: &provider::issuers(items(&raw.provider)),
    };
    let routes = routes::routes(raw, &mut targets, checks);
    let mut route_names = Names::new(items(&raw.route).iter().map(|item| item.value.name.value()));
    direct::bypassing(items(&raw.service), &services, &listeners, &routes, checks);
    let request_limits = limiting::limits(&raw.limit, &mut route_names, &routes, checks);
    gateway::unused(raw, &upstream_names, &provider_names, checks);

    let (workers, shutdown_grace) = gateway::process(raw.gateway.value(), checks);
    let lifecycle = gateway::lifecycle(raw.gateway.value(), checks);
    let limits = limits::limits(
        raw.gateway.value().and_then(|gateway| gateway.limits.value()),
        checks,
    );
    let access_log = limits::access_log(
        raw.gateway.value().and_then(|gateway| gateway.access_log.value()),
        checks,
    );
    let revocation_file = gateway::revocation_file(raw, checks);
    let offences = offences::offences(raw.offences.value(), checks);
    let admin = admin::admin(raw, checks);
    let traces = raw
        .gateway
        .value()
        .and_then(|gateway| gateway.traces.value())
        .and_then(|raw| admin::traces(raw, checks));
    let history = history::history(raw, checks);
    Config {
        shield,
        services,
        listeners,
        upstreams,
        routes,
        paths: routes::paths(raw),
        providers,
        request_limits,
        revocation_file,
        offences,
        workers,
        shutdown_grace,
        lifecycle,
        limits,
        access_log,
        admin,
        traces,
        history,
        document: Document::default(),
    }
}
