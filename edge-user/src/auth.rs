//! Who sent this request: tokens in, identities or refusals out.
//!
//! Owns the verification of JWTs, from finding the token in a request to the headers that tell the upstream about it.
//! Never names the HTTP server, never reads a clock, and never does I/O while a request waits: keys are loaded at
//! start and exchanged in the background.
//!
//! Invariants: a token is accepted only if a key of the provider it belongs to verifies its signature with an
//! algorithm that both the provider and the key allow; claims of an unverified token decide at most which
//! provider is asked; a request carries one token or is refused.

mod authority;
mod claims;
mod cookie;
mod identity;
mod json;
mod jwk;
mod jws;
mod key;
mod keyset;
mod located;
mod login;
mod material;
mod provider;
mod query;
mod refusal;
mod rule;
mod source;

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

pub use authority::Authority;
pub use claims::Claims;
pub use cookie::without_cookie;
pub use identity::{IdentityHeader, ReservedHeaders};
pub use jwk::{JwksError, SkipReason, Skipped};
pub use jws::MAX_TOKEN_BYTES;
pub use key::KeyError;
pub use located::load;
pub use login::{LoginError, location as login_location};
pub use material::MaterialError;
pub use provider::{ProviderError, ProviderProblem};
pub use query::without_parameter;
pub use refusal::{Defect, Offence, Refusal};
pub use rule::RuleError;

use claims::Window;
use jws::Jws;
use keyset::Judgement;
use provider::ProviderState;
use source::Found;

use crate::config::{AuthPolicy, AuthRule, TokenSource};

/// What authentication needs to see of a request.
pub trait RequestView {
    /// Values of every field of this lower-case name, in order.
    fn header_values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]>;
    /// The query without its question mark, as received.
    fn query(&self) -> Option<&[u8]>;
}

/// Who may pass.
#[must_use]
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The route wants no token, or takes requests without one and this has none.
    Anonymous,
    /// The request carries this verified token.
    Verified(Permit),
}

/// A verified token in a request that satisfies its route.
#[derive(Debug, Clone)]
pub struct Permit {
    token: Arc<VerifiedToken>,
    /// Bits of the provider's sources where the token was found.
    places: u32,
    /// Sources of other providers of the route where the same token was found as well.
    elsewhere: Vec<TokenSource>,
}

impl Permit {
    /// The token's claims, provider and headers.
    pub fn token(&self) -> &VerifiedToken {
        &self.token
    }

    /// Headers to set on the forwarded request, after the client's forgeries are taken out.
    pub fn headers(&self) -> &[IdentityHeader] {
        &self.token.headers
    }

    /// Places to take the token out of before forwarding; none if the provider leaves it in.
    pub fn removals(&self) -> impl Iterator<Item = &TokenSource> {
        let config = self.token.provider.config();
        let bits = if config.forward.remove_token {
            self.places
        } else {
            0
        };
        let elsewhere = if config.forward.remove_token {
            self.elsewhere.as_slice()
        } else {
            &[]
        };
        let own = config
            .sources
            .iter()
            .enumerate()
            .filter(move |(bit, _)| bits >> bit & 1 == 1);
        own.map(|(_, source)| source).chain(elsewhere)
    }
}

/// A token that a provider's key signed and that is valid now.
#[derive(Debug)]
pub struct VerifiedToken {
    claims: Claims,
    headers: Box<[IdentityHeader]>,
    provider: Arc<ProviderState>,
    window: Window,
}

impl VerifiedToken {
    /// Its claims.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// `sub`.
    pub fn subject(&self) -> Option<&str> {
        self.claims.subject()
    }

    /// Name of the provider that signed it.
    pub fn provider(&self) -> &str {
        &self.provider.config().name
    }
}

/// One worker's door.
#[derive(Debug)]
pub struct Authenticator {
    authority: Arc<Authority>,
}

impl Authenticator {
    /// A door to these providers.
    pub fn new(authority: Arc<Authority>) -> Self {
        Self { authority }
    }

    /// What all workers share.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Decides whether a request may pass a route.
    pub fn authenticate(
        &self,
        policy: &AuthPolicy,
        request: &impl RequestView,
        now: SystemTime,
    ) -> Result<Outcome, Refusal> {
        let (rule, is_required) = match policy {
            AuthPolicy::None => return Ok(Outcome::Anonymous),
            AuthPolicy::Optional(rule) => (rule, false),
            AuthPolicy::Required(rule) => (rule, true),
        };
        let sources = self
            .authority
            .of(rule)
            .map(|(_, _, state)| state.config().sources.as_slice());
        let Some(found) = source::find(request, sources)? else {
            return if is_required {
                Err(Refusal::Missing)
            } else {
                Ok(Outcome::Anonymous)
            };
        };
        let (index, token) = self.verify(rule, &found, unix_seconds(now))?;
        rule::check(rule, &token.claims)?;
        Ok(Outcome::Verified(self.permit(rule, &found, index, token)))
    }

    fn verify(
        &self,
        rule: &AuthRule,
        found: &Found<'_>,
        now: i64,
    ) -> Result<(usize, Arc<VerifiedToken>), Refusal> {
        let jws = Jws::parse(&found.token)?;
        let mut unverified = None;
        let (index, provider) = self.authority.choose(rule, found, jws.algorithm, || {
            Ok(&*unverified.insert(Claims::new(jws.claims()?)))
        })?;
        if !provider.accepts_type(jws.typ.as_deref()) {
            return Err(Refusal::WrongType);
        }
        let keys = provider.keys();
        if keys.keys().is_empty() {
            return Err(Refusal::KeysUnavailable { provider: index });
        }
        match keys.judge(&jws) {
            Judgement::Good(_) => {}
            Judgement::Bad => return Err(Refusal::BadSignature),
            Judgement::Mismatch => return Err(Refusal::AlgorithmMismatch),
            Judgement::UnknownKey => return Err(Refusal::UnknownKey { provider: index }),
        }
        let claims = match unverified {
            Some(claims) => claims,
            None => Claims::new(jws.claims()?),
        };
        let window = claims.check(provider.config(), now)?;
        let headers = identity::headers(&provider.config().forward.headers, &claims)?;
        Ok((
            index,
            Arc::new(VerifiedToken {
                claims,
                headers,
                provider: Arc::clone(provider),
                window,
            }),
        ))
    }

    fn permit(&self, rule: &AuthRule, found: &Found<'_>, index: usize, token: Arc<VerifiedToken>) -> Permit {
        let mut permit = Permit {
            token,
            places: 0,
            elsewhere: Vec::new(),
        };
        for (position, other, state) in self.authority.of(rule) {
            let bits = found.places[position];
            if other == index {
                permit.places |= bits;
            } else if bits != 0 {
                let sources = state.config().sources.iter().enumerate();
                let found = sources
                    .filter(|(bit, _)| bits >> bit & 1 == 1)
                    .map(|(_, source)| source.clone());
                permit.elsewhere.extend(found);
            }
        }
        permit
    }
}

/// Whole seconds since 1970; a clock before that stands at 0.
fn unix_seconds(now: SystemTime) -> i64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
