//! The stages behind the route, one after the other: limits that need no token, authentication, changes, limits that
//! count by claims, and what becomes of the request.
//!
//! Workers serve by this, and [`super::explain`] tells by it: what is told is what would be done. Nothing is sent here,
//! and nothing is waited for but a key that may be on its way.

use std::net::SocketAddr;

use super::{
    answer::Reply,
    authenticate::{self, Permit},
    balance::{self, Choosers, Target},
    fan_out::Part,
    gate::Request,
    limit::{self, Asker, Tally},
    limits::Limits,
    plan::{Plan, PlannedAction, PlannedRoute},
    refusal::Refusal,
    route::Routed,
    template::Facts,
};

/// What becomes of an admitted request.
#[derive(Debug)]
#[must_use]
pub(crate) enum Decision {
    /// It is forwarded.
    Forward(Target),
    /// It is answered with this.
    Reply(Reply),
    /// These are asked for it, and their answers merged.
    FanOut(Permit, Vec<Part>),
    /// The codec cannot do what the route asks for; nothing was decided.
    Declined,
}

/// What the stages judge by, beside the request.
#[derive(Clone, Copy)]
pub(crate) struct Ground<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) choosers: &'a Choosers,
    pub(crate) limits: &'a Limits,
    /// Who asks, for the limits.
    pub(crate) asker: Asker,
    /// Where the client is.
    pub(crate) client: SocketAddr,
    /// The address that upstreams are told.
    pub(crate) told: &'a str,
    pub(crate) scheme: &'static str,
    pub(crate) request_id: &'a str,
}

impl<'a> Ground<'a> {
    /// What texts are filled in with.
    pub(crate) fn facts(&self, request: &'a Request<'a>, route: &'a PlannedRoute) -> Facts<'a> {
        Facts {
            request,
            parameters: &[],
            client: self.told,
            scheme: self.scheme,
            request_id: self.request_id,
            route: &route.name,
        }
    }
}

/// Who keeps the account of the request.
pub(crate) trait Account {
    /// What the limits hold for it.
    fn tally(&mut self) -> &mut Tally;
    /// Who asks is known.
    fn permitted(&mut self, permit: &Permit);
    /// The upstream is chosen, by its index in the plan.
    fn goes_to(&mut self, upstream: usize);
}

/// Takes a request that has a route through the stages behind it.
///
/// # Errors
/// The refusal of the first stage that does not let it through.
pub(crate) async fn admit(
    ground: Ground<'_>,
    account: &mut impl Account,
    request: &Request<'_>,
    routed: Routed,
) -> Result<Decision, Refusal> {
    let Ground { plan, asker, .. } = ground;
    let route = plan.route(routed.route());
    limit::early(plan.limits(), request, &routed, asker, account.tally())?;
    // Browsers send no token with it.
    if let (true, Some(cors)) = (routed.is_preflight(), &route.cors) {
        return Ok(Decision::Reply(cors.preflight(request)));
    }
    let permitted = authenticate::authenticate(plan, request, routed).await?;
    account.permitted(permitted.permit());
    let facts = ground.facts(request, route);
    let changes = route
        .changes
        .as_ref()
        .map(|changes| changes.of(&facts))
        .transpose()?;
    let admitted = limit::limit(
        (ground.limits, plan),
        request,
        permitted.changing(changes),
        asker,
        account.tally(),
    )?;
    match &route.action {
        PlannedAction::Forward(_) => {
            let chosen = |upstream| account.goes_to(upstream);
            balance::balance(plan, ground.choosers, request, ground.client, admitted, chosen)
                .map(Decision::Forward)
        }
        PlannedAction::FanOut(fan_out) => {
            let parts = fan_out.parts(&admitted, &facts, ground.choosers)?;
            Ok(Decision::FanOut(admitted.into_permit(), parts))
        }
        PlannedAction::Answer(answer) => answer
            .reply(&admitted, &facts, admitted.permit().changes())
            .map(Decision::Reply),
    }
}
