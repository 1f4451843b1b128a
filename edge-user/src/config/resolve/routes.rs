//! `[[route]]`: which requests, what they must prove, where they go.

use super::{Checks, Names, auth, login, matching, provider::Issuer, shadow};
use crate::config::{
    Route, bounds,
    raw::RawRoute,
    section::{Field, Section},
    value::Item,
};

/// What routes refer to.
pub(super) struct Targets<'t, 'r> {
    pub(super) upstreams: &'t mut Names<'r>,
    pub(super) providers: &'t mut Names<'r>,
    pub(super) issuers: &'t [Issuer<'r>],
}

pub(super) fn routes(
    raw: &[Item<RawRoute>],
    targets: &mut Targets<'_, '_>,
    checks: &mut Checks<'_>,
) -> Vec<Route> {
    let names = raw.iter().filter_map(|item| item.value.name.field());
    checks.unique(
        "route name",
        names.map(|name| (&name.value, name.value.clone(), &name.at)),
    );
    login::reachable(raw, checks);
    let matches: Vec<_> = raw
        .iter()
        .map(|item| matching::matches(&item.value, checks))
        .collect();
    let raw: Vec<&RawRoute> = raw.iter().map(|item| &item.value).collect();
    shadow::never_matching(&raw, &matches, checks);
    raw.into_iter()
        .zip(matches)
        .filter_map(|(raw, matches)| {
            let name = checks.name(&raw.name, raw.at());
            let upstream = upstream(raw, targets, checks);
            let auth = auth::policy(raw, targets.providers, targets.issuers, checks);
            let timeout = checks.duration(
                &raw.timeout,
                bounds::DEFAULT_ROUTE_TIMEOUT,
                bounds::MAX_ROUTE_TIMEOUT,
            );
            Some(Route {
                name,
                matches: matches?,
                upstream: upstream?,
                auth: auth?,
                timeout,
            })
        })
        .collect()
}

fn upstream(raw: &RawRoute, targets: &mut Targets<'_, '_>, checks: &mut Checks<'_>) -> Option<usize> {
    let Field { value, at } = raw.upstream.required(raw.at(), checks.findings)?;
    let index = targets.upstreams.refer(value);
    if index.is_none() {
        checks.unknown("upstream", value, at, targets.upstreams);
    }
    index
}
