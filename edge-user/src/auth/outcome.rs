//! Who may pass, and what the upstream is told about them.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use jsonwebtoken::Algorithm;

use super::{
    claims::{Claims, Names, Window},
    identity::IdentityHeader,
    jws,
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

    /// The token, to be kept.
    pub fn into_token(self) -> Arc<VerifiedToken> {
        self.token
    }

    /// Headers to set on the forwarded request, after the client's forgeries are taken out.
    pub fn headers(&self) -> &[IdentityHeader] {
        self.token.headers()
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
///
/// Keeps the token as it was and a few words of it. The claims are parsed again when somebody asks for them, which most
/// routes never do: a parsed document takes many small pieces of memory, and there are thousands of tokens.
pub struct VerifiedToken {
    text: Box<[u8]>,
    claims: OnceLock<Claims>,
    pub(super) names: Names,
    pub(super) headers: Box<[IdentityHeader]>,
    pub(super) provider: Arc<Provider>,
    pub(super) window: Window,
    pub(super) algorithm: Algorithm,
    pub(super) key: KeyId,
}

/// What is known of a token once it is verified.
pub(super) struct Verified {
    pub(super) headers: Box<[IdentityHeader]>,
    pub(super) provider: Arc<Provider>,
    pub(super) window: Window,
    pub(super) algorithm: Algorithm,
    pub(super) key: KeyId,
}

impl VerifiedToken {
    /// A token whose text has these claims; they are kept if they will be asked for.
    pub(super) fn new(text: &[u8], claims: Claims, is_asked: bool, verified: Verified) -> Self {
        let Verified {
            headers,
            provider,
            window,
            algorithm,
            key,
        } = verified;
        let names = Names::of(&claims);
        let claims = if is_asked {
            OnceLock::from(claims)
        } else {
            OnceLock::new()
        };
        Self {
            text: text.into(),
            claims,
            names,
            headers,
            provider,
            window,
            algorithm,
            key,
        }
    }

    /// The token as it stands in the request.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Its claims.
    pub fn claims(&self) -> &Claims {
        // The text was parsed before; were it not possible again, a token without claims satisfies nothing.
        self.claims
            .get_or_init(|| Claims::new(jws::claims_of(&self.text).unwrap_or_default()))
    }

    /// Headers that tell the upstream about it.
    pub fn headers(&self) -> &[IdentityHeader] {
        &self.headers
    }

    /// `sub`.
    pub fn subject(&self) -> Option<&str> {
        self.names.subject()
    }

    /// Name of the provider that signed it.
    pub fn provider(&self) -> &str {
        &self.provider.name
    }
}

/// Whoever holds the text holds the rights: it is not shown.
impl fmt::Debug for VerifiedToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("VerifiedToken")
            .field("provider", &self.provider.name)
            .field("names", &self.names)
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}
