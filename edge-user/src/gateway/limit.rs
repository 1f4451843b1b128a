//! Stage three: whether the request is within its limits.
//!
//! What is counted here is the declared length of the body; a body of unknown length is counted as it streams.
//! Rates are the kernel's business.

pub mod cells;
pub mod slots;

use super::{
    authenticate::{Permit, Permitted},
    gate::{Request, RequestBody},
    limits::Limits,
    refusal::{Reason, Refusal},
    route::RouteId,
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

    /// What the token changes.
    pub fn into_permit(self) -> Permit {
        self.permit
    }
}

/// Holds the request against its limits.
///
/// # Errors
/// [`Reason::BodyTooLarge`].
pub fn limit(limits: &Limits, request: &Request<'_>, permitted: Permitted) -> Result<Admitted, Refusal> {
    match (request.judged().body, limits.body) {
        (RequestBody::Length(length), Some(limit)) if length > limit => {
            Err(Refusal::new(Reason::BodyTooLarge))
        }
        _ => Ok(Admitted {
            route: permitted.route(),
            permit: permitted.into_permit(),
        }),
    }
}
