//! What was served and what was refused, counted per worker and summed when somebody reads.
//!
//! Each worker writes its own counters and nobody else's, so counting is a load and a store, never a locked
//! instruction or a cache line shared between cores.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{
    refusal::Reason,
    route::RouteId,
    tax::{RouteTax, Tax, TaxSnapshot},
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
pub struct RouteCounters {
    statuses: [Counter; 5],
    received: Counter,
    sent: Counter,
    tax: RouteTax,
}

/// Counters of one worker.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    routes: Box<[RouteCounters]>,
    refusals: Box<[Counter]>,
    upstream_connects: Counter,
    upstream_reuses: Counter,
    retries: Counter,
    mirrored: Counter,
    unmirrored: Counter,
}

/// What happened to one request, as far as it is counted.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// The route, if one was found.
    pub route: Option<RouteId>,
    /// Status the client got; 0 if it got none.
    pub status: u16,
    /// Why it was refused, if it was.
    pub reason: Option<Reason>,
    /// Body bytes from the client.
    pub received: u64,
    /// Body bytes to the client.
    pub sent: u64,
    /// The proxy's own time.
    pub tax: Tax,
}

impl WorkerCounters {
    /// Counts a finished request.
    pub fn finish(&self, outcome: &Outcome) {
        if let Some(reason) = outcome.reason
            && let Some(counter) = self.refusals.get(reason.index())
        {
            counter.add(1);
        }
        let Some(route) = outcome.route.and_then(|route| self.routes.get(route.index())) else {
            return;
        };
        if let Some(class) = usize::from(outcome.status / 100).checked_sub(1)
            && let Some(counter) = route.statuses.get(class)
        {
            counter.add(1);
        }
        route.received.add(outcome.received);
        route.sent.add(outcome.sent);
        route.tax.add(&outcome.tax);
    }

    /// Counts a connection made to an upstream.
    pub fn connected(&self) {
        self.upstream_connects.add(1);
    }

    /// Counts an upstream connection used again.
    pub fn reused(&self) {
        self.upstream_reuses.add(1);
    }

    /// Counts a copy that was sent, or one that was not: the body was too long or under way, or too much was.
    pub fn mirrored(&self, sent: bool) {
        if sent { &self.mirrored } else { &self.unmirrored }.add(1);
    }

    /// Counts a request sent a second time.
    pub fn retried(&self) {
        self.retries.add(1);
    }
}

/// The counters of every worker.
#[derive(Debug)]
pub struct Counters {
    names: Vec<Arc<str>>,
    workers: Vec<Arc<WorkerCounters>>,
}

impl Counters {
    /// Zeroes for `workers` workers and the routes of these names.
    pub fn new(workers: usize, names: Vec<Arc<str>>) -> Self {
        let worker = || {
            Arc::new(WorkerCounters {
                routes: names.iter().map(|_| RouteCounters::default()).collect(),
                refusals: Reason::ALL.iter().map(|_| Counter::default()).collect(),
                ..WorkerCounters::default()
            })
        };
        Self {
            workers: (0..workers).map(|_| worker()).collect(),
            names,
        }
    }

    /// The counters of one worker.
    pub fn worker(&self, index: usize) -> Option<Arc<WorkerCounters>> {
        self.workers.get(index).cloned()
    }

    /// The sums over all workers.
    pub fn snapshot(&self) -> CountersSnapshot {
        let sum = |get: &dyn Fn(&WorkerCounters) -> u64| self.workers.iter().map(|worker| get(worker)).sum();
        let routes = self.names.iter().enumerate().map(|(index, name)| RouteSnapshot {
            name: name.to_string(),
            statuses: std::array::from_fn(|class| sum(&|worker| worker.routes[index].statuses[class].get())),
            received: sum(&|worker| worker.routes[index].received.get()),
            sent: sum(&|worker| worker.routes[index].sent.get()),
            tax: self
                .workers
                .iter()
                .fold(TaxSnapshot::default(), |mut merged, worker| {
                    worker.routes[index].tax.merge_into(&mut merged);
                    merged
                }),
        });
        CountersSnapshot {
            routes: routes.collect(),
            refusals: Reason::ALL
                .iter()
                .map(|reason| (*reason, sum(&|worker| worker.refusals[reason.index()].get())))
                .collect(),
            upstream_connects: sum(&|worker| worker.upstream_connects.get()),
            upstream_reuses: sum(&|worker| worker.upstream_reuses.get()),
            retries: sum(&|worker| worker.retries.get()),
            mirrored: sum(&|worker| worker.mirrored.get()),
            unmirrored: sum(&|worker| worker.unmirrored.get()),
        }
    }
}

/// Counters at one moment, all workers together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountersSnapshot {
    /// By route, in the plan's order.
    pub routes: Vec<RouteSnapshot>,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSnapshot {
    /// Name of the route.
    pub name: String,
    /// Requests answered with 1xx to 5xx.
    pub statuses: [u64; 5],
    /// Body bytes from clients.
    pub received: u64,
    /// Body bytes to clients.
    pub sent: u64,
    /// The gateway tax.
    pub tax: TaxSnapshot,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tax::Phase;

    #[test]
    fn workers_are_summed() {
        let counters = Counters::new(2, vec!["a".into(), "b".into()]);
        let outcome = Outcome {
            route: Some(RouteId(1)),
            status: 401,
            reason: Some(Reason::TokenMissing),
            received: 3,
            sent: 5,
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
}
