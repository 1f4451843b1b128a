//! Everything that all workers share: providers, their keys, revocations, the names clients may not send.
//!
//! Built once from the configuration, with every mistake reported at once; afterwards only keys and revocations
//! change, each by one swap. A later configuration takes over what it does not change: keys that were fetched, caches
//! and run-time revocations survive a reload.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use jsonwebtoken::Algorithm;
use thiserror::Error;

use super::{
    cache::{CacheCounters, CacheStatus},
    identity::ReservedHeaders,
    jwks::{self, KeyWait},
    provider::{ProviderError, ProviderState},
    refusal::Refusal,
    revocation::{FileRevocations, RevocationError, Revocations},
    rule::{self, RuleError},
    source::{Found, MAX_PROVIDERS},
    status::{AuthStatus, ProviderStatus},
    watch,
};
use crate::config::{AuthPolicy, AuthRule, Provider, TokenSource};

/// The providers of one configuration.
#[derive(Debug)]
pub struct Authority {
    providers: Vec<Arc<ProviderState>>,
    reserved: ReservedHeaders,
    revocation_file: Option<PathBuf>,
    lasting: Arc<Lasting>,
    /// What the revocation file held when it was read, until this authority is in force.
    read: Mutex<Option<FileRevocations>>,
}

/// What outlives a configuration.
#[derive(Debug, Default)]
struct Lasting {
    revocations: Revocations,
    caches: RwLock<Vec<Arc<CacheCounters>>>,
}

/// Why authentication cannot start.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A provider.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The revocation file.
    #[error("revocation_file: {0}")]
    Revocations(#[from] RevocationError),
}

/// Something that is allowed but hardly meant.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Warning {
    /// No route asks it.
    #[error("provider {0:?} is used by no route")]
    Unused(String),
    /// RFC 8725 section 3.8.
    #[error("provider {0:?} names no issuer: a token of anybody who signs with its keys is accepted")]
    NoIssuer(String),
    /// RFC 8725 section 3.9.
    #[error("provider {0:?} names no audience: a token made for another service is accepted")]
    NoAudience(String),
}

impl Authority {
    /// Checks every provider and loads keys and revocations that lie on this machine.
    ///
    /// What `previous` holds is taken over where the configuration is the same, and what the revocation file says is in
    /// force at once.
    ///
    /// # Errors
    /// Every mistake there is; `previous` stays as it was.
    pub fn load(
        providers: &[Provider],
        revocation_file: Option<&Path>,
        previous: Option<&Self>,
        now: SystemTime,
    ) -> Result<Self, Vec<LoadError>> {
        let authority = Self::prepare(providers, revocation_file, previous, now)?;
        authority.put_in_force();
        Ok(authority)
    }

    /// As [`Self::load`], but revocations stay as they are until [`Self::put_in_force`].
    ///
    /// # Errors
    /// Every mistake there is.
    pub fn prepare(
        providers: &[Provider],
        revocation_file: Option<&Path>,
        previous: Option<&Self>,
        now: SystemTime,
    ) -> Result<Self, Vec<LoadError>> {
        let mut states = Vec::with_capacity(providers.len());
        let mut errors = Vec::new();
        for (provider, config) in providers.iter().enumerate() {
            let before = previous.and_then(|authority| authority.like(config));
            if let Some(same) = before.filter(|state| state.remote().is_some()) {
                states.push(Arc::clone(same));
                continue;
            }
            match ProviderState::load(config, now) {
                Ok(state) => match before.filter(|before| before.keys().is_same(state.keys().keys())) {
                    // The same keys again: cached tokens stay good.
                    Some(same) => states.push(Arc::clone(same)),
                    None => states.push(Arc::new(state)),
                },
                Err((key, problem)) => {
                    let name = config.name.clone();
                    errors.push(
                        ProviderError {
                            provider,
                            name,
                            key,
                            problem,
                        }
                        .into(),
                    );
                }
            }
        }
        let revocations = match revocation_file.map(Revocations::read_file).transpose() {
            Ok(revocations) => revocations.unwrap_or_default(),
            Err(error) => {
                errors.push(error.into());
                return Err(errors);
            }
        };
        if !errors.is_empty() {
            return Err(errors);
        }
        let lasting = previous.map_or_else(Arc::default, |authority| Arc::clone(&authority.lasting));
        let headers = providers.iter().flat_map(|config| &config.forward.headers);
        let reserved = ReservedHeaders::new(headers.map(|header| header.header.as_str()));
        let revocation_file = revocation_file.map(Path::to_owned);
        Ok(Self {
            providers: states,
            reserved,
            revocation_file,
            lasting,
            read: Mutex::new(Some(revocations)),
        })
    }

