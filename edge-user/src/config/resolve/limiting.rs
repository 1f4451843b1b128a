//! `[[limit]]`: how many requests of whom.

use std::{num::NonZeroU32, time::Duration};

use super::{Checks, Names, claims, items};
use crate::config::{
    AuthPolicy, LimitKey, RequestLimit, RequestRate, Route, bounds,
    claim::ClaimPath,
    problem::Place,
    raw::limit::{RawLimit, RawLimitKey},
    section::{Field, Key, Section},
    suggest,
    value::{Item, shown},
};

const KEYS_HELP: &str =
    "\"address\", \"route\", \"header:NAME\", \"claim:NAME\", or a list of names for a claim inside another";

/// `limit.keys` as a checked constant.
const DEFAULT_KEYS: NonZeroU32 = match NonZeroU32::new(bounds::DEFAULT_LIMIT_KEYS) {
    Some(keys) => keys,
    None => NonZeroU32::MIN,
};

pub(super) fn limits(
    raw: &Key<Vec<Item<RawLimit>>>,
    names: &mut Names<'_>,
    routes: &[Route],
    checks: &mut Checks<'_>,
) -> Vec<RequestLimit> {
    checks.bounded(raw, bounds::MAX_LIMITS);
    let list = items(raw);
    let given = list.iter().filter_map(|item| item.value.name.field());
    checks.unique(
        "limit name",
        given.map(|name| (&name.value, name.value.clone(), &name.at)),
    );
    list.iter()
        .take(bounds::MAX_LIMITS)
        .map(|item| limit(&item.value, names, routes, checks))
        .collect()
}

fn limit(raw: &RawLimit, names: &mut Names<'_>, routes: &[Route], checks: &mut Checks<'_>) -> RequestLimit {
    let name = checks.name(&raw.name, raw.at());
    let on = targets(raw, names, checks);
    let by = keys(raw, checks);
    let rate = rate(raw, checks);
    let concurrent = raw
        .concurrent
        .field()
        .and_then(|field| checks.count(field, bounds::MAX_CONCURRENT));
    if raw.requests.is_absent() && raw.concurrent.is_absent() {
        checks.error_help(
            raw.at(),
            "a limit says how many requests: in a time, at once, or both",
            "as in requests = 100, per = \"1m\", or concurrent = 10",
        );
    }
    if by.iter().any(|(key, _)| matches!(key, LimitKey::Claim(_))) {
        claims_exist(&by, &on, routes, checks);
    }
    RequestLimit {
        name,
        routes: on.into_iter().map(|(index, _)| index).collect(),
        by: by.into_iter().map(|(key, _)| key).collect(),
        rate,
        concurrent,
        keys: raw
            .keys
            .field()
            .and_then(|field| checks.count(field, bounds::MAX_LIMIT_KEYS))
            .unwrap_or(DEFAULT_KEYS),
        observe: raw.observe.clone().or_default(),
        tell: raw.tell.clone().or_default(),
    }
}

/// The routes that it is for, each with its place.
fn targets(raw: &RawLimit, names: &mut Names<'_>, checks: &mut Checks<'_>) -> Vec<(usize, Place)> {
    let Some(field @ Field { value: list, at }) = raw.routes.field() else {
        return Vec::new();
    };
    checks.bounded(&raw.routes, bounds::MAX_ITEMS);
    checks.not_empty(
        field,
        "a limit for no route limits nothing",
        "leave `routes` out for all routes",
    );
    let places: Vec<_> = list.iter().map(|item| item.at(at)).collect();
    let given = list.iter().zip(&places);
    checks.unique(
        "route",
        given
            .clone()
            .map(|(item, at)| (item.value.as_str(), item.value.clone(), at)),
    );
    let mut targets = Vec::new();
    for (item, at) in given {
        match names.refer(&item.value) {
            Some(index) => targets.push((index, at.clone())),
            None => checks.unknown("route", &item.value, at, names),
        }
    }
    targets
}

/// What requests are counted by, each with its place.
fn keys(raw: &RawLimit, checks: &mut Checks<'_>) -> Vec<(LimitKey, Place)> {
    let Some(field @ Field { value: list, at }) = raw.by.required(raw.at(), checks.findings) else {
        return Vec::new();
    };
    checks.not_empty(field, "a limit counts requests by something", KEYS_HELP);
    checks.bounded(&raw.by, bounds::MAX_LIMIT_PARTS);
    let keys: Vec<_> = list
        .iter()
        .filter_map(|item| {
            let at = item.at(at);
            key(&item.value, &at, checks).map(|key| (key, at))
        })
        .collect();
    checks.unique("key", keys.iter().map(|(key, at)| (key, format!("{key:?}"), at)));
    keys
}

