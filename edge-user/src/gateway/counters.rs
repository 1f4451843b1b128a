//! What was served and what was refused, counted per worker and summed when somebody reads.
//!
//! Each worker writes its own counters and nobody else's, so counting is a load and a store, never a locked
//! instruction or a cache line shared between cores. What is counted of a route or upstream goes on under a new plan that
//! has one of the same name.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    durations::{Durations, DurationsSnapshot},
    refusal::Reason,
    route::RouteId,
    tax::{HistogramSnapshot, RouteLatency, RouteTax, Tax, TaxSnapshot},
};

/// A counter that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it; only from the worker that owns it.
    #[inline]
    pub fn add(&self, amount: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(amount),
            Ordering::Relaxed,
        );
    }

    /// Its value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of one route on one worker.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct RouteCounters {
    statuses: [Counter; 5],
    unanswered: Counter,
    received: Counter,
    sent: Counter,
    verified: Counter,
    durations: Durations,
    latency: RouteLatency,
    tax: RouteTax,
}

/// Counters of one upstream on one worker.
#[derive(Debug)]
#[repr(align(64))]
pub struct UpstreamCounters {
    statuses: [Counter; 5],
    failures: [Counter; Reason::COUNT],
    durations: Durations,
}

impl Default for UpstreamCounters {
    fn default() -> Self {
        Self {
            statuses: Default::default(),
            failures: std::array::from_fn(|_| Counter::default()),
            durations: Durations::default(),
        }
    }
}

/// Counters of one worker.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    routes: Box<[Arc<RouteCounters>]>,
    upstreams: Box<[Arc<UpstreamCounters>]>,
    totals: Arc<Totals>,
}

/// What one worker counts for all routes together.
#[derive(Debug)]
#[repr(align(64))]
struct Totals {
    refusals: [Counter; Reason::COUNT],
    upstream_connects: Counter,
    upstream_reuses: Counter,
    retries: Counter,
    mirrored: Counter,
    unmirrored: Counter,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            refusals: std::array::from_fn(|_| Counter::default()),
            upstream_connects: Counter::default(),
            upstream_reuses: Counter::default(),
            retries: Counter::default(),
            mirrored: Counter::default(),
            unmirrored: Counter::default(),
        }
    }
}

/// What happened to one request, as far as it is counted.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// The route, if one was found.
    pub route: Option<RouteId>,
    /// Index of the upstream, if the request was to be forwarded.
    pub upstream: Option<usize>,
    /// Status the client got; 0 if it got none.
    pub status: u16,
    /// Why it was refused, if it was.
    pub reason: Option<Reason>,
    /// Body bytes from the client.
    pub received: u64,
    /// Body bytes to the client.
    pub sent: u64,
    /// Whether it carried a token that was verified.
    pub verified: bool,
    /// From the request head to the last byte of the response.
    pub total: Duration,
    /// From the decision to the upstream's response head, connecting and retries included.
    pub upstream_time: Duration,
    /// The proxy's own time.
    pub tax: Tax,
}

impl WorkerCounters {
    /// Counts a finished request.
    pub fn finish(&self, outcome: &Outcome) {
        if let Some(reason) = outcome.reason
            && let Some(counter) = self.totals.refusals.get(reason.index())
        {
            counter.add(1);
        }
        if let Some(upstream) = outcome.upstream.and_then(|index| self.upstreams.get(index)) {
            upstream.finish(outcome);
        }
        let Some(route) = outcome.route.and_then(|route| self.routes.get(route.index())) else {
            return;
        };
        class(&route.statuses, outcome.status)
            .unwrap_or(&route.unanswered)
            .add(1);
        route.received.add(outcome.received);
        route.sent.add(outcome.sent);
        if outcome.verified {
            route.verified.add(1);
        }
        route.durations.add(outcome.total);
        route.latency.add(outcome.total);
        route.tax.add(&outcome.tax);
    }

    /// Counts a connection made to an upstream.
    pub fn connected(&self) {
        self.totals.upstream_connects.add(1);
    }

    /// Counts an upstream connection used again.
    pub fn reused(&self) {
        self.totals.upstream_reuses.add(1);
    }

    /// Counts a copy that was sent, or one that was not: the body was too long or under way, or too much was.
    pub fn mirrored(&self, sent: bool) {
        let totals = &self.totals;
        if sent {
            &totals.mirrored
        } else {
            &totals.unmirrored
        }
        .add(1);
    }

    /// Counts a request sent a second time.
    pub fn retried(&self) {
        self.totals.retries.add(1);
    }
}

/// The counter of a status' class.
fn class(statuses: &[Counter; 5], status: u16) -> Option<&Counter> {
    usize::from(status / 100)
        .checked_sub(1)
        .and_then(|class| statuses.get(class))
}

impl UpstreamCounters {
    fn finish(&self, outcome: &Outcome) {
        match outcome.reason.filter(|reason| reason.is_about_upstream()) {
            Some(reason) => {
                if let Some(counter) = self.failures.get(reason.index()) {
                    counter.add(1);
                }
            }
            None => {
                if let Some(counter) = class(&self.statuses, outcome.status) {
                    counter.add(1);
                }
            }
        }
        self.durations.add(outcome.upstream_time);
    }
}

