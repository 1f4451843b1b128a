//! The way from the request path to the scores: bounded, never blocking, losses counted.
//!
//! A worker that reports wakes the enforcer at most once in a quiet while: the reader looks by itself every
//! [`POLL`] as long as offences keep coming, and sleeps until woken only when none has come for [`QUIET`].

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{
    OffenceKind, OffenceSink, Offender,
    detained::{Custody, Detained},
};
use crate::config::Weights;

/// Offences that may wait: what 100,000 a second are in 80 ms.
pub const QUEUE: usize = 8_192;
/// How often a busy reader looks.
pub const POLL: Duration = Duration::from_millis(2);
/// A reader that has seen nothing for so long sleeps until it is woken.
pub const QUIET: Duration = Duration::from_secs(1);

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
    counts: Arc<Counts>,
    /// One bit for each kind that weighs anything: the others need not go the way.
    scored: Arc<AtomicU32>,
    detained: Arc<Detained>,
}

/// What all workers have reported. Only who offends pays for the shared cache lines.
#[derive(Debug, Default)]
struct Counts {
    lost: AtomicU64,
    kinds: [AtomicU64; OffenceKind::COUNT],
}

/// The enforcer's end.
#[derive(Debug)]
pub struct Reports {
    queue: mpsc::Receiver<Offence>,
    last: Option<Instant>,
}

impl Reporter {
    /// Both ends.
    pub fn new(weights: &Weights, detained: Arc<Detained>) -> (Self, Reports) {
        let (queue, offences) = mpsc::channel(QUEUE);
        let reporter = Self {
            queue,
            counts: Arc::default(),
            scored: Arc::new(AtomicU32::new(scored(weights))),
            detained,
        };
        let reports = Reports {
            queue: offences,
            last: None,
        };
        (reporter, reports)
    }

    /// Takes other weights from now on.
    pub fn configure(&self, weights: &Weights) {
        self.scored.store(scored(weights), Ordering::Relaxed);
    }

    /// Offences that found the queue full.
    pub fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }

    /// Offences reported, of each kind, whether they weigh anything or not.
    pub fn reported(&self) -> impl Iterator<Item = (OffenceKind, u64)> {
        let count = |kind: &OffenceKind| self.counts.kinds[kind.index()].load(Ordering::Relaxed);
        OffenceKind::ALL.iter().map(move |kind| (*kind, count(kind)))
    }
}

fn scored(weights: &Weights) -> u32 {
    OffenceKind::ALL
        .iter()
        .filter(|kind| kind.weight(weights) > 0)
        .fold(0, |bits, kind| bits | 1 << kind.index())
}

impl OffenceSink for Reporter {
    fn offence(&self, offender: Offender, kind: OffenceKind) {
        self.counts.kinds[kind.index()].fetch_add(1, Ordering::Relaxed);
        if self.scored.load(Ordering::Relaxed) >> kind.index() & 1 == 0 {
            return;
        }
        if self.queue.try_send(Offence { offender, kind }).is_err() {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn custody(&self, client: IpAddr, now: Instant) -> Option<Custody> {
        self.detained.custody(client, now)
    }

    fn slowed(&self, client: IpAddr, now: Instant) -> bool {
        self.detained.admits(client, now)
    }
}

impl Reports {
    /// Waits until there may be offences; false when every worker has ended. They are put into `taken`, which is
    /// emptied first. Cancel safe: what was taken out of the queue is in `taken`.
    pub async fn next(&mut self, taken: &mut Vec<Offence>) -> bool {
        taken.clear();
        let is_busy = self.last.is_some_and(|last| last.elapsed() < QUIET);
        if is_busy {
            tokio::time::sleep(POLL).await;
        } else {
            match self.queue.recv().await {
                Some(first) => taken.push(first),
                None => return false,
            }
        }
        loop {
            match self.queue.try_recv() {
                Ok(offence) => taken.push(offence),
                Err(mpsc::error::TryRecvError::Disconnected) if taken.is_empty() => return false,
                Err(_) => break,
            }
            if taken.len() >= QUEUE {
                break;
            }
        }
        if !taken.is_empty() {
            self.last = Some(Instant::now());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(weights: &Weights) -> (Reporter, Reports) {
        Reporter::new(weights, Arc::new(Detained::new(Instant::now(), 1)))
    }

    #[tokio::test]
    async fn what_weighs_nothing_stays_and_what_finds_no_room_is_counted() {
        let (reporter, mut reports) = pair(&Weights::default());
        let one = Offender::peer(IpAddr::from([192, 0, 2, 1]));
        reporter.offence(one, OffenceKind::NotFound);
        for _ in 0..QUEUE + 10 {
            reporter.offence(one, OffenceKind::Malformed);
        }
        assert_eq!(reporter.lost(), 10);
        let mut taken = Vec::new();
        assert!(reports.next(&mut taken).await);
        assert_eq!(taken.len(), QUEUE);
        assert!(taken.iter().all(|offence| offence.kind == OffenceKind::Malformed));
        reporter.offence(one, OffenceKind::Smuggling);
        assert!(reports.next(&mut taken).await);
        assert_eq!(taken.len(), 1);
        drop(reporter);
        assert!(!reports.next(&mut taken).await);
    }
}