fn key(raw: &RawLimitKey, at: &Place, checks: &mut Checks<'_>) -> Option<LimitKey> {
    let claim = |names: Vec<String>, is_word, checks: &mut Checks<'_>| {
        let field = Field {
            value: ClaimPath { names, is_word },
            at: at.clone(),
        };
        Some(LimitKey::Claim(claims::path(&field, checks)))
    };
    let word = match raw {
        RawLimitKey::Claim(path) => return claim(path.names.clone(), path.is_word, checks),
        RawLimitKey::Word(word) => word.as_str(),
    };
    match (word, word.split_once(':')) {
        ("address", _) => Some(LimitKey::Address),
        ("route", _) => Some(LimitKey::Route),
        (_, Some(("claim", name))) => claim(vec![name.to_owned()], true, checks),
        (_, Some(("header", name))) => {
            let header = http::HeaderName::from_bytes(name.as_bytes());
            if header.is_err() {
                checks.error_help(at, format!("`{name}` is not the name of a header"), KEYS_HELP);
            }
            header
                .ok()
                .map(|header| LimitKey::Header(header.as_str().to_owned()))
        }
        _ => {
            let message = format!("requests cannot be counted by `{word}`");
            match suggest::nearest(word, ["address", "route", "header:", "claim:"]) {
                Some(near) => checks.error(at, format!("{message}; did you mean `{near}`?")),
                None => checks.error_help(at, message, KEYS_HELP),
            }
            None
        }
    }
}

fn rate(raw: &RawLimit, checks: &mut Checks<'_>) -> Option<RequestRate> {
    let requests = raw
        .requests
        .field()
        .map(|field| checks.count(field, bounds::MAX_LIMIT_REQUESTS));
    let burst = raw
        .burst
        .field()
        .map(|field| checks.count(field, bounds::MAX_LIMIT_REQUESTS));
    let per = checks.duration(&raw.per, Duration::from_secs(1), bounds::MAX_LIMIT_PER);
    for (given, name) in [
        (raw.per.field().map(|field| &field.at), "per"),
        (raw.burst.field().map(|field| &field.at), "burst"),
    ] {
        if let (Some(at), true) = (given, raw.requests.is_absent()) {
            checks.error_help(
                at,
                format!("`{name}` has no meaning without `requests`"),
                "add `requests`",
            );
        }
    }
    if let (Some(field), true) = (raw.requests.field(), raw.per.is_absent()) {
        checks.error_help(
            &field.at,
            "so many requests in what time?",
            "add `per`, as in per = \"1m\"",
        );
    }
    let requests = requests??;
    let burst = burst.flatten().unwrap_or(requests);
    let depth = per.as_secs_f64() / f64::from(requests.get()) * f64::from(burst.get());
    if let Some(field) = raw.burst.field()
        && depth > bounds::MAX_LIMIT_DEPTH.as_secs_f64()
    {
        checks.error_help(
            &field.at,
            format!(
                "at this rate a burst of {burst} takes more than {} to earn back",
                shown(bounds::MAX_LIMIT_DEPTH)
            ),
            "lower `burst` or raise `requests`",
        );
    }
    Some(RequestRate { requests, per, burst })
}

/// A claim is looked for where tokens are looked at.
fn claims_exist(by: &[(LimitKey, Place)], on: &[(usize, Place)], routes: &[Route], checks: &mut Checks<'_>) {
    let is_open = |index: &usize| {
        routes
            .get(*index)
            .is_some_and(|route| matches!(route.auth, AuthPolicy::None))
    };
    for (index, at) in on.iter().filter(|(index, _)| is_open(index)) {
        let name = routes.get(*index).map_or("", |route| route.name.as_str());
        checks.error_help(
            at,
            format!("route `{name}` looks at no token, so there is no claim to count by"),
            "give the route auth = \"required\" or \"optional\", or the limit another key",
        );
    }
    let all_open = !routes.is_empty() && (0..routes.len()).all(|index| is_open(&index));
    if on.is_empty() && all_open {
        for (_, at) in by.iter().filter(|(key, _)| matches!(key, LimitKey::Claim(_))) {
            checks.error_help(
                at,
                "no route looks at tokens, so there is no claim to count by",
                "give a route auth = \"required\" or \"optional\", or the limit another key",
            );
        }
    }
}