/// The counters of every worker.
#[derive(Debug)]
pub struct Counters {
    names: Vec<Arc<str>>,
    upstreams: Vec<Arc<str>>,
    workers: Vec<Arc<WorkerCounters>>,
}

impl Counters {
    /// Counters for `workers` workers and the routes and upstreams of these names; what `previous` counted for the same
    /// names goes on, the rest begins at zero.
    pub fn new(
        workers: usize,
        names: Vec<Arc<str>>,
        upstreams: Vec<Arc<str>>,
        previous: Option<&Self>,
    ) -> Self {
        let index_of = |names: &[Arc<str>]| -> HashMap<Arc<str>, usize> {
            let indexed = names.iter().enumerate();
            indexed.map(|(index, name)| (Arc::clone(name), index)).collect()
        };
        let (routes_before, upstreams_before) = previous.map_or_else(Default::default, |before| {
            (index_of(&before.names), index_of(&before.upstreams))
        });
        let worker = |worker: usize| {
            let before = previous.and_then(|before| before.workers.get(worker));
            let route = |name| {
                let index = *routes_before.get(name)?;
                before?.routes.get(index).cloned()
            };
            let upstream = |name| {
                let index = *upstreams_before.get(name)?;
                before?.upstreams.get(index).cloned()
            };
            Arc::new(WorkerCounters {
                routes: names.iter().map(|name| route(name).unwrap_or_default()).collect(),
                upstreams: upstreams
                    .iter()
                    .map(|name| upstream(name).unwrap_or_default())
                    .collect(),
                totals: before.map_or_else(Arc::default, |before| Arc::clone(&before.totals)),
            })
        };
        Self {
            workers: (0..workers).map(worker).collect(),
            names,
            upstreams,
        }
    }

    /// The counters of one worker.
    pub fn worker(&self, index: usize) -> Option<Arc<WorkerCounters>> {
        self.workers.get(index).cloned()
    }

    /// The sums over all workers.
    pub fn snapshot(&self) -> CountersSnapshot {
        let total = |get: &dyn Fn(&Totals) -> u64| self.sum(&|worker| get(&worker.totals));
        CountersSnapshot {
            routes: (0..self.names.len()).map(|index| self.route(index)).collect(),
            upstreams: (0..self.upstreams.len())
                .map(|index| self.upstream(index))
                .collect(),
            refusals: Reason::ALL
                .iter()
                .map(|reason| (*reason, total(&|totals| totals.refusals[reason.index()].get())))
                .collect(),
            upstream_connects: total(&|totals| totals.upstream_connects.get()),
            upstream_reuses: total(&|totals| totals.upstream_reuses.get()),
            retries: total(&|totals| totals.retries.get()),
            mirrored: total(&|totals| totals.mirrored.get()),
            unmirrored: total(&|totals| totals.unmirrored.get()),
        }
    }

    fn sum(&self, get: &dyn Fn(&WorkerCounters) -> u64) -> u64 {
        self.workers.iter().map(|worker| get(worker)).sum()
    }

    fn route(&self, index: usize) -> RouteSnapshot {
        let sum = |get: &dyn Fn(&RouteCounters) -> u64| self.sum(&|worker| get(&worker.routes[index]));
        let (mut tax, mut durations) = (TaxSnapshot::default(), DurationsSnapshot::default());
        let mut latency = HistogramSnapshot::default();
        for worker in &self.workers {
            worker.routes[index].tax.merge_into(&mut tax);
            worker.routes[index].durations.merge_into(&mut durations);
            worker.routes[index].latency.merge_into(&mut latency);
        }
        RouteSnapshot {
            name: self.names[index].to_string(),
            statuses: std::array::from_fn(|class| sum(&|route| route.statuses[class].get())),
            unanswered: sum(&|route| route.unanswered.get()),
            received: sum(&|route| route.received.get()),
            sent: sum(&|route| route.sent.get()),
            verified: sum(&|route| route.verified.get()),
            durations,
            latency,
            tax,
        }
    }

    fn upstream(&self, index: usize) -> UpstreamSnapshot {
        let sum = |get: &dyn Fn(&UpstreamCounters) -> u64| self.sum(&|worker| get(&worker.upstreams[index]));
        let mut durations = DurationsSnapshot::default();
        for worker in &self.workers {
            worker.upstreams[index].durations.merge_into(&mut durations);
        }
        UpstreamSnapshot {
            name: self.upstreams[index].to_string(),
            statuses: std::array::from_fn(|class| sum(&|upstream| upstream.statuses[class].get())),
            failures: Reason::ALL
                .iter()
                .map(|reason| (*reason, sum(&|upstream| upstream.failures[reason.index()].get())))
                .filter(|(_, count)| *count > 0)
                .collect(),
            durations,
        }
    }
}

