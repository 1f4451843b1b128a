//! Who may pass, and what the upstream is told about them.

use std::sync::Arc;

use jsonwebtoken::Algorithm;

use super::{
    claims::{Claims, Window},
    identity::IdentityHeader,
    key::KeyId,
};
use crate::config::{Provider, TokenSource};

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
    pub(super) places: u32,
    /// Sources of other providers of the route where the same token was found as well.
    pub(super) elsewhere: Vec<TokenSource>,
}

impl Permit {
    pub(super) fn new(token: Arc<VerifiedToken>) -> Self {
        Self {
            token,
            places: 0,
            elsewhere: Vec::new(),
        }
    }

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
        let config = &self.token.provider;
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

/// A token that a provider's key signed and that was valid when it was looked at.
#[derive(Debug)]
pub struct VerifiedToken {
    pub(super) claims: Claims,
    pub(super) headers: Box<[IdentityHeader]>,
    pub(super) provider: Arc<Provider>,
    pub(super) window: Window,
    pub(super) algorithm: Algorithm,
    pub(super) key: KeyId,
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
        &self.provider.name
    }
}
