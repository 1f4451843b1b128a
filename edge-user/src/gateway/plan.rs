//! The configuration as the request path wants it: compiled once, immutable, shared by every worker.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    answer::PlannedAnswer,
    authenticate::Authenticate,
    balance::Destination,
    changes::PlannedChanges,
    cors::PlannedCors,
    counters::Counters,
    fan_out::PlannedFanOut,
    gate::field::alias_of,
    limit::plan::LimitPlan,
    path,
    route::{Conditions, RouteId, RouteTable},
    trace::Sampling,
};
use crate::{
    config::{
        Action, AuthPolicy, Compress, Config, Mirror, PathPattern, Route, Upstream, UpstreamProtocol,
        pattern::PatternError,
    },
    offence::probe::Probes,
    upstream::{cluster::Cluster, tls::TlsError},
};

/// A configuration that cannot be served.
#[derive(Debug, Clone, thiserror::Error)]
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
    /// Certificates or keys of an upstream cannot be used.
    #[error("upstream {upstream}: {error}")]
    Tls {
        /// Name of the upstream.
        upstream: String,
        /// Why.
        error: TlsError,
    },
}

/// A compiled route.
#[derive(Debug)]
pub struct PlannedRoute {
    /// Its name.
    pub name: Arc<str>,
    /// What it asks of a request beside host and path.
    pub conditions: Conditions,
    /// What becomes of its requests.
    pub action: PlannedAction,
    /// What it asks of a token.
    pub auth: AuthPolicy,
    /// Limit from the forwarded request to the response head.
    pub timeout: Duration,
    /// It needs something that only the codec on hyper does.
    pub hyper: bool,
    /// Limit from the request head to the end of the response.
    pub request_timeout: Option<Duration>,
    /// Limit for a response body of which nothing moves, if not the gateway's.
    pub idle_timeout: Option<Duration>,
    /// Most bytes of a request body, if not the gateway's.
    pub body_limit: Option<u64>,
    /// Encoded slashes in its paths are parts of segments.
    pub keeps_encoded_slashes: bool,
    /// What it changes about requests and answers.
    pub changes: Option<PlannedChanges>,
    /// Which pages of other origins may read its answers.
    pub cors: Option<Arc<PlannedCors>>,
    /// Which answers are compressed.
    pub compress: Option<Compress>,
    /// Who gets a copy of its requests.
    pub mirror: Option<Mirror>,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum PlannedAction {
    /// It is forwarded.
    Forward(Destination),
    /// It is answered here.
    Answer(PlannedAnswer),
    /// Several upstreams are asked.
    FanOut(PlannedFanOut),
}

/// A compiled configuration.
pub struct Plan {
    table: RouteTable,
    path_rules: path::Rules,
    routes: Vec<PlannedRoute>,
    upstreams: Vec<Arc<Cluster>>,
    authenticator: Arc<dyn Authenticate>,
    identity_fields: Vec<String>,
    counters: Counters,
    limits: LimitPlan,
    probes: Probes,
    sampling: Option<Sampling>,
}

impl Plan {
    /// Compiles the routes, upstreams and limits of `config` for `workers` workers. What `previous` has counted and knows
    /// about the keys of limits goes on, and so do upstreams that are the same, with what is known of their endpoints.
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
        let upstreams = clusters(config, workers, previous.map_or(&[], Self::upstreams))?;
        let mut routes: Vec<PlannedRoute> = Vec::with_capacity(config.routes.len());
        for (index, route) in config.routes.iter().enumerate() {
            let failed = |error| pattern(RouteId(index as u32), error);
            routes.push(Self::route_of(config, route, failed)?);
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
            config
                .upstreams
                .iter()
                .map(|upstream| upstream.name.as_str().into())
                .collect(),
            previous.map(Self::counters),
        );
        let path_rules = path::Rules {
            resolve_dots: config.paths.resolve_dots,
            merge_slashes: config.paths.merge_slashes,
            keep_encoded_slashes: routes.iter().any(|route| route.keeps_encoded_slashes),
        };
        Ok(Self {
            table,
            path_rules,
            routes,
            upstreams,
            authenticator,
            identity_fields,
            counters,
            probes: Probes::new(&config.offences.probes),
            sampling: config
                .traces
                .as_ref()
                .map(|traces| Sampling::per_million(traces.sampled_per_million)),
            limits: LimitPlan::compile(
                &config.request_limits,
                config.routes.len(),
                previous.map(Self::limits),
            ),
        })
    }

