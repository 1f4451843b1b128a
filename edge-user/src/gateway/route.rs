//! Stage one: which route a request belongs to.
//!
//! [`table`] finds by host and path, the most specific first; [`conditions`] say whether the request is what a route
//! asks for beside them. What no route lists is not exposed.

mod conditions;
pub mod parameters;
mod readings;
pub mod table;
#[cfg(test)]
mod tests;

pub use conditions::Conditions;
pub use table::RouteTable;

use super::{
    changes,
    gate::Request,
    plan::Plan,
    refusal::{Reason, Refusal},
};

/// Index of a route in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteId(pub(crate) u32);

impl RouteId {
    /// As an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Proof that a route lists the request. Only [`route`] makes one.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Routed {
    route: RouteId,
    preflight: bool,
}

impl Routed {
    /// The route.
    pub fn route(&self) -> RouteId {
        self.route
    }

    /// Whether a browser asks for leave to send such a request, and the route says who has it.
    pub fn is_preflight(&self) -> bool {
        self.preflight
    }
}

/// Finds the route of a request.
///
/// # Errors
/// [`Reason::NoRoute`]: what is not listed is not exposed. [`Reason::MethodNotAllowed`] if only the method keeps
/// every route from taking it. [`Reason::BadPath`] if another server could find another route.
/// [`Reason::MethodNotServed`] for CONNECT to what no route allows.
pub fn route(plan: &Plan, request: &Request<'_>) -> Result<Routed, Refusal> {
    if request.judged().connect {
        return tunnel(plan, request);
    }
    let find = |method| find(plan, request, request.path(), method);
    // The route of the request that a browser asks leave for, if it gives any; it names no token yet.
    if let Some(method) = changes::asks_leave(request)
        && let Some(route) = find(method)
        && plan.route(route).cors.is_some()
    {
        readings::agree(plan, request, method, route)?;
        return Ok(Routed {
            route,
            preflight: true,
        });
    }
    let method = request.method();
    let route = find(method).ok_or_else(|| unlisted(plan, request))?;
    readings::agree(plan, request, method, route)?;
    Ok(Routed {
        route,
        preflight: false,
    })
}

/// The route that allows CONNECT to what the request names.
fn tunnel(plan: &Plan, request: &Request<'_>) -> Result<Routed, Refusal> {
    let refusal = || Refusal::because(Reason::MethodNotServed, "CONNECT that no route allows");
    let route = request
        .authority()
        .and_then(|authority| plan.table().find_tunnel(authority))
        .filter(|route| plan.route(*route).conditions.admit(request, request.method()))
        .ok_or_else(refusal)?;
    Ok(Routed {
        route,
        preflight: false,
    })
}

/// The route of the request if its path were `path` and its method `method`.
fn find(plan: &Plan, request: &Request<'_>, path: &str, method: &[u8]) -> Option<RouteId> {
    plan.table().find(request.authority(), path, |route| {
        plan.route(route).conditions.admit(request, method)
    })
}

/// The refusal of a request that no route takes.
fn unlisted(plan: &Plan, request: &Request<'_>) -> Refusal {
    let mut methods: Vec<&[u8]> = Vec::new();
    // Takes none, so that every route of this host and path is asked.
    let _ = plan.table().find(request.authority(), request.path(), |route| {
        let conditions = &plan.route(route).conditions;
        if conditions.admit_but_method(request) {
            for method in conditions.methods() {
                if !methods.contains(&method) {
                    methods.push(method);
                }
            }
        }
        false
    });
    if methods.is_empty() {
        return Refusal::new(Reason::NoRoute);
    }
    let methods: Vec<_> = methods.into_iter().map(String::from_utf8_lossy).collect();
    let mut refusal = Refusal::new(Reason::MethodNotAllowed);
    refusal.fields.push(("allow", methods.join(", ")));
    refusal
}