    /// Puts what the revocation file says in force; once.
    pub fn put_in_force(&self) {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(revocations) = read {
            self.lasting.revocations.replace_file(revocations);
        }
    }

    /// Whether `other` has the very same providers, so that nothing of a worker's would be different under it.
    pub fn is_same(&self, other: &Self) -> bool {
        let pairs = || self.providers.iter().zip(&other.providers);
        self.providers.len() == other.providers.len()
            && pairs().all(|(own, other)| Arc::ptr_eq(own, other))
            && self.revocation_file == other.revocation_file
            && self.reserved.names().eq(other.reserved.names())
    }

    /// The state of a provider of this very configuration.
    fn like(&self, config: &Provider) -> Option<&Arc<ProviderState>> {
        self.providers.iter().find(|state| state.is_of(config))
    }

    /// Starts the tasks that fetch keys and watch files, on the runtime this is called in. They end with the last
    /// authority that uses them.
    pub fn spawn_tasks(self: &Arc<Self>) {
        for state in &self.providers {
            if state.remote().is_some() && state.claim_tending() {
                jwks::spawn(state);
            }
        }
        watch::spawn(self);
    }

    /// Waits until every provider with remote keys has tried to fetch them once, at most this long.
    pub async fn first_fetch(&self, limit: Duration) {
        let all = async {
            for remote in self.providers.iter().filter_map(|state| state.remote()) {
                remote.first().await;
            }
        };
        let _ = tokio::time::timeout(limit, all).await;
    }

    /// A wait for the keys that could turn this refusal into another answer; none if waiting is pointless or too many
    /// wait already. For callers that cannot use [`super::Authenticator::admit`]: wait, judge again, and so on while
    /// the wait goes on and the refusal [may change](Refusal::may_change).
    pub fn key_wait(&self, refusal: &Refusal) -> Option<KeyWait> {
        let (Refusal::UnknownKey {
            provider,
            may_come: true,
        }
        | Refusal::KeysUnavailable {
            provider,
            may_come: true,
        }) = refusal
        else {
            return None;
        };
        let state = self.providers.get(*provider)?;
        state.remote()?.wait(jwks::remote_keys(state.config())?)
    }

    /// Revocations, to be changed at run time.
    pub fn revocations(&self) -> &Revocations {
        &self.lasting.revocations
    }

    /// Watched file of revocations.
    pub(super) fn revocation_file(&self) -> Option<&Path> {
        self.revocation_file.as_deref()
    }

    /// All providers, in the configuration's order.
    pub(super) fn providers(&self) -> &[Arc<ProviderState>] {
        &self.providers
    }

    /// Counters for one more cache.
    pub(super) fn new_counters(&self) -> Arc<CacheCounters> {
        let counters = Arc::<CacheCounters>::default();
        let mut caches = self
            .lasting
            .caches
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        caches.push(Arc::clone(&counters));
        counters
    }

    /// What there is to tell.
    pub fn status(&self) -> AuthStatus {
        let caches = self.lasting.caches.read().unwrap_or_else(PoisonError::into_inner);
        let (file_revocations, runtime_revocations) = self.lasting.revocations.counts();
        AuthStatus {
            providers: self
                .providers
                .iter()
                .map(|state| ProviderStatus::of(state))
                .collect(),
            file_revocations,
            runtime_revocations,
            cache: caches
                .iter()
                .map(|counters| counters.read())
                .fold(CacheStatus::default(), |sum, one| sum + one),
        }
    }

