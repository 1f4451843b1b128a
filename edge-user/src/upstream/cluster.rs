//! One upstream, for the whole process: its settings, its limits, and the snapshot of its usable endpoints.

use std::{
    fmt,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::{
    circuit::Circuit,
    endpoint::Endpoint,
    members::{FULL_SHARE, Member, Members},
    tls::{Tls, TlsError},
};
use crate::config::{Balance, EndpointHost, EndpointSpec, Upstream};

/// An upstream.
pub struct Cluster {
    config: Upstream,
    tls: Option<Tls>,
    circuit: Circuit,
    members: ArcSwap<Members>,
    version: AtomicU64,
    status: ArcSwap<Vec<EndpointStatus>>,
    fixed: Vec<(usize, Arc<Endpoint>)>,
    failing: Notify,
    settled: (Mutex<bool>, Condvar),
    workers: usize,
    made: Instant,
}

/// What is known of an endpoint, for operators.
#[derive(Debug, Clone)]
pub struct EndpointStatus {
    /// The endpoint, with its counts.
    pub endpoint: Arc<Endpoint>,
    /// What is thought of it.
    pub state: State,
}

/// What is thought of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It may be used, and was never checked.
    Unchecked,
    /// It may be used.
    Up,
    /// Its checks fail.
    Down,
    /// It is left out for what requests met there.
    Ejected,
}

impl Cluster {
    /// An upstream for `workers` workers. Endpoints that are addresses may be used at once; names are resolved by its
    /// keeper.
    ///
    /// # Errors
    /// Certificates or keys that cannot be used.
    pub fn new(config: Upstream, workers: usize) -> Result<Self, TlsError> {
        let tls = config
            .tls
            .as_ref()
            .map(|tls| Tls::load(tls, config.protocol))
            .transpose()?;
        let fixed: Vec<_> = config
            .endpoints
            .iter()
            .enumerate()
            .filter_map(|(index, spec)| Some((index, Arc::new(fixed(spec, workers)?))))
            .collect();
        let all: Vec<_> = fixed.iter().map(|(_, endpoint)| Arc::clone(endpoint)).collect();
        let usable: Vec<_> = all
            .iter()
            .map(|endpoint| Member {
                endpoint: Arc::clone(endpoint),
                share: FULL_SHARE,
            })
            .collect();
        let status = all
            .iter()
            .map(|endpoint| EndpointStatus {
                endpoint: Arc::clone(endpoint),
                state: State::Unchecked,
            })
            .collect();
        Ok(Self {
            circuit: Circuit::new(config.circuit),
            members: ArcSwap::from_pointee(Members::new(&config, &usable, &all)),
            version: AtomicU64::new(0),
            status: ArcSwap::from_pointee(status),
            fixed,
            failing: Notify::new(),
            settled: (Mutex::new(false), Condvar::new()),
            workers,
            made: Instant::now(),
            tls,
            config,
        })
    }

    /// Its settings.
    pub fn config(&self) -> &Upstream {
        &self.config
    }

    /// How TLS is spoken to it, if it is.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Its limits over all workers.
    pub fn circuit(&self) -> &Circuit {
        &self.circuit
    }

    /// What is known of each endpoint.
    pub fn status(&self) -> Arc<Vec<EndpointStatus>> {
        self.status.load_full()
    }

    /// The usable endpoints.
    pub fn members(&self) -> Arc<Members> {
        self.members.load_full()
    }

    /// Changes with [`Cluster::members`].
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Puts another set of usable endpoints in force.
    pub fn publish(&self, members: Members, status: Vec<EndpointStatus>) {
        self.status.store(Arc::new(status));
        self.members.store(Arc::new(members));
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Whether requests in flight have to be counted by endpoint.
    pub fn counts_active(&self) -> bool {
        matches!(self.config.balance, Balance::LeastRequest | Balance::PeakEwma)
    }

    /// Endpoints that are addresses, with the index of each in the configuration.
    pub fn fixed(&self) -> &[(usize, Arc<Endpoint>)] {
        &self.fixed
    }

    /// How many workers count in each endpoint.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Notes that every name was asked for once.
    pub(super) fn settle(&self) {
        *self.settled.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.settled.1.notify_all();
    }

    /// Waits until every name was asked for once; `false` if that takes longer than until `deadline`. Blocks.
    pub(super) fn wait_settled(&self, deadline: Instant) -> bool {
        if self.fixed.len() == self.config.endpoints.len() {
            return true;
        }
        let settled = self.settled.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self
            .settled
            .1
            .wait_timeout_while(settled, left, |settled| !*settled);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Nanoseconds from its making to `now`.
    pub(super) fn age_ns(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.made).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Tells the keeper that an endpoint fails too often.
    pub(super) fn tell_failing(&self) {
        self.failing.notify_one();
    }

    /// Waits until an endpoint fails too often.
    pub async fn failing(&self) {
        self.failing.notified().await;
    }
}

fn fixed(spec: &EndpointSpec, workers: usize) -> Option<Endpoint> {
    match &spec.host {
        EndpointHost::Address(address) => Some(Endpoint::new(
            *address,
            spec.host.clone(),
            spec.weight,
            spec.zone.as_deref(),
            workers,
        )),
        EndpointHost::Name { .. } | EndpointHost::Service(_) => None,
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("name", &self.config.name)
            .field("members", &self.members.load().len())
            .finish_non_exhaustive()
    }
}
