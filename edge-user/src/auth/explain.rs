//! Tells what authentication finds in a request, piece by piece, for whoever asks why a token is refused.
//!
//! The verdict is [`Authenticator::authenticate`]'s own, over the same keys, clock and revocations; the pieces are
//! read by the functions that it uses, further than it goes: it stops at the first that is wrong.

use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;

use super::{
    Authenticator, Claims, Judgement, Jws, Outcome, ProviderState, Refusal, RequestView, rule, source,
    source::Found, unix_seconds,
};
use crate::config::{AuthPolicy, AuthRule, ClaimTest, ClaimValue, TokenSource};

/// What authentication finds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenReport {
    /// Whether the route takes no request without a token.
    pub required: bool,
    /// The route's providers.
    pub providers: Vec<String>,
    /// Where a token was found, as `cookie session`, `bearer`.
    pub found_in: Vec<String>,
    /// Whose the token is, by its place, algorithm and issuer.
    pub provider: Option<String>,
    /// Algorithm, from the token's header.
    pub algorithm: Option<String>,
    /// Name of the key, from the token's header.
    pub key: Option<String>,
    /// Whether the signature verifies; none if there is no token to look at.
    pub signature: Option<&'static str>,
    /// What is asked of the claims, and what they are.
    pub claims: Vec<ClaimReport>,
    /// `admitted`, `anonymous`, or the metric's name of the refusal.
    pub verdict: &'static str,
    /// The refusal in words.
    pub why: Option<String>,
}

/// One claim against what is asked of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClaimReport {
    /// Its name; of one within others, with dots.
    pub claim: String,
    /// What it is; none if it is absent.
    pub value: Option<Value>,
    /// What is asked of it.
    pub wanted: String,
    /// Whether it is so.
    pub holds: bool,
}

impl Authenticator {
    /// What [`Self::authenticate`] finds by `policy`; `None` where it asks for no token.
    pub fn explain(
        &self,
        policy: &AuthPolicy,
        request: &impl RequestView,
        now: SystemTime,
    ) -> Option<TokenReport> {
        let (rule, required) = match policy {
            AuthPolicy::None => return None,
            AuthPolicy::Optional(rule) => (rule, false),
            AuthPolicy::Required(rule) => (rule, true),
        };
        let (verdict, why) = match self.authenticate(policy, request, now) {
            Ok(Outcome::Anonymous) => ("anonymous", None),
            Ok(Outcome::Verified(_)) => ("admitted", None),
            Err(refusal) => (refusal.reason(), Some(refusal.to_string())),
        };
        let mut report = TokenReport {
            required,
            providers: self.authority.of(rule).map(|(.., state)| name(state)).collect(),
            found_in: Vec::new(),
            provider: None,
            algorithm: None,
            key: None,
            signature: None,
            claims: Vec::new(),
            verdict,
            why,
        };
        let sources = self
            .authority
            .of(rule)
            .map(|(position, _, state)| (position, state.config().sources.as_slice()));
        if let Ok(Some(found)) = source::find(request, sources) {
            report.found_in = self.places(rule, &found);
            // What cannot be read any further is told by the verdict.
            let _ = self.read(&mut report, rule, &found, unix_seconds(now));
        }
        Some(report)
    }

    fn places(&self, rule: &AuthRule, found: &Found<'_>) -> Vec<String> {
        let mut places: Vec<String> = Vec::new();
        for (position, _, state) in self.authority.of(rule) {
            let bits = found.places[position];
            let sources = state.config().sources.iter().enumerate();
            for (_, source) in sources.filter(|(bit, _)| bits >> bit & 1 == 1) {
                let place = match source {
                    TokenSource::Bearer => "bearer".to_owned(),
                    TokenSource::Cookie(name) => format!("cookie {name}"),
                    TokenSource::Header(name) => format!("header {name}"),
                    TokenSource::Query(name) => format!("query {name}"),
                };
                if !places.contains(&place) {
                    places.push(place);
                }
            }
        }
        places
    }

