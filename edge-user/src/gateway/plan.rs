//! The configuration as the request path wants it: compiled once, immutable, shared by every worker.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    authenticate::Authenticate,
    counters::Counters,
    gate::field::alias_of,
    limit::plan::LimitPlan,
    route::{Conditions, RouteId, RouteTable},
};
use crate::config::{AuthPolicy, Config, Upstream, pattern::PatternError};

/// A configuration that cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A regex cannot be compiled.
    #[error("route {route}: {error}")]
    Pattern {
        /// Name of the route.
        route: String,
        /// Why.
        error: PatternError,
    },
    /// The upstream does not exist.
    #[error("route {route}: unknown upstream")]
    Upstream {
        /// Name of the route.
        route: String,
    },
}

/// A compiled route.
#[derive(Debug)]
pub struct PlannedRoute {
    /// Its name.
    pub name: Arc<str>,
    /// What it asks of a request beside host and path.
    pub conditions: Conditions,
    /// Index of its upstream.
    pub upstream: usize,
    /// What it asks of a token.
    pub auth: AuthPolicy,
    /// Limit from the forwarded request to the response head.
    pub timeout: Duration,
    /// It needs something that only the codec on hyper does.
    pub hyper: bool,
}

/// A compiled configuration.
pub struct Plan {
    table: RouteTable,
    routes: Vec<PlannedRoute>,
    upstreams: Vec<Upstream>,
    authenticator: Arc<dyn Authenticate>,
    identity_fields: Vec<String>,
    counters: Counters,
    limits: LimitPlan,
}

impl Plan {
    /// Compiles the routes, upstreams and limits of `config` for `workers` workers. What `previous` knows about the keys
    /// of limits goes on.
    pub fn compile(
        config: &Config,
        authenticator: Arc<dyn Authenticate>,
        workers: usize,
        previous: Option<&Self>,
    ) -> Result<Self, PlanError> {
        let pattern = |route: RouteId, error| PlanError::Pattern {
            route: config.routes[route.index()].name.clone(),
            error,
        };
        let matches = config.routes.iter().map(|route| &route.matches);
        let table = RouteTable::compile(matches).map_err(|(route, error)| pattern(route, error))?;
        let mut routes: Vec<PlannedRoute> = Vec::with_capacity(config.routes.len());
        for (index, route) in config.routes.iter().enumerate() {
            if route.upstream >= config.upstreams.len() {
                return Err(PlanError::Upstream {
                    route: route.name.clone(),
                });
            }
            let conditions = Conditions::compile(&route.matches);
            routes.push(PlannedRoute {
                name: route.name.as_str().into(),
                conditions: conditions.map_err(|error| pattern(RouteId(index as u32), error))?,
                upstream: route.upstream,
                auth: route.auth.clone(),
                timeout: route.timeout,
                hyper: false,
            });
        }
        let mut identity_fields = authenticator.identity_fields();
        let tls = config
            .listeners
            .iter()
            .filter_map(|listener| listener.tls.as_ref());
        identity_fields.extend(
            tls.flat_map(|tls| [&tls.subject_header, &tls.fingerprint_header])
                .flatten()
                .cloned(),
        );
        let counters = Counters::new(
            workers,
            routes.iter().map(|route| Arc::clone(&route.name)).collect(),
        );
        Ok(Self {
            table,
            routes,
            upstreams: config.upstreams.clone(),
            authenticator,
            identity_fields,
            counters,
            limits: LimitPlan::compile(
                &config.request_limits,
                config.routes.len(),
                previous.map(Self::limits),
            ),
        })
    }

    /// The route table.
    pub fn table(&self) -> &RouteTable {
        &self.table
    }

    /// A route of this plan.
    pub fn route(&self, route: RouteId) -> &PlannedRoute {
        &self.routes[route.index()]
    }

    /// An upstream of this plan.
    pub fn upstream(&self, index: usize) -> Option<&Upstream> {
        self.upstreams.get(index)
    }

    /// How many upstreams there are.
    pub fn upstreams(&self) -> usize {
        self.upstreams.len()
    }

    /// Who understands tokens.
    pub fn authenticator(&self) -> &dyn Authenticate {
        &*self.authenticator
    }

    /// Whether requests of this route need something that only the codec on hyper does.
    pub fn wants_hyper(&self, route: RouteId) -> bool {
        self.routes.get(route.index()).is_none_or(|route| route.hyper)
    }

    /// What was counted under this plan.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many requests of whom.
    pub fn limits(&self) -> &LimitPlan {
        &self.limits
    }

    /// Whether a field is an identity that only this proxy may assert, in any spelling.
    pub fn is_identity(&self, name: &[u8]) -> bool {
        self.identity_fields
            .iter()
            .any(|field| alias_of(name, field.as_bytes()))
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("routes", &self.routes)
            .field("upstreams", &self.upstreams)
            .field("identity_fields", &self.identity_fields)
            .finish_non_exhaustive()
    }
}
