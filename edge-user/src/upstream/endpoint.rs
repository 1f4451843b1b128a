//! One endpoint: where it is, and what requests met there.
//!
//! Each worker counts in its own [`Lane`]; shared between cores are the failures in a row, written only when there
//! are any, and the requests in flight, counted only where the way of balancing asks for them.

use std::{
    fmt,
    net::SocketAddr,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use crate::config::EndpointHost;

/// What one worker counted. Written by that worker alone; a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Lane {
    requests: AtomicU64,
    failures: AtomicU64,
    /// Expected latency in nanoseconds, as the bits of an `f64`.
    pub(super) latency: AtomicU64,
    /// When it was last measured, in nanoseconds since the upstream was made.
    pub(super) measured: AtomicU64,
}

impl Lane {
    fn add(counter: &AtomicU64) {
        counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
    }
}

/// One endpoint.
pub struct Endpoint {
    id: u64,
    address: SocketAddr,
    host: EndpointHost,
    weight: NonZeroU32,
    zone: Option<Arc<str>>,
    in_a_row: AtomicU32,
    active: AtomicU32,
    lanes: Box<[Lane]>,
}

/// The next [`Endpoint::id`].
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Endpoint {
    /// An endpoint of which nothing is known, for `workers` workers.
    pub fn new(
        address: SocketAddr,
        host: EndpointHost,
        weight: NonZeroU32,
        zone: Option<&str>,
        workers: usize,
    ) -> Self {
        Self {
            id: NEXT_ID.fetch_add(1, Relaxed),
            address,
            host,
            weight,
            zone: zone.map(Arc::from),
            in_a_row: AtomicU32::new(0),
            active: AtomicU32::new(0),
            lanes: (0..workers.max(1)).map(|_| Lane::default()).collect(),
        }
    }

    /// Unique in the process, never used again: what connections are kept by.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As what it was configured.
    pub fn host(&self) -> &EndpointHost {
        &self.host
    }

    /// Its share relative to the others.
    pub fn weight(&self) -> NonZeroU32 {
        self.weight
    }

    /// Where it stands.
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// Requests and failures, all workers together.
    pub fn counts(&self) -> (u64, u64) {
        self.lanes.iter().fold((0, 0), |(requests, failures), lane| {
            (
                requests + lane.requests.load(Relaxed),
                failures + lane.failures.load(Relaxed),
            )
        })
    }

    /// Requests in flight; zero where they are not counted.
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// Failures since the last success.
    pub fn failures_in_a_row(&self) -> u32 {
        self.in_a_row.load(Relaxed)
    }

    /// Forgets failures, when an ejection ends.
    pub fn forgive(&self) {
        self.in_a_row.store(0, Relaxed);
    }

    pub(super) fn lane(&self, worker: usize) -> Option<&Lane> {
        self.lanes.get(worker)
    }

    pub(super) fn began(&self) {
        self.active.fetch_add(1, Relaxed);
    }

    pub(super) fn ended(&self) {
        self.active.fetch_sub(1, Relaxed);
    }

    pub(super) fn succeeded(&self, worker: usize) {
        if let Some(lane) = self.lane(worker) {
            Lane::add(&lane.requests);
        }
        // A load of a line that nobody writes while all goes well.
        if self.in_a_row.load(Relaxed) != 0 {
            self.in_a_row.store(0, Relaxed);
        }
    }

    /// Counts a failure; answers with how many came in a row.
    pub(super) fn failed(&self, worker: usize) -> u32 {
        if let Some(lane) = self.lane(worker) {
            Lane::add(&lane.requests);
            Lane::add(&lane.failures);
        }
        self.in_a_row.fetch_add(1, Relaxed).saturating_add(1)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("id", &self.id)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
