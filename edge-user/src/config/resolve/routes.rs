//! `[[route]]`: which requests, what they must prove, where they go.

use std::time::Duration;

use super::{
    Checks, Names, action, auth, beside, cors,
    edits::{self, Rules, Taken, Way},
    fields, items, login, matching,
    provider::Issuer,
    shadow, tunnel,
};
use crate::config::{
    Compress, FieldRules, PathRules, Route, RouteMatch, bounds,
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
    tunnel::alone(&raw, file, checks);
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
                compress: compress(raw, checks),
                mirror: beside::mirror(raw, targets, checks),
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

fn compress(raw: &RawRoute, checks: &mut Checks<'_>) -> Option<Compress> {
    let compress = raw.compress.value()?;
    let defaults = Compress::default();
    let algorithms = compress.algorithms.field().map_or(defaults.algorithms, |field| {
        checks.not_empty(
            field,
            "there is no coding to compress by",
            "leave the key out for all of them",
        );
        let places: Vec<_> = field.value.iter().map(|item| item.at(&field.at)).collect();
        let named = field.value.iter().zip(&places);
        checks.unique(
            "coding",
            named.map(|(item, at)| (item.value.name(), item.value.name().to_owned(), at)),
        );
        field.value.iter().map(|item| item.value).collect()
    });
    checks.bounded(&compress.types, bounds::MAX_COMPRESS_TYPES);
    let types = compress.types.field().map_or(defaults.types, |field| {
        checks.not_empty(
            field,
            "no answer is ever compressed",
            "leave the key out for the usual types",
        );
        for item in &field.value {
            let well_formed = item.value.split_once('/').is_some_and(|(kind, subtype)| {
                fields::is_token(kind) && kind != "*" && fields::is_token(subtype)
            });
            if !well_formed {
                checks.error_help(
                    &item.at(&field.at),
                    format!("`{}` is not a media type", item.value),
                    "as in \"text/html\" or \"text/*\"",
                );
            }
        }
        field
            .value
            .iter()
            .map(|item| item.value.to_ascii_lowercase())
            .collect()
    });
    if raw.upstream.is_absent() {
        checks.error(
            raw.compress.field().map_or(raw.at(), |field| &field.at),
            "only answers of upstreams are compressed",
        );
    }
    Some(Compress {
        algorithms,
        types,
        min_bytes: compress.min_bytes.value().copied().unwrap_or(defaults.min_bytes),
    })
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
