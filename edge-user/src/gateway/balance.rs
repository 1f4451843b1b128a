//! Stage four: which endpoint the request goes to.
//!
//! Each worker goes round its own list, so no counter is shared between cores.

use std::{cell::Cell, net::SocketAddr};

use super::{
    authenticate::Permit,
    limit::Admitted,
    plan::{Plan, PlannedAction},
    refusal::{Reason, Refusal},
    route::RouteId,
};

/// Proof that a request was routed, authenticated and admitted, and where it goes. Only [`balance`] makes one, and
/// nothing else can be forwarded.
#[derive(Debug)]
#[must_use]
pub struct Target {
    route: RouteId,
    upstream: usize,
    first: usize,
    permit: Permit,
}

impl Target {
    /// The route.
    pub fn route(&self) -> RouteId {
        self.route
    }

    /// Index of the upstream in the plan.
    pub fn upstream(&self) -> usize {
        self.upstream
    }

    /// What the token changes.
    pub fn permit(&self) -> &Permit {
        &self.permit
    }

    /// The endpoints in the order in which they are to be tried.
    pub fn endpoints<'p>(&self, plan: &'p Plan) -> impl Iterator<Item = SocketAddr> + use<'p> {
        let endpoints = plan
            .upstream(self.upstream)
            .map_or(&[][..], |upstream| &upstream.endpoints);
        let first = self.first;
        (0..endpoints.len().min(MAX_ENDPOINT_ATTEMPTS))
            .map(move |step| endpoints[(first + step) % endpoints.len()])
    }
}

/// Most endpoints that one request tries to connect to.
pub const MAX_ENDPOINT_ATTEMPTS: usize = 3;

/// A worker's place in each upstream's list.
#[derive(Debug, Default)]
pub struct Turns(Vec<Cell<usize>>);

impl Turns {
    /// Places for the upstreams of `plan`.
    pub fn new(plan: &Plan) -> Self {
        Self((0..plan.upstreams()).map(|_| Cell::new(0)).collect())
    }
}

/// Chooses an endpoint, in turn.
///
/// # Errors
/// [`Reason::NoEndpoint`].
pub fn balance(plan: &Plan, turns: &Turns, admitted: Admitted) -> Result<Target, Refusal> {
    let route = admitted.route();
    let PlannedAction::Forward(upstream) = plan.route(route).action else {
        // Only what is forwarded comes here.
        return Err(Refusal::new(Reason::NoEndpoint));
    };
    let count = plan
        .upstream(upstream)
        .map_or(0, |upstream| upstream.endpoints.len());
    if count == 0 {
        return Err(Refusal::new(Reason::NoEndpoint));
    }
    let first = turns
        .0
        .get(upstream)
        .map_or(0, |turn| turn.replace((turn.get() + 1) % count));
    Ok(Target {
        route,
        upstream,
        first,
        permit: admitted.into_permit(),
    })
}
