//! What a `[[route]]` asks of a request's token: its mode, whose tokens, which scopes and claims, where to log in.

use std::collections::HashMap;

use jsonwebtoken::Algorithm;

use super::{Checks, Names, claims, login, provider::Issuer};
use crate::config::{
    AuthPolicy, AuthRule, bounds,
    problem::Place,
    raw::{AuthMode, RawRoute},
    section::{Field, Section},
};

pub(super) fn policy(
    raw: &RawRoute,
    names: &mut Names<'_>,
    issuers: &[Issuer<'_>],
    checks: &mut Checks<'_>,
) -> Option<AuthPolicy> {
    if raw.auth.is_absent() {
        let at = Place {
            key: format!("{}.auth", raw.at().key),
            ..raw.at().clone()
        };
        checks.error_help(
            &at,
            "missing key `auth`: every route says what it asks of a request",
            "\"none\", \"optional\" or \"required\"",
        );
    }
    let rule = AuthRule {
        providers: providers(raw, names, issuers, checks),
        scopes: scopes(raw, checks),
        claims: claims::rules(raw, checks),
        login: raw.login.value().and_then(|login| login::login(login, checks)),
    };
    let Field { value: mode, at } = raw.auth.field()?;
    match mode {
        AuthMode::None => {
            rule_is_absent(raw, checks);
            Some(AuthPolicy::None)
        }
        AuthMode::Optional => {
            names_somebody(raw, at, checks);
            Some(AuthPolicy::Optional(rule))
        }
        AuthMode::Required => {
            names_somebody(raw, at, checks);
            Some(AuthPolicy::Required(rule))
        }
    }
}

fn rule_is_absent(raw: &RawRoute, checks: &mut Checks<'_>) {
    let given = [
        raw.providers.field().map(|field| &field.at),
        raw.scopes.field().map(|field| &field.at),
        raw.claims.field().map(|field| &field.at),
        raw.login.field().map(|field| &field.at),
    ];
    for at in given.into_iter().flatten() {
        checks.error_help(
            at,
            format!("{} has no meaning while `auth` is \"none\"", at.subject()),
            "write auth = \"required\" or \"optional\", or remove it",
        );
    }
}

fn names_somebody(raw: &RawRoute, at: &Place, checks: &mut Checks<'_>) {
    let message = "a route that looks at tokens names who may sign them";
    let help = "add providers = [\"…\"]";
    match raw.providers.field() {
        Some(field) => checks.not_empty(field, message, help),
        None if raw.providers.is_absent() => checks.error_help(at, message, help),
        None => {}
    }
}

fn providers(
    raw: &RawRoute,
    names: &mut Names<'_>,
    issuers: &[Issuer<'_>],
    checks: &mut Checks<'_>,
) -> Vec<usize> {
    let Some(Field { value: list, at }) = raw.providers.field() else {
        return Vec::new();
    };
    checks.bounded(&raw.providers, bounds::MAX_ROUTE_PROVIDERS);
    let places: Vec<_> = list.iter().map(|item| item.at(at)).collect();
    let given = list.iter().zip(&places);
    checks.unique(
        "provider",
        given
            .clone()
            .map(|(item, at)| (item.value.as_str(), item.value.clone(), at)),
    );
    let mut providers = Vec::new();
    for (item, at) in given.take(bounds::MAX_ROUTE_PROVIDERS) {
        match names.refer(&item.value) {
            Some(index) if providers.contains(&index) => {}
            Some(index) => {
                providers.push(index);
                told_apart(&providers, at, issuers, checks);
            }
            None => checks.unknown("provider", &item.value, at, names),
        }
    }
    providers
}

/// A token must be able to belong to one provider only: the last of these differs from each before it in its issuer
/// or in all of its algorithms.
fn told_apart(providers: &[usize], at: &Place, issuers: &[Issuer<'_>], checks: &mut Checks<'_>) {
    let mut known: HashMap<(Option<&str>, Algorithm), &str> = HashMap::new();
    let mut issuers = providers.iter().filter_map(|index| issuers.get(*index));
    let Some(last) = issuers.next_back() else { return };
    for earlier in issuers {
        for algorithm in &earlier.algorithms {
            known.entry((earlier.iss, *algorithm)).or_insert(earlier.name);
        }
    }
    let clash = last
        .algorithms
        .iter()
        .find_map(|algorithm| Some((algorithm, known.get(&(last.iss, *algorithm))?)));
    if let Some((algorithm, earlier)) = clash {
        let issuer = match last.iss {
            Some(_) => "the same issuer",
            None => "no issuer",
        };
        checks.error_help(
            at,
            format!(
                "a token could belong to either: `{earlier}` and `{}` accept {algorithm:?} and name {issuer}",
                last.name
            ),
            "give each its `issuer`",
        );
    }
}

fn scopes(raw: &RawRoute, checks: &mut Checks<'_>) -> Vec<String> {
    let Some(Field { value: list, at }) = raw.scopes.field() else {
        return Vec::new();
    };
    checks.bounded(&raw.scopes, bounds::MAX_ITEMS);
    let places: Vec<_> = list.iter().map(|item| item.at(at)).collect();
    let given = list.iter().zip(&places);
    checks.unique(
        "scope",
        given
            .clone()
            .map(|(item, at)| (item.value.as_str(), item.value.clone(), at)),
    );
    for (item, at) in given {
        // RFC 6749 section 3.3: scope-token.
        let valid = |b: u8| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        if item.value.is_empty() || !item.value.bytes().all(valid) {
            checks.error_help(
                at,
                "this is not one scope",
                "printable ASCII without blanks, `\"` and `\\`",
            );
        }
    }
    list.iter().map(|item| item.value.clone()).collect()
}
