//! The claims of a token, and the checks that depend on the provider and the clock.
//!
//! Registered claims (RFC 7519 section 4.1) have exactly the type that the RFC gives them: `"exp": "123"` is a
//! malformed token, never a missing or converted one.

use serde_json::{Map, Value};

use super::refusal::{Defect, Refusal};
use crate::config::Provider;

/// End of year 9999 in seconds since 1970: no later date is meant seriously, and none overflows arithmetic.
const MAX_DATE: i64 = 253_402_300_799;

/// Parsed claims of a token whose signature verified.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    map: Map<String, Value>,
}

/// `iss`, `sub` and `jti` of a token, in one piece of memory: what is asked of a known token at every use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    text: Box<str>,
    places: [Option<(usize, usize)>; 3],
}

impl Names {
    pub(super) fn of(claims: &Claims) -> Self {
        let mut text = String::new();
        let places = [claims.issuer(), claims.subject(), claims.token_id()].map(|name| {
            let begin = text.len();
            text.push_str(name?);
            Some((begin, text.len()))
        });
        Self {
            text: text.into(),
            places,
        }
    }

    /// `iss`.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.part(0)
    }

    /// `sub`.
    pub(super) fn subject(&self) -> Option<&str> {
        self.part(1)
    }

    /// `jti`.
    pub(super) fn token_id(&self) -> Option<&str> {
        self.part(2)
    }

    fn part(&self, index: usize) -> Option<&str> {
        let (begin, end) = self.places[index]?;
        self.text.get(begin..end)
    }
}

/// Seconds since 1970, leeway included, between which a token is valid: `from <= now < until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) from: i64,
    pub(super) until: i64,
}

impl Window {
    /// Whether the token is valid at this second.
    pub(super) fn check(self, now: i64) -> Result<(), Refusal> {
        if now >= self.until {
            return Err(Refusal::Expired);
        }
        if now < self.from {
            return Err(Refusal::NotYetValid);
        }
        Ok(())
    }
}

impl Claims {
    pub(super) fn new(map: Map<String, Value>) -> Self {
        Self { map }
    }

    /// A top-level claim.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.map.get(name)
    }

    /// A claim by the names of the objects that hold it, outermost first.
    pub fn at<S: AsRef<str>>(&self, path: &[S]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter()
            .try_fold(self.map.get(first.as_ref())?, |value, name| {
                value.as_object()?.get(name.as_ref())
            })
    }

    /// `sub`.
    pub fn subject(&self) -> Option<&str> {
        self.get("sub")?.as_str()
    }

    /// `jti`.
    pub fn token_id(&self) -> Option<&str> {
        self.get("jti")?.as_str()
    }

    /// `iss`.
    pub fn issuer(&self) -> Option<&str> {
        self.get("iss")?.as_str()
    }

    /// Scopes from `scope` (one string, RFC 8693 section 4.2) and `scp` (array, or one string).
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        ["scope", "scp"]
            .into_iter()
            .filter_map(|name| self.get(name))
            .flat_map(|value| {
                let list = match value {
                    Value::Array(list) => list.as_slice(),
                    other => std::slice::from_ref(other),
                };
                // An array's element is one scope even if it has a space in it: it never becomes two.
                let split = value.is_string();
                list.iter().filter_map(Value::as_str).flat_map(move |text| {
                    text.split(move |c| split && c == ' ')
                        .filter(|scope| !scope.is_empty())
                })
            })
    }

    /// Checks registered claims against a provider and a clock.
    ///
    /// Returns when the token is valid, so that a cached one needs only two comparisons.
    pub(super) fn check(&self, provider: &Provider, now: i64) -> Result<Window, Refusal> {
        self.check_types()?;
        if let Some(issuer) = &provider.issuer
            && self.issuer() != Some(issuer)
        {
            return Err(Refusal::WrongIssuer);
        }
        if !provider.audiences.is_empty() && !self.has_audience(&provider.audiences) {
            return Err(Refusal::WrongAudience);
        }
        let window = self.window(provider, now)?;
        window.check(now)?;
        Ok(window)
    }

    fn check_types(&self) -> Result<(), Refusal> {
        let strings = ["iss", "sub", "jti"];
        if strings
            .iter()
            .any(|name| self.get(name).is_some_and(|value| !value.is_string()))
        {
            return Err(Defect::Claim.into());
        }
        match self.get("aud") {
            None | Some(Value::String(_)) => Ok(()),
            Some(Value::Array(list)) if list.iter().all(Value::is_string) => Ok(()),
            Some(_) => Err(Defect::Claim.into()),
        }
    }

    pub(super) fn has_audience(&self, accepted: &[String]) -> bool {
        let is_accepted = |value: &Value| {
            value
                .as_str()
                .is_some_and(|text| accepted.iter().any(|a| a == text))
        };
        match self.get("aud") {
            Some(Value::Array(list)) => list.iter().any(is_accepted),
            Some(value) => is_accepted(value),
            None => false,
        }
    }

    pub(super) fn window(&self, provider: &Provider, now: i64) -> Result<Window, Refusal> {
        let leeway = seconds(provider.leeway);
        let issued = self.date("iat")?;
        if issued.is_some_and(|issued| issued > now.saturating_add(leeway)) {
            return Err(Refusal::IssuedInFuture);
        }
        let not_before = self.date("nbf")?;
        let from = not_before
            .max(issued)
            .map_or(i64::MIN, |from| from.saturating_sub(leeway));
        let Some(expires) = self.date("exp")? else {
            // A longest lifetime means nothing for a token that never ends.
            return if provider.checks.require_exp || provider.checks.max_lifetime.is_some() {
                Err(Refusal::NoExpiry)
            } else {
                Ok(Window {
                    from,
                    until: i64::MAX,
                })
            };
        };
        if let Some(longest) = provider.checks.max_lifetime {
            // Without `iat` the life that is left is the only measure there is.
            let begin = issued.unwrap_or(now.saturating_add(leeway));
            if expires.saturating_sub(begin) > seconds(longest) {
                return Err(Refusal::TooLongLived);
            }
        }
        Ok(Window {
            from,
            until: expires.saturating_add(leeway),
        })
    }

    /// A NumericDate (RFC 7519 section 2) in whole seconds, rounded down.
    fn date(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let number = match value {
            Value::Number(number) => number
                .as_i64()
                .or_else(|| number.as_f64().and_then(whole_seconds)),
            _ => None,
        };
        match number {
            Some(date) if (0..=MAX_DATE).contains(&date) => Ok(Some(date)),
            _ => Err(Defect::Claim.into()),
        }
    }
}

fn whole_seconds(value: f64) -> Option<i64> {
    // 2^52: up to here every whole second has its own float.
    (0.0..4_503_599_627_370_496.0)
        .contains(&value)
        .then_some(value.floor() as i64)
}

fn seconds(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
