//! The limits of a configuration, compiled: which of them a route has, and what each keeps about its keys.

use std::{
    hash::Hasher,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    super::{authenticate::Permit, gate::Request, route::RouteId},
    cells::{Cells, Gcra, feed},
    slots::Slots,
};
use crate::{
    config::{LimitKey, RequestLimit},
    offence::score::host,
};

/// Every limit, and which are a route's.
#[derive(Debug, Default)]
pub struct LimitPlan {
    limits: Vec<Arc<PlannedLimit>>,
    routes: Vec<RouteLimits>,
}

/// A route's limits: those that need no token are asked before one is looked at.
#[derive(Debug, Default)]
struct RouteLimits {
    before: Vec<Arc<PlannedLimit>>,
    after: Vec<Arc<PlannedLimit>>,
}

/// One limit.
#[derive(Debug)]
pub struct PlannedLimit {
    pub(super) config: RequestLimit,
    pub(super) rate: Option<Gcra>,
    pub(super) cells: Arc<Cells>,
    pub(super) slots: Arc<Slots>,
    /// Its member of the field `RateLimit-Policy`.
    pub(super) policy: String,
    refused: AtomicU64,
    observed: AtomicU64,
}

/// What one limit has done.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LimitSnapshot {
    /// Its name.
    pub name: String,
    /// Requests refused.
    pub refused: u64,
    /// Requests that would have been refused.
    pub observed: u64,
}

impl LimitPlan {
    /// Compiles the limits for as many routes. What `previous` keeps about the keys of a limit of the same name and
    /// shape goes on.
    pub fn compile(limits: &[RequestLimit], routes: usize, previous: Option<&Self>) -> Self {
        let limits: Vec<_> = limits
            .iter()
            .map(|config| {
                let before = previous.and_then(|plan| plan.like(config));
                Arc::new(PlannedLimit::new(config, before))
            })
            .collect();
        let of = |route: usize, needs_token: bool| {
            let applies = |limit: &&Arc<PlannedLimit>| {
                let on = &limit.config.routes;
                (on.is_empty() || on.contains(&route)) && limit.needs_token() == needs_token
            };
            limits.iter().filter(applies).map(Arc::clone).collect()
        };
        Self {
            routes: (0..routes)
                .map(|route| RouteLimits {
                    before: of(route, false),
                    after: of(route, true),
                })
                .collect(),
            limits,
        }
    }

    fn like(&self, config: &RequestLimit) -> Option<&PlannedLimit> {
        let is_like = |limit: &&Arc<PlannedLimit>| {
            let own = &limit.config;
            own.name == config.name && own.by == config.by && own.keys == config.keys
        };
        self.limits.iter().find(is_like).map(|limit| &**limit)
    }

    /// The limits of a route that need no token.
    pub(in crate::gateway) fn before(&self, route: RouteId) -> &[Arc<PlannedLimit>] {
        self.routes
            .get(route.index())
            .map_or(&[], |limits| &limits.before)
    }

    /// The limits of a route that count by a claim.
    pub(in crate::gateway) fn after(&self, route: RouteId) -> &[Arc<PlannedLimit>] {
        self.routes.get(route.index()).map_or(&[], |limits| &limits.after)
    }

    /// What each has done, in the configuration's order.
    pub fn snapshot(&self) -> Vec<LimitSnapshot> {
        let one = |limit: &Arc<PlannedLimit>| LimitSnapshot {
            name: limit.config.name.clone(),
            refused: limit.refused.load(Ordering::Relaxed),
            observed: limit.observed.load(Ordering::Relaxed),
        };
        self.limits.iter().map(one).collect()
    }
}

impl PlannedLimit {
    fn new(config: &RequestLimit, before: Option<&Self>) -> Self {
        let rate = config
            .rate
            .map(|rate| Gcra::new(rate.requests.get().into(), rate.per, rate.burst.get().into()));
        let policy = config.rate.map_or_else(String::new, |rate| {
            // Whole seconds; a shorter window is told as one.
            let window = rate.per.as_secs().max(1);
            format!("\"{}\";q={};w={window}", config.name, rate.requests)
        });
        Self {
            rate,
            cells: before.map_or_else(
                || {
                    let keys = if rate.is_some() { config.keys.get() } else { 1 };
                    Arc::new(Cells::new(keys as usize))
                },
                |before| Arc::clone(&before.cells),
            ),
            slots: before.map_or_else(Arc::default, |before| Arc::clone(&before.slots)),
            policy,
            refused: AtomicU64::new(before.map_or(0, |before| before.refused.load(Ordering::Relaxed))),
            observed: AtomicU64::new(before.map_or(0, |before| before.observed.load(Ordering::Relaxed))),
            config: config.clone(),
        }
    }

    /// As it is configured.
    pub fn config(&self) -> &RequestLimit {
        &self.config
    }

    fn needs_token(&self) -> bool {
        self.config.by.iter().any(|key| matches!(key, LimitKey::Claim(_)))
    }

    /// Counts a request over the limit; whether it is to be refused.
    pub(super) fn exceeded(&self) -> bool {
        let counter = if self.config.observe {
            &self.observed
        } else {
            &self.refused
        };
        counter.fetch_add(1, Ordering::Relaxed);
        !self.config.observe
    }

    /// The tag of a request's key. What the request does not have is replaced by its client's address, so that leaving
    /// a header or a token out neither escapes the limit nor shares one with everybody else who does.
    pub(super) fn tag(&self, request: &Request<'_>, route: RouteId, client: IpAddr, permit: &Permit) -> u64 {
        self.cells.tag(|hasher| {
            let address = |hasher: &mut dyn Hasher, kind| match host(client).addr() {
                IpAddr::V4(v4) => feed(hasher, kind, &v4.octets()),
                IpAddr::V6(v6) => feed(hasher, kind, &v6.octets()),
            };
            for key in &self.config.by {
                match key {
                    LimitKey::Address => address(hasher, 0),
                    LimitKey::Route => feed(hasher, 1, &route.index().to_le_bytes()),
                    LimitKey::Header(name) => match request.values(name).next() {
                        Some(value) => feed(hasher, 2, value),
                        None => address(hasher, 3),
                    },
                    LimitKey::Claim(path) => {
                        match permit.identity.as_ref().and_then(|identity| identity.claim(path)) {
                            Some(value) => feed(hasher, 4, value.as_bytes()),
                            None => address(hasher, 5),
                        }
                    }
                }
            }
        })
    }
}
