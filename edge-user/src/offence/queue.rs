//! The way from the request path to the scores: bounded, never blocking, losses counted.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::mpsc;

use super::{OffenceKind, OffenceSink, Offender};

/// Offences that may wait.
pub const QUEUE: usize = 8_192;

/// One offence on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offence {
    /// Who did it.
    pub offender: Offender,
    /// What it did.
    pub kind: OffenceKind,
}

/// The workers' end.
#[derive(Debug, Clone)]
pub struct Reporter {
    queue: mpsc::Sender<Offence>,
    lost: Arc<AtomicU64>,
}

impl Reporter {
    /// Both ends.
    pub fn new() -> (Self, mpsc::Receiver<Offence>) {
        let (queue, offences) = mpsc::channel(QUEUE);
        let reporter = Self {
            queue,
            lost: Arc::default(),
        };
        (reporter, offences)
    }

    /// Offences that found the queue full.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl OffenceSink for Reporter {
    fn offence(&self, offender: Offender, kind: OffenceKind) {
        if self.queue.try_send(Offence { offender, kind }).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}
