//! `[[provider]]`: who signs tokens, with what, and what a token must be like.

use jsonwebtoken::Algorithm;

use super::{Checks, forward, items, key, sources};
use crate::config::{
    Provider, TokenChecks, bounds,
    raw::RawProvider,
    section::{Field, Section},
    value::Item,
};

pub(super) fn providers(raw: &[Item<RawProvider>], checks: &mut Checks<'_>) -> Vec<Provider> {
    let names = raw.iter().filter_map(|item| item.value.name.field());
    checks.unique(
        "provider name",
        names.map(|name| (&name.value, name.value.clone(), &name.at)),
    );
    forward::clashes(raw, checks);
    raw.iter()
        .filter_map(|item| provider(&item.value, checks))
        .collect()
}

/// By what a token can be told to be a provider's.
pub(super) struct Issuer<'r> {
    pub(super) name: &'r str,
    pub(super) iss: Option<&'r str>,
    pub(super) algorithms: Vec<Algorithm>,
}

/// One for each provider, as written.
pub(super) fn issuers(raw: &[Item<RawProvider>]) -> Vec<Issuer<'_>> {
    raw.iter()
        .map(|Item { value: raw, .. }| Issuer {
            name: raw.name.value().map_or("", String::as_str),
            iss: issuer(raw),
            algorithms: items(&raw.algorithms).iter().map(|item| item.value).collect(),
        })
        .collect()
}

/// Required `iss`: an issuer's keys vouch for its own tokens only.
fn issuer(raw: &RawProvider) -> Option<&str> {
    let given = raw.issuer.value().or(raw.oidc_issuer.value());
    given.map(String::as_str)
}

fn provider(raw: &RawProvider, checks: &mut Checks<'_>) -> Option<Provider> {
    let name = checks.name(&raw.name, raw.at());
    let algorithms = algorithms(raw, checks);
    let key = key::source(raw, algorithms.as_deref(), checks);
    one_issuer(raw, checks);
    let audiences = audiences(raw, checks);
    let leeway = leeway(raw, checks);
    let sources = sources::sources(raw, checks);
    let token = token_checks(raw, checks);
    let forward = forward::forwarding(raw, checks);
    Some(Provider {
        name,
        algorithms: algorithms?,
        key: key?,
        issuer: issuer(raw).map(ToOwned::to_owned),
        audiences,
        leeway,
        sources,
        checks: token,
        forward,
    })
}

fn one_issuer(raw: &RawProvider, checks: &mut Checks<'_>) {
    let Some(Field { value, at }) = raw.issuer.field() else {
        return;
    };
    if value.is_empty() {
        checks.error(at, "`issuer` must not be empty");
    } else if raw.oidc_issuer.value().is_some_and(|oidc| oidc != value) {
        checks.error_help(
            at,
            "`issuer` and `oidc_issuer` differ: no token could be both",
            "leave `issuer` out, or name the keys by `jwks_url`",
        );
    }
}

fn audiences(raw: &RawProvider, checks: &mut Checks<'_>) -> Vec<String> {
    let Some(Field { value: list, at }) = raw.audiences.field() else {
        return Vec::new();
    };
    checks.bounded(&raw.audiences, bounds::MAX_ITEMS);
    let places: Vec<_> = list.iter().map(|item| item.at(at)).collect();
    let given = list.iter().zip(&places);
    for (_, at) in given.clone().filter(|(item, _)| item.value.is_empty()) {
        checks.error(at, "an audience must not be empty");
    }
    checks.unique(
        "audience",
        given.map(|(item, at)| (item.value.as_str(), item.value.clone(), at)),
    );
    list.iter().map(|item| item.value.clone()).collect()
}

fn token_checks(raw: &RawProvider, checks: &mut Checks<'_>) -> TokenChecks {
    let default = TokenChecks::default();
    let max_lifetime = raw.max_lifetime.field().map(|_| {
        checks.duration(
            &raw.max_lifetime,
            bounds::MAX_TOKEN_LIFETIME,
            bounds::MAX_TOKEN_LIFETIME,
        )
    });
    if let (Some(Field { value: false, at }), Some(_)) = (raw.require_exp.field(), max_lifetime) {
        checks.error_help(
            at,
            "`require_exp` cannot be false beside `max_lifetime`: a token without an end outlives it",
            "remove one of the two",
        );
    }
    TokenChecks {
        require_exp: raw.require_exp.clone().or(default.require_exp),
        max_lifetime,
        types: types(raw, checks),
    }
}

/// Media types, or their second half (RFC 7515 section 4.1.9).
fn types(raw: &RawProvider, checks: &mut Checks<'_>) -> Vec<String> {
    let Some(Field { value: list, at }) = raw.types.field() else {
        return Vec::new();
    };
    checks.bounded(&raw.types, bounds::MAX_ITEMS);
    let places: Vec<_> = list.iter().map(|item| item.at(at)).collect();
    let given = list.iter().zip(&places);
    for (item, at) in given.clone() {
        let mut halves = item.value.splitn(2, '/');
        // Both halves are made of what also makes the names of headers (RFC 6838 section 4.2).
        if !halves.all(|half| http::HeaderName::from_bytes(half.as_bytes()).is_ok()) {
            checks.error_help(
                at,
                "this is not a type",
                "as in \"at+jwt\" or \"application/at+jwt\"",
            );
        }
    }
    checks.unique(
        "type",
        given.map(|(item, at)| {
            let lower = item.value.to_ascii_lowercase();
            let short = lower.strip_prefix("application/").unwrap_or(&lower).to_owned();
            (short, item.value.clone(), at)
        }),
    );
    list.iter().map(|item| item.value.clone()).collect()
}

/// Zero is a sensible leeway, unlike other durations.
fn leeway(raw: &RawProvider, checks: &mut Checks<'_>) -> std::time::Duration {
    match raw.leeway.value() {
        Some(leeway) if leeway.is_zero() => *leeway,
        Some(_) | None => checks.duration(&raw.leeway, bounds::DEFAULT_LEEWAY, bounds::MAX_LEEWAY),
    }
}

/// The algorithms, all of one family: a key must not serve two kinds of signature (RFC 8725 section 3.1).
fn algorithms(raw: &RawProvider, checks: &mut Checks<'_>) -> Option<Vec<Algorithm>> {
    let field @ Field { value: list, at } = raw.algorithms.required(raw.at(), checks.findings)?;
    checks.not_empty(
        field,
        "a provider accepts at least one algorithm",
        "as in [\"RS256\"]",
    );
    let first = list.first()?;
    let places: Vec<_> = list.iter().map(|item| item.at(at)).collect();
    let given = list
        .iter()
        .zip(&places)
        .map(|(item, at)| (item.value, format!("{:?}", item.value), at));
    checks.unique("algorithm", given);
    for (item, at) in list.iter().zip(&places) {
        if item.value.family() != first.value.family() {
            let message = format!(
                "`{:?}` and `{:?}` are of different key families",
                first.value, item.value
            );
            checks.error_help(
                at,
                message,
                "one key serves one family: make it a provider of its own",
            );
        }
    }
    Some(list.iter().map(|item| item.value).collect())
}
