//! Traces: what one sampled request did, phase by phase, on its way to a collector that speaks OTLP.
//!
//! A worker hands a finished request over and never waits; what the queue cannot take is lost and counted. Encoding and
//! sending happen elsewhere. Never holds a query, a cookie, a field value or a token.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use tokio::sync::mpsc;

mod wire;

pub use wire::encode;

/// Requests that may wait to be sent.
pub const QUEUE: usize = 4096;

/// One request.
#[derive(Debug, Clone)]
pub struct Traced {
    /// The trace that it belongs to.
    pub trace: [u8; 16],
    /// The id of its span here.
    pub span: [u8; 8],
    /// The caller's span, if it sent one.
    pub parent: Option<[u8; 8]>,
    /// When its head was complete.
    pub start: SystemTime,
    /// From there to the decision where it goes.
    pub decide: Duration,
    /// From there until the upstream had the request's head.
    pub send: Duration,
    /// Of that, waiting for a new connection.
    pub connect: Duration,
    /// From there to the upstream's response head.
    pub wait: Duration,
    /// From there to the last byte of the answer.
    pub body: Duration,
    /// Method.
    pub method: String,
    /// Normalised path, without its query.
    pub path: String,
    /// The route, if one was found.
    pub route: String,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Endpoint that was tried last.
    pub upstream: Option<SocketAddr>,
    /// Status the client got; 0 if it got none.
    pub status: u16,
    /// Why it was refused; empty if it was not.
    pub reason: &'static str,
    /// Body bytes from the client.
    pub received: u64,
    /// Body bytes to the client.
    pub sent: u64,
}

/// What became of requests that were to be traced.
#[derive(Debug, Default)]
pub struct TraceCounts {
    exported: AtomicU64,
    lost: AtomicU64,
}

impl TraceCounts {
    /// Counts requests whose spans a collector took.
    pub fn exported(&self, count: usize) {
        self.exported.fetch_add(count as u64, Relaxed);
    }

    /// Counts requests whose spans nobody got.
    pub fn lost(&self, count: usize) {
        self.lost.fetch_add(count as u64, Relaxed);
    }

    /// Exported and lost.
    pub fn get(&self) -> (u64, u64) {
        (self.exported.load(Relaxed), self.lost.load(Relaxed))
    }
}

/// The workers' end. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tracer {
    queue: mpsc::Sender<Box<Traced>>,
    counts: Arc<TraceCounts>,
}

impl Tracer {
    /// Both ends.
    pub fn new() -> (Self, mpsc::Receiver<Box<Traced>>) {
        let (queue, traced) = mpsc::channel(QUEUE);
        let counts = Arc::default();
        (Self { queue, counts }, traced)
    }

    /// Hands a request over; never waits.
    pub fn tell(&self, traced: Box<Traced>) {
        if self.queue.try_send(traced).is_err() {
            self.counts.lost(1);
        }
    }

    /// What became of them.
    pub fn counts(&self) -> &Arc<TraceCounts> {
        &self.counts
    }
}
