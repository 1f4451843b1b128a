//! Stage two: whether the request may take its route, and the boundary behind which tokens are understood.
//!
//! Nothing is known here about JWTs: an [`Authenticate`] answers with a [`Permit`] or a [`Denial`], and only a permit
//! makes a [`Permitted`]. An open route is permitted without asking.

use std::time::SystemTime;

use super::{
    gate::Request,
    plan::Plan,
    refusal::{Reason, Refusal},
    route::{RouteId, Routed},
};
use crate::config::{AuthPolicy, TokenSource};

/// Decides about requests. Called on every worker at once, so it must not block.
pub trait Authenticate: Send + Sync + 'static {
    /// Judges the token of `request` by `policy`, which is never [`AuthPolicy::None`].
    fn authenticate(
        &self,
        policy: &AuthPolicy,
        request: &Request<'_>,
        now: SystemTime,
    ) -> Result<Permit, Denial>;

    /// Names, in lower case, of every field that a permit may ever set: a client's own fields of these names are
    /// removed on every route.
    fn identity_fields(&self) -> Vec<String>;
}

/// What an admitted token changes about the forwarded request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permit {
    /// Who, for the log; absent if no token was presented.
    pub subject: Option<String>,
    /// Where the token was found, if it is to be removed.
    pub remove: Option<TokenSource>,
    /// Fields to set: name in lower case, value.
    pub set: Vec<(String, Vec<u8>)>,
}

/// Why a token, or its absence, was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// [`Reason::TokenMissing`], [`Reason::TokenRefused`] or [`Reason::Forbidden`].
    pub reason: Reason,
    /// A fixed text for the log.
    pub detail: &'static str,
    /// `WWW-Authenticate`.
    pub challenge: Option<String>,
}

/// Authenticates nobody: for configurations in which every route is open. Any other policy is refused.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTokens;

impl Authenticate for NoTokens {
    fn authenticate(&self, _: &AuthPolicy, _: &Request<'_>, _: SystemTime) -> Result<Permit, Denial> {
        Err(Denial {
            reason: Reason::TokenRefused,
            detail: "no provider",
            challenge: Some("Bearer".to_owned()),
        })
    }

    fn identity_fields(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Proof that the request satisfies its route's policy. Only [`authenticate`] makes one.
#[derive(Debug)]
#[must_use]
pub struct Permitted {
    route: RouteId,
    permit: Permit,
}

impl Permitted {
    /// The route.
    pub fn route(&self) -> RouteId {
        self.route
    }

    /// What the token changes.
    pub fn into_permit(self) -> Permit {
        self.permit
    }
}

/// Asks whether the request may take its route.
///
/// # Errors
/// The denial, as a refusal.
pub fn authenticate(plan: &Plan, request: &Request<'_>, routed: Routed) -> Result<Permitted, Refusal> {
    let route = routed.route();
    match &plan.route(route).auth {
        AuthPolicy::None => Ok(Permitted {
            route,
            permit: Permit::default(),
        }),
        policy @ (AuthPolicy::Optional(_) | AuthPolicy::Required(_)) => plan
            .authenticator()
            .authenticate(policy, request, SystemTime::now())
            .map(|permit| Permitted { route, permit })
            .map_err(Refusal::from),
    }
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        Self {
            reason: denial.reason,
            detail: denial.detail.into(),
            challenge: denial.challenge.map(String::into_boxed_str),
        }
    }
}