    fn read(
        &self,
        report: &mut TokenReport,
        rule: &AuthRule,
        found: &Found<'_>,
        now: i64,
    ) -> Result<(), Refusal> {
        let jws = Jws::parse(&found.token)?;
        report.algorithm = Some(format!("{:?}", jws.algorithm));
        report.key.clone_from(&jws.kid);
        let claims = Claims::new(jws.claims()?);
        let (_, provider) = self
            .authority
            .choose(rule, found, jws.algorithm, || Ok(claims.issuer()))?;
        report.provider = Some(name(provider));
        report.signature = Some(match provider.keys().judge(&jws) {
            Judgement::Good(_) => "verifies",
            Judgement::Bad => "does not verify",
            Judgement::Mismatch => "its algorithm does not fit the key",
            Judgement::UnknownKey if provider.keys().keys().is_empty() => "no keys to verify with",
            Judgement::UnknownKey => "no key of this name",
        });
        registered(report, provider, &claims, now);
        let names = super::claims::Names::of(&claims);
        if self.authority.revocations().covers(&names, now) {
            let value = claims.get("jti").or(claims.get("sub")).cloned();
            report.add("jti, sub", value, "not revoked".to_owned(), false);
        }
        for scope in &rule.scopes {
            let value = claims.get("scope").or(claims.get("scp")).cloned();
            let holds = claims.scopes().any(|have| have == scope);
            report.add("scope", value, format!("has {scope}"), holds);
        }
        for wanted in &rule.claims {
            let (path, value) = (wanted.path.join("."), claims.at(&wanted.path).cloned());
            report.add(&path, value, demand(&wanted.test), rule::holds(wanted, &claims));
        }
        Ok(())
    }
}

impl TokenReport {
    fn add(&mut self, claim: &str, value: Option<Value>, wanted: String, holds: bool) {
        self.claims.push(ClaimReport {
            claim: claim.to_owned(),
            value,
            wanted,
            holds,
        });
    }
}

/// The registered claims (RFC 7519, 4.1) against the provider and the clock.
fn registered(report: &mut TokenReport, provider: &ProviderState, claims: &Claims, now: i64) {
    let config = provider.config();
    let value = |claim: &str| claims.get(claim).cloned();
    if let Some(issuer) = &config.issuer {
        let holds = claims.issuer() == Some(issuer);
        report.add("iss", value("iss"), format!("is {issuer}"), holds);
    }
    if !config.audiences.is_empty() {
        let wanted = format!("is or has {}", config.audiences.join(" or "));
        report.add(
            "aud",
            value("aud"),
            wanted,
            claims.has_audience(&config.audiences),
        );
    }
    let leeway = config.leeway.as_secs();
    let window = claims.window(config, now);
    let fails = |which: &[Refusal]| window.as_ref().is_err_and(|refusal| which.contains(refusal));
    let by_clock = window.as_ref().map_or(Ok(()), |window| window.check(now));
    if value("exp").is_some() || config.checks.require_exp || config.checks.max_lifetime.is_some() {
        let lifetime = config.checks.max_lifetime;
        let most = lifetime.map_or_else(String::new, |most| {
            format!(", at most {} s after iat", most.as_secs())
        });
        let holds = by_clock != Err(Refusal::Expired) && !fails(&[Refusal::NoExpiry, Refusal::TooLongLived]);
        let wanted = format!("after {now}, {leeway} s of leeway{most}");
        report.add("exp", value("exp"), wanted, holds);
    }
    for (claim, refusal) in [("nbf", Refusal::NotYetValid), ("iat", Refusal::IssuedInFuture)] {
        if value(claim).is_some() {
            let holds = by_clock.as_ref() != Err(&refusal) && !fails(&[refusal]);
            let wanted = format!("not after {now}, {leeway} s of leeway");
            report.add(claim, value(claim), wanted, holds);
        }
    }
}

fn name(state: &std::sync::Arc<ProviderState>) -> String {
    state.config().name.clone()
}

/// What a test asks of a claim, for people.
pub fn demand(test: &ClaimTest) -> String {
    let word = |value: &ClaimValue| match value {
        ClaimValue::Text(words) => words.clone(),
        ClaimValue::Integer(number) => number.to_string(),
        ClaimValue::Bool(flag) => flag.to_string(),
    };
    match test {
        ClaimTest::Equals(value) => format!("is {}", word(value)),
        ClaimTest::Contains(value) => format!("is or has {}", word(value)),
        ClaimTest::OneOf(list) => {
            let words: Vec<_> = list.iter().map(word).collect();
            format!("is {}", words.join(" or "))
        }
    }
}
