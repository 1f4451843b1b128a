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
mod cache;
mod claims;
mod explain;
mod identity;
mod json;
mod jwk;
mod jwks;
mod jws;
mod key;
mod keyset;
mod located;
mod login;
mod material;
mod outcome;
mod provider;
mod refusal;
mod revocation;
mod rule;
mod source;
mod status;
#[cfg(test)]
mod testing;
mod watch;

use std::{
    cell::RefCell,
    rc::Rc,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

pub use authority::{Authority, LoadError, Warning};
pub use cache::{CacheCounters, CacheStatus};
pub use claims::Claims;
pub use explain::{ClaimReport, TokenReport, demand};
pub use identity::{IdentityHeader, ReservedHeaders};
pub use jwk::{JwksError, SkipReason, Skipped};
pub use jwks::{FetchError, KeyWait, UrlError};
pub use jws::MAX_TOKEN_BYTES;
pub use key::KeyError;
pub use located::{load, prepare};
pub use login::{LoginError, location as login_location};
pub use material::MaterialError;
pub use outcome::{Outcome, Permit, VerifiedToken};
pub use provider::{ProviderError, ProviderProblem};
pub use refusal::{Defect, Offence, Refusal};
pub use revocation::{
    MAX_REVOCATIONS, Revocation, RevocationError, Revocations, Revoked, edit as revocation_file,
};
pub use rule::RuleError;
pub use status::{AuthStatus, Freshness, KeyStatus, ProviderStatus};
pub use watch::WATCH_INTERVAL;

use cache::{Entry, TokenCache};
use jws::Jws;
use keyset::Judgement;
use outcome::Verified;
use provider::ProviderState;
use source::Found;

pub use crate::carrier::{cookie::without_cookie, query::without_parameter};

use crate::config::{AuthPolicy, AuthRule};

/// What authentication needs to see of a request.
pub trait RequestView {
    /// Values of every field of this lower-case name, in order.
    fn header_values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]>;
    /// The query without its question mark, as received.
    fn query(&self) -> Option<&[u8]>;
}

/// One worker's door. Belongs to one thread; its cache is never shared.
#[derive(Debug)]
pub struct Authenticator {
    authority: Arc<Authority>,
    cache: Rc<RefCell<TokenCache>>,
}

impl Authenticator {
    /// A door to these providers, with an empty cache.
    pub fn new(authority: Arc<Authority>) -> Self {
        let cache = Rc::new(RefCell::new(TokenCache::new(authority.new_counters())));
        Self { authority, cache }
    }

    /// The same worker's door under another configuration; the cache stays.
    #[must_use]
    pub fn with_authority(&self, authority: Arc<Authority>) -> Self {
        Self {
            authority,
            cache: Rc::clone(&self.cache),
        }
    }