    /// Compiles one route.
    fn route_of(
        config: &Config,
        route: &Route,
        failed: impl Fn(PatternError) -> PlanError,
    ) -> Result<PlannedRoute, PlanError> {
        let action = match &route.action {
            Action::Upstream(_) | Action::Split(_) => {
                let destination = Destination::compile(&route.action, config.upstreams.len());
                PlannedAction::Forward(destination.ok_or_else(|| PlanError::Upstream {
                    route: route.name.clone(),
                })?)
            }
            Action::Redirect(redirect) => {
                let answer = PlannedAnswer::redirect(redirect, &route.matches.path);
                PlannedAction::Answer(answer.map_err(&failed)?)
            }
            Action::Respond(respond) => PlannedAction::Answer(PlannedAnswer::respond(respond)),
            Action::FanOut(fan_out) => {
                let planned = PlannedFanOut::compile(fan_out, &route.matches.path);
                PlannedAction::FanOut(planned.map_err(&failed)?)
            }
        };
        let cors = route.cors.as_ref().map(|cors| Arc::new(PlannedCors::new(cors)));
        // Bytes are not kept for another try.
        let is_tunnel = matches!(route.matches.path, PathPattern::Tunnel(_));
        Ok(PlannedRoute {
            name: route.name.as_str().into(),
            conditions: Conditions::compile(&route.matches).map_err(&failed)?,
            action,
            auth: route.auth.clone(),
            timeout: route.timeout,
            hyper: !is_tunnel
                && (route.compress.is_some()
                    || route.mirror.is_some()
                    || matches!(route.action, Action::FanOut(_))
                    || needs_hyper(config, &route.action)),
            request_timeout: route.request_timeout,
            idle_timeout: route.idle_timeout,
            body_limit: route.body_limit,
            keeps_encoded_slashes: route.keep_encoded_slashes,
            changes: PlannedChanges::compile(route, cors.clone()).map_err(&failed)?,
            cors,
            compress: route.compress.clone(),
            mirror: route.mirror.clone(),
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

    /// The upstreams.
    pub fn upstreams(&self) -> &[Arc<Cluster>] {
        &self.upstreams
    }

    /// Who understands tokens.
    pub fn authenticator(&self) -> &dyn Authenticate {
        &*self.authenticator
    }

    /// How paths are normalised: before there is a route, so by the loosest rule of all of them; [`super::route`] holds
    /// each route to its own.
    pub fn path_rules(&self) -> path::Rules {
        self.path_rules
    }

    /// Whether requests of this route need something that only the codec on hyper does.
    pub fn wants_hyper(&self, route: RouteId) -> bool {
        self.routes.get(route.index()).is_none_or(|route| route.hyper)
    }

    /// What was counted under this plan, and under those before for routes and upstreams of the same names.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many traces that begin here are sampled; `None` if no traces are sent.
    pub(crate) fn sampling(&self) -> Option<Sampling> {
        self.sampling
    }

    /// Paths that scanners look for.
    pub fn probes(&self) -> &Probes {
        &self.probes
    }

    /// How many requests of whom.
    pub fn limits(&self) -> &LimitPlan {
        &self.limits
    }

    /// Names of the fields that a permit may set, in lower case.
    pub fn identity_fields(&self) -> &[String] {
        &self.identity_fields
    }

    /// Whether a field is an identity that only this proxy may assert, in any spelling.
    pub fn is_identity(&self, name: &[u8]) -> bool {
        self.identity_fields
            .iter()
            .any(|field| alias_of(name, field.as_bytes()))
    }
}

/// Whether requests go to an upstream to which HTTP/2 is spoken, or may be, or for which bodies are kept.
fn needs_hyper(config: &Config, action: &Action) -> bool {
    let needs_hyper = |upstream: &usize| {
        let upstream = config.upstreams.get(*upstream);
        upstream.is_some_and(|upstream| {
            upstream.protocol != UpstreamProtocol::Http1 || upstream.retry.buffer_bytes > 0
        })
    };
    match action {
        Action::Upstream(upstream) => needs_hyper(upstream),
        Action::Split(split) => split.parts.iter().any(|(upstream, _)| needs_hyper(upstream)),
        Action::Redirect(_) | Action::Respond(_) | Action::FanOut(_) => false,
    }
}

fn clusters(
    config: &Config,
    workers: usize,
    before: &[Arc<Cluster>],
) -> Result<Vec<Arc<Cluster>>, PlanError> {
    let cluster = |upstream: &Upstream| {
        // Files may have changed behind the same paths.
        let is_current = |cluster: &Cluster| match (cluster.tls(), &upstream.tls) {
            (Some(tls), Some(config)) => tls.is_current(config),
            (tls, config) => tls.is_none() && config.is_none(),
        };
        let same = before
            .iter()
            .find(|cluster| cluster.config() == upstream && is_current(cluster));
        match same {
            Some(cluster) => Ok(Arc::clone(cluster)),
            None => Cluster::new(upstream.clone(), workers)
                .map(Arc::new)
                .map_err(|error| PlanError::Tls {
                    upstream: upstream.name.clone(),
                    error,
                }),
        }
    };
    config.upstreams.iter().map(cluster).collect()
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