/// Counters at one moment, all workers together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CountersSnapshot {
    /// By route, in the plan's order.
    pub routes: Vec<RouteSnapshot>,
    /// By upstream, in the plan's order.
    pub upstreams: Vec<UpstreamSnapshot>,
    /// By reason, in the order of [`Reason::ALL`].
    pub refusals: Vec<(Reason, u64)>,
    /// Connections made to upstreams.
    pub upstream_connects: u64,
    /// Times an upstream connection was used again.
    pub upstream_reuses: u64,
    /// Requests sent a second time.
    pub retries: u64,
    /// Copies of requests sent to mirrors.
    pub mirrored: u64,
    /// Copies that were due and not sent: the body was too long, or was under way still when the answer came, or too
    /// many were under way.
    pub unmirrored: u64,
}

impl CountersSnapshot {
    /// How often a request was refused for this reason.
    pub fn refused(&self, reason: Reason) -> u64 {
        self.refusals.get(reason.index()).map_or(0, |(_, count)| *count)
    }
}

/// Counters of one route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteSnapshot {
    /// Name of the route.
    pub name: String,
    /// Requests answered with 1xx to 5xx.
    pub statuses: [u64; 5],
    /// Requests whose client got no status: it had left.
    pub unanswered: u64,
    /// Body bytes from clients.
    pub received: u64,
    /// Body bytes to clients.
    pub sent: u64,
    /// Requests with a verified token.
    pub verified: u64,
    /// How long requests took, from the head to the last byte of the response.
    pub durations: DurationsSnapshot,
    /// The same, finely.
    pub latency: HistogramSnapshot,
    /// The gateway tax.
    pub tax: TaxSnapshot,
}

/// Counters of one upstream: of requests that were forwarded, or were to be; mirrors and parts of merged answers are not
/// among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamSnapshot {
    /// Name of the upstream.
    pub name: String,
    /// Requests that it answered with 1xx to 5xx.
    pub statuses: [u64; 5],
    /// Requests that came to nothing there, by reason.
    pub failures: Vec<(Reason, u64)>,
    /// From the decision to the response head, connecting and retries included.
    pub durations: DurationsSnapshot,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tax::Phase;

    #[test]
    fn workers_are_summed() {
        let names = vec!["a".into(), "b".into()];
        let counters = Counters::new(2, names, vec!["u".into()], None);
        let outcome = Outcome {
            route: Some(RouteId(1)),
            status: 401,
            upstream: None,
            reason: Some(Reason::TokenMissing),
            received: 3,
            sent: 5,
            verified: false,
            total: Duration::from_millis(1),
            upstream_time: Duration::ZERO,
            tax: Tax {
                decide_ns: 9_000,
                ..Tax::default()
            },
        };
        for index in [0, 1, 1] {
            counters.worker(index).expect("exists").finish(&outcome);
        }
        let snapshot = counters.snapshot();
        assert_eq!(snapshot.routes[1].statuses, [0, 0, 0, 3, 0]);
        assert_eq!(snapshot.routes[0].statuses, [0; 5]);
        assert_eq!((snapshot.routes[1].received, snapshot.routes[1].sent), (9, 15));
        let decide = snapshot.routes[1].tax.phase(Phase::Decide);
        assert_eq!((decide.count, decide.sum_ns), (3, 27_000));
        assert_eq!(snapshot.routes[0].tax, TaxSnapshot::default());
        assert_eq!(snapshot.refused(Reason::TokenMissing), 3);
    }

    #[test]
    fn a_new_plan_counts_on_what_has_the_same_name() {
        let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect::<Vec<_>>();
        let before = Counters::new(1, names(&["a", "b"]), names(&["u", "v"]), None);
        let outcome = |route, upstream, status, reason| Outcome {
            route: Some(RouteId(route)),
            upstream: Some(upstream),
            status,
            reason,
            received: 0,
            sent: 0,
            verified: true,
            total: Duration::from_millis(2),
            upstream_time: Duration::from_millis(1),
            tax: Tax::default(),
        };
        let worker = before.worker(0).expect("exists");
        worker.finish(&outcome(1, 1, 200, None));
        worker.finish(&outcome(1, 1, 502, Some(Reason::UpstreamReset)));
        let after = Counters::new(1, names(&["b", "c"]), names(&["v"]), Some(&before));
        // A request that began under the old plan ends after the change.
        worker.finish(&outcome(1, 1, 404, None));
        after
            .worker(0)
            .expect("exists")
            .finish(&outcome(0, 0, 0, Some(Reason::BodyCutShort)));
        let snapshot = after.snapshot();
        assert_eq!(snapshot.routes[0].statuses, [0, 1, 0, 1, 1]);
        assert_eq!(
            (snapshot.routes[0].unanswered, snapshot.routes[0].verified),
            (1, 4)
        );
        assert_eq!(snapshot.routes[1].durations.count(), 0);
        assert_eq!(snapshot.upstreams[0].statuses, [0, 1, 0, 1, 0]);
        assert_eq!(snapshot.upstreams[0].failures, [(Reason::UpstreamReset, 1)]);
        assert_eq!(snapshot.upstreams[0].durations.count(), 4);
        assert_eq!(snapshot.refused(Reason::UpstreamReset), 1);
    }
}