    /// What all workers share.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Decides whether a request may pass a route.
    ///
    /// A token of a key that is not there yet is refused, and the key is asked for: see [`Self::admit`].
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
            .map(|(position, _, state)| (position, state.config().sources.as_slice()));
        let Some(found) = source::find(request, sources)? else {
            return if is_required {
                Err(Refusal::Missing)
            } else {
                Ok(Outcome::Anonymous)
            };
        };
        let now = unix_seconds(now);
        let (index, token) = match self.recall(rule, &found, now)? {
            Some(known) => known,
            None => self.verify(rule, &found, now)?,
        };
        if rule::asks(rule) {
            rule::check(rule, token.claims())?;
        }
        Ok(Outcome::Verified(self.permit(rule, &found, index, token)))
    }

    /// Decides as [`Self::authenticate`] does, but a token whose key is not there yet waits for the fetch that could
    /// bring it: the first token of a new key is as good as the second.
    ///
    /// Waits at most the provider's cooldown plus its time limit for a fetch, and only while fewer than a fixed number
    /// of requests wait.
    pub async fn admit(
        &self,
        policy: &AuthPolicy,
        request: &impl RequestView,
        now: SystemTime,
    ) -> Result<Outcome, Refusal> {
        let begun = Instant::now();
        let first = self.authenticate(policy, request, now);
        let Err(refusal) = &first else { return first };
        let Some(mut wait) = self.authority.key_wait(refusal) else {
            return first;
        };
        loop {
            let goes_on = wait.next().await;
            let answer = self.authenticate(policy, request, now + begun.elapsed());
            if !goes_on || !matches!(&answer, Err(refusal) if refusal.may_change()) {
                return answer;
            }
        }
    }

    /// A token that was verified before, if all that it depended on still holds.
    fn recall(
        &self,
        rule: &AuthRule,
        found: &Found<'_>,
        now: i64,
    ) -> Result<Option<(usize, Arc<VerifiedToken>)>, Refusal> {
        let mut cache = self.cache.borrow_mut();
        let Some(place) = cache.find(&found.token) else {
            return Ok(None);
        };
        let Some(entry) = cache.entry(place) else {
            return Ok(None);
        };
        let token = Arc::clone(&entry.token);
        let (index, provider) = self
            .authority
            .choose(rule, found, token.algorithm, || Ok(token.names.issuer()))?;
        if !Arc::ptr_eq(provider.config(), &token.provider) {
            return Ok(None);
        }
        if entry.keys != provider.generation() {
            let keys = provider.keys();
            if !keys.has(token.key, token.algorithm) {
                cache.remove(place);
                return Ok(None);
            }
            entry.keys = keys.generation();
        }
        token.window.check(now)?;
        let revocations = self.authority.revocations();
        let generation = revocations.generation();
        if entry.revocations != generation {
            if revocations.covers(&token.names, now) {
                // Not remembered: a revocation may end before the token does.
                return Err(Refusal::Revoked);
            }
            entry.revocations = generation;
        }
        Ok(Some((index, token)))
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
            Ok(unverified.insert(Claims::new(jws.claims()?)).issuer())
        })?;
        if !provider.accepts_type(jws.typ.as_deref()) {
            return Err(Refusal::WrongType);
        }
        let keys = provider.keys();
        let key = match keys.judge(&jws) {
            Judgement::Good(key) => key.id(),
            Judgement::Bad => return Err(Refusal::BadSignature),
            Judgement::Mismatch => return Err(Refusal::AlgorithmMismatch),
            Judgement::UnknownKey => {
                let is_empty = keys.keys().is_empty();
                return Err(unknown_key(provider, index, jws.kid.as_deref(), is_empty));
            }
        };
        let claims = match unverified {
            Some(claims) => claims,
            None => Claims::new(jws.claims()?),
        };
        let window = claims.check(provider.config(), now)?;
        let verified = Verified {
            headers: identity::headers(&provider.config().forward.headers, &claims)?,
            provider: Arc::clone(provider.config()),
            window,
            algorithm: jws.algorithm,
            key,
        };
        let token = VerifiedToken::new(&found.token, claims, rule::asks(rule), verified);
        // Read before the list: a revocation that comes between is found at the next use.
        let revocations = self.authority.revocations().generation();
        if self.authority.revocations().covers(&token.names, now) {
            return Err(Refusal::Revoked);
        }
        let token = Arc::new(token);
        let entry = Entry::new(Arc::clone(&token), keys.generation(), revocations);
        self.cache.borrow_mut().insert(entry, now);
        Ok((index, token))
    }

    fn permit(&self, rule: &AuthRule, found: &Found<'_>, index: usize, token: Arc<VerifiedToken>) -> Permit {
        let mut permit = Permit::new(token);
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

/// Refuses for want of a key, and asks for newer keys where there could be some.
fn unknown_key(state: &ProviderState, provider: usize, kid: Option<&str>, is_empty: bool) -> Refusal {
    let remote = state.remote();
    if let Some(remote) = remote {
        remote.ask();
    }
    if is_empty {
        // While the endpoint is down, an answer at once is worth more than one that waits.
        Refusal::KeysUnavailable {
            provider,
            may_come: remote.is_some_and(|remote| !remote.has_tried()),
        }
    } else {
        Refusal::UnknownKey {
            provider,
            may_come: remote.is_some_and(|remote| remote.may_come(kid)),
        }
    }
}

/// Whole seconds since 1970; a clock before that stands at 0.
fn unix_seconds(now: SystemTime) -> i64 {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