    /// Checks what a route asks against these providers.
    pub fn check_policy(&self, policy: &AuthPolicy) -> Result<(), RuleError> {
        let (AuthPolicy::Optional(rule) | AuthPolicy::Required(rule)) = policy else {
            return Ok(());
        };
        rule::validate(rule)?;
        if let Some(unknown) = rule
            .providers
            .iter()
            .find(|index| **index >= self.providers.len())
        {
            return Err(RuleError::UnknownProvider(*unknown));
        }
        let configs: Vec<_> = self.of(rule).map(|(_, _, state)| state.config()).collect();
        for (position, one) in configs.iter().enumerate() {
            for other in &configs[position + 1..] {
                let shares_algorithm = one
                    .algorithms
                    .iter()
                    .any(|algorithm| other.algorithms.contains(algorithm));
                if one.issuer == other.issuer && shares_algorithm {
                    return Err(RuleError::SameIssuer(one.name.clone(), other.name.clone()));
                }
            }
        }
        Ok(())
    }

    /// Names of the query parameters in which a rule's providers look for tokens.
    pub fn token_parameters<'a>(&'a self, rule: &'a AuthRule) -> impl Iterator<Item = &'a str> {
        let sources = self
            .of(rule)
            .flat_map(|(_, _, state)| state.config().sources.iter());
        sources.filter_map(|source| match source {
            TokenSource::Query(name) => Some(name.as_str()),
            TokenSource::Bearer | TokenSource::Cookie(_) | TokenSource::Header(_) => None,
        })
    }

    /// Headers that must be taken out of every client request, on every route, before anything is forwarded.
    pub fn reserved_headers(&self) -> &ReservedHeaders {
        &self.reserved
    }

    /// What is allowed but hardly meant, given every route's policy.
    pub fn warnings<'a>(&self, policies: impl Iterator<Item = &'a AuthPolicy>) -> Vec<Warning> {
        let mut is_used = vec![false; self.providers.len()];
        for policy in policies {
            if let AuthPolicy::Optional(rule) | AuthPolicy::Required(rule) = policy {
                for index in &rule.providers {
                    if let Some(used) = is_used.get_mut(*index) {
                        *used = true;
                    }
                }
            }
        }
        let mut warnings = Vec::new();
        for (state, is_used) in self.providers.iter().zip(is_used) {
            let config = state.config();
            if !is_used {
                warnings.push(Warning::Unused(config.name.clone()));
            }
            if config.issuer.is_none() {
                warnings.push(Warning::NoIssuer(config.name.clone()));
            }
            if config.audiences.is_empty() {
                warnings.push(Warning::NoAudience(config.name.clone()));
            }
        }
        warnings
    }

    /// The providers of a rule: position in the rule, index in the configuration, state.
    pub(super) fn of<'a>(
        &'a self,
        rule: &'a AuthRule,
    ) -> impl Iterator<Item = (usize, usize, &'a Arc<ProviderState>)> + Clone {
        let known = rule.providers.iter().take(MAX_PROVIDERS).enumerate();
        known.filter_map(|(position, index)| Some((position, *index, self.providers.get(*index)?)))
    }

    /// Which provider a token belongs to. It depends on the rule, where the token was found, its `alg` and its
    /// `iss`, and on nothing else: a cached token is held to the same choice.
    ///
    /// `issuer` is called only when the algorithm leaves a choice, so that in the common case nothing of a token is
    /// read before its signature is verified.
    pub(super) fn choose<'a, 'c>(
        &'a self,
        rule: &'a AuthRule,
        found: &Found<'_>,
        algorithm: Algorithm,
        issuer: impl FnOnce() -> Result<Option<&'c str>, Refusal>,
    ) -> Result<(usize, &'a Arc<ProviderState>), Refusal> {
        let mut fitting = self.of(rule).filter(|(position, _, state)| {
            found.places[*position] != 0 && state.config().algorithms.contains(&algorithm)
        });
        let Some((_, index, first)) = fitting.next() else {
            return Err(Refusal::AlgorithmRefused);
        };
        let rest = fitting.clone();
        if fitting.next().is_none() {
            return Ok((index, first));
        }
        let issuer = issuer()?;
        let mut by_default = None;
        for (index, state) in
            std::iter::once((index, first)).chain(rest.map(|(_, index, state)| (index, state)))
        {
            match state.config().issuer.as_deref() {
                own @ Some(_) if own == issuer => return Ok((index, state)),
                Some(_) => {}
                None => by_default = by_default.or(Some((index, state))),
            }
        }
        by_default.ok_or(Refusal::WrongIssuer)
    }
}
