//! Everything that all workers share: providers, their keys, the names clients may not send.
//!
//! Built once from the configuration, with every mistake reported at once; afterwards only keys and revocations
//! change, each by one atomic swap.

use std::sync::Arc;

use jsonwebtoken::Algorithm;

use super::{
    claims::Claims,
    identity::ReservedHeaders,
    provider::{ProviderError, ProviderState},
    refusal::Refusal,
    rule::{self, RuleError},
    source::{Found, MAX_PROVIDERS},
};
use crate::config::{AuthPolicy, AuthRule, Provider};

/// The providers of one configuration.
#[derive(Debug)]
pub struct Authority {
    providers: Vec<Arc<ProviderState>>,
    reserved: ReservedHeaders,
}

impl Authority {
    /// Checks every provider and loads the keys that lie on this machine.
    ///
    /// # Errors
    /// Every mistake of every provider; nothing is kept.
    pub fn load(providers: &[Provider]) -> Result<Self, Vec<ProviderError>> {
        let mut states = Vec::with_capacity(providers.len());
        let mut errors = Vec::new();
        for (provider, config) in providers.iter().enumerate() {
            match ProviderState::load(config) {
                Ok(state) => states.push(Arc::new(state)),
                Err((key, problem)) => {
                    errors.push(ProviderError {
                        provider,
                        name: config.name.clone(),
                        key,
                        problem,
                    });
                }
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let names = providers
            .iter()
            .flat_map(|config| &config.forward.headers)
            .map(|header| header.header.as_str());
        Ok(Self {
            providers: states,
            reserved: ReservedHeaders::new(names),
        })
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

    /// Headers that must be taken out of every client request, on every route, before anything is forwarded.
    pub fn reserved_headers(&self) -> &ReservedHeaders {
        &self.reserved
    }

    /// Names of the providers that none of these policies uses.
    pub fn unused<'a>(&'a self, policies: impl Iterator<Item = &'a AuthPolicy>) -> Vec<&'a str> {
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
        let unused = self.providers.iter().zip(is_used).filter(|(_, used)| !used);
        unused.map(|(state, _)| state.config().name.as_str()).collect()
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
    /// `claims` is called only when the algorithm leaves a choice, so that in the common case nothing of a token is
    /// read before its signature is verified.
    pub(super) fn choose<'a, 'c>(
        &'a self,
        rule: &'a AuthRule,
        found: &Found<'_>,
        algorithm: Algorithm,
        claims: impl FnOnce() -> Result<&'c Claims, Refusal>,
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
        let issuer = claims()?.issuer();
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
