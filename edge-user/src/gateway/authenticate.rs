//! Stage two: whether the request may take its route, and the boundary behind which tokens are understood.
//!
//! Nothing is known here about JWTs: an [`Authenticate`] answers with a [`Permit`] or a [`Denial`], and only a permit
//! makes a [`Permitted`]. An open route is permitted without asking. A denial that a key on its way could turn into
//! another answer comes with a [`Wait`]: the request is judged again when the wait says so.

use std::{borrow::Cow, fmt, pin::Pin, sync::Arc, time::SystemTime};

use super::{
    changes::Changes,
    gate::Request,
    plan::Plan,
    refusal::{Reason, Refusal},
    route::{RouteId, Routed},
};
use crate::{
    config::{AuthPolicy, TokenSource},
    offence::OffenceKind,
};

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

/// Who sent an admitted request. Shared, so that admitting a known token copies nothing.
pub trait Identity: fmt::Debug + Send + Sync {
    /// Who, for the log.
    fn subject(&self) -> Option<&str>;

    /// A claim in words, by names from the outermost inwards; none if it is absent or has parts.
    fn claim(&self, path: &[String]) -> Option<Cow<'_, str>>;

    /// Tells every field to set on the forwarded request: name in lower case, value.
    fn each_field(&self, tell: &mut dyn FnMut(&str, &[u8]));
}

/// What an admitted token changes about the forwarded request.
#[derive(Debug, Clone, Default)]
pub struct Permit {
    /// Who; absent if no token was presented.
    pub identity: Option<Arc<dyn Identity>>,
    /// Every place where the token was found, if it is to be removed.
    pub remove: Vec<TokenSource>,
    /// What the route changes besides; filled in once the request is permitted.
    pub(super) changes: Option<Box<Changes>>,
}

impl Permit {
    /// A permit for whoever `identity` is; the token is taken out of every place in `remove`.
    pub fn new(identity: Option<Arc<dyn Identity>>, remove: Vec<TokenSource>) -> Self {
        Self {
            identity,
            remove,
            changes: None,
        }
    }

    /// What the route changes about the request and its answer, if anything.
    pub fn changes(&self) -> Option<&Changes> {
        self.changes.as_deref()
    }

    /// Whether a token was verified for it.
    pub fn is_verified(&self) -> bool {
        self.identity.is_some()
    }

    /// Who, for the log.
    pub fn subject(&self) -> Option<&str> {
        self.identity.as_ref().and_then(|identity| identity.subject())
    }
}

/// Why a token, or its absence, was refused.
#[derive(Debug)]
pub struct Denial {
    /// [`Reason::TokenMissing`], [`Reason::TokenRefused`] or another of tokens.
    pub reason: Reason,
    /// A fixed text for the log.
    pub detail: &'static str,
    /// `WWW-Authenticate`.
    pub challenge: Option<String>,
    /// What the client did, where it is more than the reason says.
    pub offence: Option<OffenceKind>,
    /// Where a browser is sent instead of being refused.
    pub location: Option<String>,
    /// What could change the answer.
    pub wait: Option<Box<dyn Wait>>,
}

impl Denial {
    /// A denial that nothing will change.
    pub fn new(reason: Reason, detail: &'static str, challenge: Option<String>) -> Self {
        Self {
            reason,
            detail,
            challenge,
            offence: None,
            location: None,
            wait: None,
        }
    }
}

/// A place among the bounded number of requests that wait for a key. Holds it until it is dropped.
pub trait Wait: fmt::Debug + Send {
    /// Waits until the request should be judged again; false if that is the last time it makes sense. Bounded in time
    /// over all calls together.
    fn next(&mut self) -> Pin<Box<dyn Future<Output = bool> + Send + '_>>;
}

/// Authenticates nobody: for configurations in which every route is open. Any other policy is refused.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTokens;

impl Authenticate for NoTokens {
    fn authenticate(&self, _: &AuthPolicy, _: &Request<'_>, _: SystemTime) -> Result<Permit, Denial> {
        Err(Denial::new(
            Reason::TokenRefused,
            "no provider",
            Some("Bearer".to_owned()),
        ))
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

    /// Who asks, and what that changes.
    pub fn permit(&self) -> &Permit {
        &self.permit
    }

    /// Adds what the route changes.
    pub fn changing(mut self, changes: Option<Changes>) -> Self {
        self.permit.changes = changes.map(Box::new);
        self
    }

    /// What the token changes.
    pub fn into_permit(self) -> Permit {
        self.permit
    }
}

/// Asks whether the request may take its route. Only a request whose token names a key that may be on its way waits.
///
/// # Errors
/// The denial, as a refusal.
pub async fn authenticate(plan: &Plan, request: &Request<'_>, routed: Routed) -> Result<Permitted, Refusal> {
    let route = routed.route();
    let policy = match &plan.route(route).auth {
        AuthPolicy::None => {
            return Ok(Permitted {
                route,
                permit: Permit::default(),
            });
        }
        policy @ (AuthPolicy::Optional(_) | AuthPolicy::Required(_)) => policy,
    };
    let judge = || {
        plan.authenticator()
            .authenticate(policy, request, SystemTime::now())
    };
    let mut answer = judge();
    if let Err(denial) = &mut answer
        && let Some(mut wait) = denial.wait.take()
    {
        loop {
            let goes_on = wait.next().await;
            answer = judge();
            if !goes_on || !matches!(&answer, Err(denial) if denial.wait.is_some()) {
                break;
            }
        }
    }
    answer
        .map(|permit| Permitted { route, permit })
        .map_err(Refusal::from)
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        let mut refusal = Self::because(denial.reason, denial.detail);
        refusal.offence = denial.offence;
        if let Some(location) = denial.location {
            // Who logs in must not be sent back to an answer from some cache.
            refusal.fields.push(("location", location));
            refusal.fields.push(("cache-control", "no-store".to_owned()));
        } else if let Some(challenge) = denial.challenge {
            refusal.fields.push(("www-authenticate", challenge));
        }
        refusal
    }
}
