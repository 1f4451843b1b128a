//! `[[route]]`: which requests, what they must prove, where they go.

use std::time::Duration;

use super::{
    Checks, Names, action, auth, cors,
    edits::{self, Rules, Taken, Way},
    items, login, matching,
    provider::Issuer,
    shadow,
};
use crate::config::{
    FieldRules, PathRules, Route, RouteMatch, bounds,
    raw::{DotSegments, DuplicateSlashes, RawConfig, RawRoute, route::EncodedSlashes},
    section::{Key, Section},
};

/// What routes refer to.
pub(super) struct Targets<'t, 'r> {
    pub(super) upstreams: &'t mut Names<'r>,
    pub(super) providers: &'t mut Names<'r>,
    pub(super) issuers: &'t [Issuer<'r>],
}

pub(super) fn routes(file: &RawConfig, targets: &mut Targets<'_, '_>, checks: &mut Checks<'_>) -> Vec<Route> {
    let raw = items(&file.route);
    let names = raw.iter().filter_map(|item| item.value.name.field());
    checks.unique(
        "route name",
        names.map(|name| (&name.value, name.value.clone(), &name.at)),
    );
    login::reachable(raw, checks);
    let taken = Taken::by(file);
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
            let action = action::action(raw, matches.as_ref(), targets, checks);
            let auth = auth::policy(raw, targets.providers, targets.issuers, checks);
            let timeout = checks.duration(
                &raw.timeout,
                bounds::DEFAULT_ROUTE_TIMEOUT,
                bounds::MAX_ROUTE_TIMEOUT,
            );
            let cors = cors::cors(raw, matches.as_ref(), checks);
            let (request_headers, response_headers) = headers(raw, matches.as_ref(), &taken, checks);
            Some(Route {
                name,
                request_timeout: optional(&raw.request_timeout, checks),
                idle_timeout: optional(&raw.idle_timeout, checks),
                body_limit: raw.body_limit.value().copied(),
                keep_encoded_slashes: raw.encoded_slashes.value() == Some(&EncodedSlashes::Keep),
                rewrite: action::rewrite(raw, matches.as_ref(), checks),
                request_headers,
                response_headers,
                cors,
                matches: matches?,
                action: action?,
                auth: auth?,
                timeout,
            })
        })
        .collect()
}

/// `[gateway.paths]`.
pub(super) fn paths(raw: &RawConfig) -> PathRules {
    let paths = raw.gateway.value().and_then(|gateway| gateway.paths.value());
    paths.map_or_else(PathRules::default, |paths| PathRules {
        resolve_dots: paths.dot_segments.value() == Some(&DotSegments::Resolve),
        merge_slashes: paths.duplicate_slashes.value() == Some(&DuplicateSlashes::Merge),
    })
}

/// A duration that has no default.
fn optional(key: &Key<Duration>, checks: &mut Checks<'_>) -> Option<Duration> {
    let given = key.value().copied()?;
    Some(checks.duration(key, given, bounds::MAX_ROUTE_TIMEOUT))
}

fn headers(
    raw: &RawRoute,
    matches: Option<&RouteMatch>,
    taken: &Taken,
    checks: &mut Checks<'_>,
) -> (FieldRules, FieldRules) {
    let request = raw.request_headers.value().map(|raw| Rules {
        set: &raw.set,
        add: &raw.add,
        remove: &raw.remove,
    });
    let response = raw.response_headers.value().map(|raw| Rules {
        set: &raw.set,
        add: &raw.add,
        remove: &raw.remove,
    });
    let way = Way::Response {
        cors: raw.cors.field().is_some(),
    };
    let mut rules = |raw: Option<Rules<'_>>, way| {
        raw.map(|raw| edits::rules(&raw, way, matches, taken, checks))
            .unwrap_or_default()
    };
    (rules(request, Way::Request), rules(response, way))
}
