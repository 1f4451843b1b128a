//! Claims: paths that can exist in a token, and requirements that one token can satisfy together.

use super::{Checks, items};
use crate::config::{
    ClaimRule, ClaimTest, ClaimValue, bounds,
    claim::ClaimPath,
    problem::Place,
    raw::{RawClaim, RawRoute},
    section::{Field, Section},
};

/// The type that a registered claim has in every token that is not refused (RFC 7519 section 4.1).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Registered {
    Text,
    Date,
}

fn registered(name: &str) -> Option<Registered> {
    match name {
        "iss" | "sub" | "jti" | "aud" => Some(Registered::Text),
        "exp" | "nbf" | "iat" => Some(Registered::Date),
        _ => None,
    }
}

/// The names of a path that a token can have.
pub(super) fn path(field: &Field<ClaimPath>, checks: &mut Checks<'_>) -> Vec<String> {
    let Field {
        value: ClaimPath { names, is_word },
        at,
    } = field;
    let is_name = |name: &String| !name.is_empty() && name.len() <= bounds::MAX_CLAIM_BYTES;
    if names.is_empty() || names.len() > bounds::MAX_CLAIM_DEPTH {
        checks.error(
            at,
            format!(
                "the path of a claim has 1 to {} names, has {}",
                bounds::MAX_CLAIM_DEPTH,
                names.len()
            ),
        );
    } else if !names.iter().all(is_name) {
        checks.error(
            at,
            format!("the name of a claim has 1 to {} bytes", bounds::MAX_CLAIM_BYTES),
        );
    } else if let [outer, _, ..] = names.as_slice()
        && registered(outer).is_some()
    {
        checks.error_help(
            at,
            format!("no token has anything below `{outer}`: it is no object (RFC 7519)"),
            "name a claim that is an object first",
        );
    } else if let ([name], true) = (names.as_slice(), is_word)
        && name.contains('.')
        && !name.contains(['/', ':'])
    {
        let inwards: Vec<_> = name.split('.').map(|name| format!("\"{name}\"")).collect();
        checks.warn(
            at,
            format!("this is one claim whose name is `{name}`"),
            format!(
                "for a claim inside another write [{}]; if it is meant so, [\"{name}\"]",
                inwards.join(", ")
            ),
        );
    }
    names.clone()
}

/// The requirements of a route.
pub(super) fn rules(raw: &RawRoute, checks: &mut Checks<'_>) -> Vec<ClaimRule> {
    checks.bounded(&raw.claims, bounds::MAX_CLAIMS);
    let mut rules: Vec<(ClaimRule, &Place)> = Vec::new();
    for item in items(&raw.claims).iter().take(bounds::MAX_CLAIMS) {
        let Some(rule) = rule(&item.value, checks) else {
            continue;
        };
        let at = item.value.at();
        // At most MAX_CLAIMS of them, so comparing each with each stays small.
        let clash = rules
            .iter()
            .find_map(|(earlier, place)| conflict(earlier, &rule).map(|clash| (clash, *place)));
        match clash {
            Some((Conflict::Same, earlier)) => checks.error_help(
                at,
                "this requirement is given twice",
                format!("the first is `{}`", earlier.key),
            ),
            Some((Conflict::Contradiction, earlier)) => checks.error_help(
                at,
                format!("no token satisfies this and `{}` together", earlier.key),
                "all requirements of a route must hold; for alternatives write one_of = [\"…\", \"…\"]",
            ),
            None => {}
        }
        rules.push((rule, at));
    }
    rules.into_iter().map(|(rule, _)| rule).collect()
}

fn rule(raw: &RawClaim, checks: &mut Checks<'_>) -> Option<ClaimRule> {
    let claim = raw.claim.required(raw.at(), checks.findings);
    let path = claim.map(|field| path(field, checks));
    let given = [
        ("equals", raw.equals.field().map(|field| &field.at)),
        ("contains", raw.contains.field().map(|field| &field.at)),
        ("one_of", raw.one_of.field().map(|field| &field.at)),
    ];
    let mut given = given.iter().filter_map(|(name, at)| Some((*name, (*at)?)));
    let (first, second) = (given.next(), given.next());
    if let (Some((first, _)), Some((second, at))) = (first, second) {
        checks.error_help(
            at,
            format!("a requirement has one test, not both `{first}` and `{second}`"),
            "make them two requirements",
        );
        return None;
    }
    if first.is_none() && raw.equals.is_absent() && raw.contains.is_absent() && raw.one_of.is_absent() {
        checks.error_help(
            raw.at(),
            "a requirement has a test",
            "one of `equals`, `contains`, `one_of`",
        );
    }
    let test = if let Some(field) = raw.equals.field() {
        ClaimTest::Equals(compared(&field.value, &field.at, path.as_deref(), checks))
    } else if let Some(field) = raw.contains.field() {
        ClaimTest::Contains(compared(&field.value, &field.at, path.as_deref(), checks))
    } else {
        ClaimTest::OneOf(one_of(raw, path.as_deref(), checks)?)
    };
    Some(ClaimRule { path: path?, test })
}

