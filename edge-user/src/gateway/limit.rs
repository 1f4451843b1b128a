//! Stage three: whether the request is within its limits.
//!
//! Rates and numbers at once of whoever the configuration counts by ([`plan`]), and the declared length of the body; a
//! body of unknown length is counted as it streams. Limits that need no token are asked before one is looked at, so
//! that a flood of bad tokens costs no signatures. Whatever was counted before a limit refuses stays counted.

pub mod cells;
pub mod plan;
pub mod slots;

use std::{fmt::Write as _, net::IpAddr, sync::Arc, time::Duration};

use self::plan::{LimitPlan, PlannedLimit};
use super::{
    authenticate::{Permit, Permitted},
    gate::{Request, RequestBody},
    header_policy::FieldSink,
    limits::Limits,
    plan::Plan,
    refusal::{Reason, Refusal},
    route::{RouteId, Routed},
};

/// Proof that the request is within its limits. Only [`limit`] makes one.
#[derive(Debug)]
#[must_use]
pub struct Admitted {
    route: RouteId,
    permit: Permit,
}

impl Admitted {
    /// The route.
    pub fn route(&self) -> RouteId {
        self.route
    }

    /// Who asks, and what is changed about the request.
    pub fn permit(&self) -> &Permit {
        &self.permit
    }

    /// What the token changes.
    pub fn into_permit(self) -> Permit {
        self.permit
    }
}

/// Who asks, and when: the client's address, and nanoseconds of a clock that never goes back.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    /// The address that the client is known by.
    pub client: IpAddr,
    /// Now.
    pub now: u64,
}

/// What the limits hold for one request and say about it; kept until its end.
#[derive(Debug, Default)]
pub struct Tally {
    held: Vec<slots::Held>,
    policies: String,
    rates: String,
}

impl Tally {
    /// Adds the fields that tell an admitted client how much is left.
    pub fn tell(&self, sink: &mut impl FieldSink) {
        if !self.rates.is_empty() {
            sink.put(b"ratelimit-policy", self.policies.as_bytes());
            sink.put(b"ratelimit", self.rates.as_bytes());
        }
    }

    fn add(&mut self, limit: &PlannedLimit, verdict: &cells::Verdict) {
        if !self.rates.is_empty() {
            self.policies.push_str(", ");
            self.rates.push_str(", ");
        }
        self.policies.push_str(&limit.policy);
        let _ = write!(
            self.rates,
            "\"{}\";r={};t={}",
            limit.config.name,
            verdict.remaining,
            seconds(verdict.full_after)
        );
    }
}

/// Asks the limits that need no token.
///
/// # Errors
/// [`Reason::RateLimited`], [`Reason::TooManyAtOnce`].
pub fn early(
    limits: &LimitPlan,
    request: &Request<'_>,
    routed: &Routed,
    asker: Asker,
    tally: &mut Tally,
) -> Result<(), Refusal> {
    let route = routed.route();
    let nobody = Permit::default();
    ask(limits.before(route), request, route, &nobody, asker, tally)
}

/// Holds the request against the limits that count by claims, and its body against its bound.
///
/// # Errors
/// [`Reason::RateLimited`], [`Reason::TooManyAtOnce`], [`Reason::BodyTooLarge`].
pub fn limit(
    (bounds, plan): (&Limits, &Plan),
    request: &Request<'_>,
    permitted: Permitted,
    asker: Asker,
    tally: &mut Tally,
) -> Result<Admitted, Refusal> {
    let route = permitted.route();
    ask(
        plan.limits().after(route),
        request,
        route,
        permitted.permit(),
        asker,
        tally,
    )?;
    let most = plan.route(route).body_limit.or(bounds.body);
    match (request.judged().body, most) {
        (RequestBody::Length(length), Some(limit)) if length > limit => {
            Err(Refusal::new(Reason::BodyTooLarge))
        }
        _ => Ok(Admitted {
            route,
            permit: permitted.into_permit(),
        }),
    }
}

fn ask(
    limits: &[Arc<PlannedLimit>],
    request: &Request<'_>,
    route: RouteId,
    permit: &Permit,
    asker: Asker,
    tally: &mut Tally,
) -> Result<(), Refusal> {
    for limit in limits {
        let tag = limit.tag(request, route, asker.client, permit);
        if let Some(most) = limit.config.concurrent {
            match limit.slots.take(tag, most.get()) {
                Some(held) => tally.held.push(held),
                None if limit.exceeded() => return Err(Reason::TooManyAtOnce.into()),
                None => {}
            }
        }
        if let Some(rate) = limit.rate {
            let verdict = limit.cells.take(tag, rate, asker.now);
            if !verdict.admitted && limit.exceeded() {
                return Err(over(limit, &verdict));
            }
            if limit.config.tell {
                tally.add(limit, &verdict);
            }
        }
    }
    Ok(())
}

/// 429 with what the client can do about it (RFC 6585, 4; draft-ietf-httpapi-ratelimit-headers).
fn over(limit: &PlannedLimit, verdict: &cells::Verdict) -> Refusal {
    let mut refusal = Refusal::because(Reason::RateLimited, "over a limit of requests");
    let wait = seconds(verdict.retry_after).max(1);
    let name = &limit.config.name;
    refusal.fields.push(("retry-after", wait.to_string()));
    refusal.fields.push(("ratelimit-policy", limit.policy.clone()));
    refusal
        .fields
        .push(("ratelimit", format!("\"{name}\";r=0;t={wait}")));
    refusal
}

/// Whole seconds, rounded up: who waits so long has waited long enough.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
