//! `[route.request_headers]` and `[route.response_headers]`: which fields a route may change.

use std::collections::HashSet;

use super::{
    Checks, action,
    fields::{self, normal},
    items,
};
use crate::config::{
    FieldRules, Part, RouteMatch, Text, bounds,
    problem::Place,
    raw::{RawConfig, route::Fields},
    section::{Field, Key},
    value::Item,
};

/// The keys of either table.
pub(super) struct Rules<'r> {
    pub(super) set: &'r Key<Fields>,
    pub(super) add: &'r Key<Fields>,
    pub(super) remove: &'r Key<Vec<Item<String>>>,
}

/// Which way the message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Request,
    Response { cors: bool },
}

/// What the rules may not touch because of others in the file.
pub(super) struct Taken {
    identity: HashSet<String>,
}

impl Taken {
    /// Fields that carry tokens, claims or certificates.
    pub(super) fn by(raw: &RawConfig) -> Self {
        let mut identity = HashSet::new();
        for tls in items(&raw.listener)
            .iter()
            .filter_map(|item| item.value.tls.value())
        {
            let headers = [&tls.subject_header, &tls.fingerprint_header];
            identity.extend(
                headers
                    .into_iter()
                    .filter_map(|key| key.value())
                    .map(|name| normal(name)),
            );
        }
        for raw in items(&raw.provider).iter().map(|item| &item.value) {
            let claims = items(&raw.claim_headers)
                .iter()
                .filter_map(|item| item.value.header.value());
            identity.extend(claims.map(|name| normal(name)));
            let sources = items(&raw.sources).iter();
            let headers = sources.filter_map(|item| item.value.strip_prefix(super::sources::HEADER_SOURCE));
            identity.extend(headers.map(normal));
        }
        Self { identity }
    }
}

pub(super) fn rules(
    raw: &Rules<'_>,
    way: Way,
    matches: Option<&RouteMatch>,
    taken: &Taken,
    checks: &mut Checks<'_>,
) -> FieldRules {
    let mut seen: Vec<(String, &'static str)> = Vec::new();
    let mut once = |name: &str, verb: &'static str, at: &Place, checks: &mut Checks<'_>| {
        let plain = normal(name);
        match seen.iter().find(|(seen, _)| *seen == plain) {
            Some((_, other))
                if !(*other == "add" && verb == "remove" || *other == "set" && verb == "add") =>
            {
                checks.error(at, format!("`{name}` is under `{other}` already"));
            }
            _ => seen.push((plain, verb)),
        }
    };
    let mut texts = |key: &Key<Fields>, verb: &'static str, checks: &mut Checks<'_>| -> Vec<(String, Text)> {
        let Some(field) = key.field() else {
            return Vec::new();
        };
        if field.value.0.len() > bounds::MAX_FIELD_RULES {
            checks.error(
                &field.at,
                format!(
                    "{} has more than {} entries",
                    field.at.subject(),
                    bounds::MAX_FIELD_RULES
                ),
            );
        }
        let put = field.value.0.iter().map(|(name, text)| {
            changeable(&name.value, &name.at, way, taken, checks);
            once(&name.value, verb, &name.at, checks);
            value(text, matches, checks);
            (name.value.to_ascii_lowercase(), text.value.clone())
        });
        put.collect()
    };
    let set = texts(raw.set, "set", checks);
    let add = texts(raw.add, "add", checks);
    checks.bounded(raw.remove, bounds::MAX_FIELD_RULES);
    let mut remove = Vec::new();
    if let Some(Field { value: list, at }) = raw.remove.field() {
        for item in list {
            let at = item.at(at);
            changeable(&item.value, &at, way, taken, checks);
            once(&item.value, "remove", &at, checks);
            remove.push(item.value.to_ascii_lowercase());
        }
    }
    FieldRules { remove, set, add }
}

/// Reports a field that is not the route's to change.
fn changeable(name: &str, at: &Place, way: Way, taken: &Taken, checks: &mut Checks<'_>) {
    let plain = normal(name);
    if http::HeaderName::from_bytes(name.as_bytes()).is_err() || name.len() > bounds::MAX_FIELD_NAME_BYTES {
        checks.error_help(
            at,
            "this is not the name of a header",
            "letters, digits and `-`, as in \"x-name\"",
        );
    } else if taken.identity.contains(&plain) {
        checks.error_help(
            at,
            format!("`{name}` says who asks: it carries a token, a claim or a certificate"),
            "only the provider or the listener that names it sets and removes it",
        );
    } else if way == (Way::Response { cors: true }) && plain.starts_with("access-control-") {
        checks.error_help(
            at,
            format!("`{name}` is written by `[route.cors]`"),
            "keep one of the two",
        );
    } else if fields::is_written_here(&plain, way == Way::Request) {
        checks.error_help(
            at,
            format!("`{name}` is the gateway's: it frames, routes or signs the message"),
            "other fields can be changed",
        );
    }
}

/// Reports what cannot stand in a field.
fn value(text: &Field<Text>, matches: Option<&RouteMatch>, checks: &mut Checks<'_>) {
    action::parameters(text, matches, checks);
    let mut bytes = 0;
    for part in &text.value.0 {
        if let Part::Literal(literal) = part {
            bytes += literal.len();
            if !literal
                .bytes()
                .all(|byte| byte == b' ' || byte.is_ascii_graphic())
            {
                checks.error(&text.at, "a value is made of visible ASCII characters and spaces");
            }
        }
    }
    if bytes > bounds::MAX_FIELD_VALUE_BYTES {
        checks.error(
            &text.at,
            format!("a value is at most {} bytes long", bounds::MAX_FIELD_VALUE_BYTES),
        );
    }
}