fn one_of(raw: &RawClaim, path: Option<&[String]>, checks: &mut Checks<'_>) -> Option<Vec<ClaimValue>> {
    let field @ Field { value: list, at } = raw.one_of.field()?;
    checks.bounded(&raw.one_of, bounds::MAX_ITEMS);
    checks.not_empty(field, "no value is one of none", "as in [\"admin\", \"editor\"]");
    let places: Vec<_> = list.iter().map(|item| item.at(at)).collect();
    let given = list.iter().zip(&places);
    checks.unique(
        "value",
        given
            .clone()
            .map(|(item, at)| (&item.value, shown(&item.value), at)),
    );
    // An error was reported for the empty list and for what is no value.
    (!list.is_empty()).then(|| {
        given
            .map(|(item, at)| compared(&item.value, at, path, checks))
            .collect()
    })
}

/// A value that the claim at `path` can have.
fn compared(value: &ClaimValue, at: &Place, path: Option<&[String]>, checks: &mut Checks<'_>) -> ClaimValue {
    if let ClaimValue::Text(text) = value
        && text.len() > bounds::MAX_CLAIM_BYTES
    {
        checks.error(
            at,
            format!("a value has at most {} bytes", bounds::MAX_CLAIM_BYTES),
        );
    }
    if let Some([name]) = path {
        let wanted = match (registered(name), value) {
            (Some(Registered::Text), ClaimValue::Integer(_) | ClaimValue::Bool(_)) => "a string",
            (Some(Registered::Date), ClaimValue::Text(_) | ClaimValue::Bool(_)) => "a number",
            (Some(Registered::Text), ClaimValue::Text(_))
            | (Some(Registered::Date), ClaimValue::Integer(_))
            | (None, _) => return value.clone(),
        };
        checks.error(
            at,
            format!("this never holds: `{name}` is {wanted} in every token (RFC 7519)"),
        );
    }
    value.clone()
}

fn shown(value: &ClaimValue) -> String {
    match value {
        ClaimValue::Text(text) => text.clone(),
        ClaimValue::Integer(number) => number.to_string(),
        ClaimValue::Bool(flag) => flag.to_string(),
    }
}

#[derive(Clone, Copy)]
enum Conflict {
    Same,
    Contradiction,
}

/// Why two requirements cannot or need not stand together.
fn conflict(one: &ClaimRule, other: &ClaimRule) -> Option<Conflict> {
    if one == other {
        return Some(Conflict::Same);
    }
    // Every test wants a single value or an array: nothing can be inside that.
    let is_inside = |inner: &ClaimRule, outer: &ClaimRule| {
        inner.path.len() > outer.path.len() && inner.path.starts_with(&outer.path)
    };
    if is_inside(one, other) || is_inside(other, one) {
        return Some(Conflict::Contradiction);
    }
    if one.path != other.path {
        return None;
    }
    let is_possible = match (values(&one.test), values(&other.test)) {
        (Values::Single(one), Values::Single(other)) => one.iter().any(|value| other.contains(value)),
        (Values::Single(set), Values::Member(value)) | (Values::Member(value), Values::Single(set)) => {
            set.contains(value)
        }
        // An array can have both in it.
        (Values::Member(_), Values::Member(_)) => true,
    };
    (!is_possible).then_some(Conflict::Contradiction)
}

/// What a test leaves for the claim to be.
enum Values<'t> {
    /// One of these.
    Single(&'t [ClaimValue]),
    /// This, or an array with it.
    Member(&'t ClaimValue),
}

fn values(test: &ClaimTest) -> Values<'_> {
    match test {
        ClaimTest::Equals(value) => Values::Single(std::slice::from_ref(value)),
        ClaimTest::OneOf(list) => Values::Single(list),
        ClaimTest::Contains(value) => Values::Member(value),
    }
}
