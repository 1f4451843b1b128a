//! What a route asks of a verified token: scopes and claims.

use serde_json::Value;
use thiserror::Error;

use super::{claims::Claims, login, refusal::Refusal, source::MAX_PROVIDERS};
use crate::config::{AuthRule, ClaimRule, ClaimTest, ClaimValue};

/// Whether a route asks anything of a token beyond being good.
pub(super) fn asks(rule: &AuthRule) -> bool {
    !rule.scopes.is_empty() || !rule.claims.is_empty()
}

/// Checks a verified token's claims against a route.
pub(super) fn check(rule: &AuthRule, claims: &Claims) -> Result<(), Refusal> {
    if !rule
        .scopes
        .iter()
        .all(|wanted| claims.scopes().any(|scope| scope == wanted))
    {
        return Err(Refusal::MissingScope {
            scope: rule.scopes.join(" ").into(),
        });
    }
    if !rule.claims.iter().all(|requirement| holds(requirement, claims)) {
        return Err(Refusal::ClaimMismatch);
    }
    Ok(())
}

pub(super) fn holds(rule: &ClaimRule, claims: &Claims) -> bool {
    let Some(claim) = claims.at(&rule.path) else {
        return false;
    };
    match &rule.test {
        ClaimTest::Equals(wanted) => is(claim, wanted),
        ClaimTest::OneOf(list) => list.iter().any(|wanted| is(claim, wanted)),
        ClaimTest::Contains(wanted) => match claim {
            Value::Array(list) => list.iter().any(|element| is(element, wanted)),
            other => is(other, wanted),
        },
    }
}

fn is(value: &Value, wanted: &ClaimValue) -> bool {
    match wanted {
        ClaimValue::Text(text) => value.as_str() == Some(text),
        ClaimValue::Integer(number) => value.as_i64() == Some(*number),
        ClaimValue::Bool(flag) => value.as_bool() == Some(*flag),
    }
}

/// Why a route's rule cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RuleError {
    /// Nobody could satisfy it.
    #[error("names no provider")]
    NoProvider,
    /// More than can be looked at.
    #[error("names {0} providers; at most {MAX_PROVIDERS} are possible")]
    TooManyProviders(usize),
    /// The index is outside the configuration.
    #[error("names provider number {0}, which does not exist")]
    UnknownProvider(usize),
    /// A token could belong to either.
    #[error("providers {0:?} and {1:?} share an algorithm and their issuer: a token could belong to either")]
    SameIssuer(String, String),
    /// Would break the challenge's quoting (RFC 6749 section 3.3).
    #[error("scope {0:?} is not a scope token: no spaces, quotes, backslashes or non-ASCII characters")]
    Scope(String),
    /// A requirement on nothing.
    #[error("a claim requirement has an empty path")]
    EmptyPath,
    /// A set that no value is in.
    #[error("a claim requirement accepts no value")]
    EmptySet,
    /// The login address.
    #[error(transparent)]
    Login(#[from] login::LoginError),
}

/// Checks what of a rule can be checked without its providers.
pub(super) fn validate(rule: &AuthRule) -> Result<(), RuleError> {
    if rule.providers.is_empty() {
        return Err(RuleError::NoProvider);
    }
    if rule.providers.len() > MAX_PROVIDERS {
        return Err(RuleError::TooManyProviders(rule.providers.len()));
    }
    let is_scope_byte = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    if let Some(scope) = rule
        .scopes
        .iter()
        .find(|scope| scope.is_empty() || !scope.bytes().all(is_scope_byte))
    {
        return Err(RuleError::Scope(scope.clone()));
    }
    for claim in &rule.claims {
        if claim.path.is_empty() {
            return Err(RuleError::EmptyPath);
        }
        if matches!(&claim.test, ClaimTest::OneOf(list) if list.is_empty()) {
            return Err(RuleError::EmptySet);
        }
    }
    match &rule.login {
        Some(login) => Ok(login::validate(login)?),
        None => Ok(()),
    }
}
